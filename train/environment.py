"""What environment.json tells: enough to know where a result came from."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


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


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What of two environments lets the same run come to other bits, in words; empty where nothing does."""
    computing = ("jax", "jaxlib")
    pairs = [(name, before["packages"].get(name), now["packages"][name]) for name in computing]
    pairs += [(key.replace("_", " "), before[key], now[key]) for key in ("device_kind", "device_count")]
    return ", ".join(f"{name} was {old}, is {new}" for name, old, new in pairs if old != new)


def _git_revision() -> str | None:
    """The commit of the checkout that this file lies in, with a + where tracked files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
