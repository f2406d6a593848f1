"""The training of a population: all members take their steps at once, and each leaves a run folder as if alone."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float32

from jaxcnn.data.pipeline import evaluation_batches, training_batches
from jaxcnn.evaluation.counts import Tally, total
from jaxcnn.runs import checkpoints
from jaxcnn.runs.checkpoints import Checkpoints
from jaxcnn.runs.folder import best_epoch, read_epochs, write_epochs
from train.interruption import Interruption, interruption
from train.loop import (
    NonFiniteLossError,
    add_step,
    check_finite,
    epoch_metrics,
    load_best_state,
    save_best,
    told_in_one_line,
    write_logits,
)
from train.position import Position, as_json, from_json, start_of_epoch
from train.progress import bar, epoch_line, say
from train.state import TrainState
from train.sweep.population import Population, member_states, share_batch, stack_batches, stack_states

# By its place in the population: where each member stands that is still trained. All stand at the same step.
Positions = dict[int, Position]


@dataclasses.dataclass(frozen=True)
class _Training:
    """What all parts of the training have in their hands.

    Attributes:
        population: the members.
        saved: the checkpoints of each member that is trained, by its place.
        interrupted: by a signal.
        diverged: to be told the place of a member whose loss is no number any more, and what happened.
    """

    population: Population
    saved: Mapping[int, Checkpoints]
    interrupted: Interruption
    diverged: Callable[[int, str], None]


def train_together(
    population: Population,
    initial: Sequence[TrainState],
    places: Sequence[int],
    diverged: Callable[[int, str], None],
) -> None:
    """Train until the epochs are done, from the last checkpoints that all members have, else from their beginning.

    Members that are done, or diverged before, take their steps like the others, so that the program stays the same and
    with it the others' bits; nothing comes of these steps.

    Args:
        population: the members.
        initial: the state of each before its first step.
        places: the members to train.
        diverged: to be told the place of a member that diverges, and what happened; the others go on.

    Raises:
        InterruptedRunError: a signal asked for an end; the states are saved.
        UserError: all checkpoints of a member are damaged, or nothing can be written any more.
    """
    runs = [member.run for member in population.members]
    with told_in_one_line(runs[0].folder.parent), contextlib.ExitStack() as held:
        saved = {place: held.enter_context(checkpoints.open_checkpoints(runs[place].checkpoints)) for place in places}
        interrupted = held.enter_context(interruption(lambda number: number))
        training = _Training(population, saved, interrupted, diverged)
        state, positions = _resume(training, initial)
        epochs = population.members[0].config.epochs
        lines = {
            place: [line for line in read_epochs(runs[place]) if line["epoch"] < position.epoch]
            for place, position in positions.items()
        }
        while positions and _first(positions).epoch <= epochs:
            state, positions = _train_epoch(training, state, positions)
            _evaluate_epoch(training, state, positions, lines)
            positions = {
                place: start_of_epoch(position.epoch + 1, len(population.members[0].classes))
                for place, position in positions.items()
            }
        if positions:
            _write_predictions(training, initial, positions)
        interrupted.settle()


def _first(positions: Positions) -> Position:
    return next(iter(positions.values()))


def _resume(training: _Training, initial: Sequence[TrainState]) -> tuple[TrainState, Positions]:
    """Where the members stand: after the last checkpoint that is whole for all, or at their beginning."""
    members, until = training.population.members, None
    while True:
        restored = {
            place: checkpoints.load_latest(saved, _on_device(initial[place]), until=until)
            for place, saved in training.saved.items()
        }
        steps = {0 if one is None else one.step for one in restored.values()}
        if len(steps) == 1:
            break
        until = min(steps)
    states = list(initial)
    positions = {place: start_of_epoch(1, len(members[place].classes)) for place in restored}
    for place, one in restored.items():
        if one is not None:
            states[place], positions[place] = one.state, from_json(one.progress)
            for sentence in one.damaged:
                say(f"damaged    {sentence}")
    if steps != {0}:
        say(f"resumed    after step {min(steps)}")
        epoch, done = _first(positions).epoch, _first(positions).done
        written = all(epoch in (line["epoch"] for line in read_epochs(members[place].run)) for place in positions)
        if done == members[0].steps and written:
            positions = {place: start_of_epoch(epoch + 1, len(members[place].classes)) for place in positions}
    return stack_states(training.population.mesh, training.population.slots, states), positions


def _on_device(state: TrainState) -> TrainState:
    """The shapes of a state that is to be read."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state)


