"""python -m train export: a file that JAX alone runs, by the lines of its README, to the same probabilities."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax2onnx
import numpy as np
import onnxruntime
import pytest
from jax import export as jax_export
from PIL import Image
from planted import smooth_images
from random_run import random_trained, save_random_run
from scan_files import write_picture

import jaxcnn.inference.export
import jaxcnn.inference.onnx_program
from jaxcnn import SimpleCNN, UNetClassifier
from jaxcnn.data.image import to_square
from jaxcnn.data.kaggle import CLASSES
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.data.readers.pictures import read_picture
from jaxcnn.errors import UserError
from jaxcnn.inference.export import serialize_classifier
from jaxcnn.inference.onnx_program import onnx_classifier
from jaxcnn.inference.trained import classify, compile_with_weights, predict_logits
from jaxcnn.models.resnet import ResNetClassifier

SIZE = 64
# Wide enough for the convolutions that a CPU computes in its own way, one that depends on the size of the batch.
MODEL = SimpleCNN(
    stem_features=(2, 16), squeeze_features=2, skip_features=16, head_features=5, hidden_features=6, dropout=0.0
)
OTHER = '{"classes": ["a"], "image_shape": [9, 9, 1]}'
FILES = ["README.md", "classifier.jax", "classifier.json"]


def random_images(count, size=SIZE):
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 1), np.uint8)


@pytest.fixture(scope="module")
def trained():
    return random_trained(MODEL, SIZE, normalization="per-image-z-score")


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return save_random_run(tmp_path_factory.mktemp("runs") / "random", trained)


@pytest.fixture(scope="module")
def program(trained):
    return bytes(serialize_classifier((trained,)))


# Runs the README's lines on the README's own file, and then the lines that call on other batches.
FRESH_PROCESS = """
import re, sys
from pathlib import Path
for name in ("jaxcnn", "train", "flax", "orbax", "optax", "grain"):
    sys.modules[name] = None  # an import of it fails
import numpy as np
use, prepare = re.findall("```python\\n(.*?)```", Path("README.md").read_text("utf-8"), flags=re.DOTALL)
exec(prepare)
exec(use)
found = {"scan": probabilities}
for count in (1, 3, 17):
    images = np.load(f"batch-{count}.npy")
    exec(use)
    found[str(count)] = probabilities
