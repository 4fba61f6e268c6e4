"""Under TensorFlow and under JAX: the same step from the same weights, and the same masks."""

import keras
import numpy as np
import pytest

from tests.tfsparse import step_of_each_backend as script
from tests.without_tensorflow import QUICK_XLA


@pytest.fixture(scope="module")
def results(run, tmp_path_factory):
    """Returns {backend: outputs of the script}, for a network's weights and a batch."""
    pytest.importorskip("jax")
    folder, rng = tmp_path_factory.mktemp("backends"), np.random.default_rng(0)
    inputs = {
        "images": rng.random((8, 16, 16, 3), np.float32),
        "labels": rng.integers(0, 10, 8).astype(np.int32),
        "start": rng.uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32),
        "teacher": rng.normal(0, 0.1, (16 * 16 * 3, 10)).astype(np.float32),
    }
    keras.utils.set_random_seed(0)
    for network in script.NETWORKS:
        for index, weight in enumerate(script.build(network).get_weights()):
            inputs[f"{network}/{index}"] = weight
    np.savez(folder / "inputs.npz", **inputs)
    found = {}
    script.main(folder / "inputs.npz", folder / "tensorflow.npz")
    module = ("-m", "tests.without_tensorflow", "tests.tfsparse.step_of_each_backend")
    arguments = (*module, folder / "inputs.npz", folder / "jax.npz")
    done = run(*arguments, KERAS_BACKEND="jax", XLA_FLAGS=QUICK_XLA)
    assert done.returncode == 0, done.stderr
    for backend in ("tensorflow", "jax"):
        found[backend] = dict(np.load(folder / f"{backend}.npz"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("network", script.NETWORKS)
def test_a_step_is_the_same(results, network):
    ours, theirs = results["tensorflow"], results["jax"]
    names = [name for name in ours if name.startswith(f"{network}/") and "mask" not in name]
    assert len(names) > 20
    for name in names:
        np.testing.assert_allclose(theirs[name], ours[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("network", script.NETWORKS)
def test_a_rewiring_gives_the_same_masks(results, network):
    ours, theirs = results["tensorflow"], results["jax"]
    names = [name for name in ours if name.startswith(f"{network}/mask")]
    assert sum(ours[name].sum() for name in names) > 1000
    for name in names:
        np.testing.assert_array_equal(theirs[name], ours[name])
