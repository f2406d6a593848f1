"""python -m train segmentation, as a user types it: masks move with images, and a run goes on to the same bits."""

import csv
import itertools
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from processes import command

from jaxcnn.data.augment import BRAIN_MRI
from jaxcnn.data.load import load_dataset
from jaxcnn.data.preprocessing import Preprocessing, frame, frame_masks
from jaxcnn.inference.segmentation import load_segmenter, segmenter
from jaxcnn.inference.tta import average_probabilities
from jaxcnn.models.example_keys import keys_at
from jaxcnn.models.segmentation import SegmentationUNet
from jaxcnn.models.unet import UNet
from jaxcnn.runs.folder import best_epoch, open_run, read_data, read_epochs, read_masks
from train.__main__ import main
from train.images import frame_splits, load_images
from train.losses import LOSSES
from train.machine.interruption import Interruption
from train.options import make_config

OPTIONS = ["--width", "0.06", "--max-images", "64", "--epochs", "2", "--batch-size", "8", "--image-size", "32"]
OPTIONS += ["--augment", "brain-mri", "--dropout", "0.2", "--ema", "0.9", "--tta", "flip"]


def run_train(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    with pytest.raises(SystemExit) as error:
        main()
    return error.value.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert run_train(monkeypatch, "segmentation", *OPTIONS, "--run-dir", folder) == 0
    return folder


@pytest.mark.slow
def test_a_run_leaves_masks_whose_scores_are_those_of_its_best_epoch(finished):
    run = open_run(finished)
    best = best_epoch(read_epochs(run))
    assert read_data(run)["images"]["test"] == {"background": 16, "tumor": 48}
    for split, count in [("train", 57), ("validation", 7), ("test", 64)]:
        masks = read_masks(run, split)
        assert masks.predicted.shape == (count, 32, 32)
        if split != "train":  # Whose scores in the line of an epoch are those of the steps.
            found = masks.scores()
            assert found == {name: pytest.approx(best[f"{split}_{name}"]) for name in found}


@pytest.mark.slow
def test_a_run_that_a_signal_stops_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    batches, poll = itertools.count(1), Interruption.poll

    def signal_and_poll(interrupted):
        if next(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return poll(interrupted)

    arguments = ("segmentation", *OPTIONS, "--run-dir", tmp_path / "run", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "poll", signal_and_poll)
        assert run_train(monkeypatch, *arguments) == 128 + signal.SIGINT
    assert run_train(monkeypatch, *arguments) == 0
    runs = open_run(tmp_path / "run"), open_run(finished)
    epochs, expected = ([{k: v for k, v in of.items() if "second" not in k} for of in read_epochs(run)] for run in runs)
    assert epochs == expected
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(*(read_masks(run, split).predicted for run in runs))


@pytest.mark.slow
def test_folds_by_patient_come_together_in_one_table(tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    masks = np.zeros((48, 32, 32), np.uint8)
    for mask, (row, column) in zip(masks[::2], random.integers(4, 20, (24, 2)), strict=True):
        mask[row : row + 8, column : column + 8] = 255
    images = (random.integers(0, 60, (48, 32, 32, 2)) + masks[..., None] // 2).astype(np.uint8)
    patients = np.repeat([f"p{n}" for n in range(12)], 4)
    np.savez(tmp_path / "scans.npz", images=images, masks=masks, patients=patients)
    options = [
        "--width",
        "0.06",
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--folds",
        "3",
        "--normalization",
        "volume-z-score",
        "--empty-slices",
        "0.5",
    ]
    folders = ["--data", tmp_path / "scans.npz", "--sweep-dir", tmp_path / "sweep"]
    assert run_train(monkeypatch, "sweep", "segmentation", *options, *folders) == 0
    shown = capsys.readouterr().out
    assert "test Dice by patient" in shown
    run = open_run(sorted((tmp_path / "sweep").glob("*/config.json"))[0].parent)
    empty, marked = read_data(run)["images"]["train"].values()
    assert abs(empty - marked / 2) <= 1
    # What `segment` gives for a patient's slices is what the run says of them.
    masks, trained = read_masks(run, "test"), load_segmenter(run.folder)
    patient = masks.patient_names[0]
    found = segmenter(trained, "as-trained")(images[patients == patient])
    np.testing.assert_array_equal(found, masks.predicted[np.array(masks.patients) == patient])
    tested = [read_masks(open_run(folder), "test").patient_names for folder in sorted((tmp_path / "sweep").glob("*/"))]
    assert sorted(itertools.chain(*tested)) == sorted(set(patients.tolist()))
    with (tmp_path / "sweep" / "patients.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["patient"]: line["fold"] for line in lines}.keys() == set(patients.tolist())
    assert all((line["slices"], line["marked_slices"]) == ("4", "2") for line in lines)
    assert "Dice by patient, median" in shown


@pytest.mark.slow
@pytest.mark.parametrize("augmented", [True, False])
def test_a_mask_is_moved_as_its_image(augmented):
    """An image that shows its own mask still shows it after framing and augmentation."""
    masks = np.zeros((4, 64, 64), np.uint8)
    masks[:, 16:40, 20:52] = 1
    masks[:, 24:30, 40:48] = 2
    pictures = (100 * masks[..., None]).astype(np.uint8)
    if augmented:
        geometry = BRAIN_MRI.__class__(**{n: getattr(BRAIN_MRI, n) for n in ("horizontal_flip", "rotation", "zoom")})
        keys = keys_at(jax.random.key(0), jnp.arange(4))
        seen = np.asarray(geometry(keys, jnp.asarray(pictures, jnp.float32) / 255)) * 255
        moved = np.asarray(geometry.move_masks(keys, jnp.asarray(masks, jnp.int32), 3))
        assert (moved != masks).any()
    else:
        halved = Preprocessing(image_size=32)
        seen, moved = np.asarray(frame(pictures, halved)), np.asarray(frame_masks(masks, halved, 3))
    # Between two regions the image passes through the levels of others.
    assert (np.round(seen[..., 0] / 100) == moved).mean() > 0.99


@pytest.mark.slow
def test_intensities_of_channels_change_each_by_itself_and_their_geometry_alike():
    images = jnp.asarray(np.random.default_rng(0).random((2, 32, 32, 1), np.float32))
    keys = keys_at(jax.random.key(1), jnp.arange(2))
    both = BRAIN_MRI(keys, jnp.repeat(images, 2, axis=-1))
    np.testing.assert_allclose(both[..., :1], BRAIN_MRI(keys, images), atol=1e-5)
    assert jnp.abs(both[..., 0] - both[..., 1]).max() > 0.05
    geometry = BRAIN_MRI.__class__(rotation=20, zoom=0.2)
    np.testing.assert_array_equal(*jnp.moveaxis(geometry(keys, jnp.repeat(images, 2, axis=-1)), -1, 0))


def test_soft_dice_of_sure_masks_is_the_dice_coefficient_and_of_no_tumour_the_smoothing_alone():
    true = np.zeros((3, 32, 32), np.int32)
    predicted = np.zeros((3, 32, 32), np.int32)
    true[0, 4:20, 4:20], predicted[0, 8:24, 4:20], predicted[1, :4] = 1, 1, 1
    logits = 50.0 * jax.nn.one_hot(predicted, 2)
    # The pixels: 256 and 256, 192 of them common; none and 128; none and none. A hundredth of 1,024 is added.
    expected = [1 - (2 * 192 + 10.24) / (512 + 10.24), 1 - 10.24 / (128 + 10.24), 0]
    np.testing.assert_allclose(LOSSES["dice"](logits, true), expected, atol=1e-5)
    total = LOSSES["dice"](logits, true) + LOSSES["cross-entropy"](logits, true)
    np.testing.assert_allclose(LOSSES["dice-cross-entropy"](logits, true), total, rtol=1e-6)


@pytest.mark.slow
def test_the_network_is_a_u_net_whose_background_has_the_logit_0():
    images = jnp.asarray(np.random.default_rng(0).random((1, 16, 16, 2), np.float32))
    model = SegmentationUNet(features=1, classes=3, out_channels=2)
    variables = model.init(jax.random.key(0), images, train=False)
    logits = model.apply(variables, images, train=False)
    np.testing.assert_array_equal(logits[..., 0], 0)
    plain = UNet(in_channels=2, out_channels=2, features=1).apply(variables, images, train=False)
    np.testing.assert_array_equal(logits[..., 1:], plain)


@pytest.mark.slow
def test_views_are_laid_upon_each_other_before_their_mean():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32))
    mirrored = jnp.stack([logits, logits[:, :, ::-1]], axis=1).reshape(-1, *logits.shape[1:])
    np.testing.assert_allclose(average_probabilities(mirrored, 2), jax.nn.log_softmax(logits), atol=1e-6)


@pytest.mark.slow
def test_the_masks_of_the_phantom_lie_where_its_images_differ_from_healthy_ones():
    split = load_dataset("phantom", max_images=32, masks=True).splits["train"]
    assert (split.masks.any(axis=(1, 2)) == split.labels).all()
    assert split.labels.reshape(-1, 4).tolist() == [[1, 1, 0, 1]] * 8
    # A meningioma takes up contrast agent evenly: brighter than what lies around it.
    for image, mask in zip(split.images[1::4, ..., 0], split.masks[1::4] > 0, strict=True):
        assert image[mask].mean() > 1.3 * image[~mask & (image > 25)].mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["simplecnn", "--loss", "dice"], "--loss dice: needs masks, and simplecnn gives classes"),
        (["segmentation", "--loss", "double-softmax"], "--loss double-softmax: is no loss of masks"),
        (["segmentation", "--crop", "head"], "--crop head: works only on images without masks"),
        (["segmentation", "--data", "missing.npz"], "missing.npz: no such file or folder"),
        pytest.param(
            ["segmentation", "--max-images", "32", "--image-size", "40"],
            "--image-size 40: U-Net needs images whose",
            marks=pytest.mark.slow,  # It draws the phantom and its masks first.
        ),
    ],
)
def test_wrong_input_is_told_in_one_line(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_train(monkeypatch, *options) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_eight_devices_by_pmap_train_in_micro_batches_and_in_bfloat16(finished, processes, tmp_path):
    """As a user types it; what a step gives on them, and in which type, is compared in test_parallel and test_dtype."""
    options = [*OPTIONS, "--batch-size", "16", "--accumulate", "2", "--parallel", "pmap", "--dtype", "bfloat16"]
    options += ["--tta", "none", "--run-dir", str(tmp_path / "run")]
    training = command("train.__main__", "segmentation", *options)
    ended = processes.start(training, options={"jax_num_cpu_devices": 8}).wait()
    assert ended.code == 0, ended
    for epoch, other in zip(read_epochs(open_run(tmp_path / "run")), read_epochs(open_run(finished)), strict=True):
        for split in ("train", "validation", "test"):
            assert epoch[f"{split}_loss"] == pytest.approx(other[f"{split}_loss"], rel=0.2)


def test_training_images_are_normalised_over_whole_volumes_though_empty_slices_are_left_out(tmp_path):
    random = np.random.default_rng(0)
    images, masks = random.integers(0, 256, (60, 32, 32, 3), np.uint8), np.zeros((60, 32, 32), np.uint8)
    masks[::5, 8:16, 8:16] = 1
    # Slices without a tumour are darker, so that a volume without them is another.
    images[masks.any(axis=(1, 2)) == 0] //= 3
    np.savez(tmp_path / "scans.npz", images=images, masks=masks, patients=np.repeat(list("abcdef"), 10))

    def load(**options):
        config = make_config("segmentation", data=str(tmp_path / "scans.npz"), test_fraction=0.2, **options).training
        images = load_images(config, masks=True)
        return images, frame_splits(config, images.dataset)["train"].inputs[0]

    (whole, expected), (fewer, found) = (load(normalization="volume-z-score", empty_slices=n) for n in (1.0, 0.25))
    train, kept = (images.dataset.splits["train"] for images in (whole, fewer))
    assert (kept.labels == 0).sum() == round(0.25 * (train.labels == 0).sum())
    np.testing.assert_array_equal(found, expected[[train.names.index(name) for name in kept.names]])
    # The description is of the images as they are, which a resumed run finds again.
    assert fewer.description == load(empty_slices=0.25)[0].description
