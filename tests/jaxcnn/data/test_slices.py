"""Slices to segment, from an NPZ file or from the public data's folders; what is neither is refused in one line."""

import numpy as np
import pytest
from PIL import Image
from scan_files import write_nifti

from jaxcnn.data.slices import load_slices
from jaxcnn.errors import UserError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (3, 16, 32, 3), np.uint8)
MASKS = RANDOM.uniform(size=(3, 16, 32)) > 0.7


def write_npz(folder, **arrays):
    np.savez(folder / "slices.npz", **arrays)
    return folder / "slices.npz"


def write_image(array, path):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(array).save(path)


def test_an_npz_file_with_all_there_is(tmp_path):
    slices = load_slices(write_npz(tmp_path, images=IMAGES, masks=MASKS, patients=np.array(["b", "a", "b"])))
    np.testing.assert_array_equal(slices.images, IMAGES)
    np.testing.assert_array_equal(slices.masks, MASKS)
    assert slices.patient_names == ("b", "a")
    assert slices.places("b").tolist() == [0, 2]


def test_an_npz_file_with_images_alone_is_one_patient(tmp_path):
    slices = load_slices(write_npz(tmp_path, images=IMAGES))
    assert slices.masks is None
    assert slices.patients == ("slices",) * 3


def test_a_folder_as_the_public_data_comes(tmp_path):
    """Folders of patients, TIFF files with masks beside them, and numbers that are not padded."""
    values = {("p1", 2): 20, ("p1", 10): 100, ("p1", 1): 10, ("p0", 1): 1}
    for (patient, number), value in values.items():
        path = tmp_path / "kaggle_3m" / patient / f"{patient}_19980704_{number}.tif"
        write_image(np.full((16, 16, 3), value, np.uint8), path)
        write_image(np.full((16, 16), 255 * (number == 10), np.uint8), path.with_stem(path.stem + "_mask"))
    (tmp_path / "kaggle_3m" / "data.csv").write_text("not an image")
    slices = load_slices(tmp_path / "kaggle_3m")
    assert slices.patients == ("p0", "p1", "p1", "p1")
    assert slices.images[:, 0, 0, 0].tolist() == [1, 10, 20, 100]
    assert slices.masks.all(axis=(1, 2)).tolist() == [False, False, False, True]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".tiff"])
def test_a_flat_folder_of_grey_images(tmp_path, suffix, monkeypatch):
    write_image(np.full((16, 16), 77, np.uint8), tmp_path / "patient" / f"scan{suffix}")
    monkeypatch.chdir(tmp_path / "patient")
    slices = load_slices(tmp_path / "patient")
    assert slices.images.shape == (1, 16, 16, 1)
    np.testing.assert_allclose(slices.images, 77, atol=1)
    assert (slices.patients, slices.masks) == (("patient",), None)
    assert load_slices(tmp_path.joinpath("patient").relative_to(tmp_path / "patient")).patients == ("patient",)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"masks": MASKS}, r"`images` must be uint8 .* and is missing"),
        ({"images": IMAGES / 255}, r"and is float64 of shape \(3, 16, 32, 3\)"),
        ({"images": IMAGES[0]}, r"and is uint8 of shape \(16, 32, 3\)"),
        ({"images": np.repeat(IMAGES, 2, axis=-1)}, r"and is uint8 of shape \(3, 16, 32, 6\)"),
        ({"images": IMAGES[:0]}, r"and is uint8 of shape \(0, 16, 32, 3\)"),
        (
            {"images": IMAGES, "masks": MASKS[:2]},
            r"`masks` must be numbers of shape \(3, 16, 32\), and is .*\(2, 16, 32\)",
        ),
        ({"images": IMAGES, "masks": MASKS.astype(str)}, r"`masks` must be numbers .* and is <U5"),
        ({"images": IMAGES, "masks": MASKS * 0.5}, "its mask holds 0 to 0.5, which are no numbers of classes"),
        ({"images": IMAGES, "masks": IMAGES[..., 0] // 4}, "hold 64 levels up to 63, more than 16"),
        ({"images": IMAGES, "masks": MASKS * np.array([1, 255, 0])[:, None, None]}, "has 1 and .* have 255"),
        ({"images": IMAGES, "patients": np.array(["a"])}, r"`patients` must be 3 names, and is <U1 of shape \(1,\)"),
        ({"images": IMAGES, "patients": np.array(["a", 1, None], object)}, "is not an NPZ file of plain arrays"),
    ],
)
def test_an_npz_file_of_something_else(tmp_path, arrays, problem):
    path = write_npz(tmp_path, **arrays)
    with pytest.raises(UserError, match=rf"{path}: .*{problem}"):
        load_slices(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_npz_file(tmp_path, content):
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"file.npz: is not an NPZ file of plain arrays"):
        load_slices(tmp_path / "file.npz")


