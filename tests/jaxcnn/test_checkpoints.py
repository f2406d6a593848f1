"""Checkpoints: what is loaded is what was saved, and two are kept: the last and the best."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import checkpoints


def state(step):
    """Leaves of several kinds, different at every step."""
    key = jax.random.key(step)
    return {
        "step": jnp.int32(step),
        "kernel": jax.random.normal(key, (3, 3, 2, 4)),
        "nested": ({"mean": jnp.full((4,), step / 7)}, jnp.arange(3)),
    }


def save_all(folder, scores):
    with checkpoints.open_checkpoints(folder) as saved:
        for step, (f1_macro, loss) in scores.items():
            checkpoints.save(saved, step, state(step), f1_macro=f1_macro, loss=loss)


def test_round_trip_is_exact_in_another_session(tmp_path):
    save_all(tmp_path / "run", {5: (0.5, 1.0)})
    with checkpoints.open_checkpoints(tmp_path / "run") as saved:
        loaded = checkpoints.load(saved, 5, jax.tree.map(jnp.zeros_like, state(5)))
    jax.tree.map(np.testing.assert_array_equal, loaded, state(5))
    assert jax.tree.map(lambda leaf: leaf.dtype, loaded) == jax.tree.map(lambda leaf: leaf.dtype, state(5))


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    """The write goes on in the background while the next step overwrites the buffers it is fed."""
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    large = {"kernel": jax.random.normal(jax.random.key(0), (2048, 2048))}
    expected = np.array(large["kernel"])
    with checkpoints.open_checkpoints(tmp_path) as saved:
        checkpoints.save(saved, 1, large, f1_macro=0.0, loss=0.0)
        overwritten = overwrite(large)
    with checkpoints.open_checkpoints(tmp_path) as saved:
        loaded = checkpoints.load(saved, 1, overwritten)
    np.testing.assert_array_equal(loaded["kernel"], expected)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({1: (0.1, 1.0), 2: (0.9, 1.0), 3: (0.5, 1.0)}, 2),
        ({1: (0.5, 0.2), 2: (0.5, 0.1), 3: (0.5, 0.3)}, 2),  # a tie in F1 goes to the lower loss
        ({1: (0.5, 0.2), 2: (0.5, 0.2), 3: (0.1, 0.1)}, 2),  # a full tie goes to the later
        ({1: (0.1, 1.0), 2: (0.2, 1.0), 3: (0.9, 1.0)}, 3),
    ],
)
def test_the_last_and_the_best_are_kept(tmp_path, scores, best):
    save_all(tmp_path, scores)
    with checkpoints.open_checkpoints(tmp_path) as saved:
        assert checkpoints.latest_step(saved) == 3
        assert checkpoints.best_step(saved) == best
    assert {folder.name for folder in tmp_path.iterdir()} == {str(best), "3"}


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    with checkpoints.open_checkpoints(tmp_path) as saved:
        assert checkpoints.latest_step(saved) is None
