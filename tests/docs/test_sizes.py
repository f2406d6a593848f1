"""What the report says of the sizes of files: a class with sizes of its own is given away by them."""

import numpy as np
import pytest
from PIL import Image

from docs.sizes import score_sizes

CLASSES = ("glioma_tumor", "no_tumor")


def draw(folder, widths):
    rng = np.random.default_rng(0)
    for split, count in (("Training", 30), ("Testing", 10)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("L", (rng.choice(widths[name]), 32)).save(folder / split / name / f"{number}.jpg")


def test_a_class_with_a_size_of_its_own_is_recognised_by_it(tmp_path):
    draw(tmp_path, {"glioma_tumor": [64], "no_tumor": [40, 50]})
    for line in score_sizes(tmp_path):
        assert line["f1_macro"] == line["recall_none"] == line["precision_none"] == 1


def test_sizes_that_both_classes_have_tell_nothing(tmp_path):
    draw(tmp_path, {name: [40, 50, 64] for name in CLASSES})
    assert [line["f1_macro"] for line in score_sizes(tmp_path)] == pytest.approx([0.5, 0.5], abs=0.2)
