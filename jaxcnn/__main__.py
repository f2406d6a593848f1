"""The one command: jaxcnn train|convert|figures|data|convolution|benchmarks, or python -m jaxcnn."""

import importlib
import sys
from functools import partial

from jaxcnn import cli
from jaxcnn.errors import UserError

# The rooms are known by name alone: the library imports none of them.
COMMANDS = {
    "train": ("train.__main__", "train models, evaluate them and use them"),
    "convert": ("convert.__main__", "convert PyTorch checkpoints, with proof"),
    "figures": ("figures.__main__", "draw figures of runs and images"),
    "data": ("jaxcnn.data.__main__", "prepare and audit brain scans"),
    "convolution": ("jaxcnn.convolution.__main__", "compare the fast convolution with its definition"),
    "benchmarks": ("benchmarks.__main__", "compare the speed with PyTorch's"),
}


def main(program: str = "jaxcnn") -> None:
    """Run the command that the first argument names.

    Args:
        program: what the user types before it.
    """
    cli.finish(partial(_main, program))


def _main(program: str) -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(f"usage: {program} COMMAND ...\n\nBrain-MRI networks in JAX. `{program} COMMAND --help` tells more.\n")
        print("\n".join(f"  {command:<13}{summary}" for command, (_, summary) in COMMANDS.items()))
        return 0
    if name not in COMMANDS:
        raise UserError(f"{name}: there is no such command; choose one of {', '.join(COMMANDS)}")
    module, _ = COMMANDS[name]
    try:
        room = importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name != module or not hasattr(sys.modules.get(package), "__file__"):
            raise
        way_out = "rename it, or use the command jaxcnn in place of python -m"
        raise UserError(f"{sys.modules[package].__file__}: hides the package {package}; {way_out}") from error
    sys.argv[:2] = [f"{program} {name}"]
    return room.main(sys.argv[0])


if __name__ == "__main__":
    main("python -m jaxcnn")