np.savez("found.npz", **found)
"""


@pytest.mark.slow
def test_the_lines_of_the_readme_give_the_same_probabilities_without_this_project(run_train, trained, run, tmp_path):
    out = tmp_path / "out"
    code, printed, err = run_train("export", run, out)
    assert (code, err) == (0, "")
    assert str(out / "classifier.jax") in printed
    assert sorted(path.name for path in out.iterdir()) == FILES
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)).save(out / "scan.jpg")
    for count in (1, 3, 17):
        np.save(out / f"batch-{count}.npy", random_images(count))
    subprocess.run([sys.executable, "-W", "error", "-c", FRESH_PROCESS], cwd=out, check=True)

    with np.load(out / "found.npz") as stored:
        found = dict(stored)
    classifier = compile_with_weights(classify, (trained,))
    for count in (1, 3, 17):
        assert found[str(count)].dtype == np.float32
        np.testing.assert_allclose(found[str(count)], classifier(random_images(count)), rtol=1e-4)
    _, printed, _ = run_train("predict", run, out / "scan.jpg", "--json")
    (predicted,) = json.loads(printed)["images"]
    np.testing.assert_allclose(found["scan"], [list(predicted["probabilities"].values())], rtol=1e-4)


# Each crop, normalisation, dtype and kind of model, at sizes that are the data's, smaller and larger.
fits_jax2onnx = pytest.mark.skipif(jax.__version_info__ >= (0, 12), reason="jax2onnx doesn't fit this JAX yet")

CLASSIFIERS = {
    "crop": (MODEL, {"crop": "head"}),
    "smaller": (MODEL, {"image_size": 56, "tta": "flip"}),
    "larger": (MODEL, {"crop": "head", "image_size": 72, "normalization": "percentile"}),
    "bfloat16": (MODEL.clone(dtype=jnp.bfloat16), {"image_size": 60, "normalization": "foreground-z-score"}),
    "unet": (UNetClassifier(features=2, head="pooled"), {"image_size": 48, "normalization": "per-image-z-score"}),
    "resnet": (
        ResNetClassifier(features=2, blocks=(1, 1, 1, 1)),
        {"image_size": 80, "normalization": "imagenet", "tta": "flip"},
    ),
}


@fits_jax2onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_can_be_trained_is_exported_to_both_formats_and_says_what_predict_and_evaluate_say(name):
    model, options = CLASSIFIERS[name]
    # As in training, where Flax mixes the two types.
    with jax.numpy_dtype_promotion("standard" if name == "bfloat16" else "strict"):
        trained = random_trained(model, SIZE, **options)
        batch = smooth_images(3, size=SIZE)
        predicted = np.asarray(compile_with_weights(classify, (trained,))(batch))
        evaluated = jax.nn.softmax(predict_logits(trained, batch, batch_size=3))
        exported = jax_export.deserialize(serialize_classifier((trained,)))
        program, difference = onnx_classifier((trained,))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    ((images,), (probabilities,)) = exported.in_avals, exported.out_avals
    assert (images.dtype, images.shape[1:]) == (np.uint8, (SIZE, SIZE, 1))
    assert not isinstance(images.shape[0], int)
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (images.shape[0], len(CLASSES)))
    rounding = 0.05 if name == "bfloat16" else 1e-4
    np.testing.assert_allclose(evaluated, predicted, atol=rounding)
    # In ONNX Runtime, a pixel of a resized image may be rounded to the next grey level.
    in_onnx = max(rounding, 5e-3)
    assert difference < in_onnx
    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [SIZE, SIZE, 1])
    assert (made.name, made.type, made.shape[1:]) == ("probabilities", "tensor(float)", [len(CLASSES)])
    np.testing.assert_allclose(jax.jit(exported.call)(batch), predicted, atol=rounding)
    for count in (1, 3):
        found = session.run(None, {"images": batch[:count]})[0]
        np.testing.assert_allclose(found, predicted[:count], atol=in_onnx)


@fits_jax2onnx
@pytest.mark.slow
def test_several_runs_become_one_program_of_their_mean_that_names_them_all(run_train, run, tmp_path):
    other = save_random_run(tmp_path / "other", random_trained(MODEL, SIZE, image_size=56))
    code, printed, err = run_train("export", run, other, tmp_path / "out", "--format", "onnx")
    assert (code, err) == (0, "")
    assert re.search(r"classifier.onnx  \d\.\d MB, ONNX opset \d+; within \de-0\d of the probabilities in JAX", printed)
    metadata = json.loads((tmp_path / "out" / "classifier.json").read_text("utf-8"))
    assert [of["run"] for of in metadata["members"]] == ["random", "other"]
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert readme.count("the best by macro F1 on the validation images") == 2
    images = random_images(5)
    use, _ = re.findall("```python\n(.*?)```", readme, flags=re.DOTALL)
    scope = {"images": images}
    with contextlib.chdir(tmp_path / "out"):
        exec(use, scope)
    np.testing.assert_allclose(scope["probabilities"], jaxcnn.load([run, other])(images), atol=5e-3)


@pytest.mark.slow
def test_an_export_can_be_tried_in_the_place_of_its_run(run_train, run, tmp_path):
    assert run_train("export", run, tmp_path / "out")[0] == 0
    images = random_images(5)
    np.testing.assert_allclose(jaxcnn.load(tmp_path / "out")(images), jaxcnn.load(run)(images), rtol=1e-4)
    assert jaxcnn.load(tmp_path / "out").unlike(images) is None


def test_an_export_that_was_changed_is_refused(run_train, run, tmp_path):
    assert run_train("export", run, tmp_path / "out")[0] == 0
    path = tmp_path / "out" / "classifier.jax"
    program = bytearray(path.read_bytes())
    program[len(program) // 2] ^= 1  # One bit, of the weights.
    path.write_bytes(program)
    with pytest.raises(UserError, match="is not the file that was exported"):
        jaxcnn.load(tmp_path / "out")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        # The version of the calling convention, as a JAX of another time writes it.
        (
            lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
            "is too old, too new, or no exported classifier",
        ),
        (lambda path: path.write_bytes(b"PK foreign"), "is too old, too new, or no exported classifier"),
        (lambda path: path.unlink(), "has no classifier.jax"),
        (
            lambda path: path.with_suffix(".json").write_text('{"classes": ["a"], "image_shape": [9, 9, 1]}'),
            "it takes other images",
        ),
    ],
)
def test_an_expired_or_foreign_export_is_told_in_one_line(run_train, program, tmp_path, damage, problem):
    out = tmp_path / "out"
    out.mkdir()
    (out / "classifier.jax").write_bytes(program)
    (out / "classifier.json").write_text(json.dumps({"classes": CLASSES, "image_shape": [SIZE, SIZE, 1]}))
    damage(out / "classifier.jax")
    code, printed, err = run_train("predict", out, out / "a.png")
    assert (code, printed, err.count("\n")) == (2, "", 1)
    assert problem in err
    code, _, err = run_train("export", out, tmp_path / "again")
    assert (code, err) == (2, f"error: {out}: is an exported classifier already; name the run that it was made from\n")


def test_what_onnx_needs_is_named_where_it_is_missing(run_train, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    code, _, err = run_train("export", run, tmp_path / "out", "--format", "onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "ONNX needs the package jax2onnx; install it with pip install 'jaxcnn[onnx]'" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_jax_that_jax2onnx_does_not_fit_is_told_in_one_line(run_train, run, tmp_path, monkeypatch):
    def use_what_is_gone(*_, **__):
        raise AttributeError("module 'jax._src.core' has no attribute 'ClosedJaxpr'")

    monkeypatch.setattr(jax2onnx, "to_onnx", use_what_is_gone)
    code, _, err = run_train("export", run, tmp_path / "out", "--format", "onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert f"jax2onnx doesn't fit JAX {jax.__version__}" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@fits_jax2onnx
def test_a_program_that_says_something_else_is_not_written(trained, monkeypatch):
    # What is compared is another classifier.
    other = dataclasses.replace(trained, preprocessing=Preprocessing())
    monkeypatch.setattr(
        jaxcnn.inference.onnx_program,
        "compile_with_weights",
        lambda function, _: compile_with_weights(function, (other,)),
    )
    with pytest.raises(UserError, match="ONNX: the program gives probabilities that differ by up to"):
        onnx_classifier((trained,))


def test_it_is_told_what_it_is_and_where_it_comes_from(run_train, run, tmp_path):
    run_train("export", run, tmp_path / "out")
    metadata = json.loads((tmp_path / "out" / "classifier.json").read_text("utf-8"))
    assert metadata["classes"] == list(CLASSES)
    assert metadata["image_shape"] == [SIZE, SIZE, 1]
    assert metadata["preprocessing"]["normalization"] == "per-image-z-score"
    # Those of the epoch that the weights are of, which is neither the first nor the last.
    assert metadata["scores"]["test"] == pytest.approx({"accuracy": 0.29, "f1_macro": 0.30, "f1_weighted": 0.31})
    assert metadata["images"] == {"train": 12, "validation": 12, "test": 12}
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    for known in ("`random`", "after epoch 2", "`leak-free`", "12 train, 12 validation, 12 test", "0123abc", *CLASSES):
        assert known in readme
    assert "| test | 0.290 | 0.300 | 0.310 |" in readme
    assert "not a medical device" in readme
    assert max(map(len, readme.splitlines())) <= 120


@pytest.mark.slow
def test_the_readme_reads_pictures_as_the_project_does(run_train, run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_train("export", run, out)
    monkeypatch.chdir(out)
    random = np.random.default_rng(0)
    turned, alpha = Image.Exif(), random.integers(0, 256, (40, 50, 4), np.uint8)
    turned[274] = 6
    names = {
        "turned.jpg": (random.integers(0, 256, (40, 70, 3), np.uint8), {"exif": turned}),
        "alpha.png": (alpha, {}),
        "16-bits.png": (random.integers(0, 4096, (50, 60)).astype(np.uint16), {}),
        "floats.tif": (random.normal(size=(50, 60)).astype(np.float32), {}),
        "scan.webp": (alpha[..., :3], {}),
        "scan.bmp": (alpha[..., 0], {}),
    }
    for name, (pixels, options) in names.items():
        write_picture(out / name, pixels, **options)
    (_, prepare) = re.findall("```python\\n(.*?)```", (out / "README.md").read_text("utf-8"), flags=re.DOTALL)
    scope = {}
    exec(prepare.replace('["scan.jpg"]', repr(list(names))), scope)
    expected = [to_square(read_picture((out / name).read_bytes()).slices[0].pixels, SIZE) for name in names]
    np.testing.assert_array_equal(scope["images"], expected)


def test_a_run_that_was_stopped_before_its_scores_is_exported_without_any(run_train, trained, tmp_path):
    run = save_random_run(tmp_path / "run", trained)
    (run / "metrics.jsonl").unlink()
    assert run_train("export", run, tmp_path / "out")[0] == 0
    assert "Scores: none" in (tmp_path / "out" / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_an_older_export_is_replaced_only_if_asked_for_and_nothing_else_is(run_train, run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert run_train("export", run, out)[0] == 0
    (out / "classifier.json").write_text("older")
    code, _, err = run_train("export", run, out)
    assert (code, err) == (2, f"error: {out}: exists; replace it with --overwrite\n")
    assert (out / "classifier.json").read_text("utf-8") == "older"
    assert run_train("export", run, out, "--overwrite")[0] == 0
    assert json.loads((out / "classifier.json").read_text("utf-8"))

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    code, _, err = run_train("export", run, tmp_path / "other", "--overwrite")
    assert code == 2
    assert "exists but is not an exported classifier" in err
    assert (tmp_path / "other" / "precious").exists()

    (out / "precious").touch()
    code, _, err = run_train("export", run, out, "--overwrite")
    assert (code, err) == (2, f"error: {out}: contains precious beside an exported classifier; choose another folder\n")
    (out / "precious").unlink()
    monkeypatch.chdir(out)
    assert run_train("export", run, ".", "--overwrite")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_failure_leaves_nothing_behind(run_train, run, tmp_path, monkeypatch):
    def disk_is_full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(jaxcnn.inference.export, "replace_folder", disk_is_full)
        code, _, err = run_train("export", run, tmp_path / "out")
    assert code == 2
    assert re.fullmatch(r"error: .*out: can't be written: No space left on device; choose another place\n", err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "config.json").unlink(), "no run folder"),
        (lambda run: (run / "best").rename(run / "worst"), "has no network (no best/)"),
        (lambda run: (run / "environment.json").write_text("{"), "environment.json: is damaged"),
    ],
)
def test_wrong_input_is_told_in_one_line(run_train, trained, tmp_path, damage, message):
    run = save_random_run(tmp_path / "run", trained)
    damage(run)
    code, _, err = run_train("export", run, tmp_path / "out")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
