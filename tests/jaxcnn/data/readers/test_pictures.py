"""A picture becomes the grey image that Pillow makes of it, or the one its numbers say; what is no good is refused."""

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from scan_files import encoded

from jaxcnn.data.files import FileError
from jaxcnn.data.image import to_square
from jaxcnn.data.readers.intensities import to_bytes
from jaxcnn.data.readers.pictures import FORMATS, read_picture
from jaxcnn.data.readers.scan import MIN_SIDE
from jaxcnn.data.readers.table import READERS, read_scan

EXIF_ORIENTATION = 274
# What brings an image that was stored with an EXIF orientation back (EXIF 2.3, table 6).
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def noise(*shape: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True))


def decode(content: bytes, size: int | None = None) -> np.ndarray:
    (of,) = read_picture(content).slices
    return of.pixels if size is None else to_square(of.pixels, size)


def png(channels: np.ndarray, color_type: int) -> bytes:
    """A PNG of 16 bits a channel; Pillow writes no colours of 16 bits."""
    height, width, _ = channels.shape

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    # The first byte of a row names its filter; 2 is the difference to the row above.
    rows = channels.astype(">u2").reshape(height, -1).view(np.uint8)
    lines = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    data = b"".join(b"\x02" + line.tobytes() for line in lines)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("shape", [(50, 70), (50, 70, 3), (16, 300, 3)])
def test_a_grey_square_as_pillow_makes_it(shape: tuple[int, ...], file_format: str) -> None:
    content = encoded(noise(*shape), file_format)
    image = Image.open(io.BytesIO(content))
    if file_format == "JPEG" and len(shape) == 3:
        # It holds luma and chroma apart from each other.
        image.draft("YCbCr", None)
        image = image.getchannel("Y")
    expected = image.convert("L").resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode(content, 32), np.asarray(expected)[..., None])


@pytest.mark.parametrize(
    "options", [{}, {"quality": 30}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}]
)
def test_the_luma_that_a_jpeg_stores_is_that_of_its_colours(options: dict[str, Any]) -> None:
    saturated = noise(8, 8, 3).resize((64, 48), Image.Resampling.BICUBIC)
    pale = saturated.point(lambda value: 64 + value // 2)
    for image, most in ((pale, 0), (saturated.convert("L").convert("RGB"), 0), (saturated, 15)):
        content = encoded(image, "JPEG", **options)
        by_colours = np.asarray(Image.open(io.BytesIO(content)).convert("L"), int)
        assert np.abs(decode(content) - by_colours).max() <= most


def test_an_image_of_the_wanted_size_keeps_its_pixels() -> None:
    image = noise(32, 32)
    np.testing.assert_array_equal(decode(encoded(image), 32)[..., 0], np.asarray(image))


def test_the_reduction_is_antialiased() -> None:
    # Stripes finer than the result average to grey; picking single pixels would keep them.
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))
    reduced = decode(encoded(Image.fromarray(stripes)), 32)
    assert np.all(np.abs(reduced.astype(int) - 127) < 10)


