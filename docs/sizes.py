"""What the size of a file alone tells about its class: a decision tree on width and height.

`python -m docs.sizes FOLDER` prints a CSV; the folder holds Training/CLASS/FILE.jpg and Testing/CLASS/FILE.jpg.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

NONE = "no_tumor"


def sizes_and_classes(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of each picture, and the name of its class."""
    files = sorted(folder.glob("*/*.jpg"))
    sizes = []
    for file in files:
        with Image.open(file) as image:
            sizes.append(image.size)
    return np.array(sizes), np.array([file.parent.name for file in files])


def score_sizes(folder: Path) -> list[dict[str, object]]:
    """Scores on training images by ten-fold cross-validation, and on test images."""
    training, testing = (sizes_and_classes(folder / split) for split in ("Training", "Testing"))
    tree = DecisionTreeClassifier(min_samples_leaf=5, random_state=0)
    predicted = {
        "training": (training[1], cross_val_predict(tree, *training, cv=10)),
        "test": (testing[1], tree.fit(*training).predict(testing[0])),
    }
    return [
        {
            "split": split,
            "f1_macro": f1_score(true, guess, average="macro"),
            "recall_none": recall_score(true == NONE, guess == NONE),
            "precision_none": precision_score(true == NONE, guess == NONE),
        }
        for split, (true, guess) in predicted.items()
    ]


if __name__ == "__main__":
    lines = score_sizes(Path(sys.argv[1]))
    table = csv.DictWriter(sys.stdout, list(lines[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
