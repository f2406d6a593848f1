"""Use a trained classifier from Python: it takes images of any kind and gives probabilities, names and maps."""

import dataclasses
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from jaxcnn.data.batch import in_batches
from jaxcnn.data.files import FileError, shown, single_file
from jaxcnn.data.image import to_square
from jaxcnn.data.readers.pictures import read_picture
from jaxcnn.data.readers.scan import Slice
from jaxcnn.data.readers.table import find_reader
from jaxcnn.errors import UserError
from jaxcnn.inference.converted import load_members
from jaxcnn.inference.hub import PREFIX, load_from_hub
from jaxcnn.inference.image_files import ImageFile
from jaxcnn.inference.saliency import explain
from jaxcnn.inference.trained import Members, compile_with_weights
from jaxcnn.inference.unlike import judge
from jaxcnn.runs.folder import open_ensemble

AnyImages = Any
"""Paths of image files, Pillow images or arrays: one of them, or a sequence.

An array is uint8, or float in [0, 1]: (height, width), (n, height, width) or (n, height, width, 1). A file that holds
several slices gives an image for each.
"""

_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier, or several whose probabilities are averaged. Research software, not a medical device.

    Attributes:
        members: each a network with its weights, and what is done to images before it; of one run there is one.
    """

    members: Members

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.members[0].classes

    def __call__(self, images: AnyImages) -> Float32[np.ndarray, "n classes"]:
        """Compute the probability of each class for each image.

        Raises:
            ValueError: something is no image; the message names it.
        """
        return self._judged(self._squares(images))[0]

    def predict(self, images: AnyImages) -> tuple[str, ...]:
        """Return the name of the most probable class of each image.

        Raises:
            ValueError: something is no image; the message names it.
        """
        return tuple(self.classes[label] for label in self(images).argmax(axis=1))

    def unlike(self, images: AnyImages) -> Float32[np.ndarray, " n"] | None:
        """Tell how unlike the training images each image is: above 1, and its probabilities mean nothing.

        See `jaxcnn.inference.unlike`. Of the validation images of a run 5 % are above 1. None where that isn't known:
        of a run that hasn't ended, an older one, or a converted classifier.

        Raises:
            ValueError: something is no image; the message names it.
        """
        return self._judged(self._squares(images))[1]

    def saliency(self, images: AnyImages) -> Float32[np.ndarray, "n height width"]:
        """Compute Grad-CAM maps: where each image shows evidence for its most probable class, from 0 to 1.

        A map is as large as what the network sees of the image: cropped and resized as the run's options say.

        Raises:
            ValueError: something is no image, or a network has no feature map, or the runs see images at other sizes.
        """
        squares = self._squares(images)
        labels = self._judged(squares)[0].argmax(axis=1).astype(np.int32)
        maps = [np.asarray(self._explain(squares[i : i + 1], labels[i : i + 1])[1]) for i in range(len(squares))]
        return np.concatenate(maps)

    @cached_property
    def _judge(self) -> Any:
        return compile_with_weights(judge, self.members)

    @cached_property
    def _explain(self) -> Any:
        return compile_with_weights(explain, self.members)

    def _judged(self, squares: UInt8[np.ndarray, "n size size 1"]) -> tuple[np.ndarray, np.ndarray | None]:
        return in_batches(self._judge, squares, min(_BATCH_SIZE, len(squares)))

    def _squares(self, images: AnyImages) -> UInt8[np.ndarray, "n size size 1"]:
        size = self.members[0].image_shape[0]  # The images of every data set are squares.
        several = images if isinstance(images, Sequence) and not isinstance(images, str) else [images]
        found = [cut.pixels for image in several for cut in _slices(image)]
        if not found:
            raise ValueError("images: none are given; give at least one")
        return np.stack([to_square(pixels, size) for pixels in found])


def load(folder: Path | str | Sequence[Path | str]) -> Classifier:
    """Load the best classifier of a run, or a converted classifier; several, or a sweep over seeds, become one.

    Args:
        folder: of the run, the sweep or the converted classifier; or several. Or hf://OWNER/NAME, a classifier on the
            Hugging Face Hub.

    Raises:
        UserError: one is none of these, or its classifier is missing or damaged, or they have other classes.
    """
    if str(folder).startswith(PREFIX):
        return Classifier((load_from_hub(str(folder)),))
    folders = [folder] if isinstance(folder, str | Path) else folder
    return Classifier(load_members(open_ensemble([Path(path) for path in folders])))


def _slices(image: AnyImages) -> Sequence[Slice]:
    if isinstance(image, str | Path):
        stored = single_file(Path(image))
        try:
            return ImageFile(Path(image), stored, find_reader(stored)).read().slices
        except FileError as error:
            raise UserError(f"{shown(Path(image))} {error}") from error
    if isinstance(image, Image.Image):
        written = io.BytesIO()
        # As a file, so that there is one way to turn a picture grey.
        ImageOps.exif_transpose(image).save(written, "TIFF")
        return read_picture(written.getvalue()).slices
    return [Slice(pixels) for pixels in _grey_arrays(np.asarray(image))]


def _grey_arrays(array: np.ndarray) -> UInt8[np.ndarray, "n height width"]:
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[np.newaxis]
    is_float = np.issubdtype(array.dtype, np.floating)
    if array.ndim != 3 or not (array.dtype == np.uint8 or is_float):
        raise ValueError(
            f"an array of {array.dtype} with the shape {array.shape} holds no grey images; give uint8, or floats in"
            " [0, 1], of the shape (height, width), (n, height, width) or (n, height, width, 1)"
        )
    if is_float:
        if not (np.isfinite(array).all() and array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
            raise ValueError(f"float images must lie in [0, 1], got {array.min():.3g} to {array.max():.3g}")
        array = np.round(255 * array).astype(np.uint8)
    return array
