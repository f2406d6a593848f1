"""Share a trained classifier on the Hugging Face Hub, and load one from there.

README.md             the model card
config.json           RUN/best/manifest.json
model.safetensors     the arrays of RUN/best, by their paths
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxcnn.errors import UserError
from jaxcnn.inference.card import ADDRESS, card
from jaxcnn.inference.converted import check_classifies, load_classifier
from jaxcnn.inference.trained import Trained, read_trained
from jaxcnn.runs.folder import Run, open_run

PREFIX = "hf://"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INSTALL = "hub: needs huggingface_hub and safetensors: pip install -c constraints.txt -e '.[hub]'"


def push(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")],
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")],
) -> None:
    """Share the best classifier of a run on the Hugging Face Hub, with its model card.

    The card, the network's description and its weights are sent, and nothing else. Log in with `hf auth login` first.

    Args:
        folder: Run folder; a card that is in it (README.md) is sent as it is, or else one is written.
        repository: Where to: made if it is missing, public then.
    """
    run = open_run(folder)
    files = _files(run, repository)
    with _errors_in_one_line(repository):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(library_name="jaxcnn")
        api.create_repo(repository, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        commit = api.create_commit(repository, operations, commit_message=f"{run.name}, trained with jaxcnn")
    for name, content in files.items():
        print(f"{name}  {len(content):,} bytes")
    print(commit.repo_url)


def load_from_hub(address: str) -> Trained:
    """Load the classifier at hf://OWNER/NAME, or hf://OWNER/NAME@REVISION, on the default device.

    Raises:
        UserError: there is none, or it can't be reached, or is damaged; or a package is missing.
    """
    repository, _, revision = address.removeprefix(PREFIX).partition("@")
    with _errors_in_one_line(address):
        from huggingface_hub import snapshot_download

        # All of one revision, even where another is pushed meanwhile.
        files = snapshot_download(repository, revision=revision or None, allow_patterns=[_CONFIG, _WEIGHTS])
    trained = read_trained(Path(files) / _CONFIG, lambda shapes: _read_weights(Path(files) / _WEIGHTS, shapes))
    return check_classifies(address, trained)


def _files(run: Run, repository: str) -> dict[str, bytes]:
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise UserError(_INSTALL) from error
    trained = load_classifier(run.folder)
    if not run.card.exists():
        card(run.folder)
    tree = {**trained.variables, **({} if trained.unlike is None else {"unlike": trained.unlike})}
    arrays = {name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}
    return {
        "README.md": run.card.read_bytes().replace(ADDRESS.encode(), f"{PREFIX}{repository}".encode()),
        _CONFIG: run.best.joinpath("manifest.json").read_bytes(),
        _WEIGHTS: save(arrays),
    }


def _read_weights(path: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    wanted = flatten_dict(shapes, sep="/")
    try:
        from safetensors.numpy import load_file

        arrays = load_file(path)
    except ImportError as error:
        raise UserError(_INSTALL) from error
    except Exception as error:  # Anybody may have written it.
        raise UserError(f"{path}: can't be read ({error}); download it again") from error
    found, expected = ({name: (array.shape, array.dtype) for name, array in tree.items()} for tree in (arrays, wanted))
    if found != expected:
        raise UserError(f"{path}: holds other arrays than the network that {_CONFIG} describes; ask who shared it")
    return unflatten_dict(jax.device_put(arrays), sep="/")


@contextlib.contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    """Tell what keeps the hub from answering.

    Raises:
        UserError: in the place of whatever huggingface_hub and what lies below it raise.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(_INSTALL) from error
    except UserError:
        raise
    except Exception as error:  # They are of many kinds, most of them OSErrors without an errno.
        reasons = dict.fromkeys(_first_line(found) for found in (error, error.__cause__) if found is not None)
        way_out = "check the name, the connection, and that you are logged in (hf auth login)"
        raise UserError(f"{name}: {': '.join(reasons)}; {way_out}") from error


def _first_line(error: BaseException) -> str:
    lines = (line.strip().rstrip(".") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
