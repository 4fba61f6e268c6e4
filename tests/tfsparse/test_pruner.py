"""The pruner in a real training loop on real images; all algorithms are in test_algorithms.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from tfsparse import UsageError, _tfmot, backend
from tfsparse._tfmot import PolynomialDecay
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import ConvolutionPolicy, DNRSchedule, Pruner, RigL, UpdatePruningStep
from tfsparse.training import Trainer

STEPS_PER_EPOCH, EPOCHS = 3, 4


def small_model(seed=0):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(8, 3, 2, use_bias=False, name="first")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = PeriodicConv2D(32, 3, "PS4_P4", 2, name="periodic")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(16, 3, name="last")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def make_trainer(structure="unstructured", density=0.3, seed=0, **schedule):
    model = small_model(seed)
    schedule = DNRSchedule(1 - density, STEPS_PER_EPOCH * EPOCHS - 1, STEPS_PER_EPOCH, **schedule)
    pruner = Pruner(model, schedule, structure=structure, seed=seed)
    return Trainer(model, keras.optimizers.SGD(0.1, momentum=0.9), pruner=pruner)


@pytest.fixture(scope="module")
def images(fashion_mnist):
    images, labels = fashion_mnist
    return tf.data.Dataset.from_tensor_slices((images[:96], labels[:96])).batch(32)


def ones(pruner):
    return [mask.numpy() for mask in pruner.masks]


def test_every_filter_starts_with_a_weight():
    """At 20 % one filter in seven of the first layer, of 9 weights each, would have none."""
    for seed in range(5):
        trainer = make_trainer(density=0.2, seed=seed)
        model, masks = trainer.model, ones(trainer.pruner)
        kernels = [model.get_layer("first").kernel, model.get_layer("last").kernel]
        kernels.append(model.get_layer("periodic").dense_kernel())
        for kernel in kernels:
            assert to_numpy(kernel).any(axis=(0, 1, 2)).all()
        total = sum(mask.size for mask in masks)
        assert sum(mask.sum() for mask in masks) == round(0.2 * total)


def test_channel_masks_are_all_or_nothing(images):
    trainer = make_trainer("channel")
    for epoch in range(2):
        trainer.run_epoch(images, seed=epoch)
    pruner = trainer.pruner
    assert pruner.layer_names == ["periodic", "last"]
    periodic, dense = ones(pruner)
    channels = trainer.model.get_layer("periodic").kernel_channels
    for channel in range(8):
        assert len(set(periodic[channels == channel])) == 1
    assert all(len(np.unique(dense[:, :, channel])) == 1 for channel in range(32))


def test_dynamic_regularizer(images):
    trainer = make_trainer()
    trainer.run_epoch(images, seed=0)
    pruner = trainer.pruner
    weights = [to_numpy(weight) for weight in pruner.weights]
    dynamic = pruner._regularizers
    old = [to_numpy(each.multiplier) for each in dynamic]
    pruner.update(trainer.step, trainer.optimizer)
    targets = [to_numpy(each.target) for each in dynamic]
    multipliers = [to_numpy(each.multiplier) for each in dynamic]
    for w, u, z, new_u, mask in zip(weights, old, targets, multipliers, ones(pruner), strict=True):
        np.testing.assert_allclose(z, (w + u) * mask, atol=1e-7)  # the projection
        np.testing.assert_allclose(z + new_u, w + u, atol=1e-6)
    expected = (
        0.5
        * pruner.algorithm.rho
        * sum(
            np.sum(mask * (to_numpy(w) - z + u) ** 2)
            for w, z, u, mask in zip(
                pruner.weights, targets, multipliers, ones(pruner), strict=True
            )
        )
    )
    assert float(sum(trainer.model.losses)) == pytest.approx(expected, rel=1e-4)
    pruner.detach()
    assert not trainer.model.losses


def test_own_constraints_and_regularizers_stay(images):
    keras.utils.set_random_seed(0)
    model = small_model()
    kernel = model.get_layer("last").kernel
    constraint, regularizer = keras.constraints.NonNeg(), keras.regularizers.L1(0.1)
    kernel.constraint, kernel.regularizer = constraint, regularizer
    pruner = Pruner(model, DNRSchedule(0.7, 9, 3))
    penalty = 0.1 * np.sum(np.abs(to_numpy(kernel)))
    assert float(sum(model.losses)) == pytest.approx(penalty, rel=1e-4)  # W = Z, U = 0
    trainer = Trainer(model, keras.optimizers.SGD(0.1, momentum=0.9), pruner=pruner)
    trainer.run_epoch(images, seed=0)
    assert (to_numpy(kernel) >= 0).all()
    assert (to_numpy(kernel)[pruner.masks[2].numpy() == 0] == 0).all()
    pruner.detach()
    assert (kernel.constraint, kernel.regularizer) == (constraint, regularizer)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "loss scale"])
def test_in_fit(images, optimizer):
    """Masks change where the schedule says, and hold after every batch, compiled as Keras likes."""
    keras.utils.set_random_seed(0)
    model = small_model()
    schedule = DNRSchedule(0.7, STEPS_PER_EPOCH * EPOCHS - 1, STEPS_PER_EPOCH)
    pruner = Pruner(model, schedule)
    changes, before = [], [ones(pruner)]

    class Check(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks, step = ones(pruner), int(model.optimizer.iterations)
            if any((a != b).any() for a, b in zip(before.pop(), masks, strict=True)):
                changes.append(step - 1)
            before.append(masks)
            assert sum(mask.sum() for mask in masks) == round(0.3 * sum(m.size for m in masks))
            for weight, mask in zip(pruner.weights, masks, strict=True):
                assert (to_numpy(weight)[mask == 0] == 0).all()

    chosen = {
        "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        "adam": lambda: keras.optimizers.Adam(0.01),
        "loss scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, 0.9)),
    }[optimizer]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(chosen, loss)
    model.fit(images, epochs=EPOCHS, verbose=0, callbacks=[UpdatePruningStep(pruner), Check()])
    assert changes == [3, 6, 9]


def test_fit_with_several_steps_at_once_is_refused(images):
    model = small_model()
    pruner = Pruner(model, DNRSchedule(0.7, 9, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, 0.9), loss, steps_per_execution=2)
    with pytest.raises(UsageError, match=r"steps_per_execution=1\. Received: 2"):
        model.fit(images, verbose=0, callbacks=[UpdatePruningStep(pruner)])


def test_full_density_changes_nothing(images):
    trainer = make_trainer(density=1.0)
    before = [to_numpy(weight) for weight in trainer.pruner.weights]
    trainer.optimizer.iterations.assign(3)
    trainer.pruner.update(3, trainer.optimizer)
    for old, new in zip(before, trainer.pruner.weights, strict=True):
        np.testing.assert_array_equal(old, to_numpy(new))


def test_magnitude_pruning_gives_tfmots_own_masks():
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as sparsity

    schedule = PolynomialDecay(0.2, 0.7, 0, 100, frequency=10)
    model = small_model()
    pruner = Pruner(model, schedule)
    theirs = sparsity.prune_low_magnitude(
        tf_keras.layers.Conv2D(16, 3, input_shape=(8, 8, 32)), pruning_schedule=schedule
    )
    theirs.build((None, 8, 8, 32))
    theirs.layer.kernel.assign(to_numpy(model.get_layer("last").kernel))
    for step in (0, 30, 60, 100):
        theirs.pruning_step.assign(step)
        tf_keras.backend.set_learning_phase(1)
        theirs.pruning_obj.conditional_mask_update()
        assert pruner.update(step, None)
        np.testing.assert_array_equal(pruner.masks[2], theirs.pruning_vars[0][1])
    assert not pruner.update(55, None)


def test_policy():
    policy = ConvolutionPolicy()
    allowed = [layer.name for layer in small_model().layers if policy.allow_pruning(layer)]
    assert allowed == ["first", "periodic", "last"]
    assert not policy.allow_pruning(keras.layers.DepthwiseConv2D(3))
    with pytest.raises(UsageError, match="no layer that can be pruned"):
        Pruner(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), DNRSchedule(0.9, 9, 3))


def test_the_callback_takes_a_pruner():
    with pytest.raises(UsageError, match=r"takes the .*Pruner of the model. .* class Sequential"):
        UpdatePruningStep(keras.Sequential())


def test_what_cannot_be_pruned_is_said():
    model = small_model()
    with pytest.raises(UsageError, match=r"density of 0\.0001.*at least"):
        Pruner(model, DNRSchedule(0.9999, 9, 3))
    with pytest.raises(UsageError, match="'row'"):
        Pruner(model, DNRSchedule(0.9, 9, 3), structure="row")
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(32, 3)(x)
    uneven = keras.Model(inputs, PeriodicConv2D(32, 3, "PSD2_P8_F1", name="uneven")(x))
    with pytest.raises(UsageError, match="'uneven' has between 64 and 288 weights per channel"):
        Pruner(uneven, DNRSchedule(0.5, 9, 3), structure="channel")
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    with pytest.raises(UsageError, match="needs an optimizer"):
        Pruner(model, DNRSchedule(0.9, 9, 3)).update(3, optimizer)


def test_a_step_that_comes_again_changes_nothing(images):
    """As after gradients that a LossScaleOptimizer does not apply: its step stays the same."""
    trainer = make_trainer()
    trainer.run_epoch(images, seed=0)
    assert trainer.pruner.update(3, trainer.optimizer)
    before = ones(trainer.pruner)
    assert not trainer.pruner.update(3, trainer.optimizer)
    assert all((a == b).all() for a, b in zip(before, ones(trainer.pruner), strict=True))
    assert trainer.pruner.update(6, trainer.optimizer)


def test_regrown_weights_start_at_zero_in_the_average_too(images):
    model = small_model()
    pruner = Pruner(model, DNRSchedule(0.7, 11, 3))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.9)
    trainer = Trainer(model, optimizer, pruner=pruner)
    trainer.run_epoch(images, seed=0)
    before = ones(pruner)
    pruner.update(trainer.step, optimizer)
    with trainer.averaged_weights():
        for weight, old, new in zip(pruner.weights, before, ones(pruner), strict=True):
            values = to_numpy(weight)
            assert (values[(old == 0) | (new == 0)] == 0).all()
            assert values.any()


def test_fit_with_averages_ends_within_the_masks(images):
    model = small_model()
    pruner = Pruner(model, DNRSchedule(0.7, 11, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True), loss, jit_compile=False)
    model.fit(images, epochs=2, verbose=0, callbacks=[UpdatePruningStep(pruner)])
    for weight, mask in zip(pruner.weights, ones(pruner), strict=True):
        assert (to_numpy(weight)[mask == 0] == 0).all()


def test_momenta_are_those_of_the_weights_in_a_larger_model(images):
    """The backbone's kernel and the stem's have one shape, and the stem comes first."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((28, 28, 4))
    backbone = keras.Model(inner, keras.layers.Conv2D(4, 3, name="inside")(inner))
    pruner = Pruner(backbone, DNRSchedule(0.5, 11, 3))
    x = inputs = keras.Input((28, 28, 1))
    x = keras.layers.Concatenate()([x, x, x, x])
    x = backbone(keras.layers.Conv2D(4, 3, padding="same", name="stem")(x))
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    trainer = Trainer(keras.Model(inputs, outputs), keras.optimizers.SGD(0.1, momentum=0.9))
    (momentum,) = pruner._momenta(trainer.optimizer)
    assert "inside" in momentum.path
    assert "stem" not in momentum.path
    stranger = keras.optimizers.SGD(0.1, momentum=0.9)
    stranger.build(small_model().trainable_variables)
    with pytest.raises(UsageError, match="does not train all weights"):
        pruner.update(3, stranger)


