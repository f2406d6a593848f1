"""Evaluate a run on another data set: match the classes, and find the images that the run has seen in training."""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from jaxcnn.data.class_names import agree, meaning
from jaxcnn.data.dataset import Dataset, Split, joined
from jaxcnn.data.duplicates import THRESHOLD, closest, make_thumbnails
from jaxcnn.data.labelled import as_dataset, read_images, tell_left_out
from jaxcnn.data.layouts import open_labelled
from jaxcnn.data.load import is_prepared, load_dataset
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.inference.trained import Trained, predict_logits
from jaxcnn.runs.files import numbered
from jaxcnn.runs.folder import EXTERNAL, UNSEEN, Run, read_data, read_predictions, read_source

# Which class of a run a class of the data set is; None leaves its images out.
Matches = Mapping[str, str | None]


@dataclasses.dataclass(frozen=True)
class External:
    """The predictions of a run for another data set.

    Attributes:
        predictions: for the images whose class the run knows, labelled in the run's classes.
        copied: whether each image is a copy of one that the run was trained on or chosen by; None if those images
            can't be had any more.
        why_unknown: why not.
    """

    predictions: Predictions
    copied: Bool[np.ndarray, " n"] | None
    why_unknown: str = ""


def load_external(source: str, size: int, splits: Sequence[str] = ()) -> tuple[Dataset, list[str]]:
    """Load a prepared data set, the phantom, or anything that `prepare` accepts, and leave out broken files.

    Args:
        size: side of the images in pixels; a prepared data set must have it.
        splits: those to keep; all when there are none named.

    Returns:
        The data set, and lines that tell what was left out.

    Raises:
        UserError: it can't be read, has no such split, or another size.
    """
    if is_prepared(source):
        dataset, lines = load_dataset(source), list[str]()
    else:
        with open_labelled(Path(source)) as listing:
            images, broken = read_images(listing, size)
        if not images:
            raise UserError(f"{source}: no image can be read; give a data set with readable images")
        lines = tell_left_out([*listing.left_out, *broken])
        dataset = as_dataset(Path(source), images)
    if missing := [name for name in splits if name not in dataset.splits]:
        raise UserError(f"{source}: has no {missing[0]} images; it has {', '.join(dataset.splits)}")
    if splits:
        dataset = dataclasses.replace(dataset, splits={name: dataset.splits[name] for name in splits})
    height = next(iter(dataset.splits.values())).images.shape[1]
    if height != size:
        raise UserError(
            f"{source}: has images of {height}x{height} pixels, but the run takes {size}x{size}; prepare it with"
            f" --size {size}, or give the original images"
        )
    return dataset, lines


def match_classes(theirs: Sequence[str], ours: Sequence[str], given: Mapping[str, str]) -> Matches:
    """Find the class of a run for each class of a data set.

    Args:
        theirs: the classes of the data set.
        ours: the classes of the run.
        given: matches that the user names, before the table of aliases (`jaxcnn.data.class_names`); "" leaves out.

    Raises:
        UserError: a class has no match, or several.
    """
    if unknown := [name for name in given if name not in theirs]:
        raise UserError(f"{unknown[0]}: is not a class of the data set; choose one of {', '.join(theirs)}")
    if unknown := [name for name in given.values() if name and name not in ours]:
        raise UserError(f"{unknown[0]}: is not a class of the run; choose one of {', '.join(ours)}")
    return {name: given[name] or None if name in given else _match(name, ours) for name in theirs}


def _match(name: str, ours: Sequence[str]) -> str:
    if name in ours:
        return name
    # A run that knows tumours of one kind alone takes any kind for that.
    found = [our for our in ours if meaning(our) == meaning(name)] or [
        our for our in ours if meaning(our) == "tumour" and agree(our, name)
    ]
    if len(found) != 1:
        problem = f"could be {' or '.join(found)}" if found else f"is not one of the run's ({', '.join(ours)})"
        raise UserError(
            f"the class {name} of the data set {problem}; match it with --map {name}=CLASS, or leave its images out"
            f" with --map {name}="
        )
    return found[0]


def evaluate_external(run: Run, trained: Trained, dataset: Dataset, matches: Matches) -> External:
    """Classify the images whose class the run knows, and find those that it has seen.

    Raises:
        UserError: no image is left.
    """
    images = joined(list(dataset.splits.values()))
    place = {name: trained.classes.index(own) if own is not None else -1 for name, own in matches.items()}
    labels = np.array([place[name] for name in dataset.classes], np.int32)[images.labels]
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        raise UserError(f"{dataset.source}: no image has a class of the run; give images of these classes")
    images = dataclasses.replace(images, labels=labels).take(known)
    logits = predict_logits(trained, images.images)
    if not np.isfinite(logits).all():
        raise UserError(f"{run.folder}: gives logits that are infinite or NaN; train again")
    predictions = Predictions(logits, images.labels, images.groups, images.names, trained.classes)
    try:
        seen = _seen_by(run)
    except UserError as error:
        return External(predictions, None, str(error))
    _, correlations = closest(make_thumbnails(images.images), seen)
    return External(predictions, correlations > THRESHOLD)


def _seen_by(run: Run) -> UInt8[np.ndarray, "n 64 64 1"]:
    """Thumbnails of the images that a run was trained on or chosen by.

    Raises:
        UserError: they are not where they were, or are others.
    """
    if run.kind != "trained":
        what = "converted weights" if run.kind == "converted" else "an exported classifier"
        raise UserError(f"{run.folder} holds {what}, whose training images are unknown")
    return make_thumbnails(np.concatenate([own_images(run, name).images for name in ("train", "validation")]))


def own_images(run: Run, split: str) -> Split:
    """The images of a run's split, in the order of its predictions, from where the run had them.

    Raises:
        UserError: they are not where they were, or are others.
    """
    data = read_data(run)
    every = joined(list(load_dataset(data["source"]).splits.values()))
    place_of = {name: place for place, name in enumerate(every.names)}
    places = np.array([place_of.get(name, -1) for name in read_predictions(run, split).names])
    if (places < 0).any() or (found := every.take(places)).fingerprint() != data["fingerprints"][split]:
        raise UserError(f"{data['source']}: no longer holds the images of {run.folder}")
    return found


def external_name(run: Run, source: str, split: str | None) -> tuple[str, str]:
    """Name the predictions for a data set in a run folder after the data set's folder or file, and its split.

    Returns:
        The name, with a number where there are predictions for another data set of this name; and the data set's path.
    """
    path = Path(source).resolve()
    if (path / "dataset_info.json").is_file() and len(path.parents) > 2:
        path = path.parents[2]  # DIR of DIR/NAME/SIZE/VERSION.
    first = re.sub(r"[^\w.-]+", "-", (path.name if path.is_dir() else path.stem) or "data")
    first = f"{EXTERNAL}/{first}" if split is None else f"{EXTERNAL}/{first}-{split}"
    where = source if source == "phantom" else str(path)

    def is_free(name: str) -> bool:
        return {read_source(run, name), read_source(run, name + UNSEEN)} <= {None, where}

    return next(filter(is_free, numbered(first))), where


def class_table(matches: Matches, dataset: Dataset) -> tuple[tuple[str, str, int], ...]:
    """List each class of the data set with the run's class (or "left out") and the number of images."""
    counts = Counter(label for split in dataset.splits.values() for label in split.labels.tolist())
    return tuple((name, matches[name] or "left out", counts[label]) for label, name in enumerate(dataset.classes))
