"""Classify histograms of oriented gradients (Dalal & Triggs, CVPR 2005) with a linear model."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from jaxcnn.data.dataset import Split
from jaxcnn.errors import UserError

# Cells along each side: 16 pixels wide in an image of 128.
_CELLS = 8
# Inverse strength of the L2 penalty: of 0.01 and 0.1 the better by macro F1 on the validation images of the scans.
_C = 0.1


def gradient_histograms(splits: Mapping[str, Split], classes: int) -> dict[str, Float32[np.ndarray, "_ classes"]]:
    """Fit logistic regression to the standardised histograms of the training images, and return its logits.

    An image has 8x8 cells of 9 directions each, normalised in blocks of 2x2: 1764 features.

    Raises:
        UserError: the extra `baselines` is not installed.
        ValueError: a class has no training image, or the images are smaller than 16 pixels.
    """
    try:
        from skimage.feature import hog
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise UserError(
            "hog: needs scikit-learn and scikit-image, which are not installed: "
            "pip install -c constraints.txt -e '.[baselines]'"
        ) from error
    missing = np.setdiff1d(np.arange(classes), splits["train"].labels)
    if len(missing):
        raise ValueError(f"the classes {missing.tolist()} have no training image")
    features = {name: _features(split.images, hog) for name, split in splits.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_C, max_iter=1000))
    model.fit(features["train"], splits["train"].labels)
    return {name: _logits(model.decision_function(values)).astype(np.float32) for name, values in features.items()}


def _logits(decisions: Float64[np.ndarray, " n *classes"]) -> Float64[np.ndarray, "n classes"]:
    """A column a class: of two classes scikit-learn gives only by how much the second one's logit is higher."""
    return np.stack([-decisions / 2, decisions / 2], axis=1) if decisions.ndim == 1 else decisions


def _features(
    images: UInt8[np.ndarray, "n height width 1"], hog: Callable[..., Float64[np.ndarray, " features"]]
) -> Float64[np.ndarray, "n features"]:
    height, width = images.shape[1:3]
    if min(height, width) < 2 * _CELLS:
        raise ValueError(f"images must be at least {2 * _CELLS} pixels high and wide, got {height}x{width}")
    cell = (height // _CELLS, width // _CELLS)
    # Cells that a remainder of pixels would make at the edge are cut off, so that the features are always as many.
    cut = images[:, : _CELLS * cell[0], : _CELLS * cell[1], 0]
    return np.stack([hog(image, orientations=9, pixels_per_cell=cell, cells_per_block=(2, 2)) for image in cut])
