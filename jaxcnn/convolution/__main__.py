"""The command line: python -m jaxcnn.convolution."""

from jaxcnn import cli
from jaxcnn.convolution.check import check


def main(program: str = "python -m jaxcnn.convolution") -> None:
    """Run the check."""
    cli.run(program, check, "Compare the fast convolution with its definition, on this device.")


if __name__ == "__main__":
    main()
