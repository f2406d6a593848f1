"""The same work with PyTorch, written as its users would: NCHW, eager, all cores."""

import io
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.inputs import encoded_images, random_images, random_labels, random_masks
from convert.networks import HubUNet, ReferenceSimpleCNN, ReferenceUNetClassifier

Work = Callable[[], object]


def simplecnn_training(batch: int, size: int) -> Work:
    """A step of training: gradients and AdamW."""
    model = _simplecnn(size).train()
    return _training(model, model.parameters(), batch, size)


def transfer_training(batch: int, size: int) -> Work:
    """The same for the U-Net classifier, which runs its frozen encoder in every step."""
    model = ReferenceUNetClassifier(4, 32, 256, 128, (size // 16 - 7) ** 2).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("unet.bottleneck", "classifier")))
    return _training(model, [parameter for parameter in model.parameters() if parameter.requires_grad], batch, size)


uncached_transfer_training = transfer_training


def _training(model: nn.Module, parameters: object, batch: int, size: int) -> Work:
    optimizer = torch.optim.AdamW(parameters, 1e-3)  # type: ignore[arg-type]
    images = _to_torch(random_images(batch, size, 1))
    labels = torch.from_numpy(random_labels(batch)).long()

    def work() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images.float() / 255), labels).backward()
        optimizer.step()

    return work


def unet_training(batch: int, size: int) -> Work:
    """A step of training the U-Net, in the fastest of three ways: eager, with channels last, and that compiled."""
    images, masks = _to_torch(random_images(batch, size, 3)), torch.from_numpy(random_masks(batch, size)).float()

    def training(channels_last: bool, compiled: bool) -> Work:
        model = HubUNet(3, 1, 32).train()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

        def loss(images: torch.Tensor) -> torch.Tensor:
            # The hub's module gives probabilities; the loss takes logits, as a user who trains it would.
            scaled = images.float().to(memory_format=layout) / 255
            z_scores = (scaled - scaled.mean((2, 3), keepdim=True)) / (scaled.std((2, 3), keepdim=True) + 1e-3)
            probabilities = model(z_scores)[:, 0]
            entropy = nn.functional.binary_cross_entropy(probabilities, masks)
            both, either = (probabilities * masks).sum((1, 2)), (probabilities + masks).sum((1, 2))
            return entropy + (1 - (2 * both + 1) / (either + 1)).mean()

        run = torch.compile(loss) if compiled else loss

        def work() -> None:
            optimizer.zero_grad()
            run(images).backward()
            optimizer.step()

        return work

    ways = {"eager": (False, False), "channels last": (True, False), "compiled": (True, True)}
    seconds: dict[str, float] = {}
    works = {name: training(*way) for name, way in ways.items()}
    for name, work in works.items():
        work()
        start = time.perf_counter()
        work()
        seconds[name] = time.perf_counter() - start
    best = min(seconds, key=lambda name: seconds[name])
    print(", ".join(f"PyTorch {name} {of:.2f} s" for name, of in seconds.items()), file=sys.stderr)
    return works[best]


def simplecnn_inference(batch: int, size: int) -> Work:
    """Logits of a batch."""
    return _inference(_simplecnn(size), _to_torch(random_images(batch, size, 1)))


def unet_inference(batch: int, size: int) -> Work:
    """The masks of a batch."""
    return _inference(HubUNet(3, 1, 32), _to_torch(random_images(batch, size, 3)))


def _inference(model: nn.Module, images: torch.Tensor) -> Work:
    model.eval()

    def work() -> None:
        with torch.inference_mode():
            model(images.float() / 255)

    return work


def data_preparation(batch: int, size: int) -> Work:
    """JPEG files to a batch of grey squares: the usual Grayscale, Resize and ToTensor."""
    files = encoded_images(batch)

    def prepare(file: bytes) -> torch.Tensor:
        grey = Image.open(io.BytesIO(file)).convert("L").resize((size, size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(grey)).unsqueeze(0).float().div(255)

    return lambda: torch.stack([prepare(file) for file in files])


def _simplecnn(size: int) -> nn.Module:
    """For another size than 128 the flattened features are others, too."""
    model = ReferenceSimpleCNN(4, (32, 64), 32, 128, 256, 1024)
    pooled = ((size - 2) // 2 - 4) // 4
    model.final[6] = nn.Linear(256 * ((pooled - 5) // 2 + 1) ** 2, 1024)
    return model


def _to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
