"""An image file becomes the same grey square that Pillow makes of it, and whatever is no good is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.image import MIN_SIDE, decode_grey


def encode(image: Image.Image, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def noise(*shape: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True))


def png(side: int, bits: int, color_type: int) -> bytes:
    """A black square as PNG; Pillow writes no colours of 16 bits."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", side, side, bits, color_type, 0, 0, 0)
    rows = bytes(side * (1 + side * channels * bits // 8))  # the first byte of a row names its filter
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3), (16, 300, 3)])
def test_a_grey_square_as_pillow_makes_it(shape: tuple[int, ...], file_format: str) -> None:
    encoded = encode(noise(*shape), file_format)
    expected = Image.open(io.BytesIO(encoded)).convert("L").resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode_grey(encoded, 32), np.asarray(expected)[..., None])


def test_an_image_of_the_wanted_size_keeps_its_pixels() -> None:
    image = noise(32, 32)
    np.testing.assert_array_equal(decode_grey(encode(image), 32)[..., 0], np.asarray(image))


def test_the_reduction_is_antialiased() -> None:
    # Stripes finer than the result average to grey; picking single pixels would keep them.
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))
    reduced = decode_grey(encode(Image.fromarray(stripes)), 32)
    assert np.all(np.abs(reduced.astype(int) - 127) < 10)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_jpeg_is_damaged(kept: float) -> None:
    encoded = encode(noise(64, 64), "JPEG")
    with pytest.raises(ValueError, match="is a damaged image"):
        decode_grey(encoded[: int(kept * len(encoded))], 32)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "is empty"),
        (b"not an image", "is no JPEG or PNG image"),
        (encode(noise(64, 64), "GIF"), "is no JPEG or PNG image"),
        (encode(noise(MIN_SIDE - 1, 64)), "is too small: 64x15 pixels"),
        (encode(noise(64, 64, dtype=np.uint16)), "more than 8 bits a pixel"),
    ],
)
def test_what_is_refused(encoded: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_grey(encoded, 32)


@pytest.mark.parametrize("color_type", [0, 2, 4, 6], ids=["grey", "colours", "grey, alpha", "colours, alpha"])
def test_a_png_of_16_bits_is_refused_whatever_its_colours(color_type: int) -> None:
    """Pillow opens all but plain grey as 8 bits, so that a scan of 12 bits would turn black."""
    np.testing.assert_array_equal(decode_grey(png(20, 8, color_type), 20), np.zeros((20, 20, 1), np.uint8))
    with pytest.raises(ValueError, match=r"more than 8.*; convert it to 8 bits first"):
        decode_grey(png(20, 16, color_type), 20)


# Below Pillow's own limits, between its warning and its error, and above its error.
@pytest.mark.parametrize("side", [8_100, 10_000, 13_500])
def test_a_decompression_bomb_is_not_decoded(side: int) -> None:
    bomb = encode(Image.new("1", (side, side)))
    with pytest.raises(ValueError, match=r"is too large: .*64 megapixels"):
        decode_grey(bomb, 32)
