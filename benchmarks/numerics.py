"""Rounding: what float32 makes of a layer and of a training step, here and in PyTorch, against PyTorch's float64.

A layer's error is the largest difference from the float64 result over that result's largest entry; its gradient is by
its input and its parameters, each against the largest entry of its own.

In a network a rounding may change the sign before a ReLU or the largest pixel of a window, which moves whole entries of
the gradient. So the error is there that of all entries: the length of the difference over the length of the result. The
bias before a norm has a gradient of 0 but for rounding, and is taken together with its kernel.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
import torch
from jaxtyping import Float, Float32, Int32
from torch.nn import functional

from convert.mapping import plan
from convert.recipe import Recipe
from convert.recipes import recipe_for
from jaxcnn import SimpleCNN, UNetClassifier
from jaxcnn.data.phantom import phantom_images
from jaxcnn.models.layers import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    Conv,
    MeanMaxPool,
    SqueezeExcite,
    UpConv,
    max_pool,
)
from jaxcnn.models.table import variable_shapes
from jaxcnn.models.unet import STAGE_NAMES

Tensors = Mapping[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Error:
    """Errors of ours and of PyTorch's float32."""

    ours: float
    torch: float


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer at the size that it has in a network, here and in PyTorch.

    Attributes:
        name: with the network's, if it has parameters.
        input_shape: of one example, channels last.
        module: ours; it is called with the input alone.
        theirs: of (input with the channels first, parameters in our layout), its output likewise.
    """

    name: str
    input_shape: tuple[int, ...]
    module: Callable[[Any], Any]
    theirs: Callable[[torch.Tensor, Tensors], torch.Tensor]


def _conv(
    name: str,
    input_shape: tuple[int, int, int],
    features: int,
    size: int,
    *,
    strides: int = 1,
    same: bool = False,
    use_bias: bool = True,
) -> Layer:
    def theirs(x: torch.Tensor, params: Tensors) -> torch.Tensor:
        kernel = params["kernel"].permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, params.get("bias"), strides, size // 2 if same else 0)

    padding = "SAME" if same else "VALID"
    return Layer(
        name, input_shape, Conv(features, (size, size), strides=strides, padding=padding, use_bias=use_bias), theirs
    )


def _norm(name: str, input_shape: tuple[int, int, int]) -> Layer:
    module = nn.BatchNorm(use_running_average=False, momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON)

    def theirs(x: torch.Tensor, params: Tensors) -> torch.Tensor:
        return functional.batch_norm(x, None, None, params["scale"], params["bias"], True, eps=BATCH_NORM_EPSILON)

    return Layer(name, input_shape, module, theirs)


def _dense(name: str, inputs: int, outputs: int) -> Layer:
    return Layer(name, (inputs,), nn.Dense(outputs), lambda x, params: x @ params["kernel"] + params["bias"])


def _max_pool(name: str, input_shape: tuple[int, int, int], size: int) -> Layer:
    return Layer(name, input_shape, partial(max_pool, size=size), lambda x, _: functional.max_pool2d(x, size))


def _squeeze_excite(x: torch.Tensor, params: Tensors) -> torch.Tensor:
    x_mean = x.mean((2, 3))
    reduced = torch.relu(x_mean @ params["reduce/kernel"] + params["reduce/bias"])
    return x * torch.sigmoid(reduced @ params["expand/kernel"] + params["expand/bias"])[:, :, None, None]


def _up_conv(x: torch.Tensor, params: Tensors) -> torch.Tensor:
    return functional.conv_transpose2d(x, params["kernel"].permute(3, 2, 0, 1), params["bias"], stride=2)


def _mean_max_pool(x: torch.Tensor, _: Tensors) -> torch.Tensor:
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)


def _cross_entropy(logits: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(len(logits)) % logits.shape[1])


def _their_cross_entropy(logits: torch.Tensor, _: Tensors) -> torch.Tensor:
    return functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1], reduction="none")


def _unet_layers() -> Iterator[Layer]:
    channels, size = 3, 128
    for stage, width in (("encoder1", 32), ("encoder2", 64), ("encoder3", 128), ("encoder4", 256), ("bottleneck", 512)):
        for name, inputs in (("conv1", channels), ("conv2", width)):
            shape = (size, size, inputs)
            yield _conv(f"U-Net {stage}/{name}", shape, width, 3, same=True, use_bias=False)
        yield _norm(f"U-Net {stage}/norm1", (size, size, width))
        channels, size = width, size // 2


LAYERS = (
    _conv("SimpleCNN conv1", (128, 128, 1), 32, 3),
    _norm("SimpleCNN norm1", (126, 126, 32)),
    _max_pool("SimpleCNN max-pool 2", (126, 126, 32), 2),
    _conv("SimpleCNN conv2", (63, 63, 32), 64, 5),
    _norm("SimpleCNN norm2", (59, 59, 64)),
    Layer("SimpleCNN squeeze_excite", (59, 59, 64), partial(SqueezeExcite(32), train=False), _squeeze_excite),
    _conv("SimpleCNN residual_conv", (59, 59, 64), 128, 5, same=True),
    _conv("SimpleCNN residual_project", (59, 59, 128), 128, 1),
    _conv("SimpleCNN shortcut", (59, 59, 64), 128, 1),
    _max_pool("SimpleCNN max-pool 4", (59, 59, 128), 4),
    _conv("SimpleCNN conv3", (14, 14, 128), 256, 5, strides=2),
    _norm("SimpleCNN norm3", (5, 5, 256)),
    _dense("SimpleCNN hidden", 6400, 1024),
    _dense("SimpleCNN classifier", 1024, 4),
    *_unet_layers(),
    Layer("U-Net upconv4", (8, 8, 512), UpConv(256), _up_conv),
    Layer("UNetClassifier pool", (8, 8, 512), MeanMaxPool(), _mean_max_pool),
    _conv("UNetClassifier conv", (8, 8, 512), 256, 8),
    _norm("UNetClassifier norm", (1, 1, 256)),
    Layer("cross-entropy", (4,), _cross_entropy, _their_cross_entropy),
)


def layer_errors(layer: Layer, batch: int) -> dict[str, Error]:
    """Errors of its output and of its gradient, compiled, on normal noise."""
    random = np.random.default_rng(0)
    x = random.normal(size=(batch, *layer.input_shape)).astype(np.float32)
    function, params = _with_parameters(layer.module, x, random)
    cotangent = random.normal(size=jax.eval_shape(function, params, x).shape).astype(np.float32)

    @jax.jit
    def run(params: Any, x: Any, cotangent: Any) -> Any:
        y, pull = jax.vjp(function, params, x)
        return y, pull(cotangent)

    y, (by_params, by_x) = jax.tree.map(np.asarray, run(params, x, cotangent))
    ours = [y, by_x, *_flat(by_params).values()]
    exact, rounded = (
        _torch_layer(layer, _flat(params), x, cotangent, dtype) for dtype in (torch.float64, torch.float32)
    )
    errors = [
        Error(_error(found, wanted), _error(theirs, wanted))
        for found, theirs, wanted in zip(ours, rounded, exact, strict=True)
    ]
    gradient = Error(max(each.ours for each in errors[1:]), max(each.torch for each in errors[1:]))
    return {"output": errors[0], "gradient": gradient}


def _with_parameters(module: Any, x: np.ndarray, random: np.random.Generator) -> tuple[Callable[..., Any], Any]:
    """A function of (parameters, input), and parameters that keep the size of what they multiply."""
    options = module.keywords if isinstance(module, partial) else {}
    flax_module = module.func if isinstance(module, partial) else module
    if not isinstance(flax_module, nn.Module):
        return (lambda _, x: module(x)), {}
    shapes = jax.eval_shape(partial(flax_module.init, **options), jax.random.key(0), x)
    others = {name: tree for name, tree in shapes.items() if name != "params"}
    statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), others)

    def apply(params: Any, x: Any) -> Any:
        y, _ = flax_module.apply({"params": params, **statistics}, x, mutable=list(others), **options)
        return y

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        scale = np.sqrt(leaf.shape[-1] / np.prod(leaf.shape)) if len(leaf.shape) > 1 else 1
        return (scale * random.normal(size=leaf.shape)).astype(np.float32)

    return apply, jax.tree.map(draw, shapes.get("params", {}))


def _torch_layer(
    layer: Layer, params: Mapping[str, np.ndarray], x: np.ndarray, cotangent: np.ndarray, dtype: torch.dtype
) -> list[np.ndarray]:
    """The output, and the gradient by the input and by each parameter."""
    leaf, *leaves = (torch.tensor(array, dtype=dtype, requires_grad=True) for array in (x, *params.values()))
    y = _channels_last(layer.theirs(_channels_first(leaf), dict(zip(params, leaves, strict=True))))
    gradients = torch.autograd.grad(y, [leaf, *leaves], torch.tensor(cotangent, dtype=dtype))
    return [tensor.detach().numpy() for tensor in (y, *gradients)]


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _flat(tree: Any) -> dict[str, np.ndarray]:
    return {"/".join(key.key for key in path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _error(found: Float[np.ndarray, "..."], exact: Float[np.ndarray, "..."]) -> float:
    return float(np.abs(found - exact).max() / np.abs(exact).max())


MODELS: dict[str, SimpleCNN | UNetClassifier] = {
    "SimpleCNN": SimpleCNN(dropout=0.0),
    "UNetClassifier": UNetClassifier(dropout=0.0),
}


def network_errors(model: SimpleCNN | UNetClassifier, batch: int) -> dict[str, Error]:
    """Errors of a training step on phantom images, compiled: of the logits, and of each trained layer's gradient."""
    recipe = recipe_for(model, 128, "none")
    network = _torch_network(recipe, model)
    arrays = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    variables = _as_tree(recipe, arrays, np.float32)
    pixels, labels = phantom_images(0, np.arange(batch))
    images = pixels.astype(np.float32) / 255

    @jax.jit
    def run(variables: Any, images: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradient, logits = jax.tree.map(np.asarray, run(variables, images))
    exact_logits, exact = _torch_step(recipe, network.double(), images, labels)
    torch_logits, rounded = _torch_step(recipe, network.float(), images, labels)
    ours, theirs, wanted = (
        {"logits": output} | _by_layer(tree)
        for output, tree in ((logits, gradient), (torch_logits, rounded), (exact_logits, exact))
    )
    return {
        name: Error(_distance(ours[name], leaves), _distance(theirs[name], leaves))
        for name, leaves in wanted.items()
        if np.any(leaves)
    }


def _distance(found: Float[np.ndarray, "..."], exact: Float[np.ndarray, "..."]) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def _torch_network(recipe: Recipe, model: SimpleCNN | UNetClassifier) -> torch.nn.Module:
    """With PyTorch's initial weights, the model's gate, without dropout; what the model freezes is frozen."""
    torch.manual_seed(0)
    network = recipe.build_network().train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if isinstance(model, UNetClassifier):
        for stage in STAGE_NAMES[: model.frozen_stages]:
            network.get_submodule(f"unet.{stage}").eval().requires_grad_(False)
    return network


def _torch_step(
    recipe: Recipe,
    network: torch.nn.Module,
    images: Float32[np.ndarray, "..."],
    labels: Int32[np.ndarray, "..."],
) -> tuple[Float[np.ndarray, "..."], Any]:
    """Logits, and the gradient as a tree of ours, which is 0 for what is not trained."""
    network.zero_grad()
    dtype = next(network.parameters()).dtype
    logits = network(_channels_first(torch.tensor(images, dtype=dtype)))
    functional.cross_entropy(logits, torch.tensor(labels).long()).backward()
    gradients = {name: np.zeros_like(tensor.numpy()) for name, tensor in network.state_dict().items()}
    trained = {name: each.grad.numpy() for name, each in network.named_parameters() if each.grad is not None}
    return logits.detach().numpy(), _as_tree(recipe, gradients | trained, logits.detach().numpy().dtype)["params"]


def _as_tree(recipe: Recipe, arrays: Mapping[str, np.ndarray], dtype: Any) -> dict[str, Any]:
    """The entries of a state_dict, in the places and layouts of the Flax model."""
    shapes = variable_shapes(recipe.model, recipe.image_shape)
    expected = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), dtype), leaf.shape), shapes)
    assert recipe.table is not None
    return plan(recipe.table, {name: array.shape for name, array in arrays.items()}, expected).to_flax(arrays)


