"""The embedded data set: procedural brain slices with and without a tumour, drawn by JAX from a seed.

The anatomy is a table of ellipses for each plane, in the manner of Shepp and Logan ("The Fourier reconstruction of a
head section", 1974). Smooth random fields bend it, fold its cortex and texture its tissues; a random sequence (T1,
contrast-enhanced T1, T2) gives the tissues their brightness; coil shading and Rician noise come last.

Geometry is in head coordinates: x to the right of the image, y up, the image two units wide. A random pose (size,
place, tilt) takes them to pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Float, Int, Int32, Key, PRNGKeyArray, UInt8, UInt32

from jaxcnn.cpu.device import cpu_device
from jaxcnn.data.kaggle import CLASSES

SIZE = 128
AXIAL, CORONAL, SAGITTAL = range(3)
GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY = range(4)

# Images are rendered this many at a time: one compiled shape, and memory that does not grow with the request.
_CHUNK = 32

Scalar = Float[Array, ""]
Grid = Float[Array, "128 128"]
Uniform = Float[Array, "16"]
Normal = Float[Array, "40 40"]


def phantom_images(
    seed: int, indices: Int[np.ndarray, " n"]
) -> tuple[UInt8[np.ndarray, "n 128 128 1"], Int32[np.ndarray, " n"]]:
    """Draw the images with the given indices of the phantom data set `seed`.

    Image i depends on (seed, i) alone, and its label is i modulo 4, in the order of `CLASSES`. The images are always
    drawn on the CPU, so that an accelerator does not change them.

    Args:
        seed: names the data set, in [0, 2**32); another seed gives other heads.
        indices: which images, in any order, each in [0, 2**31).

    Returns:
        Grey images and their labels.

    Raises:
        ValueError: the seed or an index lies outside its range.
        UserError: JAX_PLATFORMS leaves out the CPU.
    """
    images = _in_chunks(_render_chunk, seed, indices)
    return images, (indices % len(CLASSES)).astype(np.int32)


def phantom_masks(seed: int, indices: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 128 128"]:
    """Draw the masks of `phantom_images`: 1 where the mass of the tumour covers more than half of a pixel, else 0.

    A dead core is part of the mass; the swelling around it is not.

    Raises:
        ValueError, UserError: as `phantom_images`.
    """
    return _in_chunks(_mask_chunk, seed, indices)


def _in_chunks(render: Callable[..., Array], seed: int, indices: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n ..."]:
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in [0, 2**32), got {seed}")
    if indices.size and not 0 <= indices.min() <= indices.max() < 2**31:
        raise ValueError(f"indices must lie in [0, 2**31), got {indices.min()} to {indices.max()}")
    padded = np.zeros(max(1, -(-len(indices) // _CHUNK)) * _CHUNK, np.int32)
    padded[: len(indices)] = indices
    cpu = cpu_device("draws the phantom")
    # What the user's options (JAX_ENABLE_X64 and others) would change in the images is as it is by default.
    with jax.default_device(cpu), jax.enable_x64(False), jax.threefry_partitionable(True), jax.disable_jit(False):
        chunks = [np.asarray(render(np.uint32(seed), chunk)) for chunk in padded.reshape(-1, _CHUNK)]
    return np.concatenate(chunks)[: len(indices)]


@jax.jit
def _render_chunk(seed: UInt32[Array, ""], indices: Int32[Array, " n"]) -> UInt8[Array, "n 128 128 1"]:
    images = jax.vmap(render)(_keys(seed, indices), indices % len(CLASSES))
    return jnp.round(images * 255).astype(jnp.uint8)[..., None]


@jax.jit
def _mask_chunk(seed: UInt32[Array, ""], indices: Int32[Array, " n"]) -> UInt8[Array, "n 128 128"]:
    return jax.vmap(render_mask)(_keys(seed, indices), indices % len(CLASSES)).astype(jnp.uint8)


def _keys(seed: UInt32[Array, ""], indices: Int32[Array, " n"]) -> Key[Array, " n"]:
    # As `random.key(seed)` gives it, but whatever the user's jax_default_prng_impl and jax_random_seed_offset are.
    base = random.wrap_key_data(jnp.stack([jnp.uint32(0), seed]), impl="threefry2x32")
    return jax.vmap(functools.partial(random.fold_in, base))(indices)


def render(key: PRNGKeyArray, label: Int32[Array, ""]) -> Grid:
    """One slice with values in [0, 1].

    The same key gives the same head, sequence, shading and noise whatever the label, which adds only the tumour.
    """
    latents = draw_latents(key)
    head = draw_head(latents.pose, latents.bend_x, latents.bend_y)
    contrast = draw_contrast(latents.contrast)
    image = paint_skull(head, contrast, latents)
    image = paint_brain(image, head, contrast, latents)
    image = paint_ventricles(image, head, contrast, latents)
    image = paint_vessels(image, head, contrast, latents)
    image = paint_tumor(image, head, contrast, latents, label)
    image = jnp.clip(image * coil_shading(latents.shading), 0, 1)
    return add_noise(image, latents.noise, latents.noise_level)


def render_mask(key: PRNGKeyArray, label: Int32[Array, ""]) -> Bool[Array, "128 128"]:
    """Where the tumour of `render` is: what is painted covers more than half of a pixel."""
    latents = draw_latents(key)
    head = draw_head(latents.pose, latents.bend_x, latents.bend_y)
    _, distance, _, visible = place_tumor(head, latents, label)
    return visible * inside(distance) > 0.5


@dataclasses.dataclass(frozen=True)
class Latents:
    """All that is random in a slice: rows of numbers uniform in [-1, 1], and grids of standard normal ones."""

    noise: Float[Array, "2 128 128"]
    pose: Uniform
    contrast: Uniform
    skull: Uniform
    ventricles: Uniform
    vessels: Uniform
    tumor: Uniform
    noise_level: Uniform
    bend_x: Normal
    bend_y: Normal
    muscle: Normal
    folds: Normal
    texture: Normal
    outline: Normal
    shading: Normal


def draw_latents(key: PRNGKeyArray) -> Latents:
    """The latent variables of one slice.

    They come from a single draw: XLA compiles the generator anew for each, and with a key and a draw for every
    variable the program takes ten seconds to compile.
    """
    rows, grids, channels = (7, 16), (7, 40, 40), (2, SIZE, SIZE)
    first, second = math.prod(rows), math.prod(rows) + math.prod(grids)
    normal = random.normal(key, (second + math.prod(channels),))
    uniform = jax.lax.erf(normal[:first] / math.sqrt(2)).reshape(rows)
    return Latents(normal[second:].reshape(channels), *uniform, *normal[first:second].reshape(grids))


# --- Geometry ---------------------------------------------------------------------------------------------------------


def _pair(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> list[tuple[float, ...]]:
    """An ellipse on the right of the image and its mirror image on the left."""
    return [(x, y, radius_x, radius_y, degrees), (-x, y, radius_x, radius_y, -degrees)]


# Each part of the anatomy in the axial, coronal and sagittal plane: the union of ellipses
# (centre x, centre y, radius x, radius y, counterclockwise degrees). The sagittal head looks to the left.
_PARTS: dict[str, tuple[list[tuple[float, ...]], ...]] = {
    "head": (
        [(0, 0, 0.70, 0.86, 0)],
        [(0, 0.18, 0.68, 0.66, 0), (0, -0.25, 0.60, 0.40, 0), (0, -0.75, 0.42, 0.55, 0)],
        [(0.05, 0.22, 0.79, 0.64, 0), (-0.36, -0.36, 0.42, 0.46, 12), (0.22, -0.70, 0.40, 0.50, 0),
         (-0.76, -0.24, 0.11, 0.07, -35)],
    ),
    "cavity": (
        [(0, 0, 0.61, 0.77, 0)],
        [(0, 0.21, 0.58, 0.54, 0), *_pair(0.30, -0.08, 0.26, 0.22)],
        [(0.05, 0.26, 0.69, 0.50, 0), (0.36, -0.17, 0.31, 0.26, 0), (0.13, -0.60, 0.09, 0.60, 5)],
    ),
    "brain": (
        [(0, 0, 0.595, 0.755, 0)],
        [(0, 0.22, 0.565, 0.525, 0), *_pair(0.30, -0.09, 0.235, 0.195)],
        [(0.05, 0.28, 0.675, 0.465, 0), (0.39, -0.19, 0.25, 0.21, 0), (0.10, -0.16, 0.10, 0.14, 0),
         (0.14, -0.55, 0.055, 0.60, 5)],
    ),
    "cleft": (
        [(0, 0.58, 0.012, 0.20, 0), (0, -0.58, 0.012, 0.20, 0), *_pair(0.47, 0.10, 0.14, 0.014, 15),
         (0, 0.06, 0.09, 0.05, 0), (0, -0.27, 0.10, 0.02, 0)],
        [(0, 0.56, 0.012, 0.20, 0), *_pair(0.43, 0.03, 0.16, 0.016, 25), (0, -0.12, 0.10, 0.04, 0)],
        [(0.50, -0.03, 0.24, 0.014, -8), (-0.08, -0.16, 0.12, 0.05, 0), (0.25, 0.0, 0.05, 0.04, 0)],
    ),
    "ventricle": (
        [*_pair(0.085, 0.27, 0.035, 0.13, 20), *_pair(0.22, -0.30, 0.04, 0.15, 25), (0, -0.02, 0.012, 0.08, 0)],
        [*_pair(0.10, 0.24, 0.035, 0.12, -40), (0, 0.06, 0.013, 0.09, 0)],
        [(-0.08, 0.24, 0.20, 0.045, 12), (0.16, 0.22, 0.14, 0.045, -20), (0.21, -0.20, 0.03, 0.07, 20)],
    ),
    "nucleus": (
        [*_pair(0.10, -0.06, 0.075, 0.10, 20), *_pair(0.23, 0.12, 0.05, 0.15, -15), *_pair(0.15, 0.27, 0.03, 0.08, 20)],
        [*_pair(0.11, 0.06, 0.07, 0.08), *_pair(0.24, 0.10, 0.05, 0.11, -15)],
        [(0.05, 0.09, 0.13, 0.08, 0)],
    ),
    "tract": (
        [(0, -0.15, 0.10, 0.07, 0)],
        [(0, 0.36, 0.20, 0.025, 0)],
        [(-0.29, 0.20, 0.045, 0.07, 0), (0.03, 0.32, 0.30, 0.035, 0), (0.34, 0.20, 0.055, 0.07, 0),
         (0.10, -0.16, 0.085, 0.12, 0)],
    ),
    "airway": (
        [],
        [(0, -0.42, 0.09, 0.10, 0), *_pair(0.30, -0.62, 0.11, 0.10)],
        [(-0.30, -0.30, 0.11, 0.07, 0), (-0.10, -0.55, 0.05, 0.20, 0), (-0.45, -0.55, 0.22, 0.05, 0)],
    ),
    "plexus": (
        [*_pair(0.24, -0.30, 0.02, 0.05, 25)],
        [*_pair(0.07, 0.20, 0.015, 0.02)],
        [(0.18, 0.20, 0.05, 0.012, -20)],
    ),
    "sinus": (
        [(0, -0.74, 0.035, 0.04, 0), (0, 0.75, 0.025, 0.025, 0)],
        [(0, 0.73, 0.03, 0.03, 0)],
        [(0.67, 0.05, 0.02, 0.10, -20), (0.1, 0.74, 0.2, 0.012, 0)],
    ),
}  # fmt: skip


def _ellipses(part: str) -> Float[np.ndarray, "plane ellipse 5"]:
    """The ellipses of a part in each plane, padded with ellipses far outside the image."""
    count = max(len(ellipses) for ellipses in _PARTS[part])
    nowhere = (9.0, 9.0, 0.1, 0.1, 0.0)
    return np.array([ellipses + [nowhere] * (count - len(ellipses)) for ellipses in _PARTS[part]], np.float32)


def signed_distance(x: Grid, y: Grid, ellipses: Float[Array, "ellipse 5"]) -> Grid:
    """Distance to the boundary of a union of ellipses, negative inside, to first order (Taubin, 1991).

    For the curve q = 1 with q = (u/a)^2 + (v/b)^2 it is (q - 1) / |grad q|: right near the boundary, where a soft edge
    needs it, and a monotonic guess elsewhere.
    """

    def one(ellipse: Float[Array, "5"]) -> Grid:
        centre_x, centre_y, a, b, degrees = ellipse
        cosine, sine = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
        u = ((x - centre_x) * cosine + (y - centre_y) * sine) / a
        v = ((y - centre_y) * cosine - (x - centre_x) * sine) / b
        gradient = 2 * jnp.sqrt((u / a) ** 2 + (v / b) ** 2)
        return (u**2 + v**2 - 1) / (gradient + 1e-3)

    # A loop, not vmap: XLA fuses it into one pass over the pixels, 20 times faster than a reduction over ellipses.
    return functools.reduce(_smooth_minimum, [one(ellipse) for ellipse in ellipses])


def _smooth_minimum(a: Grid, b: Grid) -> Grid:
    """The smaller one, with the corner where two shapes meet filled in."""
    width = 0.05
    overlap = jnp.maximum(width - jnp.abs(a - b), 0) / width
    return jnp.minimum(a, b) - overlap**2 * (width / 4)


def inside(distance: Grid, softness: float = 0.008) -> Grid:
    """1 inside a shape, 0 outside, with an edge about a pixel wide (the partial volume of a voxel)."""
    return jax.nn.sigmoid(-distance / softness)


def blend(below: Grid, above: Grid | Scalar, opacity: Grid) -> Grid:
    """Paint `above` over `below`."""
    return below + opacity * (above - below)


def smooth_field(normal: Normal, cells: int) -> Grid:
    """A smooth random field of about unit variance, with features 128 / `cells` pixels wide (at most 40 cells)."""
    return jax.image.resize(normal[:cells, :cells], (SIZE, SIZE), "cubic")


def choice(uniform: Scalar, count: int) -> Int32[Array, ""]:
    """One of 0 to count - 1, each as likely as the others, from a uniform number in [-1, 1]."""
    return jnp.minimum((uniform + 1) * (count / 2), count - 1).astype(jnp.int32)


# --- The healthy head -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Head:
    """The plane (AXIAL, CORONAL or SAGITTAL) and the head coordinates of each pixel's centre."""

    plane: Int32[Array, ""]
    x: Grid
    y: Grid

    def distance(self, part: str) -> Grid:
        """Signed distance to a part of the anatomy, negative inside; the parts are the keys of the table above."""
        return signed_distance(self.x, self.y, jnp.asarray(_ellipses(part))[self.plane])


