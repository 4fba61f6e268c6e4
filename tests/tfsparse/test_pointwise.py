"""The oracle of strided 1x1 convolutions in training is the stock layer's own call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsparse.pointwise import pixels_first

IMAGES = tf.random.stateless_normal((3, 9, 8, 3), (1, 2))


def network(width=4, **options):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((9, 8, 3))
    x = keras.layers.Conv2D(width, 3, activation="relu")(inputs)
    inner = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Conv2D(5, 1, **options)])
    return keras.Model(inputs, keras.layers.Flatten()(inner(x)))


def train_step(model, is_changed):
    """Returns outputs and gradients of one call in training mode, and the strides of its graph."""

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            if is_changed:
                with pixels_first(model):
                    outputs = model(images, training=True)
            else:
                outputs = model(images, training=True)
            loss = tf.reduce_sum(outputs**3)
        sources = [images, *(v.value for v in model.trainable_variables)]
        return [outputs, *tape.gradient(loss, sources)]

    values = [value.numpy() for value in step(IMAGES)]
    nodes = step.get_concrete_function(IMAGES).graph.as_graph_def().node
    return values, {tuple(n.attr["strides"].list.i) for n in nodes if n.op.startswith("Conv2D")}


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [2, (2, 2), 3], ids=str)
@pytest.mark.parametrize("use_bias", [True, False])
def test_equals_the_stock_layer(strides, padding, use_bias):
    options = {"strides": strides, "padding": padding, "use_bias": use_bias}
    (stock, stock_strides), (found, found_strides) = (
        train_step(network(**options), is_changed) for is_changed in (False, True)
    )
    assert len(stock_strides) == 2
    assert found_strides == {(1, 1, 1, 1)}
    for expected, value in zip(stock, found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_rows_and_columns_have_strides_of_their_own():
    """TensorFlow has no such convolution on a CPU; the oracle is NumPy."""
    layer = keras.layers.Conv2D(5, 1, strides=(2, 3), use_bias=False)
    layer.build((None, 9, 8, 3))
    with pixels_first(keras.Sequential([layer])):
        found = layer(IMAGES)
    kernel = keras.ops.convert_to_numpy(layer.kernel)[0, 0]
    np.testing.assert_allclose(found, IMAGES.numpy()[:, ::2, ::3] @ kernel, rtol=1e-5, atol=1e-6)


def test_a_wide_layer_runs_as_it_is():
    (stock, _), (found, strides) = (
        train_step(network(width=16, strides=2), is_changed) for is_changed in (False, True)
    )
    assert len(strides) == 2
    for expected, value in zip(stock, found, strict=True):
        np.testing.assert_array_equal(value, expected)


class Wrapper(keras.layers.Layer):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, images):
        return self.layer(images)


@pytest.mark.parametrize("place", ["model", "two models", "layer"])
def test_model_is_as_before_afterwards(place):
    layer = keras.layers.Conv2D(5, 1, 2)
    inputs = keras.Input((9, 8, 4))
    holders = [keras.Sequential([keras.Input((9, 8, 4)), layer]) for _ in range(2)]
    holders = {"model": [layer], "two models": holders, "layer": [Wrapper(layer)]}[place]
    model = keras.Model(inputs, [holder(inputs) for holder in holders])
    with pixels_first(model):
        assert "convolution_op" in vars(layer)
    assert "convolution_op" not in vars(layer)


def test_a_narrow_network_trains_with_onednn(run):
    """In one thread, the stock layers' gradient crashes with it."""
    script = """
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)

import numpy as np
import zoo
from tfsparse.optimizers import sgd
from tfsparse.training import Trainer

rng = np.random.default_rng(0)
images, labels = rng.random((16, 28, 28, 1), np.float32), rng.integers(10, size=16)
trainer = Trainer(zoo.build("resnet8", (28, 28, 1), 10, width=4), sgd(9, 0.05, 5e-4))
print(trainer.run_epoch([(images, labels)] * 3, seed=0)["loss"])
"""
    done = run("-c", script, TF_ENABLE_ONEDNN_OPTS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < float(done.stdout) < 10
