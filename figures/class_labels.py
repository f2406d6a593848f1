"""What a figure calls classes: short, and still different from one another."""

from collections.abc import Sequence

_LONGEST = 26
# Of a name that is cut, so many characters at its end stay: numbers and grades stand there.
_END = 9


def class_labels(classes: Sequence[str]) -> list[str]:
    """`glioma_tumor` is called glioma; `no_tumor` would lose its sense. Long names lose their middle."""
    names = [name.replace("_", " ") if name.startswith("no_") else name.removesuffix("_tumor") for name in classes]
    # A name that another one begins or ends with the same way is told apart by its number.
    cut = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - _END - 1]}…{name[-_END:]}" for name in names]
    return [label if cut.count(label) == 1 else f"{place + 1}: {label}" for place, label in enumerate(cut)]
