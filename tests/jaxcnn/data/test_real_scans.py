"""The archive of real scans, prepared once for all tests of it: its images, its copies, and the split without them."""

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data.__main__ import main
from jaxcnn.data.duplicates import correlations, make_thumbnails
from jaxcnn.data.kaggle import CLASSES, is_known_archive
from jaxcnn.data.load import load_dataset
from jaxcnn.data.protocol import partition

pytestmark = [pytest.mark.slow, pytest.mark.real_data]
GLIOMA, MENINGIOMA, NO_TUMOR, PITUITARY = CLASSES


@pytest.fixture(scope="module")
def archive(shared: Path) -> Path:
    return shared / "data/brain-tumor-mri.zip"


@pytest.fixture(scope="module")
def prepared(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where `python -m jaxcnn.data prepare` has written it, and what it printed."""
    folder, out = tmp_path_factory.mktemp("prepared"), io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.redirect_stdout(out):
        monkeypatch.setattr("sys.argv", ["jaxcnn.data", "prepare", str(archive), "--out", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder, out.getvalue()


@pytest.fixture
def audited(run_command: Callable[..., tuple], tmp_path: Path) -> Callable[[Path], dict]:
    """What `python -m jaxcnn.data audit` reports of a source."""

    def run(source: Path) -> dict:
        code, _, err = run_command("audit", source, "--out", tmp_path)
        assert (code, err) == (0, "")
        return json.loads((tmp_path / "audit.json").read_text("utf-8"))

    return run


def test_it_is_the_known_archive(archive: Path) -> None:
    assert is_known_archive(archive)


def test_all_images_are_prepared_as_pillow_makes_them(archive: Path, prepared: tuple[Path, str]) -> None:
    folder, out = prepared
    assert re.search(r"train +826 +822 +395 +827 +2870\ntest +100 +115 +105 +74 +394\n", out)
    split = load_dataset(str(folder)).splits["test"]
    with zipfile.ZipFile(archive) as scans:
        for name, image in list(zip(split.names, split.images, strict=True))[::20]:
            encoded = scans.read(f"brain_tumor_dataset/brain_tumor_classification/{name}")
            grey = Image.open(io.BytesIO(encoded)).convert("L").resize((128, 128), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(image[..., 0], np.asarray(grey))


def test_the_audit_of_its_files(archive: Path, audited: Callable[[Path], dict]) -> None:
    report = audited(archive)
    assert report["direct_twins"] == report["crossing_images"]
    assert report["crossing_images"] == {
        "Training": {GLIOMA: 16, MENINGIOMA: 113, NO_TUMOR: 113, PITUITARY: 14},
        "Testing": {GLIOMA: 20, MENINGIOMA: 109, NO_TUMOR: 105, PITUITARY: 25},
    }
    assert report["usual_size"] == {
        "pixels": [512, 512],
        "images": {
            "Training": {GLIOMA: 826, MENINGIOMA: 679, NO_TUMOR: 5, PITUITARY: 799},
            "Testing": {GLIOMA: 18, MENINGIOMA: 0, NO_TUMOR: 0, PITUITARY: 14},
        },
    }
    identical, near = report["identical"], report["near_duplicates"]
    assert (identical["groups"], identical["redundant"], identical["crossing"]) == (164, 235, 64)
    conflicts = [len(group["images"]) for group in near["members"] if group["labels_conflict"]]
    assert sorted(conflicts) == [3, 7]


def test_the_audit_of_what_was_prepared(prepared: tuple[Path, str], audited: Callable[[Path], dict]) -> None:
    report = audited(prepared[0])
    assert [sum(c.values()) for c in report["crossing_images"].values()] == [256, 259]
    assert report["near_duplicates"]["conflicting"] == 2


def test_leak_free_no_training_image_is_a_copy_of_a_test_image(prepared: tuple[Path, str]) -> None:
    dataset = load_dataset(str(prepared[0]))
    parts, leakage = partition(dataset, "leak-free", 0.1, seed=0)
    assert (leakage.groups, leakage.train, leakage.test) == (197, 256, 259)
    train, validation = parts.splits["train"], parts.splits["validation"]
    assert len(train) + len(validation) == 2870 - 256
    thumbnails = [make_thumbnails(split.images) for split in (train, dataset.splits["test"])]
    assert correlations(*thumbnails).max() <= 0.98
    shares = np.bincount(validation.labels) / np.bincount(np.concatenate([train.labels, validation.labels]))
    np.testing.assert_allclose(shares, 0.1, atol=0.005)
