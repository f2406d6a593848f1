"""Compute the outputs of a network's frozen part once for all images, and cache them on disk.

The frozen part is the same at every step, so its outputs are, too: training and evaluation run on these. A file is
named after all that its content is a function of, so that one made from anything else is never found.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float32

from jaxcnn.data.batch import images_of
from jaxcnn.data.dataset import Split
from jaxcnn.data.normalization import NORMALIZATIONS
from jaxcnn.data.pipeline import evaluation_batches
from jaxcnn.download import cache_folder
from jaxcnn.errors import UserError
from jaxcnn.models.example_keys import keys_at
from jaxcnn.runs.files import whole_file
from train.machine.progress import progress_bar
from train.network import Network

Features = Float32[np.ndarray, "n ..."]

# To be raised whenever the same weights and images come to give other features.
_VERSION = 2
_BATCH_SIZE = 32
# Of all features together; a seed of the U-Net with eight views of the scans takes 1.3 GB.
MOST_BYTES = 10 * 10**9


def load_features(network: Network, frozen: Any, split: Split, *, view: tuple[int, int] | None = None) -> Features:
    """Load the inputs of the network's learning part for every image from disk, or compute and save them.

    Args:
        network: whose frozen part is not empty.
        view: seed and number of a random view of the images, by the network's augmentation; None as they are.

    Returns:
        An array that is read from its file as it is used.

    Raises:
        UserError: the file can't be written.
    """
    path = features_folder() / f"{_key(network, frozen, split, view)}.npy"
    if _is_whole(path, len(split)):
        os.utime(path)
    else:
        try:
            with whole_file(path) as temporary:
                np.save(temporary, compute_features(network, frozen, split, view=view))
        except OSError as error:
            raise UserError(f"{path}: can't be written ({error.strerror}); make room, or give --no-cache") from error
    features = np.load(path, mmap_mode="r")
    remove_features(MOST_BYTES)
    return features


def features_folder() -> Path:
    """Return the folder of the cached features."""
    return cache_folder() / "features"


def remove_features(most_bytes: int) -> int:
    """Delete the least recently used features until the others take at most this many bytes.

    A run that uses a file keeps it: what is mapped into memory stays there until the run ends.

    Returns:
        How many bytes were freed.
    """
    freed = kept = 0
    files = []
    for path in features_folder().glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):  # Another run has deleted it.
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    for _, size, path in sorted(files, reverse=True):
        if kept + size <= most_bytes:
            kept += size
        else:
            path.unlink(missing_ok=True)
            freed += size
    return freed


def clear_features() -> None:
    """Delete the cached outputs of frozen parts in ~/.cache/jaxcnn/features; runs compute them again."""
    print(f"{features_folder()}: {remove_features(0) / 1e6:.0f} MB freed")


def compute_features(network: Network, frozen: Any, split: Split, *, view: tuple[int, int] | None = None) -> Features:
    """The inputs of the network's learning part for every image; see `load_features`."""
    key = None if view is None else jax.random.fold_in(jax.random.key(view[0]), view[1])
    batches = evaluation_batches(images_of(split), _BATCH_SIZE)
    features = []
    for number, batch in enumerate(progress_bar(-(-len(split) // _BATCH_SIZE), "features", batches)):
        places = number * _BATCH_SIZE + np.arange(_BATCH_SIZE, dtype=np.int32)
        features.append(np.asarray(_encode(network, frozen, batch.inputs, places, key))[batch.mask])
    return np.concatenate(features)


# Compiled once for all splits, and once more for all random views.
@functools.partial(jax.jit, static_argnums=0)
def _encode(network: Network, frozen: Any, images: Array, places: Array, key: Array | None) -> Array:
    keys = None if key is None else keys_at(key, places)
    return network.inputs(frozen, images, keys)


def _key(network: Network, frozen: Any, split: Split, view: tuple[int, int] | None) -> str:
    """A hash of the weights, the images, what is done to them, the border, and what computes."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten_dict(frozen, sep="/").items()):
        digest.update(f"{path} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf))
    normalization = _description(NORMALIZATIONS[network.preprocessing.normalization])
    random = None if view is None else (view, _description(network.augmentation))
    images = [split.fingerprint(), repr(network.preprocessing), normalization, random]
    dtype = jnp.dtype(getattr(network.model, "dtype", jnp.float32)).name
    made_by = [_VERSION, jaxlib.__version__, jax.default_backend(), dtype]
    digest.update(json.dumps([images, network.frozen, made_by]).encode())
    return digest.hexdigest()


def _description(function: Callable[..., Any]) -> str:
    """What tells a function from others: the fields of a dataclass, or the text of the code."""
    if dataclasses.is_dataclass(function):
        return repr(function)
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # Typed in at a prompt: it has an address in memory alone, and is not found again.
        return repr(function)


def _is_whole(path: Path, count: int) -> bool:
    """Whether the file is there and holds an array for so many images, all of it."""
    try:
        return len(np.load(path, mmap_mode="r")) == count
    except (OSError, ValueError):  # np.load finds a file that was cut off too small to be mapped.
        return False
