"""The networks once more, as torch modules of the checkpoints' layout: small, seeded, with random batch statistics.

They are written apart from convert/networks.py, which they check.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from convert.__main__ import main
from convert.recipe import Recipe
from convert.recipes import recipe_for
from jaxcnn import SimpleCNN, UNet, UNetClassifier
from jaxcnn.models.resnet import ResNet

# Tests run beside one another.
torch.set_num_threads(1)

TINY_UNET = UNet(features=4)
TINY_SIMPLECNN = SimpleCNN(
    stem_features=(3, 5),
    squeeze_features=4,
    skip_features=6,
    head_features=7,
    hidden_features=8,
    gate="softmax",
)
TINY_CLASSIFIER = UNetClassifier(features=2, head_features=3, hidden_features=6)
TINY_RESNET18 = ResNet(classes=5, features=3)
TINY_RESNET50 = ResNet(classes=5, features=2, block="bottleneck", blocks=(3, 4, 6, 3))


class TorchUNet(nn.Module):
    """mateuszbuda/brain-segmentation-pytorch, unet.py."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inside = channels
        for n in (1, 2, 3, 4):
            setattr(self, f"encoder{n}", self.block(f"enc{n}", inside, width * 2 ** (n - 1)))
            inside = width * 2 ** (n - 1)
        self.bottleneck = self.block("bottleneck", inside, 2 * inside)
        self.upconv4 = nn.ConvTranspose2d(width * 16, width * 8, kernel_size=2, stride=2)
        self.decoder4 = self.block("dec4", width * 16, width * 8)
        self.upconv3 = nn.ConvTranspose2d(width * 8, width * 4, kernel_size=2, stride=2)
        self.decoder3 = self.block("dec3", width * 8, width * 4)
        self.upconv2 = nn.ConvTranspose2d(width * 4, width * 2, kernel_size=2, stride=2)
        self.decoder2 = self.block("dec2", width * 4, width * 2)
        self.upconv1 = nn.ConvTranspose2d(width * 2, width, kernel_size=2, stride=2)
        self.decoder1 = self.block("dec1", width * 2, width)
        self.conv = nn.Conv2d(width, 1, kernel_size=1)

    @staticmethod
    def block(name: str, inside: int, outside: int) -> nn.Sequential:
        block = nn.Sequential()
        block.add_module(name + "conv1", nn.Conv2d(inside, outside, kernel_size=3, padding=1, bias=False))
        block.add_module(name + "norm1", nn.BatchNorm2d(outside))
        block.add_module(name + "relu1", nn.ReLU(inplace=True))
        block.add_module(name + "conv2", nn.Conv2d(outside, outside, kernel_size=3, padding=1, bias=False))
        block.add_module(name + "norm2", nn.BatchNorm2d(outside))
        block.add_module(name + "relu2", nn.ReLU(inplace=True))
        return block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        enc1 = self.encoder1(x)
        enc2 = self.encoder2(functional.max_pool2d(enc1, 2))
        enc3 = self.encoder3(functional.max_pool2d(enc2, 2))
        enc4 = self.encoder4(functional.max_pool2d(enc3, 2))
        x = self.bottleneck(functional.max_pool2d(enc4, 2))
        x = self.decoder4(torch.cat((self.upconv4(x), enc4), dim=1))
        x = self.decoder3(torch.cat((self.upconv3(x), enc3), dim=1))
        x = self.decoder2(torch.cat((self.upconv2(x), enc2), dim=1))
        x = self.decoder1(torch.cat((self.upconv1(x), enc1), dim=1))
        return torch.sigmoid(self.conv(x))