def _by_layer(tree: Any) -> dict[str, np.ndarray]:
    """A layer's gradient, by kernel and bias or by scale and bias, as one vector."""
    leaves = _flat(tree)
    layers = dict.fromkeys(path.rpartition("/")[0] for path in leaves)
    return {
        layer: np.concatenate([leaf.ravel() for path, leaf in leaves.items() if path.rpartition("/")[0] == layer])
        for layer in layers
    }


def print_numerics(batch: int = 32) -> None:
    """The tables of docs/numerics.md."""
    print(f"jaxlib {jaxlib.__version__}, torch {torch.__version__}, batch {batch}\n")
    print("| layer | output | PyTorch's | gradient | PyTorch's |\n| --- | ---: | ---: | ---: | ---: |")
    for layer in LAYERS:
        errors = layer_errors(layer, batch)
        print(f"| {layer.name} | {_cells(errors['output'])} | {_cells(errors['gradient'])} |", flush=True)
    for name, model in MODELS.items():
        print(f"\n| {name}, a step | ours | PyTorch's |\n| --- | ---: | ---: |")
        for row, error in network_errors(model, batch).items():
            print(f"| {row} | {_cells(error)} |", flush=True)


def _cells(error: Error) -> str:
    return f"{error.ours:.1e} | {error.torch:.1e}"
