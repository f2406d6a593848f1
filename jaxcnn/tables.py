"""Tables of text for a terminal."""

from collections.abc import Iterable, Sequence

# Wider tables are turned on their side, where that helps.
_WIDEST = 120


def format_table(rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell.

    Args:
        rows: of cells; a row with fewer than others ends early, and an empty one is a blank line.
        left: so many columns, the first ones, are aligned to the left, the others to the right.
    """
    cells = [list(row) for row in rows]
    columns = max(map(len, cells))
    full = [row + [""] * (columns - len(row)) for row in cells]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    align = [str.ljust] * left + [str.rjust] * (columns - left)
    lines = ([put(cell, width) for put, cell, width in zip(align, row, widths, strict=True)] for row in full)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def fit_table(rows: Sequence[Sequence[str]]) -> str:
    """The same, with rows and columns exchanged where the table would be wider than a terminal; all rows are full."""
    upright = format_table(rows)
    if _width(upright) <= _WIDEST:
        return upright
    turned = format_table([[cell.strip() for cell in column] for column in zip(*rows, strict=True)])
    return min(upright, turned, key=_width)


def _width(table: str) -> int:
    return max(map(len, table.splitlines()))
