"""Tables of text for a terminal."""

from collections.abc import Iterable, Sequence


def format_table(rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell: the first to the left, the others to the right.

    Args:
        rows: of cells; a row with fewer than others ends early, and an empty one is a blank line.
    """
    cells = [list(row) for row in rows]
    columns = max(map(len, cells))
    full = [row + [""] * (columns - len(row)) for row in cells]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip() for first, *others in full
    )
