"""Build the optimizer and its learning-rate schedule."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import optax
from jaxtyping import Array, Float

ScheduleName = Literal["constant", "cosine"]

# A traced number lets `vmap` train models that differ in it at once.
Number = float | Float[Array, ""]


def learning_rate_schedule(name: ScheduleName, peak: Number, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Build the learning-rate schedule: a linear rise over `warmup_steps`, then constant or a half cosine down to 0."""
    if name == "constant":
        after = optax.schedules.constant_schedule(peak)
    else:
        after = optax.schedules.cosine_decay_schedule(peak, max(1, total_steps - warmup_steps))
    if warmup_steps == 0:
        return after
    rise = optax.schedules.linear_schedule(0.0, peak, warmup_steps)
    return optax.schedules.join_schedules([rise, after], [warmup_steps])


def build_optimizer(
    schedule: optax.Schedule, weight_decay: Number, factors: Mapping[str, Number]
) -> optax.GradientTransformation:
    """Build Adam (Kingma & Ba, 2015) with the decoupled weight decay of AdamW (Loshchilov & Hutter, 2019) on kernels.

    Args:
        weight_decay: share of a kernel that is taken off, times the learning rate.
        factors: on the learning rate, for each submodule at the top that has a learning rate of its own.
    """
    # Not as one vector (`optax.flatten`): a TPU's compiler would lay out each kernel that is cut from it anew.
    adamw = (
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay, _is_kernel),
        optax.scale_by_learning_rate(schedule),
    )
    # AdamW's update is proportional to the learning rate, so that scaling the one scales the other.
    scaled = (optax.masked(optax.scale(factor), _is_below(module)) for module, factor in factors.items())
    return optax.chain(*adamw, *scaled)


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _is_below(module: str) -> Any:
    def mask(params: Any) -> Any:
        return {name: jax.tree.map(lambda _: name == module, subtree) for name, subtree in params.items()}  # noqa: B023

    return mask
