"""What pruning starts with: initial masks, and what is said before the first step."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from tests.tfsparse.test_pruning_state import (
    ALGORITHMS,
    DENSITY,
    EPOCHS,
    compiled,
    density_of,
    fit,
    make_pruner,
    net,
)
from tfsparse import UsageError
from tfsparse._tfmot import PolynomialDecay
from tfsparse.pruning import DNR, SET, DNRSchedule, Pruner, RigL, UpdatePruningStep


@pytest.fixture(scope="module")
def data(fashion_mnist):
    images, labels = fashion_mnist
    return images[:96, ::2, ::2], labels[:96]


def fitted(data):
    model = compiled(net())
    model.fit(*data, 32, verbose=0)
    return model


def with_biases(data):
    model = net()
    model.layers[2].bias.assign(np.arange(12.0))
    return model


def with_zeros(data):
    model = net()
    model.layers[1].kernel.assign(model.layers[1].kernel * (np.arange(8.0) > 2)[:, None])
    return model


@pytest.mark.parametrize("trained", [fitted, with_biases, with_zeros])
@pytest.mark.parametrize("structure", ["unstructured", "channel"])
def test_a_trained_model_keeps_its_largest_weights(trained, structure, data):
    model = trained(data)
    before = [to_numpy(layer.kernel) for layer in model.layers[:3]]
    before = before[1:] if structure == "channel" else before
    pruner = make_pruner(model, "dnr", structure)
    for old, weight, mask in zip(before, pruner.weights, pruner.masks, strict=True):
        norms, mask = np.abs(old), mask.numpy()
        if structure == "channel":
            norms = np.broadcast_to(np.sqrt(np.sum(old**2, (0, 1, 3), keepdims=True)), old.shape)
        assert norms[mask == 1].min() >= norms[mask == 0].max()
        np.testing.assert_array_equal(to_numpy(weight), old * mask)
    assert pruner.density == pytest.approx(DENSITY, abs=0.03)


def masks_of(pruner):
    return np.concatenate([mask.numpy().ravel() for mask in pruner.masks])


def test_initial_masks_as_asked(data):
    def masks(model, choice):
        return masks_of(Pruner(model, DNRSchedule(0.75, 9, 3), initial_masks=choice))

    drawn, largest = masks(net(), "random"), masks(net(), "magnitude")
    np.testing.assert_array_equal(masks(net(), None), drawn)
    assert drawn.sum() == largest.sum()
    assert (drawn != largest).any()
    np.testing.assert_array_equal(masks(with_biases(data), None), largest)
    np.testing.assert_array_equal(masks(with_biases(data), "random"), drawn)
    with pytest.raises(UsageError, match=r"initial_masks must be .*'largest'"):
        masks(net(), "largest")


@pytest.mark.parametrize("algorithm", [DNR, SET, RigL])
def test_a_sparse_model_goes_on_with_its_own_weights(algorithm):
    """The zeros that it may fill are drawn; their number is what the density leaves."""
    rng, model = np.random.default_rng(0), net()
    supports = []
    for layer, density in zip(model.layers, (0.9, 0.1, 0.05), strict=False):
        supports.append(rng.random(layer.kernel.shape) < density)
        layer.kernel.assign(to_numpy(layer.kernel) * supports[-1])
    outputs = to_numpy(model(np.ones((1, 14, 14, 1))))
    pruner = Pruner(model, DNRSchedule(0.7, 9, 3), algorithm=algorithm())
    for mask, support in zip(pruner.masks, supports, strict=True):
        assert (mask.numpy()[support] == 1).all()
    np.testing.assert_array_equal(to_numpy(model(np.ones((1, 14, 14, 1)))), outputs)
    assert masks_of(pruner).sum() == round(0.3 * masks_of(pruner).size)


def test_gradual_pruning_of_a_sparse_model_revives_nothing(data):
    model = compiled(with_zeros(data))
    pruner = make_pruner(model, "magnitude")
    assert pruner.layer_densities()[model.layers[1].name] == 5 / 8
    model.fit(*data, 32, 2, verbose=0, callbacks=[UpdatePruningStep(pruner)])
    assert not to_numpy(model.layers[1].kernel)[:, :, :3].any()


def test_weights_that_a_constraint_has_set_to_zero_come_back(data):
    """An own constraint may set weights to 0 for a while; masks do not follow these."""
    keras.utils.set_random_seed(0)
    model = compiled(net())
    model.layers[1].kernel.constraint = keras.constraints.NonNeg()
    pruner = Pruner(model, PolynomialDecay(0.1, 0.2, 50, 60))
    model.fit(*data, 32, 2, verbose=0, callbacks=[UpdatePruningStep(pruner)])
    assert density_of(pruner.weights) < 0.9
    assert pruner.density == 1.0


def test_what_is_wrong_is_said_before_the_first_step(data):
    def error(model, pruner):
        before = model.get_weights()
        with pytest.raises(UsageError) as caught:
            model.fit(*data, 32, verbose=0, callbacks=[UpdatePruningStep(pruner)])
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    model = net()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    pruner = make_pruner(model, "dnr")
    assert "needs an optimizer with momentum" in error(model, pruner)
    compiled(model)
    model.layers[1].trainable = False
    assert f"{model.layers[1].name!r} is pruned but not trained" in error(model, pruner)
    model = compiled(net(), gradient_accumulation_steps=2)
    pruner = Pruner(model, DNRSchedule(0.7, 9, 3), algorithm=RigL())
    assert "needs gradient_accumulation_steps=None. Received: 2" in error(model, pruner)
    model.compile(keras.optimizers.RMSprop(0.1, momentum=0.9), "mse")
    assert "SGD with momentum, Adam and AdamW only" in error(model, pruner)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_steps_are_batches_also_if_gradients_are_accumulated(algorithm, data):
    model = compiled(net(), gradient_accumulation_steps=2)
    pruner = make_pruner(model, algorithm)
    masks, changes = [masks_of(pruner)], []

    class Follow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert not any(
                to_numpy(weight)[mask.numpy() == 0].any()
                for weight, mask in zip(pruner.weights, pruner.masks, strict=True)
            )
            masks.append(masks_of(pruner))
            if (masks[-1] != masks[-2]).any():
                changes.append(len(masks) - 2)

    callbacks = [UpdatePruningStep(pruner), Follow()]
    model.fit(*data, 32, EPOCHS, verbose=0, callbacks=callbacks)
    expected = [3, 6, 9] if algorithm == "dnr" else list(range(10))
    assert changes == expected


@pytest.mark.parametrize("floatx", ["float64", "bfloat16"])
def test_under_other_float_types(floatx, data):
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(floatx)
    try:
        model = compiled(net())
        pruner = make_pruner(model, "dnr")
        fit(model, data, pruner, epochs=2)
        assert pruner.weights[0].dtype == floatx
        pruner.detach()
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
