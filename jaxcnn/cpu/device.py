"""The CPU as a device of JAX's, for what must not depend on the accelerator."""

import os

import jax

from jaxcnn.errors import UserError


def cpu_device(purpose: str) -> jax.Device:
    """The CPU of this process; `purpose` says in the error what it does, for example "draws the phantom".

    Raises:
        UserError: JAX_PLATFORMS names accelerators alone.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        if not platforms or "cpu" in platforms.split(","):
            raise
        raise UserError(
            f"JAX_PLATFORMS={platforms} leaves out the CPU, which {purpose}; set it to {platforms},cpu"
        ) from error
