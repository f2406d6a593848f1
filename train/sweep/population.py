"""Train models that differ only in traceable options as one compiled program.

`vmap` over the models maps the step that trains one (`train/step.py`); of several devices each has its share of them.
A model has its own weights, its own order of the images, its own dropout and augmentation, by its own seed, and gets
what it would have got alone, up to float32 rounding.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Float32

from jaxcnn.data.batch import WHOLE, Batch
from jaxcnn.models.architecture import RANDOM
from train.ahead.memory import largest_fitting, needed_bytes
from train.learner import Learner, first_batches, hyperparameters, make_steps, report_model
from train.machine.devices import Parallel, line_of, replicated_shapes
from train.machine.progress import report
from train.options import Config
from train.program import Layout, Program, compile_epoch, compile_steps
from train.state import TrainState, finite_parts

AXIS = "models"
# Room that the memory of a device must have beside the program: its allocator never fills it to the last byte.
_USABLE_MEMORY = 0.85


def can_join(config: Config, other: Config) -> bool:
    """Tell whether one program can train both: they differ only in learning rates, weight decay, dropout and seed.

    Where the frozen part has random weights, they are the seed's, and so are the features that are trained on; then the
    seed must be the same.
    """
    traced = ["learning_rate", "weight_decay", "dropout", *config.architecture.learning_rates.values()]
    if config.encoder != RANDOM:
        traced.append("seed")

    def fixed(config: Config) -> Mapping[str, Any]:
        return {field: value for field, value in config.to_json().items() if field not in traced}

    return fixed(config) == fixed(other)


def compile_population(
    learners: Sequence[Learner], devices: Sequence[jax.Device], *, on_device: bool = False
) -> Program:
    """Build the program that trains all learners at once, which `can_join`, each device its share of them.

    With `on_device` the examples are kept there; see `train.program.compile_epoch`.
    """
    first, share = learners[0], math.ceil(len(learners) / len(devices))
    # Three learners on two devices: the third gets a copy of itself beside it, for all shares to be equal.
    used = math.ceil(len(learners) / share)
    slots = share * used
    mesh = line_of(devices[:used], AXIS)
    report_model(first)
    key_data = np.stack([np.asarray(jax.random.key_data(learner.key)) for learner in learners])
    keys = jax.random.wrap_key_data(_spread(mesh, _fill(key_data, slots)))
    values = {name: _spread(mesh, _fill(column, slots)) for name, column in _differing(learners).items()}

    mapped, eval_step = _mapped_steps(first, mesh)
    place = SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), first.shapes)
    layout = Layout(
        batches=lambda batches: _stack(mesh, slots, batches),
        order=lambda order: _spread(mesh, _fill(order, slots, axis=1), axis=1),
        evaluated=lambda batch: _share(mesh, batch),
        shared=lambda tree: _share(mesh, tree),
        compile_train=lambda step, *arguments: jax.jit(step, donate_argnums=0).lower(*arguments).compile(),
        compile_eval=lambda step, *arguments: jax.jit(step).lower(*arguments).compile(),
        join=lambda states: _join(mesh, slots, states),
        states=_states,
        like=lambda _: like,
        finite=jax.jit(jax.vmap(finite_parts, in_axes=(_state_of(0, None),))),
        part=lambda whole, place: jax.tree.map(lambda leaf: leaf[:, place], whole),
        shard=WHOLE,
        agree=lambda number: number,
    )
    start = time.perf_counter()
    compile_ = compile_epoch if on_device else compile_steps
    shapes = _abstract_state(mesh, slots, first.shapes)
    steps = compile_(
        learners,
        layout,
        lambda state, batch, values, keys: mapped(values, state, batch, keys),
        eval_step,
        shapes,
        values,
        keys,
    )
    report(f"compiled   in {time.perf_counter() - start:.1f} s")
    if steps.memory is not None:
        each = needed_bytes(steps.memory) // share
        report(f"memory     {each / 1e6:.1f} MB per model, {each * slots / 1e6:.1f} MB in all")
    # In the host's memory, so that the devices hold no state twice.
    return Program(tuple(learners), [jax.device_get(learner.draw()) for learner in learners], layout, steps)


def largest_population(
    first: Learner, devices: Sequence[jax.Device], limit_bytes: int | None, wanted: int
) -> int | None:
    """How many learners like this the devices can train at once, by the memory of programs that are compiled to see.

    Args:
        limit_bytes: memory of a device.
        wanted: how many there are.

    Returns:
        At least 1; None where the memory isn't known.
    """
    if limit_bytes is None:
        return None

    def needed(share: int) -> float:
        try:
            return needed_bytes(_compile_for_memory(first, devices[:1], share).memory_analysis())
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return math.inf

    share = math.ceil(wanted / len(devices))
    return max(1, largest_fitting(needed, _USABLE_MEMORY * limit_bytes, share, most=share)) * len(devices)


def _compile_for_memory(first: Learner, devices: Sequence[jax.Device], slots: int) -> Any:
    """The training step of so many learners like this, on as few devices."""
    mesh = line_of(devices, AXIS)
    batch = _abstract(mesh, slots, first_batches(first)[0])
    key = _abstract(mesh, slots, jax.eval_shape(lambda: first.key))
    step, _ = _mapped_steps(first, mesh)
    state = _abstract_state(mesh, slots, first.shapes)
    return jax.jit(step, donate_argnums=1).lower({}, state, batch, key).compile()


def _differing(learners: Sequence[Learner]) -> dict[str, Float32[np.ndarray, " learners"]]:
    """The hyper-parameters in which the learners differ; what all share stays a constant of the program."""
    each = [hyperparameters(learner.config) for learner in learners]
    columns = {name: [values[name] for values in each] for name in each[0]}
    return {name: np.array(column, np.float32) for name, column in columns.items() if len(set(column)) > 1}


def _mapped_steps(first: Learner, mesh: Mesh) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The steps of one learner, mapped over the learners of a device, and these over the devices."""
    shared, own = PartitionSpec(), PartitionSpec(AXIS)
    axes, places = _state_of(0, None), _state_of(own, shared)

    def train_step(values: Mapping[str, Any], state: TrainState, batch: Batch, key: jax.Array) -> Any:
        return make_steps(first, values=values)[0](state, batch, key)

    train_step = jax.vmap(train_step, in_axes=(0, axes, 0, 0), out_axes=(axes, 0))
    eval_step = jax.vmap(make_steps(first)[1], in_axes=(axes, None))
    return (
        jax.shard_map(train_step, mesh=mesh, in_specs=(own, places, own, own), out_specs=(places, own)),
        jax.shard_map(eval_step, mesh=mesh, in_specs=(places, shared), out_specs=own),
    )


