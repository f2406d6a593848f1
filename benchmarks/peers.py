"""Who takes part. Another peer is a line here, and a function for each piece of work in a module of this room."""

import dataclasses
import shutil

from jaxcnn.errors import is_installed

TRAINING = ("simplecnn_training", "unet_training", "transfer_training", "uncached_transfer_training")
INFERENCE = ("simplecnn_inference", "unet_inference")
DATA = ("data_preparation",)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A library, or one of the ways to use it.

    Attributes:
        module: of this room, with a function for each piece of work.
        works: the names of these functions.
        needs: a package, or the compiler g++.
    """

    module: str
    works: tuple[str, ...]
    needs: str = "torch"

    @property
    def missing(self) -> str:
        """How to install what is missing; nothing if it is there."""
        if is_installed(self.needs) or shutil.which(self.needs):
            return ""
        if self.needs == "g++":
            return "torch.compile needs g++, which the system's package manager installs"
        return f"needs {self.needs}; `pip install -c constraints.txt -e '.[bench]'` gets it"


OURS = "this project"
# As most of its users have it; on a device that a contest names, the fastest of its ways.
PYTORCH = "PyTorch"
# The others work on a CPU, each with its best settings.
PEERS = {
    OURS: Peer("ours", TRAINING + INFERENCE + DATA, "jax"),
    PYTORCH: Peer("theirs", TRAINING + INFERENCE + DATA),
    "eager": Peer("theirs", TRAINING + INFERENCE),
    "channels last": Peer("theirs", TRAINING + INFERENCE),
    "compiled": Peer("theirs", TRAINING + INFERENCE, "g++"),
    "compiled, channels last": Peer("theirs", TRAINING + INFERENCE, "g++"),
    "ONNX Runtime": Peer("runtimes", INFERENCE, "onnxruntime"),
    "OpenVINO": Peer("runtimes", INFERENCE, "openvino"),
    "Pillow": Peer("theirs", DATA),
    "Pillow, all cores": Peer("theirs", DATA),
}


def best_peers(work: str) -> list[str]:
    """The peers of a piece of work that have their best settings."""
    return [name for name, peer in PEERS.items() if work in peer.works and name not in (OURS, PYTORCH)]
