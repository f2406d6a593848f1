"""Where a number was measured."""

import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("jax", "jaxlib", "flax", "torch", "onnxruntime", "openvino", "pillow")


def describe_machine() -> dict[str, str]:
    """Columns of the CSV: date, processor, cores, versions."""
    return {
        "date": dt.date.today().isoformat(),
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str:
    """Nothing where it isn't installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    """As Linux tells it, with its widest vectors, which the name doesn't give away; else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    vectors = next((flag for flag in ("avx512f", "avx2") if flag in known.get("flags", "").split()), "")
    return " ".join([known.get("model name", platform.machine()), vectors]).strip()
