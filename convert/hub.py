"""The weights that PyTorch hub offers: fetched once, and checked against the hash in their name."""

import hashlib
from pathlib import Path

from jaxcnn.download import download
from jaxcnn.errors import UserError
from jaxcnn.runs.files import whole_file

ADDRESS = "https://github.com/mateuszbuda/brain-segmentation-pytorch/releases/download/v1.0/unet-e012d006.pt"
NAME = "unet-e012d006.pt"
# PyTorch hub's convention: a name ends in the first digits of the file's SHA-256.
SHA256_START = "e012d006"

_WAY_OUT = "download it where you can, and run: python -m convert unet FILE OUT"


def fetch_weights(address: str, folder: Path) -> Path:
    """Download the weights (usually from `ADDRESS`) into the folder, unless they are there, and return their path.

    Raises:
        UserError: the address can't be reached, the folder can't be written, or the file is not the hub's; it is
            deleted then.
    """
    path = folder / NAME
    if not path.exists():
        try:
            with whole_file(path) as temporary, temporary.open("wb") as file:
                download(address, file, way_out=_WAY_OUT)
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror}; set XDG_CACHE_HOME to a folder") from error
    try:
        check_hash(path)
    except UserError as error:
        path.unlink()
        raise UserError(f"{error} (deleted)") from error
    return path


def check_hash(path: Path) -> None:
    """See that a file under the hub's name is the hub's.

    Raises:
        UserError: it has another hash, or can't be read.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; give the path of a PyTorch checkpoint") from error
    if not found.startswith(SHA256_START):
        raise UserError(
            f"{path}: its SHA-256 begins with {found[: len(SHA256_START)]}, not with {SHA256_START} as the hub's; "
            "download it again"
        )
