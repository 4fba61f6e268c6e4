"""JAX: eight devices as one, and steps in one compiled call as single steps."""

import numpy as np
import pytest

from tests.without_tensorflow import QUICK_XLA


@pytest.fixture(scope="module")
def runs(run, tmp_path_factory):
    pytest.importorskip("jax")
    path = tmp_path_factory.mktemp("devices") / "outputs.npz"
    flags = f"{QUICK_XLA} --xla_force_host_platform_device_count=8"
    module = "tests.tfsparse.devices"
    arguments = ("-m", "tests.without_tensorflow", module, path)
    done = run(*arguments, KERAS_BACKEND="jax", XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    found = {}
    for key, value in np.load(path).items():
        name, _, rest = key.partition("/")
        found.setdefault(name, {})[rest] = value
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eight", "eight_stretches"])
def test_eight_devices_train_as_one(runs, name):
    ours, expected = runs[name], runs["one"]
    assert (ours["devices"], expected["devices"]) == (8, 1)
    for key in expected.keys() - {"calls", "devices"}:
        np.testing.assert_allclose(ours[key], expected[key], rtol=0, atol=1e-5, err_msg=key)
        if "mask" in key:
            assert 0 < ours[key].mean() < 1
            np.testing.assert_array_equal(ours[key], expected[key])


@pytest.mark.slow
def test_stretches_end_where_masks_change(runs):
    """Before steps 3 and 6; a call takes at most 4 steps."""
    assert runs["one"]["calls"].tolist() == list(range(1, 9))
    assert runs["eight_stretches"]["calls"].tolist() == [3, 6, 8]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", "eight_stretches"])
def test_a_resumed_run_has_the_same_bits(runs, name):
    resumed = runs["resumed" if name == "one" else f"{name}_resumed"]
    assert resumed["calls"].tolist() == {"one": [1, 2, 3, 4], "eight_stretches": [3, 6]}[name]
    for key in runs[name].keys() - {"calls"}:
        np.testing.assert_array_equal(resumed[key], runs[name][key], err_msg=key)
