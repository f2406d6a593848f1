"""Models that differ in what can be traced, trained as one compiled program.

`vmap` over the models maps the step that trains one (`train/step.py`); of several devices each has its share of them.
A member has its own weights, its own order of the images, its own dropout and augmentation, by its own seed, and gets
what it would have got alone, up to float32 rounding.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32

from jaxcnn.data.batch import Batch
from jaxcnn.evaluation.counts import Tally
from train.config import TrainConfig, UNetConfig
from train.models import RANDOM
from train.progress import say
from train.setup import Setup, first_batches, follow_schedule, hyperparameters, make_steps, say_model
from train.state import TrainState
from train.step import EvalStep

AXIS = "members"
TRACED = ("learning_rate", "unet_learning_rate", "weight_decay", "dropout", "seed")
"""Options that the members of a population may differ in."""


@dataclasses.dataclass(frozen=True)
class Population:
    """Models, ready to go.

    The steps take and give trees with a leading axis of members, but for the frozen variables and the batches that are
    evaluated, which all members share.

    Attributes:
        members: what each is trained with.
        slots: the length of the axis: the members, and copies of the last one where the devices need them.
        mesh: the devices; one axis, `AXIS`.
        train_step: compiled; `(state, batch) -> (state, tally)`.
        eval_step: compiled; `(state, batch) -> (tally, logits)`.
    """

    members: tuple[Setup, ...]
    slots: int
    mesh: Mesh
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Tally]]
    eval_step: EvalStep


def can_join(config: TrainConfig, other: TrainConfig) -> bool:
    """Whether models of these options can be members of one population.

    Of a U-Net's classifier with a random encoder the seed is no such option: its frozen part, and so the features that
    it is trained on, are the seed's.
    """
    random_encoder = isinstance(config, UNetConfig) and config.encoder == RANDOM
    traced = [field for field in TRACED if not (field == "seed" and random_encoder)]

    def others(of: TrainConfig) -> Mapping[str, Any]:
        return {field: value for field, value in dataclasses.asdict(of).items() if field not in traced}

    return type(config) is type(other) and others(config) == others(other)


def build_population(members: Sequence[Setup], initial: TrainState, devices: Sequence[jax.Device]) -> Population:
    """The population of these members; each has a state like `initial`."""
    share = math.ceil(len(members) / len(devices))
    # Three members on two devices: the third gets a copy of itself beside it, for all shares to be equal.
    used = math.ceil(len(members) / share)
    slots = share * used
    mesh = Mesh(np.array(devices[:used]), (AXIS,), axis_types=(AxisType.Auto,))
    first = members[0]
    say_model(first, initial)
    key_data = np.stack([np.asarray(jax.random.key_data(member.key)) for member in members])
    keys = jax.random.wrap_key_data(_spread(mesh, _fill(key_data, slots)))
    values = {name: _spread(mesh, _fill(column, slots)) for name, column in _differing(members).items()}

    example, evaluated = first_batches(first)
    state, batch = _abstract_state(mesh, slots, initial), stack_batches(mesh, slots, [example] * len(members))
    start = time.perf_counter()
    train_step, eval_step = _mapped_steps(first, mesh)
    compiled = jax.jit(train_step, donate_argnums=1).lower(values, state, batch, keys).compile()
    eval_step = jax.jit(eval_step).lower(state, share_batch(mesh, evaluated)).compile()
    say(f"compiled   in {time.perf_counter() - start:.1f} s")
    if (memory := compiled.memory_analysis()) is not None:
        each = bytes_per_member(memory, share)
        say(f"memory     {each / 1e6:.1f} MB a model, {each * slots / 1e6:.1f} MB in all")

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Tally]:
        return compiled(values, state, batch, keys)

    return Population(tuple(members), slots, mesh, step, eval_step)


def bytes_per_member(memory: Any, share: int) -> int:
    """What a step needs for one of so many members on a device: state, optimizer, batch, and all in between.

    Args:
        memory: `jax.stages.Compiled.memory_analysis()` of the step, which is one device's.
        share: members on a device.
    """
    # What the step gives back lies where the state was, as far as that is donated.
    given_back = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return (memory.argument_size_in_bytes + memory.temp_size_in_bytes + given_back) // share


def _differing(members: Sequence[Setup]) -> dict[str, Float32[np.ndarray, " members"]]:
    """The hyper-parameters in which the members differ; what all share stays a constant of the program."""
    each = [hyperparameters(member.config) for member in members]
    columns = {name: [values[name] for values in each] for name in each[0]}
    return {name: np.array(column, np.float32) for name, column in columns.items() if len(set(column)) > 1}


def _mapped_steps(first: Setup, mesh: Mesh) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The steps of one member, mapped over the members of a device, and these over the devices."""
    shared, own = PartitionSpec(), PartitionSpec(AXIS)
    axes, places = _state_of(0, None), _state_of(own, shared)

    def train_step(values: Mapping[str, Any], state: TrainState, batch: Batch, key: jax.Array) -> Any:
        return make_steps(_with_values(first, values))[0](state, batch, key)

    train_step = jax.vmap(train_step, in_axes=(0, axes, 0, 0), out_axes=(axes, 0))
    eval_step = jax.vmap(make_steps(first)[1], in_axes=(axes, None))
    return (
        jax.shard_map(train_step, mesh=mesh, in_specs=(own, places, own, own), out_specs=(places, own)),
        jax.shard_map(eval_step, mesh=mesh, in_specs=(places, shared), out_specs=own),
    )


