"""The networks: an architecture a file, the blocks they share, and the table that names them."""

from jaxcnn.models.architecture import Architecture, Classifier, FeatureMap
from jaxcnn.models.simplecnn import SimpleCNN
from jaxcnn.models.table import MODELS
from jaxcnn.models.unet import UNet
from jaxcnn.models.unet_classifier import UNetClassifier

__all__ = ["MODELS", "Architecture", "Classifier", "FeatureMap", "SimpleCNN", "UNet", "UNetClassifier"]
