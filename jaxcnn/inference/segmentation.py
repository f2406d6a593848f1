"""Segment stacks of slices with a trained or converted U-Net, after the preprocessing that its network needs."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float32, UInt8

from jaxcnn.data.batch import in_batches
from jaxcnn.data.dataset import Split
from jaxcnn.data.normalization import BY_VOLUME, standardize_volumes
from jaxcnn.data.preprocessing import Preprocessing, as_inputs, frame, frame_masks, resize_masks
from jaxcnn.data.slices import BINARY, with_channels
from jaxcnn.errors import UserError
from jaxcnn.evaluation.masks import MaskPredictions, patients_of
from jaxcnn.inference.hub_volume import prepare_hub_volume
from jaxcnn.inference.pretrained import load_pretrained, open_pretrained
from jaxcnn.inference.trained import Members, Trained, compile_with_weights, compute_logits, load_best, predict_logits
from jaxcnn.models.segmentation import SegmentationUNet
from jaxcnn.models.unet import STAGE_NAMES, UNet
from jaxcnn.runs.folder import Run, open_run

Preset = Literal["as-trained", "per-image-z-score", "hub"]

_BATCH_SIZE = 8
# How the SHA-256 of the hub's file begins, as its name says.
_HUB = "e012d006"

Slices = UInt8[np.ndarray, "n height width channel"]
Masks = UInt8[np.ndarray, "n _ _"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A stack as a network takes it.

    Attributes:
        inputs: height and width are multiples of 16.
        restore: brings masks of these to the size of the stack.
    """

    inputs: Float32[np.ndarray, "n rows columns channel"]
    restore: Callable[[Masks], Masks]


def load_segmenter(folder: Path) -> Trained:
    """Load the best network of a run that segments, or a converted U-Net, on the default device.

    Raises:
        UserError: the folder is neither, or is damaged.
    """
    if Run(folder).kind == "trained":
        trained = load_best(open_run(folder))
        if not isinstance(trained.model, SegmentationUNet):
            raise UserError(f"{folder}: is a run that classifies; give one of python -m train segmentation")
        return trained
    unet = load_pretrained(folder)
    if not isinstance(unet.model, UNet):
        raise UserError(f"{folder}: holds a {unet.manifest.model}, not a UNet; python -m convert unet writes one")
    fields, count = unet.manifest.fields, unet.manifest.fields["out_channels"]
    model = SegmentationUNet(**fields, classes=count + 1)
    classes = BINARY if count == 1 else (BINARY[0], *(str(number) for number in range(1, count + 1)))
    preprocessing = Preprocessing(normalization=unet.manifest.normalization)
    return Trained(model, unet.variables, preprocessing, unet.manifest.image_shape, classes, epoch=None)


