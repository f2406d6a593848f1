"""Networks as training sees them, from modules that tests make by hand."""

from jaxcnn.data.augment import Augment, Augmentation
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.models.unet import STAGE_NAMES
from jaxcnn.models.unet_classifier import UNetClassifier
from train.network import Network


def unet_network(
    model: UNetClassifier,
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008  (frozen)
    augmentation: Augment = Augmentation(),  # noqa: B008
) -> Network:
    """A classifier on a U-Net, of which the module's first stages are frozen."""
    frozen = tuple(("unet", stage) for stage in STAGE_NAMES[: model.frozen_stages])
    return Network(model, preprocessing, augmentation, frozen)
