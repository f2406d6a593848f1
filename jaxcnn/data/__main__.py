"""`python -m jaxcnn.data`: from the scans as they are published to a data set that training reads."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jaxcnn import cli
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.download import ADDRESS, cache_folder, fetch_archive, is_known_archive


def prepare(
    path: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PATH]")] = None,
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    download: bool = False,
    size: int = 128,
    skip_broken: bool = False,
    overwrite: bool = False,
) -> None:
    """Turn the Kaggle archive into a data set for `python -m train ... --data DIR`.

    Args:
        path: the Kaggle zip, its extracted folder, or any zip or folder that holds Training/ and Testing/.
        out: where the data set goes; other sizes may be there already.
        download: fetch the archive from Kaggle instead; it is kept in ~/.cache/jaxcnn.
        size: side of the images, in pixels.
        skip_broken: leave broken files out and list them, instead of refusing the archive.
        overwrite: replace the data set of this size.
    """
    # Only here: TFDS takes a while to import, and the other commands don't need it.
    from jaxcnn.data.prepare import prepare as write_dataset

    if download == (path is not None):
        raise cli.UserError("PATH, --download: give one of the two")
    archive = _download() if path is None else path
    print(f"reading {archive}", flush=True)
    prepared = write_dataset(archive, out, size=size, skip_broken=skip_broken, overwrite=overwrite)
    for file in prepared.left_out:
        print(f"left out: {file.name} {file.reason}")
    print(_table(prepared.dataset))
    print(f"{size}x{size} grey images in {prepared.folder}; train on them with --data {prepared.folder}")


def _download() -> Path:
    folder = cache_folder()
    print(f"downloading {ADDRESS} to {folder}, unless it is there", flush=True)
    archive = fetch_archive(ADDRESS, folder)
    if not is_known_archive(archive):
        print(
            f"note: {archive} differs from the archive that our scores were measured with; Kaggle may have updated it"
        )
    return archive


def _table(dataset: Dataset) -> str:
    """The images of each class, one line a split."""
    lines = ["split  " + "  ".join(dataset.classes) + "  total"]
    for name, split in (("train", dataset.train), ("test", dataset.test)):
        counts = np.bincount(split.labels, minlength=len(dataset.classes))
        cells = [f"{count:>{len(label)}}" for label, count in zip(dataset.classes, counts, strict=True)]
        lines.append(f"{name:5}  " + "  ".join(cells) + f"  {len(split):>5}")
    return "\n".join(lines)


def main() -> None:
    """Entry point of jaxcnn-data."""
    cli.run("python -m jaxcnn.data", {"prepare": prepare}, "Prepare brain scans for training.")


if __name__ == "__main__":
    main()
