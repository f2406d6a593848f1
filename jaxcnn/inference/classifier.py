"""Use a trained classifier from Python: it takes images of any kind and gives probabilities, names and maps."""

import dataclasses
import io
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from jaxcnn.data.files import FileError, shown, single_file
from jaxcnn.data.image import to_square
from jaxcnn.data.readers.pictures import read_picture
from jaxcnn.data.readers.scan import Slice
from jaxcnn.data.readers.table import find_reader
from jaxcnn.errors import UserError
from jaxcnn.inference.converted import load_classifier
from jaxcnn.inference.image_files import ImageFile
from jaxcnn.inference.saliency import explain
from jaxcnn.inference.trained import Trained, compile_classifier

AnyImages = Any
"""Paths of image files, Pillow images or arrays: one of them, or a sequence.

An array is uint8, or float in [0, 1]: (height, width), (n, height, width) or (n, height, width, 1). A file that holds
several slices gives an image for each.
"""

_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier. Research software, not a medical device.

    Attributes:
        trained: the network with its weights, and what is done to images before it.
    """

    trained: Trained

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.trained.classes

    def __call__(self, images: AnyImages) -> Float32[np.ndarray, "n classes"]:
        """Compute the probability of each class for each image.

        Raises:
            ValueError: something is no image; the message names it.
        """
        return self._probabilities(self._squares(images))

    def predict(self, images: AnyImages) -> tuple[str, ...]:
        """Return the name of the most probable class of each image.

        Raises:
            ValueError: something is no image; the message names it.
        """
        return tuple(self.classes[label] for label in self(images).argmax(axis=1))

    def saliency(self, images: AnyImages) -> Float32[np.ndarray, "n height width"]:
        """Compute Grad-CAM maps: where each image shows evidence for its most probable class, from 0 to 1.

        A map is as large as what the network sees of the image: cropped and resized as the run's options say.

        Raises:
            ValueError: something is no image, or the network has no feature map.
        """
        squares = self._squares(images)
        labels = self._probabilities(squares).argmax(axis=1).astype(np.int32)
        maps = [
            np.asarray(self._explain(self.trained.variables, squares[i : i + 1], labels[i : i + 1])[1])
            for i in range(len(squares))
        ]
        return np.concatenate(maps)

    @cached_property
    def _classify(self) -> Any:
        return compile_classifier(self.trained)

    @cached_property
    def _explain(self) -> Any:
        return jax.jit(partial(explain, self.trained))

    def _probabilities(self, squares: UInt8[np.ndarray, "n size size 1"]) -> Float32[np.ndarray, "n classes"]:
        parts = [np.asarray(self._classify(squares[i : i + _BATCH_SIZE])) for i in range(0, len(squares), _BATCH_SIZE)]
        return np.concatenate(parts)

    def _squares(self, images: AnyImages) -> UInt8[np.ndarray, "n size size 1"]:
        size = self.trained.image_shape[0]  # The images of every data set are squares.
        several = images if isinstance(images, Sequence) and not isinstance(images, str) else [images]
        found = [of.pixels for one in several for of in _slices(one)]
        if not found:
            raise ValueError("images: none are given; give at least one")
        return np.stack([to_square(pixels, size) for pixels in found])


def load(folder: Path | str) -> Classifier:
    """Load the best classifier of a run, or a converted classifier.

    Args:
        folder: of the run, or of the converted classifier.

    Raises:
        UserError: it is neither, or its classifier is missing or damaged.
    """
    return Classifier(load_classifier(Path(folder)))


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
