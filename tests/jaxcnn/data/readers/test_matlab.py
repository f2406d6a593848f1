"""MATLAB v7.3 as Figshare's set has it: image, label and patient, written here as MATLAB writes them."""

import io
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scan_files import write_matlab
from scipy.io import savemat

from jaxcnn.data.files import FileError
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.matlab import read_matlab
from jaxcnn.errors import UserError

VALUES = np.random.default_rng(0).integers(0, 2000, (40, 50)).astype(np.int16)


@pytest.mark.parametrize(("number", "label"), [(1, "meningioma"), (2, "glioma"), (3, "pituitary")])
def test_rows_are_rows_and_the_label_is_named(number: int, label: str, tmp_path: Path) -> None:
    scan = read_matlab(write_matlab(tmp_path / "1.mat", VALUES, number, "MR040241B").read_bytes())
    (of,) = scan.slices
    np.testing.assert_array_equal(of.pixels, to_bytes(VALUES))
    assert (scan.label, scan.patient) == (label, "MR040241B")


def hdf5(**content: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, value in content.items():
            file[name] = value
    return buffer.getvalue()


def older_matlab() -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, {"cjdata": {"image": VALUES}})
    return buffer.getvalue()


def test_what_is_refused(tmp_path: Path) -> None:
    whole = write_matlab(tmp_path / "1.mat", VALUES, 1, "7").read_bytes()
    for content, problem in [
        (b"no file", "is not a MATLAB v7.3 file, or is damaged; save it in MATLAB with -v7.3"),
        (older_matlab(), "is not a MATLAB v7.3 file"),
        (whole[:1500], "is not a MATLAB v7.3 file, or is damaged"),
        (
            hdf5(cvind=np.zeros(3)),
            "is a MATLAB file of another layout; it must hold `cjdata` with image, PID and a label",
        ),
        (write_matlab(tmp_path / "2.mat", VALUES, 4, "7").read_bytes(), "is a MATLAB file of another layout"),
        (write_matlab(tmp_path / "3.mat", np.zeros((3, 40, 40)), 1, "7").read_bytes(), "holds an image of shape"),
        (write_matlab(tmp_path / "4.mat", VALUES[:9], 1, "7").read_bytes(), "is too small: "),
    ]:
        with pytest.raises(FileError) as error:
            read_matlab(content)
        assert str(error.value).startswith(problem)


def test_without_h5py_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"need h5py, .*pip install -c constraints.txt -e '.\[matlab\]'"):
        read_matlab(b"")
