"""Brain-MRI CNNs in JAX: checked convolutions, Flax models, and what training and figures share."""

from jaxcnn.simplecnn import SimpleCNN
from jaxcnn.transfer import UNetClassifier
from jaxcnn.unet import UNet

__all__ = ["SimpleCNN", "UNet", "UNetClassifier"]