def test_palettes_cmyk_and_single_bits_are_what_pillow_says() -> None:
    colours = noise(40, 50, 3)
    for image, file_format in [
        (colours.quantize(20), "PNG"),
        (colours.convert("CMYK"), "JPEG"),
        (colours.convert("CMYK"), "TIFF"),
        (colours.convert("1"), "PNG"),
    ]:
        content = encoded(image, file_format)
        np.testing.assert_array_equal(decode(content), np.asarray(Image.open(io.BytesIO(content)).convert("L")))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(orientation: int, file_format: str) -> None:
    """Stored turned and marked so, it comes back as it was; by the standard's table, not by Pillow's."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    # Blocks of one colour survive JPEG, if they are turned with the grid of its blocks.
    stored = Image.fromarray(np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 50, np.ones((16, 16), np.uint8)))
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(stored.convert("RGB"), file_format, exif=exif, **options)
    turned = stored if orientation == 1 else stored.transpose(BACK[orientation])
    np.testing.assert_allclose(decode(content).astype(int), np.asarray(turned).astype(int), atol=2)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L"])
def test_what_is_transparent_is_black_whatever_colour_is_hidden_there(mode: str) -> None:
    grey = np.asarray(noise(40, 40)) // 2 + 60
    outside = np.zeros((40, 40), bool)
    outside[:10] = True
    hidden = np.where(outside, 255, grey).astype(np.uint8)
    alpha = Image.fromarray(np.where(outside, 0, 255).astype(np.uint8))
    if mode in ("P", "L"):  # A grey level, or an entry of the palette, stands for what is transparent.
        image = Image.fromarray(hidden)
        content = encoded(image.convert("P") if mode == "P" else image, transparency=255)
    else:
        image = Image.fromarray(hidden).convert(mode)
        image.putalpha(alpha)
        content = encoded(image)
    np.testing.assert_array_equal(decode(content), np.where(outside, 0, grey))


def test_half_transparent_is_half_as_bright() -> None:
    image = Image.new("LA", (20, 20), (200, 128))
    assert (np.abs(decode(encoded(image)).astype(int) - 100) <= 1).all()


@pytest.mark.parametrize(("file_format", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.float32)])
def test_16_bits_and_floats_are_scaled_by_percentiles(file_format: str, dtype: type) -> None:
    values = (np.random.default_rng(0).normal(1000, 100, (80, 90))).astype(dtype)
    values[3, 4] = 60_000  # One pixel that is too bright must not darken all else.
    found = decode(encoded(Image.fromarray(values), file_format)).astype(int)
    low, high = np.percentile(values, [0.5, 99.5])
    np.testing.assert_allclose(found, 255 * np.clip((values - low) / (high - low), 0, 1), atol=0.51)
    assert found.min() == 0
    assert found.max() == 255


@pytest.mark.parametrize(
    ("color_type", "channels"), [(2, 3), (4, 2), (6, 4)], ids=["colours", "grey, alpha", "colours, alpha"]
)
def test_a_png_of_16_bits_a_channel_keeps_its_lower_bits(color_type: int, channels: int) -> None:
    """Pillow opens all but plain grey as 8 bits, so that a scan that uses 12 would be black."""
    values = np.random.default_rng(0).integers(0, 4096, (40, 50, channels)).astype(np.uint16)
    grey = values[..., :3] @ np.array([0.299, 0.587, 0.114]) if channels >= 3 else values[..., 0].astype(float)
    if channels in (2, 4):
        values[..., -1] = np.random.default_rng(1).integers(0, 65536, (40, 50))
        grey = grey * values[..., -1] / 65535
    found = decode(png(values, color_type))
    np.testing.assert_allclose(found.astype(int), to_bytes(grey).astype(int), atol=1)


def test_intensities_without_a_range_are_black_or_two_levels() -> None:
    assert (to_bytes(np.full((30, 30), 700)) == 0).all()
    few = np.zeros((30, 30))
    few[0, 0] = 5.0  # Fewer than the percentiles look at.
    np.testing.assert_array_equal(np.unique(to_bytes(few)), [0, 255])
    few[1] = np.nan
    assert (to_bytes(few)[1] == 0).all()
    assert (to_bytes(np.full((30, 30), np.nan)) == 0).all()


def test_each_page_of_a_tiff_is_a_slice() -> None:
    pages = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (10, 20, 30)]
    slices = read_picture(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])).slices
    assert [of.part for of in slices] == ["1", "2", "3"]
    assert [int(of.pixels.mean()) for of in slices] == [10, 20, 30]


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_image_is_taken(file_format: str) -> None:
    frames = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (10, 200)]
    content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
    assert (decode(content) == 10).all()


def test_a_long_text_and_a_large_profile_are_no_reason_to_refuse_a_picture() -> None:
    image = noise(30, 40)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("note", "x" * 2_000_000, zip=True)
    for content in (encoded(image, pnginfo=notes), encoded(image, icc_profile=bytes(3_000_000))):
        np.testing.assert_array_equal(decode(content), np.asarray(image))


@pytest.mark.real_data
def test_the_pictures_that_were_reported_are_one_picture(shared: Path) -> None:
    images = shared / "inputs/images"
    upright = decode((images / "upright.jpg").read_bytes()).astype(int)
    for name in ("exif6.jpg", "big-profile.png", "long-text.png", "alpha-only.png"):
        assert np.abs(decode((images / name).read_bytes()) - upright).mean() < 2, name
    cut_out = decode((images / "transparent-white-background.png").read_bytes())
    assert np.abs(cut_out - np.where(upright > 10, upright, 0)).mean() < 2


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_jpeg_is_damaged(kept: float) -> None:
    content = encoded(noise(64, 64), "JPEG")
    with pytest.raises(ValueError, match="is not a JPEG file, or is damaged"):
        read_scan(content[: int(kept * len(content))], READERS[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not an image", "is not a JPEG, PNG, TIFF, BMP or WEBP image"),
        (encoded(noise(64, 64), "GIF"), "is not a JPEG, PNG, TIFF, BMP or WEBP image"),
        (encoded(noise(MIN_SIDE - 1, 64)), "is too small: 64x15 pixels"),
    ],
)
def test_what_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_scan(content, READERS[0])


# Below Pillow's own limits, between its warning and its error, and above its error.
@pytest.mark.parametrize("side", [8_100, 10_000, 13_500])
def test_a_decompression_bomb_is_not_decoded(side: int) -> None:
    with pytest.raises(ValueError, match=r"is too large: .*64 megapixels"):
        decode(encoded(Image.new("1", (side, side))))


def test_stderr_is_still_there_after_several_threads_have_read_at_once() -> None:
    before = os.fstat(2)
    content = encoded(noise(700, 700), "TIFF", compression="tiff_lzw")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [content] * 40))
    assert os.path.samestat(os.fstat(2), before)


@pytest.mark.parametrize("file_format", FORMATS)
def test_whatever_is_damaged_is_told_in_words_and_by_nobody_else(
    file_format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Libtiff would write to stderr itself."""
    random = np.random.default_rng(0)
    whole = encoded(noise(40, 50, 3), file_format, **({"compression": "tiff_lzw"} if file_format == "TIFF" else {}))
    (reader,) = (of for of in READERS if of.format.upper() == file_format)
    reasons = []
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(whole), 600), 4):
            damaged[place] = random.integers(0, 256)
        try:
            read_scan(bytes(damaged), reader)
        except FileError as error:
            reasons.append(str(error))
    assert reasons
    assert all(reason.startswith(("is ", "has ")) for reason in reasons)
    assert capfd.readouterr() == ("", "")
