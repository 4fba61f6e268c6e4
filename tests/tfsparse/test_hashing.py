"""Hashes of models: equal for equal models, different for whatever changes their outputs."""

import keras
import numpy as np

from tfsparse.hashing import hash_of_model, hash_of_weights


def small_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))


def test_a_layer_without_weights_makes_another_model():
    model = small_model()
    assert hash_of_model(model) == hash_of_model(small_model())
    image = keras.Input((4, 4, 1))
    rounded = keras.layers.Discretization([0.5])(image)
    masked = keras.Model(image, model(keras.ops.cast(rounded, "float32")))
    assert hash_of_model(masked) != hash_of_model(model)


def test_zeros_of_either_sign_are_the_same():
    """Masks leave -0.0, and files of sparse weights do not store it."""
    hashes = set()
    for zero in (0.0, -0.0):
        model = small_model()
        kernel = model.layers[-1].kernel
        kernel.assign(np.where(np.arange(3) > 0, kernel, np.float32(zero)))
        hashes.add((hash_of_weights(model), hash_of_model(model)))
    assert len(hashes) == 1
    assert hash_of_weights(small_model()) not in hashes.pop()


def test_an_operation_and_other_wiring_make_another_model():
    def model(change):
        x = inputs = keras.Input((8, 8, 4))
        first, second = keras.layers.ReLU(6.0), keras.layers.ReLU(3.0, negative_slope=0.1)
        if change == "operation":
            x = keras.ops.round(x)
        a, b = first(x), second(x)
        return keras.Model(inputs, b - a if change == "wiring" else a - b)

    plain = hash_of_model(model(None))
    assert hash_of_model(model(None)) == plain
    assert len({plain, hash_of_model(model("operation")), hash_of_model(model("wiring"))}) == 3
