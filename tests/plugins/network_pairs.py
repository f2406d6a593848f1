"""Small networks written twice, in PyTorch and in Flax, each for what is hard to convert about it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as fnn
import jax.numpy as jnp
import torch
from torch import nn
from torch.nn import functional

from convert.recipe import Recipe


class TorchDepthwise(nn.Module):
    """An inverted residual of MobileNet: depthwise (dilated), pointwise and grouped convolutions; flatten, linear."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        depthwise = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(16), nn.ReLU6(inplace=True))
        self.project = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.classifier = nn.Linear(12 * 4 * 6, 5)

    def forward(self, images):
        x = self.stem(images)
        x = x + self.project(self.depthwise(self.expand(x)))
        x = functional.max_pool2d(torch.relu(self.grouped(x)), 2)
        return self.classifier(x.flatten(1))


class FlaxDepthwise(fnn.Module):
    epsilon: float = 1e-5
    padding: Any = 1

    @fnn.compact
    def __call__(self, images, *, train):
        def norm(x):
            return fnn.BatchNorm(use_running_average=not train, epsilon=self.epsilon)(x)

        x = fnn.relu6(norm(fnn.Conv(8, (3, 3), 2, padding=self.padding, use_bias=False)(images)))
        y = fnn.relu6(norm(fnn.Conv(16, (1, 1), use_bias=False)(x)))
        conv = fnn.Conv(16, (3, 3), padding=2, kernel_dilation=2, feature_group_count=16, use_bias=False)
        y = fnn.relu6(norm(conv(y)))
        x = x + norm(fnn.Conv(8, (1, 1), use_bias=False)(y))
        x = fnn.relu(fnn.Conv(12, (3, 3), padding=1, feature_group_count=4)(x))
        x = fnn.max_pool(x, (2, 2), (2, 2))
        return fnn.Dense(5)(x.reshape(x.shape[0], -1))


