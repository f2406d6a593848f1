"""The command line: python -m jaxcnn.convolution."""

from jaxcnn import cli
from jaxcnn.convolution.check import check


def main() -> None:
    """Run the check."""
    cli.run("python -m jaxcnn.convolution", check, "Compare the fast convolution with its definition, on this device.")


if __name__ == "__main__":
    main()
