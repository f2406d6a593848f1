"""Scans, zips, tables and stacks with anything changed in them: what is read is sound, or one line says what is wrong.

`make fuzz` tries many times as much.
"""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import MANY, mutated, read_or_refused
from PIL import Image
from scan_files import dicom_bytes, encoded, write_matlab, write_nifti

from jaxcnn.data.files import FileError
from jaxcnn.data.labelled import read_images
from jaxcnn.data.layouts import open_labelled
from jaxcnn.data.readers.scan import MIN_SIDE
from jaxcnn.data.readers.table import READERS, read_scan
from jaxcnn.data.slices import load_slices
from jaxcnn.errors import UserError

pytestmark = pytest.mark.fuzz

GREY = np.random.default_rng(0).integers(0, 256, (24, 20), np.uint8)
DEEP, IMAGE = GREY.astype(np.uint16) * 17, Image.fromarray(GREY)
PNG = encoded(IMAGE)


def scans(folder):
    """By format, files of all its kinds."""
    volume = np.tile(DEEP[..., None], 5)
    several = {"save_all": True, "append_images": [IMAGE]}
    return {
        "JPEG": [encoded(IMAGE, "JPEG"), encoded(IMAGE.convert("RGB"), "JPEG", progressive=True)],
        "PNG": [PNG, encoded(Image.fromarray(DEEP)), encoded(IMAGE.convert("LA")), encoded(IMAGE.convert("P"))],
        "TIFF": [encoded(IMAGE, "TIFF", **several), encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF")]
        + [encoded(IMAGE, "TIFF", compression=f"tiff_{kind}") for kind in ("lzw", "adobe_deflate")],
        "BMP": [encoded(IMAGE, "BMP"), encoded(IMAGE.convert("RGB"), "BMP")],
        "WebP": [encoded(IMAGE, "WEBP"), encoded(IMAGE, "WEBP", lossless=True)],
        "DICOM": [
            dicom_bytes(DEEP, PatientID="p"),
            dicom_bytes(np.stack([DEEP, DEEP])),
            dicom_bytes(DEEP, WindowWidth="200", WindowCenter="100", RescaleSlope="2", RescaleIntercept="-5"),
        ],
        "NIfTI": [write_nifti(folder / name, volume).read_bytes() for name in ("a.nii", "a.nii.gz")],
        "MATLAB": [write_matlab(folder / "1.mat", GREY.astype(np.int16), 2, "p").read_bytes()],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


@pytest.fixture(scope="module")
def files(folder):
    return scans(folder)


@pytest.mark.parametrize("reader", READERS, ids=[reader.format for reader in READERS])
@MANY
@given(data=st.data())
def test_scans(files, reader, data):
    content = data.draw(mutated(*files[reader.format]))
    scan, refused = read_or_refused(lambda: read_scan(content, reader), FileError)
    assert refused or scan.slices
    for of in () if refused else scan.slices:
        assert of.pixels.dtype == np.uint8
        assert min(of.pixels.shape) >= MIN_SIDE


def zipped(compression):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as archive:
        for name in ("glioma/ä.png", "normal/b.png", "notes.txt"):
            archive.writestr(name, PNG)
    return written.getvalue()


ZIPS = [zipped(kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]
TABLES = [
    b'path,label,split,patient\na 1.png,x,train,p1\n"b,2.png",y,test,p2\nc.png,x,val,\n',
    b"label;path\nx;c.png\ny;sub\\d.png\n",
    'path\tlabel\nc.png\t"gliöma"\n'.encode(),
]


def use_source(path, content):
    """Read all that a folder or zip gives; a message names the source."""
    path.write_bytes(content)

    def read():
        with open_labelled(path) as listing:
            return read_images(listing, 16)

    found, refused = read_or_refused(read, UserError)
    images, broken = found or ((), ())
    assert images or broken or refused.startswith(f"{path}: ")
    assert all((of.name + of.label).isprintable() for of in images)
    assert all((of.name + of.reason).isprintable() for of in broken)


@MANY
@given(content=mutated(*ZIPS))
def test_zips(folder, content):
    use_source(folder / "scans.zip", content)


@MANY
@given(content=mutated(*TABLES))
def test_tables(folder, content):
    table = folder / "table" / "labels.csv"
    for name in ("a 1.png", "b,2.png", "c.png", "sub/d.png"):
        (table.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (table.parent / name).write_bytes(PNG)
    use_source(table, content)


def stacked(save):
    written = io.BytesIO()
    save(written, images=np.stack([GREY, GREY])[..., None].repeat(3, 3), masks=np.stack([GREY, GREY]) > 99)
    return written.getvalue()


@MANY
@given(content=mutated(stacked(np.savez), stacked(np.savez_compressed)))
def test_stacks(folder, content):
    path = folder / "stack.npz"
    path.write_bytes(content)
    slices, refused = read_or_refused(lambda: load_slices(path), UserError)
    assert refused.startswith(f"{path}: ") if refused else len(slices.images) == len(slices.patients)
