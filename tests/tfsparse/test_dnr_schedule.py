"""When DNRSchedule prunes, and that TF-MOT takes it."""

import numpy as np
import pytest
import tensorflow as tf

from tfsparse.pruning import DNRSchedule


def test_dnr_schedule_drives_tfmots_own_pruning():
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as sparsity

    schedule = DNRSchedule(0.75, end_step=4, frequency=2)
    model = sparsity.prune_low_magnitude(
        tf_keras.Sequential([tf_keras.layers.Dense(40, input_shape=(20,))]),
        pruning_schedule=schedule,
    )
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    model.fit(
        rng.random((24, 20)),
        rng.random((24, 40)),
        batch_size=4,
        verbose=0,
        callbacks=[sparsity.UpdatePruningStep()],
    )
    kernel = sparsity.strip_pruning(model).layers[0].kernel.numpy()
    assert np.mean(kernel == 0) == pytest.approx(0.75)


def test_schedule():
    schedule = DNRSchedule(0.9, end_step=99, frequency=10)
    due = [step for step in range(110) if bool(schedule(tf.constant(step))[0])]
    assert due == list(range(10, 100, 10))
    assert float(schedule(tf.constant(5))[1]) == pytest.approx(0.9)
    rates = [schedule.prune_rate(step) for step in (0, 50, 99, 120)]
    np.testing.assert_allclose(rates, [0.5, 0.5 * 49 / 99, 0, 0])
    cosine = DNRSchedule(0.9, end_step=99, frequency=10, initial_prune_rate=0.3, decay="cosine")
    steps = np.array([0, 10, 50, 99])
    rates = [cosine.prune_rate(int(step)) for step in steps]
    np.testing.assert_allclose(rates, 0.15 * (1 + np.cos(np.pi * steps / 99)), atol=1e-12)
    assert cosine.prune_rate(120) == 0.0
    for each in (schedule, cosine):
        config = each.get_config()
        assert config["class_name"] == "DNRSchedule"
        assert DNRSchedule.from_config(config["config"]).get_config() == config


@pytest.mark.parametrize(
    "arguments",
    [
        {"target_sparsity": 1.0},
        {"target_sparsity": -0.1},
        {"frequency": 0},
        {"initial_prune_rate": 1.5},
        {"begin_step": -1},
        {"begin_step": 0},
        {"end_step": -1},
        {"decay": "exponential"},
    ],
)
def test_schedule_refuses_what_is_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments)).split("_")[0]):
        DNRSchedule(**{"target_sparsity": 0.9, "end_step": 9, "frequency": 3, **arguments})
