"""python -m train export: write a classifier as one file that needs only JAX or ONNX Runtime, not this project."""

import dataclasses
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax import export as jax_export

from jaxcnn.cli import needed
from jaxcnn.cpu import xla_only
from jaxcnn.data.readers.intensities import BLACK, WHITE
from jaxcnn.errors import UserError
from jaxcnn.inference.converted import load_members
from jaxcnn.inference.exported import PROGRAM
from jaxcnn.inference.onnx_program import OPSET, onnx_classifier
from jaxcnn.inference.pretrained import open_pretrained
from jaxcnn.inference.trained import Members, Trained, classify
from jaxcnn.runs.files import replace_folder, telling_unwritable, temporary_neighbour
from jaxcnn.runs.folder import Run, open_ensemble, read_data, read_environment, read_epochs
from jaxcnn.runs.json_files import json_text

ARTIFACTS = {"jax": PROGRAM, "onnx": "classifier.onnx"}
METADATA = "classifier.json"
README = "README.md"
PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, needed("RUN [RUN ...] OUT")],
    *,
    format: Literal["jax", "onnx"] = "jax",  # noqa: A002  (the option's name)
    overwrite: bool = False,
) -> None:
    """Export the best classifier of a run as a program that runs without this project. Not a medical device.

    Args:
        folders: Run folders, folders of converted classifiers, or folders of sweeps over seeds; several become one
            program that gives the mean of their probabilities. The last is the folder to write: the program, its
            metadata, and a README.md that shows how to use it.
        format: Of the program: `jax` for JAX on CPU, CUDA and TPU, or `onnx` for ONNX Runtime and others.
        overwrite: Replace an older export.
    """
    if len(folders) < 2:
        raise UserError("RUN OUT: name the run, and behind it the folder to write")
    *runs, out = folders
    _check_free(out, overwrite=overwrite)
    opened = open_ensemble(runs)
    if exported := [run for run in opened if run.kind == "exported"]:
        raise UserError(f"{exported[0].folder}: is an exported classifier already; name the run that it was made from")
    members = load_members(opened)
    artifact = ARTIFACTS[format]
    made: dict[str, Any] = {"jax": version("jax"), "platforms": PLATFORMS}
    if format == "onnx":
        program, difference = onnx_classifier(members)
        made = {"opset": OPSET, "jax": version("jax"), "jax2onnx": version("jax2onnx")}
        told = f"ONNX opset {OPSET}; within {difference:.0e} of the probabilities in JAX"
    else:
        program, told = bytes(serialize_classifier(members)), f"for {', '.join(PLATFORMS)}"
    metadata = _metadata(opened, members) | made | {"sha256": hashlib.sha256(program).hexdigest()}
    files = {
        artifact: program,
        METADATA: (json_text(metadata, indent=2) + "\n").encode(),
        README: _readme(metadata, artifact).encode(),
    }
    with telling_unwritable(out, "choose another place"):
        _write_folder(out, files)
    print(f"{out / artifact}  {len(program) / 1e6:.1f} MB, {told}")
    print(f"{out / README}  how to use it")


def serialize_classifier(members: Members) -> bytearray:
    """The classifier with its weights and its preprocessing, as `jax.export` writes it.

    It takes uint8 (batch, height, width, 1) for any batch and gives float32 (batch, classes).
    """
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *members[0].image_shape), jnp.uint8)
    program = jax.jit(lambda images: classify(members, images))
    # What is fastest on a CPU depends on the batch, which isn't known here.
    with xla_only():
        return jax_export.export(program, platforms=PLATFORMS)(images).serialize()


