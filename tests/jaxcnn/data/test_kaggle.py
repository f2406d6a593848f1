"""The download arrives whole in the cache, or not at all; the servers are on this machine."""

import contextlib
import hashlib
import http.server
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxcnn.data import kaggle
from jaxcnn.data.kaggle import fetch_archive
from jaxcnn.download import cache_folder
from jaxcnn.errors import UserError


@pytest.fixture
def archive(scans: Path) -> bytes:
    return Path(shutil.make_archive(str(scans), "zip", scans)).read_bytes()


@contextlib.contextmanager
def serve(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that gives this answer to /archive, and sends / there, as Kaggle's address does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/archive":
                answer(self)
            else:
                self.send_response(302)
                self.send_header("Location", "/archive")
                self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def sends(content: bytes, length: int | None = None) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.mark.parametrize("with_length", [True, False])
def test_it_arrives_and_is_kept(archive: bytes, with_length: bool, tmp_path: Path) -> None:
    with serve(sends(archive, len(archive) if with_length else None)) as address:
        path = fetch_archive(address, tmp_path / "cache")
    assert path.read_bytes() == archive
    # The server is gone: the second time nothing is fetched.
    assert fetch_archive(address, tmp_path / "cache") == path
    assert list((tmp_path / "cache").iterdir()) == [path]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (sends(b"PK\x03\x04 the first half", length=1000), "the download stopped after 19 of 1000 bytes"),
        (sends(b"<html>Log in first</html>", length=25), "the downloaded file is not a zip"),
        (sends(b"PK\x03\x04 the first half"), "the downloaded file is not a zip"),
        (lambda handler: handler.send_error(404), "HTTP Error 404: Not Found"),
        (lambda _: None, "Remote end closed connection without response"),
    ],
)
def test_what_does_not_arrive_leaves_nothing(
    answer: Callable[[http.server.BaseHTTPRequestHandler], None], problem: str, tmp_path: Path
) -> None:
    with serve(answer) as address, pytest.raises(UserError) as error:
        fetch_archive(address, tmp_path)
    message = str(error.value)
    assert message.startswith(f"{address}: {problem}")
    assert message.endswith(
        f"; try again, or download it in a browser from {kaggle.PAGE} and give the path of the file"
    )
    assert not list(tmp_path.iterdir())


def test_an_address_that_nobody_serves(tmp_path: Path) -> None:
    with serve(sends(b"")) as address:
        pass
    with pytest.raises(UserError, match="Connection refused; try again, or download it in a browser"):
        fetch_archive(address, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="can't be written"):
        fetch_archive("http://127.0.0.1:9/", tmp_path / "file" / "cache")


def test_the_cache_follows_the_xdg_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "jaxcnn"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "jaxcnn"


def test_the_command_prepares_what_it_fetched(
    archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_command: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["prepare", "--download", "--size", 32, "--out"]
    with serve(sends(archive, len(archive))) as address:
        monkeypatch.setattr("jaxcnn.data.__main__.ADDRESS", address)
        code, out, _ = run_command(*words, tmp_path / "out")
    assert code == 0
    assert re.search(r"train +3 +3 +3 +3 +12", out)
    assert "differs from the archive behind this project's scores" in out

    kept = tmp_path / "cache/jaxcnn/brain-tumor-mri-dataset.zip"
    monkeypatch.setattr(kaggle, "KNOWN_SHA256", hashlib.sha256(kept.read_bytes()).hexdigest())
    code, out, _ = run_command(*words, tmp_path / "again")
    assert code == 0
    assert "differs from the archive" not in out