def _train_epoch(training: _Training, state: TrainState, positions: Positions) -> tuple[TrainState, Positions]:
    """The steps that are left of an epoch, as in `train.loop`, for all members."""
    population, interrupted = training.population, training.interrupted
    config, steps = population.members[0].config, population.members[0].steps
    epoch, done = _first(positions).epoch, _first(positions).done
    orders = [
        training_batches(member.training, config.batch_size, seed=member.config.seed, epoch=epoch, start=done)
        for member in population.members
    ]
    start = time.perf_counter() - _first(positions).seconds
    step = (epoch - 1) * steps + done
    running: Tally | None = None
    for batches in bar(zip(*orders, strict=True), steps, f"epoch {epoch}/{config.epochs}", done=done):
        state, counted = population.train_step(state, stack_batches(population.mesh, population.slots, batches))
        step += 1
        # The step before is fetched while this one runs, so that the device never waits for the host.
        positions = _add_step(training, positions, running, step - 1)
        running = counted
        if interrupted.poll() or step % config.checkpoint_every == 0 or step == epoch * steps:
            positions = _add_step(training, positions, running, step)
            running = None
            seconds = time.perf_counter() - start
            positions = {place: dataclasses.replace(of, seconds=seconds) for place, of in positions.items()}
            positions = _save(training, state, positions, step)
            interrupted.raise_if_requested()
        if not positions:
            break
    return state, positions


def _add_step(training: _Training, positions: Positions, counted: Tally | None, step: int) -> Positions:
    """One step further, without the members that it made diverge."""
    fetched, further = jax.device_get(counted), {}
    for place, position in positions.items():
        own = None if fetched is None else Tally(fetched.loss[place], fetched.confusion[place])
        try:
            further[place] = add_step(position, own, step)
        except NonFiniteLossError as error:
            training.diverged(place, str(error))
    return further


def _save(training: _Training, state: TrainState, positions: Positions, step: int) -> Positions:
    """A checkpoint of each member, without those whose weights are no numbers any more."""
    for place in positions:
        # Before any member writes its next one: two are kept, so there is always one that all have.
        checkpoints.wait(training.saved[place])
    good = {}
    for place, own in member_states(state, positions).items():
        try:
            check_finite(own, step)
        except NonFiniteLossError as error:
            training.diverged(place, str(error))
            continue
        good[place] = positions[place]
        checkpoints.save(training.saved[place], step, own, as_json(positions[place]))
    return good


def _evaluate_epoch(
    training: _Training, state: TrainState, positions: Positions, lines: dict[int, list[dict[str, float]]]
) -> None:
    """Add the epoch's line to each member's, and keep its classifier if it is its best."""
    counted = {name: _evaluate(training, state, name)[0] for name in ("validation", "test") if positions}
    for place, own in member_states(state, positions).items():
        member, position = training.population.members[place], positions[place]
        tallies = {name: of_members[place] for name, of_members in counted.items()}
        lines[place].append(epoch_metrics(member, position, tallies))
        if best_epoch(lines[place]) is lines[place][-1]:
            save_best(member, own, position.epoch)
        write_epochs(member.run, lines[place])
        say(f"{member.run.name}: {epoch_line(lines[place][-1], member.config.epochs)}")


def _evaluate(
    training: _Training, state: TrainState, name: str
) -> tuple[list[Tally], Float32[np.ndarray, "members n classes"]]:
    """Tallies and logits of every image of a split, for each slot."""
    population, outputs = training.population, []
    examples = population.members[0].examples[name]
    for batch in evaluation_batches(examples, population.members[0].config.batch_size):
        outputs.append(jax.device_get(population.eval_step(state, share_batch(population.mesh, batch))))
        training.interrupted.poll()
        training.interrupted.raise_if_requested()
    tallies = [
        total([Tally(counted.loss[place], counted.confusion[place]) for counted, _ in outputs])
        for place in range(population.slots)
    ]
    return tallies, np.concatenate([logits for _, logits in outputs], axis=1)[:, : len(examples)]


def _write_predictions(training: _Training, initial: Sequence[TrainState], positions: Positions) -> None:
    """Predict every split with the best weights of each member."""
    population = training.population
    states = [
        load_best_state(member, state) if place in positions else state
        for place, (member, state) in enumerate(zip(population.members, initial, strict=True))
    ]
    state = stack_states(population.mesh, population.slots, states)
    for name in population.members[0].splits:
        _, logits = _evaluate(training, state, name)
        for place in positions:
            write_logits(population.members[place], name, logits[place])
