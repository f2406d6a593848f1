"""The steps lower for GPUs and TPUs, without one: their convolutions are XLA's own, in the type that was asked for."""

import math
import re
from collections import Counter

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType
from shapes import COUNT, SMALLEST, smallest_learner

from train.ahead.command import abstract_arguments
from train.learner import make_steps
from train.machine.devices import AXIS, Parallel, mapped_eval_step, mapped_train_step
from train.state import parameter_count

ACCELERATORS = ("cuda", "rocm", "tpu")
TYPES = {"float32": "f32", "bfloat16": "bf16"}


def traced(learner, step, devices):
    """A step, traced for so many devices of no kind."""
    parallel = Parallel(AbstractMesh((devices,), (AXIS,), axis_types=(AxisType.Auto,)))
    train_step, eval_step = make_steps(learner, parallel.axis_name)
    training = step == "training"
    mapped = mapped_train_step(parallel, train_step) if training else mapped_eval_step(parallel, eval_step)
    return mapped.trace(*abstract_arguments(learner, parallel, COUNT, step))


def primitives(jaxpr):
    """The number of each primitive in a program, those of the functions that it calls too."""
    counted = Counter()
    for equation in jaxpr.eqns:
        counted[equation.primitive.name] += 1
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda of: hasattr(of, "eqns")):
            inner = getattr(value, "jaxpr", value)
            counted += primitives(inner) if hasattr(inner, "eqns") else Counter()
    return counted


def operands(text, operation):
    """Of each such operation the sides and the type of each operand."""
    # That of an all-reduce has lines of its own, which say what reduces.
    body = r"(?: <\{.*?\}> \(\{.*?\n *\}\))?" if operation == "all_reduce" else ""
    found = re.findall(rf"stablehlo\.{operation}\"?\([^\n]*?\){body}[^\n]*? : \(([^\n]*)\) -> ", text, re.DOTALL)
    return [[(sides, kind) for sides, kind in re.findall(r"tensor<((?:\d+x)*)(\w+)>", shapes)] for shapes in found]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("model", SMALLEST)
def test_on_accelerators_every_convolution_is_one_of_xlas(model, dtype, devices):
    learner = smallest_learner(model, dtype=dtype)
    for step in ("training", "evaluation"):
        program = traced(learner, step, devices)
        asked = primitives(program.jaxpr.jaxpr)
        expected = asked["conv_general_dilated"] + asked["conv_with_cpu_methods"]
        assert expected >= 3
        # The logits of a mask are float32, and so are the two gradients of the layer that gives them.
        wide = 0 if model != "segmentation" or dtype == "float32" else 3 if step == "training" else 1
        types = Counter({frozenset([TYPES[dtype]]): expected - wide}) + Counter({frozenset(["f32"]): wide})
        # Lowered together, each convolution is there once for each of them.
        text = program.lower(lowering_platforms=ACCELERATORS).as_text()
        found = Counter(frozenset(kind for _, kind in of) for of in operands(text, "convolution"))
        assert found == Counter({kinds: len(ACCELERATORS) * count for kinds, count in types.items()}), step
        assert "stablehlo.while" not in text, step
        # Cut from one vector, a TPU's compiler would lay out every kernel anew, in many times the memory.
        assert f"<{parameter_count(learner.shapes.params)}x" not in text, step
        if devices > 1 and step == "training":
            assert_summed_in_float32(text, learner)
        if dtype == "float32" and devices == 1:  # Or the test could not tell one from the other.
            text = program.lower(lowering_platforms=("cpu",)).as_text()
            assert "stablehlo.while" in text or len(operands(text, "convolution")) < expected


def assert_summed_in_float32(text, learner):
    """All that devices add up: the gradients, and besides them statistics and counts."""
    summed = Counter()
    for of in operands(text, "all_reduce"):
        for sides, kind in of:
            summed[kind] += math.prod(map(int, sides.split("x")[:-1]))
    assert summed.keys() <= {"f32", "i32"}
    assert summed["f32"] > parameter_count(learner.shapes.params)
