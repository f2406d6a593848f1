"""What a convolution does: three images, each convolved with three kernels of three sizes."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from figures.saving import save_figure
from jaxcnn.convolution import gaussian_kernel, horizontal_edge_kernel, manual_conv2d, sharpening_kernel
from jaxcnn.data.class_names import meaning
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.load import load_dataset
from jaxcnn.errors import UserError
from jaxcnn.program_cache import keep_programs

KERNELS = {
    "Horizontal edges": horizontal_edge_kernel,
    "Gaussian blur": gaussian_kernel,
    "Sharpening": sharpening_kernel,
}
SIZES = (3, 5, 7)
_ROWS = 3

# The space between two groups of columns, as a share of a column.
_GAP = 0.1


def manual_convolution_figure(images: UInt8[np.ndarray, "n height width 1"]) -> Figure:
    """One row per image: the original, then each kernel of `KERNELS` at each of `SIZES`, by `manual_conv2d`."""
    originals = images[..., 0] / 255
    groups = {"Original": {"": originals}}
    for name, make_kernel in KERNELS.items():
        groups[name] = {f"{k}×{k}": _responses(originals, make_kernel(k)) for k in SIZES}

    widths = [1.0] + [_GAP, *[1.0] * len(SIZES)] * len(KERNELS)
    figure = Figure(figsize=(1.5 * sum(widths), 1.5 * len(images) + 0.5), layout="compressed")
    grid = figure.add_gridspec(len(images), len(widths), width_ratios=widths)
    left = 0
    for name, columns in groups.items():
        _draw_group(figure, grid, left, name, columns)
        left += len(columns) + 1
    return figure


def _responses(
    images: Float64[np.ndarray, "n height width"], kernel: Float64[np.ndarray, "k k"]
) -> Float64[np.ndarray, "n height width"]:
    """The images convolved with the kernel, divided by the sum of its magnitudes.

    A larger kernel has a larger sum. After the division, an edge of the same height has the same response at every size
    and a blurred grey value is a weighted mean, so all sizes can be shown on one scale.
    """
    return np.stack([manual_conv2d(image, kernel) for image in images]) / np.abs(kernel).sum()


def _draw_group(
    figure: Figure, grid: GridSpec, left: int, heading: str, columns: dict[str, Float64[np.ndarray, "n height width"]]
) -> None:
    """Draw labelled columns of images from column `left` of the grid, with a heading over the middle one."""
    # One scale for the whole group: a pixel that looks brighter is brighter, across rows and sizes.
    low, high = _grey_scale(np.stack(list(columns.values())))
    for offset, (label, images) in enumerate(columns.items()):
        panels = [figure.add_subplot(grid[row, left + offset], xticks=[], yticks=[]) for row in range(len(images))]
        for panel, image in zip(panels, images, strict=True):
            panel.imshow(image, cmap="gray", vmin=low, vmax=high)
        panels[-1].set_xlabel(label)
        if offset == len(columns) // 2:
            panels[0].set_title(heading)


def _grey_scale(responses: Float64[np.ndarray, "size n height width"]) -> tuple[float, float]:
    """The values that are drawn black and white."""
    if responses.min() >= 0:
        return 0.0, 1.0  # grey values and weighted means of them: as in the original
    # Signed responses: zero is mid-grey, so that the sign can be seen. The few strongest, at the rim of the head, are
    # clipped; they would leave the brain without contrast.
    limit = float(np.quantile(np.abs(responses), 0.995))
    return -limit, limit


def manual_convolution(data: str = "phantom", seed: int = 0, out: Path = Path("manual-convolution.png")) -> None:
    """Draw three training images convolved with edge, blur and sharpening kernels of three sizes.

    Args:
        data: `phantom`, or the folder of a prepared data set.
        seed: Seed of the choice of images, each of another class; classes of tumours come first.
        out: File of the figure; its suffix chooses the format.
    """
    if seed < 0:
        raise UserError(f"--seed {seed}: must be at least 0")
    keep_programs()
    save_figure(manual_convolution_figure(one_of_each_class(load_dataset(data), seed)), out)


def one_of_each_class(dataset: Dataset, seed: int) -> UInt8[np.ndarray, "n height width 1"]:
    """One training image of each of at most three classes, chosen by the seed; images without a tumour come last.

    Raises:
        UserError: the data set has no training images.
    """
    if "train" not in dataset.splits:
        raise UserError(f"--data {dataset.source}: has no training images; give a data set that has some")
    random, train = np.random.default_rng(seed), dataset.splits["train"]
    shown = [place for place in np.unique(train.labels).tolist() if meaning(dataset.classes[place]) != "no tumour"]
    others = [place for place in np.unique(train.labels).tolist() if place not in shown]
    chosen = [random.choice(np.flatnonzero(train.labels == place)) for place in [*shown, *others][:_ROWS]]
    return train.images[chosen]
