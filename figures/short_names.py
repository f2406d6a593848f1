"""Short names for the runs in a figure, which has little room: the parts that tell each run from the others."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from jaxcnn.errors import printable

# Names are cut here, but not at the "-" in 1e-05.
_BORDERS = re.compile(r"[, ]+|(?<![\deE][eE])-+")

# Names up to here are short enough.
_SHORT = 20


def short_names(folders: Sequence[Path]) -> list[str]:
    """A name for each of these distinct absolute paths, all different.

    It is the folder's own name, with as many parents as are needed to tell the folders apart. If the names are long,
    words that all of them share are left out. A single folder keeps its name.
    """
    depth, names = 1, [folder.name for folder in folders]
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
    names = [printable(name) for name in names]
    return _without_common_words(names) if len(names) > 1 and max(map(len, names)) > _SHORT else names


def _without_common_words(names: Sequence[str]) -> list[str]:
    words = [_BORDERS.split(name) for name in names]
    # As a sweep writes them: 01-seed=0,dropout=0.5.
    joint = ", " if all("," in name for name in names) else "-"
    if len({len(of) for of in words}) == 1:
        columns = list(zip(*words, strict=True))
        differs = [len(set(column)) > 1 for column in columns]
        # "batch" in batch-16 and batch-32 stays, because it says what the number is.
        numbers = [all(word[:1].isdigit() for word in column) for column in columns]
        named = [varies and number for varies, number in zip(differs[1:], numbers[1:], strict=True)] + [False]
        kept = [place for place in range(len(columns)) if differs[place] or named[place]]
        short = [joint.join(of[place] for place in kept) for of in words]
    else:
        # Each name keeps at least one word.
        room = min(map(len, words)) - 1
        start = min(_common(words), room)
        end = min(_common([of[::-1] for of in words]), room - start)
        short = [joint.join(of[start : len(of) - end]) for of in words]
    # Names that differ only in their separators would become equal; these keep their full length.
    return short if len(set(short)) == len(short) else list(names)


def _common(words: Sequence[Sequence[str]]) -> int:
    """The number of words at the start that all names share."""
    return len(list(takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))))
