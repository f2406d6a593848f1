"""ResNets: torchvision's architecture is proven in tests/convert; here is what a classifier on one does with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_network import random_network

from jaxcnn.data.normalization import imagenet
from jaxcnn.models.resnet import RESNETS, STAGE_NAMES, ResNet, ResNetClassifier, ResNetOptions
from jaxcnn.models.unet import UNet

TINY = ResNetClassifier(features=2, frozen_stages=3)
SHAPE = (2, 64, 96, 1)


@pytest.fixture(scope="module")
def network():
    return random_network(TINY, SHAPE)


def test_the_weights_of_a_resnet_fit_as_they_are():
    images = jnp.zeros((1, 64, 96, 3))
    encoder = jax.eval_shape(lambda: ResNet(features=2).init(jax.random.key(0), images, False, method="encode"))
    classifier = jax.eval_shape(lambda: TINY.init(jax.random.key(0), images, train=False))
    for collection in ("params", "batch_stats"):
        assert classifier[collection]["resnet"] == encoder[collection]


@pytest.mark.slow
def test_grey_images_are_three_equal_channels(network):
    images, variables = network
    apply = jax.jit(lambda x: TINY.apply(variables, x, train=False))
    np.testing.assert_array_equal(apply(images), apply(jnp.repeat(images, 3, axis=-1)))


@pytest.mark.slow
def test_frozen_stages_don_t_learn_and_the_others_do(network):
    images, variables = network

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, changed = TINY.apply(
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return jnp.sum(logits**2), changed["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    gradients, statistics = gradient(variables["params"])
    frozen = {names[-1] for names in RESNETS["resnet18"].frozen(ResNetOptions(train_from=STAGE_NAMES[3]))}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}
    for name, tree in gradients["resnet"].items():
        moves = any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(tree))
        assert moves == (name not in frozen), name
    for name, tree in statistics["resnet"].items():
        pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(variables["batch_stats"]["resnet"][name]), strict=True)
        assert all(bool(jnp.array_equal(*pair)) for pair in pairs) == (name in frozen), name


def test_an_encoder_must_be_the_resnet_of_that_name():
    options = ResNetOptions(train_from="head")
    build = RESNETS["resnet50"].build
    bottlenecks = ResNet(block="bottleneck", blocks=(3, 4, 6, 3), features=5)
    model = build(options, 3, bottlenecks)
    assert (model.features, model.classes, model.frozen_stages) == (5, 3, 5)
    for other in (ResNet(), UNet()):
        with pytest.raises(ValueError, match="is no resnet50; python -m convert resnet50 writes one"):
            build(options, 3, other)
    wider = ResNetOptions(encoder="weights", width=0.5)
    with pytest.raises(ValueError, match=r"is 0\.078125 times as wide as usual; give --width 0\.078125"):
        build(wider, 3, bottlenecks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width 0"),
        ({"resnet_learning_rate": 0}, "resnet_learning_rate 0"),
    ],
)
def test_options_that_leave_or_change_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        ResNetOptions(**options)


def test_imagenet_s_normalisation_makes_three_channels_of_grey():
    images = np.random.default_rng(0).uniform(size=(2, 3, 4, 1)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.repeat(images, 3, axis=-1) - mean) / deviation
    np.testing.assert_allclose(imagenet(jnp.asarray(images)), expected, rtol=1e-5, atol=1e-5)
