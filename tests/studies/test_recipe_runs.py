"""Runs of recipes: what is recorded, repeated and measured."""

import json
import sys

import keras
import numpy as np
import pytest
from absl import flags

import zoo
from studies import recipe_runs
from tfsparse import UsageError, pruning
from zoo import figures

FIRST, SECOND = "resnet8_dnr10_cifar10", "vgg16_w16_dnr5_cifar10"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """The flags of a study of two recipes, in and out of the test's folder."""
    monkeypatch.setattr(recipe_runs, "FLAGS", flags.FlagValues())
    monkeypatch.setattr(flags, "FLAGS", recipe_runs.FLAGS)
    flags.DEFINE_string("workdir", str(tmp_path), "", flag_values=recipe_runs.FLAGS)
    flags.DEFINE_list("recipes", [FIRST, SECOND], "", flag_values=recipe_runs.FLAGS)
    flags.DEFINE_integer("epochs", None, "", flag_values=recipe_runs.FLAGS)
    flags.DEFINE_string("data_dir", None, "", flag_values=recipe_runs.FLAGS)
    flags.DEFINE_string("note", "JPEG copy", "", flag_values=recipe_runs.FLAGS)
    recipe_runs.FLAGS.mark_as_parsed()
    return recipe_runs.FLAGS


def recorded(epochs, note="JPEG copy"):
    return {"recipe": FIRST, "seed": 0, "epochs": epochs, "note": note}


def test_goes_on_where_it_stopped(tmp_path, monkeypatch, settings):
    """Rows that are recorded are not run again; the others are, first seeds first."""
    wanted = {FIRST: (0, 1), SECOND: (0,)}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([recorded(12)]))
    trained, reported = [], []
    monkeypatch.setattr(
        recipe_runs, "train", lambda recipe, seed, folder: trained.append((recipe, seed, folder))
    )
    monkeypatch.setattr(
        recipe_runs, "evaluate", lambda recipe, _: [{"recipe": recipe, "seed": trained[-1][1]}]
    )
    rows = recipe_runs.collect(path, wanted, lambda rows: reported.append(len(rows)))
    folders = tmp_path / f"{SECOND}_seed0", tmp_path / f"{FIRST}_seed1"
    assert trained == [(SECOND, 0, folders[0]), (FIRST, 1, folders[1])]
    assert reported == [2, 3]
    assert [(row["recipe"], row["seed"]) for row in rows] == [(FIRST, 0), (FIRST, 1), (SECOND, 0)]
    assert json.loads(path.read_text()) == rows
    settings.recipes = ["x"]
    with pytest.raises(UsageError, match="Received: x"):
        recipe_runs.collect(path, wanted, None)


def test_runs_of_other_settings_are_not_mixed(tmp_path, settings):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([recorded(6)]))
    with pytest.raises(UsageError, match=f"a run of {FIRST} of 6 epochs, not 12"):
        recipe_runs.collect(path, {FIRST: (0,), SECOND: ()}, None)
    path.write_text(json.dumps([recorded(12, note="")]))
    with pytest.raises(UsageError, match="--note='' there, 'JPEG copy' here"):
        recipe_runs.collect(path, {FIRST: (0,), SECOND: ()}, None)
    path.write_text(json.dumps([{**recorded(12), "recipe": "gone"}]))
    with pytest.raises(UsageError, match="a row of the recipe 'gone', which is not one of"):
        recipe_runs.collect(path, {FIRST: (0,), SECOND: ()}, None)
    path.write_text(json.dumps([recorded(6)]))
    settings.epochs = 6
    folder = tmp_path / f"{FIRST}_seed0"
    assert recipe_runs.collect(path, {FIRST: (0,), SECOND: ()}, None)[0]["epochs"] == 6
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps({"seed": 0, "epochs": 12}))
    with pytest.raises(UsageError, match=r"has a run of seed and epochs \(0, 12\), not \(0, 6\)"):
        recipe_runs.train(FIRST, 0, folder)


def test_rows_that_another_process_adds_stay(tmp_path, monkeypatch, settings):
    """One that is of the same run is replaced: it would count as another seed."""
    path = tmp_path / "rows.json"
    settings.recipes = [FIRST]

    def train(recipe, seed, folder):
        path.write_text(json.dumps([{**recorded(12), "recipe": SECOND}, recorded(12)]))

    monkeypatch.setattr(recipe_runs, "train", train)
    monkeypatch.setattr(recipe_runs, "evaluate", lambda *_: [{**recorded(12), "new": True}])
    recipe_runs.collect(path, {FIRST: (0,), SECOND: (0,)}, lambda rows: None)
    assert [(row["recipe"], row.get("new")) for row in json.loads(path.read_text())] == [
        (FIRST, True),
        (SECOND, None),
    ]


def test_the_command_that_trains(tmp_path, monkeypatch, settings):
    commands = []

    class Process:
        def __init__(self, command, cwd):
            commands.append(command)
            assert cwd == recipe_runs.ROOT

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            return 3

    monkeypatch.setattr(recipe_runs.subprocess, "Popen", Process)
    settings.epochs, settings.data_dir = 6, str(tmp_path / "data")
    with pytest.raises(UsageError, match=f"status 3 before {FIRST} was done"):
        recipe_runs.train(FIRST, 2, tmp_path / "run")
    assert commands == [
        [
            *(sys.executable, "train.py", f"--flagfile=zoo/recipes/{FIRST}.cfg"),
            *(f"--workdir={tmp_path / 'run'}", "--seed=2", f"--data_dir={tmp_path / 'data'}"),
            "--epochs=6",
        ]
    ]


def test_an_unreadable_record_is_an_error(tmp_path):
    (tmp_path / "rows.json").write_text("{")
    with pytest.raises(UsageError, match="Remove the file"):
        recipe_runs.recorded(tmp_path / "rows.json")


@pytest.mark.parametrize("loss", ["standard", "hybrid"])
def test_measures_what_a_run_left(loss, tmp_path, monkeypatch, fashion_mnist, settings):
    """A network that gives every image the class 3 is right as often as there are threes."""
    images, labels = (values[:200] for values in fashion_mnist)
    images = (255 * images).astype("uint8")
    data = type("Data", (), {"read": lambda self, split: (images, labels)})()
    monkeypatch.setattr(recipe_runs, "open_dataset", lambda *_: data)
    monkeypatch.setitem(figures.ACCURACIES, "pgd", ("model", "pgd", 100))
    model = zoo.build("vgg16", images.shape[1:], 10, width=8)
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
    for row in whole, removed:
        assert (row["seed"], row["hours"], row["clean_examples"]) == (5, 1.0, 200)
        assert row["clean_accuracy"] == pytest.approx(np.mean(labels == 3))
        assert row.get("robust_examples") == (100 if loss == "hybrid" else None)
        if loss == "hybrid":
            assert row["robust_accuracy"] == pytest.approx(np.mean(labels[:100] == 3))
    keras.backend.clear_session()


def test_mean_and_spread():
    assert recipe_runs.mean_text([0.5, 0.52]) == "51.00 ± 1.41"
    assert recipe_runs.mean_text([0.5]) == "50.00"