def draw_head(pose: Uniform, bend_x: Normal, bend_y: Normal) -> Head:
    """A random plane, pose (size, proportions, place, tilt) and bending of the anatomy."""
    plane, size, proportion, shift_x, shift_y, tilt, *_ = pose
    pixels = (jnp.arange(SIZE, dtype=jnp.float32) + 0.5) * (2 / SIZE) - 1
    x, y = jnp.meshgrid(pixels - 0.12 * shift_x, -pixels - 0.10 * shift_y)
    angle = 0.22 * tilt
    scale = 1.09 + 0.12 * size
    u = (x * jnp.cos(angle) + y * jnp.sin(angle)) * scale * (1 + 0.06 * proportion)
    v = (y * jnp.cos(angle) - x * jnp.sin(angle)) * scale
    return Head(choice(plane, 3), u + 0.016 * smooth_field(bend_x, 6), v + 0.016 * smooth_field(bend_y, 6))


@dataclasses.dataclass(frozen=True)
class Contrast:
    """How bright the sequence shows each tissue, from 0 to about 1."""

    scalp: Scalar
    muscle: Scalar
    bone: Scalar
    fluid: Scalar
    grey: Scalar
    white: Scalar
    vessel: Scalar
    enhancing: Scalar
    necrosis: Scalar
    oedema: Scalar


