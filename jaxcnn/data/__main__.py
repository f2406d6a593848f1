"""`python -m jaxcnn.data`: prepare scans for training, and audit them for duplicates."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image

from jaxcnn import cli
from jaxcnn.cli import needed
from jaxcnn.data.audit.collection import read_collection
from jaxcnn.data.audit.contact_sheet import contact_sheet
from jaxcnn.data.audit.findings import find_duplicates
from jaxcnn.data.audit.overlaps import compare, comparison_document, comparison_table
from jaxcnn.data.audit.report import audit_document, audit_table
from jaxcnn.data.dataset import Dataset
from jaxcnn.data.duplicates import THRESHOLD
from jaxcnn.data.kaggle import ADDRESS, fetch_archive, is_known_archive
from jaxcnn.data.labelled import tell_left_out
from jaxcnn.download import cache_folder
from jaxcnn.errors import UserError
from jaxcnn.runs.files import telling_unwritable, whole_file
from jaxcnn.runs.json_files import write_json
from jaxcnn.tables import fit_table


def prepare(
    path: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PATH]", help_behavior_hint="")] = None,
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    download: bool = False,
    size: int = 128,
    skip_broken: bool = False,
    skip_conflicts: bool = False,
    overwrite: bool = False,
) -> None:
    """Prepare labelled images as a data set for `python -m train ... --data DIR`.

    Args:
        path: Folder or zip with the images as [SPLIT/]CLASS/image or [SPLIT/]CLASS/PATIENT/image, a CSV or TSV file
            that lists them (path,label[,split][,patient]), or the Kaggle zip. Formats: JPEG, PNG, TIFF, BMP, WebP,
            DICOM, NIfTI and MATLAB v7.3.
        out: Folder for the data set; it may already hold other sizes.
        download: Download the archive from Kaggle instead, and keep it in ~/.cache/jaxcnn.
        size: Height and width of the images in pixels.
        skip_broken: Leave out broken files and list them, instead of stopping.
        skip_conflicts: Leave out copies of an image that have different labels and list them, instead of stopping.
        overwrite: Replace the data set of this size.
    """
    # Only here: TFDS takes a while to import, and the other commands don't need it.
    from jaxcnn.data.prepare import ConflictError
    from jaxcnn.data.prepare import prepare as write_dataset

    if download == (path is not None):
        raise UserError("PATH, --download: give exactly one of them")
    source = _download() if path is None else path
    print(f"reading {source}", flush=True)
    try:
        prepared = write_dataset(
            source, out, size=size, skip_broken=skip_broken, skip_conflicts=skip_conflicts, overwrite=overwrite
        )
    except ConflictError as error:
        for of in error.found:
            print(f"conflict: {of.names[0]} is {of.labels[0]}, its copy {of.names[1]} is {of.labels[1]}")
        raise
    for line in tell_left_out(prepared.left_out):
        print(line)
    print(f"arranged as {prepared.layout}")
    print(_table(prepared.dataset))
    print(f"{size}x{size} grey images in {prepared.folder}; train on them with --data {prepared.folder}")


def _download() -> Path:
    folder = cache_folder()
    print(f"downloading {ADDRESS} to {folder}, unless it is already there", flush=True)
    archive = fetch_archive(ADDRESS, folder)
    if not is_known_archive(archive):
        print(f"note: {archive} differs from the archive behind this project's scores; Kaggle may have updated it")
    return archive


def _table(dataset: Dataset) -> str:
    """Count the images of each class, one line per split, and the patients where they are known."""
    of_patients = any(split.patients for split in dataset.splits.values())
    rows = [("split", *dataset.classes, "total", *["patients"] * of_patients)]
    for name, split in dataset.splits.items():
        counts = np.bincount(split.labels, minlength=len(dataset.classes))
        patients = [str(len(set(split.patients or ()) - {""}))] * of_patients
        rows.append((name, *map(str, counts), str(len(split)), *patients))
    return fit_table(rows)


def audit(
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, needed("DATA [DATA ...]")],
    *,
    threshold: float = THRESHOLD,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("audit"),
) -> None:
    """Find copies of images, copies shared by training and test images, and copies with different labels.

    For several data sets, report how many images of each are copies of images in the others.

    Args:
        sources: Prepared data sets, `phantom`, or anything that `prepare` accepts.
        threshold: Normalised cross-correlation of 64x64 grey images above which two images are near-duplicates.
        out: Folder for audit.json and, for a single data set, crossing-pairs.png.
    """
    if not sources:
        raise UserError("DATA: name at least one data set")
    if not 0 < threshold < 1:
        raise UserError(f"--threshold {threshold}: must be above 0 and below 1")
    collections = []
    for source in sources:
        collection = read_collection(source)
        for line in tell_left_out([*collection.left_out, *collection.broken]):
            print(line)
        collections.append(collection)
    if len(collections) > 1:
        compared = compare(collections, threshold)
        print(comparison_table(compared))
        _write(out, comparison_document(compared), None)
    else:
        found = find_duplicates(collections[0], threshold)
        print(audit_table(found))
        _write(out, audit_document(found), contact_sheet(found))


def _write(folder: Path, content: dict[str, Any], pairs: Image.Image | None) -> None:
    report, sheet = folder / "audit.json", folder / "crossing-pairs.png"
    with telling_unwritable(f"--out {folder}", "choose another"):
        write_json(report, content)
        if pairs is not None:
            with whole_file(sheet) as temporary:
                pairs.save(temporary)
    print(f"\n{report}" + (f"\n{sheet}" if pairs is not None else ""))


def main(program: str = "python -m jaxcnn.data") -> None:
    """Run the command that the arguments name."""
    cli.run(program, {"prepare": prepare, "audit": audit}, "Prepare and audit brain scans.")


if __name__ == "__main__":
    main()
