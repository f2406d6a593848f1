"""Download weights from PyTorch's hub once, and check them against the hash in their name."""

import hashlib
import re
from pathlib import Path

from jaxcnn.download import download
from jaxcnn.errors import UserError
from jaxcnn.runs.files import whole_file

# PyTorch Hub's convention: a name ends in the first digits of the file's SHA-256.
ADDRESSES = {
    "unet": "https://github.com/mateuszbuda/brain-segmentation-pytorch/releases/download/v1.0/unet-e012d006.pt",
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
}


def fetch_weights(network: str, folder: Path) -> Path:
    """Download the weights of the network into the folder, unless they are there, and return their path.

    Raises:
        UserError: the address can't be reached, the folder can't be written, or the file is not the hub's; it is
            deleted then.
    """
    address = ADDRESSES[network]
    path = folder / address.rpartition("/")[2]
    if not path.exists():
        way_out = f"download it on another computer, and run: python -m convert {network} FILE OUT"
        try:
            with whole_file(path) as temporary, temporary.open("wb") as file:
                download(address, file, way_out=way_out)
        except OSError as error:
            raise UserError(f"{path}: can't be written: {error.strerror}; set XDG_CACHE_HOME to a folder") from error
    try:
        check_hash(network, path)
    except UserError as error:
        path.unlink()
        raise UserError(f"{error} (deleted)") from error
    return path


def check_hash(network: str, path: Path) -> None:
    """Check that a file with a name like the hub's, such as resnet18-f37072fd.pth, has the hash in that name.

    Raises:
        UserError: it has another hash, or can't be read.
    """
    named = re.fullmatch(rf"{re.escape(network)}-([0-9a-f]{{8,64}})\.(pt|pth)", path.name)
    if named is None:
        return
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; give the path of a PyTorch checkpoint") from error
    if not found.startswith(named[1]):
        raise UserError(
            f"{path}: its SHA-256 begins with {found[: len(named[1])]}, not with {named[1]} as its name says;"
            " download it again, or rename it if these digits are not a hash"
        )
