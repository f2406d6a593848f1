"""Read a checkpoint without running code in it, and check it against the layout of a network."""

import dataclasses
import hashlib
import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from jaxcnn.errors import UserError

# So many names are listed of each kind of problem; a file of another network has all of them wrong.
_LISTED = 10

# Where trainers put the state_dict. Lightning's are under "state_dict", too.
_WRAPPERS = ("state_dict", "model_state_dict", "model")

# What DataParallel, torch.compile, Lightning modules and wrappers of a network put before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


class _Inert:
    """Stands for an object beside the weights that only holds data: nothing of it is called, kept or looked at."""

    def __new__(cls, *_: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


# What trainers leave beside the weights: scores as NumPy's numbers, parsed options, paths, dates.
_INERT_NAMES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *("numpy.dtype", "numpy.ndarray", "argparse.Namespace", "datetime.datetime", "datetime.timedelta"),
    *(f"pathlib.{pure}{kind}Path" for pure in ("", "Pure") for kind in ("", "Posix", "Windows")),
    *(f"pathlib._local.{kind}Path" for kind in ("Posix", "Windows", "PurePosix", "PureWindows")),
)
_INERT: list[Any] = [(type(name.rsplit(".", 1)[1], (_Inert,), {}), name) for name in _INERT_NAMES]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The state_dict of a file.

    Attributes:
        tensors: as they lie there.
        ignored: names of what lies beside the state_dict.
        prefix: what was before every name, and isn't in `tensors`.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, torch.Tensor]
    ignored: tuple[str, ...] = ()
    prefix: str = ""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a safetensors file, or one that torch.save wrote: a state_dict, or a dictionary that holds one.

    Raises:
        UserError: there is no such file, it is neither, it holds something else, or unpickling it could run code,
            which isn't done.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the path of a PyTorch checkpoint") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}; give the path of a PyTorch checkpoint") from error
    # A safetensors file begins with the length of its header, which is JSON.
    loaded = _parse_safetensors(path, content) if content[8:9] == b"{" else _unpickle(path, content)
    tensors, ignored = _state_dict(path, loaded)
    prefix = _common_prefix(tensors)
    stripped = {key.removeprefix(prefix) if prefix else key: tensor for key, tensor in tensors.items()}
    return Checkpoint(path, hashlib.sha256(content).hexdigest(), stripped, ignored, prefix)


def _parse_safetensors(path: Path, content: bytes) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load(content)
    except Exception as error:  # It raises its own, and others for types that torch doesn't have.
        raise UserError(f"{path}: a damaged safetensors file ({error!s:.200}); fetch or write it again") from error


def _unpickle(path: Path, content: bytes) -> Any:
    _refuse_blown_up(path, content)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_INERT):
            # Torch warns of files that it then refuses.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # Torch has no exception of its own for what is no checkpoint.
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            problem = f"refused, since unpickling it would call {named[1]}, which could run any code"
            raise UserError(f"{path}: {problem}; if you trust it, load it yourself and save its state_dict") from error
        raise UserError(
            f"{path}: not a PyTorch checkpoint, or a damaged one; give a file that torch.save wrote"
        ) from error


def _refuse_blown_up(path: Path, content: bytes) -> None:
    """Torch stores its arrays as they are; an archive that claims to hold more than itself would fill the memory."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # An older file, or none that torch will read.
    if claimed > len(content):
        raise UserError(
            f"{path}: claims to hold {claimed} bytes in a file of {len(content)}, which torch.save never writes;"
            " give a file that torch.save wrote"
        )


def _state_dict(path: Path, content: Any) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The state_dict in what a file holds, and the names of all that is not in it."""
    ignored: list[str] = []
    # A wrapper may hold another, as {"model": {"state_dict": ...}}; a pickle may hold itself, without end.
    for _ in range(len(_WRAPPERS)):
        wrapper = _wrapper(content)
        if wrapper is None:
            break
        ignored += [str(key) for key in content if key != wrapper]
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f'{path}: holds no state_dict; save model.state_dict(), or that under "state_dict"')
    for key, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path}: {key!r} is not a tensor but {type(value).__name__}; "
                'save model.state_dict() alone, or under "state_dict"'
            )
        if value.is_nested:
            raise UserError(f"{path}: {key} is a nested tensor, which no network has; save model.state_dict()")
        if _claims_more_than_it_stores(value):
            raise UserError(
                f"{path}: {key} claims {tuple(value.shape)} numbers but stores fewer; save model.state_dict()"
            )
    return {str(key): value for key, value in content.items()}, tuple(ignored)


def _wrapper(content: Any) -> str | None:
    """The name under which the state_dict lies, if there is one."""
    found = content if isinstance(content, Mapping) else {}
    return next((name for name in _WRAPPERS if name in found and not isinstance(found[name], torch.Tensor)), None)


