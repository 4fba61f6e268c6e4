"""Runs of recipes: what is recorded, repeated, measured and shown."""

import json
import sys

import keras
import numpy as np
import pytest
from absl import flags

import zoo
from studies import accuracy, claims, dnr, recipe_runs, training_choices
from tests.conftest import ROOT
from tests.studies.conftest import RESULTS
from tfsparse import UsageError, pruning
from zoo import figures

FIRST, SECOND = "resnet8_dnr10_cifar10", "vgg16_w16_dnr5_cifar10"
NAME = "study"


@pytest.fixture
def settings(study_flags, tmp_path):
    """The flags of a study of two recipes, in and out of the test's folder."""
    module = type("Study", (), {"define_flags": lambda: recipe_runs.define_flags([FIRST, SECOND])})
    study_flags(module, f"--workdir={tmp_path}", f"--output={tmp_path}", "--note=JPEG copy")
    return flags.FLAGS


def recorded(row=FIRST, epochs=12, note="JPEG copy", seed=0):
    return {"row": row, "seed": seed, "epochs": epochs, "note": note}


def write(folder, *runs):
    (folder / f"{NAME}.json").write_text(json.dumps(runs))


def page(runs):
    return str(len(runs))


def test_continues_where_it_stopped(tmp_path, monkeypatch, settings):
    """Recorded runs are not repeated; the others start with the first seeds."""
    seeds = {FIRST: (0, 1), SECOND: (0,)}
    write(tmp_path, recorded())
    trained, done = [], []
    monkeypatch.setattr(recipe_runs, "train", lambda *arguments: trained.append(arguments))
    monkeypatch.setattr(
        recipe_runs, "evaluate", lambda row, _: [recorded(row, seed=trained[-1][1])]
    )
    recipe_runs.collect(NAME, seeds, page, done=lambda *arguments: done.append(arguments))
    folders = tmp_path / f"{SECOND}_seed0", tmp_path / f"{FIRST}_seed1"
    assert trained == [
        ([f"--flagfile=zoo/recipes/{SECOND}.cfg"], 0, folders[0]),
        ([f"--flagfile=zoo/recipes/{FIRST}.cfg"], 1, folders[1]),
    ]
    assert done == [(SECOND, 0, folders[0]), (FIRST, 1, folders[1])]
    runs = recipe_runs.read(NAME)
    assert [(run["row"], run["seed"]) for run in runs] == [(FIRST, 0), (FIRST, 1), (SECOND, 0)]
    assert (tmp_path / f"{NAME}.md").read_text() == "3"
    settings.rows = ["x"]
    with pytest.raises(UsageError, match="Received: x"):
        recipe_runs.collect(NAME, seeds, page)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (recorded(epochs=6), f"a run of {FIRST} of 6 epochs, not 12"),
        (recorded(note=""), "--note='' there, 'JPEG copy' here"),
        (recorded("gone"), "a run of the row 'gone', which is not one of"),
    ],
)
def test_runs_of_other_settings_are_not_mixed(run, message, tmp_path, settings):
    write(tmp_path, run)
    with pytest.raises(UsageError, match=message):
        recipe_runs.collect(NAME, {FIRST: (0,), SECOND: ()}, page)


def test_epochs_of_the_flag_replace_those_of_the_recipe(tmp_path, settings):
    arguments = recipe_runs.recipe_flags(FIRST)
    assert recipe_runs.epochs(arguments) == 12
    assert recipe_runs.epochs([*arguments, "--epochs=7"]) == 7
    settings.epochs = 6
    write(tmp_path, recorded(epochs=6))
    recipe_runs.collect(NAME, {FIRST: (0,), SECOND: ()}, page)
    folder = tmp_path / f"{FIRST}_seed0"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"seed": 0, "epochs": 12}))
    with pytest.raises(UsageError, match=r"has a run of seed and epochs \(0, 12\), not \(0, 6\)"):
        recipe_runs.train(arguments, 0, folder)


def test_runs_that_another_process_adds_stay(tmp_path, monkeypatch, settings):
    """An equal run is replaced: it would count as another seed."""
    settings.rows = [FIRST]
    monkeypatch.setattr(
        recipe_runs, "train", lambda *_: write(tmp_path, recorded(SECOND), recorded())
    )
    monkeypatch.setattr(recipe_runs, "evaluate", lambda *_: [{**recorded(), "new": True}])
    recipe_runs.collect(NAME, {FIRST: (0,), SECOND: (0,)}, page)
    runs = recipe_runs.read(NAME)
    assert [(run["row"], run.get("new")) for run in runs] == [(FIRST, True), (SECOND, None)]


