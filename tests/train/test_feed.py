"""An epoch as one program over examples on the device: the same order, the same bits, killed or not."""

import dataclasses
import functools
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kills import Moment, assert_same_run, killed_at, train
from tiny import TINY

from jaxcnn.data.batch import Examples
from jaxcnn.data.load import load_dataset
from jaxcnn.data.pipeline import training_batches
from jaxcnn.data.protocol import partition
from jaxcnn.models import Classifier
from jaxcnn.models.dropout import Dropout
from jaxcnn.models.layers import batch_norm
from jaxcnn.models.table import MODELS
from jaxcnn.runs.folder import Run
from train.feed import EVALUATED, feed_orders, join_examples, lie_on_device, sent_ahead
from train.images import frame_splits
from train.learner import build_learner
from train.machine.devices import Placement, choose_devices
from train.options import make_config
from train.program import compile_learner
from train.sweep.population import compile_population


class Flat(Classifier):
    """No convolution: XLA compiles one in a loop on a CPU in another way, and it rounds in another way."""

    @nn.compact
    def __call__(self, images, *, train):
        x = images[:, ::16, ::16].reshape(len(images), -1)
        x = nn.relu(batch_norm(nn.Dense(8)(x), train=train, axis_name=self.axis_name, name="norm", dtype=self.dtype))
        return nn.Dense(self.classes)(Dropout(self.dropout, self.axis_name, self.places)(x, train=train))


FLAT = dataclasses.replace(TINY, module=Flat, build=lambda options, classes, encoder: Flat(classes=classes))  # noqa: ARG005


@functools.cache
def build(**options):
    """A learner; each epoch has 5 steps, with checkpoints after 2, 4 and 5 of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "flat", FLAT)
        config = make_config("flat", max_images=24, batch_size=4, checkpoint_every=2, epochs=2, dropout=0.3, **options)
        dataset, _ = partition(load_dataset("phantom", 24), "leak-free", 0.1, seed=0)
        return build_learner(config, dataset, frame_splits(config.training, dataset), Run(Path("unused")))


@pytest.fixture(autouse=True)
def _flat_is_in_the_table(monkeypatch):
    monkeypatch.setitem(MODELS, "flat", FLAT)


def epochs(program):
    """The state after each epoch and the tally of each step, of each learner, and an evaluation."""
    state, counted = program.layout.join(program.initial), []
    places = range(len(program.learners))
    for epoch in (1, 2):
        for _, piece in program.steps.feed(epoch, 0):
            state, tallies = program.steps.train(state, piece)
            counted.append(jax.device_get(tallies))
    evaluated = [jax.device_get(program.steps.evaluate(state, piece)) for piece in program.steps.pieces(EVALUATED)]
    join = partial(jax.tree.map, lambda *parts: np.concatenate(parts))
    results = [[join(*(program.steps.part(of, n) for of in each)) for n in places] for each in (counted, evaluated)]
    return jax.device_get(program.layout.states(state, places)), results


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"augment": "brain-mri", "ema": 0.9, "tta": "flip"},
        # With XLA's older emitters the two programs differ in bfloat16.
        pytest.param({"accumulate": 2, "dtype": "bfloat16"}, marks=pytest.mark.optimized),
    ],
)
def test_an_epoch_as_one_program_gives_the_bits_of_a_step_at_a_time(options):
    learner, devices = build(**options), choose_devices(Placement(devices=1), 4)
    assert_same_bits(*(epochs(compile_learner(learner, devices, on_device=choice)) for choice in (True, False)))


@pytest.mark.slow
def test_so_it_does_for_a_population():
    learners = [build(seed=seed, learning_rate=0.01 * (seed + 1)) for seed in range(2)]
    assert_same_bits(*(epochs(compile_population(learners, jax.devices()[:1], on_device=on)) for on in (True, False)))


@pytest.fixture(scope="module")
def plain_learner():
    return build()


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.integers(1, 30), st.integers(0, 9))
def test_the_order_is_that_of_the_batches_wherever_an_epoch_goes_on(plain_learner, views, shared, every, done):
    """Also where learners have views of their own, as features of images that are augmented at random are."""
    config = plain_learner.config.replace(checkpoint_every=every)
    first = np.arange(views * 43).reshape(views, 43, 1)
    examples = [Examples(tuple(first + own * 1000), np.arange(43, dtype=np.int32) % 4) for own in range(2)]
    learners = [
        dataclasses.replace(
            plain_learner,
            config=config.replace(seed=seed),
            training=examples[0 if shared else seed],
            steps_per_epoch=10,
        )
        for seed in range(2)
    ]
    inputs, labels = join_examples(learners)
    pieces = list(feed_orders(learners, np.asarray)(3, done))
    assert [count for count, _ in pieces] == [len(order) for _, order in pieces]
    ends = (done + np.cumsum([count for count, _ in pieces])).tolist()
    assert ends == [step for step in range(done + 1, 11) if step % every == 0 or step == 10]
    order = np.concatenate([order for _, order in pieces])
    for place, learner in enumerate(learners):
        batches = list(training_batches(learner.training, 4, seed=place, epoch=3, start=done))
        np.testing.assert_array_equal(inputs[order[:, place]], [batch.inputs for batch in batches])
        np.testing.assert_array_equal(labels[order[:, place] % 43], [batch.labels for batch in batches])


def test_the_examples_lie_on_an_accelerator_that_they_fit_and_on_a_cpu_only_if_asked(monkeypatch, capsys):
    learner = build(tta="flip")
    held = [learner.training, *(learner.examples[name] for name in EVALUATED)]
    needed = sum(view.nbytes for examples in held for view in examples.inputs)

    def lies(backend: str, limit: int, choice: str, sharing: int = 1) -> bool:
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": limit} if limit else None)
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        return lie_on_device([learner], Placement(epoch_on_device=choice), sharing)

    assert lies("gpu", 10 * needed, "auto")
    assert not lies("gpu", 10 * needed - 10, "auto")
    assert not lies("gpu", 0, "auto")
    assert not lies("gpu", 10 * needed, "no")
    assert not lies("cpu", 10 * needed, "auto")
    assert lies("cpu", 0, "yes")
    assert not lies("gpu", 10 * needed, "auto", sharing=8)
    assert capsys.readouterr().out == ""
    assert not lies("gpu", 10 * needed, "yes", sharing=8)
    assert capsys.readouterr().out.startswith("note       no epoch on the device, since devices share each batch")


@given(st.integers(0, 6), st.integers(0, 6))
def test_what_is_sent_ahead_comes_once_and_in_order_and_an_error_at_its_place(count, failing):
    def send(item):
        if item == failing:
            raise OSError(item)
        return 2 * item

    sent = sent_ahead(range(count), send)
    assert [next(sent) for _ in range(min(count, failing))] == [2 * item for item in range(min(count, failing))]
    with pytest.raises(OSError if failing < count else StopIteration):
        next(sent)


@pytest.mark.slow
def test_a_run_with_its_images_on_the_device_that_is_killed_ends_with_the_same_bits(processes, tmp_path):
    """Killed within an epoch, at the border of two programs, and where a best classifier has no line yet."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    on_device = ("--epoch-on-device", "yes", "--resume")
    assert train(processes, whole, *on_device).code == 0
    for change in ("os.rename checkpoints/4.orbax-checkpoint-tmp", "os.rename .metrics-*.jsonl"):
        assert train(processes, folder, *on_device, before=killed_at(folder, Moment(change))).code == -9
    finished = train(processes, folder, *on_device)
    assert finished.code == 0, finished.err
    assert_same_run(folder, whole)
