"""Images are framed once before the first step, and what is trained so is used on images as they come."""

import jax
import numpy as np
import pytest

from jaxcnn.data.load import load_dataset
from jaxcnn.inference.trained import classify, compile_with_weights, load_best
from jaxcnn.runs.folder import open_run, read_predictions

FRAMED = ["--crop", "--image-size", "64", "--normalization", "per-image-z-score", "--tta", "flip"]
SHORT = ["--max-images", "32", "--epochs", "1", "--batch-size", "8"]
MODELS = {
    "simplecnn": ["simplecnn", "--width", "0.05"],
    "unet": ["unet", "--encoder", "random", "--width", "0.07", "--head", "pooled"],
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_classifier_of_small_images_takes_images_as_they_come(model, run_train, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run_train(*MODELS[model], *FRAMED, *SHORT, "--run-dir", tmp_path / "run")[0] == 0
    trained = load_best(open_run(tmp_path / "run"))
    images = load_dataset("phantom", 32).splits["test"].images
    assert images.shape[1:] == trained.image_shape == (128, 128, 1)
    expected = jax.nn.softmax(read_predictions(open_run(tmp_path / "run"), "test").logits)
    # A grey level of difference where a framed pixel is rounded the other way.
    np.testing.assert_allclose(compile_with_weights(classify, (trained,))(images), expected, atol=2e-3)


@pytest.mark.slow
def test_a_size_that_the_network_does_not_take_is_refused(run_train, tmp_path):
    code, _, error = run_train("simplecnn", "--image-size", "40", *SHORT, "--run-dir", tmp_path / "run")
    assert code == 2
    assert error.startswith("error: --image-size 40: SimpleCNN needs images of at least 50x50")
    assert not (tmp_path / "run").exists()
