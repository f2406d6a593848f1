"""Dice of each patient as bars with mean and median, and the best, median and worst slices with their outlines."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import UInt8
from matplotlib.figure import Figure

from figures.run_folders import Folder, open_folder
from figures.run_title import run_title, set_title
from figures.saving import save_figure
from figures.segmentation import LINES, add_legend, draw_outlines
from jaxcnn.data.load import load_dataset
from jaxcnn.data.preprocessing import Preprocessing, frame
from jaxcnn.errors import UserError
from jaxcnn.evaluation.masks import MaskPredictions, overlaps
from jaxcnn.evaluation.patients import score_patients
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.folder import Run, read_config, read_data, read_masks

_MOST_BARS = 60
_SHOWN = 4


def dice_figure(scores: dict[str, float], title: str) -> Figure:
    """A bar per patient, the best on top; of many the names are left out."""
    names = sorted(scores, key=lambda name: scores[name])
    values = [scores[name] for name in names]
    few = len(names) <= _MOST_BARS
    figure = Figure(figsize=(7, max(3, 1.6 + 0.22 * len(names)) if few else 5), layout="constrained")
    panel = figure.subplots()
    panel.barh(range(len(names)), values, color="#5c7fb5", height=0.8)
    for value, what, style in ((np.mean(values), "mean", "dashed"), (np.median(values), "median", "solid")):
        panel.axvline(float(value), color="black", linestyle=style, linewidth=1.2, label=f"{what} {value:.3f}")
    panel.set_yticks(range(len(names)) if few else [], names if few else [], fontsize="small")
    for text in panel.get_yticklabels():
        text.set_parse_math(False)
    panel.set(xlim=(0, 1), ylim=(-0.6, len(names) - 0.4), xlabel="Dice over all slices of the patient")
    set_title(figure, title)
    panel.legend(loc="lower right", frameon=True)
    return figure


def gallery_figure(images: UInt8[np.ndarray, "n height width channel"], masks: MaskPredictions, title: str) -> Figure:
    """The best, the median and the worst of the slices that have a tumour, predicted or true, by their Dice."""
    marked = np.flatnonzero((masks.true > 0).any(axis=(1, 2)) | (masks.predicted > 0).any(axis=(1, 2)))
    dice = overlaps(masks.confusions())["dice"].mean(axis=1)
    order = marked[np.argsort(-dice[marked], kind="stable")]
    middle = max(0, len(order) // 2 - _SHOWN // 2)
    rows = {"best": order[:_SHOWN], "median": order[middle : middle + _SHOWN], "worst": order[-_SHOWN:]}
    figure = Figure(figsize=(2 * _SHOWN, 2.2 * len(rows) + 0.7), layout="constrained")
    panels = figure.subplots(len(rows), _SHOWN, squeeze=False)
    for row, (name, places) in zip(panels, rows.items(), strict=True):
        row[0].set_ylabel(name)
        for panel in row:
            panel.set(xticks=[], yticks=[], frame_on=False)
        for panel, place in zip(row, places.tolist(), strict=False):
            # The middle channel is FLAIR in the LGG data, where a tumour is bright.
            panel.imshow(images[place, ..., images.shape[3] // 2], cmap="gray")
            draw_outlines(panel, {"predicted": masks.predicted[place], "true": masks.true[place]})
            slice_name = masks.names[place].split("/")[-1]
            panel.set_title(f"{slice_name}: {dice[place]:.2f}", fontsize="small", parse_math=False)
    set_title(figure, title)
    add_legend(figure, list(LINES))
    return figure


def dice(
    folder: Folder, *, gallery: Annotated[bool, tyro.conf.arg(name="gallery")] = False, out: Path | None = None
) -> None:
    """Draw the Dice of each test patient of a run, or of all folds of a sweep; or slices with outlines.

    Args:
        folder: Run folder, or sweep folder.
        gallery: Draw the best, median and worst test slices of a run, with true and predicted outlines.
        out: File of the figure; figures/dice.png or figures/gallery.png in the folder if not given.
    """
    runs = open_folder(folder)
    found = [read_masks(run, "test") for run in runs]
    path = out or folder / "figures" / ("gallery.png" if gallery else "dice.png")
    if gallery:
        if len(runs) > 1:
            raise UserError(f"{folder}: holds {len(runs)} runs; give one of them")
        keep_programs()
        save_figure(gallery_figure(_images(runs[0], found[0]), found[0], run_title(runs[0])), path)
        return
    scores: dict[str, float] = {}
    for masks in found:
        own = dict(zip(masks.patient_names, score_patients(masks)["dice"].tolist(), strict=True))
        if twice := scores.keys() & own.keys():
            raise UserError(f"{folder}: {min(twice)} is a test patient of several runs; give one run, or folds")
        scores |= own
    title = run_title(runs[0]) if len(runs) == 1 else f"{len(runs)} folds, {len(scores)} test patients"
    save_figure(dice_figure(scores, title), path)


def _images(run: Run, masks: MaskPredictions) -> UInt8[np.ndarray, "n rows columns channel"]:
    """The images of the masks, at their size, from the data set that the run was trained on."""
    dataset = load_dataset(str(read_data(run)["source"]), masks=True)
    place_of = {name: (split, place) for split in dataset.splits.values() for place, name in enumerate(split.names)}
    if missing := [name for name in masks.names if name not in place_of]:
        raise UserError(f"{run.folder}: its image {missing[0]} is gone from {dataset.source}; give the data back")
    images = np.stack([place_of[name][0].images[place_of[name][1]] for name in masks.names])
    return np.asarray(frame(images, Preprocessing(image_size=read_config(run).get("image_size"))))
