"""Scores are scikit-learn's, whatever the batches they were counted in."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from jaxcnn.evaluation.counts import Tally, scores, tally, total

CLASSES = 4


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def tally_in_batches(logits, labels, batch_size):
    """Count as evaluation does: the last batch is padded, here with rows that would poison any sum they entered."""
    tallies = []
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        missing = batch_size - len(labels[rows])
        batch_logits = jnp.asarray(np.pad(logits[rows], ((0, missing), (0, 0)), constant_values=np.nan))
        batch_labels = jnp.asarray(np.pad(labels[rows], (0, missing)))
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(batch_logits, batch_labels)
        tallies.append(tally(batch_logits, batch_labels, losses, jnp.arange(batch_size) < batch_size - missing))
    return total(tallies)


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 40), batch_size=st.sampled_from([1, 7, 16]))
def test_scores_equal_scikit_learn_for_every_batch_size(seed, images, batch_size):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(images, CLASSES)).astype(np.float32)
    # Often fewer classes than there are, so that rows and columns of the matrix stay empty.
    labels = random.integers(0, random.integers(1, CLASSES + 1), images).astype(np.int32)
    predicted = logits.argmax(axis=1)
    everything = list(range(CLASSES))

    counted = tally_in_batches(logits, labels, batch_size)
    found = scores(counted)

    np.testing.assert_array_equal(counted.confusion, confusion_matrix(labels, predicted, labels=everything))
    assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
    for average, value in (("macro", found.f1_macro), ("weighted", found.f1_weighted)):
        expected = f1_score(labels, predicted, labels=everything, average=average, zero_division=0)
        assert value == pytest.approx(expected)
    assert found.loss == pytest.approx(log_loss(labels, softmax(logits), labels=everything), rel=1e-5)


def test_scores_of_no_images_are_an_error():
    with pytest.raises(ValueError, match="empty"):
        scores(Tally(np.float64(0), np.zeros((CLASSES, CLASSES), np.int64)))
