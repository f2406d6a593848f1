"""A finished run without the time that training takes: its weights are random."""

import jax
import jax.numpy as jnp
from random_network import random_network

from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.inference.trained import Trained, save_trained
from jaxcnn.runs.folder import SPLITS, create_run, write_epochs

SCORES = ("loss", "accuracy", "f1_macro", "f1_weighted")


def random_trained(model, size, tta="none", **preprocessing):
    """A classifier of images of this size; its logits are of the order of 1, so that no class is certain."""
    seen = Preprocessing(**preprocessing).seen_shape((size, size, 1))
    images, variables = random_network(model, (2, *seen))
    largest = float(jnp.abs(jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)).max())
    params = variables["params"] | {
        "classifier": jax.tree.map(lambda leaf: leaf / largest, variables["params"]["classifier"])
    }
    shape = (size, size, 1)
    return Trained(
        model, variables | {"params": params}, Preprocessing(**preprocessing), shape, CLASSES, epoch=2, tta=tta
    )


def save_random_run(folder, trained):
    """A run folder that holds this classifier, with scores that tell epochs, splits and kinds apart."""
    images = {split: dict.fromkeys(CLASSES, 3) for split in SPLITS}
    data = {"source": "phantom", "protocol": "leak-free", "images": images, "fingerprints": dict.fromkeys(SPLITS, "0")}
    environment = {"packages": {}, "git_revision": "0123abc"}
    run = create_run(folder, {"model": "simplecnn"}, data, environment, overwrite=False)
    names = [f"{split}_{score}" for split in SPLITS for score in SCORES]
    write_epochs(run, [{"epoch": e} | {name: e / 10 + i / 100 for i, name in enumerate(names)} for e in (1, 2, 3)])
    save_trained(run.best, trained)
    return folder