_SEQUENCES = np.array(
    [  # scalp muscle bone fluid grey white vessel enhancing necrosis oedema
        [0.48, 0.28, 0.06, 0.08, 0.26, 0.35, 0.30, 0.90, 0.06, 0.18],  # T1
        [0.42, 0.25, 0.05, 0.07, 0.22, 0.28, 0.50, 0.95, 0.05, 0.14],  # T1 with contrast agent
        [0.36, 0.20, 0.05, 0.45, 0.32, 0.23, 0.12, 0.95, 0.10, 0.50],  # T2
    ],
    np.float32,
)


def draw_contrast(uniform: Uniform) -> Contrast:
    """A random sequence, each tissue a little brighter or darker than usual, under a random receiver gain."""
    sequence, gain, *tissues = uniform[:12]
    usual = jnp.asarray(_SEQUENCES)[choice(sequence, len(_SEQUENCES))]
    return Contrast(*(usual * (1 + 0.12 * jnp.stack(tissues)) * (0.95 + 0.12 * gain)))


def paint_skull(head: Head, contrast: Contrast, latents: Latents) -> Grid:
    """Scalp, the muscle and airways of face and neck, bone, and the fluid that fills the skull."""
    outline, cavity = head.distance("head"), head.distance("cavity")
    bone_thickness = 0.045 + 0.01 * latents.skull[0]
    image = contrast.scalp * inside(outline)
    image = blend(image, contrast.muscle * (1 + 0.2 * smooth_field(latents.muscle, 40)), inside(outline + 0.05))
    image = blend(image, contrast.bone, inside(head.distance("airway")))
    image = blend(image, contrast.bone, inside(cavity - bone_thickness))
    return blend(image, contrast.fluid, inside(cavity))