class TorchNorms(nn.Module):
    """GroupNorm, InstanceNorm, LayerNorm over an image and over channels; both kinds of transposed convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.group_norm = nn.GroupNorm(4, 8)
        self.up = nn.ConvTranspose2d(8, 8, 3, stride=2)
        self.instance_norm = nn.InstanceNorm2d(8, affine=True)
        self.up_again = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.image_norm = nn.LayerNorm([8, 8, 12])
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(48, 48), nn.GELU(), nn.LayerNorm(48))
        self.classifier = nn.Linear(48, 4)

    def forward(self, images):
        x = torch.relu(self.group_norm(self.conv(images)))
        x = functional.silu(self.instance_norm(self.up(x)))
        x = functional.avg_pool2d(self.up_again(x), 2)[:, :, :8, :12]
        x = functional.avg_pool2d(self.image_norm(x), 4)
        return self.classifier(self.head(x))


class FlaxNorms(fnn.Module):
    epsilons: tuple[float, float, float, float] = (1e-5, 1e-5, 1e-5, 1e-5)

    @fnn.compact
    def __call__(self, images, *, train):
        group, instance, image, layer = self.epsilons
        x = fnn.Conv(8, (3, 3), padding="VALID")(images)
        x = fnn.relu(fnn.GroupNorm(4, epsilon=group)(x))
        x = fnn.ConvTranspose(8, (3, 3), (2, 2), padding="VALID")(x)
        x = fnn.silu(fnn.InstanceNorm(epsilon=instance)(x))
        x = fnn.ConvTranspose(8, (2, 2), (2, 2), padding="VALID", transpose_kernel=True)(x)
        x = fnn.avg_pool(x, (2, 2), (2, 2))[:, :8, :12]
        axes = (1, 2, 3)
        x = fnn.avg_pool(fnn.LayerNorm(epsilon=image, reduction_axes=axes, feature_axes=axes)(x), (4, 4), (4, 4))
        x = fnn.gelu(fnn.Dense(48)(x.reshape(x.shape[0], -1)), approximate=False)
        return fnn.Dense(4)(fnn.LayerNorm(epsilon=layer)(fnn.Dropout(0.5, deterministic=not train)(x)))


class TorchTransformer(nn.Module):
    """A vision transformer of two blocks, one with PyTorch's attention, the other with projections in one layer."""

    def __init__(self, width=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + 4 * 6, width))
        self.blocks = nn.ModuleList([TorchBlock(width), TorchBlock(width, stacked=True)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 3)
        self.auxiliary = nn.Linear(width, 7)  # Trained with, and never used again.

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class TorchBlock(nn.Module):
    def __init__(self, width, stacked=False):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = TorchAttention(width) if stacked else nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        y = self.norm1(x)
        y = self.attn(y) if isinstance(self.attn, TorchAttention) else self.attn(y, y, y, need_weights=False)[0]
        x = x + y
        return x + self.mlp(self.norm2(x))


class TorchAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        query, key, value = self.qkv(x).reshape(batch, length, 3, 4, -1).permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


class FlaxTransformer(fnn.Module):
    epsilon: float = 1e-6

    @fnn.compact
    def __call__(self, images, *, train):
        del train
        x = fnn.Conv(16, (8, 8), (8, 8), padding="VALID", name="patches")(images).reshape(images.shape[0], -1, 16)
        token = self.param("class_token", fnn.initializers.zeros, (1, 1, 16))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        x = x + self.param("positions", fnn.initializers.zeros, (1, 25, 16))
        for place in range(2):
            x = FlaxBlock(self.epsilon, name=f"block{place}")(x)
        return fnn.Dense(3, name="head")(fnn.LayerNorm(self.epsilon, name="norm")(x)[:, 0])


class FlaxBlock(fnn.Module):
    epsilon: float

    @fnn.compact
    def __call__(self, x):
        y = fnn.LayerNorm(self.epsilon)(x)
        x = x + fnn.MultiHeadDotProductAttention(4)(y)
        y = fnn.gelu(fnn.Dense(32)(fnn.LayerNorm(self.epsilon)(x)), approximate=False)
        return x + fnn.Dense(16)(y)


class TorchShared(nn.Module):
    """A layer that runs twice and has two names, a kernel that two layers share, and a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.third, self.fourth = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(4))
        self.fourth.weight = self.third.weight
        self.alias = self.again
        self.stem = nn.Conv2d(3, 6, 1)
        self.unused = nn.Linear(6, 2)
        self.head = nn.Linear(6, 2)

    def forward(self, images):
        x = torch.relu(self.first(self.stem(images)))
        for layer in (self.again, self.third, self.alias, self.fourth):
            x = torch.relu(layer(x))
        return self.head(x.mean(dim=(2, 3)))


class FlaxShared(fnn.Module):
    """The kernel that is shared in PyTorch is two leaves."""

    @fnn.compact
    def __call__(self, images, *, train):
        del train
        again = fnn.Conv(6, (3, 3), padding=1, name="again")
        x = fnn.relu(fnn.Conv(6, (3, 3), padding=1)(fnn.Conv(6, (1, 1))(images)))
        x = fnn.relu(again(x))
        x = fnn.relu(fnn.Conv(6, (3, 3), padding=1)(x))
        x = fnn.relu(again(x))
        x = fnn.relu(fnn.Conv(6, (3, 3), padding=1)(x))
        return fnn.Dense(2)(jnp.mean(x, axis=(1, 2)))


class TorchBranches(nn.Module):
    """Two branches of equal shapes."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return torch.sigmoid(self.left(images)) * self.right(images)


class FlaxBranches(fnn.Module):
    """They run in the other order than in PyTorch, and have other names. There is no argument but the images."""

    @fnn.compact
    def __call__(self, images):
        values = fnn.Conv(4, (3, 3), padding="VALID")(images)
        return values * fnn.sigmoid(fnn.Conv(4, (3, 3), padding="VALID")(images))


@dataclasses.dataclass(frozen=True)
class Pair:
    """Both networks, and the shape of their images."""

    torch_network: Callable[[], nn.Module]
    model: fnn.Module
    image_shape: tuple[int, int, int]
    arguments: dict[str, Any] = dataclasses.field(default_factory=lambda: {"train": False})

    def recipe(self, table=None):
        return Recipe(self.torch_network, self.model, self.image_shape, table, self.arguments)


PAIRS = {
    "depthwise": Pair(TorchDepthwise, FlaxDepthwise(), (16, 24, 3)),
    "norms": Pair(TorchNorms, FlaxNorms(), (16, 24, 3)),
    "transformer": Pair(TorchTransformer, FlaxTransformer(), (32, 48, 3)),
    "shared": Pair(TorchShared, FlaxShared(), (8, 10, 3)),
    "branches": Pair(TorchBranches, FlaxBranches(), (6, 9, 3), {}),
}
