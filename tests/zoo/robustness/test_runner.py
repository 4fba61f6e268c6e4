"""Attacks on a linear model, whose robustness has a closed form; and results that survive."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.zoo.robustness.known_models import images, linear, margins, subject
from tfsparse import UsageError
from tfsparse.starts import image_seeds
from zoo.robustness import catalogue, runner, square
from zoo.robustness import sizes as sizes_of_batches

IDENTITY = {"sha256": "x", "examples": 60, "seed": 0, "batch_size": 16}


@pytest.fixture(scope="module")
def setting():
    """A linear subject, images, labels of which a quarter are wrong, weights, and an eps."""
    model, weights = linear()
    x = images()
    labels = (x.reshape(60, -1) @ weights).argmax(axis=1).astype(np.int32)
    labels[::4] = (labels[::4] + 1) % 5
    clean = margins(weights, x, labels, 0.0)
    # At this eps, half of the images that are classified correctly have adversarial examples.
    gaps = [
        eps
        for eps in np.linspace(0, 0.1, 1001)
        if (margins(weights, x, labels, eps) > 0).mean() > 0.4
    ]
    assert (clean > 0).sum() == 45
    return subject(model), x, labels, weights, float(gaps[-1])


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(catalogue, "RANDOM_DRAWS", 20)


def run(setting, attack, results=None, identity=IDENTITY):
    target, x, labels, _, eps = setting
    results = results or runner.Results(None, identity, len(labels))
    options = catalogue.Options(eps=eps, steps=40, queries=2000)
    for name in ("clean", attack):
        attack = (
            name if isinstance(name, catalogue.Attack) else catalogue.make(name, target, options)
        )
        runner.run(target, attack, x, labels, results)
    return results


def test_an_accelerator_gets_few_sizes_of_batches(setting, monkeypatch):
    """And the results are those of the images alone."""
    expected = run(setting, "pgd").correct("pgd")
    sizes = set()
    call = sizes_of_batches.in_few_sizes

    def counted(function, *arrays):
        def noted(*padded):
            sizes.add(len(padded[0]))
            return function(*padded)

        return call(noted, *arrays)

    monkeypatch.setattr(catalogue, "in_few_sizes", counted)
    assert (run(setting, "pgd").correct("pgd") == expected).all()
    assert len(sizes) > 1
    sizes.clear()
    monkeypatch.setattr(sizes_of_batches, "MULTIPLE", 20)
    monkeypatch.setattr(sizes_of_batches.backend, "device_kind", lambda: "gpu")
    assert (run(setting, "pgd").correct("pgd") == expected).all()
    assert sizes == {20}


@pytest.mark.parametrize("name", ["pgd", "pgd_dlr", "fgsm"])
def test_gradient_attacks_reach_the_closed_form(setting, name):
    _, x, labels, weights, eps = setting
    left = margins(weights, x, labels, eps)
    correct = run(setting, name).correct(name)
    # The best attack on the runner-up is not that on the cross-entropy, if others are close.
    assert not (correct & (left < -0.05)).any() or name == "fgsm"
    assert not (~correct & (left > 1e-5)).any()
    assert correct.sum() < (margins(weights, x, labels, 0.0) > 0).sum()


def test_square_finds_half_of_the_adversarial_examples_and_no_others(setting):
    pytest.importorskip("torchattacks")
    _, x, labels, weights, eps = setting
    left = margins(weights, x, labels, eps)
    correct = run(setting, "square", identity={**IDENTITY, "batch_size": 60}).correct("square")
    assert not (~correct & (left > 1e-5)).any()
    clean = margins(weights, x, labels, 0.0) > 0
    assert (~correct & clean).sum() > 0.5 * (clean & (left < 0)).sum()
    assert not (correct & (left < -10)).any()
    assert correct.sum() < run(setting, "random").correct("random").sum()


def test_noise_is_no_attack(setting):
    _, x, labels, weights, _ = setting
    clean = margins(weights, x, labels, 0.0) > 0
    results = run(setting, "random")
    for name in ("uniform", "gaussian"):
        assert run(setting, name).correct(name).sum() > 0.8 * clean.sum()
    pgd = run(setting, "pgd").correct("pgd")
    assert not (pgd & ~results.correct("random")).any()
    assert results.correct("random").sum() <= run(setting, "uniform").correct("uniform").sum()


def test_results_repeat_and_depend_on_the_seed(setting):
    noisy = "random"
    first, again = (run(setting, noisy).correct(noisy) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    target, x, labels, _, eps = setting
    attack = catalogue.make("uniform", target, catalogue.Options(eps=eps))
    seeds = [(seed, restart) for seed in (0, 1, 2**31 - 1) for restart in (0, 1)]
    made = [attack.perturb(x, labels, image_seeds(*each, np.arange(60))) for each in seeds]
    for index, images_ in enumerate(made):
        assert not any((images_ == other).all() for other in made[:index])


@pytest.mark.parametrize("name", ["pgd", "random", "gaussian"])
def test_results_do_not_depend_on_the_batch(setting, name):
    """One step at restarts: the random starts decide."""
    target, x, labels, _, eps = setting
    options = catalogue.Options(eps=eps, steps=1, restarts=5, step_size=eps / 2)
    correct = []
    for size in (60, 16, 7):
        results = runner.Results(None, {**IDENTITY, "batch_size": size}, 60)
        for each in ("clean", name):
            runner.run(target, catalogue.make(each, target, options), x, labels, results)
        correct.append(results.correct(name))
    np.testing.assert_array_equal(correct[1], correct[0])
    np.testing.assert_array_equal(correct[2], correct[0])


def test_an_image_keeps_its_seeds_when_others_leave_the_batch(setting):
    """At each restart, the attack finds the even ones of those that are left."""
    left, seen = [], []

    def perturb(images, labels, seeds):
        seen.append(seeds)
        is_found = np.arange(len(seeds)) % 2 == 0
        left.append(seeds[~is_found, 2])
        return images, is_found

    run(setting, catalogue.Attack("halves", {}, perturb, restarts=3), identity=IDENTITY)
    assert len(seen) == 3 * 4  # batches
    for index, seeds in enumerate(seen):
        assert set(seeds[:, 0]) == {0}
        assert set(seeds[:, 1]) == {index % 3}
        if index % 3:
            np.testing.assert_array_equal(seeds[:, 2], left[index - 1])


def test_an_interrupted_run_is_continued(setting, tmp_path):
    """The third batch fails; then only what is missing is run, and the result is the same."""
    target, eps = setting[0], setting[-1]
    whole = catalogue.make("pgd", target, catalogue.Options(eps=eps, steps=3))
    batches = []

    def perturb(images, labels, seeds):
        batches.append(int(seeds[0, 2]) // 16)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return whole.perturb(images, labels, seeds)

    path = tmp_path / "r.safetensors"
    attack = dataclasses.replace(whole, perturb=perturb)
    with pytest.raises(KeyboardInterrupt):
        run(setting, attack, runner.Results(path, IDENTITY, 60))
    results = runner.Results(path, IDENTITY, 60)
    assert (results.examples("pgd", {**whole.settings, "sha256": "model"})[:32] >= 0).all()
    results = run(setting, attack, results)
    assert batches == [0, 1, 2, 2, 3]
    np.testing.assert_array_equal(results.correct("pgd"), run(setting, whole).correct("pgd"))
    read, about, identity = runner.read_examples(path)
    np.testing.assert_array_equal(read["pgd"] == runner.CORRECT, results.correct("pgd"))
    assert identity == IDENTITY
    assert about["pgd"]["attacked"] == 45


def test_results_of_another_evaluation_are_refused(setting, tmp_path):
    path = tmp_path / "r.safetensors"
    run(setting, "fgsm", runner.Results(path, IDENTITY, 60))
    with pytest.raises(UsageError, match="seed 0 there, 1 here"):
        runner.Results(path, {**IDENTITY, "seed": 1}, 60)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="Cannot read"):
        runner.Results(path, IDENTITY, 60)


def test_results_are_not_lost_to_other_settings_of_an_attack(setting, tmp_path):
    target, x, labels, _, eps = setting
    path = tmp_path / "r.safetensors"

    def attack(steps):
        results = runner.Results(path, IDENTITY, 60)
        options = catalogue.Options(eps=eps, steps=steps)
        for name in ("clean", "pgd"):
            runner.run(target, catalogue.make(name, target, options), x, labels, results)
        return results

    assert attack(steps=1).finished() == ["clean", "pgd"]
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"of pgd with other settings \(steps 1 there, 30"):
        attack(steps=30)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [0.02, 5.0])
def test_an_attack_that_leaves_its_bounds_is_refused(setting, change):
    def perturb(images, labels, seeds):
        return images + change

    attack = catalogue.Attack("cheat", {"eps": 0.01}, perturb)
    with pytest.raises(UsageError, match="cheat made images at a distance"):
        run(setting, attack)


def test_what_an_attack_judges_itself_counts(setting):
    """An example on the decision boundary may be misclassified in one backend only."""

    def perturb(images, labels, seeds):
        return images, np.arange(len(labels)) == 0

    correct = run(setting, catalogue.Attack("edge", {}, perturb)).correct("edge")
    assert correct.sum() == 45 - 4  # one in each batch


def test_unknown_and_impossible_attacks(setting):
    target = setting[0]
    options = catalogue.Options(eps=0.1)
    file = dataclasses.replace(target, model=None, name="m.tflite", content=b"")
    for name, subject_, message in [
        ("cw", target, "are among clean"),
        ("pgd", file, "m.tflite does not have"),
        ("transfer", target, "needs --source"),
        ("pgd_dlr", dataclasses.replace(target, num_classes=2), "3 classes"),
    ]:
        with pytest.raises(UsageError, match=message):
            catalogue.make(name, subject_, options)


def test_batches_fit_memory(setting):
    small = runner.fitting_batch(setting[0].model)
    assert small == 250
    assert runner.fitting_batch(None) == 250


def test_large_models_are_attacked_in_small_batches(monkeypatch):
    image = keras.Input((256, 256, 3))
    model = keras.Model(image, keras.layers.Conv2D(64, 3)(image))  # 17 MB an image
    monkeypatch.setattr(runner.os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 8e9}.get)
    assert 10 < runner.fitting_batch(model) < 20


def test_seeds_of_torchattacks_are_those_of_the_cards_figures():
    """A hundred images have one; which of them are left does not matter."""
    for batch, left in enumerate([[0, 5], [103, 105], [200]]):
        expected = np.random.SeedSequence([0, batch]).generate_state(1)[0]
        assert square.seed_of_batch(image_seeds(0, 0, left)) == expected
    seeds = [square.seed_of_batch(image_seeds(seed, r, [0])) for seed in (0, 1) for r in (0, 1)]
    assert len(set(seeds)) == 4
