"""Masks and weights stay together, whatever Keras' tools do with the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import UsageError
from tfsparse._tfmot import PolynomialDecay
from tfsparse.pruning import DNRSchedule, Pruner, UpdatePruningStep

STEPS, EPOCHS, DENSITY = 3, 4, 0.25
ALGORITHMS = ("dnr", "magnitude")
# Each algorithm and structure, with UpdatePruningStep before and after the other callbacks.
MATRIX = [
    ("dnr", "unstructured", False),
    ("dnr", "channel", True),
    ("magnitude", "unstructured", True),
    ("magnitude", "channel", False),
]


def net(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((14, 14, 1)),
            layers.Conv2D(8, 3, 2, activation="relu"),
            layers.Conv2D(16, 3, 2, activation="relu"),
            layers.Conv2D(12, 2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


def compiled(model, **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1, 0.9, **arguments)
    # Compiling by XLA takes longer than all else here; test_pruner.py trains with it.
    model.compile(optimizer, loss, jit_compile=False)
    return model


def make_pruner(model, algorithm, structure="unstructured", seed=0, density=DENSITY):
    """DNR rewires after each epoch, magnitude pruning prunes at each step but the last epoch's."""
    if algorithm == "dnr":
        schedule = DNRSchedule(1 - density, STEPS * EPOCHS - 1, STEPS)
    else:
        schedule = PolynomialDecay(0.2, 1 - density, 0, STEPS * (EPOCHS - 1), frequency=1)
    return Pruner(model, schedule, structure=structure, seed=seed)


@pytest.fixture(scope="module")
def data(fashion_mnist):
    images, labels = fashion_mnist
    return images[:96, ::2, ::2], labels[:96]


def density_of(weights):
    arrays = [to_numpy(weight) for weight in weights]
    return sum(map(np.count_nonzero, arrays)) / sum(array.size for array in arrays)


def assert_together(pruner, exact=True):
    """No weight outside the masks, and next to none of 0 within them."""
    for weight, mask in zip(pruner.weights, pruner.masks, strict=True):
        values = to_numpy(weight)
        assert not values[mask.numpy() == 0].any()
    assert density_of(pruner.weights) <= pruner.density
    assert density_of(pruner.weights) >= (0.8 if exact else 0.5) * pruner.density


def due(pruner, step):
    return 1 - float(pruner.schedule(tf.constant(step))[1])


class Watch(keras.callbacks.Callback):
    """Checks masks and density after each step, and remembers the state after each epoch."""

    def __init__(self, pruner, images, interrupt=None):
        super().__init__()
        self.pruner, self.images, self.interrupt = pruner, images, interrupt
        self.outputs, self.supports, self.first, self.steps = {}, {}, None, 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.first is None:
            self.first = to_numpy(self.model(self.images))

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        assert_together(self.pruner)
        step = int(self.model.optimizer.iterations) - 1
        unit = 9 * 16 / 2000 if self.pruner.structure == "channel" else 0.01
        assert self.pruner.density == pytest.approx(due(self.pruner, min(step, 9)), abs=unit)

    def on_epoch_end(self, epoch, logs=None):
        self.outputs[epoch] = to_numpy(self.model(self.images))
        self.supports[epoch] = [to_numpy(weight) != 0 for weight in self.pruner.weights]
        logs["score"] = [0, 1, 0, 0][epoch]  # for EarlyStopping

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.interrupt:
            raise InterruptedError


def fit(model, data, pruner, others=(), ours_first=True, interrupt=None, epochs=EPOCHS):
    """Fits with `Watch` before all other callbacks; returns it."""
    watch, ours = Watch(pruner, data[0], interrupt), UpdatePruningStep(pruner)
    callbacks = [watch, ours, *others] if ours_first else [watch, *others, ours]
    try:
        model.fit(*data, 32, epochs, verbose=0, shuffle=False, callbacks=callbacks)
    except InterruptedError:
        assert interrupt is not None
    return watch


def assert_state_of(watch, epoch, model, pruner, images):
    """The model computes what it did after an epoch, and the masks are those of its weights."""
    np.testing.assert_array_equal(to_numpy(model(images)), watch.outputs[epoch])
    assert pruner.density == pytest.approx(
        np.mean(np.concatenate([x.ravel() for x in watch.supports[epoch]])), rel=0.15
    )
    assert_together(pruner)


