"""NIfTI: which slices, and how they lie."""

import gzip
import io
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from jaxcnn.data.files import FileError
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.nifti import read_nifti
from jaxcnn.data.readers.table import READERS, read_scan
from jaxcnn.errors import UserError

# Along the axes of the canonical orientation: to the patient's right, front, top.
SHAPE = (24, 30, 20)


def volume() -> np.ndarray:
    """All different, brighter to the right, the front and the top, so that a turn would be seen."""
    x, y, z = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    return (1000 + 100 * x + 10 * y + 3 * z).astype(np.float32)


def nifti(values: np.ndarray, orientation: str = "RAS", zooms: tuple[float, ...] = (1, 1, 1)) -> bytes:
    """A canonical volume, stored in another orientation, with the affine that says so."""
    affine = np.diag([*zooms, 1.0])
    image = nibabel.Nifti1Image(values, affine)
    codes = nibabel.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), codes)).to_bytes()


def pictures(content: bytes) -> tuple[np.ndarray, list[str]]:
    slices = read_nifti(content).slices
    return np.stack([of.pixels for of in slices]), [of.part for of in slices]


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_however_it_is_stored_the_patient_lies_as_radiologists_expect(orientation: str) -> None:
    found, parts = pictures(nifti(volume(), orientation))
    assert found.shape == (20, 30, 24)
    grey = to_bytes(volume())
    for number, part in zip(range(20), parts, strict=True):
        assert part == str(number + 1)  # From the lowest.
        for row, column in ((0, 0), (0, 23), (29, 0), (11, 7)):
            # On the left is the patient's right, on top the front.
            assert found[number, row, column] == grey[23 - column, 29 - row, number]


@pytest.mark.parametrize(("axis", "shape"), [(0, (20, 30)), (1, (20, 24))])
def test_thick_slices_are_cut_as_they_were_acquired(axis: int, shape: tuple[int, ...]) -> None:
    zooms = tuple(5.0 if place == axis else 1.0 for place in range(3))
    found, parts = pictures(nifti(volume(), "LPS", zooms))
    assert found.shape[1:] == shape
    assert parts[-1] == str(SHAPE[axis])
    fourth, grey = found[parts.index("4")], to_bytes(volume())
    if axis == 0:  # From the side: the front is on the left, the top on top.
        assert fourth[2, 4] == grey[3, 29 - 4, 19 - 2]
    else:  # From the front: the patient's right is on the left, the top on top.
        assert fourth[2, 4] == grey[23 - 4, 3, 19 - 2]


def test_only_slices_that_show_something_are_taken() -> None:
    values = np.zeros((32, 32, 10), np.float32)
    values[:, :, 4] = 500
    values[:4, :, 6] = 500  # An eighth of the slice.
    values[:2, :, 8] = 500  # A sixteenth.
    _, parts = pictures(nifti(values))
    assert parts == ["5", "7"]
    values[:] = 0
    values[0, 0, 3] = 500
    _, parts = pictures(nifti(values))
    assert parts == ["4"]


def test_compressed_scaled_and_nifti_2_are_read() -> None:
    image = nibabel.Nifti1Image(volume().astype(np.int16), np.eye(4))
    expected, _ = pictures(image.to_bytes())
    np.testing.assert_array_equal(pictures(gzip.compress(image.to_bytes()))[0], expected)
    np.testing.assert_array_equal(pictures(nibabel.Nifti2Image.from_image(image).to_bytes())[0], expected)
    one_of_one = nibabel.Nifti1Image(volume().astype(np.int16)[..., None, None], np.eye(4))
    np.testing.assert_array_equal(pictures(one_of_one.to_bytes())[0], expected)


def test_nibabels_own_file() -> None:
    path = Path(nibabel.__file__).parent / "tests/data/anatomical.nii"
    found, _ = pictures(path.read_bytes())
    assert found.shape == (25, 41, 33)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (nibabel.Nifti1Image(np.zeros((20, 20, 20, 3), np.int16), np.eye(4)).to_bytes(), "is a series of 3 NIfTI"),
        (nibabel.Nifti1Image(np.zeros((20, 20), np.int16), np.eye(4)).to_bytes(), "is a NIfTI file of shape (20, 20)"),
        (nibabel.Nifti1Image(np.zeros((9, 9, 30), np.int16), np.eye(4)).to_bytes(), "is too small: "),
        (nibabel.Nifti1Image(np.zeros((20, 20, 20), np.complex64), np.eye(4)).to_bytes(), "is a NIfTI volume of col"),
        (nifti(volume())[:-9000], "is not a NIfTI file, or is damaged"),
        (gzip.compress(nifti(volume()))[:2000], "is not a NIfTI file, or is damaged"),
        (b"no volume", "is not a NIfTI file, or is damaged"),
        (nifti(volume())[:70] + b"\x7c\x3c" + nifti(volume())[72:], "is not a NIfTI file, or is damaged"),  # its type
    ],
)
def test_what_is_refused(
    content: bytes, problem: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (reader,) = (of for of in READERS if of.format == "NIfTI")
    with pytest.raises(FileError) as error:
        read_scan(content, reader)
    assert str(error.value).startswith(problem)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_a_gzip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxcnn.data.readers import nifti as module

    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="w") as file:
        file.write(bytes(200_000))
    with pytest.raises(FileError, match="is too large: more than 0 MB once it is unpacked"):
        read_nifti(buffer.getvalue())


def test_without_nibabel_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(UserError, match=r"need nibabel, .*pip install -c constraints.txt -e '.\[nifti\]'"):
        read_nifti(b"")