def _check_free(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not any((out / artifact).is_file() for artifact in ARTIFACTS.values()):
        names = " or ".join(ARTIFACTS.values())
        raise UserError(f"{out}: exists but is not an exported classifier (no {names}); choose another folder")
    if others := sorted({path.name for path in out.iterdir()} - {*ARTIFACTS.values(), METADATA, README}):
        raise UserError(f"{out}: contains {others[0]} beside an exported classifier; choose another folder")
    if not overwrite:
        raise UserError(f"{out}: exists; replace it with --overwrite")


def _metadata(runs: Sequence[Run], members: Members) -> dict[str, Any]:
    """What is known of a classifier: what it takes, and where it comes from; of several, each under `members`."""
    of_runs = [_origin(run, trained) for run, trained in zip(runs, members, strict=True)]
    return {
        "classes": members[0].classes,
        "image_shape": members[0].image_shape,
        **(of_runs[0] if len(of_runs) == 1 else {"members": of_runs}),
    }


def _origin(run: Run, trained: Trained) -> dict[str, Any]:
    about = {
        "preprocessing": dataclasses.asdict(trained.preprocessing),
        "tta": trained.tta,
        "model": type(trained.model).__name__,
        "run": run.name,
    }
    if trained.epoch is None:
        manifest, _ = open_pretrained(run.folder)
        return about | {"source": manifest.source, "source_sha256": manifest.source_sha256}
    data = read_data(run)
    return about | {
        "epoch": trained.epoch,
        "protocol": data["protocol"],
        "images": {split: sum(counts.values()) for split, counts in data["images"].items()},
        # A run that was stopped while it evaluated the epoch has no scores for it yet.
        "scores": next((_scores(epoch) for epoch in read_epochs(run) if epoch["epoch"] == trained.epoch), {}),
        "git_revision": read_environment(run).get("git_revision"),
    }


def _scores(epoch: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        split: {score: epoch[f"{split}_{score}"] for score in ("accuracy", "f1_macro", "f1_weighted")}
        for split in ("validation", "test")
    }


def _write_folder(out: Path, files: dict[str, bytes]) -> None:
    """All files appear at once, or none."""
    # "." has neighbours, too.
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_neighbour(out) as temporary:
        written = temporary / "written"
        written.mkdir()
        for name, content in files.items():
            (written / name).write_bytes(content)
        replace_folder(out, written, replaced=temporary / "replaced")


def _readme(metadata: dict[str, Any], artifact: str) -> str:
    height, width, _ = metadata["image_shape"]
    classes = metadata["classes"]
    members = metadata.get("members", [metadata])
    listed = "\n".join(f"{place}. {name}" for place, name in enumerate(classes))
    needs, use, compiles, lasts = _of_jax(metadata) if "platforms" in metadata else _of_onnx(metadata)
    networks = " and ".join(f"the {member['model']} of the run `{member['run']}`" for member in members)
    return f"""# A classifier of brain-MRI slices

`{artifact}` is {networks} as one program,
with weights and preprocessing. It needs `pip install {needs}`, and `pillow` to read image files.

This is research software, not a medical device.

## Use

```python
{use}
```

- `images`: uint8 (n, {height}, {width}, 1), grey, 0 is black and 255 is white, for any n{compiles}.
- `probabilities`: float32 (n, {len(classes)}){_averaged(members)}, for the classes

{listed}

{lasts}

## Images

As in training: turned as the EXIF orientation says, what is transparent on black, grey by the ITU-R 601-2 luma, 16 bits
and floats between their {BLACK}th and {WHITE}th percentiles, resized to {width}x{height} with Pillow's BILINEAR filter,
which smooths where it reduces, whatever the shape of the image.

```python
import numpy as np
from PIL import Image, ImageOps

def grey(file):
    image = Image.open(file)
    image.draft("L", None)  # Of a JPEG, the luma that it stores.
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        low, high = np.percentile(values, [{BLACK}, {WHITE}])
        image = Image.fromarray(np.round(255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image.convert("L").resize(({width}, {height}), Image.Resampling.BILINEAR)

files = ["scan.jpg"]
images = np.stack([np.asarray(grey(file))[:, :, np.newaxis] for file in files])
```

DICOM, NIfTI and MATLAB files, and PNG files with colours of 16 bits, need the readers of the project that trained this.

## Where it comes from

{chr(10).join(map(_origin_lines, members))}
"""


def _of_jax(metadata: dict[str, Any]) -> tuple[str, str, str, str]:
    """What the README of a program for JAX says of packages, use, batches, and how long it can be used."""
    use = f"""from pathlib import Path
from jax import export

classify = export.deserialize(bytearray(Path("{ARTIFACTS["jax"]}").read_bytes())).call
probabilities = classify(images)"""
    lasts = (
        f"The program runs on {', '.join(metadata['platforms'])}. It was made by JAX {metadata['jax']}; versions up to"
        " 3 weeks\nolder and 6 months newer are promised to run it."
    )
    return "jax flatbuffers", use, "; each new n compiles once", lasts


def _of_onnx(metadata: dict[str, Any]) -> tuple[str, str, str, str]:
    """The same of an ONNX program."""
    use = f"""import onnxruntime

session = onnxruntime.InferenceSession("{ARTIFACTS["onnx"]}", providers=["CPUExecutionProvider"])
probabilities = session.run(None, {{"images": images}})[0]"""
    lasts = (
        f"It is an ONNX program of opset {metadata['opset']}, made by jax2onnx {metadata['jax2onnx']} from JAX"
        f" {metadata['jax']}.\nWhatever runs ONNX of this opset runs it; it was checked with ONNX Runtime."
    )
    return "onnxruntime numpy", use, "", lasts


def _averaged(members: Sequence[dict[str, Any]]) -> str:
    parts = [f"the {len(members)} networks"] * (len(members) > 1)
    parts += ["the image and its mirror image"] * any(member["tta"] != "none" for member in members)
    return f", the mean over {' and over '.join(parts)}" if parts else ""


def _origin_lines(metadata: dict[str, Any]) -> str:
    if "source" in metadata:
        return (
            f"- Converted from the PyTorch checkpoint {metadata['source']} (SHA-256 {metadata['source_sha256']}), and\n"
            "  proven to compute the same. Its training images and its scores are not known here."
        )
    images, scores = metadata["images"], metadata["scores"]
    lines = [
        f"- Run `{metadata['run']}`, after epoch {metadata['epoch']}: the best by macro F1 on the validation images.",
        f"- Protocol `{metadata['protocol']}`: "
        + ", ".join(f"{count} {split}" for split, count in images.items())
        + " images.",
        f"- Code: git revision {metadata['git_revision'] or 'unknown'}.",
    ]
    if not scores:
        return "\n".join([*lines, "- Scores: none yet; the run was stopped before its first evaluation."])
    table = ["", "| split | accuracy | macro F1 | weighted F1 |", "| --- | --- | --- | --- |"]
    table += [
        f"| {split} | " + " | ".join(f"{value:.3f}" for value in measures.values()) + " |"
        for split, measures in scores.items()
    ]
    return "\n".join(lines + table)
