"""The command line of compiling ahead of time: what a run's steps take on a machine, which need not be there."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import numpy as np
import tyro
from jax.sharding import NamedSharding, PartitionSpec

from jaxcnn.cpu import xla_only
from jaxcnn.data.batch import Batch, Examples
from jaxcnn.errors import UserError
from jaxcnn.models.architecture import RANDOM, EncoderOptions
from jaxcnn.runs.folder import Run
from jaxcnn.tables import format_table
from train.ahead import hlo
from train.ahead.memory import largest_fitting, needed_bytes
from train.ahead.targets import Target, find_target
from train.images import frame_splits, load_images
from train.learner import Learner, build_learner, make_steps, report_model
from train.machine.devices import AXIS, Parallel, compile_eval_step, compile_train_step, line_of, replicated_shapes
from train.machine.progress import report
from train.options import Config, any_config_class

Step = Literal["training", "evaluation"]


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A step, compiled for each device of a machine; its program is None where the compiler found too little memory."""

    program: Any
    seconds: float

    @property
    def needed(self) -> float:
        """Bytes of a device's memory; infinite where the compiler found too little."""
        return needed_bytes(self.program.memory_analysis()) if self.program else math.inf


def compile_command() -> Callable[..., None]:
    """The command, whose first argument is a model of the table."""
    compile_ahead.__annotations__["config"] = any_config_class()
    return compile_ahead