def paint_brain(image: Grid, head: Head, contrast: Contrast, latents: Latents) -> Grid:
    """White matter under a folded cortex, with sulci, deep nuclei and tracts."""
    depth = -head.distance("brain")
    # Sulci follow the zero lines of a random field, which are long and winding; gyri lie between them.
    ridge = jnp.abs(smooth_field(latents.folds, 22))
    sulcus = jax.nn.sigmoid((0.2 - ridge - 6 * (depth - 0.13)) / 0.1)
    white = jax.nn.sigmoid((ridge - 0.35 + 10 * (depth - 0.11)) / 0.15) * inside(0.03 - depth)
    brain = blend(jnp.full_like(depth, contrast.grey), contrast.white, white)
    brain = blend(brain, contrast.fluid, 0.8 * sulcus)
    brain = blend(brain, contrast.grey, 0.8 * inside(head.distance("nucleus"), 0.015))
    brain = blend(brain, contrast.white, inside(head.distance("tract"), 0.012))
    brain = blend(brain, contrast.fluid, 0.85 * inside(head.distance("cleft"), 0.01))
    return blend(image, brain * (1 + 0.05 * smooth_field(latents.texture, 40)), inside(-depth))


def paint_ventricles(image: Grid, head: Head, contrast: Contrast, latents: Latents) -> Grid:
    """Ventricles of random width, wider on one side, with a choroid plexus that takes up contrast agent."""
    width, asymmetry, *_ = latents.ventricles
    widening = 0.008 + 0.02 * width + 0.012 * asymmetry * jnp.tanh(head.x / 0.05)
    image = blend(image, contrast.fluid, inside(head.distance("ventricle") - widening))
    return blend(image, contrast.vessel, 0.7 * inside(head.distance("plexus")))


