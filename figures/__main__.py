"""The command line: python -m figures NAME."""

from figures.confusion_matrices import confusion_matrices
from figures.dice import dice
from figures.learning_curves import learning_curves
from figures.manual_convolution import manual_convolution
from figures.models import models
from figures.reliability import reliability_diagram
from figures.report import report
from figures.risk_coverage import risk_coverage
from figures.roc_curves import roc_curves
from figures.segmentation import segmentation
from jaxcnn import cli


def main(program: str = "python -m figures") -> None:
    """Run the command that the arguments name."""
    cli.run(
        program,
        {
            "manual-convolution": manual_convolution,
            "models": models,
            "learning-curves": learning_curves,
            "confusion-matrices": confusion_matrices,
            "reliability": reliability_diagram,
            "roc-curves": roc_curves,
            "risk-coverage": risk_coverage,
            "segmentation": segmentation,
            "dice": dice,
            "report": report,
        },
        "Draw a figure and print its path.",
    )


if __name__ == "__main__":
    main()
