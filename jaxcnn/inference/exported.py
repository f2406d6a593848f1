"""Use an exported classifier in place of a run, to see what it says of images before it is sent."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export as jax_export
from jaxtyping import Array, Float

from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.errors import UserError
from jaxcnn.inference.pretrained import Side
from jaxcnn.inference.trained import Trained
from jaxcnn.runs.folder import Run
from jaxcnn.runs.json_files import read_json

PROGRAM = "classifier.jax"


class _Metadata(TypedDict):
    classes: list[str]
    image_shape: tuple[Side, Side, Side]
    # Of the program; older exports have none.
    sha256: NotRequired[str]


class ExportedProgram(nn.Module):
    """In the place of a network: the program has the preprocessing inside, and gives probabilities for bytes."""

    program: Callable[[Array], Array]

    def __call__(
        self, images: Float[Array, "batch height width 1"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logarithms of the probabilities, which serve as logits."""
        del train
        probabilities = self.program(jnp.round(255 * images).astype(jnp.uint8))
        # One that is rounded to 0 would have an infinite logit.
        return jnp.log(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny))


def load_exported(folder: Path) -> Trained:
    """Load what `python -m train export` wrote for JAX.

    Raises:
        UserError: the program is missing, damaged or for ONNX Runtime, or this JAX can't read it.
    """
    path = folder / PROGRAM
    metadata: Any = read_json(Run(folder).exported, _Metadata, way_out="export the run again")
    height, width, channels = metadata["image_shape"]
    image_shape, classes = (height, width, channels), tuple(metadata["classes"])
    if not path.is_file():
        raise UserError(f"{folder}: has no {PROGRAM}; use its program as its README.md shows, or name the run")
    program = path.read_bytes()
    if metadata.get("sha256", found := hashlib.sha256(program).hexdigest()) != found:
        raise UserError(f"{path}: is not the file that was exported (its checksum is another); export the run again")
    try:
        exported = jax_export.deserialize(bytearray(program))
        ((images,), (probabilities,)) = exported.in_avals, exported.out_avals
        if (images.shape[1:], probabilities.shape[1:]) != (image_shape, (len(classes),)):
            raise ValueError("it takes other images or gives other classes than classifier.json says")
    except Exception as error:  # Of another file it raises many kinds.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: JAX {jax.__version__} can't use it: it is too old, too new, or no exported classifier ({reason});"
            " export the run again"
        ) from error
    model = ExportedProgram(exported.call)
    return Trained(model, {}, Preprocessing(), image_shape, classes, epoch=None)