def test_each_weight_is_pruned_once_and_only_if_it_is_trained():
    model = small_model()
    shared = model.get_layer("last")
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(32, 3, name="before")(inputs)
    nested = keras.Sequential([keras.Input((26, 26, 32)), shared])
    both = keras.Model(inputs, [nested(x), shared(x)])
    assert Pruner(both, DNRSchedule(0.5, 9, 3)).layer_names == ["before", "last"]
    model = small_model()
    model.get_layer("first").trainable = False
    assert Pruner(model, DNRSchedule(0.5, 9, 3)).layer_names == ["periodic", "last"]
    model.trainable = False
    with pytest.raises(UsageError, match="frozen"):
        Pruner(model, DNRSchedule(0.5, 9, 3))


def test_one_pruner_at_a_time():
    model = small_model()
    pruner = Pruner(model, DNRSchedule(0.5, 9, 3))
    with pytest.raises(UsageError, match=r"already.*detach"):
        Pruner(model, DNRSchedule(0.5, 9, 3))
    pruner.detach()
    Pruner(model, DNRSchedule(0.5, 9, 3))


class LastOnly(ConvolutionPolicy):
    def allow_pruning(self, layer):
        return layer.name == "last" and super().allow_pruning(layer)


def test_by_channel_only_the_layer_that_reads_the_image_is_left_out():
    model = small_model()
    pruner = Pruner(model, DNRSchedule(0.5, 9, 3), LastOnly(), "channel")
    assert pruner.layer_names == ["last"]
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(x)
    groups = keras.Model(inputs, keras.layers.Conv2D(4, 3, groups=2, name="grouped")(x))
    with pytest.raises(UsageError, match="'grouped' has 2 groups"):
        Pruner(groups, DNRSchedule(0.5, 9, 3), structure="channel")