def test_the_command_that_trains(tmp_path, monkeypatch, settings):
    commands = []

    class Process:
        def __init__(self, command, cwd):
            commands.append(command)
            assert cwd == ROOT

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            return 3

    monkeypatch.setattr(recipe_runs.subprocess, "Popen", Process)
    settings.epochs, settings.data_dir = 6, str(tmp_path / "data")
    with pytest.raises(UsageError, match=r"status 3 before .* was complete"):
        recipe_runs.train(accuracy.flags_of("PS4_P4"), 2, tmp_path / "run")
    assert commands == [
        [
            *(sys.executable, "train.py", "--flagfile=zoo/recipes/resnet8_short_cifar10.cfg"),
            *("--epochs=8", "--dtype_policy=float32", "--pattern=PS4_P4"),
            *(f"--workdir={tmp_path / 'run'}", "--seed=2", f"--data_dir={tmp_path / 'data'}"),
            "--epochs=6",
        ]
    ]
    assert not any("pattern" in flag for flag in accuracy.flags_of("dense"))


@pytest.mark.parametrize("loss", ["standard", "hybrid"])
def test_measures_what_a_run_left(loss, tmp_path, monkeypatch, settings, eager):
    """A network that gives every image the class 3 is right as often as there are threes."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(200, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(10, size=200).astype(np.int32)
    data = type("Data", (), {"read": lambda self, split: (images, labels)})()
    monkeypatch.setattr(recipe_runs, "open_dataset", lambda *_: data)
    monkeypatch.setitem(figures.ACCURACIES, "pgd", ("model", "pgd", 20))
    monkeypatch.setattr(figures, "PGD_STEPS", 2)
    model = zoo.build("resnet8", images.shape[1:], 10, width=4)
    schedule = pruning.DNRSchedule(0.5, end_step=9, frequency=1)
    pruning.Pruner(model, schedule, structure="channel").detach()
    model.get_layer("logits").kernel.assign(np.zeros(model.get_layer("logits").kernel.shape))
    model.get_layer("logits").bias.assign(np.eye(10)[3])
    model.save(tmp_path / "model.keras")
    report = {
        "recipe": {"structure": "channel", "loss": loss, "eps": 8 / 255},
        **{"dataset": "fashion_mnist", "data_dir": None, "image_size": None, "seed": 5},
        **{"epochs": 6, "density": 0.5, "seconds_per_epoch": 600.0, "hardware": "2 CPU cores"},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    whole, removed = recipe_runs.evaluate("r", tmp_path)
    assert [whole["row"], removed["row"]] == ["r", "r, channels removed"]
    assert removed["parameters"] < whole["parameters"] == model.count_params()
    for run in whole, removed:
        assert (run["seed"], run["hours"], run["clean_examples"]) == (5, 1.0, 200)
        assert run["nonzero_macs"] < run["macs"]
        assert run["clean_accuracy"] == pytest.approx(np.mean(labels == 3))
        assert run.get("robust_examples") == (20 if loss == "hybrid" else None)
        if loss == "hybrid":
            assert run["robust_accuracy"] == pytest.approx(np.mean(labels[:20] == 3))
    keras.backend.clear_session()


# ---- tables ----


def run(row, seed, clean, **more):
    return {
        **{"row": row, "seed": seed, "note": "JPEG copy", "epochs": 24, "density": 0.1},
        **{"parameters": 78_426, "nonzero_parameters": 9_637, "macs": 12_500_000},
        **{"clean_accuracy": clean, "clean_examples": 10_000, "hours": 0.25},
        **{"robust_accuracy": clean / 2, "robust_attack": "PGD-50", "robust_examples": 1_000},
        **{"hardware": "2 CPU cores", "conv_parameters": 1_234, **more},
    }


def test_mean_and_spread():
    assert recipe_runs.mean_text([0.5, 0.52]) == "51.00 ± 1.41"
    assert recipe_runs.mean_text([0.5]) == "50.00"


def test_dnr_page():
    """Also of rows that are no models of the zoo, whose recipes say what they are."""
    a, b = "resnet8_erk_magnitude10_cifar10", "resnet8_narrow11_cifar10"
    runs = [run(a, 0, 0.50, nonzero_macs=2e6), run(a, 1, 0.52), run(b, 0, 0.4, density=1.0)]
    text = dnr.page(runs)
    rest = "9,637 of 78,426 | 12.50 | 2.00 | 51.00 ± 1.41 | 25.50 ± 0.71 | 2 | 0.2 |"
    assert f"| {a} | ResNet8, ERK magnitude 10 % | {rest}" in text
    rest = "9,637 of 78,426 | 12.50 |  | 40.00 | 20.00 | 1 | 0.2 |"
    assert f"| {b} | ResNet8 of width 11, dense | {rest}" in text
    assert "CIFAR-10 (JPEG copy), hybrid loss" in text
    assert text.count(f"![Densities of {a}](dnr_{a}.png)") == text.count("![") == 1


def test_dnr_page_names_the_methods():
    name = "resnet8_dnr_channel50_cifar10"
    small = zoo.card(name)["parameters"]
    text = dnr.page([run(name, 0, 0.5), run(f"{name}, channels removed", 0, 0.5, parameters=small)])
    method = "ResNet8, DNR 50 %, by channel"
    assert f"| {name} | {method} | 9,637 of 78,426 | 12.50 |  | 50.00 |" in text
    kept = zoo.card(name)["nonzero_macs"] / 1e6
    assert f"| {method} | 9,637 of {small:,} | 12.50 | {kept:.2f} | 50.00 |" in text


def test_pattern_page_and_picture():
    runs = [run("PS4_P4", seed, 0.5 + seed / 50) for seed in range(2)]
    narrow = [run("width_9", seed, 0.5, conv_parameters=1_500) for seed in range(3)]
    far = run("width_8", 0, 0.4, conv_parameters=900)
    page = accuracy.page([*narrow, far, *runs])
    assert "| PS4_P4 | 1,234 | 12.50 | 51.00 ± 1.41 | 2 | +1.00 ± 1.41 (width_9) |" in page
    assert "| width_9 | 1,500 | 12.50 | 50.00 ± 0.00 | 3 |  |" in page
    assert "| PS4_P4 | 1,234 | 12.50 | 51.00 ± 1.41 | 2 |  |" in accuracy.page(runs)
    others = [run(row, 0, 0.5) for row in ("dense", "PSD2_P8", "PS4_P4_F1")]
    (axes,) = accuracy.picture([*others, *runs]).axes
    assert {text.get_text() for text in axes.texts} == {"dense", "PSD2_P8", "PS4_P4"}


def test_differences_from_the_baseline():
    baseline, other = training_choices.BASELINE, "resnet8_short_smoothing_cifar10"
    runs = [run(baseline, seed, 0.80 + seed / 100) for seed in range(2)]
    page = training_choices.page([*runs, run(other, 0, 0.79)])
    assert f"| {baseline} | 80.50 ± 0.71 |  | 2 | 0.2 |" in page
    assert f"| {other} | 79.00 | -1.50 | 1 | 0.2 |" in page
    alone = training_choices.page([run(other, 0, 0.79)])  # the first run
    assert f"| {other} | 79.00 |  | 1 | 0.2 |" in alone


def recipe(name):
    lines = (ROOT / "zoo" / "recipes" / f"{name}.cfg").read_text().splitlines()
    return {line for line in lines if line[0] == "-" and not line.startswith("--workdir")}


@pytest.mark.parametrize(
    ("module", "own", "shared"),
    [
        (claims, ("--arch", "--width", "--pattern", "--dtype_policy"), "--loss=standard"),
        (
            dnr,
            ("--arch", "--width", "--pattern", "--prune", "--density", "--structure", "--budget"),
            "--loss=hybrid",
        ),
        (training_choices, ("--label_smoothing", "--ema_momentum"), "--loss=standard"),
    ],
)
def test_the_recipes_of_a_study_train_alike(module, own, shared):
    alike = {
        frozenset(line for line in recipe(row) if not line.startswith(own))
        for row in module.ROWS
        if row != training_choices.DISTILLED
    }
    (settings,) = alike
    assert {shared, "--dataset=cifar10"} <= settings


def test_training_choices_differ_in_one_flag():
    baseline = recipe(training_choices.BASELINE)
    distilled = training_choices.DISTILLED
    for row in training_choices.ROWS.keys() - {training_choices.BASELINE, distilled}:
        assert baseline < recipe(row)
        assert len(recipe(row) - baseline) == 1
    more, less = recipe(distilled), recipe("resnet8_cifar10")
    assert {line.partition("=")[0] for line in more ^ less} == {"--teacher", "--epochs"}


def test_distillation_is_compared_with_the_zoo():
    distilled = training_choices.DISTILLED
    page = training_choices.page([run(distilled, 0, 0.79)])
    assert f"`{distilled}`, 24 epochs, n = 1" in page
    assert "ResNet8 reaches 79.00 %" in page
    assert (
        f"reaches {100 * zoo.card('resnet8_cifar10')['results']['clean']['accuracy']:.2f}" in page
    )


@pytest.mark.parametrize("module", [claims, dnr])
def test_the_zoo_s_models_are_the_runs_of_seed_0(module):
    """Channel-pruned models are in the zoo without these channels."""
    runs = json.loads((RESULTS / f"{module.NAME}.json").read_text())
    found = {
        run["row"].removesuffix(recipe_runs.REMOVED): run
        for run in sorted(runs, key=lambda run: len(run["row"]))
        if run["seed"] == 0
    }
    names = found.keys() & set(zoo.list_models())  # other rows were not published
    assert len(names) > len(found) / 2
    for name in names:
        card, run = zoo.card(name), found[name]
        for key in ("parameters", "nonzero_parameters", "macs"):
            assert run[key] == card[key]
        assert run["clean_accuracy"] == card["results"]["clean"]["accuracy"]
        if "robust_accuracy" in run:
            # The card's may be measured again, from other random starts.
            pgd = card["results"]["pgd"]["accuracy"]
            assert run["robust_accuracy"] == pytest.approx(pgd, abs=0.005)
