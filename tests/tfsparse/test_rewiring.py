"""The arithmetic of rewiring: what is divided is conserved, and the choice is by score."""

import numpy as np
import pytest

from tfsparse.pruning.rewiring import (
    LayerState,
    allot,
    drop,
    grow,
    initial_mask,
    initial_units,
    rewire,
)


@pytest.mark.parametrize("seed", range(50))
def test_allot_conserves_the_total_within_capacities(seed):
    rng = np.random.default_rng(seed)
    layers = rng.integers(1, 12)
    capacities = rng.integers(0, 300, layers)
    shares = rng.random(layers) * (rng.random(layers) > 0.2)
    total = int(rng.integers(0, 2000))
    units = allot(shares, np.ones(layers), capacities, total)
    assert (units >= 0).all()
    assert (units <= capacities).all()
    assert units.sum() == min(total, capacities.sum())


@pytest.mark.parametrize("seed", range(20))
def test_allot_of_larger_units_leaves_less_than_one_of_them(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 50, 8)
    capacities = rng.integers(1, 40, 8)
    total = int(np.sum(sizes * capacities) * rng.random())
    units = allot(rng.random(8), sizes, capacities, total)
    left = total - np.sum(units * sizes)
    assert left >= 0
    assert all(
        left < size
        for size, unit, most in zip(sizes, units, capacities, strict=True)
        if unit < most
    )


def test_allot_is_proportional_and_overflow_goes_to_the_others():
    np.testing.assert_array_equal(allot([1, 2, 3], [1, 1, 1], [99, 99, 99], 60), [10, 20, 30])
    np.testing.assert_array_equal(allot([1, 2, 3], [1, 1, 1], [99, 99, 10], 40), [10, 20, 10])
    # Largest remainders: 10/3 each, and one unit left for the first.
    np.testing.assert_array_equal(allot([1, 1, 1], [1, 1, 1], [9, 9, 9], 10), [4, 3, 3])


def test_initial_units_have_the_density_in_each_layer_and_no_layer_is_empty():
    counts = np.array([27, 144, 2304, 100_000])
    total = round(0.01 * counts.sum())
    units = initial_units(counts, np.ones(4), 0.01, total)
    assert units.sum() == total
    assert (units >= 1).all()
    np.testing.assert_allclose(units, np.maximum(0.01 * counts, 1), atol=1.5)


def random_layer(rng, units, density, unit_size=1):
    active = np.zeros(units, bool)
    active[rng.permutation(units)[: max(1, round(density * units))]] = True
    momentum = rng.random(units)
    return LayerState(
        active=active,
        weight_score=np.where(active, rng.random(units), 0.0),
        momentum_score=momentum,
        momentum_mean=float(momentum[active].mean() * rng.random()),
        unit_size=unit_size,
    )


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_rewiring_conserves_the_number_of_weights(seed, density):
    rng = np.random.default_rng(seed)
    layers = [random_layer(rng, units, density) for units in (9, 30, 500, 4000)]
    total = sum(int(layer.active.sum()) for layer in layers)
    rewired = rewire(layers, total, prune_rate=0.5 * rng.random())
    assert sum(int(active.sum()) for _, active in rewired) == total
    for layer, (survived, active) in zip(layers, rewired, strict=True):
        assert active.any()
        assert not (survived & ~layer.active).any()
        assert not (survived & ~active).any()


def test_rewiring_against_ten_lines_of_numpy():
    rng = np.random.default_rng(0)
    layers = [random_layer(rng, units, 0.2) for units in (50, 400)]
    means = np.array([layer.momentum_mean for layer in layers])
    rewired = rewire(layers, total=90, prune_rate=0.3)
    dropped = [3, 24]  # ceil(0.3 * 10), ceil(0.3 * 80)
    quota = 27 * means / means.sum()
    for layer, count, regrown, (survived, active) in zip(
        layers, dropped, quota, rewired, strict=True
    ):
        alive = np.flatnonzero(layer.active)
        kept = alive[np.argsort(layer.weight_score[alive])[count:]]
        assert set(np.flatnonzero(survived)) == set(kept)
        candidates = np.setdiff1d(np.arange(layer.active.size), kept)
        best = candidates[np.argsort(-layer.momentum_score[candidates])]
        grown = np.flatnonzero(active & ~survived)
        assert set(grown) == set(best[: len(grown)])
        assert abs(len(grown) - regrown) < 1


def test_nearly_dense_layer_with_much_momentum_drops_no_more_than_its_sparsity():
    rng = np.random.default_rng(1)
    layers = [random_layer(rng, 100, 0.95), random_layer(rng, 100, 0.1)]
    layers[0].momentum_mean, layers[1].momentum_mean = 1.0, 0.1
    (survived, _), _ = rewire(layers, total=105, prune_rate=0.5)
    assert survived.sum() == 95 - 5


def test_units_without_momentum_are_regrown_only_where_nothing_else_is_left():
    rng = np.random.default_rng(2)
    layers = [random_layer(rng, 100, 0.5), random_layer(rng, 100, 0.5)]
    dead = np.flatnonzero(~layers[0].active)[:40]
    layers[0].momentum_score[dead] = 0.0
    layers[0].momentum_mean = 1.0  # most of the quota is due to the layer that cannot use it
    layers[1].momentum_mean = 0.01
    for total, regrown in ((100, 0), (190, 30)):
        (_, active), (_, other) = rewire(layers, total, prune_rate=0.3)
        assert active.sum() + other.sum() == total
        assert active[dead].sum() >= regrown
        assert regrown or not active[dead].any()


def test_drop_takes_the_smallest_and_grow_the_largest():
    layer = LayerState(
        active=np.array([True, True, True, False, False]),
        weight_score=np.array([3.0, 1.0, 2.0, 0.0, 0.0]),
        momentum_score=np.array([9.0, 8.0, 1.0, 5.0, 6.0]),
        momentum_mean=1.0,
        unit_size=1,
    )
    survived = drop(layer, 2)
    np.testing.assert_array_equal(survived, [True, False, False, False, False])
    np.testing.assert_array_equal(grow(layer, survived, 2), [True, True, False, False, True])


def test_initial_mask_is_random_and_serves_every_filter():
    rng = np.random.default_rng(0)
    filters = np.arange(120) % 20
    counts = np.zeros(120)
    for _ in range(500):
        active = initial_mask(rng, 120, 24, filters)
        assert active.sum() == 24
        assert len(set(filters[active])) == 20
        counts += active
    # Each unit is drawn with a chance of a fifth: 100 of 500, standard deviation 9.
    assert abs(counts - 100).max() < 5 * 9
    assert initial_mask(rng, 120, 10, filters).sum() == 10  # too few for all filters
    assert initial_mask(rng, 120, 0).sum() == 0
