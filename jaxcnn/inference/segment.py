"""python -m train segment: write masks for volumes, series and stacks of slices."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from scipy import ndimage

from jaxcnn.cli import needed
from jaxcnn.data.dataset import evenly_spread
from jaxcnn.errors import UserError
from jaxcnn.evaluation.masks import keep_largest_component
from jaxcnn.inference.segmentation import (
    Masks,
    Preset,
    default_preset,
    load_segmenter,
    segmenter,
)
from jaxcnn.inference.stacks import Stack, read_stacks
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.files import telling_unwritable, whole_file, write_csv
from jaxcnn.tables import format_table

# Of a picture: slices that have a mask, evenly spread, and the colours of the classes' outlines.
_SHOWN, _COLUMNS = 12, 4
_COLOURS = np.array([(255, 159, 28), (46, 196, 241), (230, 75, 160), (120, 220, 90)], np.uint8)


def segment(
    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|WEIGHTS")],
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, needed("INPUT [INPUT ...]")] = (),
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    preset: Preset | None = None,
    largest_component: bool = False,
) -> None:
    """Segment volumes and stacks of slices with a U-Net, and write their masks. Not a medical device.

    Args:
        network: Run of `python -m train segmentation`, or folder of a converted U-Net.
        inputs: NIfTI volumes, DICOM series, TIFF stacks, pictures, or folders of them with a folder per patient.
        out: Folder for the masks, for segments.csv and for a picture of each patient with outlines.
        preset: Preprocessing: `as-trained`, as the run's options say; `per-image-z-score`, each slice by itself;
            `hub`, as the network on PyTorch Hub was trained: cropped to the brain, 256x256, normalised by patient. By
            default that of the run, `hub` for the hub's own weights, and `per-image-z-score` for other weights.
        largest_component: Keep only the largest connected component of each class.
    """
    if not inputs:
        raise UserError("INPUT: none is given; name volumes, series, pictures, or folders of them")
    keep_programs()
    trained, chosen = load_segmenter(network), preset or default_preset(network)
    segment_slices, stacks = segmenter(trained, chosen), read_stacks(inputs)
    rows: list[list[str]] = [["name", "class", "slices", "marked slices", "voxels", "ml"]]
    for stack in stacks:
        try:
            masks = segment_slices(stack.images)
        except ValueError as error:
            raise UserError(f"{stack.name}: {error}; give other images") from error
        masks = keep_largest_component(masks) if largest_component else masks
        for label, name in enumerate(trained.classes[1:], 1):
            found = masks == label
            counts = [len(found), int(found.any(axis=(1, 2)).sum()), int(found.sum())]
            millilitres = "" if stack.voxel is None else f"{found.sum() * stack.voxel / 1000:.3f}"
            rows.append([stack.name, name, *map(str, counts), millilitres])
        with telling_unwritable(f"--out {out}", "choose another"):
            stack.write(out / stack.name, masks)
            with whole_file(out / f"{stack.name}_overlay.png") as temporary:
                draw_outlines(stack, masks).save(temporary)
        write_csv(out / "segments.csv", rows)
    print(format_table(rows))
    print(f"\nmasks, segments.csv and pictures in {out}; preprocessing {chosen}")


def draw_outlines(stack: Stack, masks: Masks) -> Image.Image:
    """Some slices side by side, with the outlines of what was found; any slices where nothing was."""
    marked = np.flatnonzero(masks.any(axis=(1, 2)))
    tiles = []
    for place in evenly_spread(marked if len(marked) else np.arange(len(masks)), _SHOWN):
        # The middle channel is FLAIR in the LGG data, where a tumour is bright.
        grey = stack.images[place, ..., stack.images.shape[3] // 2]
        tile = np.repeat(grey[..., np.newaxis], 3, axis=-1)
        for label in range(1, int(masks.max(initial=0)) + 1):
            region = masks[place] == label
            tile[region & ~ndimage.binary_erosion(region)] = _COLOURS[(label - 1) % len(_COLOURS)]
        tiles.append(tile)
    columns = min(_COLUMNS, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    return Image.fromarray(np.concatenate(rows))