def compile_ahead(config: Config, *, target: Annotated[str, tyro.conf.arg(name="for")]) -> None:
    """Compile a run's steps for a machine that need not be there, and print what they take.

    Args:
        config: Options of the run.
        target: Machine: `cpu`, `h100` or `a100`, with `:8` for 8 of them; `v5e` or `v6e`, with `:2x4` for a slice of 8.
    """
    # No device is used, and to begin with a GPU or TPU that is there would take its memory.
    jax.config.update("jax_platforms", "cpu")
    machine = find_target(target)
    learner = shapes_only(config)
    size, parts = config.training.batch_size, len(machine.devices) * config.training.accumulate
    if size % parts:
        raise UserError(f"--batch-size {size}: {parts} devices and micro-batches can't divide it; give {parts * 8}")
    report(f"machine    {len(machine.devices)} x {machine.kind}, {_gigabytes(machine.memory)} each")
    report_model(learner)
    steps = {step: compile_step(learner, machine.devices, size, step) for step in get_args(Step)}
    operations = {step: count_operations(learner, size // len(machine.devices), step) for step in steps}
    columns = [describe(steps[step], machine, operations[step]) for step in steps]
    # A step that doesn't fit has fewer.
    titles = dict.fromkeys(title for column in columns for title in column)
    rows = [["", *steps]] + [[title, *(column.get(title, "") for column in columns)] for title in titles]
    report(f"\nA step of {size} images, on each device:\n\n{format_table(rows)}\n")

    def needed(size: int) -> float:
        return compile_step(learner, machine.devices, size, "training").needed

    # Eight images more or less on a device make no difference.
    largest = largest_fitting(needed, machine.usable, size, parts * 8 if size % (parts * 8) == 0 else parts)
    report(f"largest batch that fits: {largest:,} images" if largest else "no batch fits")


def shapes_only(config: Config) -> Learner:
    """The learner of a configuration for the sake of its shapes: no features are computed.

    Weights are read only where --encoder or --start-from names them.
    """
    if config.architecture.encoder and config.encoder is None:
        config = config.replace(encoder=RANDOM)
    dataset = load_images(config.training, masks=config.architecture.task == "segmentation").dataset
    framed = frame_splits(config.training, dataset)
    # A batch may be larger than the data. Features are not computed, but have their shape.
    few = config.replace(batch_size=min(config.training.batch_size, len(framed["train"])), accumulate=1)
    cached = bool(config.architecture.encoder) and config.network.cache
    few = few.replace(cache=False, views=EncoderOptions.views) if cached else few
    learner = dataclasses.replace(build_learner(few, dataset, framed, Run(Path("unused"))), config=config)
    return _on_features(learner) if cached and learner.network.frozen else learner


def _on_features(learner: Learner) -> Learner:
    def features(images: Examples) -> Examples:
        first = jax.eval_shape(learner.network.inputs, learner.shapes.frozen, images.inputs[0][:1])
        every = np.broadcast_to(np.float32(0), (len(images), *first.shape[1:]))
        return Examples(tuple(every for _ in images.inputs), images.labels)

    network = dataclasses.replace(learner.network, on_features=True)
    examples = {name: features(images) for name, images in learner.examples.items()}
    return dataclasses.replace(learner, network=network, training=features(learner.training), examples=examples)


def compile_step(learner: Learner, devices: Sequence[jax.Device], size: int, step: Step) -> Compiled:
    """Compile the step that the run would compile, for a batch of this size."""
    parallel = Parallel(line_of(devices))
    train_step, eval_step = make_steps(learner, parallel.axis_name)
    arguments = abstract_arguments(learner, parallel, size, step)
    compile_, made = (compile_train_step, train_step) if step == "training" else (compile_eval_step, eval_step)
    start = time.perf_counter()
    try:
        program: Any = compile_(parallel, made, *arguments)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        program = None
    return Compiled(program, time.perf_counter() - start)


def abstract_arguments(learner: Learner, parallel: Parallel, size: int, step: Step) -> tuple[Any, ...]:
    """The shapes of what a step takes, and how the devices share it."""
    examples = learner.training if step == "training" else learner.examples["train"]
    divided = NamedSharding(parallel.mesh, PartitionSpec(AXIS))

    def batch_of(array: Any, rows: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype, sharding=divided)

    inputs = batch_of(examples.inputs[0], size * len(examples.inputs))
    batch = Batch(inputs, batch_of(examples.labels, size), batch_of(np.zeros(1, bool), size))
    state = replicated_shapes(parallel, learner.shapes)
    key = replicated_shapes(parallel, jax.eval_shape(lambda: learner.key))
    return (state, batch, key) if step == "training" else (state, batch)


def count_operations(learner: Learner, size: int, step: Step) -> float:
    """Floating-point operations of a step with so many images, by XLA's count before it optimizes the program."""
    alone = Parallel(line_of(jax.devices("cpu")[:1]))
    with xla_only():
        made = make_steps(learner)[0 if step == "training" else 1]
        counted: Any = jax.jit(made).lower(*abstract_arguments(learner, alone, size, step)).cost_analysis()
    return float(counted["flops"])


def describe(step: Compiled, machine: Target, operations: float) -> dict[str, str]:
    """What a step takes, as a column of a table."""
    if step.program is None:
        return {"memory": "doesn't fit", "compile time": f"{step.seconds:.0f} s"}
    text = step.program.as_text()
    # Of a program for a GPU the compiler tells no costs.
    costs = step.program.cost_analysis() or {}
    traffic, cycles = hlo.traffic(text), hlo.estimated_cycles(text)
    moved = costs.get("bytes accessed") or traffic.bytes
    fits = "fits" if step.needed <= machine.usable else "doesn't fit"
    counted, kinds = hlo.count_collectives(text), hlo.collectives(text)
    column = {
        "memory": f"{_gigabytes(step.needed)} of {_gigabytes(machine.usable)}: {fits}",
        "operations": f"{operations / 1e9:,.1f} GFLOP",
        "bytes moved": _gigabytes(moved),
        "kernels": f"{traffic.kernels}",
        "convolutions": _counts({f"{by}, {kind}": count for (by, kind), count in hlo.convolutions(text).items()}),
        "collectives": _counts(counted),
        "their bytes": ", ".join(f"{moved / 1e6:,.3f} MB {kind}" for kind, moved in kinds.items()) or "none",
        "compile time": f"{step.seconds:.1f} s",
    }
    if machine.bandwidth:
        column["bytes / bandwidth"] = f"{moved / machine.bandwidth * 1e3:.2f} ms"
    if cycles:
        time_ = f", {cycles / machine.clock * 1e3:.2f} ms" if machine.clock else ""
        column["compiler's estimate"] = f"{cycles / 1e6:.2f} M cycles{time_}"
    return column


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items())) or "none"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"
