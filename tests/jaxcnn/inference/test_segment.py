"""python -m train segment writes masks that other programs lay over their volumes, series and pictures."""

import csv
from functools import partial

import nibabel
import numpy as np
import pytest
from PIL import Image
from random_weights import save_random_weights
from scan_files import write_dicom

from jaxcnn import UNet
from jaxcnn.data.load import load_dataset
from jaxcnn.data.readers.nifti import read_volume
from jaxcnn.inference import segment as module

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "unet"
    save_random_weights(folder, UNet(features=1), (32, 32, 3))
    return folder


@pytest.fixture
def segment(weights, run_train, monkeypatch):
    """Run the command; what is brighter than 180 is the mask."""
    monkeypatch.setattr(module, "segmenter", lambda *_: lambda images: (images[..., 0] > 180).astype(np.uint8))
    return partial(run_train, "segment", weights)


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("codes", ["RAS", "LPI", "PSR", "SLA"])
def test_a_nifti_mask_lies_over_its_volume_in_whatever_orientation(segment, tmp_path, codes):
    """The mask of what is bright is what is bright, voxel by voxel, under the same affine."""
    values = RANDOM.integers(0, 100, (20, 24, 18)).astype(np.int16)
    values[4:9, 6:15, 3:7] = 1000
    orientation = nibabel.orientations.axcodes2ornt(codes)
    plain = nibabel.Nifti1Image(values, np.diag([0.9, 1.1, 3.0, 1.0]) + np.eye(4, k=3) * 7)
    image = plain.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(plain.affine), orientation))
    nibabel.save(image, tmp_path / "head.nii.gz")
    code, out, err = segment(tmp_path / "head.nii.gz", "--out", tmp_path / "out", "--largest-component")
    assert (code, err) == (0, "")
    found = nibabel.load(tmp_path / "out" / "head_mask.nii.gz")
    np.testing.assert_array_equal(found.affine, nibabel.load(tmp_path / "head.nii.gz").affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj) == 1, np.asarray(image.dataobj) == 1000)
    assert found.get_data_dtype() == np.uint8
    (row,) = rows_of(tmp_path / "out" / "segments.csv")
    volume = read_volume((tmp_path / "head.nii.gz").read_bytes())
    assert volume.spacing == pytest.approx((3.0, 1.1, 0.9))
    assert (row["voxels"], float(row["ml"])) == ("180", pytest.approx(180 * 0.9 * 1.1 * 3 / 1000, abs=1e-3))
    assert "as-trained" not in out
    with Image.open(tmp_path / "out" / "head_overlay.png") as picture:
        assert picture.size == (20 * 4, 24)