def _claims_more_than_it_stores(tensor: torch.Tensor) -> bool:
    """Whether numbers are repeated by strides of 0, so that a small file could ask for any amount of memory."""
    dense = tensor.layout is torch.strided and not tensor.is_meta
    return dense and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _common_prefix(keys: Iterable[str]) -> str:
    """The longest row of known prefixes that all names begin with."""
    names, prefix = list(keys), ""
    while found := next((p for p in _PREFIXES if all(name.startswith(prefix + p) for name in names)), ""):
        prefix += found
    return prefix


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A checkpoint's tensors, fitted to the network.

    Attributes:
        tensors: for every key of the network; zeros for those that were not needed and not there.
        stripped: the prefix that was taken from every name.
        absent: keys that were not needed and not there.
        cast: how many floating-point arrays had which other type than float32.
    """

    tensors: dict[str, torch.Tensor]
    stripped: str
    absent: tuple[str, ...]
    cast: dict[str, int]


def fit(
    checkpoint: Checkpoint,
    layout: Mapping[str, torch.Tensor],
    unneeded: Iterable[str] = (),
    shared: Mapping[str, str] | None = None,
) -> Fitted:
    """Return the tensors with the names and types of the layout.

    Args:
        layout: the network's state_dict; only its keys, shapes and types count.
        unneeded: keys that may be missing.
        shared: keys of one parameter under a second name; they must hold the same numbers, and one of both will do.

    Raises:
        UserError: a key is missing or unexpected, a shape is wrong, numbers have the wrong type, aren't finite or can't
            be those of a network. The message lists them.
    """
    prefix = _own_prefix(checkpoint.prefix, layout)
    found = {prefix + key: tensor for key, tensor in checkpoint.tensors.items()}
    for key, first in (shared or {}).items():
        found |= {key: found[first]} if first in found and key not in found else {}
        found |= {first: found[key]} if key in found and first not in found else {}
    optional = set(unneeded) - found.keys()
    problems = [
        *_listing("missing", (key for key in layout if key not in found and key not in optional)),
        *_listing("unexpected", (key for key in found if key not in layout)),
        *_listing("wrong", (_difference(key, found[key], layout[key]) for key in layout if key in found)),
    ]
    if problems:
        raise UserError(
            f"{checkpoint.path}: not a checkpoint of this network: {'; '.join(problems)}; "
            "python -m convert --help lists the networks"
        )
    converted = {
        key: _cast(found[key], expected) if key in found else torch.zeros_like(expected, device="cpu")
        for key, expected in layout.items()
    }
    if infinite := _listing("not finite in float32", (key for key in layout if not converted[key].isfinite().all())):
        raise UserError(f"{checkpoint.path}: {infinite[0]}; give an earlier checkpoint with finite numbers")
    variances = (key for key in layout if key.endswith("running_var"))
    if negative := _listing("variances below 0", (key for key in variances if (converted[key] < 0).any())):
        raise UserError(f"{checkpoint.path}: {negative[0]}; give a checkpoint that training wrote")
    statistics = (".running_mean", ".running_var", ".num_batches_tracked")
    if not any(of.any() for key, of in converted.items() if not key.endswith(statistics)):
        raise UserError(f"{checkpoint.path}: all weights are 0; give a checkpoint that training wrote")
    for key, first in (shared or {}).items():
        if not torch.equal(converted[key], converted[first]):
            raise UserError(
                f"{checkpoint.path}: {key} and {first} differ, but are the same parameter in this network;"
                " give a checkpoint of this network"
            )
    types = Counter(found[key].dtype for key, value in layout.items() if key in found and value.is_floating_point())
    cast = {str(dtype).removeprefix("torch."): count for dtype, count in types.items() if dtype != torch.float32}
    absent = tuple(key for key in layout if key in optional)
    return Fitted(converted, checkpoint.prefix.removesuffix(prefix), absent, cast)


def _own_prefix(prefix: str, layout: Iterable[str]) -> str:
    """The end of the prefix that is no wrapper's, but the network's own: all of its names begin with it."""
    own = _common_prefix(layout)
    while own and not prefix.endswith(own):
        own = own.partition(".")[2]
    return own


def _difference(key: str, found: torch.Tensor, expected: torch.Tensor) -> str:
    """What is wrong with a tensor, or nothing."""
    if found.shape != expected.shape:
        return f"{key} has shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.layout is not torch.strided or found.is_meta:
        return f"{key} is not a dense tensor of numbers"
    if expected.is_floating_point() and not found.is_floating_point():
        return f"{key} has type {str(found.dtype).removeprefix('torch.')}, expected floating-point numbers"
    try:
        _cast(found, expected)
    except (RuntimeError, NotImplementedError):
        return f"{key} has type {str(found.dtype).removeprefix('torch.')}, which PyTorch doesn't convert"
    return ""


def _cast(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """The numbers in the type that is expected, as they are stored: a view may only say that they are to be negated."""
    return found.detach().resolve_conj().resolve_neg().to(expected.dtype)


def _listing(kind: str, names: Iterable[str]) -> list[str]:
    """One entry with the names that aren't empty, or none."""
    listed = [name for name in names if name]
    if not listed:
        return []
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return [f"{kind}: {', '.join(listed[:_LISTED])}{more}"]