def _state_of(own: Any, frozen: Any) -> Any:
    """Something for each field of a state, with another thing for what the learners share."""
    return TrainState(**{field.name: own for field in dataclasses.fields(TrainState)} | {"frozen": frozen})


def _abstract(mesh: Mesh, slots: int, tree: Any) -> Any:
    """The shapes of what a population has one of for each learner, of a tree of those of one learner."""
    own = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((slots, *leaf.shape), leaf.dtype, sharding=own), tree)


def _abstract_state(mesh: Mesh, slots: int, shapes: TrainState) -> TrainState:
    """The shapes of a population's state, for the compiler."""
    own = _abstract(mesh, slots, dataclasses.replace(shapes, frozen={}))
    return dataclasses.replace(own, frozen=replicated_shapes(Parallel(mesh), shapes.frozen))


def _join(mesh: Mesh, slots: int, states: Sequence[TrainState]) -> TrainState:
    """The state of a population from those of its learners, whose frozen variables are the same."""
    own = [dataclasses.replace(jax.device_get(state), frozen={}) for state in states]
    return dataclasses.replace(_stack(mesh, slots, own), frozen=_share(mesh, states[0].frozen))


def _states(state: TrainState, places: Iterable[int]) -> dict[int, TrainState]:
    """The states of the learners at these places, in the host's memory."""
    host = jax.device_get(state)
    own = dataclasses.replace(host, frozen={})

    def take(place: int) -> TrainState:
        # Copies, since the next step writes where this state lies.
        return dataclasses.replace(jax.tree.map(lambda leaf: np.array(leaf[place]), own), frozen=host.frozen)

    return {place: take(place) for place in places}


def _stack(mesh: Mesh, slots: int, trees: Sequence[Any]) -> Any:
    """Trees of arrays, one a learner, as one with a leading axis that is spread over the devices."""
    return jax.tree.map(lambda *leaves: _spread(mesh, _fill(np.stack(leaves), slots)), *trees)


def _share(mesh: Mesh, tree: Any) -> Any:
    """A tree that all learners share, on each device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def _fill(leaf: np.ndarray, slots: int, axis: int = 0) -> np.ndarray:
    """As many as there are slots, by copies of the last."""
    return leaf.take(np.minimum(np.arange(slots), leaf.shape[axis] - 1), axis)


def _spread(mesh: Mesh, leaf: np.ndarray, axis: int = 0) -> jax.Array:
    return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS)))