def test_a_dicom_series_is_ordered_in_space_and_a_tiff_stack_keeps_its_pages(segment, tmp_path):
    pictures = RANDOM.integers(0, 90, (3, 32, 40)).astype(np.uint16)
    pictures[1, 4:14, 4:14] = 400
    for place, name in enumerate("bca"):  # Whose names are in another order.
        geometry = {"ImagePositionPatient": [0, 0, 4.0 * place], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        write_dicom(
            tmp_path / "series" / f"{name}.dcm", pictures[place], PatientID="p7", PixelSpacing=[0.5, 0.5], **geometry
        )
    pages = [Image.fromarray(np.where(picture == 400, 255, 0).astype(np.uint8)) for picture in pictures]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    code, _, err = segment(tmp_path / "series", tmp_path / "stack.tif", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    masks = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*/*_mask.png")}
    assert sorted(masks) == [*(f"{n}_mask.png" for n in "abc"), *(f"stack-{n}_mask.png" for n in (1, 2, 3))]
    for name, mask in masks.items():
        expected = 255 * (pictures[1] == 400) if name in ("c_mask.png", "stack-2_mask.png") else 0
        np.testing.assert_array_equal(mask, np.broadcast_to(expected, mask.shape))
    series, stack = rows_of(tmp_path / "out" / "segments.csv")
    assert (series["voxels"], float(series["ml"]), stack["ml"]) == ("100", pytest.approx(0.1), "")


@pytest.mark.parametrize("patient", ["../../outside", "/tmp/outside", "..", "p 1"])
def test_what_a_dicom_file_says_chooses_no_folder(segment, tmp_path, patient):
    """Nothing is written but under --out, and the mask of each file is there."""
    pictures = RANDOM.integers(0, 90, (2, 16, 16)).astype(np.uint16)
    for number, picture in enumerate(pictures):
        write_dicom(tmp_path / "in" / f"IM.{number}", picture, PatientID=patient, InstanceNumber=number)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert segment(tmp_path / "in", "--out", tmp_path / "a" / "b" / "out")[0] == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "a" / "b" / "out") for path in written)
    assert sorted(path.name for path in written if "mask" in path.name) == ["IM.0_mask.png", "IM.1_mask.png"]


def test_series_of_one_patient_are_told_apart(segment, tmp_path):
    """By what the files call them, and where that is the same by a number; they may come as one input or as several."""
    picture = RANDOM.integers(0, 90, (16, 16)).astype(np.uint16)
    series = {"t1": "T1 axial", "flair": "FLAIR", "later": "FLAIR"}
    for uid, (name, label) in enumerate(series.items()):
        folder = "second" if name == "later" else "first"
        about = {"PatientID": "p1", "SeriesDescription": label, "SeriesInstanceUID": f"1.2.{uid}"}
        write_dicom(tmp_path / folder / f"{name}.dcm", picture, **about)
    code, _, err = segment(tmp_path / "first", tmp_path / "second", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    masks = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*_mask.png"))
    assert masks == ["p1-FLAIR-2/later_mask.png", "p1-FLAIR/flair_mask.png", "p1-T1-axial/t1_mask.png"]
    assert {row["name"] for row in rows_of(tmp_path / "out" / "segments.csv")} == {
        "p1-T1-axial",
        "p1-FLAIR",
        "p1-FLAIR-2",
    }


def test_folders_of_one_name_are_not_one_patient(segment, tmp_path):
    sizes = {"a/axial": (16, 32), "b/axial": (32, 16), "c": (16, 16)}
    for name, size in sizes.items():
        folder = tmp_path / "scans" / name
        folder.mkdir(parents=True)
        Image.fromarray(RANDOM.integers(0, 255, size, np.uint8)).save(folder / "1.png")
    assert segment(tmp_path / "scans", "--out", tmp_path / "out")[0] == 0
    masks = {path.parent.name: np.asarray(Image.open(path)).shape for path in (tmp_path / "out").glob("*/1_mask.png")}
    assert masks == {name.replace("/", "-"): size for name, size in sizes.items()}


def test_masks_of_a_folder_of_patients_can_be_trained_on(segment, tmp_path):
    for patient in ("a", "b"):
        (tmp_path / "scans" / patient).mkdir(parents=True)
        for number in (1, 2):
            picture = RANDOM.integers(0, 100, (16, 32), np.uint8)
            picture[4:8, 4:8] = 200
            Image.fromarray(picture).save(tmp_path / "scans" / patient / f"{patient}_{number}.png")
    assert segment(tmp_path / "scans", "--out", tmp_path / "out")[0] == 0
    for mask in (tmp_path / "out").glob("*/*_mask.png"):
        mask.rename(tmp_path / "scans" / mask.parent.name / mask.name)
    split = load_dataset(str(tmp_path / "scans"), masks=True).splits["train"]
    assert split.patients == ("a", "a", "b", "b")
    np.testing.assert_array_equal(split.masks, split.images[..., 0] > 180)


def test_nifti_pairs_become_slices_of_patients(tmp_path):
    for name in ("p1", "p2"):
        values = RANDOM.integers(0, 100, (20, 24, 18)).astype(np.int16)
        mask = np.zeros(values.shape, np.uint8)
        mask[4:9, 6:15, 3:7] = 1
        values[mask == 1] = 1000
        affine = np.diag([-1.0, 1.0, 3.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / f"{name}_mask.nii.gz")
    split = load_dataset(str(tmp_path), masks=True).splits["train"]
    assert split.patients == ("p1",) * 18 + ("p2",) * 18
    np.testing.assert_array_equal(split.masks == 1, split.images[..., 0] > 200)
    nibabel.save(nibabel.Nifti1Image(mask[:10], affine), tmp_path / "p2_mask.nii.gz")
    with pytest.raises(ValueError, match=r"p2_mask.nii.gz: differs in size from p2.nii.gz \(10x24x18, not 20x24x18\)"):
        load_dataset(str(tmp_path), masks=True)
    (tmp_path / "p2_mask.nii.gz").unlink()
    Image.fromarray(np.zeros((24, 20), np.uint8)).save(tmp_path / "p2_mask.png")
    with pytest.raises(ValueError, match=r"p2_mask.png: and p2.nii.gz are a volume and a picture"):
        load_dataset(str(tmp_path), masks=True)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "INPUT: none is given"),
        (["missing.nii"], "missing.nii: no such file or folder"),
        (["empty"], "empty: holds no slices to segment"),
        (["damaged.nii"], "damaged.nii: is not a NIfTI file, or is damaged"),
        (["a.png", "b/a.png"], "a: two inputs have this name"),
    ],
)
def test_wrong_input_is_told_in_one_line(segment, tmp_path, monkeypatch, inputs, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "damaged.nii").write_bytes(b"no volume")
    for name in ("a.png", "b/a.png"):
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(name)
    code, _, err = segment(*inputs, "--out", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "out").exists()
