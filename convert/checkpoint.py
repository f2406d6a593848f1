"""A PyTorch checkpoint: read without running what it says, and checked against the layout of a network."""

import dataclasses
import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from jaxcnn.errors import UserError

# So many names are listed of each kind of problem; a file of another network has all of them wrong.
_LISTED = 10


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state_dict of a file, as it lies there."""

    path: Path
    sha256: str
    tensors: dict[str, torch.Tensor]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file that holds a state_dict, or a dictionary that holds one under "model".

    Raises:
        UserError: there is no such file, it is no PyTorch file, it holds something else, or unpickling it could run
            code, which isn't done.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the path of a PyTorch checkpoint") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; give the path of a PyTorch checkpoint") from error
    return Checkpoint(path, hashlib.sha256(content).hexdigest(), _state_dict(path, _unpickle(path, content)))


def _unpickle(path: Path, content: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            # Torch warns of files that it then refuses.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # Torch has no exception of its own for what is no checkpoint.
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            problem = f"refused, since unpickling it would call {named[1]}, which could run any code"
            raise UserError(f"{path}: {problem}; if you trust it, load it yourself and save its state_dict") from error
        raise UserError(
            f"{path}: no PyTorch checkpoint, or a damaged one; give a file that torch.save wrote"
        ) from error


def _state_dict(path: Path, content: Any) -> dict[str, torch.Tensor]:
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state:
        raise UserError(f'{path}: holds no state_dict; save model.state_dict(), or that under "model"')
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path}: {key!r} is no tensor but {type(value).__name__}; "
                'save model.state_dict() alone, or under "model"'
            )
    return dict(state)


def conform(checkpoint: Checkpoint, layout: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, in the types of the layout.

    Args:
        checkpoint: of whatever precision.
        layout: the network's state_dict; only its keys, shapes and types count.

    Raises:
        UserError: a key is missing or unexpected, a shape is wrong, numbers have the wrong type or aren't finite. The
            message lists them.
    """
    found = checkpoint.tensors
    problems = [
        *_listing("missing", (key for key in layout if key not in found)),
        *_listing("unexpected", (str(key) for key in found if key not in layout)),
        *_listing("wrong", (_difference(key, found[key], layout[key]) for key in layout if key in found)),
    ]
    if problems:
        raise UserError(
            f"{checkpoint.path}: not a checkpoint of this network: {'; '.join(problems)}; "
            "python -m convert --help lists the networks"
        )
    converted = {key: found[key].to(layout[key].dtype) for key in layout}
    if infinite := _listing("not finite in float32", (key for key in layout if not converted[key].isfinite().all())):
        raise UserError(f"{checkpoint.path}: {infinite[0]}; give a checkpoint from before the numbers broke down")
    return converted


def converted_types(checkpoint: Checkpoint, layout: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """How many of the arrays that should be float32 have which other type, for example {"float16": 100}."""
    types = Counter(checkpoint.tensors[key].dtype for key, value in layout.items() if value.is_floating_point())
    return {str(dtype).removeprefix("torch."): count for dtype, count in types.items() if dtype != torch.float32}


def _difference(key: str, found: torch.Tensor, expected: torch.Tensor) -> str:
    """What is wrong with a tensor, or nothing."""
    if found.shape != expected.shape:
        return f"{key} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.layout is not torch.strided or found.is_meta:
        return f"{key} is no dense tensor with numbers"
    if expected.is_floating_point() and not found.is_floating_point():
        return f"{key} has type {str(found.dtype).removeprefix('torch.')}, expected floating-point numbers"
    return ""


def _listing(kind: str, names: Iterable[str]) -> list[str]:
    """One entry with the names that aren't empty, or none."""
    listed = [name for name in names if name]
    if not listed:
        return []
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return [f"{kind}: {', '.join(listed[:_LISTED])}{more}"]
