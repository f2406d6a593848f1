"""Names in legends are short, and still tell every run from every other."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures.short_names import short_names


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/a/only-one-with-quite-a-long-name"], ["only-one-with-quite-a-long-name"]),
        (["/a/run-1", "/a/run-2"], ["run-1", "run-2"]),
        (["/a/\udcff1", "/a/ü"], [r"\udcff1", "ü"]),  # The bytes of the first are no text.
        (["/a/x", "/b/x", "/b/y"], ["a/x", "b/x", "b/y"]),
        (["/a/rate-0.01-dropout-0.3-batch-16", "/a/rate-0.1-dropout-0.3-batch-16"], ["rate-0.01", "rate-0.1"]),
        (["/a/simplecnn-learning_rate=1e-05-seed=1", "/a/simplecnn-learning_rate=1e-04-seed=1"],
         ["learning_rate=1e-05", "learning_rate=1e-04"]),
        (["/a/a-long-name-of-a-run", "/a/a-long-name-of-a-run-again"], ["run", "run-again"]),
        (["/a/the-same-words-in-one-line", "/a/the-same-words-in,one-line"],
         ["the-same-words-in-one-line", "the-same-words-in,one-line"]),
    ],
)  # fmt: skip
def test_a_name_is_what_differs(folders, names):
    assert short_names([Path(folder) for folder in folders]) == names


words = st.lists(st.sampled_from(["a", "lr=0.1", "1e-05", "x_y", "16", "a long word"]), min_size=1, max_size=6)
paths = st.tuples(st.sampled_from("ab"), words, st.sampled_from(["-", ",", "--", "_"]))


@given(st.lists(paths.map(lambda path: Path("/", path[0], path[2].join(path[1]))), unique=True, min_size=1))
def test_all_names_differ_and_none_is_empty(folders):
    names = short_names(folders)
    assert len(set(names)) == len(folders)
    assert all(names)
