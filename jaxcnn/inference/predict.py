"""python -m train predict: the classes of image files, by the best classifier of a run."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float32, UInt8

from jaxcnn.errors import UserError
from jaxcnn.inference.image_files import ImageFile, Skipped, decode_in_batches, find_images
from jaxcnn.inference.overlay import open_gallery
from jaxcnn.inference.trained import Trained, compile_classifier, load_best
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.folder import open_run
from jaxcnn.runs.json_files import json_text


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is said of an image.

    Attributes:
        file: the image.
        probabilities: of the classes.
        saliency: picture of what speaks for the most probable one, if that was asked for.
    """

    file: ImageFile
    probabilities: Float32[np.ndarray, " classes"]
    saliency: Path | None


def predict(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE [IMAGE ...]")] = (),
    *,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    saliency: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    batch_size: int = 32,
) -> int:
    """Tell the classes of image files by the best classifier of a run. This is no medical device.

    What is no image is named on stderr and skipped, and the exit code is 2 then.

    Args:
        run: a run folder.
        images: JPEG or PNG files, or folders, for all images in them.
        as_json: print one JSON document instead of a table.
        saliency: for each image draw what in it speaks for its class, as a PNG file in this folder.
        batch_size: images that are read and predicted at a time.
    """
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: must be at least 1")
    files = find_images(images)
    if not files:
        raise UserError("IMAGE: none is given; name image files or folders of some")
    keep_programs()
    trained = load_best(open_run(run))
    results = []
    row_format = _row_format(files, trained.classes)
    if not as_json:
        print(row_format.format("image", "class", *trained.classes))
    for result in predictions(trained, files, min(batch_size, len(files)), saliency):
        results.append(result)
        if isinstance(result, Skipped):
            print(f"error: {result.file.shown} {result.reason}; skipped", file=sys.stderr)
        elif not as_json:
            numbers = (f"{probability:.3f}" for probability in result.probabilities)
            print(row_format.format(result.file.shown, _class(trained, result), *numbers), flush=True)
    if as_json:
        print(json_text(_document(run, trained, results), indent=1))
    return 2 if any(isinstance(result, Skipped) for result in results) else 0


def predictions(
    trained: Trained, files: list[ImageFile], batch_size: int, saliency: Path | None = None
) -> Iterator[Prediction | Skipped]:
    """What is said of each file, batch by batch; pictures go to the folder `saliency`.

    Raises:
        UserError: a picture can't be written.
    """
    classifier = compile_classifier(trained)
    draw = None if saliency is None else open_gallery(trained, saliency)
    size = trained.image_shape[0]  # The images of every data set are squares.
    for batch in decode_in_batches(files, size, batch_size):
        yield from batch.skipped
        if batch.files:
            images = _filled_up(batch.images, batch_size)
            probabilities = np.asarray(classifier(images))
            pictures: Sequence[Path | None] = [None] * len(batch.files)
            if draw is not None:
                pictures = draw([file.path.stem for file in batch.files], images, probabilities.argmax(axis=1))
            yield from map(Prediction, batch.files, probabilities, pictures)


def _filled_up(images: UInt8[np.ndarray, "n height width 1"], batch_size: int) -> UInt8[np.ndarray, "b height width 1"]:
    """The images and black ones, so that one compiled program serves all batches."""
    return np.pad(images, ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)))


def _class(trained: Trained, prediction: Prediction) -> str:
    return trained.classes[int(prediction.probabilities.argmax())]


def _row_format(files: list[ImageFile], classes: tuple[str, ...]) -> str:
    """A line of the table: image, class, and a column a class, as wide as its name or a probability."""
    image, label = max(len(file.shown) for file in files), max(map(len, classes))
    return f"{{:<{max(image, 5)}}}  {{:<{max(label, 5)}}}" + "".join(f"  {{:>{max(len(name), 5)}}}" for name in classes)


def _document(run: Path, trained: Trained, results: list[Prediction | Skipped]) -> dict[str, Any]:
    """What --json prints."""
    answered = [result for result in results if isinstance(result, Prediction)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    return {
        "run": str(run),
        "epoch": trained.epoch,
        "classes": trained.classes,
        "images": [_answer(trained, prediction) for prediction in answered],
        "skipped": [{"path": str(one.file.path), "reason": one.reason} for one in skipped],
    }


def _answer(trained: Trained, prediction: Prediction) -> dict[str, Any]:
    content = {
        "path": str(prediction.file.path),
        "class": _class(trained, prediction),
        "probabilities": dict(zip(trained.classes, prediction.probabilities.tolist(), strict=True)),
    }
    return content if prediction.saliency is None else content | {"saliency": str(prediction.saliency)}
