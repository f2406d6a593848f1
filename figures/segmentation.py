"""Slices with the outlines that a U-Net predicts and, if they are known, the true ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.saving import save_figure
from jaxcnn.cpu import keep_freed_memory
from jaxcnn.data.dataset import evenly_spread
from jaxcnn.data.slices import Slices, load_slices
from jaxcnn.errors import UserError
from jaxcnn.evaluation.masks import dice
from jaxcnn.inference.segmentation import Preset, default_preset, load_segmenter, segmenter
from jaxcnn.program_cache import keep_programs
from jaxcnn.tables import format_table

# Colour-blind people can tell these apart, and they differ in grey.
COLOURS = {"predicted": "#ff9f1c", "true": "#2ec4f1"}
LINES: dict[str, Literal["solid", "dashed"]] = {"predicted": "solid", "true": "dashed"}

# The table has all patients; the figure shows at most this many patients and slices.
_ROWS = 6
_COLUMNS = 4


def segmentation_figure(slices: Slices, predicted: Bool[np.ndarray, "n height width"]) -> Figure:
    """One row per patient, with slices spread evenly over those that have a mask, predicted or true."""
    masks = {"predicted": predicted} if slices.marked is None else {"predicted": predicted, "true": slices.marked}
    patients = evenly_spread(np.array(slices.patient_names), _ROWS).tolist()
    figure = Figure(figsize=(2 * _COLUMNS, 2.2 * len(patients) + 0.4), layout="constrained")
    for row, patient in zip(figure.subplots(len(patients), _COLUMNS, squeeze=False), patients, strict=True):
        places = slices.places(patient)
        row[0].set_ylabel(_row_label(slices, predicted, patient), fontsize="small")
        for panel in row:
            panel.set(xticks=[], yticks=[], frame_on=False)
        for panel, number in zip(row, _worth_seeing(slices, predicted, patient).tolist(), strict=False):
            place = int(places[number])
            # The middle channel is FLAIR in the LGG data, where a tumour is bright.
            panel.imshow(slices.images[place, ..., slices.images.shape[3] // 2], cmap="gray", vmin=0, vmax=255)
            draw_outlines(panel, {name: mask[place] for name, mask in masks.items()})
            panel.set_title(f"slice {number + 1} of {len(places)}", fontsize="small")
    add_legend(figure, list(masks))
    return figure


def _worth_seeing(
    slices: Slices, predicted: Bool[np.ndarray, "n height width"], patient: str
) -> Shaped[np.ndarray, " k"]:
    """Numbers of some of the patient's slices that have a mask, or of any slices if none has."""
    places = slices.places(patient)
    marked = predicted if slices.marked is None else predicted | slices.marked
    numbers = np.flatnonzero(marked[places].any(axis=(1, 2)))
    return evenly_spread(numbers if len(numbers) else np.arange(len(places)), _COLUMNS)


def _row_label(slices: Slices, predicted: Bool[np.ndarray, "n height width"], patient: str) -> str:
    if slices.marked is None:
        return patient
    places = slices.places(patient)
    return f"{patient}\nDice {dice(predicted[places], slices.marked[places]):.3f}"


def draw_outlines(panel: Axes, masks: Mapping[str, Shaped[np.ndarray, "height width"]]) -> None:
    """Draw the outlines of each class in the masks, which are `predicted` or `true`."""
    for name, mask in masks.items():
        for label in range(1, int(mask.max()) + 1):
            # Some versions of Matplotlib warn where there is no contour.
            if (mask == label).any() and not (mask == label).all():
                panel.contour(mask == label, [0.5], colors=COLOURS[name], linestyles=LINES[name], linewidths=1.2)


def add_legend(figure: Figure, names: Sequence[str]) -> None:
    """Tell the outlines of these masks apart, below the panels."""
    lines = [Line2D([], [], color=COLOURS[name], linestyle=LINES[name]) for name in names]
    figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False)


def dice_table(slices: Slices, predicted: Bool[np.ndarray, "n height width"]) -> str:
    """One line per patient: numbers of slices and of slices with a mask, and Dice if the true masks are known."""
    rows, scores = [["patient", "slices", "predicted", "true", "Dice"]], []
    for patient in slices.patient_names:
        places = slices.places(patient)
        rows.append([patient, str(len(places)), str(_marked_slices(predicted[places]))])
        if slices.marked is None:
            rows[-1] += ["–", "–"]
        else:
            scores.append(dice(predicted[places], slices.marked[places]))
            rows[-1] += [str(_marked_slices(slices.marked[places])), f"{scores[-1]:.4f}"]
    if len(scores) > 1:
        rows.append(["mean", "", "", "", f"{np.mean(scores):.4f}"])
    return format_table(rows)


def _marked_slices(masks: Bool[np.ndarray, "n height width"]) -> int:
    return int(masks.any(axis=(1, 2)).sum())


def segmentation(
    *, weights: Path, images: Path, preset: Preset | None = None, out: Path = Path("segmentation.png")
) -> None:
    """Draw the tumour outlines that a U-Net predicts on slices of patients.

    A table with one line per patient is printed, with the Dice score if the true masks are known.

    Args:
        weights: Run of `python -m train segmentation`, or folder that `python -m convert unet` wrote.
        images: NPZ file with `images` and optionally `masks` and `patients`, or a folder with one folder of image files
            per patient; the mask of NAME.tif is NAME_mask.tif beside it.
        preset: Preprocessing of the slices; see `python -m train segment --help`.
        out: File of the figure; its suffix chooses the format.
    """
    keep_freed_memory()
    keep_programs()
    segment = segmenter(load_segmenter(weights), preset or default_preset(weights))
    slices = load_slices(images)
    predicted = np.zeros(slices.images.shape[:3], bool)
    for patient in slices.patient_names:
        places = slices.places(patient)
        try:
            predicted[places] = segment(slices.images[places]) > 0
        except ValueError as error:
            raise UserError(f"{images}: {error}; give other images") from error
    print(dice_table(slices, predicted), end="\n\n")
    save_figure(segmentation_figure(slices, predicted), out)