def test_a_single_array_is_no_npz_file(tmp_path):
    np.save(tmp_path / "array.npy", IMAGES)
    with pytest.raises(UserError, match=r"array.npy: is not an NPZ file of plain arrays"):
        load_slices(tmp_path / "array.npy")


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}: holds no images"):
        load_slices(tmp_path)
    (tmp_path / "scan.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"scan.png: is not a JPEG, PNG, TIFF image, or is damaged"):
        load_slices(tmp_path)
    write_image(np.zeros((16, 16), np.uint16), tmp_path / "scan.png")
    with pytest.raises(UserError, match=r"scan.png: has Pillow mode I;16; convert it to 8 bits"):
        load_slices(tmp_path)
    with pytest.raises(UserError, match="missing: no such file or folder"):
        load_slices(tmp_path / "missing")


def test_images_and_masks_of_several_sizes(tmp_path):
    write_image(IMAGES[0], tmp_path / "a.png")
    write_image(IMAGES[0, :8], tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b.png: it differs in size from a.png"):
        load_slices(tmp_path)
    write_image(IMAGES[1], tmp_path / "b.png")
    write_image(np.zeros((16, 32), np.uint8), tmp_path / "a_mask.png")
    with pytest.raises(UserError, match=r"b.png: has no mask beside it \(NAME_mask\), but other images have"):
        load_slices(tmp_path)
    write_image(np.zeros((8, 32), np.uint8), tmp_path / "b_mask.png")
    with pytest.raises(UserError, match=r"b_mask.png: differs in size from b.png \(32x8, not 32x16\)"):
        load_slices(tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match=r"b_mask.png: is the mask of no image"):
        load_slices(tmp_path)


def test_volumes_of_two_and_three_channels_do_not_go_together(tmp_path):
    for name, channels in (("a", 3), ("b", 1), ("c", 2)):
        volume = RANDOM.integers(0, 256, (18, 17, 16, channels)).astype(np.int16).squeeze()
        write_nifti(tmp_path / f"{name}.nii.gz", volume)
    with pytest.raises(UserError, match=r"c.nii.gz: it has fewer channels than others, which have 3; give"):
        load_slices(tmp_path)
    (tmp_path / "c.nii.gz").unlink()
    assert load_slices(tmp_path).images.shape[3] == 3


@pytest.mark.parametrize("levels", [(0, 255), (0, 1), (0, 3)])
def test_masks_are_black_and_white_or_zeros_and_numbers(tmp_path, levels):
    """Masks of 0 and 1 look black, and once counted as empty; of numbers each stands for a region."""
    for name, mask in zip("ab", MASKS, strict=False):
        write_image(IMAGES[0], tmp_path / f"{name}.png")
        write_image(np.where(mask, levels[1], levels[0]).astype(np.uint8), tmp_path / f"{name}_mask.png")
    slices = load_slices(tmp_path)
    np.testing.assert_array_equal(slices.masks, MASKS[:2])
    assert slices.classes == ("background", "tumor")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_black_and_white_with_grey_edges_is_still_black_and_white(tmp_path, suffix):
    mask = Image.fromarray(255 * MASKS[0].astype(np.uint8)).resize((128, 64), Image.Resampling.BICUBIC)
    write_image(np.asarray(mask), tmp_path / f"a_mask{suffix}")
    write_image(np.zeros((64, 128), np.uint8), tmp_path / "a.png")
    slices = load_slices(tmp_path)
    assert slices.classes == ("background", "tumor")
    assert (slices.masks == (np.asarray(mask) > 127)).mean() > 0.98


def test_the_numbers_of_regions_become_classes(tmp_path):
    labels = RANDOM.choice(np.array([0, 1, 2, 4], np.uint8), (3, 16, 32))
    slices = load_slices(write_npz(tmp_path, images=IMAGES, masks=labels))
    assert slices.classes == ("background", "1", "2", "4")
    np.testing.assert_array_equal(slices.masks, np.where(labels == 4, 3, labels))


@pytest.mark.real_data
def test_the_masks_that_were_reported_are_not_empty(shared):
    assert load_slices(shared / "inputs/masks01").masks.any()


def test_slices_lie_as_viewers_show_them_and_what_is_transparent_is_black(tmp_path):
    turned = Image.Exif()
    turned[274] = 3
    Image.fromarray(IMAGES[0, ::-1, ::-1]).save(tmp_path / "a.png", exif=turned)
    alpha = np.full((16, 32, 1), 255, np.uint8)
    alpha[:8] = 0
    write_image(np.concatenate([IMAGES[0], alpha], axis=-1), tmp_path / "b.png")
    images = load_slices(tmp_path).images
    np.testing.assert_array_equal(images[0], IMAGES[0])
    np.testing.assert_array_equal(images[1], np.where(alpha, IMAGES[0], 0))
