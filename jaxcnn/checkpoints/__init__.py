"""Checkpoints of a training run, and single trees such as converted weights. The only folder that knows Orbax."""

from jaxcnn.checkpoints.runs import Checkpoints, Restored, load_latest, open_checkpoints, save, wait
from jaxcnn.checkpoints.trees import check_free, load_tree, read_manifest, save_tree

__all__ = [
    "Checkpoints",
    "Restored",
    "check_free",
    "load_latest",
    "load_tree",
    "open_checkpoints",
    "read_manifest",
    "save",
    "save_tree",
    "wait",
]