@pytest.mark.parametrize(("algorithm", "structure", "ours_first"), MATRIX)
def test_early_stopping_restores_the_best_epoch(algorithm, structure, ours_first, data):
    """Detach leaves the model as it is, and another fit goes on with it."""
    model = compiled(net())
    pruner = make_pruner(model, algorithm, structure)
    stopping = keras.callbacks.EarlyStopping(
        "score", mode="max", patience=2, restore_best_weights=True
    )
    watch = fit(model, data, pruner, [stopping], ours_first)
    assert any((a != b).any() for a, b in zip(watch.supports[1], watch.supports[3], strict=True))
    np.testing.assert_array_equal(to_numpy(model(data[0])), watch.outputs[1])
    accuracy = np.mean(watch.outputs[1].argmax(-1) == data[1])
    if structure == "channel":
        second = fit(model, data, pruner, ours_first=ours_first, epochs=1)
        np.testing.assert_array_equal(second.first, watch.outputs[1])
        assert second.steps == STEPS
        return
    pruner.detach()
    assert_state_of(watch, 1, model, pruner, data[0])
    assert np.mean(model.predict(data[0], verbose=0).argmax(-1) == data[1]) == accuracy


@pytest.mark.parametrize(("algorithm", "structure", "ours_first"), MATRIX)
def test_resuming_from_a_checkpoint(algorithm, structure, ours_first, data, tmp_path):
    """A stock model loads what was saved, is pruned by another pruner, and trained on."""
    suffix = ".keras" if ours_first == (algorithm == "dnr") else ".weights.h5"
    model = compiled(net())
    pruner = make_pruner(model, algorithm, structure)
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / f"{{epoch}}{suffix}", save_weights_only=suffix != ".keras"
    )
    watch = fit(model, data, pruner, [checkpoint], ours_first)
    path = tmp_path / f"2{suffix}"
    if suffix == ".keras":
        resumed = keras.models.load_model(path)
    else:
        resumed = compiled(net(seed=1))
        resumed.optimizer.build(resumed.trainable_variables)
        resumed.load_weights(path)
    assert len(resumed.variables) == len(net().variables)
    assert int(resumed.optimizer.iterations) == 2 * STEPS
    other = make_pruner(resumed, algorithm, structure, seed=1)
    assert_state_of(watch, 1, resumed, other, data[0])
    second = fit(resumed, data, other, epochs=2)
    np.testing.assert_array_equal(second.first, watch.outputs[1])
    assert second.steps == 2 * STEPS
    other.detach()
    resumed.save(tmp_path / "end.keras")
    end = keras.models.load_model(tmp_path / "end.keras")
    np.testing.assert_array_equal(to_numpy(end(data[0])), to_numpy(resumed(data[0])))


@pytest.mark.parametrize(("algorithm", "structure", "ours_first"), MATRIX)
def test_backup_and_restore(algorithm, structure, ours_first, data, tmp_path):
    """Another process goes on with the masks of the interrupted one, not with its own."""
    model = compiled(net())
    pruner = make_pruner(model, algorithm, structure)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    before = fit(model, data, pruner, [backup], ours_first, interrupt=2)
    model = compiled(net(seed=1))
    pruner = make_pruner(model, algorithm, structure, seed=1)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    after = fit(model, data, pruner, [backup], ours_first)
    np.testing.assert_array_equal(after.first, before.outputs[1])
    assert after.steps == 2 * STEPS
    assert pruner.density == pytest.approx(due(pruner, 9), abs=0.05)


class Densities(keras.callbacks.Callback):
    """Remembers the density of the weights that other callbacks see at the end of an epoch."""

    def __init__(self, pruner):
        super().__init__()
        self.pruner, self.seen = pruner, []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(density_of(self.pruner.weights))

    on_test_begin = on_test_end = lambda self, logs=None: self.on_epoch_end(0)


@pytest.mark.parametrize(("algorithm", "structure", "ours_first"), MATRIX)
def test_averages_are_masked_whenever_they_are_seen(
    algorithm, structure, ours_first, data, tmp_path
):
    model = compiled(net(), use_ema=True, ema_momentum=0.8)
    pruner = make_pruner(model, algorithm, structure)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    others = [swap, checkpoint] if structure == "channel" else [checkpoint, swap]
    ours = UpdatePruningStep(pruner)
    callbacks = [ours, *others] if ours_first else [*others, ours]
    seen = Densities(pruner)
    model.fit(*data, 32, EPOCHS, verbose=0, validation_data=data, callbacks=[*callbacks, seen])
    for epoch in range(EPOCHS):
        saved = keras.models.load_model(tmp_path / f"{epoch + 1}.keras")
        pruned = [saved.get_layer(name).kernel for name in pruner.layer_names]
        expected = due(pruner, min(STEPS * (epoch + 1) - 1, 9))
        assert density_of(pruned) == pytest.approx(expected, abs=0.07)
        assert max(seen.seen[3 * epoch : 3 * epoch + 3]) <= expected + 0.07
    outputs = to_numpy(model(data[0]))
    pruner.detach()
    np.testing.assert_array_equal(to_numpy(model(data[0])), outputs)
    assert_together(pruner)


