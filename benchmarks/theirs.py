"""The same work with PyTorch.

Where a contest names no device it is written as PyTorch's users would on a CPU: NCHW, eager, all cores. Where it names
one, the fastest of three ways is taken, with cuDNN's search for the fastest algorithms and a fused optimizer.
"""

import io
import sys
import timeit
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.contest import Contest
from benchmarks.inputs import encoded_images, random_images, random_labels, random_masks
from convert.networks import HubUNet, ReferenceSimpleCNN, ReferenceUNetClassifier

Work = Callable[[], object]
# Of a network, what it computes from images: in this memory format, and compiled or not.
Way = tuple[torch.memory_format, bool]

EAGER = {"eager": (torch.contiguous_format, False)}
WAYS = EAGER | {"channels last": (torch.channels_last, False), "compiled": (torch.channels_last, True)}

torch.backends.cudnn.benchmark = True


def wait(_: object) -> None:
    """Wait until the GPU has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def device() -> tuple[str, int | None]:
    """What works, and the most bytes of its memory that were in use; None on a CPU."""
    if not torch.cuda.is_initialized():
        return "cpu", None
    return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()


def simplecnn_training(contest: Contest) -> Work:
    """A step of training: gradients and AdamW."""
    return _classifier_training(contest, lambda: _simplecnn(contest.size))


def transfer_training(contest: Contest) -> Work:
    """The same for the U-Net classifier, which runs its frozen encoder in every step."""

    def build() -> nn.Module:
        model = ReferenceUNetClassifier(4, 32, 256, 128, (contest.size // 16 - 7) ** 2)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(("unet.bottleneck", "classifier")))
        return model

    return _classifier_training(contest, build)


uncached_transfer_training = transfer_training


def _classifier_training(contest: Contest, build: Callable[[], nn.Module]) -> Work:
    labels = torch.from_numpy(random_labels(contest.batch)).long().to(contest.device or "cpu")

    def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with _arithmetic(contest):
            logits = model(images.float() / 255)
        return nn.functional.cross_entropy(logits.float(), labels)

    return _training(contest, build, loss, 1, WAYS if contest.device else EAGER)


def unet_training(contest: Contest) -> Work:
    """A step of training the U-Net."""
    masks = torch.from_numpy(random_masks(contest.batch, contest.size)).float().to(contest.device or "cpu")

    def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        # The hub's module gives probabilities; the loss takes logits, as a user who trains it would.
        scaled = images.float() / 255
        z_scores = (scaled - scaled.mean((2, 3), keepdim=True)) / (scaled.std((2, 3), keepdim=True) + 1e-3)
        with _arithmetic(contest):
            probabilities = model(z_scores)[:, 0]
        probabilities = probabilities.float()
        entropy = nn.functional.binary_cross_entropy(probabilities, masks)
        both, either = (probabilities * masks).sum((1, 2)), (probabilities + masks).sum((1, 2))
        return entropy + (1 - (2 * both + 1) / (either + 1)).mean()

    return _training(contest, lambda: HubUNet(3, 1, 32), loss, 3, WAYS)


def _training(
    contest: Contest,
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    channels: int,
    ways: dict[str, Way],
) -> Work:
    def make(layout: torch.memory_format, compiled: bool) -> Work:
        model, images = _placed(contest, build().train(), channels, layout)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, 1e-3, fused=True if contest.device else None)
        run = torch.compile(loss) if compiled else loss

        def work() -> None:
            optimizer.zero_grad()
            run(model, images).backward()
            optimizer.step()

        return work

    return _fastest(ways, make)


def simplecnn_inference(contest: Contest) -> Work:
    """Logits of a batch."""
    return _inference(contest, lambda: _simplecnn(contest.size), 1)


def unet_inference(contest: Contest) -> Work:
    """The masks of a batch."""
    return _inference(contest, lambda: HubUNet(3, 1, 32), 3)


def _inference(contest: Contest, build: Callable[[], nn.Module], channels: int) -> Work:
    def make(layout: torch.memory_format, compiled: bool) -> Work:
        model, images = _placed(contest, build().eval(), channels, layout)
        run = torch.compile(model) if compiled else model

        def work() -> None:
            with torch.inference_mode(), _arithmetic(contest):
                run(images.float() / 255)

        return work

    return _fastest(WAYS if contest.device else EAGER, make)


def _arithmetic(contest: Contest) -> torch.autocast:
    if contest.arithmetic == "tf32":
        torch.set_float32_matmul_precision("high")
    return torch.autocast(contest.device or "cpu", torch.bfloat16, enabled=contest.arithmetic == "bfloat16")


def _placed(
    contest: Contest, model: nn.Module, channels: int, layout: torch.memory_format
) -> tuple[nn.Module, torch.Tensor]:
    """The network and its images, on the device."""
    device = contest.device or "cpu"
    images = torch.from_numpy(random_images(contest.batch, contest.size, channels)).permute(0, 3, 1, 2)
    return model.to(device, memory_format=layout), images.to(device, memory_format=layout)  # type: ignore[call-overload]


def _fastest(ways: dict[str, Way], make: Callable[[torch.memory_format, bool], Work]) -> Work:
    """The work in the fastest of these ways: the best of three times counts, after a first one."""
    works, seconds = {name: make(*way) for name, way in ways.items()}, {}
    if len(works) == 1:
        return works.popitem()[1]
    for name, work in works.items():
        try:
            wait(work())
        except RuntimeError as error:  # `torch.compile` needs a compiler of C++ or Triton.
            print(f"PyTorch {name}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            continue
        seconds[name] = min(timeit.repeat(lambda: wait(work()), number=1, repeat=3))  # noqa: B023 (called here)
    print(", ".join(f"PyTorch {name} {1e3 * of:.1f} ms" for name, of in seconds.items()), file=sys.stderr)
    if torch.cuda.is_initialized():
        # What the other ways needed doesn't count.
        torch.cuda.reset_peak_memory_stats()
    return works[min(seconds, key=lambda name: seconds[name])]


def data_preparation(contest: Contest) -> Work:
    """JPEG files to a batch of grey squares: the usual Grayscale, Resize and ToTensor."""
    files = encoded_images(contest.batch)

    def prepare(file: bytes) -> torch.Tensor:
        size = (contest.size, contest.size)
        grey = Image.open(io.BytesIO(file)).convert("L").resize(size, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(grey)).unsqueeze(0).float().div(255)

    return lambda: torch.stack([prepare(file) for file in files])


def _simplecnn(size: int) -> nn.Module:
    """For another size than 128 the flattened features are others, too."""
    model = ReferenceSimpleCNN(4, (32, 64), 32, 128, 256, 1024)
    pooled = ((size - 2) // 2 - 4) // 4
    model.final[6] = nn.Linear(256 * ((pooled - 5) // 2 + 1) ** 2, 1024)
    return model
