"""The command line: python -m convert NETWORK CHECKPOINT OUT, and the way back."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from convert.hub import ADDRESSES, check_hash, fetch_weights
from jaxcnn import cli
from jaxcnn.cli import needed
from jaxcnn.data.normalization import NORMALIZATIONS
from jaxcnn.download import cache_folder
from jaxcnn.errors import UserError, is_installed
from jaxcnn.inference.pretrained import save_pretrained
from jaxcnn.runs.files import telling_unwritable
from jaxcnn.runs.trees import check_free

if TYPE_CHECKING:
    from convert.checkpoint import Checkpoint
    from convert.recipe import Recipe

# All that imports torch is imported in the functions below, so that --help and a clear word work without it.

CheckpointPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
Paths = Annotated[tuple[Path, ...], tyro.conf.Positional, needed("[CHECKPOINT] OUT")]
Normalization = Annotated[
    str,
    tyro.conf.arg(
        constructor=tyro.extras.literal_type_from_choices(tuple(NORMALIZATIONS)),
        help_behavior_hint=lambda default: "(default: " + default.strip("[]'") + ")",
    ),
]
_NEEDED = {"torch": "PyTorch", "safetensors": "safetensors"}


def unet(
    paths: Paths, *, hub: bool = False, normalization: Normalization = "per-image-z-score", overwrite: bool = False
) -> int:
    """Convert the U-Net for brain MRI from PyTorch Hub, of any width and number of channels.

    Args:
        paths: Checkpoint and folder for the converted weights; with --hub only the folder.
        hub: Download the hub's own weights, and keep them in ~/.cache/jaxcnn.
        normalization: Normalisation of the images that the weights were trained with; it is saved in the manifest.
        overwrite: Replace the weights in OUT.
    """
    return _from_hub_or_file("unet", paths, hub, normalization, (), overwrite=overwrite)


def simplecnn(
    checkpoint: CheckpointPath,
    out: OutPath,
    *,
    gate: Literal["softmax", "sigmoid"] = "softmax",
    image_size: int = 128,
    normalization: Normalization = "none",
    classes: tuple[str, ...] = (),
    overwrite: bool = False,
) -> int:
    """Convert the reference project's SimpleCNN, of any width.

    Args:
        checkpoint: Checkpoint that the reference project saved.
        out: Folder for the converted weights.
        gate: Gate of the squeeze-and-excitation block, not in the checkpoint; the reference project uses softmax.
        image_size: Height and width of the training images.
        normalization: Normalisation of these images.
        classes: Names of the classes in order; by default the reference project's names if there are four.
        overwrite: Replace the weights in OUT.
    """
    _check(out, overwrite=overwrite)
    from convert import recipes

    read = partial(recipes.simplecnn_of, gate=gate)
    return _convert_network(checkpoint, read, out, image_size, normalization, classes, overwrite=overwrite)


def unet_classifier(
    checkpoint: CheckpointPath,
    out: OutPath,
    *,
    image_size: int = 128,
    normalization: Normalization = "none",
    classes: tuple[str, ...] = (),
    overwrite: bool = False,
) -> int:
    """Convert the reference project's classifier on the bottleneck of the U-Net, of any width.

    Args:
        checkpoint: Checkpoint that the reference project saved.
        out: Folder for the converted weights.
        image_size: Height and width of the training images.
        normalization: Normalisation of these images.
        classes: Names of the classes in order; by default the reference project's names if there are four.
        overwrite: Replace the weights in OUT.
    """
    _check(out, overwrite=overwrite)
    from convert import recipes

    read = recipes.unet_classifier_of
    return _convert_network(checkpoint, read, out, image_size, normalization, classes, overwrite=overwrite)


def resnet(name: str) -> Callable[..., int]:
    """The command for a ResNet of this name."""

    def command(
        paths: Paths,
        *,
        hub: bool = False,
        normalization: Normalization = "imagenet",
        classes: tuple[str, ...] = (),
        overwrite: bool = False,
    ) -> int:
        """Convert a ResNet in torchvision's layout, with any number of classes.

        Args:
            paths: Checkpoint and folder for the converted weights; with --hub only the folder.
            hub: Download torchvision's own weights, and keep them in ~/.cache/jaxcnn.
            normalization: Normalisation of the images that the weights were trained with; torchvision's is ImageNet's.
            classes: Names of the classes in order; checkpoints don't contain them, and `predict` needs them.
            overwrite: Replace the weights in OUT.
        """
        return _from_hub_or_file(name, paths, hub, normalization, classes, overwrite=overwrite)

    return command


def custom(
    rules: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MY.py:RECIPE")],
    checkpoint: CheckpointPath,
    out: OutPath,
    *,
    overwrite: bool = False,
) -> int:
    """Convert a network of your own; see docs/conversion.md.

    Args:
        rules: A convert.recipe.Recipe in a Python file: both networks, and the table between them. If it has no table,
            one is proposed, printed, and accepted if it is proven.
        checkpoint: Checkpoint of your PyTorch network.
        out: Folder for the converted weights.
        overwrite: Replace the weights in OUT.
    """
    _check(out, overwrite=overwrite)
    from convert.checkpoint import read_checkpoint
    from convert.custom import load_recipe, told_in_one_line

    recipe = load_recipe(rules)
    with told_in_one_line(Path(rules.rpartition(":")[0])):
        return _convert(read_checkpoint(checkpoint), recipe, out, overwrite=overwrite)


def to_torch(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FOLDER")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.safetensors|FILE.pt")],
    *,
    recipe: Annotated[str | None, tyro.conf.arg(metavar="MY.py:RECIPE")] = None,
    overwrite: bool = False,
) -> int:
    """Export a trained run or converted weights as a state_dict of the PyTorch network.

    Args:
        folder: Run folder, or a folder that another command of this program wrote.
        out: File to write; its suffix chooses the format.
        recipe: Recipe of a network of your own, with its table.
        overwrite: Replace the file.
    """
    _check_installed()
    if out.suffix not in (".safetensors", ".pt", ".pth"):
        raise UserError(f"{out}: has an unknown suffix; end the name in .safetensors or .pt")
    if out.exists() and not (overwrite and out.is_file()):
        raise UserError(f"{out}: exists; " + ("replace it with --overwrite" if out.is_file() else "name a file"))
    from convert.torch_export import export_to_torch

    return export_to_torch(folder, out, recipe)


def _from_hub_or_file(
    network: str,
    paths: tuple[Path, ...],
    hub: bool,
    normalization: Normalization,
    classes: tuple[str, ...],
    *,
    overwrite: bool,
) -> int:
    if len(paths) != (1 if hub else 2):
        raise UserError(f"{' '.join(map(str, paths)) or 'PATHS'}: give CHECKPOINT OUT, or --hub OUT")
    out = paths[-1]
    _check(out, overwrite=overwrite)
    if hub:
        print(f"downloading {ADDRESSES[network]} to {cache_folder()}, unless it is already there", flush=True)
        path = fetch_weights(network, cache_folder())
    else:
        path = paths[0]
        check_hash(network, path)
    from convert import recipes

    read = recipes.unet_of if network == "unet" else partial(recipes.resnet_of, network)
    image_size = 128 if network == "unet" else 224
    return _convert_network(path, read, out, image_size, normalization, classes, overwrite=overwrite)


def _convert_network(
    path: Path,
    read: Callable[..., Any],
    out: Path,
    image_size: int,
    normalization: Normalization,
    classes: tuple[str, ...],
    *,
    overwrite: bool,
) -> int:
    """Convert a network of this project, of the sizes in the checkpoint."""
    from convert.checkpoint import read_checkpoint
    from convert.recipes import recipe_for

    checkpoint = read_checkpoint(path)
    recipe = recipe_for(read(checkpoint.tensors), image_size, normalization, classes)
    return _convert(checkpoint, recipe, out, overwrite=overwrite)


def _convert(checkpoint: "Checkpoint", recipe: "Recipe", out: Path, *, overwrite: bool) -> int:
    from convert.conversion import convert
    from convert.proposal import as_source
    from convert.report import first_difference, manifest, report

    conversion = convert(checkpoint, recipe)
    if recipe.table is None:
        print(f"{as_source(conversion.table)}\n")
    print(report(checkpoint, recipe, conversion))
    if conversion.unproven:
        reason = first_difference(conversion.unproven)
        print(f"error: {checkpoint.path}: not proven, so nothing was written: {reason}", file=sys.stderr)
        return 1
    with telling_unwritable(out, "choose another folder"):
        save_pretrained(out, conversion.variables, manifest(checkpoint, recipe, conversion), overwrite=overwrite)
    print(f"\n{out}")
    return 0


def _check(out: Path, *, overwrite: bool) -> None:
    """What would fail in the end fails at once."""
    _check_installed()
    check_free(out, overwrite=True)
    if out.exists() and not overwrite:
        raise UserError(f"{out}: exists; replace it with --overwrite, or choose another folder")


def _check_installed() -> None:
    for package, name in _NEEDED.items():
        if not is_installed(package):
            raise UserError(
                f"python -m convert needs {name}, which is not installed:"
                " pip install -c constraints.txt -e '.[convert]'"
            )


def main(program: str = "python -m convert") -> None:
    """Run the command that the arguments name."""
    cli.run(
        program,
        {
            "unet": unet,
            "simplecnn": simplecnn,
            "unet-classifier": unet_classifier,
            **{name: resnet(name) for name in ("resnet18", "resnet34", "resnet50")},
            "custom": custom,
            "to-torch": to_torch,
        },
        "Convert a PyTorch checkpoint to JAX or back, and prove module by module that both compute the same.",
    )


if __name__ == "__main__":
    main()
