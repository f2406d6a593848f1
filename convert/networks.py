"""Define the PyTorch networks to compare with: the hub's U-Net, the reference project's two models, and ResNets.

Their state_dicts have the keys, order and shapes of the checkpoints. Dropout is there for its place in the numbering.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn


def _unet_stage(name: str, channels: int, features: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in (1, 2):
        layers[f"{name}conv{i}"] = nn.Conv2d(channels if i == 1 else features, features, 3, padding=1, bias=False)
        layers[f"{name}norm{i}"] = nn.BatchNorm2d(features)
        layers[f"{name}relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)


class HubUNet(nn.Module):
    """The U-Net of mateuszbuda/brain-segmentation-pytorch (unet.py there)."""

    def __init__(self, in_channels: int, out_channels: int, features: int) -> None:
        super().__init__()
        widths = [features * 2**i for i in range(4)]
        self.pool = nn.MaxPool2d(2)
        self.encoder1 = _unet_stage("enc1", in_channels, widths[0])
        self.encoder2 = _unet_stage("enc2", widths[0], widths[1])
        self.encoder3 = _unet_stage("enc3", widths[1], widths[2])
        self.encoder4 = _unet_stage("enc4", widths[2], widths[3])
        self.bottleneck = _unet_stage("bottleneck", widths[3], 2 * widths[3])
        for n in (4, 3, 2, 1):
            width = widths[n - 1]
            self.add_module(f"upconv{n}", nn.ConvTranspose2d(2 * width, width, 2, stride=2))
            self.add_module(f"decoder{n}", _unet_stage(f"dec{n}", 2 * width, width))
        self.conv = nn.Conv2d(features, out_channels, 1)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The bottleneck, and the outputs of encoder 1 to 4."""
        x = images
        skips = []
        for encoder in (self.encoder1, self.encoder2, self.encoder3, self.encoder4):
            x = encoder(x)
            skips.append(x)
            x = self.pool(x)
        return self.bottleneck(x), skips

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The mask: the probability of each pixel."""
        x, skips = self.encode(images)
        for n in (4, 3, 2, 1):
            upsampled = self.get_submodule(f"upconv{n}")(x)
            x = self.get_submodule(f"decoder{n}")(torch.cat([upsampled, skips[n - 1]], dim=1))
        return torch.sigmoid(self.conv(x))


GATES: dict[str, Callable[[], nn.Module]] = {"softmax": lambda: nn.Softmax(dim=1), "sigmoid": nn.Sigmoid}


class ReferenceSimpleCNN(nn.Module):
    """The reference project's SimpleCNN for grey images, without the softmax that it ends with.

    `flattened_size` pixels are left before the dense layers, 25 of an image of 128x128. Its gate is a softmax.
    """

    def __init__(
        self,
        classes: int,
        stem_features: tuple[int, int],
        squeeze_features: int,
        skip_features: int,
        head_features: int,
        hidden_features: int,
        flattened_size: int = 25,
        gate: str = "softmax",
    ) -> None:
        super().__init__()
        first, stem = stem_features
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, first, 3),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, stem, 5),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
        )
        self.SEBlock1 = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(stem, squeeze_features),
            nn.ReLU(),
            nn.Linear(squeeze_features, stem),
            GATES[gate](),
        )
        self.sepconv = nn.Conv2d(stem, skip_features, 1)
        self.module1 = nn.Sequential(
            nn.Conv2d(stem, skip_features, 5, padding=2), nn.ReLU(), nn.Conv2d(skip_features, skip_features, 1)
        )
        self.final = nn.Sequential(
            nn.MaxPool2d(4),
            nn.Conv2d(skip_features, head_features, 5, stride=2),
            nn.BatchNorm2d(head_features),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(head_features * flattened_size, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.conv1(images)
        x = x * self.SEBlock1(x)[:, :, None, None]
        return self.final(torch.relu(self.sepconv(x) + self.module1(x)))


class MeanMaxPool(nn.Module):
    """Mean and maximum of every channel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The means, and behind them the maxima."""
        return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)


class ReferenceUNetClassifier(nn.Module):
    """The reference project's transfer model: the whole U-Net is kept, its encoder and bottleneck are used.

    `flattened_size` pixels are left before the dense layers, 1 of an image of 128x128. The `pooled` head is ours.
    """

    def __init__(
        self,
        classes: int,
        features: int,
        head_features: int,
        hidden_features: int,
        flattened_size: int = 1,
        head: str = "reference",
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.unet = HubUNet(in_channels, 1, features)
        reference = (
            nn.Conv2d(features * 16, head_features, 8),
            nn.BatchNorm2d(head_features),
            nn.Flatten(),
            nn.SELU(),
            nn.Dropout(),
            nn.Linear(head_features * flattened_size, hidden_features),
            nn.SELU(),
            nn.Dropout(),
            nn.Linear(hidden_features, classes),
        )
        pooled = (MeanMaxPool(), nn.Dropout(), nn.Linear(features * 32, classes))
        self.classifier = nn.Sequential(*(pooled if head == "pooled" else reference))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, for grey images."""
        bottleneck, _ = self.unet.encode(images.expand(-1, self.in_channels, -1, -1))
        return self.classifier(bottleneck)


class ResidualBlock(nn.Module):
    """torchvision's BasicBlock (`convs` of two 3x3) and Bottleneck (1x1, 3x3 and 1x1, four times as wide)."""

    def __init__(self, kind: str, channels: int, features: int, stride: int) -> None:
        super().__init__()
        convs = [(features, 3, stride), (features, 3, 1)]
        if kind == "bottleneck":
            convs = [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)]
        self.convs = len(convs)
        inside = channels
        for number, (width, size, step) in enumerate(convs, start=1):
            self.add_module(f"conv{number}", nn.Conv2d(inside, width, size, step, size // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
            inside = width
        self.downsample: nn.Module | None = None
        if stride > 1 or channels != inside:
            self.downsample = nn.Sequential(nn.Conv2d(channels, inside, 1, stride, bias=False), nn.BatchNorm2d(inside))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of both ways."""
        residual = x
        for number in range(1, self.convs + 1):
            residual = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(residual))
            residual = torch.relu(residual) if number < self.convs else residual
        return torch.relu(residual + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's ResNets: `block` is basic or bottleneck, `blocks` are their numbers in layer1 to layer4."""

    def __init__(self, classes: int, block: str, blocks: tuple[int, ...], features: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, features, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = features
        for place, count in enumerate(blocks):
            width, layers = features * 2**place, []
            for number in range(count):
                layers.append(ResidualBlock(block, channels, width, 2 if place and not number else 1))
                channels = width * (4 if block == "bottleneck" else 1)
            self.add_module(f"layer{place + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(x.mean(dim=(2, 3)))