@pytest.mark.parametrize("structure", ["unstructured", "channel"])
def test_constant_sparsity_of_tfmot(images, structure):
    model = small_model()
    schedule = _tfmot._sparsity.ConstantSparsity(0.75, begin_step=2, end_step=5, frequency=3)
    pruner = Pruner(model, schedule, structure=structure)
    trainer = Trainer(model, keras.optimizers.SGD(0.1, momentum=0.9), pruner=pruner)
    for step in range(6):
        before = [to_numpy(weight) for weight in pruner.weights]
        assert pruner.update(step, trainer.optimizer) == (step in (2, 5))
        if step == 2:
            for layer, weight, mask in zip(
                map(model.get_layer, pruner.layer_names), before, ones(pruner), strict=True
            ):
                score = np.abs(weight)
                if structure == "channel":
                    channels = getattr(layer, "kernel_channels", None)
                    if channels is None:
                        channels = np.indices(weight.shape)[2]
                    norms = [
                        np.linalg.norm(weight[channels == c]) for c in range(channels.max() + 1)
                    ]
                    score = np.array(norms)[channels]
                assert mask.mean() == pytest.approx(0.25, abs=0.5 / mask.shape[-1])
                assert score[mask == 1].min() >= score[mask == 0].max()
        x, y = list(images)[step % 3]
        trainer._train_step(x, y, tf.constant([0, step]))


