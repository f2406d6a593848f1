"""Tables for a terminal."""

from collections.abc import Sequence

# Wider ones are turned on their side, where that helps.
_WIDEST = 120


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell: the first to the left, the others to the right. Rows may lack cells."""
    columns = max(map(len, rows))
    full = [(*row, *[""] * (columns - len(row))) for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        "  ".join([head.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]).rstrip() for head, *cells in full
    )


def fitted(rows: Sequence[tuple[str, ...]]) -> str:
    """The same, with rows and columns exchanged where the table would be wider than a terminal."""
    upright = aligned(rows)
    if max(map(len, upright.splitlines())) <= _WIDEST:
        return upright
    turned = aligned([tuple(map(str.strip, column)) for column in zip(*rows, strict=True)])
    return min(upright, turned, key=lambda table: max(map(len, table.splitlines())))
