"""Training in bfloat16: activations alone are short, and the result is near that of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import unet_network

from jaxcnn import SimpleCNN, UNetClassifier
from jaxcnn.data.augment import Augmentation
from jaxcnn.data.batch import Batch
from jaxcnn.data.preprocessing import Preprocessing
from jaxcnn.models.segmentation import SegmentationUNet
from train.losses import cross_entropy
from train.network import Network, draw_variables
from train.state import create_state
from train.step import make_train_step

NETWORKS = {
    "simplecnn": (
        Network,
        SimpleCNN(stem_features=(4, 4), squeeze_features=2, skip_features=4, head_features=8, hidden_features=8),
        (50, 50, 1),
    ),
    "unet": (unet_network, UNetClassifier(features=1, head_features=4, hidden_features=4), (128, 128, 1)),
    "segmentation": (Network, SegmentationUNet(features=2), (32, 32, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_all_that_is_kept_stays_float32_and_the_step_is_nearly_the_same(name):
    build, model, shape = NETWORKS[name]
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    labels = (images[..., 0] > 128).astype(np.uint8) if name == "segmentation" else np.arange(8, dtype=np.int32) % 4
    batch = Batch(images, labels, np.ones(8, bool))
    optimizer = optax.adam(1e-3)
    results = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        network = build(model.clone(dtype=dtype), Preprocessing(), Augmentation())
        state = create_state(network, optimizer, draw_variables(network, shape)[1](0))
        state, counted = jax.jit(make_train_step(network, optimizer, cross_entropy))(state, batch, jax.random.key(1))
        floats = {leaf.dtype for leaf in jax.tree.leaves((state, counted)) if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert floats == {jnp.dtype(jnp.float32)}
        results[dtype] = state, counted
    (state, counted), (short_state, short_counted) = results.values()
    # Eight bits of mantissa: not the same, or nothing was computed in bfloat16; but the same within some percent.
    assert counted.loss != short_counted.loss
    np.testing.assert_allclose(short_counted.loss, counted.loss, rtol=0.05)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.1), short_state.batch_stats, state.batch_stats)