def paint_vessels(image: Grid, head: Head, contrast: Contrast, latents: Latents) -> Grid:
    """The venous sinus on the midline, and vessels that cross the slice: spots where no tumour is."""
    image = blend(image, contrast.vessel, inside(head.distance("sinus")))
    x, y, size, _ = latents.vessels.reshape(4, 4)
    radius = 0.017 + 0.011 * size
    vessels = jnp.stack([0.5 * x, 0.5 * y, radius, radius, jnp.zeros_like(x)], axis=1)
    visible = inside(signed_distance(head.x, head.y, vessels)) * inside(head.distance("brain"))
    return blend(image, contrast.vessel, 0.8 * visible)


# --- Tumours ----------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tumor:
    """An ellipse with a ragged outline.

    Attributes:
        x: head coordinate of the centre, to the right.
        y: head coordinate of the centre, upwards.
        radius_x: half the width, in head coordinates.
        radius_y: half the height.
        raggedness: how far the outline departs from the ellipse, in head coordinates.
        enhancement: brightness of the living tissue, relative to the brightest.
        necrosis: opacity of the dead core inside the enhancing ring.
        oedema: opacity of the swelling around the mass.
    """

    x: Scalar
    y: Scalar
    radius_x: Scalar
    radius_y: Scalar
    raggedness: Scalar
    enhancement: Scalar
    necrosis: Scalar
    oedema: Scalar


# By plane: the middle of a hemisphere, and how far from it a glioma's centre may lie.
_HEMISPHERES = np.array([[0.29, 0.02, 0.05, 0.36], [0.28, 0.27, 0.05, 0.16], [0.27, 0.30, 0.24, 0.08]], np.float32)
# By plane: the vault's ellipse, and the range of angles (degrees) at which a meningioma may hang on it.
_VAULTS = np.array(
    [[0, 0, 0.61, 0.77, 0, 360], [0, 0.21, 0.58, 0.54, -10, 190], [0.05, 0.26, 0.69, 0.50, 10, 180]], np.float32
)
# By plane: the sella turcica, where the pituitary gland lies.
_SELLAE = np.array([[0, 0.07], [0, -0.16], [-0.08, -0.17]], np.float32)


def draw_glioma(uniform: Uniform, plane: Int32[Array, ""]) -> Tumor:
    """A large ragged mass within one hemisphere: necrotic core, enhancing ring, oedema."""
    x, y, spread_x, spread_y = jnp.asarray(_HEMISPHERES)[plane]
    side, shift_x, shift_y, size, aspect, *_ = uniform
    radius = 0.25 + 0.04 * size
    return Tumor(
        x=jnp.sign(side) * (x + spread_x * shift_x),
        y=y + spread_y * shift_y,
        radius_x=radius * (1 + 0.15 * aspect),
        radius_y=radius * (1 - 0.15 * aspect),
        raggedness=0.22 * radius,
        enhancement=jnp.float32(0.85),
        necrosis=jnp.float32(0.9),
        oedema=jnp.float32(0.8),
    )


