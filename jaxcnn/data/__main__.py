"""`python -m jaxcnn.data`: prepare the scans as they are published for training, and audit them for duplicates."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from jaxcnn import cli
from jaxcnn.data.audit import Audit, as_json, contact_sheet, read_collection, table
from jaxcnn.data.audit import audit as find_duplicates
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.duplicates import THRESHOLD
from jaxcnn.data.kaggle import ADDRESS, fetch_archive, is_known_archive
from jaxcnn.download import cache_folder
from jaxcnn.errors import UserError
from jaxcnn.runs.files import whole_file


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
        raise UserError("PATH, --download: give one of the two")
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
    for name, split in dataset.splits.items():
        counts = np.bincount(split.labels, minlength=len(dataset.classes))
        cells = [f"{count:>{len(label)}}" for label, count in zip(dataset.classes, counts, strict=True)]
        lines.append(f"{name:5}  " + "  ".join(cells) + f"  {len(split):>5}")
    return "\n".join(lines)


def audit(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    *,
    threshold: float = THRESHOLD,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("audit"),
) -> None:
    """Look for copies of images, copies across training and test images, and copies of different labels.

    Args:
        source: a prepared data set, `phantom`, or any folder or zip of class folders, with or without split folders
            such as Training/ and Testing/ around them.
        threshold: normalised cross-correlation of the 64x64 grey images above which two are near-duplicates.
        out: where audit.json and crossing-pairs.png go.
    """
    if not 0 < threshold < 1:
        raise UserError(f"--threshold {threshold}: must be above 0 and below 1")
    collection = read_collection(source)
    for name, reason in collection.broken.items():
        print(f"left out: {name} {reason}")
    found = find_duplicates(collection, threshold)
    print(table(found))
    _write_audit(found, out)


def _write_audit(found: Audit, folder: Path) -> None:
    report, sheet = folder / "audit.json", folder / "crossing-pairs.png"
    try:
        with whole_file(report) as temporary:
            temporary.write_text(json.dumps(as_json(found), indent=1) + "\n")
        with whole_file(sheet) as temporary:
            contact_sheet(found).save(temporary)
    except OSError as error:
        raise UserError(f"--out {folder}: can't be written: {error.strerror or error}; choose another") from error
    print(f"\n{report}\n{sheet}")


def main(program: str = "python -m jaxcnn.data") -> None:
    """Run the command that the arguments name."""
    cli.run(program, {"prepare": prepare, "audit": audit}, "Prepare and audit brain scans.")


if __name__ == "__main__":
    main()
