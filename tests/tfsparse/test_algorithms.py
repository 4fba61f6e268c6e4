"""All pruning algorithms in training: what they conserve, and what each of them chooses."""

import hashlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from tests.journeys import blocks
from tests.tfsparse.test_prunable_layers import Everything
from tfsparse import UsageError
from tfsparse._tfmot import PolynomialDecay
from tfsparse.cost import model_cost
from tfsparse.layers import PeriodicConv2D
from tfsparse.pruning import (
    ALGORITHMS,
    DNR,
    SET,
    DNRSchedule,
    Pruner,
    RigL,
    UpdatePruningStep,
)

STRUCTURES = ("unstructured", "channel")
ALL = [(name, structure) for name in ALGORITHMS for structure in STRUCTURES]
REWIRING = [name for name, algorithm in ALGORITHMS.items() if algorithm().rewires]
DENSITY, STEPS, CHANGES = 0.3, 6, [1, 3, 5]


def small_model(seed=0):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((10, 10, 1))
    x = keras.layers.Conv2D(8, 3, use_bias=False, name="first")(x)
    x = keras.layers.ReLU()(x)
    x = PeriodicConv2D(16, 3, "PS4_P4", 2, use_bias=False, name="periodic")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(12, 2, use_bias=False, name="last")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, use_bias=False)(x))


def schedule_of(algorithm):
    """Masks change at the steps in `CHANGES`."""
    if algorithm.rewires:
        return DNRSchedule(1 - DENSITY, end_step=6, frequency=2, begin_step=1)
    return PolynomialDecay(0.2, 1 - DENSITY, 1, 5, frequency=2)


@pytest.fixture(scope="module")
def batches(fashion_mnist):
    images, labels = fashion_mnist
    images = images[:96, ::3, ::3]
    return [(tf.constant(images[i::3]), tf.constant(labels[i::3][:32])) for i in range(3)]


