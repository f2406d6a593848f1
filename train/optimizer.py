"""The optimizer and its learning rate over the steps of a run."""

from typing import Any, Literal

import jax
import optax

ScheduleName = Literal["constant", "cosine"]


def learning_rate_schedule(name: ScheduleName, peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """The learning rate at each step: a linear rise over `warmup_steps`, then constant or a half cosine down to 0."""
    if name == "constant":
        after = optax.schedules.constant_schedule(peak)
    else:
        after = optax.schedules.cosine_decay_schedule(peak, max(1, total_steps - warmup_steps))
    if warmup_steps == 0:
        return after
    rise = optax.schedules.linear_schedule(0.0, peak, warmup_steps)
    return optax.schedules.join_schedules([rise, after], [warmup_steps])


def build_optimizer(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Adam (Kingma & Ba, 2015), with the decoupled weight decay of AdamW (Loshchilov & Hutter, 2019) on kernels."""
    return optax.adamw(schedule, weight_decay=weight_decay, mask=_is_kernel)


def _is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
