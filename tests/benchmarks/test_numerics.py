"""A sentinel: what XLA compiles of every layer, and of a training step, is float64's result but for rounding.

A compiler can be wrong (jaxlib 0.10.2 is, for some sums on a CPU), and a test against the same compiler's own
operations would not notice. The reference is PyTorch in float64.
"""

import pytest

pytest.importorskip("torch")

from benchmarks.numerics import LAYERS, MODELS, layer_errors, network_errors

BATCH = 4


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_layer_rounds_no_more_than_its_docstring_says(layer):
    """The bounds are those of `jaxcnn.cpu.conv_general_dilated`; other layers stay far below."""
    errors = layer_errors(layer, BATCH)
    assert errors["output"].ours < 2e-5
    assert errors["gradient"].ours < 3e-5


# Where a rounding changes the largest pixel of a window, the whole gradient of the window moves to another pixel, in
# PyTorch as well: below the SimpleCNN's last max-pool a gradient may be off by a share of a percent to some percent.
BELOW_MAX_POOL = ("conv1", "norm1", "conv2", "norm2", "squeeze_excite", "residual", "shortcut")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_s_logits_and_gradients_are_those_of_float64(name):
    errors = network_errors(MODELS[name], BATCH)
    assert len(errors) > 8
    for layer, error in errors.items():
        bound = 0.1 if name == "SimpleCNN" and layer.startswith(BELOW_MAX_POOL) else 5e-4
        assert error.ours < bound, layer
        assert error.torch < bound, layer
