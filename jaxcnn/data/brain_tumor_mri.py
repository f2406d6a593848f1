"""The TFDS builder of the Kaggle data set, in ArrayRecord files and without TensorFlow."""

import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.writer import ExampleWriter
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from jaxcnn.data.archive import Scan, open_archive
from jaxcnn.data.dataset import CLASSES, SplitName
from jaxcnn.data.image import decode_grey
from jaxcnn.errors import UserError

# Part of the path on the disk. A change of the decoding or of the features must change it.
VERSION = "1.0.0"
# A data set is used from memory, and TFDS needs TensorFlow to write a split of more than 1,048 MB.
MAX_MEGABYTES = 1000

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class BrokenFile:
    """A file that is no usable image; `name` and `reason` make a sentence."""

    name: str
    reason: str


class BrainTumorMri(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Grey brain slices with and without a tumour, resized to a square; the image size names the configuration.

        BrainTumorMri(source=Path("archive.zip"), data_dir=Path("data")).download_and_prepare()

    What it writes is read without this class: `tfds.data_source("brain_tumor_mri/128x128", data_dir="data")`. It isn't
    registered with TFDS, so that this call always takes what is on the disk.

    Features: image (PNG), label (0 to 3, in the order of `CLASSES`), file_name ("Training/glioma_tumor/gg (1).jpg").
    Splits: train and test, by class and then by name. The same images give the same files, byte for byte (under the
    same versions of Pillow and array-record).

    Attributes:
        left_out: the broken files, known once prepared; empty unless `skip_broken`.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, source: Path, size: int = 128, skip_broken: bool = False, data_dir: Path) -> None:
        """Prepare nothing yet.

        Args:
            source: the zip, its extracted folder, or another one of that layout; see `open_archive`.
            size: side of the images, in pixels.
            skip_broken: leave broken files out, instead of refusing the whole.
            data_dir: the data set appears in brain_tumor_mri/128x128/1.0.0 under it.
        """
        self._source = source
        self._size = size
        self._skip_broken = skip_broken
        self.left_out: list[BrokenFile] = []
        config = tfds.core.BuilderConfig(name=f"{size}x{size}", description=f"Images of {size}x{size} pixels.")
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return _LocalInfo(
            builder=self,
            description="Brain MRI slices of four classes; 8-bit grey, resized with an antialiased triangle filter.",
            homepage="https://www.kaggle.com/datasets/bilalakgz/brain-tumor-mri-dataset",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(self._size, self._size, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[SplitName, Iterable[Any]]:
        del dl_manager  # The archive is on the disk already.
        # Both splits are decoded before anything is written, so that one pass finds every broken file. TFDS holds the
        # PNG bytes (8 kB an image) in memory anyway.
        with open_archive(self._source) as scans:
            _check_total_size(scans, self._size)
            examples = self._decode(scans)
        if self.left_out and not self._skip_broken:
            raise UserError(f"{self._source}: {_summary(self.left_out)}")
        _check_classes(self._source, examples)
        return {split: self._generate_examples(found) for split, found in examples.items()}

    def _generate_examples(self, examples: list[Example]) -> Iterable[tuple[int, Example]]:
        return enumerate(examples)

    def _decode(self, scans: list[Scan]) -> dict[SplitName, list[Example]]:
        examples: dict[SplitName, list[Example]] = {"train": [], "test": []}
        for scan in tqdm(scans, unit=" images", disable=None):  # None: on a terminal only.
            try:
                examples[scan.split].append(_example(scan, self._size))
            except ValueError as error:
                self.left_out.append(BrokenFile(scan.name, str(error)))
        return examples

    def _example_writer(self) -> ExampleWriter:
        return _ReproducibleWriter(self.info.file_format)


def _example(scan: Scan, size: int) -> Example:
    png = io.BytesIO()
    Image.fromarray(decode_grey(scan.read(), size)[..., 0]).save(png, "PNG")
    png.seek(0)
    # TFDS takes a file of PNG bytes as it is; to encode an array it would import TensorFlow.
    return {"image": png, "label": scan.label, "file_name": scan.name}


def _check_total_size(scans: list[Scan], size: int) -> None:
    megabytes = len(scans) * size**2 // 10**6
    if megabytes > MAX_MEGABYTES:
        raise UserError(
            f"--size {size}: {len(scans)} images of {size}x{size} pixels are {megabytes} MB, more than the"
            f" {MAX_MEGABYTES} MB that fit into memory; choose a smaller size"
        )


def _summary(broken: list[BrokenFile]) -> str:
    first = f"{broken[0].name} {broken[0].reason}"
    if len(broken) == 1:
        return f"{first}; --skip-broken leaves it out"
    return f"{first}, and {len(broken) - 1} more files are broken; --skip-broken leaves them out and lists them"


def _check_classes(source: Path, examples: dict[SplitName, list[Example]]) -> None:
    for split, found in examples.items():
        for label in sorted(set(range(len(CLASSES))) - {example["label"] for example in found}):
            raise UserError(f"{source}: no usable image of {CLASSES[label]} is left in the {split} split")


class _LocalInfo(tfds.core.DatasetInfo):
    """What is known of the data set without asking Google's bucket."""

    def initialize_from_bucket(self) -> None:
        """Do nothing: TFDS would look for published statistics, and leave an empty folder in /tmp even offline."""


class _ReproducibleWriter(ExampleWriter):
    """Files that depend on the examples alone, and failures that say what the operating system said."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        try:
            return super().write(path, ((key, _canonical(example)) for key, example in examples))
        except RuntimeError as error:
            # The only kind that array-record knows: "write() failed: No space left on device; writing ..."
            raise OSError(str(error).partition(";")[0]) from error


def _canonical(example: bytes) -> bytes:
    # The features of a tf.Example are a map, which protobuf writes in a random order unless asked not to.
    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)
