"""Read DICOM files with pydicom: one image, or several frames."""

import dataclasses
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from jaxcnn.data.files import FileError
from jaxcnn.data.readers.intensities import between, luma, to_bytes
from jaxcnn.data.readers.scan import Scan, Slice, check_size
from jaxcnn.errors import importing

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def is_dicom(head: bytes) -> bool:
    """Tell from the first 132 bytes of a file whether it is a DICOM file, whatever its name."""
    return head[128:132] == b"DICM"


def read_dicom(encoded: bytes) -> Scan:
    """Decode a DICOM file.

    Values are rescaled as the file says (Modality LUT), then brought to grey levels by its first VOI LUT or window; a
    file without these is scaled as `jaxcnn.data.readers.intensities.to_bytes` does, all frames alike. MONOCHROME1 is
    turned over, so that dense is dark as in MONOCHROME2; colours become grey by their luma. The patient is PatientID,
    or else StudyInstanceUID, for a study is of one patient.

    Raises:
        UserError: pydicom is not installed.
        FileError: the file holds no pixels, or is compressed in a way that no installed package can read.
        Exception: any other, of pydicom: the file is no DICOM file, or is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of each value that breaks the standard.
        dataset = _open(encoded)
        frames = _decode(dataset)
    parts = ("",) if len(frames) == 1 else tuple(str(number + 1) for number in range(len(frames)))
    return Scan(tuple(map(Slice, frames, parts)), _patient(dataset))


def _open(encoded: bytes) -> Any:
    with importing("pydicom", needed_by="DICOM files", extra="dicom"):
        import pydicom
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(encoded))
        if not any(name in dataset for name in _PIXELS):
            raise FileError("is a DICOM file without pixels, such as a report or a plan; leave it out")
    return dataset


def _patient(dataset: Any) -> str:
    return str(dataset.get("PatientID") or dataset.get("StudyInstanceUID") or "").strip()


@dataclasses.dataclass(frozen=True)
class Series:
    """Slices of a DICOM series in their order in space.

    Attributes:
        pictures: rescaled values, not windowed.
        places: of the slices among the files.
        spacing: distance of the slices, height and width of a pixel, in mm; None where the files don't tell.
        patient: PatientID, or else StudyInstanceUID.
        label: SeriesNumber and SeriesDescription, as far as they are given.
    """

    pictures: Float32[np.ndarray, "n height width"]
    places: tuple[int, ...]
    spacing: tuple[float, float, float] | None
    patient: str
    label: str


def read_series(files: Sequence[bytes]) -> Series:
    """Read files of one image each as one series, ordered by position, or else by instance number.

    Raises:
        UserError, FileError: as `read_dicom`, or the images are of several sizes or in colours.
    """
    from pydicom.pixels import apply_modality_lut

    datasets = [_open(encoded) for encoded in files]
    normal = np.cross(
        *np.reshape([float(x) for x in datasets[0].get("ImageOrientationPatient", (1, 0, 0, 0, 1, 0))], (2, 3))
    )
    positions = [np.dot(normal, [float(x) for x in of.get("ImagePositionPatient", (0, 0, 0))]) for of in datasets]
    order = sorted(
        range(len(files)), key=lambda place: (positions[place], int(datasets[place].get("InstanceNumber") or 0))
    )
    for of in datasets:
        if _is_colour(of) or int(of.get("NumberOfFrames") or 1) > 1:
            raise FileError("is a DICOM file of colours or several frames; give a series of grey images")
        _decode(of)  # Which tells what is wrong with it.
    pictures = [
        np.asarray(apply_modality_lut(datasets[place].pixel_array, datasets[place]), np.float32) for place in order
    ]
    if len({picture.shape for picture in pictures}) > 1:
        raise FileError("is in a series of images of several sizes; give series of one size")
    steps = np.abs(np.diff([positions[place] for place in order]))
    between = float(np.median(steps)) if len(steps) and steps.min() > 0 else datasets[0].get("SliceThickness")
    pixel = datasets[0].get("PixelSpacing")
    spacing = (float(between), float(pixel[0]), float(pixel[1])) if between and pixel else None
    label = " ".join(str(datasets[0].get(name) or "") for name in ("SeriesNumber", "SeriesDescription")).strip()
    return Series(np.stack(pictures), tuple(order), spacing, _patient(datasets[0]), label)


def series_uid(encoded: bytes) -> str:
    """The series that a DICOM file belongs to; "" where it doesn't tell.

    Raises:
        UserError, FileError: as `read_dicom`.
    """
    return str(_open(encoded).get("SeriesInstanceUID", ""))


def _decode(dataset: Any) -> UInt8[np.ndarray, "frames height width"]:
    count = int(dataset.get("NumberOfFrames") or 1)
    height, width = int(dataset.Rows), int(dataset.Columns)
    check_size(width, height, count)
    try:
        pixels = dataset.pixel_array  # Colours come as red, green and blue.
    except Exception as error:
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_compressed:
            raise FileError(
                f"is compressed ({syntax.name}) and can't be decoded; pip install pylibjpeg pylibjpeg-libjpeg reads"
                " more kinds of compression"
            ) from error
        raise
    grey = _colour_to_grey(dataset, pixels) if _is_colour(dataset) else _intensities_to_grey(dataset, pixels)
    return grey.reshape(count, height, width)


def _is_colour(dataset: Any) -> bool:
    return dataset.SamplesPerPixel > 1 or dataset.PhotometricInterpretation == "PALETTE COLOR"


def _colour_to_grey(dataset: Any, pixels: np.ndarray) -> UInt8[np.ndarray, "*shape"]:
    from pydicom.pixels import apply_color_lut

    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)[..., :3]
    if pixels.dtype == np.uint8:
        return np.round(luma(pixels)).astype(np.uint8)
    return to_bytes(luma(pixels))


def _intensities_to_grey(dataset: Any, pixels: np.ndarray) -> UInt8[np.ndarray, "*shape"]:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values = apply_modality_lut(pixels, dataset)
    if dataset.get("VOILUTSequence"):
        top = 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
        grey = between(apply_voi_lut(values, dataset), 0, top)
    elif _has_window(dataset):
        # What lies below and above any window shows which values stand for black and white.
        low, high = apply_voi_lut(np.array([-1e30, 1e30]), dataset)
        grey = between(apply_voi_lut(values, dataset), low, high)
    else:
        grey = to_bytes(values)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def _has_window(dataset: Any) -> bool:
    """Whether there is a window, and the standard lets it be used: it must be at least one level wide."""
    width, centre = dataset.get("WindowWidth"), dataset.get("WindowCenter")
    # A file may hold several; the first is used.
    return width is not None and centre is not None and float(np.ravel(width)[0]) > 1
