"""Read the MATLAB v7.3 files of the public brain-tumour set on Figshare with h5py: a slice, its patient and class.

Cheng, Jun: brain tumor dataset. figshare, https://doi.org/10.6084/m9.figshare.1512427 (2017). Each file holds `cjdata`,
with `label`, `PID`, `image`, `tumorBorder` and `tumorMask`.
"""

import io
from typing import Any

import numpy as np

from jaxcnn.data.files import FileError
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.scan import Scan, Slice, check_size
from jaxcnn.errors import importing

LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}


def read_matlab(encoded: bytes) -> Scan:
    """Read the image, the label and the patient.

    Grey levels are those of `jaxcnn.data.readers.intensities.to_bytes`.

    Raises:
        UserError: h5py is not installed.
        FileError: the file is no MATLAB v7.3 file, or holds something else.
        Exception: any other, of h5py: the file is damaged.
    """
    with importing("h5py", needed_by="MATLAB files", extra="matlab"):
        import h5py
    try:
        file = h5py.File(io.BytesIO(encoded), "r")
    except Exception as error:
        raise FileError("is not a MATLAB v7.3 file, or is damaged; save it in MATLAB with -v7.3") from error
    with file:
        try:
            image, label, patient = (file["cjdata"][name] for name in ("image", "label", "PID"))
            if image.ndim != 2:
                raise FileError(f"holds an image of shape {image.shape}, which is not a slice")
            check_size(*image.shape)
            # MATLAB stores columns one after the other, so that h5py finds rows and columns exchanged.
            pixels = to_bytes(np.asarray(image).T)
            number = int(np.asarray(label).item())
            return Scan((Slice(pixels),), _text(patient), LABELS[number])
        except KeyError as error:
            raise FileError(
                "is a MATLAB file of another layout; it must hold `cjdata` with image, PID and a label from 1 to 3, as"
                " Figshare's brain tumor dataset does"
            ) from error


def _text(characters: Any) -> str:
    """A MATLAB string, which is an array of character codes; or a number."""
    values = np.asarray(characters).ravel()
    if np.issubdtype(values.dtype, np.integer) and characters.attrs.get("MATLAB_class") != b"double":
        return "".join(map(chr, values.tolist())).strip()
    return "".join(f"{value:g}" for value in values.tolist())
