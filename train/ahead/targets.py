"""Machines to compile for, whether they are there or not."""

import contextlib
import dataclasses
import os

import jax
from jax.experimental import topologies

from jaxcnn.errors import UserError, is_installed

# The slices of a TPU v5e or v6e that Google Cloud offers, as chips by chips.
_SLICES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_MOST_GPUS = 8
# Of a GPU's memory JAX takes this part at the start, and no more, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
_GPU_SHARE = 0.75
_INSTALL = "--for {name}: needs {package}, which is not installed: pip install -c constraints.txt -e '.[{extra}]'"


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine.

    Attributes:
        kind: the devices' name.
        memory: of a device, in bytes.
        usable: as much of it as a program can have.
        bandwidth: of its memory, in bytes a second; None where it isn't known.
        clock: cycles a second of the compiler's estimates; None where there are none, or it isn't known.
    """

    devices: tuple[jax.Device, ...]
    kind: str
    memory: int
    usable: int
    bandwidth: float | None = None
    clock: float | None = None


@dataclasses.dataclass(frozen=True)
class _GPU:
    """What XLA must know of a GPU: from NVIDIA's data sheets and tuning guides, and what the driver tells of a card.

    Attributes:
        name: as the driver calls it.
        capability: compute capability.
        cores: streaming multiprocessors.
        lanes: float32 units in each.
        clock: in GHz.
        memory: in bytes.
        bandwidth: in bytes a second.
        cache: second-level, in bytes.
        shared: memory of a multiprocessor that its blocks share; a block can have 1 KiB less.
    """

    name: str
    capability: int
    cores: int
    lanes: int
    clock: float
    memory: int
    bandwidth: int
    cache: int
    shared: int

    def config(self) -> str:
        """A GpuTargetConfigProto as text, for CUDA 13.0 and cuDNN 9.12, the oldest that the plug-in takes."""
        return f"""
            platform_name: "CUDA"
            device_description_str: "{self.name}"
            runtime_version {{ major: 13 minor: 0 patch: 0 }}
            dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
            gpu_device_info {{
              cuda_compute_capability {{ major: {self.capability} }}
              core_count: {self.cores} fpus_per_core: {self.lanes} clock_rate_ghz: {self.clock}
              device_memory_size: {self.memory} memory_bandwidth: {self.bandwidth} l2_cache_size: {self.cache}
              shared_memory_per_core: {self.shared} shared_memory_per_block_optin: {self.shared - 1024}
              shared_memory_per_block: 49152 registers_per_core_limit: 65536 registers_per_block_limit: 65536
              threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
            }}"""


_GPUS = {
    "h100": _GPU("NVIDIA H100 80GB HBM3", 9, 132, 128, 1.98, 84942979072, 3352320000000, 50 * 2**20, 228 * 2**10),
    "a100": _GPU("NVIDIA A100-SXM4-80GB", 8, 108, 64, 1.41, 85100068864, 2039040000000, 40 * 2**20, 164 * 2**10),
}

# Bytes of memory and bytes a second of a chip (https://cloud.google.com/tpu/docs), and its clock: 197 TFLOP/s in
# bfloat16 are 1.5 GHz times four arrays of 128 x 128 multipliers; of the v6e's arrays the page doesn't say as much.
_TPUS = {"v5e": (16 * 2**30, 819e9, 1.5e9), "v6e": (32 * 2**30, 1640e9, None)}


def find_target(name: str) -> Target:
    """The machine of this name: cpu, h100, a100, v5e or v6e, and behind a colon how many devices or how they lie.

    Raises:
        UserError: there is no such machine, or the package that compiles for it is not installed.
    """
    kind, _, size = name.partition(":")
    if kind in _TPUS and (size or _SLICES[0]) in _SLICES:
        return _tpu(name, kind, size or _SLICES[0])
    count = int(size) if size.isascii() and size.isdecimal() else 0 if size else 1
    if kind in _GPUS and 1 <= count <= _MOST_GPUS:
        return _gpus(name, _GPUS[kind], count)
    if kind == "cpu" and count >= 1:
        return _cpu(name, count)
    slices = ", ".join(_SLICES[1:])
    raise UserError(
        f"--for {name}: must be cpu, h100 or a100, with :N for N devices (at most {_MOST_GPUS} GPUs), or v5e or v6e,"
        f" with :RxC for a slice, one of {slices}"
    )


def _cpu(name: str, count: int) -> Target:
    with contextlib.suppress(RuntimeError):  # JAX has begun; there are as many as there are.
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(f"--for {name}: there are {len(devices)} CPU devices; give at most that many")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Target(tuple(devices[:count]), "CPU, this machine's", memory, memory)


def _gpus(name: str, gpu: _GPU, count: int) -> Target:
    if not (is_installed("jax_plugins.xla_cuda13") or is_installed("jax_plugins.xla_cuda12")):
        raise UserError(_INSTALL.format(name=name, package="jax-cuda13-plugin", extra="compile-cuda"))
    topology = {"topology": f"1x1x{count}", "target_config": gpu.config()}
    devices = topologies.get_topology_desc(platform="cuda", topology_name=gpu.name, **topology).devices
    return Target(tuple(devices), gpu.name, gpu.memory, int(_GPU_SHARE * gpu.memory), gpu.bandwidth)


def _tpu(name: str, kind: str, shape: str) -> Target:
    if not is_installed("libtpu"):
        raise UserError(_INSTALL.format(name=name, package="libtpu", extra="compile-tpu"))
    # What the library would ask of the machine that it believes to run on. Several may compile beside each other.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": {"v5e": "v5litepod-8", "v6e": "v6e-8"}[kind],
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    # It refuses a slice of one chip; one of a larger slice is the same.
    rows, columns = map(int, shape.split("x"))
    devices = topologies.get_topology_desc(f"{kind}:{'2x2' if shape == '1x1' else shape}", platform="tpu").devices
    memory, bandwidth, clock = _TPUS[kind]
    return Target(tuple(devices[: rows * columns]), f"TPU {kind}", memory, memory, bandwidth, clock)
