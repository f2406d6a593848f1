"""docs/conversion.md, done by the letter: its files are written, its commands and its Python are run in their order."""

import contextlib
import hashlib
import io
import re
import runpy
import shlex
import sys
from functools import partial
from pathlib import Path

import jax
import pytest
import torch
from PIL import Image

from convert import hub
from convert.networks import HubUNet, ReferenceSimpleCNN, ReferenceUNetClassifier, ResNet
from jaxcnn.__main__ import main
from jaxcnn.data.load import load_dataset
from jaxcnn.evaluation import external
from jaxcnn.inference.pretrained import load_pretrained
from jaxcnn.inference.trained import load_best
from jaxcnn.runs.folder import Run

PAGE = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text("utf-8")


CHECKPOINTS = {
    "unet.pt": partial(HubUNet, 3, 1, 2),
    "chk_0.pth": partial(ReferenceSimpleCNN, 4, (2, 3), 2, 4, 5, 6),
    "transfer.pth": partial(ReferenceUNetClassifier, 4, 2, 3, 4),
    "resnet18.pth": partial(ResNet, 1000, "basic", (2, 2, 2, 2), 2),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the checkpoints and images that the page speaks of, and a hub that can be reached."""
    for name, build in CHECKPOINTS.items():
        torch.save({"model": build().state_dict(), "optimizer": {}}, tmp_path / name)
    content = (tmp_path / "unet.pt").read_bytes()
    of_hub = tmp_path / f"unet-{hashlib.sha256(content).hexdigest()[:8]}.pt"
    of_hub.write_bytes(content)
    monkeypatch.setitem(hub.ADDRESSES, "unet", of_hub.as_uri())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "scans").mkdir()
    for place, image in enumerate(load_dataset("phantom", max_images=2).splits["test"].images):
        Image.fromarray(image[..., 0]).save(tmp_path / "scans" / f"{place}.png")
    # Fewer images, which take as long to draw as all else here.
    monkeypatch.setattr(external, "load_dataset", partial(load_dataset, max_images=20))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mine", "kept"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.slow
def test_every_line_of_the_page_that_is_code_does_what_it_says(folder):
    blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
    assert "```" not in re.sub(r"```(\w+)\n(.*?)```", "", PAGE, flags=re.DOTALL)
    names: dict[str, object] = {}
    printed = ""
    # Flax's norms, and Optax, promote types.
    with jax.numpy_dtype_promotion("standard"):
        for kind, text in blocks:
            if named := re.match(r"# (\w+\.py)\n", text):
                (folder / named[1]).write_text(text)
            elif kind == "python":
                exec(compile(text, "docs/conversion.md", "exec"), names)
            elif kind == "bash":
                printed = "".join(run(line) for line in text.splitlines())
            elif text.startswith("TABLE"):
                assert text in printed
    assert {"hub", "weights", "simplecnn", "transfer", "resnet18", "exported", "mine"} <= {
        path.name for path in folder.iterdir() if path.is_dir()
    }
    assert (folder / "simplecnn" / "figures" / "confusion-matrices.png").is_file()
    assert (folder / "mine.safetensors").is_file()
    (trained_run,) = (folder / "runs").iterdir()
    encoder = load_pretrained(folder / "resnet18").variables["params"]
    trained = load_best(Run(trained_run)).variables["params"]["resnet"]
    for layer in ("conv1", "bn1", "layer1", "layer2", "layer3"):
        pairs = zip(jax.tree.leaves(encoder[layer]), jax.tree.leaves(trained[layer]), strict=True)
        # What is frozen has the bits of the converted weights, the rest has learnt.
        assert all(bool((one == other).all()) for one, other in pairs) == (layer != "layer3")


def run(line):
    """Run a command of the page; returns what it prints."""
    words = shlex.split(line, comments=True)
    if words[0] == "pip":
        return ""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.MonkeyPatch.context() as patch:
        if words[1] != "-m":
            runpy.run_path(words[1], run_name="__main__")
            return shown.getvalue()
        patch.setattr(sys, "argv", ["jaxcnn", *words[2:]])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code, line
    return shown.getvalue()
