"""From the Kaggle archive to a data set that training reads: all of it appears, or nothing."""

import contextlib
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from jaxcnn.data.brain_tumor_mri import VERSION, BrainTumorMri, BrokenFile
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.image import MIN_SIDE
from jaxcnn.data.load import DATA_SET, load_dataset
from jaxcnn.errors import UserError
from jaxcnn.runs.files import replace_folder, temporary_neighbour


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Where the data set is, what was read back from there, and which files it does without."""

    folder: Path
    dataset: Dataset
    left_out: tuple[BrokenFile, ...]


def prepare(
    source: Path, out: Path, *, size: int = 128, skip_broken: bool = False, overwrite: bool = False
) -> Prepared:
    """Write the images of an archive as a TFDS data set to brain_tumor_mri/SIZExSIZE/VERSION under `out`.

    Args:
        source: the zip, its extracted folder, or another one of that layout; see `open_archive`.
        out: a TFDS data folder, which may hold other data sets and sizes.
        size: side of the images, in pixels.
        skip_broken: leave broken files out, instead of refusing the whole.
        overwrite: replace what was prepared with this size before.

    Raises:
        UserError: the archive is no good, or `out` can't be written. Nothing is written then.
    """
    if size < MIN_SIDE:
        raise UserError(f"--size {size}: must be at least {MIN_SIDE} pixels")
    target = out / DATA_SET / f"{size}x{size}" / VERSION
    try:
        if target.exists() and not overwrite:
            raise UserError(f"{target}: exists already; --overwrite replaces it")
        # A neighbour is on the same file system, so that renaming is all that is left to do in the end.
        neighbour = next(folder for folder in target.absolute().parents if folder.exists())
        with temporary_neighbour(neighbour / target.name) as temporary:
            with _quiet_tfds():
                builder = BrainTumorMri(source=source, size=size, skip_broken=skip_broken, data_dir=temporary)
                builder.download_and_prepare()
            dataset = load_dataset(builder.data_dir)
            replace_folder(target, Path(builder.data_dir), replaced=temporary / "replaced")
    except OSError as error:
        # TFDS puts its own words before those of array-record; the cause has them alone.
        reason = error.strerror or error.__cause__ or error
        raise UserError(f"{out}: can't be written: {reason}; make room or choose another --out") from error
    return Prepared(target, dataclasses.replace(dataset, source=str(target)), tuple(builder.left_out))


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keep TFDS from printing paths that are about to change, from drawing its bars, and from its warnings."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
