"""Use a converted classifier in place of a run.

Its folder is a tree of weights. What it says of a data set's images, once that is evaluated, lies in it under the names
that a run folder has for predictions, so that the figures of both are drawn alike. There are no epochs in it.
"""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from jaxcnn.data.dataset import Dataset
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predictions import Predictions
from jaxcnn.evaluation.tables import UNKNOWN
from jaxcnn.inference.exported import load_exported
from jaxcnn.inference.pretrained import load_pretrained
from jaxcnn.inference.trained import Members, Trained, load_best
from jaxcnn.models.unet import UNet
from jaxcnn.runs.folder import SPLITS, Run, open_run, write_predictions
from jaxcnn.runs.json_files import write_json

_PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "numpy")


def load_members(runs: Sequence[Run]) -> Members:
    """Load the classifiers of several runs or converted classifiers, which are to be used as one.

    Raises:
        UserError: see `load_classifier`; or they have other classes, or images of another size.
    """
    members = tuple(load_classifier(run.folder) for run in runs)
    for run, trained in zip(runs, members, strict=True):
        for what in ("classes", "image_shape"):
            own, first = (", ".join(map(str, getattr(member, what))) for member in (trained, members[0]))
            if own != first:
                name = what.replace("_", " ")
                raise UserError(
                    f"{run.folder}: has the {name} {own}, but {runs[0].folder} has {first}; combine runs that agree"
                )
    return members


def load_classifier(folder: Path) -> Trained:
    """Load the best classifier of a run, or a converted or exported classifier, on the default device.

    Raises:
        UserError: the folder is none of these, or is damaged, or nobody knows the names of its classes.
    """
    kind = Run(folder).kind
    if kind == "exported":
        return load_exported(folder)
    if kind != "converted":
        return check_classifies(folder, load_best(open_run(folder)))
    pretrained = load_pretrained(folder)
    manifest, model = pretrained.manifest, pretrained.model
    count = getattr(model, "classes", None)
    if count is None:
        raise UserError(f"{folder}: holds a {manifest.model}, which is not a classifier; give a run or a classifier")
    if len(manifest.classes) != count:
        raise UserError(f"{folder}: its {count} classes have no names; convert it again with --classes NAME NAME ...")
    height, width, _ = manifest.image_shape
    preprocessing = Preprocessing(normalization=manifest.normalization)
    # The images of every data set and every file are grey.
    return Trained(model, pretrained.variables, preprocessing, (height, width, 1), manifest.classes, epoch=None)


def check_classifies(folder: Path | str, trained: Trained) -> Trained:
    """Give the network back if it is a classifier.

    Raises:
        UserError: it segments.
    """
    if isinstance(trained.model, UNet):
        raise UserError(f"{folder}: is a run that segments; use python -m train segment, or give a classifier")
    return trained


def keep_as_run(run: Run, data: str, dataset: Dataset, predictions: Predictions) -> None:
    """Save a converted classifier's predictions for a data set in its folder, as a run saves its own.

    Args:
        run: the classifier's folder.
        data: name of the data set.
        dataset: its splits are those of the folder.
        predictions: for all its images, but for those of classes that the classifier doesn't know.

    Raises:
        OSError: the folder can't be written.
    """
    # A folder with a configuration has the rest as well.
    run.config.unlink(missing_ok=True)
    images, fingerprints = {name: dict[str, int]() for name in SPLITS}, dict.fromkeys(SPLITS, "")
    for name in SPLITS:
        run.predictions(name).unlink(missing_ok=True)
        if (split := dataset.splits.get(name)) is not None:
            found = predictions.take(np.flatnonzero(np.isin(predictions.names, split.names)))
            write_predictions(run, name, found)
            counts = np.bincount(found.labels, minlength=len(found.classes)).tolist()
            images[name] = dict(zip(found.classes, counts, strict=True))
            fingerprints[name] = split.fingerprint()
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    write_json(run.environment, {"packages": packages, "device_kind": jax.devices()[0].device_kind})
    about = {"source": data, "protocol": UNKNOWN, "images": images, "fingerprints": fingerprints}
    write_json(run.data, about)
    write_json(run.config, {"model": "converted", "data": data})
