"""The command line: python -m convert NETWORK CHECKPOINT OUT."""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from convert.hub import ADDRESS, NAME, check_hash, fetch_weights
from jaxcnn import SimpleCNN, UNet, UNetClassifier, cli
from jaxcnn.data.normalization import NormalizationName
from jaxcnn.download import cache_folder
from jaxcnn.errors import UserError
from jaxcnn.inference.pretrained import save_pretrained
from jaxcnn.runs.trees import check_free

if TYPE_CHECKING:
    from convert.recipes import Recipe

# All that imports torch is imported in the functions below, so that --help and a clear word work without it.

CheckpointPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]


def unet(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[CHECKPOINT] OUT")],
    *,
    hub: bool = False,
    normalization: NormalizationName = "per-image-z-score",
    overwrite: bool = False,
) -> int:
    """The U-Net for brain MRI that PyTorch hub offers.

    Args:
        paths: a checkpoint of it, and the folder for the converted weights; with --hub just the folder.
        hub: fetch the hub's own weights; they are kept in ~/.cache/jaxcnn.
        normalization: of the images that the weights were trained with; kept in the manifest, no checkpoint says it.
        overwrite: replace the weights in OUT.
    """
    if len(paths) != (1 if hub else 2):
        raise UserError(f"{' '.join(map(str, paths)) or 'PATHS'}: give CHECKPOINT OUT, or --hub OUT")
    out = paths[-1]
    _check(out, overwrite=overwrite)
    if hub:
        print(f"downloading {ADDRESS} to {cache_folder()}, unless it is there", flush=True)
        checkpoint = fetch_weights(ADDRESS, cache_folder())
    else:
        checkpoint = paths[0]
        if checkpoint.name == NAME:
            check_hash(checkpoint)
    from convert import recipes

    return _convert(checkpoint, recipes.unet(UNet(), normalization), out, overwrite=overwrite)


def simplecnn(checkpoint: CheckpointPath, out: OutPath, *, overwrite: bool = False) -> int:
    """The reference project's SimpleCNN.

    Args:
        checkpoint: what its training saved.
        out: folder for the converted weights.
        overwrite: replace the weights in OUT.
    """
    _check(out, overwrite=overwrite)
    from convert import recipes

    return _convert(checkpoint, recipes.simplecnn(SimpleCNN(gate="softmax")), out, overwrite=overwrite)


def unet_classifier(checkpoint: CheckpointPath, out: OutPath, *, overwrite: bool = False) -> int:
    """The reference project's classifier on the bottleneck of the U-Net.

    Args:
        checkpoint: what its training saved.
        out: folder for the converted weights.
        overwrite: replace the weights in OUT.
    """
    _check(out, overwrite=overwrite)
    from convert import recipes

    return _convert(checkpoint, recipes.unet_classifier(UNetClassifier()), out, overwrite=overwrite)


def _check(out: Path, *, overwrite: bool) -> None:
    """What would fail in the end fails at once."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "python -m convert needs PyTorch, which is not installed: pip install -c constraints.txt -e '.[convert]'"
        )
    check_free(out, overwrite=overwrite)


def _convert(path: Path, recipe: "Recipe", out: Path, *, overwrite: bool) -> int:
    from convert.checkpoint import read_checkpoint
    from convert.conversion import convert
    from convert.report import manifest, report

    checkpoint = read_checkpoint(path)
    conversion = convert(checkpoint, recipe)
    print(report(checkpoint, recipe, conversion))
    if conversion.unproven:
        blocks = ", ".join(difference.block for difference in conversion.unproven)
        print(f"error: {path}: not the same as in PyTorch: {blocks}; nothing was written", file=sys.stderr)
        return 1
    try:
        save_pretrained(out, conversion.mapped.variables, manifest(checkpoint, recipe, conversion), overwrite=overwrite)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror or error}; choose another place") from error
    print(f"\n{out}")
    return 0


def main(program: str = "python -m convert") -> None:
    """Run the command that the arguments name."""
    cli.run(
        program,
        {"unet": unet, "simplecnn": simplecnn, "unet-classifier": unet_classifier},
        "Convert a PyTorch checkpoint to JAX, and prove block by block that it computes the same.",
    )


if __name__ == "__main__":
    main()