def draw_meningioma(uniform: Uniform, plane: Int32[Array, ""]) -> Tumor:
    """A round, evenly enhancing mass that grows from the inner surface of the skull."""
    x, y, a, b, first, last = jnp.asarray(_VAULTS)[plane]
    where, size, *_ = uniform
    angle = jnp.deg2rad(first + (last - first) * (where + 1) / 2)
    radius = 0.21 + 0.04 * size
    return Tumor(
        x=x + (a - 0.75 * radius) * jnp.cos(angle),
        y=y + (b - 0.75 * radius) * jnp.sin(angle),
        radius_x=radius,
        radius_y=radius,
        raggedness=0.05 * radius,
        enhancement=jnp.float32(1),
        necrosis=jnp.float32(0),
        oedema=jnp.float32(0.15),
    )


def draw_pituitary(uniform: Uniform, plane: Int32[Array, ""]) -> Tumor:
    """A small, evenly enhancing mass in the sella turcica: on the midline, at the base of the brain."""
    x, y = jnp.asarray(_SELLAE)[plane]
    shift_x, shift_y, size, aspect, *_ = uniform
    radius = 0.11 + 0.025 * size
    return Tumor(
        x=x + 0.04 * shift_x,
        y=y + 0.05 * shift_y,
        radius_x=radius * (1 + 0.15 * aspect),
        radius_y=radius * (1 - 0.15 * aspect),
        raggedness=0.08 * radius,
        enhancement=jnp.float32(1),
        necrosis=jnp.float32(0),
        oedema=jnp.float32(0),
    )


def paint_tumor(image: Grid, head: Head, contrast: Contrast, latents: Latents, label: Int32[Array, ""]) -> Grid:
    """Add the tumour of the class `label`; without one the image stays as it is."""
    tumor, distance, ragged, visible = place_tumor(head, latents, label)
    uneven = 1 + 0.06 * smooth_field(latents.texture, 40)
    image = blend(image, contrast.oedema, visible * tumor.oedema * inside(distance - 0.10 + ragged, 0.025))
    image = blend(image, tumor.enhancement * contrast.enhancing * uneven, visible * inside(distance))
    core = inside(distance + 0.06 + 0.5 * ragged, 0.012)
    return blend(image, contrast.necrosis * uneven, visible * tumor.necrosis * core)


def place_tumor(head: Head, latents: Latents, label: Int32[Array, ""]) -> tuple[Tumor, Grid, Grid, Grid | Scalar]:
    """The tumour of the class `label`, the distance to its outline, how ragged that is, and where it can be seen."""
    # NO_TUMOR needs a mass too, since all branches are alike; it is not painted.
    draws = [draw_glioma, draw_meningioma, draw_pituitary, draw_pituitary]
    tumor = jax.lax.switch(label, draws, latents.tumor, head.plane)
    ellipse = jnp.stack([tumor.x, tumor.y, tumor.radius_x, tumor.radius_y, jnp.zeros_like(tumor.x)])
    ragged = tumor.raggedness * smooth_field(latents.outline, 14)
    distance = signed_distance(head.x, head.y, ellipse[None]) + ragged
    # The falx keeps a glioma in its hemisphere; the skull keeps every tumour in.
    hemisphere = jnp.where((label == GLIOMA) & (head.plane != SAGITTAL), inside(0.02 - jnp.sign(tumor.x) * head.x), 1)
    visible = jnp.where(label == NO_TUMOR, 0, inside(head.distance("cavity")) * hemisphere)
    return tumor, distance, ragged, visible


# --- Acquisition ------------------------------------------------------------------------------------------------------


def coil_shading(shading: Normal) -> Grid:
    """The bias field: a smooth gain around 1, from the sensitivity of the receiving coil."""
    return jnp.exp(0.08 * smooth_field(shading, 3))


def add_noise(image: Grid, noise: Float[Array, "2 128 128"], uniform: Uniform) -> Grid:
    """Rician noise: the magnitude of a signal with Gaussian noise in both channels (Gudbjartsson and Patz, 1995)."""
    real, imaginary = (0.019 + 0.011 * uniform[0]) * noise
    return jnp.clip(jnp.sqrt((image + real) ** 2 + imaginary**2), 0, 1)
