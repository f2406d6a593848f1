"""The PyTorch networks that ours are compared with: the hub's U-Net and the reference project's two models.

Their state_dicts have the keys, order and shapes of the checkpoints. Dropout is there for its place in the numbering.
"""

from collections import OrderedDict

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


class ReferenceSimpleCNN(nn.Module):
    """The reference project's SimpleCNN for 128x128 grey images, without the softmax that it ends with."""

    def __init__(
        self,
        classes: int,
        stem_features: tuple[int, int],
        squeeze_features: int,
        skip_features: int,
        head_features: int,
        hidden_features: int,
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
            nn.Softmax(dim=1),
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
            nn.Linear(head_features * 5 * 5, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.conv1(images)
        x = x * self.SEBlock1(x)[:, :, None, None]
        return self.final(torch.relu(self.sepconv(x) + self.module1(x)))


class ReferenceUNetClassifier(nn.Module):
    """The reference project's transfer model: the whole U-Net is kept, its encoder and bottleneck are used."""

    def __init__(
        self, classes: int, features: int, head_features: int, hidden_features: int, flattened_size: int
    ) -> None:
        super().__init__()
        self.unet = HubUNet(3, 1, features)
        self.classifier = nn.Sequential(
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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, for grey images."""
        bottleneck, _ = self.unet.encode(images.expand(-1, 3, -1, -1))
        return self.classifier(bottleneck)
