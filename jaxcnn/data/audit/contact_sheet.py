"""Draw the pairs of near-duplicates in different splits, to judge by eye whether they are copies."""

from PIL import Image, ImageDraw, ImageFont

from jaxcnn.data.audit.findings import Audit, CrossingPair

MOST_PAIRS = 120

_COLUMNS = 6
_SIDE = 128  # Of an image on the sheet.
_WIDTH, _HEIGHT = 2 * _SIDE + 20, _SIDE + 58  # Of a pair with its caption.
_TOP = 32
_INK, _WARNING, _PAPER = "black", "firebrick", "white"
_CHARACTERS = 44  # Of a name in the width of a pair.
_LABEL = 17  # Of each of two labels beside the correlation.


def contact_sheet(found: Audit) -> Image.Image:
    """Draw at most `MOST_PAIRS` of `found.pairs`: the least similar ones, which are the most doubtful."""
    shown = found.pairs[:MOST_PAIRS]
    size = (_COLUMNS * _WIDTH + 20, _TOP + -(-len(shown) // _COLUMNS) * _HEIGHT + 20)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((20, 12), _title(found, len(shown)), _INK, ImageFont.load_default(14))
    for i, pair in enumerate(shown):
        _draw_pair(sheet, draw, found, pair, left=20 + i % _COLUMNS * _WIDTH, top=_TOP + 8 + i // _COLUMNS * _HEIGHT)
    return sheet


def _title(found: Audit, shown: int) -> str:
    if not found.pairs:
        return f"{found.collection.source}: no images in different splits correlate above {found.threshold}"
    return (
        f"{found.collection.source}: images and the most similar image in another split, least similar first"
        f" ({shown} of {len(found.pairs)} pairs; threshold {found.threshold})"
    )


def _draw_pair(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, found: Audit, pair: CrossingPair, *, left: int, top: int
) -> None:
    places, font = (pair.first, pair.second), ImageFont.load_default(11)
    labels = [found.collection.labels[i] for i in places]
    for i, place in enumerate(places):
        image = Image.fromarray(found.collection.thumbnails[place, ..., 0]).resize((_SIDE, _SIDE))
        sheet.paste(image, (left + i * _SIDE, top))
        draw.text((left, top + _SIDE + 16 + 13 * i), found.collection.names[place][-_CHARACTERS:], _INK, font)
    same = labels[0] == labels[1]
    names = [label if len(label) <= _LABEL else f"{label[: _LABEL - 1]}…" for label in labels]
    caption = f"{pair.correlation:.4f}" if same else f"{pair.correlation:.4f}  {names[0]} / {names[1]}"
    draw.text((left, top + _SIDE + 3), caption, _INK if same else _WARNING, font)
