"""python -m train export: write the best classifier of a run as one file that needs only JAX, not this project."""

import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro
from jax import export as jax_export

from jaxcnn.cpu import xla_only
from jaxcnn.data.readers.intensities import BLACK, WHITE
from jaxcnn.errors import UserError
from jaxcnn.inference.converted import load_classifier
from jaxcnn.inference.pretrained import open_pretrained
from jaxcnn.inference.trained import Trained, classify
from jaxcnn.inference.tta import TTAName
from jaxcnn.runs.files import replace_folder, temporary_neighbour
from jaxcnn.runs.folder import Run, read_data, read_environment, read_epochs
from jaxcnn.runs.json_files import json_text

ARTIFACT = "classifier.jax"
METADATA = "classifier.json"
README = "README.md"
PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    overwrite: bool = False,
) -> None:
    """Export the best classifier of a run as a program that JAX runs without this project. Not a medical device.

    Args:
        run: Run folder, or folder of a converted classifier.
        out: Folder to write: the program, its metadata, and a README.md that shows how to use it.
        overwrite: Replace an older export.
    """
    _check_free(out, overwrite=overwrite)
    trained = load_classifier(run)
    metadata = _metadata(Run(run), trained)
    files = {
        ARTIFACT: bytes(serialize_classifier(trained)),
        METADATA: (json_text(metadata, indent=2) + "\n").encode(),
        README: _readme(metadata).encode(),
    }
    try:
        _write_folder(out, files)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}; choose another place") from error
    print(f"{out / ARTIFACT}  {len(files[ARTIFACT]) / 1e6:.1f} MB, for {', '.join(PLATFORMS)}")
    print(f"{out / README}  how to use it")


def serialize_classifier(trained: Trained) -> bytearray:
    """The classifier with its weights and its preprocessing, as `jax.export` writes it.

    It takes uint8 (batch, height, width, 1) for any batch and gives float32 (batch, classes).
    """
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *trained.image_shape), jnp.uint8)
    program = jax.jit(lambda images: classify(trained, images))
    # What is fastest on a CPU depends on the batch, which isn't known here.
    with xla_only():
        return jax_export.export(program, platforms=PLATFORMS)(images).serialize()


def _check_free(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not (out / ARTIFACT).is_file():
        raise UserError(f"{out}: exists but is not an exported classifier (no {ARTIFACT}); choose another folder")
    if others := sorted({path.name for path in out.iterdir()} - {ARTIFACT, METADATA, README}):
        raise UserError(f"{out}: contains {others[0]} beside an exported classifier; choose another folder")
    if not overwrite:
        raise UserError(f"{out}: exists; replace it with --overwrite")


def _metadata(run: Run, trained: Trained) -> dict[str, Any]:
    """What is known of a classifier: what it takes, and where it comes from."""
    about = {
        "classes": trained.classes,
        "image_shape": trained.image_shape,
        "preprocessing": dataclasses.asdict(trained.preprocessing),
        "tta": trained.tta,
        "model": type(trained.model).__name__,
        "run": run.name,
        "jax": version("jax"),
        "platforms": PLATFORMS,
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


def _readme(metadata: dict[str, Any]) -> str:
    height, width, _ = metadata["image_shape"]
    classes = metadata["classes"]
    listed = "\n".join(f"{place}. {name}" for place, name in enumerate(classes))
    return f"""# A classifier of brain-MRI slices

`{ARTIFACT}` is the {metadata["model"]} of the run `{metadata["run"]}` as one program, with its weights and its
preprocessing. It needs `pip install jax flatbuffers`, and `pillow` to read image files.

This is research software, not a medical device.

## Use

```python
from pathlib import Path
from jax import export

classify = export.deserialize(bytearray(Path("{ARTIFACT}").read_bytes())).call
probabilities = classify(images)
```

- `images`: uint8 (n, {height}, {width}, 1), grey, 0 is black and 255 is white, for any n; each new n compiles once.
- `probabilities`: float32 (n, {len(classes)}){_averaged(metadata["tta"])}, for the classes

{listed}

The program runs on {", ".join(metadata["platforms"])}. It was made by JAX {metadata["jax"]}; versions up to 3 weeks
older and 6 months newer are promised to run it.

## Images

As in training: turned as the EXIF orientation says, what is transparent on black, grey by the ITU-R 601-2 luma, 16 bits
and floats between their {BLACK}th and {WHITE}th percentiles, resized to {width}x{height} with Pillow's BILINEAR filter,
which smooths where it reduces, whatever the shape of the image.

```python
import numpy as np
from PIL import Image, ImageOps

def grey(file):
    image = ImageOps.exif_transpose(Image.open(file))
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

{_origin(metadata)}
"""


def _averaged(tta: TTAName) -> str:
    return "" if tta == "none" else ", the mean of those of the image and of its mirror image"


def _origin(metadata: dict[str, Any]) -> str:
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
        f"| {split} | " + " | ".join(f"{value:.3f}" for value in of.values()) + " |" for split, of in scores.items()
    ]
    return "\n".join(lines + table)
