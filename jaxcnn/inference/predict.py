"""python -m train predict: classify image files with the best classifier of a run."""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float32
from tqdm import tqdm

from jaxcnn.cli import needed
from jaxcnn.data.batch import fill_up, in_batches
from jaxcnn.data.files import shown
from jaxcnn.data.labelled import tell_left_out
from jaxcnn.errors import UserError
from jaxcnn.inference.converted import load_members
from jaxcnn.inference.image_files import Found, ImageFile, ImageName, Skipped, decode_in_batches, open_images
from jaxcnn.inference.overlay import open_gallery
from jaxcnn.inference.trained import Members, compile_with_weights
from jaxcnn.inference.unlike import judge
from jaxcnn.program_cache import keep_programs
from jaxcnn.runs.files import write_csv
from jaxcnn.runs.folder import Run, is_sweep, open_ensemble
from jaxcnn.runs.json_files import json_text

# Of more classes the table shows the most probable ones alone.
_MOST_COLUMNS, _MOST_PROBABLE = 8, 3


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for an image.

    Attributes:
        unlike: the training images, above 1 (`jaxcnn.inference.unlike`); None where the run doesn't know.
        saliency: picture of what speaks for the most probable one, if that was asked for.
    """

    name: ImageName
    probabilities: Float32[np.ndarray, " classes"]
    unlike: float | None
    saliency: Path | None


def predict(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, needed("IMAGE [IMAGE ...]")] = (),
    *,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    csv_file: Annotated[Path | None, tyro.conf.arg(name="csv", metavar="FILE")] = None,
    saliency: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    batch_size: int = 32,
) -> int:
    """Classify image files with the best classifier of a run, or with several as one. Not a medical device.

    Files that are not images are skipped and reported on stderr, and the exit code is then 2.

    Args:
        run: Run folder, folder of a converted classifier, or folder of a sweep over seeds. Further run folders may
            follow before the images; the probabilities are the mean of theirs.
        images: Image files (JPEG, PNG, TIFF, BMP, WebP, DICOM, NIfTI, MATLAB v7.3), or folders or zips of them.
        as_json: Print one JSON document instead of a table.
        csv_file: Write one line per image to this file: path, class, and the probability of each class.
        saliency: Draw a Grad-CAM map of each image as a PNG file in this folder: the evidence for its predicted class.
        batch_size: Number of images to classify at a time.
    """
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: must be at least 1")
    following = list(itertools.takewhile(lambda folder: Run(folder).kind or is_sweep(folder), images))
    with open_images(images[len(following) :]) as found:
        if not found.files:
            raise UserError("IMAGE: none is given; name image files, or folders or zips of images")
        keep_programs()
        runs = open_ensemble([run, *following])
        members = load_members(runs)
        classes = members[0].classes
        measured = all(trained.unlike is not None for trained in members)
        tell = (lambda _: None) if as_json else _table(found.files, classes, measured=measured)
        results = []
        for result in predictions(members, found.files, _batch_size(found.files, batch_size), saliency):
            results.append(result)
            if isinstance(result, Skipped):
                tqdm.write(f"error: {shown(result.path)} {result.reason}; skipped", file=sys.stderr)
            else:
                tell(result)
    for line in tell_left_out(found.left_out):
        print(line, file=sys.stderr)
    answered = [result for result in results if isinstance(result, Prediction)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    if unlike := sum(result.unlike is not None and result.unlike > 1 for result in answered):
        print(
            f"note: {unlike} of {len(answered)} images are unlike the training images (above 1); what is said of them"
            " means little",
            file=sys.stderr,
        )
    if csv_file is not None:
        _write_answers(csv_file, classes, answered, measured=measured)
    if as_json:
        of_runs = [
            {"run": str(opened.folder), "epoch": trained.epoch} for opened, trained in zip(runs, members, strict=True)
        ]
        about: dict[str, Any] = of_runs[0] if len(runs) == 1 else {"runs": of_runs}
        print(json_text(about | _document(classes, answered, skipped, found), indent=1))
    return 2 if skipped else 0


def _batch_size(files: Sequence[ImageFile], most: int) -> int:
    """No larger than there can be images, so that a single one doesn't take the time of many."""
    return most if any(file.reader and file.reader.volumes for file in files) else min(most, len(files))