@pytest.mark.parametrize(("algorithm", "recompile"), [("dnr", True), ("magnitude", False)])
def test_a_model_that_was_fitted_before_is_pruned_from_the_first_step(algorithm, recompile, data):
    model = compiled(net())
    model.fit(*data, 32, verbose=0)
    kernel = to_numpy(model.layers[1].kernel)
    if not recompile:
        model.optimizer.iterations.assign(0)
    pruner = make_pruner(model, algorithm)
    if recompile:
        compiled(model)
    watch = fit(model, data, pruner)
    assert watch.steps == STEPS * EPOCHS
    assert (to_numpy(model.layers[1].kernel) != kernel).any()
    outputs = to_numpy(model(data[0]))
    pruner.detach()
    np.testing.assert_array_equal(to_numpy(model(data[0])), outputs)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_compiled_again_between_two_fits(algorithm, data):
    """The steps of the new optimizer start at 0; what magnitude pruning took stays away."""
    model = compiled(net())
    pruner = make_pruner(model, algorithm)
    fit(model, data, pruner)
    compiled(model)
    counts = []

    class Count(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert_together(pruner)
            counts.append(pruner.density)

    callbacks = [UpdatePruningStep(pruner), Count()]
    model.fit(*data, 32, 2, verbose=0, callbacks=callbacks)
    assert counts == pytest.approx([DENSITY] * (2 * STEPS), abs=1e-3)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_detach_and_prune_again(algorithm, data):
    model = compiled(net())
    first = make_pruner(model, algorithm, density=0.5)
    fit(model, data, first)
    first.detach()
    model.fit(*data, 32, verbose=0)
    assert density_of(first.weights) > 0.9, "without a pruner all weights are trained"
    second = make_pruner(model, algorithm)
    model.optimizer.iterations.assign(0)
    watch = fit(model, data, second)
    assert watch.steps == STEPS * EPOCHS
    with pytest.raises(UsageError, match=r"detached.*new one"):
        fit(model, data, first)
    with pytest.raises(UsageError, match="detached"):
        first.update(0, model.optimizer)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_loaded_in_the_middle_of_an_epoch(algorithm, data):
    """By a callback that takes back a bad step, for example."""
    model = compiled(net())
    pruner = make_pruner(model, algorithm)
    fit(model, data, pruner, epochs=1)
    restored = model.get_weights()
    kernels = [to_numpy(weight) for weight in pruner.weights]

    class Load(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(model.optimizer.iterations) == 2 * STEPS + 2:
                model.set_weights(restored)

    class Check(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(model.optimizer.iterations) == 2 * STEPS + 2:
                for mask, kernel in zip(pruner.masks, kernels, strict=True):
                    kept, cut = (np.abs(kernel[mask.numpy() == value]) for value in (1, 0))
                    if algorithm == "dnr":
                        assert not cut.any()
                    else:
                        assert kept.min() >= cut.max()

    callbacks = [Load(), UpdatePruningStep(pruner), Check()]
    model.fit(*data, 32, 2, verbose=0, callbacks=callbacks)
    assert_together(pruner)


def make_step(model, optimizer, data):
    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(data[1], model(data[0]), True)
            loss = tf.add_n([tf.reduce_mean(losses), *model.losses])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)

    return step


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_function_traced_before_the_pruner_is_refused_at_its_first_step(algorithm, data):
    model, optimizer = net(), keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    step = make_step(model, optimizer, data)
    step()
    pruner = make_pruner(model, algorithm)
    pruner.update(0, optimizer)
    step()
    with pytest.raises(UsageError, match=r"tf\.function again.*adopt_weights"):
        pruner.update(1, optimizer)
    pruner.adopt_weights()
    step = make_step(model, optimizer, data)
    for count in range(1, 4):
        pruner.update(count, optimizer)
        step()
        assert_together(pruner)
    pruner.detach()
    step()
    assert_together(pruner)
    second = make_pruner(model, algorithm, density=0.1)
    second.update(9, optimizer)
    step()  # applies the masks of the first pruner
    with pytest.raises(UsageError, match=r"tf\.function again"):
        second.update(10, optimizer)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_loaded_in_a_loop_of_ones_own(algorithm, data):
    model, optimizer = net(), keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    pruner = make_pruner(model, algorithm)
    step = make_step(model, optimizer, data)
    weights = []
    for count in range(8):
        pruner.update(count, optimizer)
        step()
        weights.append(model.get_weights())
    model.set_weights(weights[2])
    outputs = to_numpy(model(data[0]))
    with pytest.raises(UsageError, match="adopt_weights"):
        pruner.update(8, optimizer)
    pruner.adopt_weights()
    np.testing.assert_array_equal(to_numpy(model(data[0])), outputs)
    assert_together(pruner)
    pruner.update(8, optimizer)


def test_the_regularizer_starts_anew_with_other_weights(data):
    model = compiled(net())
    pruner = make_pruner(model, "dnr")
    fit(model, data, pruner, epochs=1)
    restored = model.get_weights()
    fit(model, data, pruner, epochs=2)
    assert any(to_numpy(each.multiplier).any() for each in pruner._regularizers)
    model.set_weights(restored)
    pruner.adopt_weights()
    assert float(sum(model.losses)) == 0.0