class TorchSimpleCNN(nn.Module):
    """The reference project's layers; the softmax at its end is left to the caller."""

    def __init__(self, model: SimpleCNN) -> None:
        super().__init__()
        a, b = model.stem_features
        c, d, e = model.skip_features, model.head_features, model.hidden_features
        norm, relu = nn.BatchNorm2d, nn.ReLU
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, a, 3), norm(a), relu(), nn.MaxPool2d(2), nn.Conv2d(a, b, 5), norm(b), relu()
        )
        self.SEBlock1 = nn.Sequential(
            nn.AdaptiveAvgPool2d((1, 1)),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(b, model.squeeze_features),
            relu(),
            nn.Linear(model.squeeze_features, b),
            nn.Softmax(dim=1),
        )
        self.sepconv = nn.Conv2d(b, c, 1)
        self.module1 = nn.Sequential(nn.Conv2d(b, c, 5, padding=2), relu(), nn.Conv2d(c, c, 1))
        self.final = nn.Sequential(
            nn.MaxPool2d(4),
            nn.Conv2d(c, d, 5, stride=2),
            norm(d),
            relu(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(25 * d, e),
            relu(),
            nn.Linear(e, model.classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        gate = self.SEBlock1(x)
        x = x * gate.reshape(*gate.shape, 1, 1)
        return self.final(functional.relu(self.sepconv(x) + self.module1(x)))


class TorchUNetClassifier(nn.Module):
    """The reference project's transfer model; all of the U-Net is in its state_dict, half of it is used."""

    def __init__(self, model: UNetClassifier, image_size: int) -> None:
        super().__init__()
        self.unet = TorchUNet(3, model.features)
        filters, hidden = model.head_features, model.hidden_features
        self.classifier = nn.Sequential(
            nn.Conv2d(16 * model.features, filters, kernel_size=8),
            nn.BatchNorm2d(filters),
            nn.Flatten(),
            nn.SELU(),
            nn.Dropout(0.1),
            nn.Linear(filters * (image_size // 16 - 7) ** 2, hidden),
            nn.SELU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, model.classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x, x, x], dim=1)
        for n in (1, 2, 3, 4):
            x = functional.max_pool2d(getattr(self.unet, f"encoder{n}")(x), 2)
        return self.classifier(self.unet.bottleneck(x))


class TorchBasicBlock(nn.Module):
    """BasicBlock of torchvision's resnet.py."""

    expansion = 1

    def __init__(self, inplanes: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class TorchBottleneck(nn.Module):
    """Bottleneck of torchvision's resnet.py."""

    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class TorchResNet(nn.Module):
    """ResNet of torchvision's resnet.py."""

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        block = TorchBottleneck if model.block == "bottleneck" else TorchBasicBlock
        self.inplanes = model.features
        self.conv1 = nn.Conv2d(3, self.inplanes, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, model.features, model.blocks[0], 1)
        self.layer2 = self._make_layer(block, model.features * 2, model.blocks[1], 2)
        self.layer3 = self._make_layer(block, model.features * 4, model.blocks[2], 2)
        self.layer4 = self._make_layer(block, model.features * 8, model.blocks[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(model.features * 8 * block.expansion, model.classes)

    def _make_layer(self, block: type, planes: int, blocks: int, stride: int) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            conv = nn.Conv2d(self.inplanes, planes * block.expansion, kernel_size=1, stride=stride, bias=False)
            downsample = nn.Sequential(conv, nn.BatchNorm2d(planes * block.expansion))
        layers = [block(self.inplanes, planes, stride, downsample)]
        self.inplanes = planes * block.expansion
        layers += [block(self.inplanes, planes, 1, None) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep the size of what passes through, and batch statistics that are not 0 and 1."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=random)
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(1234)
            elif tensor.ndim == 1:  # Biases, means and scales; the latter are mostly positive.
                tensor.normal_(0.5 if name.endswith("weight") else 0, 0.5, generator=random)
            else:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=random)
    return network.eval()


def random_network(model: UNet | SimpleCNN | UNetClassifier | ResNet, image_size: int = 128) -> nn.Module:
    """The torch module of the layout that becomes this model."""
    if isinstance(model, ResNet):
        return randomized(TorchResNet(model))
    if isinstance(model, SimpleCNN):
        return randomized(TorchSimpleCNN(model))
    if isinstance(model, UNetClassifier):
        return randomized(TorchUNetClassifier(model, image_size))
    return randomized(TorchUNet(model.in_channels, model.features))


@pytest.fixture
def torch_network() -> Callable[..., nn.Module]:
    """The function, since tests can't import it from here."""
    return random_network


@dataclasses.dataclass(frozen=True)
class Case:
    """A small network on both sides."""

    network: nn.Module
    recipe: Recipe


def _case(model: Any, image_size: int = 128, proof_shape: tuple[int, int, int] | None = None) -> Case:
    recipe = recipe_for(model, image_size, "none")
    return Case(random_network(model, image_size), dataclasses.replace(recipe, proof_shape=proof_shape))


# The classifier's images are larger than 128x128: there its flatten has more than one pixel.
CASES: dict[str, Callable[[], Case]] = {
    "unet": lambda: _case(TINY_UNET, proof_shape=(32, 48, 3)),
    "simplecnn": lambda: _case(TINY_SIMPLECNN),
    "unet-classifier": lambda: _case(TINY_CLASSIFIER, 144),
    "resnet18": lambda: _case(TINY_RESNET18, proof_shape=(32, 64, 3)),
    "resnet50": lambda: _case(TINY_RESNET50, proof_shape=(32, 64, 3)),
}


@pytest.fixture(scope="session", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each of the networks."""
    return CASES[request.param]()


@pytest.fixture
def states() -> dict[str, dict[str, torch.Tensor]]:
    """For each network a small state_dict that the command takes."""
    models = {"unet": TINY_UNET, "simplecnn": TINY_SIMPLECNN, "unet-classifier": TINY_CLASSIFIER}
    models |= {"resnet18": TINY_RESNET18}
    return {name: dict(random_network(model).state_dict()) for name, model in models.items()}


@pytest.fixture
def run_convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple]:
    """Run `python -m convert` with these words; give the exit code, stdout and stderr."""

    def run(*words: object) -> tuple[Any, str, str]:
        monkeypatch.setattr("sys.argv", ["convert", *map(str, words)])
        with pytest.raises(SystemExit) as error:
            main()
        captured = capsys.readouterr()
        return error.value.code, captured.out, captured.err

    return run


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    """Write what torch.save makes of an object."""

    def write(content: Any, name: str = "checkpoint.pt") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write
