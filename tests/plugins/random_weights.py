"""Folders such as `python -m convert` writes, with random weights and without torch."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from random_network import random_network

from jaxcnn.inference.pretrained import Manifest, save_pretrained
from jaxcnn.models.table import model_fields


def save_random_weights(
    folder: Path, model: Any, image_shape: tuple[int, int, int], classes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Write random weights of the model, and return them."""
    variables = jax.tree.map(np.asarray, random_network(model, (1, *image_shape))[1])
    fields = dataclasses.fields(Manifest)
    empty = {field.name: {} for field in fields if field.default is field.default_factory}
    known = {
        "model": type(model).__name__,
        "fields": model_fields(model),
        "image_shape": image_shape,
        "normalization": "per-image-z-score",
        "parity": ({"block": "conv", "shape": [1, 2], "absolute": 0.1, "relative": 0.2},),
        **dict.fromkeys(("note", "source", "source_sha256"), "text"),
        "tolerance": 1e-4,
        "classes": classes,
    }
    save_pretrained(folder, variables, Manifest(**empty | known), overwrite=False)
    return variables
