"""Download a file completely, or fail with one line that says what went wrong and what to do."""

import http.client
import os
import shutil
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from jaxcnn.errors import UserError

_TIMEOUT_SECONDS = 30
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError)


def cache_folder() -> Path:
    """Return the folder for downloads: $XDG_CACHE_HOME/jaxcnn, or ~/.cache/jaxcnn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxcnn"


def download(address: str, file: BinaryIO, *, way_out: str) -> None:
    """Download from the address into `file`, with a progress bar on a terminal.

    Raises:
        UserError: the address can't be reached, or the transfer was cut short; the message ends with `way_out`.
        OSError: the file can't be written.
    """
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as response:
            expected = response.headers["Content-Length"]
            # disable=None: the bar shows on a terminal only.
            with tqdm.wrapattr(response, "read", total=expected and int(expected), disable=None) as reader:
                shutil.copyfileobj(reader, file)
    except urllib.error.HTTPError as error:
        error.close()
        raise UserError(f"{address}: {error}; {way_out}") from error
    except _NETWORK_ERRORS as error:
        reason = getattr(error, "reason", error)  # What urllib wraps in a URLError.
        raise UserError(f"{address}: {getattr(reason, 'strerror', None) or reason}; {way_out}") from error
    # http.client takes a connection that ends early for the end of the data.
    if expected and file.tell() != int(expected):
        raise UserError(f"{address}: the download stopped after {file.tell()} of {expected} bytes; {way_out}")
