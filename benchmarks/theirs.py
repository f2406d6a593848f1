"""The same work with PyTorch: python -m benchmarks.theirs CONTEST writes its network as an ONNX file.

A contest without a device or a peer is written as PyTorch's users would on a CPU: NCHW, eager, all cores. A peer is one
of PyTorch's ways. On a device, the fastest way is taken, with cuDNN's search for the fastest algorithms.
"""

import io
import json
import sys
import timeit
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.contest import Contest
from benchmarks.inputs import encoded_images, random_images, random_labels, random_masks
from benchmarks.peers import PYTORCH
from convert.networks import HubUNet, ReferenceSimpleCNN, ReferenceUNetClassifier

Work = Callable[[], object]
# Of a network, what it computes from images: in this memory format, and compiled or not.
Way = tuple[torch.memory_format, bool]

WAYS = {
    "eager": (torch.contiguous_format, False),
    "channels last": (torch.channels_last, False),
    "compiled": (torch.contiguous_format, True),
    "compiled, channels last": (torch.channels_last, True),
}

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


def network(contest: Contest) -> tuple[nn.Module, int]:
    """The network of a contest, and the channels of its images."""
    size = contest.size
    if contest.name.startswith("simplecnn"):
        flattened = ((((size - 2) // 2 - 4) // 4 - 5) // 2 + 1) ** 2
        return ReferenceSimpleCNN(4, (32, 64), 32, 128, 256, 1024, flattened, gate="sigmoid"), 1
    if contest.name.startswith("unet"):
        return HubUNet(3, 1, 32), 3
    return ReferenceUNetClassifier(4, 32, 256, 128, (size // 16 - 7) ** 2), 1


def classifier_training(contest: Contest) -> Work:
    """A step of training: gradients and AdamW. The U-Net classifier runs its frozen encoder in every step."""
    labels = torch.from_numpy(random_labels(contest.batch)).long().to(contest.device or "cpu")
    inputs = _scaled if contest.name.startswith("simplecnn") else _z_scores

    def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with _arithmetic(contest):
            logits = model(inputs(images))
        return nn.functional.cross_entropy(logits.float(), labels)

    return _training(contest, loss)


simplecnn_training = transfer_training = uncached_transfer_training = classifier_training


def unet_training(contest: Contest) -> Work:
    """A step of training the U-Net."""
    masks = torch.from_numpy(random_masks(contest.batch, contest.size)).float().to(contest.device or "cpu")
    smoothing = 0.01 * contest.size**2

    def loss(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        with _arithmetic(contest):
            probabilities = model(_z_scores(images))[:, 0]
        probabilities = probabilities.float()
        entropy = nn.functional.binary_cross_entropy(probabilities, masks)
        both, either = (probabilities * masks).sum((1, 2)), (probabilities + masks).sum((1, 2))
        return entropy + (1 - (2 * both + smoothing) / (either + smoothing)).mean()

    return _training(contest, loss)


def _scaled(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def _z_scores(images: torch.Tensor) -> torch.Tensor:
    """Of each channel of each image."""
    scaled = _scaled(images)
    return (scaled - scaled.mean((2, 3), keepdim=True)) / (scaled.std((2, 3), keepdim=True) + 1e-3)


def _training(contest: Contest, loss: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> Work:
    def make(layout: torch.memory_format, compiled: bool) -> Work:
        model, images = _placed(contest, layout)
        model.train()
        if isinstance(model, ReferenceUNetClassifier):
            model.unet.eval().requires_grad_(False)
            model.unet.bottleneck.train().requires_grad_(True)
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        fused = True if contest.device or contest.peer != PYTORCH else None
        optimizer = torch.optim.AdamW(learning, 1e-3, fused=fused)
        run = torch.compile(loss) if compiled else loss

        def work() -> torch.Tensor:
            optimizer.zero_grad()
            found = run(model, images)
            found.backward()
            optimizer.step()
            return found.detach()

        return work

    return _fastest(contest, make)


def inference(contest: Contest) -> Work:
    """Logits, or the masks of the U-Net, of a batch."""

    def make(layout: torch.memory_format, compiled: bool) -> Work:
        model, images = _placed(contest, layout)
        model.eval()
        # With the weights as constants, in the layout that each kernel likes best.
        run = torch.compile(model, options={"freezing": True}) if compiled else model

        def work() -> torch.Tensor:
            with torch.inference_mode(), _arithmetic(contest):
                return run(_scaled(images))

        return work

    return _fastest(contest, make)


simplecnn_inference = unet_inference = inference


def _arithmetic(contest: Contest) -> torch.autocast:
    if contest.arithmetic == "tf32":
        torch.set_float32_matmul_precision("high")
    return torch.autocast(contest.device or "cpu", torch.bfloat16, enabled=contest.arithmetic == "bfloat16")


def _placed(contest: Contest, layout: torch.memory_format) -> tuple[nn.Module, torch.Tensor]:
    """The network and its images, on the device."""
    device = contest.device or "cpu"
    model, channels = network(contest)
    images = torch.from_numpy(random_images(contest.batch, contest.size, channels)).permute(0, 3, 1, 2)
    return model.to(device, memory_format=layout), images.to(device, memory_format=layout)  # type: ignore[call-overload]


def _fastest(contest: Contest, make: Callable[[torch.memory_format, bool], Work]) -> Work:
    """The work in the way of a peer, or in the fastest: the best of three times counts, after a first one."""
    if contest.peer != PYTORCH or not contest.device:
        return make(*WAYS["eager" if contest.peer == PYTORCH else contest.peer])
    works, seconds = {name: make(*way) for name, way in WAYS.items()}, {}
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

    if contest.peer == PYTORCH or contest.peer == "Pillow":
        return lambda: torch.stack([prepare(file) for file in files])
    threads = ThreadPoolExecutor(torch.get_num_threads())
    return lambda: torch.stack(list(threads.map(prepare, files)))


def export(contest: Contest) -> None:
    """Write the network as an ONNX file that takes bytes (batch, channel, height, width), at `contest.exported`."""
    model, channels = network(contest)

    class FromBytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(_scaled(images))

    images = torch.zeros((contest.batch, channels, contest.size, contest.size), dtype=torch.uint8)
    with warnings.catch_warnings():
        # PyTorch's newer exporter needs two more packages, and these networks gain nothing by it.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(FromBytes(), (images,), contest.exported, input_names=["images"], dynamo=False)


if __name__ == "__main__":
    export(Contest(**json.loads(sys.argv[1])))