def load_encoder(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The module and the variables of an encoder: converted, or the way down of a run that segments.

    Raises:
        UserError: the folder is neither, or is damaged.
    """
    if Run(folder).kind != "trained":
        encoder = load_pretrained(folder, "encode")
        return encoder.model, encoder.variables
    trained = load_segmenter(folder)
    model = trained.model.clone(in_channels=trained.preprocessing.seen_shape(trained.image_shape)[2])
    flat = flatten_dict(trained.variables)
    return model, unflatten_dict({path: leaf for path, leaf in flat.items() if path[1] in STAGE_NAMES})


def segmenter(trained: Trained, preset: Preset) -> Callable[[Slices], Masks]:
    """Build the function that gives each pixel of a patient's slices its class; programs serve all stacks.

    Grey slices are repeated for a network of several channels. For slices of another number of channels it raises
    ValueError.
    """

    def classify_pixels(members: Members, inputs: Array) -> UInt8[Array, "batch rows columns"]:
        return jnp.argmax(compute_logits(members[0], inputs, prepared=True), axis=-1).astype(jnp.uint8)

    compiled = compile_with_weights(classify_pixels, (trained,))

    def segment(images: Slices) -> Masks:
        prepared = PRESETS[preset](trained, with_channels(images, trained.image_shape[2]))
        return prepared.restore(in_batches(compiled, prepared.inputs, min(_BATCH_SIZE, len(images))))

    return segment


def prepare_as_trained(trained: Trained, images: Slices) -> Prepared:
    """As the network's folder says, at the size that it was trained with.

    Where its own images were squares, other slices are made squares by copies of their border: heads keep their shape.
    Where they were not and `image_size` made squares of them, other slices are squeezed in the same way.
    """
    height, width = images.shape[1:3]
    rows, columns = _borders(trained, height, width)
    padded = _as_own(trained, images, [""] * len(images))
    resized = np.asarray(frame(padded, Preprocessing(image_size=_side(trained))))
    prepared = _in_multiples(np.asarray(as_inputs(resized, trained.preprocessing)))

    def restore(masks: Masks) -> Masks:
        whole = resize_masks(prepared.restore(masks), padded.shape[1:3], len(trained.classes))
        return whole[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]

    return Prepared(prepared.inputs, restore)


def _as_own(trained: Trained, images: Slices, patients: Sequence[str]) -> UInt8[np.ndarray, "n rows columns channel"]:
    """Slices as the network's own were before they were resized: volumes normalised, and squares where those were."""
    if trained.preprocessing.normalization in BY_VOLUME:
        images = standardize_volumes(images, patients)
    return np.pad(images, ((0, 0), *_borders(trained, *images.shape[1:3]), (0, 0)), mode="edge")


def _side(trained: Trained) -> int | None:
    """The side of the squares that a network sees; None where it takes slices at their own size."""
    height, width, _ = trained.image_shape
    return trained.preprocessing.image_size or (height if height == width else None)


def _borders(trained: Trained, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """What makes squares of slices, above and below, left and right; nothing where its own images were no squares."""
    own_height, own_width, _ = trained.image_shape
    side = max(height, width) if own_height == own_width else 0
    rows, columns = max(0, side - height), max(0, side - width)
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def prepare_by_image(trained: Trained, images: Slices) -> Prepared:
    """Each slice by itself, at its own size."""
    by_image = dataclasses.replace(trained.preprocessing, normalization="per-image-z-score")
    return _in_multiples(np.asarray(as_inputs(images, by_image)))


def _in_multiples(inputs: Float32[np.ndarray, "n height width channel"]) -> Prepared:
    """Pad to multiples of 16, which a U-Net needs, by copies of the border; masks are cut to the size before."""
    height, width = inputs.shape[1:3]
    padded = np.pad(inputs, ((0, 0), (0, -height % 16), (0, -width % 16), (0, 0)), mode="edge")
    return Prepared(padded, lambda masks: masks[:, :height, :width])


def prepare_hub(trained: Trained, images: Slices) -> Prepared:
    """As the hub's network was trained: see `jaxcnn.inference.hub_volume`."""
    inputs, box, square = prepare_hub_volume(images)

    def restore(masks: Masks) -> Masks:
        whole = np.zeros(images.shape[:3], np.uint8)
        (first, last), (top, bottom), (left, right) = box
        rows, columns = bottom - top, right - left
        above, before = (square - rows) // 2, (square - columns) // 2
        resized = resize_masks(masks[first:last], (square, square), len(trained.classes))
        whole[first:last, top:bottom, left:right] = resized[:, above : above + rows, before : before + columns]
        return whole

    return Prepared(inputs, restore)


# The names that --preset takes.
PRESETS: dict[Preset, Callable[[Trained, Slices], Prepared]] = {
    "as-trained": prepare_as_trained,
    "per-image-z-score": prepare_by_image,
    "hub": prepare_hub,
}


def default_preset(folder: Path) -> Preset:
    """The preset of a run, of the hub's own weights, or of other converted weights."""
    if Run(folder).kind != "converted":
        return "as-trained"
    return "hub" if open_pretrained(folder)[0].source_sha256.startswith(_HUB) else "per-image-z-score"


def predict_split(trained: Trained, split: Split) -> MaskPredictions:
    """Segment the images of a split, prepared as `prepare_as_trained` does, at the size that the network sees.

    Raises:
        ValueError: the images have another number of channels than the network takes.
    """
    assert split.masks is not None
    sized = dataclasses.replace(trained.preprocessing, image_size=_side(trained))
    images = _as_own(trained, with_channels(split.images, trained.image_shape[2]), patients_of(split))
    masks = np.pad(split.masks, ((0, 0), *_borders(trained, *split.masks.shape[1:])))
    as_classes = partial(jnp.argmax, axis=-1)
    predicted = predict_logits(dataclasses.replace(trained, preprocessing=sized), images, output=as_classes)
    true = np.asarray(frame_masks(masks, sized, len(trained.classes)))
    return MaskPredictions(predicted.astype(np.uint8), true, patients_of(split), split.names, trained.classes)
