"""The baselines: as runs, against other ways to the same scores, and on the real scans."""

import sys

import numpy as np
import pytest
from planted import brighter, smooth_images
from scipy.special import softmax
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxcnn.data.dataset import Split
from jaxcnn.data.duplicates import closest, make_thumbnails
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.prepare import prepare
from jaxcnn.runs.folder import create_run, open_run, read_config, read_data, read_predictions
from jaxcnn.runs.lock import lock_run
from train.__main__ import main
from train.baselines.gradient_histograms import gradient_histograms
from train.baselines.nearest_neighbour import nearest_neighbour

SPLITS = ("train", "validation", "test")


@pytest.fixture
def run_baseline(run_train):
    """Run the command; gives the exit code and what was printed."""

    def run(*words):
        code, out, err = run_train("baseline", *words)
        return code, out + err

    return run


def split_of(images, seed):
    labels = np.random.default_rng(seed).permutation(np.arange(len(images), dtype=np.int32) % 4)
    return Split(images, labels, tuple(map(str, range(len(images)))))


@pytest.fixture
def splits():
    images = smooth_images(90)
    return {
        "train": split_of(images[:40], 0),
        "validation": split_of(images[40:60], 1),
        "test": split_of(images[60:], 2),
    }


def test_the_nearest_neighbours_label_is_that_of_the_most_similar_image(splits):
    logits = nearest_neighbour(splits, 4)
    thumbnails = {name: make_thumbnails(split.images) for name, split in splits.items()}
    # Test images have all that is left of Training, validation images only what is trained on.
    candidates = np.concatenate([thumbnails["train"], thumbnails["validation"]])
    labels = np.concatenate([splits["train"].labels, splits["validation"].labels])
    for name, number in (("test", 60), ("validation", 40)):
        place, correlation = closest(thumbnails[name], candidates[:number])
        np.testing.assert_array_equal(logits[name].argmax(axis=1), labels[place])
        np.testing.assert_allclose(logits[name].max(axis=1), correlation, rtol=1e-6)


def test_a_training_image_is_not_its_own_neighbour_but_its_copy_is(splits):
    train = splits["train"]
    labels = np.append(train.labels, np.int32(3))
    copied = Split(np.concatenate([train.images, brighter(train.images[:1])]), labels, (*train.names, "copy"))
    logits = nearest_neighbour(splits | {"train": copied}, 4)["train"]
    flat = make_thumbnails(copied.images).reshape(41, -1)
    correlation = np.corrcoef(flat) - 2 * np.eye(41)
    np.testing.assert_array_equal(logits.argmax(axis=1), copied.labels[correlation.argmax(axis=1)])
    assert logits[0].argmax() == 3
    assert logits[40].argmax() == train.labels[0]
    assert (logits < 0.999).sum() == logits.size - 2


def test_gradient_histograms_see_the_direction_of_stripes_whatever_their_brightness():
    random, places = np.random.default_rng(0), np.arange(64)
    labels = np.arange(80, dtype=np.int32) % 4
    # Stripes at 0, 45, 90 and 135 degrees, of any phase, brightness and contrast, under noise.
    waves = [
        128
        + random.uniform(-30, 30)
        + random.uniform(30, 60)
        * np.sin(
            random.uniform(0, 6)
            + 0.6 * (np.cos(label * np.pi / 4) * places + np.sin(label * np.pi / 4) * places[:, np.newaxis])
        )
        + random.normal(0, 8, (64, 64))
        for label in labels
    ]
    images = np.stack(waves).clip(0, 255).astype(np.uint8)[..., np.newaxis]
    whole = Split(images, labels, tuple(map(str, range(80))))
    splits = {name: whole.take(np.arange(start, 80, 3)) for start, name in enumerate(SPLITS)}
    logits = gradient_histograms(splits, 4)
    assert accuracy_score(splits["test"].labels, logits["test"].argmax(axis=1)) == 1
    assert (logits["test"].dtype, logits["test"].shape) == (np.float32, (len(splits["test"]), 4))


def test_of_two_classes_the_probabilities_are_scikit_learns():
    labels = np.arange(40, dtype=np.int32) % 2
    whole = Split(smooth_images(40), labels, tuple(map(str, range(40))))
    splits = {name: whole.take(np.arange(start, 40, 3)) for start, name in enumerate(SPLITS)}
    logits = gradient_histograms(splits, 2)["test"].astype(np.float64)

    def features(split):
        images = split.images[..., 0]
        return [hog(image, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2)) for image in images]

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(features(splits["train"]), splits["train"].labels)
    np.testing.assert_allclose(softmax(logits, axis=1), model.predict_proba(features(splits["test"])), atol=1e-6)


