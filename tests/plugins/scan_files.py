"""Files of every format that is read, small and made here."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, pixels: np.ndarray, file_format: str | None = None, **options: object) -> Path:
    """By Pillow; the suffix chooses the format unless it is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jfif":
        file_format = "JPEG"
    Image.fromarray(pixels).save(path, file_format, **options)
    return path


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def dicom_bytes(pixels: np.ndarray, **elements: object) -> bytes:
    """An MR image of 16 bits, or its frames; `elements` are set in the data set, None takes one away."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset = FileDataset(buffer, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.PixelData = pixels.astype("<i2" if pixels.dtype.kind == "i" else "<u2").tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write_dicom(path: Path, pixels: np.ndarray, **elements: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom_bytes(pixels, **elements))
    return path


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray | None = None) -> Path:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4) if affine is None else affine), path)
    return path


def write_matlab(path: Path, pixels: np.ndarray, label: int, patient: str, **others: np.ndarray) -> Path:
    """As MATLAB writes Figshare's files with -v7.3: HDF5 behind a header of 512 bytes, columns one after the other."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("cjdata")
        group.create_dataset("image", data=pixels.T)
        group.create_dataset("label", data=np.array([[float(label)]]))
        name = group.create_dataset("PID", data=np.array([[ord(letter)] for letter in patient], np.uint16))
        name.attrs["MATLAB_class"] = np.bytes_("char")
        for key, value in others.items():
            group.create_dataset(key, data=value)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + path.read_bytes()[512:])
    return path
