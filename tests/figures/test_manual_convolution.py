import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.signal import convolve2d

from figures import manual_convolution as module
from figures.manual_convolution import manual_convolution, manual_convolution_figure, one_of_each_class
from jaxcnn.convolution import gaussian_kernel, horizontal_edge_kernel, sharpening_kernel
from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.errors import UserError


@pytest.fixture
def dataset():
    """Forty small random images, ten of each class."""
    labels = np.arange(40, dtype=np.int32) % len(CLASSES)
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    split = Split(images, labels, tuple(map(str, range(40))))
    return Dataset("random", CLASSES, {"train": split, "test": split})


def shown(panel):
    return panel.images[0].get_array()


def test_ten_columns_show_the_convolutions_of_each_row_in_order(dataset):
    images = dataset.splits["train"].images[:3]
    panels = np.reshape(manual_convolution_figure(images).axes, (10, 3)).T
    kernels = [make(k) for make in (horizontal_edge_kernel, gaussian_kernel, sharpening_kernel) for k in (3, 5, 7)]
    for row, image in zip(panels, images[..., 0] / 255, strict=True):
        np.testing.assert_array_equal(shown(row[0]), image)
        for panel, kernel in zip(row[1:], kernels, strict=True):
            expected = convolve2d(image, kernel, mode="same") / np.abs(kernel).sum()
            np.testing.assert_allclose(shown(panel), expected, atol=1e-12)


def test_headings_stand_over_the_groups_and_sizes_under_the_last_row(dataset):
    panels = np.reshape(manual_convolution_figure(dataset.splits["train"].images[:3]).axes, (10, 3)).T
    headings = ["Original", "", "Horizontal edges", "", "", "Gaussian blur", "", "", "Sharpening", ""]
    assert [panel.get_title() for panel in panels[0]] == headings
    assert [panel.get_xlabel() for panel in panels[-1]] == ["", *["3×3", "5×5", "7×7"] * 3]
    assert not any(panel.get_title() + panel.get_xlabel() for panel in panels[1])


def test_a_filter_has_one_grey_scale_with_zero_in_the_middle_where_it_is_signed(dataset):
    panels = np.reshape(manual_convolution_figure(dataset.splits["train"].images[:3]).axes, (10, 3))
    scales = [{panel.images[0].get_clim() for panel in group.flat} for group in np.split(panels, [1, 4, 7])]
    (original,), ((edge_low, edge_high),), (blur,), ((sharp_low, sharp_high),) = scales
    assert original == blur == (0, 1)
    assert edge_low == -edge_high < 0
    assert sharp_low == -sharp_high < 0


def test_black_images_can_be_drawn():
    figure = manual_convolution_figure(np.zeros((1, 8, 8, 1), np.uint8))
    assert all((shown(panel) == 0).all() for panel in figure.axes)


def test_the_seed_chooses_one_training_image_of_each_kind_of_tumour(dataset):
    def labels(images):
        train = dataset.splits["train"]
        return [int(train.labels[(train.images == image).all((1, 2, 3))][0]) for image in images]

    choices = [one_of_each_class(dataset, seed) for seed in range(5)]
    assert all(labels(images) == [0, 1, 3] for images in choices)
    assert len({images.tobytes() for images in choices}) > 1
    np.testing.assert_array_equal(choices[3], one_of_each_class(dataset, 3))


@pytest.mark.slow
def test_the_command_writes_the_same_picture_for_the_same_seed(monkeypatch, capsys, tmp_path, dataset):
    monkeypatch.setattr(module, "load_dataset", lambda _source: dataset)
    first, again, other = (tmp_path / f"{name}.png" for name in ("first", "again", "other"))
    for seed, out in ((1, first), (1, again), (2, other)):
        manual_convolution(seed=seed, out=out)
        assert capsys.readouterr().out == f"{out}\n"
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    with Image.open(first) as picture:
        assert picture.width > 1600
    assert sorted(tmp_path.iterdir()) == [again, first, other]


@pytest.mark.parametrize(
    ("classes", "rows"),
    [(("no", "yes"), [1, 0]), (("a", "b", "c", "d", "e"), [0, 1, 2]), (("healthy", "x", "y"), [1, 2, 0])],
)
def test_other_classes_are_shown_as_they_come_and_the_healthy_last(dataset, classes, rows):
    labels = np.arange(40, dtype=np.int32) % len(classes)
    train = dataclasses.replace(dataset.splits["train"], labels=labels)
    images = one_of_each_class(dataclasses.replace(dataset, classes=classes, splits={"train": train}), 0)
    assert [int(labels[(train.images == image).all((1, 2, 3))][0]) for image in images] == rows


def test_a_data_set_without_training_images_is_the_users_error(monkeypatch, tmp_path, dataset):
    monkeypatch.setattr(module, "load_dataset", lambda _source: dataclasses.replace(dataset, splits={}))
    with pytest.raises(UserError, match="--data random: has no training images"):
        manual_convolution(out=tmp_path / "out.png")


def test_a_negative_seed_is_the_users_error():
    with pytest.raises(UserError, match="--seed -1"):
        manual_convolution(seed=-1)