def test_gradient_histograms_take_sides_that_no_cell_divides_and_refuse_the_tiny(splits):
    odd = {name: Split(split.images[:, :67, :51], split.labels, split.names) for name, split in splits.items()}
    assert gradient_histograms(odd, 4)["test"].shape == (30, 4)
    tiny = {name: Split(split.images[:, :15, :64], split.labels, split.names) for name, split in splits.items()}
    with pytest.raises(ValueError, match="at least 16 pixels high and wide, got 15x64"):
        gradient_histograms(tiny, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nearest-neighbour", "hog"])
def test_a_baseline_leaves_a_run_that_can_be_evaluated(tmp_path, run_baseline, monkeypatch, capsys, name):
    options = ("--max-images", 60, "--split-seed", 3, "--protocol", "official")
    code, printed = run_baseline(name, "--run-dir", tmp_path / "run", *options)
    assert code == 0
    assert "Scores, protocol official:" in printed
    run = open_run(tmp_path / "run")
    assert read_config(run) == {
        "baseline": name,
        "data": "phantom",
        "max_images": 60,
        "protocol": "official",
        "validation_fraction": 0.1,
        "test_fraction": 0.2,
        "folds": None,
        "fold": None,
        "split_seed": 3,
    }
    assert read_data(run)["protocol"] == "official"
    assert sorted(path.name for path in run.folder.iterdir()) == [
        ".lock",
        "config.json",
        "data.json",
        "environment.json",
        "predictions",
    ]
    for split in SPLITS:
        predictions = read_predictions(run, split)
        counts = read_data(run)["images"][split]
        assert np.bincount(predictions.labels, minlength=4).tolist() == list(counts.values())
        assert predictions.classes == CLASSES
        line = next(line for line in printed.splitlines() if line.startswith(split))
        assert f"{accuracy_score(predictions.labels, predictions.logits.argmax(axis=1)):.3f}" == line.split()[3]
    monkeypatch.setattr(sys, "argv", ["train", "evaluate", str(run.folder), "--protocol", "official"])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 0
    assert "macro F1" in capsys.readouterr().out


@pytest.mark.slow
def test_wrong_input_is_refused_and_nothing_is_written(tmp_path, run_baseline, monkeypatch):
    for words, message in [
        (["nearest-neighbour", "--data", "/no/such/folder"], "/no/such/folder"),
        (["nearest-neighbour", "--max-images", 3], "--validation-fraction 0.1: the 1 training images of"),
        (["nearest-neighbour", "--validation-fraction", 1], "--validation-fraction 1.0: must be above 0"),
        (["nearest-neighbour", "--max-images", 0], "--max-images 0: must be at least 1"),
        (["nearest-neighbour", "--folds", 3], "--folds 3: needs --fold, the fold to test on; give it\n"),
        (["k-means"], "k-means"),
    ]:
        code, printed = run_baseline(*words, "--run-dir", tmp_path / "run")
        assert code == 2
        assert message in printed
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    code, printed = run_baseline("hog", "--max-images", 60, "--run-dir", tmp_path / "run")
    assert code == 2
    assert "not installed: pip install -c constraints.txt -e '.[baselines]'" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_is_replaced_only_when_asked(tmp_path, run_baseline):
    words = ("nearest-neighbour", "--max-images", 40, "--run-dir", tmp_path / "run")
    assert run_baseline(*words)[0] == 0
    code, printed = run_baseline(*words, "--split-seed", 1)
    assert code == 2
    assert "run: exists; choose another, or replace the run in it with --overwrite" in printed
    assert read_config(open_run(tmp_path / "run"))["split_seed"] == 0
    assert run_baseline(*words, "--split-seed", 1, "--overwrite")[0] == 0
    assert read_config(open_run(tmp_path / "run"))["split_seed"] == 1


@pytest.mark.slow
def test_a_run_that_someone_works_on_and_a_folder_that_is_none_are_left_alone(tmp_path, run_baseline):
    words = ("nearest-neighbour", "--max-images", 40, "--overwrite", "--run-dir")
    run = create_run(tmp_path / "run", {"model": "simplecnn"}, {}, {}, overwrite=False)
    with lock_run(run):
        code, printed = run_baseline(*words, run.folder)
    assert (code, read_config(run)) == (2, {"model": "simplecnn"})
    assert "in use by process" in printed
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert run_baseline(*words, tmp_path / "other")[0] == 2
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


@pytest.fixture(scope="module")
def scans(shared, tmp_path_factory):
    """The real scans at 64 pixels: their thumbnails are the prepared images themselves, resized once."""
    folder = tmp_path_factory.mktemp("scans")
    prepare(shared / "data/brain-tumor-mri.zip", folder, size=64)
    return folder


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("protocol", "scores"), [("official", [0.769, 0.727, 0.729]), ("leak-free", [0.424, 0.400, 0.409])]
)
def test_copying_the_nearest_label_scores_what_was_measured(scans, tmp_path, run_baseline, protocol, scores):
    words = ("nearest-neighbour", "--data", scans, "--protocol", protocol, "--run-dir", tmp_path / "run")
    assert run_baseline(*words)[0] == 0
    predictions = read_predictions(open_run(tmp_path / "run"), "test")
    predicted = predictions.logits.argmax(axis=1)
    found = [accuracy_score(predictions.labels, predicted)]
    found += [f1_score(predictions.labels, predicted, average=average) for average in ("weighted", "macro")]
    np.testing.assert_allclose(found, scores, atol=0.0005)