class Run:
    """A model, its pruner and its optimizer, in a loop as docs/pruning.md has one."""

    def __init__(
        self, batches, algorithm, structure="unstructured", seed=0, optimizer=None, budget="weights"
    ):
        self.batches, self.model = batches, small_model(seed)
        # Initial weights differ with the seed, and so do masks.
        settings = {"structure": structure, "algorithm": algorithm, "seed": seed, "budget": budget}
        self.pruner = Pruner(self.model, schedule_of(algorithm), **settings)
        self.optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
        self.optimizer.build(self.model.trainable_variables)

    def train(self):
        """Trains for a step; returns {variable id: gradient}."""
        x, y = self.batches[int(self.optimizer.iterations) % 3]
        with tf.GradientTape() as tape:
            logits = self.model(x, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(y, logits, True)
            loss = tf.add_n([tf.reduce_mean(losses), *self.model.losses])
            loss = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self.optimizer.apply(gradients, variables)
        return dict(zip(map(id, variables), gradients, strict=True))

    def step(self):
        changed = self.pruner.update(int(self.optimizer.iterations), self.optimizer)
        self.train()
        return changed

    @property
    def masks(self):
        return [mask.numpy() for mask in self.pruner.masks]


@pytest.mark.parametrize(("name", "structure"), ALL)
def test_conservation(name, structure, batches):
    run = Run(batches, ALGORITHMS[name](), structure)
    pruner, rewires = run.pruner, run.pruner.algorithm.rewires
    prunable = sum(mask.size for mask in run.masks)
    largest_unit = 1 if structure == "unstructured" else max(9 * 8, 4 * 12)
    counts = [mask.sum() for mask in run.masks]
    for step in range(STEPS):
        before = run.masks
        assert pruner.update(step, run.optimizer) == (step in CHANGES)
        after = run.masks
        changed = any((old != new).any() for old, new in zip(before, after, strict=True))
        assert step in CHANGES or not changed
        # One of a few channels may be dropped and regrown at once.
        assert changed or step not in CHANGES or structure == "channel"
        sparsity = float(pruner.schedule(tf.constant(step))[1])
        if rewires or step in CHANGES:
            missing = round((1 - sparsity) * prunable) - sum(mask.sum() for mask in after)
            if name == "magnitude":  # rounds in each layer
                assert abs(missing) <= len(after) * largest_unit / 2
            else:
                assert 0 <= missing < largest_unit
        for weight, momentum, old, new in zip(
            pruner.weights, pruner._momenta(run.optimizer), before, after, strict=True
        ):
            assert set(np.unique(new)) <= {0.0, 1.0}
            assert new.any()
            assert (to_numpy(weight)[(new == 0) | (old == 0)] == 0).all(), "regrown starts at 0"
            if rewires:
                assert (to_numpy(momentum)[new > old] == 0).all(), "nor has it momentum"
            else:
                assert not (new > old).any(), "what is pruned stays so"
        if name in ("set", "rigl"):
            assert [mask.sum() for mask in after] == counts
        run.train()
        for weight, mask in zip(pruner.weights, after, strict=True):
            assert (to_numpy(weight)[mask == 0] == 0).all()
    assert sum(mask.sum() for mask in run.masks) == pytest.approx(DENSITY * prunable, abs=72)
    momenta = zip(pruner._momenta(run.optimizer), run.masks, strict=True)
    masked = np.concatenate([to_numpy(momentum)[mask == 0] for momentum, mask in momenta])
    # Alive, unless a ReLU lets no gradient through.
    assert np.count_nonzero(masked) > 0.3 * masked.size


@pytest.mark.parametrize(("name", "structure"), ALL)
def test_a_budget_of_macs_is_met_as_cost_counts_them(name, structure, batches):
    run = Run(batches, ALGORITHMS[name](), structure, budget="macs")
    macs = {layer.name: layer.macs for layer in model_cost(run.model).layers}
    pruned = {name: macs[name] for name in run.pruner.layer_names}
    positions = {"first": 64, "periodic": 9, "last": 4}
    unit = {"unstructured": positions, "channel": {"periodic": 9 * 64, "last": 4 * 48}}[structure]
    for _ in range(STEPS):
        run.step()
    kept = run.pruner.layer_densities()
    spent = sum(pruned[name] * kept[name] for name in pruned)
    assert run.pruner.density == pytest.approx(spent / sum(pruned.values()))
    left = round(DENSITY * sum(pruned.values())) - spent
    if name == "magnitude":  # rounds in each layer
        assert abs(left) <= sum(unit.values()) / 2
    else:
        assert -1e-6 <= left < max(unit.values())
    nonzero = {layer.name: layer.nonzero_macs for layer in model_cost(run.model).layers}
    for name in pruned:  # a regrown weight whose filter died at once stays 0
        assert nonzero[name] <= pruned[name] * kept[name] * (1 + 1e-6)


def test_macs_that_cannot_be_counted_are_refused():
    model = keras.Sequential([keras.Input((8, 3)), keras.layers.Conv1D(4, 3)])
    with pytest.raises(UsageError, match=r"budget='macs' counts .* of a Conv1D"):
        Pruner(model, DNRSchedule(0.5, 6, 2), Everything(keras.layers.Conv1D), budget="macs")
    with pytest.raises(UsageError, match=r"budget must be one of .* Received: 'flops'"):
        Pruner(model, DNRSchedule(0.5, 6, 2), Everything(keras.layers.Conv1D), budget="flops")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_repeats_with_the_seed_and_differs_without(name, batches):
    runs = []
    for seed in (1, 1, 2):
        run = Run(batches, ALGORITHMS[name](), seed=seed)
        for _ in range(CHANGES[0] + 1):
            run.step()
        runs.append(np.concatenate([mask.ravel() for mask in run.masks]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


@pytest.mark.parametrize(
    ("name", "structure", "averaged"),
    [*((*pair, False) for pair in ALL), ("dnr", "unstructured", True)],
)
def test_a_checkpoint_of_variables_continues_to_the_bit(
    name, structure, averaged, batches, tmp_path
):
    """As docs/pruning.md says, with TensorFlow's own checkpoints.

    Saved right before a change, when RigL has half of what it needs. The other run starts with
    other weights and masks; SET draws with the pruner's seed.
    """

    def start(seed):
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=averaged)
        run = Run(batches, ALGORITHMS[name](), structure, seed, optimizer)
        state = {"model": run.model, "optimizer": optimizer, "pruner": run.pruner.variables}
        return run, tf.train.Checkpoint(**state)

    (first, kept), (second, restored) = start(0), start(0 if name == "set" else 1)
    for _ in range(3):
        first.step()
    restored.restore(kept.save(tmp_path / "checkpoint")).assert_consumed()
    assert int(second.optimizer.iterations) == 3
    for _ in range(3):
        assert first.step() == second.step()
    for part in (lambda run: run.model, lambda run: run.pruner, lambda run: run.optimizer):
        for expected, found in zip(part(first).variables, part(second).variables, strict=True):
            np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


GOLDEN = {
    ("unstructured", 0.1): ("66aaba51d0b0c266", "47cb680369c29402"),
    ("unstructured", 0.5): ("54aa7585e5da558e", "800ac5e4eba6f393"),
    ("unstructured", 0.97): ("6504dec0cc3c5dbd", "70a5e9af4adaa7e0"),
    ("channel", 0.3): ("551cb15f2ac25a6b", "ff9504431cf6d673"),
    ("channel", 0.75): ("e5e513b269dfb04e", "7054cb182356790a"),
}


@pytest.mark.parametrize(("structure", "density"), GOLDEN)
def test_dnr_and_magnitude_choose_what_they_chose(structure, density):
    """Digests of all state after each change, as the first implementation left it.

    Nothing is trained: weights and momenta are drawn, so that the digests are those of any machine.
    """
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, name="first")(inputs)
    x = PeriodicConv2D(32, 3, "PS4_P4", name="periodic")(x)
    model = keras.Model(inputs, keras.layers.Conv2D(16, 3, name="last")(x))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    schedules = DNRSchedule(1 - density, 9, 2), PolynomialDecay(0.1, 1 - density, 1, 9, frequency=2)
    for schedule, expected in zip(schedules, GOLDEN[structure, density], strict=True):
        rng, digest = np.random.default_rng(7), hashlib.sha256()

        def normal(variable, rng=rng):
            return rng.standard_normal(tuple(variable.shape)).astype(np.float32)

        for weight in model.trainable_variables:
            weight.assign(normal(weight))
        pruner = Pruner(model, schedule, structure=structure, seed=3, initial_masks="random")
        for step in range(10):
            for weight, mask in zip(pruner.weights, pruner.masks, strict=True):
                weight.assign((to_numpy(weight) + normal(weight)) * mask.numpy())
            for momentum in optimizer.momentums:
                momentum.assign(normal(momentum))
            if pruner.update(step, optimizer):
                last_change = to_numpy(pruner.variables[0]).astype(np.int64)
                own = sorted(pruner.variables[1:], key=lambda variable: variable.name)
                own = [last_change, *own]
                for value in [*pruner.masks, *pruner.weights, *optimizer.momentums, *own]:
                    digest.update(np.ascontiguousarray(to_numpy(value)).tobytes())
        assert digest.hexdigest()[:16] == expected
        pruner.detach()


class Witness(RigL):
    """RigL that keeps what it is told."""

    def __init__(self):
        self.gradients = []

    def grow_score(self, layer, rng):
        self.gradients.append(layer.gradient)
        return super().grow_score(layer, rng)


OPTIMIZERS = {
    "sgd": (lambda: keras.optimizers.SGD(0.1, 0.9), 0.1),
    "nesterov, weight decay": (
        lambda: keras.optimizers.SGD(0.1, 0.9, nesterov=True, weight_decay=0.1),
        0.1,
    ),
    "adam": (lambda: keras.optimizers.Adam(0.01, beta_1=0.8), 0.2),
    "adamw": (lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1), 0.1),
    "loss scale": (
        lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1, 0.9), initial_scale=256.0
        ),
        0.1 / 256,
    ),
}


