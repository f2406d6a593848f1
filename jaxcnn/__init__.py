"""Brain-MRI CNNs in JAX: checked convolutions, Flax models, and what training and figures share."""

from jaxcnn.models.simplecnn import SimpleCNN
from jaxcnn.models.unet import UNet
from jaxcnn.models.unet_classifier import UNetClassifier

__all__ = ["SimpleCNN", "UNet", "UNetClassifier"]