@pytest.mark.parametrize("structure", ["unstructured", "channel"])
def test_without_a_schedule_zeros_stay_and_all_else_is_trained(images, structure):
    model = small_model()
    rng = np.random.default_rng(0)
    for name, density in {"first": 1.0, "periodic": 0.2, "last": 0.05}.items():
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * (rng.random(kernel.shape) < density))
    before = [to_numpy(weight) for weight in model.trainable_variables]
    pruner = Pruner(model, schedule=None, structure=structure)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    model.fit(images, epochs=2, verbose=0, callbacks=[UpdatePruningStep(pruner)])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        new = to_numpy(variable)
        if "kernel" in variable.path and "dense" not in variable.path:
            np.testing.assert_array_equal(new == 0, old == 0)
        assert (new != old)[old != 0].all()
    pruner.detach()
    prunable = [to_numpy(weight) for weight in pruner.weights]
    assert pruner.density == sum(map(np.count_nonzero, prunable)) / sum(w.size for w in prunable)


def test_a_dense_target_still_updates_the_regularizer(images):
    trainer = make_trainer(density=1.0)
    trainer.run_epoch(images, seed=0)
    trainer.pruner.update(trainer.step, trainer.optimizer)
    assert float(sum(trainer.model.losses)) == 0.0


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [(None, [3, 2, 1, 3, 2, 1, 3, 3]), (RigL(), [2, 1, 1, 2, 1, 1, 3, 3])],
)
def test_steps_between_updates(algorithm, expected):
    """Masks change before steps 3 and 6; RigL also keeps the momenta of the steps before."""
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    pruner = Pruner(model, DNRSchedule(0.5, 7, 3), algorithm=algorithm)
    assert [pruner.steps_to_update(step, 3) for step in range(8)] == expected


def test_pruning_in_fit_needs_tensorflow(monkeypatch):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    callback = UpdatePruningStep(Pruner(model, DNRSchedule(0.5, 7, 3)))
    monkeypatch.setattr(backend, "NAME", "jax")
    with pytest.raises(UsageError, match=r"needs KERAS_BACKEND=tensorflow.*Received: jax"):
        callback.on_train_begin()
