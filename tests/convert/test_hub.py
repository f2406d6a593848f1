"""python -m convert unet --hub: fetched once and checked against the hash in the name; offline, told what to do."""

import hashlib
import http.server
import threading

import pytest

from convert import hub
from jaxcnn.download import cache_folder


@pytest.fixture
def server():
    """A server on this machine; what it answers is set in `content`, and `requests` counts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            content, length = self.server.content
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = 0
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def weights(states, save):
    return save(states["unet"]).read_bytes()


@pytest.fixture
def name(weights):
    """What the hub would call these weights."""
    return f"unet-{hashlib.sha256(weights).hexdigest()[:8]}.pt"


@pytest.fixture
def convert_hub(run_convert, monkeypatch, tmp_path, server, name):
    """Convert what the server offers; it has the hash in the name when it is `weights`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(hub.ADDRESSES, "unet", f"http://127.0.0.1:{server.server_port}/{name}")

    def run(content, length=None, out="OUT"):
        server.content = content, len(content or b"") if length is None else length
        return run_convert("unet", "--hub", tmp_path / out)

    return run


def assert_refused(result, *words):
    code, _, err = result
    assert code == 2
    assert err.count("\n") == 1
    for word in words:
        assert str(word) in err


@pytest.mark.slow
def test_it_is_fetched_once_and_converted(convert_hub, weights, name, server, tmp_path):
    code, out, _ = convert_hub(weights)
    assert code == 0
    assert f"{tmp_path / 'cache' / 'jaxcnn'}" in out
    assert (cache_folder() / name).read_bytes() == weights
    server.content = None, 0
    assert convert_hub(weights, out="again")[0] == 0
    assert server.requests == 1


def test_another_hash_is_refused_and_deleted(convert_hub, weights, name, tmp_path):
    assert_refused(convert_hub(weights[:-1] + b"x"), cache_folder() / name, "SHA-256 begins with", "(deleted)")
    assert not list(cache_folder().iterdir())
    assert not (tmp_path / "OUT").exists()


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_refused_and_deleted(convert_hub, weights, name, server):
    cache_folder().mkdir(parents=True)
    (cache_folder() / name).write_bytes(weights[:100])
    assert_refused(convert_hub(weights), cache_folder() / name, "(deleted)")
    assert convert_hub(weights)[0] == 0
    assert server.requests == 1


@pytest.mark.parametrize(
    ("content", "length", "reason"),
    [(None, 0, "Not Found"), (b"half", 100, "the download stopped after 4 of 100 bytes")],
)
def test_what_does_not_arrive_leaves_nothing(convert_hub, content, length, reason):
    assert_refused(convert_hub(content, length), "http://127.0.0.1", reason, "python -m convert unet FILE OUT")
    assert not list(cache_folder().iterdir())


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/weights.pt", "http://no-such-host.invalid/weights.pt"])
def test_offline_one_line_says_what_to_do(convert_hub, weights, address, monkeypatch):
    monkeypatch.setitem(hub.ADDRESSES, "unet", address)
    assert_refused(convert_hub(weights), address, "download it on another computer", "python -m convert unet FILE OUT")
    assert not list(cache_folder().iterdir())


@pytest.mark.parametrize(
    ("network", "name", "digits"),
    [
        ("unet", "unet-e012d006.pt", "e012d006"),
        ("resnet18", "resnet18-f37072fd.pth", "f37072fd"),
        ("resnet50", "resnet50-0676ba61.pth", "0676ba61"),  # Of the older weights of torchvision.
    ],
)
def test_a_file_that_was_fetched_by_hand_is_checked_too_but_not_deleted(
    network, name, digits, run_convert, save, states, tmp_path
):
    path = save(states["unet"], name)
    assert_refused(run_convert(network, path, tmp_path / "OUT"), path, f"not with {digits} as its name says")
    assert path.exists()
    assert_refused(run_convert(network, tmp_path / "no" / name, tmp_path / "OUT"), "No such file")


@pytest.mark.slow
def test_a_resnet_whose_name_carries_its_hash_is_converted(run_convert, save, states, tmp_path):
    path = save(states["resnet18"])
    path = path.rename(path.with_name(f"resnet18-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"))
    code, out, err = run_convert("resnet18", path, tmp_path / "OUT")
    assert (code, err) == (0, "")
    assert "normalization imagenet" in out


def test_a_cache_that_cannot_be_written(convert_hub, weights, name, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert_refused(convert_hub(weights), name, "can't be written", "XDG_CACHE_HOME")
