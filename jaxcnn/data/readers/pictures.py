"""Read JPEG, PNG, TIFF, BMP and WebP with Pillow."""

import contextlib
import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, ImageSequence

from jaxcnn.data.files import FileError
from jaxcnn.data.readers.intensities import luma, to_bytes
from jaxcnn.data.readers.scan import MAX_PIXELS, Scan, Slice, check_size

# Pillow knows dozens of formats; some of them start other programs.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Where a PNG has its bits a channel: after the signature, the first chunk's length and name, width and height.
_PNG_BIT_DEPTH = 24
_PNG_NOTES = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
# Pillow's names for grey of more than 8 bits.
_WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_TIFF_BITS_PER_SAMPLE, _EXIF_ORIENTATION = 258, 274


def read_picture(encoded: bytes) -> Scan:
    """Decode a picture and convert it to grey; a TIFF of several pages gives one slice per page.

    - It is turned as its EXIF orientation says, so that it lies as viewers show it.
    - What is transparent is shown on black.
    - 8 bits: grey is the luma of ITU-R 601-2, Pillow's "L", of CMYK and palettes as well. Of a JPEG it is the
      luma that the file stores, which is the same but where colours are saturated.
    - 16 bits and floats: the luma, scaled as `jaxcnn.data.readers.intensities.to_bytes` does.
    - Of an animation the first image is taken. Colour profiles are ignored.

    Raises:
        FileError: the file is no such picture, is too large or too small.
        Exception: any other, of Pillow: the file is damaged.
    """
    with warnings.catch_warnings():
        # Pillow warns of harmless oddities (metadata, palettes), but of a decompression bomb too.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            encoded = _without_notes(encoded)
            with _quiet_libtiff(encoded), Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                slices = tuple(_slices(image, encoded))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise FileError(f"is too large: more than {MAX_PIXELS // 10**6} megapixels") from error
        except Image.UnidentifiedImageError as error:
            raise FileError(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from error
    return Scan(slices)


# A server reads several files at once.
_STDERR = threading.Lock()


@contextlib.contextmanager
def _quiet_libtiff(encoded: bytes) -> Iterator[None]:
    """Keep libtiff from writing of a damaged TIFF to stderr itself; the error that is raised says it once."""
    if encoded[:2] not in (b"II", b"MM"):
        yield
        return
    with _STDERR, contextlib.ExitStack() as stack, open(os.devnull, "w", encoding="utf-8") as nowhere:
        stderr = os.dup(2)
        stack.callback(os.close, stderr)
        stack.callback(os.dup2, stderr, 2)
        os.dup2(nowhere.fileno(), 2)
        yield


def _slices(image: Image.Image, encoded: bytes) -> Iterator[Slice]:
    check_size(*image.size, getattr(image, "n_frames", 1) if image.format == "TIFF" else 1)
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        for number, page in enumerate(ImageSequence.Iterator(image), 1):
            check_size(*page.size)
            yield Slice(_grey(page, encoded), str(number))
    else:
        yield Slice(_grey(image, encoded))


def _grey(image: Image.Image, encoded: bytes) -> UInt8[np.ndarray, "height width"]:
    if image.format == "PNG" and encoded[_PNG_BIT_DEPTH] > 8 and image.mode not in _WIDE_MODES:
        return to_bytes(_upright(_wide_png(encoded), image))
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA", "CMYK"):
        bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        if max(bits) > 8:
            # Pillow leaves out the lower 8 bits: a scan that uses 12 would turn black.
            raise FileError("has several channels of 16 bits; save it as grey, or with 8 bits")
    if image.mode in _WIDE_MODES:
        return to_bytes(np.asarray(ImageOps.exif_transpose(image)))
    # A JPEG holds its luma by itself: the colours, half of the work, aren't decoded.
    image.draft("L", None)
    return np.asarray(shown_upright(image).convert("L"))


def shown_upright(image: Image.Image) -> Image.Image:
    """An image of 8 bits as viewers show it: turned as its EXIF orientation says, on black where it is transparent."""
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright
    return Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright.convert("RGBA"))


def _wide_png(encoded: bytes) -> Float32[np.ndarray, "height width"]:
    """The luma of a PNG of 16 bits a channel that isn't plain grey, on black, from 0 to 65535.

    Pillow opens it as 8 bits by leaving out the lower ones: a scan that uses 12 bits would turn black. Told to take the
    bytes for others, it gives the lower ones as well.
    """

    def unpacked(layout: str = "") -> Float32[np.ndarray, "height width channels"]:
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as image:
            image.tile = [tile._replace(args=layout or tile.args) for tile in image.tile]
            return np.asarray(image).astype(np.float32)

    with Image.open(io.BytesIO(encoded), formats=["PNG"]) as image:
        (layout,) = (str(tile.args) for tile in image.tile)
    if layout == "LA;16B":
        high, low, alpha_high, alpha_low = np.moveaxis(unpacked("RGBA"), -1, 0)
        return (256 * high + low) * (256 * alpha_high + alpha_low) / 65535
    channels = 256 * unpacked() + unpacked(layout.replace(";16B", ";16L"))
    grey = luma(channels[..., :3])
    return grey * channels[..., 3] / 65535 if channels.shape[2] == 4 else grey


def _upright(values: Float32[np.ndarray, "height width"], image: Image.Image) -> Float32[np.ndarray, "rows columns"]:
    """The values turned as the EXIF orientation of the image says."""
    turned = Image.fromarray(values)
    turned.getexif()[_EXIF_ORIENTATION] = image.getexif().get(_EXIF_ORIENTATION, 1)
    return np.asarray(ImageOps.exif_transpose(turned))


def _without_notes(encoded: bytes) -> bytes:
    """A PNG without its colour profile and its texts, which Pillow refuses where they are long; others as they are.

    What follows a chunk that is cut off stays, so that a damaged file is told as Pillow tells it.
    """
    if not encoded.startswith(_PNG_SIGNATURE):
        return encoded
    kept, start = [encoded[:8]], 8
    while start + 12 <= len(encoded):
        length, name = struct.unpack_from(">I4s", encoded, start)
        if start + 12 + length > len(encoded):
            break
        if name not in _PNG_NOTES:
            kept.append(encoded[start : start + 12 + length])
        start += 12 + length
    return b"".join([*kept, encoded[start:]])
