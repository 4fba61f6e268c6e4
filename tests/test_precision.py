"""Every dtype policy from training to a verified file, and layers that hide theirs."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tflite.convert import convert
from tflite.verify import verify
from tfsparse import UsageError, attacks, training
from tfsparse.evaluation import accuracy
from tfsparse.graph import tracked_layers
from tfsparse.layers import PeriodicConv2D
from tfsparse.precision import full_precision
from tfsparse.pruning import DNRSchedule, Pruner

pytestmark = pytest.mark.slow

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "float64", "bfloat16", "float16")
L = keras.layers


@contextlib.contextmanager
def global_policy(policy):
    """Sets the policy and, to its variables' type, what Keras makes without one."""
    default, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(default)


def network(dtype=None):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    x = L.Conv2D(8, 3, use_bias=False, dtype=dtype)(image)
    x = L.ReLU(dtype=dtype)(L.BatchNormalization(dtype=dtype)(x))
    x = PeriodicConv2D(8, 3, "PSD2_P8", dtype=dtype)(x)
    x = L.Lambda(lambda x: 2 * x, dtype=dtype)(x)
    return keras.Model(image, L.Dense(4, dtype=dtype)(L.Flatten(dtype=dtype)(x)))


def data(count=24):
    rng = np.random.default_rng(0)
    return rng.random((count, 8, 8, 1), np.float32), rng.integers(0, 4, count)


@pytest.mark.parametrize("policy", POLICIES)
def test_trains_prunes_attacks_saves_converts_and_verifies(policy, tmp_path):
    images, labels = data()
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(12)
    with global_policy(policy):
        model = network()
        pruner = Pruner(model, DNRSchedule(0.5, 2, 1))
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        attack = attacks.pgd(model, 8 / 255, 2)
        trainer = training.Trainer(model, optimizer, attack, pruner)
        assert np.isfinite(trainer.run_epoch(batches, 0)["loss"])
        assert pruner.density == pytest.approx(0.5, abs=0.02)
        pruner.detach()
        assert 0 <= accuracy(model, batches, attack) <= accuracy(model, batches) <= 1
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)
        for precision in ("float32", "int8"):
            content = convert(loaded, precision, images)
            found = verify(content, loaded, images, labels, precision=precision)
            # An untrained network has near-ties only.
            assert found.difference <= found.bounds.difference, (precision, found.failures)
    expected = np.asarray(loaded(images)).astype(np.float64)
    actual = np.asarray(full_precision(loaded)(images))
    tolerance = 1e-5 if policy in ("float32", "float64") else 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_images_of_another_float_type_stay_of_it(dtype):
    images, labels = data(2)
    images, seed = tf.cast(images, dtype), tf.constant([0, 0])
    for attack in (
        attacks.pgd(network(), 0.1, 2),
        attacks.uniform_noise(0.1),
        attacks.gaussian_noise(0.1),
    ):
        attacked = attack(images, labels, seed)
        assert attacked.dtype == dtype
        assert 0 < np.abs(tf.cast(attacked - images, tf.float64)).max() < 0.11


@keras.saving.register_keras_serializable("tests")
class Block(L.Layer):
    """A layer with a layer in it, of its own type or of the global policy's."""

    def __init__(self, inner=None, **options):
        super().__init__(**options)
        self.inner = keras.saving.deserialize_keras_object(inner) if inner else L.Dense(4)

    def build(self, shape):
        if not self.inner.built:
            self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}


def test_a_layer_in_another_layer_or_model_is_found():
    image = keras.Input((8, 8, 1))
    dense = keras.saving.serialize_keras_object(L.Dense(4, dtype="bfloat16"))
    nested = keras.Sequential([keras.Input((64,)), Block(dense)])
    model = keras.Model(image, nested(L.Flatten()(image)))
    copy = full_precision(model)
    assert {layer.compute_dtype for layer in tracked_layers(copy)} == {"float32"}
    images, _ = data()
    expected = np.asarray(model(images)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(copy(images)), expected, atol=0.02)
    assert verify(convert(model, "float32"), model, images, precision="float32").passed


class Stubborn(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = L.Dense(4, dtype="bfloat16")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


def test_a_layer_that_chooses_its_own_type_is_named():
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, Stubborn()(L.Flatten()(image)))
    with pytest.raises(UsageError, match=r"dense\S* of class Dense computes in bfloat16"):
        convert(model, "float32")