def _state_of(own: Any, frozen: Any) -> Any:
    """Something for each field of a state, with another thing for what the members share."""
    return TrainState(**{field.name: own for field in dataclasses.fields(TrainState)} | {"frozen": frozen})


def _with_values(setup: Setup, values: Mapping[str, Any]) -> Setup:
    """The setup with some hyper-parameters replaced, which may be traced."""
    values = {**hyperparameters(setup.config), **values}
    schedule, optimizer = follow_schedule(setup.config, setup.steps, values)
    model = setup.network.model.clone(dropout=values["dropout"])
    network = dataclasses.replace(setup.network, model=model)
    return dataclasses.replace(setup, network=network, schedule=schedule, optimizer=optimizer)


def _abstract_state(mesh: Mesh, slots: int, initial: TrainState) -> TrainState:
    """The shapes of a population's state, for the compiler."""

    def abstract(leaf: Any, axes: tuple[int, ...], *spec: str) -> jax.ShapeDtypeStruct:
        place = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct((*axes, *leaf.shape), leaf.dtype, sharding=place)

    own = jax.tree.map(lambda leaf: abstract(leaf, (slots,), AXIS), dataclasses.replace(initial, frozen={}))
    return dataclasses.replace(own, frozen=jax.tree.map(lambda leaf: abstract(leaf, ()), initial.frozen))


def stack_states(mesh: Mesh, slots: int, states: Sequence[TrainState]) -> TrainState:
    """The state of a population from those of its members, whose frozen variables are the same."""
    stacked = jax.tree.map(
        lambda *leaves: _spread(mesh, _fill(np.stack([np.asarray(leaf) for leaf in leaves]), slots)),
        *(dataclasses.replace(state, frozen={}) for state in states),
    )
    return dataclasses.replace(stacked, frozen=jax.device_put(states[0].frozen, NamedSharding(mesh, PartitionSpec())))


def stack_batches(mesh: Mesh, slots: int, batches: Sequence[Batch]) -> Batch:
    """A batch for each member."""
    return jax.tree.map(lambda *leaves: _spread(mesh, _fill(np.stack(leaves), slots)), *batches)


def share_batch(mesh: Mesh, batch: Batch) -> Batch:
    """A batch for all members."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec()))


def member_states(state: TrainState, places: Iterable[int]) -> dict[int, TrainState]:
    """The states of the members at these places, in the host's memory."""
    host = jax.device_get(state)
    own = dataclasses.replace(host, frozen={})

    def take(place: int) -> TrainState:
        # Copies, since the next step writes where this state lies.
        return dataclasses.replace(jax.tree.map(lambda leaf: np.array(leaf[place]), own), frozen=host.frozen)

    return {place: take(place) for place in places}


def _fill(leaf: np.ndarray, slots: int) -> np.ndarray:
    """As many as there are slots, by copies of the last."""
    return np.concatenate([leaf, np.repeat(leaf[-1:], slots - len(leaf), axis=0)])


def _spread(mesh: Mesh, leaf: np.ndarray) -> jax.Array:
    return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(AXIS)))