def predictions(
    members: Members, files: Sequence[ImageFile], batch_size: int, saliency: Path | None = None
) -> Iterator[Prediction | Skipped]:
    """Predict each image, batch by batch; pictures go to the folder `saliency`.

    Raises:
        UserError: a picture can't be written, or a format needs a package that is not installed.
    """
    judged = compile_with_weights(judge, members)
    draw = None if saliency is None else open_gallery(members, saliency)
    size = members[0].image_shape[0]  # The images of every data set are squares.
    for batch in decode_in_batches(files, size, batch_size):
        yield from batch.skipped
        if batch.names:
            probabilities, unlike = in_batches(judged, batch.images, batch_size)
            scores = [None] * len(batch.names) if unlike is None else unlike.tolist()
            pictures: Sequence[Path | None] = [None] * len(batch.names)
            if draw is not None:
                stems, labels = [name.stem for name in batch.names], probabilities.argmax(axis=1)
                pictures = draw(stems, fill_up(batch.images, batch_size), fill_up(labels, batch_size))
            yield from map(Prediction, batch.names, probabilities, scores, pictures)


def _class(classes: Sequence[str], prediction: Prediction) -> str:
    return classes[int(prediction.probabilities.argmax())]


def _table(files: Sequence[ImageFile], classes: tuple[str, ...], *, measured: bool) -> Callable[[Prediction], None]:
    """Print the head of a table, and return a function that prints one line of it.

    A line holds the image, its class, and a column a class; of many classes the most probable ones, best first. How
    unlike the training images it is comes last, where that is measured.
    """
    # A number of a slice has few digits.
    image = max(len(shown(file.path)) + 5 * bool(file.reader and file.reader.volumes) for file in files)
    label = max(map(len, classes))
    if len(classes) <= _MOST_COLUMNS:
        row = f"{{:<{max(image, 5)}}}  {{:<{max(label, 5)}}}" + "".join(
            f"  {{:>{max(len(name), 5)}}}" for name in classes
        )
        head = ("image", "class", *classes)
    else:
        row = f"{{:<{max(image, 5)}}}" + f"  {{:<{max(label, 5)}}}  {{:>5}}" * _MOST_PROBABLE
        head = ("image", "class", "", "second", "", "third", "")
    if measured:
        row, head = f"{row}  {{:>6}}", (*head, "unlike")
    print(row.format(*head).rstrip())

    def tell(prediction: Prediction) -> None:
        probabilities = prediction.probabilities
        best = np.argsort(-probabilities, kind="stable")[:_MOST_PROBABLE].tolist()
        if len(classes) <= _MOST_COLUMNS:
            cells = [classes[best[0]], *(f"{probability:.3f}" for probability in probabilities)]
        else:
            cells = [cell for place in best for cell in (classes[place], f"{probabilities[place]:.3f}")]
        tqdm.write(row.format(prediction.name.shown, *cells, f"{prediction.unlike:.2f}" if measured else ""))
        sys.stdout.flush()

    return tell


def _write_answers(path: Path, classes: Sequence[str], answered: Sequence[Prediction], *, measured: bool) -> None:
    lines: list[list[Any]] = [["path", "class", *classes, *["unlike"] * measured]]
    for result in answered:
        unlike = [result.unlike] * measured
        lines.append([result.name.shown, _class(classes, result), *result.probabilities.tolist(), *unlike])
    write_csv(path, lines)


def _document(
    classes: Sequence[str], answered: Sequence[Prediction], skipped: Sequence[Skipped], found: Found
) -> dict[str, Any]:
    """What --json prints of the images."""
    return {
        "classes": classes,
        "images": [_answer(classes, prediction) for prediction in answered],
        "skipped": [{"path": str(skip.path), "reason": skip.reason} for skip in skipped],
        "left_out": [{"path": file.name, "reason": file.reason} for file in found.left_out],
    }


def _answer(classes: Sequence[str], prediction: Prediction) -> dict[str, Any]:
    content = {
        "path": str(prediction.name),
        "class": _class(classes, prediction),
        "probabilities": dict(zip(classes, prediction.probabilities.tolist(), strict=True)),
    }
    unlike = {} if prediction.unlike is None else {"unlike": prediction.unlike}
    return content | unlike | ({} if prediction.saliency is None else {"saliency": str(prediction.saliency)})
