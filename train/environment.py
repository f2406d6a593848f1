"""What environment.json tells: enough to know where a result came from."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from train.devices.parallel import pick_devices
from train.devices.placement import Placement

PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# Those that a result is made by: Grain draws the order of the images.
_COMPUTING = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")


def describe_environment() -> dict[str, Any]:
    """Versions, devices and the git revision of the code (None outside a checkout)."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "git_revision": _git_revision(),
    }


def describe_placement(placement: Placement) -> dict[str, Any]:
    """The devices that a run takes of those that there are, and how."""
    return {"devices": len(pick_devices(placement)), "parallel": placement.parallel}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What of two environments lets the same run come to other bits, in words; empty where nothing does.

    What an older version did not write down yet is taken for the same.
    """
    pairs = [(name, before["packages"].get(name), now["packages"][name]) for name in _COMPUTING]
    names = ("device_kind", "devices", "parallel", "process_count", "git_revision")
    pairs += [(name.replace("_", " "), before.get(name, now[name]), now[name]) for name in names]
    return ", ".join(f"{name} was {old}, is {new}" for name, old, new in pairs if old != new)


def _git_revision() -> str | None:
    """The commit of the checkout that this file is a part of, with a + where tracked files differ from it."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    # An environment may lie inside the checkout of another project.
    tracked = [*git, "ls-files", "--error-unmatch", here.name]
    describe = [*git, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        subprocess.run(tracked, capture_output=True, check=True)
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
