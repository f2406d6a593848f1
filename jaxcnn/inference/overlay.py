"""Draw saliency maps over images."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from jaxcnn.inference.saliency import check_has_maps, explain
from jaxcnn.inference.trained import Members, compile_with_weights
from jaxcnn.runs.files import numbered, telling_unwritable, whole_file

# Perceptually uniform; its dark end is hardly seen, its bright end stands out from white tissue.
_COLOURS = "inferno"
_OPACITY = 0.6
# An image of 128 pixels is too small to look at.
_SCALE = 3

# (names, images, classes to explain) -> where the pictures are; more images than names fill up the batch.
Draw = Callable[[Sequence[str], UInt8[np.ndarray, "batch height width 1"], Int[np.ndarray, " batch"]], list[Path]]


def open_gallery(members: Members, folder: Path) -> Draw:
    """Build `draw(names, images, labels)`, which writes one picture per image, FOLDER/NAME-CLASS.png.

    Images of the same name and class are numbered: NAME-CLASS-2.png.

    Raises:
        UserError: a member has no maps, or the folder can't be made; `draw` raises it where a picture can't be written.
    """
    check_has_maps(members)
    compiled = compile_with_weights(explain, members)
    taken: set[str] = set()
    unwritable = partial(telling_unwritable, f"--saliency {folder}", "choose another")

    def draw(names: Sequence[str], images: np.ndarray, labels: np.ndarray) -> list[Path]:
        seen, maps = jax.device_get(compiled(images, labels))
        written = []
        for name, label, image, saliency in zip(names, labels, seen, maps, strict=False):
            written.append(folder / _unused(f"{name}-{members[0].classes[label]}".replace("/", "-"), taken))
            with unwritable(), whole_file(written[-1]) as temporary:
                draw_overlay(image, saliency).save(temporary)
        return written

    with unwritable():
        folder.mkdir(parents=True, exist_ok=True)
    return draw


def draw_overlay(
    image: Float[np.ndarray, "height width 1"], saliency: Float[np.ndarray, "height width"]
) -> Image.Image:
    """Draw the image and, on its right, the image under its map, both three times as large.

    Args:
        image: in [0, 1].
        saliency: in [0, 1]; the larger, the more colour. Where it is 0 the image stays as it is.
    """
    # Only here, so that training starts without it.
    import matplotlib as mpl

    grey = np.repeat(image, 3, axis=-1)
    opacity = _OPACITY * saliency[..., np.newaxis]
    coloured = (1 - opacity) * grey + opacity * mpl.colormaps[_COLOURS](saliency)[..., :3]
    pixels = np.round(255 * np.concatenate([grey, coloured], axis=1)).astype(np.uint8)
    height, width = pixels.shape[:2]
    return Image.fromarray(pixels).resize((_SCALE * width, _SCALE * height), Image.Resampling.NEAREST)


def _unused(stem: str, taken: set[str]) -> str:
    """STEM.png, or STEM-2.png and so on if that is taken; what is given is taken from then on."""
    # Some file systems don't tell capital letters from small ones.
    name = next(name for name in numbered(stem) if name.casefold() not in taken)
    taken.add(name.casefold())
    return f"{name}.png"
