"""A sentinel: what XLA compiles of every layer, and of a training step, is float64's result but for rounding.

A compiler can be wrong (jaxlib 0.10.2 is, for some sums on a CPU), and a test against the same compiler's own
operations would not notice. The reference is PyTorch in float64.
"""

import pytest

pytest.importorskip("torch")

from benchmarks.numerics import LAYERS, MODELS, layer_errors, network_errors

pytestmark = pytest.mark.optimized
BATCH = 4


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_layer_rounds_no_more_than_its_docstring_says(layer):
    """The bounds are those of `jaxcnn.cpu.conv_general_dilated`; other layers stay far below."""
    errors = layer_errors(layer, BATCH)
    assert errors["output"].ours < 2e-5
    assert errors["gradient"].ours < 3e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_s_logits_and_gradients_are_those_of_float64(name):
    errors = network_errors(MODELS[name], BATCH)
    assert len(errors) > 8
    for layer, error in errors.items():
        # A rounding may move a gradient to another pixel of a window, in PyTorch too: 0.6% is seen.
        bound = 1e-4 if layer in ("logits", "classifier") else 2e-2
        assert error.ours < bound, layer
        assert error.torch < bound, layer
