"""Learning rates and weight decay of the recipes' optimizer against their formulas."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from tfsparse.optimizers import sgd


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("one_cycle", [0.0, 0.2, 0.4, 0.2, 0.0]),  # at the start, half of the rise, its end, ...
        ("cosine", [0.4, 0.4 * (1 + np.cos(np.pi / 20)) / 2, None, None, 0.0]),
        ("piecewise", [0.4, 0.4, 0.4, 0.04, 0.004]),
    ],
)
def test_learning_rates(schedule, expected):
    rate = sgd(1000, 0.4, 5e-4, schedule)._learning_rate
    for step, value in zip((0, 50, 100, 550, 1000), expected, strict=True):
        if value is not None:
            assert float(rate(step)) == pytest.approx(value, abs=1e-6)


def test_weight_decay_leaves_norms_and_biases_alone():
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    optimizer = sgd(10, 0.1, 0.5, "piecewise")
    optimizer.build(model.trainable_variables)
    before = [to_numpy(v) for v in model.trainable_variables]
    optimizer.apply([ops.zeros(v.shape) for v in model.trainable_variables])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        decayed = 0.95 if variable.name == "kernel" else 1.0
        np.testing.assert_allclose(to_numpy(variable), decayed * old, rtol=1e-6)
