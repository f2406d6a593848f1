"""Build prepared data sets with TFDS, in ArrayRecord files and without TensorFlow."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.writer import ExampleWriter
from tensorflow_datasets.proto import tf_example_pb2

from jaxcnn.data.dataset import Dataset, Split
from jaxcnn.data.kaggle import PAGE

# Part of the path on the disk. A change of the decoding or of the features must change it.
VERSION = "2.0.0"
_RELEASE_NOTES = {
    "2.0.0": "The luma of a JPEG is the stored one. Only saturated colours give another one than before.",
    "1.0.0": "The first.",
}


class LabelledScans(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Grey images with labels, all of one size, which names the configuration.

        LabelledScans(dataset=dataset, data_dir=Path("data")).download_and_prepare()

    What it writes is read without this class: `tfds.data_source("labelled_scans/128x128", data_dir="data")`. It isn't
    registered with TFDS, so that this call always takes what is on the disk.

    Features: image (PNG), label (in the order of the data set's classes), file_name, and patient ("" where it isn't
    known). Splits: those of the data set. The same images give the same files, byte for byte (under the same versions
    of Pillow and array-record).
    """

    VERSION = tfds.core.Version(VERSION)
    RELEASE_NOTES = _RELEASE_NOTES
    description = "Labelled scans; 8-bit grey, resized with an antialiased triangle filter."
    homepage: str | None = None
    names_patients = True

    def __init__(self, *, dataset: Dataset, data_dir: Path) -> None:
        """Prepare nothing yet; the data set will appear in labelled_scans/128x128/2.0.0 under `data_dir`."""
        self._dataset = dataset
        self._size = next(iter(dataset.splits.values())).images.shape[1]
        config = tfds.core.BuilderConfig(
            name=f"{self._size}x{self._size}", description=f"Images of {self._size}x{self._size} pixels."
        )
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return _LocalInfo(
            builder=self,
            description=self.description,
            homepage=self.homepage,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(self._size, self._size, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=self._dataset.classes),
                    "file_name": tfds.features.Text(),
                    **({"patient": tfds.features.Text()} if self.names_patients else {}),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterable[Any]]:
        del dl_manager  # The images are in memory already.
        return {name: self._generate_examples(split) for name, split in self._dataset.splits.items()}

    def _generate_examples(self, split: Split) -> Iterable[tuple[int, dict[str, Any]]]:
        for place in range(len(split)):
            png = io.BytesIO()
            Image.fromarray(split.images[place, ..., 0]).save(png, "PNG")
            png.seek(0)
            # TFDS takes a file of PNG bytes as it is; to encode an array it would import TensorFlow.
            example = {"image": png, "label": int(split.labels[place]), "file_name": split.names[place]}
            if self.names_patients:
                example["patient"] = split.patients[place] if split.patients else ""
            yield place, example

    def _example_writer(self) -> ExampleWriter:
        return _ReproducibleWriter(self.info.file_format)


class BrainTumorMri(LabelledScans, skip_registration=True):  # type: ignore[call-arg]
    """The public Kaggle archive, in brain_tumor_mri/128x128/2.0.0; see `jaxcnn.data.kaggle`.

    Its splits are train and test; the archive names no patients, and so these files don't, either.
    """

    description = "Brain MRI slices of four classes; 8-bit grey, resized with an antialiased triangle filter."
    homepage = PAGE
    names_patients = False


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
