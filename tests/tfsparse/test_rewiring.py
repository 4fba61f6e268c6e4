"""The arithmetic of rewiring: what is divided is conserved, and the choice is by score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfsparse.pruning import DNR
from tfsparse.pruning.budget import allot, erdos_renyi_kernel, ranked, rounded, uniform
from tfsparse.pruning.initial import random_mask
from tfsparse.pruning.ranking import top
from tfsparse.pruning.rewiring import LayerState, drop, grow, rewire


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


def dense_layers(counts, unit_size=1, shapes=None):
    """Layers of `counts` units whose weights are random, of a scale of its own for each layer."""
    rng = np.random.default_rng(0)
    scores = [rng.random() * rng.random(count) for count in counts]
    shapes = shapes or [()] * len(counts)
    return [
        LayerState(np.ones(score.size, bool), score, unit_size, shape)
        for score, shape in zip(scores, shapes, strict=True)
    ]


def test_uniform_has_the_density_in_each_layer_and_no_layer_is_empty():
    counts = np.array([27, 144, 2304, 100_000])
    units = uniform(dense_layers(counts), 0.01)
    assert units.sum() == round(0.01 * counts.sum())
    assert (units >= 1).all()
    np.testing.assert_allclose(units, np.maximum(0.01 * counts, 1), atol=1.5)


def test_rounded_is_each_layer_on_its_own():
    np.testing.assert_array_equal(rounded(dense_layers([10, 100, 7]), 0.13), [1, 13, 1])


SHAPES = [(3, 3, 3, 16), (3, 3, 16, 32), (1, 1, 16, 32), (3, 3, 32, 64), (7, 7, 64, 64)]


@pytest.mark.parametrize("density", [0.02, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_erdos_renyi_kernel_against_bisection(density):
    """Layers keep epsilon * (sum of dimensions) weights, at most all; epsilon fits the total."""
    counts = np.array([np.prod(shape) for shape in SHAPES])
    sums, total = np.array([sum(shape) for shape in SHAPES]), round(density * counts.sum())
    low, high = 0.0, float(counts.max())
    for _ in range(100):
        middle = (low + high) / 2
        fits = np.minimum(middle * sums, counts).sum() <= total
        low, high = (middle, high) if fits else (low, middle)
    ideal = np.minimum(low * sums, counts)
    units = erdos_renyi_kernel(dense_layers(counts, 1, SHAPES), density)
    assert units.sum() == total
    fractions = ideal - np.floor(ideal + 1e-6)
    missing = total - np.floor(ideal + 1e-6).sum()  # goes to the largest remainders
    expected = np.floor(ideal + 1e-6) + (np.argsort(np.argsort(-fractions)) < missing)
    np.testing.assert_array_equal(units, expected)


@pytest.mark.parametrize("budget", [erdos_renyi_kernel, ranked, uniform])
@pytest.mark.parametrize("unit_size", [1, 9])
@pytest.mark.parametrize("density", [0.003, 0.01, 0.1, 0.4, 0.77, 1.0])
def test_budgets_are_exact_and_leave_no_layer_empty(budget, unit_size, density):
    counts = [np.prod(shape) // 3 for shape in SHAPES]
    units = budget(dense_layers(counts, unit_size, SHAPES), density)
    left = round(density * sum(counts) * unit_size) - unit_size * units.sum()
    assert 0 <= left < unit_size
    assert (units >= 1).all()
    assert (units <= counts).all()


@pytest.mark.parametrize("budget", [erdos_renyi_kernel, ranked, uniform])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.4, 1.0])
def test_budgets_of_macs_leave_less_than_a_unit(budget, density):
    layers = dense_layers([np.prod(shape) // 3 for shape in SHAPES], 1, SHAPES)
    for index, layer in enumerate(layers):
        layer.unit_cost = 4 ** (len(layers) - index)  # the first of them run at more positions
    units = budget(layers, density)
    costs = np.array([layer.unit_cost for layer in layers])
    sizes = np.array([layer.active.size for layer in layers])
    left = round(density * (sizes * costs).sum()) - (units * costs).sum()
    if budget is ranked:  # ends at the first unit in the ranking that is too much
        assert 0 <= left < costs.max()
    else:
        assert 0 <= left < costs[units < sizes].min(initial=costs.max())
    assert (units >= 1).all()
    assert (units <= sizes).all()
    if budget is uniform:
        assert np.abs(units / sizes - density).max() < 0.02
    if budget is erdos_renyi_kernel:  # weights follow its rule, whatever a budget counts
        part = units / [sum(shape) for shape in SHAPES]
        is_partial = (units > 1) & (units < sizes)
        if is_partial.sum() > 1:
            assert part[is_partial].std() < 0.1 * part[is_partial].mean()


@pytest.mark.parametrize("budget", [erdos_renyi_kernel, ranked])
def test_layers_too_small_for_their_part_keep_one_unit(budget):
    layers = dense_layers([5, 1000, 1000], 1, [(1, 1, 1, 1), (3, 3, 999, 999), (3, 3, 999, 999)])
    layers[0].weight *= 1e-9
    units = budget(layers, 0.1)
    assert units[0] == 1
    assert units.sum() == 200  # of 2005
    assert (budget(layers, 0.0) == 1).all()


def test_ranked_against_one_ranking_of_all_weights():
    layers = dense_layers([50, 400, 3000])
    for layer, scale in zip(layers, (1.0, 0.7, 0.4), strict=True):
        layer.weight *= scale / layer.weight.max()
    scores = np.concatenate([layer.weight for layer in layers])
    for density in (0.3, 0.8):
        threshold = np.sort(scores)[-round(density * scores.size)]
        expected = [np.sum(layer.weight >= threshold) for layer in layers]
        np.testing.assert_array_equal(ranked(layers, density), expected)


def test_ranked_compares_units_of_any_size_by_their_root_mean_square():
    small, large = np.full(20, 1.0), np.full(20, 10.0)  # norms of 1 and of 100 weights
    layers = [LayerState(small > 0, small, 1), LayerState(large > 0, large, 100)]
    layers[0].weight = small * 1.01
    np.testing.assert_array_equal(ranked(layers, 520 / 2020), [20, 5])
    layers[0].weight = small * 0.99
    np.testing.assert_array_equal(ranked(layers, 520 / 2020), [1, 5])


def random_layer(rng, units, density, unit_size=1):
    active = np.zeros(units, bool)
    active[rng.permutation(units)[: max(1, round(density * units))]] = True
    momentum = rng.random(units)
    return LayerState(
        active=active,
        weight=np.where(active, rng.random(units), 0.0),
        momentum=momentum,
        momentum_mean=float(momentum[active].mean() * rng.random()),
        unit_size=unit_size,
    )


def rewire_dnr(layers, total, prune_rate):
    weights, momenta = ([getattr(each, name) for each in layers] for name in ("weight", "momentum"))
    return rewire(layers, weights, momenta, prune_rate, total, DNR().regrowth_shares(layers))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_rewiring_conserves_the_number_of_weights(seed, density):
    rng = np.random.default_rng(seed)
    layers = [random_layer(rng, units, density) for units in (9, 30, 500, 4000)]
    total = sum(int(layer.active.sum()) for layer in layers)
    rewired = rewire_dnr(layers, total, prune_rate=0.5 * rng.random())
    assert sum(int(active.sum()) for _, active in rewired) == total
    for layer, (survived, active) in zip(layers, rewired, strict=True):
        assert active.any()
        assert not (survived & ~layer.active).any()
        assert not (survived & ~active).any()


def test_rewiring_against_ten_lines_of_numpy():
    rng = np.random.default_rng(0)
    layers = [random_layer(rng, units, 0.2) for units in (50, 400)]
    means = np.array([layer.momentum_mean for layer in layers])
    rewired = rewire_dnr(layers, total=90, prune_rate=0.3)
    dropped = [3, 24]  # ceil(0.3 * 10), ceil(0.3 * 80)
    quota = 27 * means / means.sum()
    for layer, count, regrown, (survived, active) in zip(
        layers, dropped, quota, rewired, strict=True
    ):
        alive = np.flatnonzero(layer.active)
        kept = alive[np.argsort(layer.weight[alive])[count:]]
        assert set(np.flatnonzero(survived)) == set(kept)
        candidates = np.setdiff1d(np.arange(layer.active.size), kept)
        best = candidates[np.argsort(-layer.momentum[candidates])]
        grown = np.flatnonzero(active & ~survived)
        assert set(grown) == set(best[: len(grown)])
        assert abs(len(grown) - regrown) < 1


def test_nearly_dense_layer_with_much_momentum_drops_no_more_than_its_sparsity():
    rng = np.random.default_rng(1)
    layers = [random_layer(rng, 100, 0.95), random_layer(rng, 100, 0.1)]
    layers[0].momentum_mean, layers[1].momentum_mean = 1.0, 0.1
    (survived, _), _ = rewire_dnr(layers, total=105, prune_rate=0.5)
    assert survived.sum() == 95 - 5


def test_units_without_momentum_are_regrown_only_where_nothing_else_is_left():
    rng = np.random.default_rng(2)
    layers = [random_layer(rng, 100, 0.5), random_layer(rng, 100, 0.5)]
    dead = np.flatnonzero(~layers[0].active)[:40]
    layers[0].momentum[dead] = 0.0
    layers[0].momentum_mean = 1.0  # most of the quota is due to the layer that cannot use it
    layers[1].momentum_mean = 0.01
    for total, regrown in ((100, 0), (190, 30)):
        (_, active), (_, other) = rewire_dnr(layers, total, prune_rate=0.3)
        assert active.sum() + other.sum() == total
        assert active[dead].sum() >= regrown
        assert regrown or not active[dead].any()


@pytest.mark.parametrize("density", [0.01, 0.5, 0.97])
def test_without_shares_each_layer_keeps_its_number_of_units(density):
    rng = np.random.default_rng(3)
    layers = [random_layer(rng, units, density) for units in (9, 500)]
    layers.append(random_layer(rng, 40, 1.0))
    scores = [rng.random(layer.active.size) for layer in layers]
    rewired = rewire(layers, [layer.weight for layer in layers], scores, 0.3, total=None)
    for layer, (survived, active) in zip(layers, rewired, strict=True):
        units, size = layer.active.sum(), layer.active.size
        assert active.sum() == units
        assert survived.sum() == units - min(int(np.ceil(0.3 * units)), units - 1, size - units)
        assert layer.weight[survived].min() >= layer.weight[layer.active & ~survived].max(initial=0)


def test_drop_takes_the_smallest_and_grow_the_largest():
    active = np.array([True, True, True, False, False])
    survived = drop(active, np.array([3.0, 1.0, 2.0, 0.0, 0.0]), 2)
    np.testing.assert_array_equal(survived, [True, False, False, False, False])
    grown = grow(survived, np.array([9.0, 8.0, 1.0, 5.0, 6.0]), 2)
    np.testing.assert_array_equal(grown, [True, True, False, False, True])


def test_a_random_mask_is_random_and_serves_every_filter():
    rng = np.random.default_rng(0)
    filters = np.arange(120) % 20
    counts = np.zeros(120)
    for _ in range(500):
        active = random_mask(rng, 120, 24, filters)
        assert active.sum() == 24
        assert len(set(filters[active])) == 20
        counts += active
    # Each unit is drawn with a chance of a fifth: 100 of 500, standard deviation 9.
    assert abs(counts - 100).max() < 5 * 9
    assert random_mask(rng, 120, 10, filters).sum() == 10  # too few for all filters
    assert random_mask(rng, 120, 0).sum() == 0


def by_sorting(score, count):
    """Bool [n], the `count` largest; of equals, the first."""
    active = np.zeros(score.size, bool)
    active[np.argsort(-score, kind="stable")[:count]] = True
    return active


SCORES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 2.5, 2.5000002, np.inf, -np.inf, np.nan])


@given(
    arrays(st.sampled_from([np.float32, np.float64]), st.integers(1, 40), elements=SCORES),
    st.integers(0, 45),
    st.integers(0, 2**32 - 1),
)
def test_units_are_chosen_as_by_sorting(score, count, seed):
    """Also among equal scores, zeros of either sign, infinities, and NaN."""
    np.testing.assert_array_equal(top(score, count), by_sorting(score, count))
    active = np.random.default_rng(seed).random(score.size) < 0.5
    kept = active.copy()
    kept[np.argsort(np.where(active, score, np.inf), kind="stable")[:count]] = False
    np.testing.assert_array_equal(drop(active, score, count), kept)
    grown = active | by_sorting(np.where(active, -np.inf, score), count)
    np.testing.assert_array_equal(grow(active, score, count), grown)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_many_scores_the_same_units_are_chosen(dtype):
    rng = np.random.default_rng(0)
    score = rng.normal(size=100_000).astype(dtype)
    score[rng.random(score.size) < 0.4] = 0
    for count in (1, 30_000, 60_000, 99_999):
        np.testing.assert_array_equal(top(score, count), by_sorting(score, count))
