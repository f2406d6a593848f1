"""DICOM: the values that the standard says, for files made here and pydicom's own."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scan_files import dicom_bytes

from jaxcnn.data.files import FileError, single_file
from jaxcnn.data.readers.dicom import read_dicom
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.table import READERS, find_reader, read_scan
from jaxcnn.errors import UserError

VALUES = np.random.default_rng(0).integers(0, 2000, (40, 50)).astype(np.uint16)


def grey(pixels: np.ndarray = VALUES, **elements: Any) -> np.ndarray:
    (of,) = read_dicom(dicom_bytes(pixels, **elements)).slices
    return of.pixels


def test_without_a_window_the_percentiles_decide() -> None:
    np.testing.assert_array_equal(grey(), to_bytes(VALUES))


def test_a_window_is_the_standards_linear_function() -> None:
    """PS3.3 C.11.2.1.2.1, after rescaling (C.11.1)."""
    found = grey(WindowCenter=[300, 40], WindowWidth=[401, 80], RescaleSlope=2, RescaleIntercept=-1000)
    x = 2.0 * VALUES - 1000
    expected = 255 * np.clip((x - (300 - 0.5)) / (401 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_a_sigmoid_window_is_the_standards() -> None:
    """PS3.3 C.11.2.1.3.1."""
    found = grey(WindowCenter=1000, WindowWidth=600, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(found, 255 / (1 + np.exp(-4 * (VALUES - 1000.0) / 600)), atol=0.51)


@pytest.mark.parametrize("width", [1, 0])
def test_a_window_of_no_width_is_none(width: int) -> None:
    np.testing.assert_array_equal(grey(WindowCenter=500, WindowWidth=width), to_bytes(VALUES))


def test_a_lookup_table_is_looked_up() -> None:
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor, table.LUTExplanation = [2000, 0, 16], "squares"
    squares = (np.arange(2000.0) ** 2 * 65535 / 1999**2).astype(np.uint16)
    table.LUTData = squares.tobytes()
    table["LUTData"].VR = "OW"
    found = grey(VOILUTSequence=[table], WindowCenter=5, WindowWidth=10)
    np.testing.assert_allclose(found, squares[VALUES] * (255 / 65535), atol=0.51)


def test_monochrome1_is_turned_over() -> None:
    np.testing.assert_array_equal(grey(PhotometricInterpretation="MONOCHROME1"), 255 - to_bytes(VALUES))


def test_signed_values_keep_their_sign() -> None:
    signed = VALUES.astype(np.int16) - 1000
    np.testing.assert_array_equal(grey(signed), to_bytes(signed))


def test_frames_are_slices_on_one_scale() -> None:
    frames = np.stack([VALUES // 4, VALUES])
    slices = read_dicom(dicom_bytes(frames)).slices
    assert [of.part for of in slices] == ["1", "2"]
    np.testing.assert_array_equal([of.pixels for of in slices], to_bytes(frames))


def test_colours_become_their_luma() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    elements = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "HighBit": 7}
    elements |= {"BitsAllocated": 8, "BitsStored": 8, "PixelData": colours.tobytes()}
    np.testing.assert_allclose(grey(VALUES, **elements), colours @ [0.299, 0.587, 0.114], atol=0.51)


def test_the_patient_or_else_the_study_is_told() -> None:
    assert read_dicom(dicom_bytes(VALUES, PatientID=" P7 ", StudyInstanceUID="1.2.3")).patient == "P7"
    assert read_dicom(dicom_bytes(VALUES, PatientID="", StudyInstanceUID="1.2.3")).patient == "1.2.3"
    assert read_dicom(dicom_bytes(VALUES)).patient == ""


def test_a_dicom_file_is_known_by_its_beginning(tmp_path: Path) -> None:
    for name, content, known in [
        ("IM0001", dicom_bytes(VALUES), "DICOM"),
        ("1.2.840.113619.2", dicom_bytes(VALUES), "DICOM"),
        ("notes", b"x" * 500, None),
        ("empty", b"", None),
        ("scan.png", dicom_bytes(VALUES), "PNG"),
    ]:
        (tmp_path / name).write_bytes(content)
        reader = find_reader(single_file(tmp_path / name))
        assert (reader.format if reader else None) == known


def test_pydicoms_own_files() -> None:
    """Explicit and implicit, either order of bytes, run lengths and JPEG 2000: all the same MR image."""
    from pydicom.data import get_testdata_file

    def read(name: str) -> np.ndarray:
        return read_dicom(Path(str(get_testdata_file(name))).read_bytes()).slices[0].pixels

    expected = read("MR_small.dcm")
    assert (expected.shape, expected.min() < expected.max()) == ((64, 64), True)
    for name in ("MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"):
        np.testing.assert_array_equal(read(name), expected)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (dicom_bytes(VALUES, PixelData=None), "is a DICOM file without pixels, such as a report or a plan"),
        (b"\0" * 128 + b"DICM", "is a DICOM file without pixels"),
        (b"\x89PNG\r\n\x1a\n" + bytes(300), "is not a DICOM file, or is damaged"),
        (dicom_bytes(VALUES)[:-100], "is not a DICOM file, or is damaged"),
        (dicom_bytes(VALUES, Rows=None), "is not a DICOM file, or is damaged"),
        (dicom_bytes(np.zeros((8, 50), np.uint16)), "is too small: 50x8 pixels"),
        (dicom_bytes(VALUES, Rows=60_000, Columns=60_000), "is too large: 60000x60000 pixels"),
    ],
)
def test_what_is_refused(content: bytes, problem: str) -> None:
    (reader,) = (of for of in READERS if of.format == "DICOM")
    with pytest.raises(FileError) as error:
        read_scan(content, reader)
    assert str(error.value).startswith(problem)


def test_a_compression_that_no_package_reads_is_named() -> None:
    import io

    import pydicom
    from pydicom.uid import JPEGLSLossless

    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(VALUES)))
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 no JPEG"])
    dataset["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    with pytest.raises(FileError, match=r"is compressed \(JPEG-LS Lossless.*; pip install pylibjpeg pylibjpeg-libjpeg"):
        read_dicom(buffer.getvalue())


def test_without_pydicom_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"need pydicom, .*pip install -c constraints.txt -e '.\[dicom\]'"):
        read_dicom(b"")
