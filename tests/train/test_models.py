"""A U-Net's classifier starts from the encoder that was named, and learns at two rates."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import save_random_weights

from jaxcnn import SimpleCNN, UNet
from jaxcnn.models.unet import STAGE_NAMES
from jaxcnn.models.unet_classifier import UNET_CLASSIFIER, UNetOptions
from train.__main__ import main
from train.network import build_network, draw_variables
from train.optimizer import build_optimizer, learning_rate_schedule
from train.options import make_config

TINY_UNET = UNet(features=2)


@pytest.mark.slow
def test_the_encoder_is_the_one_that_was_named(tmp_path):
    unet = save_random_weights(tmp_path / "unet", TINY_UNET, (32, 48, 3))
    network = build_network(make_config("unet", encoder=str(tmp_path / "unet"), width=0.02), 4, (128, 128, 1))
    variables = draw_variables(network, (128, 128, 1))[1](0)
    assert network.model.features == 2
    assert network.frozen == tuple(("unet", stage) for stage in STAGE_NAMES[:4])
    for collection in ("params", "batch_stats"):
        assert set(variables[collection]["unet"]) == set(STAGE_NAMES)
        for stage in STAGE_NAMES:
            jax.tree.map(np.testing.assert_array_equal, variables[collection]["unet"][stage], unet[collection][stage])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            None,
            r"--encoder is missing: .* `python -m convert unet --hub weights` .* `python -m convert unet CHECKPOINT.pt",
        ),
        ("nothing", r"nothing: holds no weights"),
        ("simplecnn", r"simplecnn: is a SimpleCNN, not a UNet"),
    ],
)
def test_without_a_fitting_encoder_nothing_is_written(tmp_path, monkeypatch, capsys, encoder, message):
    if encoder == "simplecnn":
        simplecnn = SimpleCNN(stem_features=(2, 3), skip_features=2, head_features=3, hidden_features=4)
        save_random_weights(tmp_path / encoder, simplecnn, (64, 64, 1))
    named = [] if encoder is None else ["--encoder", str(tmp_path / encoder)]
    monkeypatch.setattr(sys, "argv", ["train", "unet", *named, "--run-dir", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert re.search(message, shown)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("unet", {"encoder": "random", "views": 4}, "views 4: needs an augmentation, and the cache"),
        ("unet", {"augment": "brain-mri", "cache": False, "views": 4}, "views 4: needs an augmentation, and the cache"),
        ("unet", {"unet_learning_rate": 0.0}, "unet_learning_rate 0.0: must be above 0"),
        ("segmentation", {"width": 65.0}, "width 65.0: must be above 0 and at most 64"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        make_config(model, **options)


@pytest.mark.parametrize("options", [{}, {"encoder": "random", "head": "pooled"}, {"encoder": "weights"}])
def test_the_width_is_that_of_all_layers_that_were_not_converted(options):
    model = UNET_CLASSIFIER.build(
        UNetOptions(width=0.25, **options), 4, UNet() if options == {"encoder": "weights"} else None
    )
    assert (model.features, model.head_features) == (32 if options == {"encoder": "weights"} else 8, 64)


def test_where_only_the_encoder_has_a_width_another_is_refused():
    """So `--grid encoder=RUN,random --width 0.5` compares like with like."""
    for head, width in (("pooled", 1.0), ("pooled", 0.5), ("reference", 0.25)):
        options = UNetOptions(encoder="weights", head=head, width=width)
        assert UNET_CLASSIFIER.build(options, 4, UNet(features=16)).features == 16
    options = UNetOptions(encoder="weights", head="pooled", width=0.25)
    with pytest.raises(ValueError, match=r"is 0\.5 times as wide as usual; give --width 0\.5, or"):
        UNET_CLASSIFIER.build(options, 4, UNet(features=16))


@pytest.mark.slow
def test_with_imagenets_normalisation_a_unet_of_three_channels_sees_three():
    network = build_network(
        make_config("unet", encoder="random", width=0.02, normalization="imagenet"), 4, (128, 128, 1)
    )
    shapes, _ = draw_variables(network, (128, 128, 3))
    assert shapes["params"]["unet"]["encoder1"]["conv1"]["kernel"].shape == (3, 3, 3, 1)


def test_what_lies_below_the_unet_has_a_learning_rate_of_its_own():
    params = {"unet": {"kernel": jnp.ones((2, 3))}, "conv": {"kernel": jnp.ones((2, 3))}}
    gradients = jax.tree.map(lambda leaf: 0.3 * leaf, params)

    def step(rate, factors):
        optimizer = build_optimizer(learning_rate_schedule("constant", rate, 0, 10), 0.1, factors)
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    both = step(1e-2, {"unet": 0.1})
    np.testing.assert_allclose(both["conv"]["kernel"], step(1e-2, {})["conv"]["kernel"], rtol=1e-6)
    np.testing.assert_allclose(both["unet"]["kernel"], step(1e-3, {})["unet"]["kernel"], rtol=1e-6)
