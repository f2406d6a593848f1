"""Brain-MRI networks in JAX: checked convolutions, Flax models, data, evaluation, and trained classifiers.

    import jaxcnn
    classifier = jaxcnn.load("runs/first")
    probabilities = classifier(images)

Names are imported when they are first used, so that `import jaxcnn` takes milliseconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.inference.classifier import load
    from jaxcnn.models.simplecnn import SimpleCNN
    from jaxcnn.models.table import MODELS
    from jaxcnn.models.unet import UNet
    from jaxcnn.models.unet_classifier import UNetClassifier

__all__ = ["MODELS", "SimpleCNN", "UNet", "UNetClassifier", "__version__", "load"]

_HOMES = {
    "MODELS": "jaxcnn.models.table",
    "SimpleCNN": "jaxcnn.models.simplecnn",
    "UNet": "jaxcnn.models.unet",
    "UNetClassifier": "jaxcnn.models.unet_classifier",
    "load": "jaxcnn.inference.classifier",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("jaxcnn")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'jaxcnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
