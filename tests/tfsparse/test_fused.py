"""The oracle of the fused operator is the stock layer's own call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsparse.fused import fused_batch_norm


def network(momentum=0.9, **options):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 5, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(inputs)  # its gradient would be rounding alone
    x = keras.layers.BatchNormalization(momentum=momentum, **options)(x)
    return keras.Model(inputs, keras.layers.Flatten()(x))


def train_step(model, images, fused):
    """Returns outputs, gradients and moving statistics of one call in training mode."""

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            if fused:
                with fused_batch_norm(model):
                    outputs = model(images, training=True)
            else:
                outputs = model(images, training=True)
            loss = tf.reduce_sum(outputs**3)
        sources = [images, *(v.value for v in model.trainable_variables)]
        return outputs, tape.gradient(loss, sources)

    outputs, gradients = step(images)
    statistics = [variable.numpy() for variable in model.non_trainable_variables]
    operators = {node.op for node in step.get_concrete_function(images).graph.as_graph_def().node}
    return [outputs.numpy(), *(g.numpy() for g in gradients), *statistics], operators


@pytest.mark.parametrize("momentum", [0.9, 0.5])
@pytest.mark.parametrize("batch", [1, 7])
def test_equals_the_stock_layer(batch, momentum):
    images = tf.random.stateless_normal((batch, 6, 5, 3), (1, 2))
    (stock, _), (fused, operators) = (
        train_step(network(momentum), images, fused) for fused in (False, True)
    )
    assert "FusedBatchNormV3" in operators
    for expected, found in zip(stock, fused, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_has_the_statistics_of_float32(policy):
    images = tf.random.stateless_normal((7, 6, 5, 3), (1, 2)) + 3.0
    (stock, _), (fused, operators) = (
        train_step(network(dtype=dtype), images, is_fused)
        for dtype, is_fused in (("float32", False), (policy, True))
    )
    assert "FusedBatchNormV3" in operators
    # What goes in is rounded to 8 or 11 bits, and so is what comes out; gradients add both up.
    for expected, found in zip(stock, fused, strict=True):
        error = np.abs(expected - found.astype(np.float32)).max()
        assert error <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(
    "options",
    [
        {"synchronized": True},
        {"scale": False},
        {"center": False},
        {"axis": 1},
        {"trainable": False},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_other_layers_run_as_they_are(options):
    images = tf.random.stateless_normal((7, 6, 5, 3), (1, 2))
    (stock, _), (fused, operators) = (
        train_step(network(**options), images, fused) for fused in (False, True)
    )
    assert "FusedBatchNormV3" not in operators
    for expected, found in zip(stock, fused, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_model_is_as_before_afterwards(tmp_path):
    model = network()
    layer = model.layers[2]
    with fused_batch_norm(model):
        assert "call" in vars(layer)
    assert "call" not in vars(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[2]) is keras.layers.BatchNormalization


def test_inference_is_not_changed():
    model, images = network(), tf.random.stateless_normal((7, 6, 5, 3), (1, 2))
    expected = model(images, training=False)
    with fused_batch_norm(model):
        np.testing.assert_array_equal(model(images, training=False), expected)


def test_subclassed_models_and_other_ranks():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = keras.layers.Dense(3), keras.layers.BatchNormalization(axis=-1)

        def call(self, x, training=False):
            return self.norm(self.dense(x), training=training)

    model, images = Net(), tf.random.stateless_normal((7, 6), (1, 2))
    expected = model(images, training=True)
    with fused_batch_norm(model):
        np.testing.assert_array_equal(model(images, training=True), expected)
