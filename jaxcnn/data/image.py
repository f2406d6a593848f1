"""From an image file to a small grey square, the same way for a data set and for a single file to classify."""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Pillow knows dozens of formats; some of them start other programs, and TIFF prints its complaints itself.
_FORMATS = ("JPEG", "PNG")
# By these names images are found among other files, which are taken for notes.
SUFFIXES = (".jpg", ".jpeg", ".png")
# Where a PNG has its bits a channel: after the signature, the first chunk's length and name, width and height.
_PNG_BIT_DEPTH = 24
MAX_PIXELS = 64_000_000
MIN_SIDE = 16


def decode_grey(encoded: bytes, size: int) -> UInt8[np.ndarray, "{size} {size} 1"]:
    """Decode an image file, turn it grey and resize it to a square.

    Grey is Pillow's "L" (ITU-R 601-2 luma). The resampling is Pillow's BILINEAR: a triangle filter as wide as the
    reduction, hence antialiased; unlike BOX it stays smooth where a small image grows, and unlike BICUBIC and LANCZOS
    it does not overshoot at the bright edge of a skull. The aspect ratio is not kept, as in the reference.

    Args:
        encoded: the bytes of the file.
        size: side of the square, in pixels.

    Raises:
        ValueError: the file is no image, is damaged, too large, too small or has more than 8 bits a channel. The
            message continues a sentence that begins with the file's name.
    """
    if not encoded:
        raise ValueError("is empty")
    with warnings.catch_warnings():
        # Pillow warns of harmless oddities (metadata, palettes), but of a decompression bomb too.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
                _check_header(image, encoded)
                grey = image.convert("L")
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(f"is too large: more than {MAX_PIXELS // 10**6} megapixels") from error
        except Image.UnidentifiedImageError as error:
            raise ValueError(f"is no {' or '.join(_FORMATS)} image") from error
        except (OSError, SyntaxError) as error:  # SyntaxError is what Pillow makes of a damaged PNG.
            raise ValueError(f"is a damaged image ({error})") from error
    return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))[..., np.newaxis]


def pixel_size(encoded: bytes) -> tuple[int, int]:
    """Width and height of an image file that `decode_grey` takes; only its header is read."""
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
        return image.size


def _check_header(image: Image.Image, encoded: bytes) -> None:
    """Refuse what must not be decoded; only the header has been read so far."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"is too large: {width}x{height} pixels, more than {MAX_PIXELS // 10**6} megapixels")
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"is too small: {width}x{height} pixels, less than {MIN_SIDE} on a side")
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow's conversion to "L" would cut every value above 255 down to white.
        raise ValueError(f"has more than 8 bits a pixel (Pillow mode {image.mode}); convert it to 8 bits first")
    if image.format == "PNG" and encoded[_PNG_BIT_DEPTH] > 8:
        # Pillow opens it as 8 bits by leaving out the lower ones: a scan that uses 12 bits would turn black.
        raise ValueError(f"has {encoded[_PNG_BIT_DEPTH]} bits a channel, more than 8; convert it to 8 bits first")