@pytest.mark.parametrize(
    ("name", "structure"), [*((name, "unstructured") for name in OPTIMIZERS), ("sgd", "channel")]
)
def test_the_recovered_gradient_is_the_tapes(name, structure, batches):
    optimizer, factor = OPTIMIZERS[name]
    run = Run(batches, Witness(), structure, optimizer=optimizer())
    run.step()
    run.step()
    run.pruner.update(2, run.optimizer)
    gradients = run.train()
    run.pruner.algorithm.gradients.clear()
    assert run.pruner.update(3, run.optimizer)
    found = zip(run.pruner.weights, run.pruner._units, run.pruner.algorithm.gradients, strict=True)
    for weight, units, score in found:
        gradient = to_numpy(gradients[id(weight)]) * factor
        expected = np.abs(gradient).ravel()
        if structure == "channel":
            shares = [units.spread(np.arange(units.count) == unit) for unit in range(units.count)]
            expected = np.array([np.linalg.norm(gradient * share) for share in shares])
        assert expected.max() > 0
        np.testing.assert_allclose(score, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize("own", [False, True], ids=["rigl", "docs"])
def test_drops_the_smallest_score_and_adds_the_largest_gradient(own, batches):
    """RigL, and the algorithm in docs/howto/algorithm.md: it drops by |weight * gradient|."""
    algorithm = RigL()
    if own:
        names = {}
        (code,) = blocks("howto/algorithm.md", "python")
        exec(code.split("\nimages, labels = ")[0], names)
        algorithm = names["FirstOrder"]()
    run = Run(batches, algorithm)
    run.pruner.update(0, run.optimizer)
    gradients, before = run.train(), run.masks
    weights = [to_numpy(weight) for weight in run.pruner.weights]
    assert run.pruner.update(1, run.optimizer)
    rate, dropped = run.pruner.schedule.prune_rate(1), 0
    for old, new, weight, variable in zip(
        before, run.masks, weights, run.pruner.weights, strict=True
    ):
        gradient = np.abs(to_numpy(gradients[id(variable)]))
        score = np.abs(weight) * (gradient if own else 1)
        count = min(int(np.ceil(rate * old.sum())), int(np.sum(old == 0)))
        expected = old.ravel().copy()
        expected[np.where(old, score, np.inf).ravel().argsort(kind="stable")[:count]] = 0
        order = np.where(expected, 1, -gradient.ravel()).argsort(kind="stable")
        expected[order[:count]] = 1
        np.testing.assert_array_equal(new.ravel(), expected)
        dropped += count
    assert dropped > 100


def test_set_regrows_at_random_whatever_the_optimizer(batches):
    """It needs no momentum; the same initial masks go on differently with another seed."""
    masks = []
    for seed in (0, 0, 1):
        run = Run(batches, SET(), optimizer=keras.optimizers.RMSprop(0.01))
        run.pruner._seed[0] = seed
        run.step()
        run.step()
        masks.append(np.concatenate([mask.ravel() for mask in run.masks]))
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()


@pytest.mark.parametrize(
    ("algorithm", "optimizer", "message"),
    [
        (DNR(), keras.optimizers.SGD(0.1, name="plain"), "DNR reads the momentum .*: plain$"),
        (RigL(), keras.optimizers.SGD(0.1, name="plain"), "RigL reads the gradient .*: plain$"),
        (
            RigL(),
            keras.optimizers.RMSprop(0.01, momentum=0.9, name="rms"),
            "SGD with momentum, Adam and AdamW only. Received: rms$",
        ),
    ],
)
def test_an_optimizer_without_what_is_read_is_named(algorithm, optimizer, message, batches):
    run = Run(batches, algorithm, optimizer=optimizer)

    def go_on():
        for _ in range(CHANGES[0] + 1):
            run.step()

    with pytest.raises(UsageError, match=message):
        go_on()


def test_rigl_in_fit_from_the_first_step_on(batches):
    """Before it, Keras has not built the optimizer."""
    model = small_model()
    pruner = Pruner(model, DNRSchedule(1 - DENSITY, 4, 1), algorithm=RigL())
    before = pruner.masks[2].numpy()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    images, labels = batches[0]
    model.fit(images, labels, 16, verbose=0, callbacks=[UpdatePruningStep(pruner)])
    assert int(model.optimizer.iterations) == 2
    assert (pruner.masks[2].numpy() != before).any()


def test_a_gradient_needs_two_updates_in_a_row(batches):
    run = Run(batches, RigL())
    run.train()
    with pytest.raises(UsageError, match="Received: step 1 without step 0"):
        run.pruner.update(1, run.optimizer)
