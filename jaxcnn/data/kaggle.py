"""Download the public archive from Kaggle, once, to the user's cache."""

import hashlib
import zipfile
from pathlib import Path

from jaxcnn.download import download
from jaxcnn.errors import UserError
from jaxcnn.runs.files import whole_file

PAGE = "https://www.kaggle.com/datasets/bilalakgz/brain-tumor-mri-dataset"
# Its class folders, in the order of the labels 0 to 3.
CLASSES = ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
ADDRESS = "https://www.kaggle.com/api/v1/datasets/download/bilalakgz/brain-tumor-mri-dataset"
# The archive that the project's counts and scores were measured with.
KNOWN_SHA256 = "5d44098a3d043029bb2c62c90d997c1fdcc7bb9fdb41e90790e42488c01ea0c6"

_WAY_OUT = f"try again, or download it in a browser from {PAGE} and give the path of the file"


def fetch_archive(address: str, folder: Path) -> Path:
    """Download the archive (usually `ADDRESS`) into the folder, unless it is there already, and return its path.

    Raises:
        UserError: the address can't be reached, the transfer was cut short, what came is no zip, or `folder` can't be
            written. Nothing is left behind then.
    """
    path = folder / "brain-tumor-mri-dataset.zip"
    if path.exists():
        return path
    try:
        with whole_file(path) as temporary:
            with temporary.open("wb") as file:
                download(address, file, way_out=_WAY_OUT)
            if not zipfile.is_zipfile(temporary):
                raise UserError(f"{address}: the downloaded file is not a zip; {_WAY_OUT}")
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from error
    return path


def is_known_archive(path: Path) -> bool:
    """Tell whether the file is, byte for byte, the archive that the project's counts and scores were measured with.

    The publisher may update it: another archive is a reason to mention it, not to refuse it. Who sent it is proved by
    TLS, and what is in it is checked image by image.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == KNOWN_SHA256
