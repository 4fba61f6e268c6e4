"""The study of DNR: its arithmetic and its resumption, on runs that are made up."""

import json

import pytest
from absl import flags

from tests.conftest import ROOT
from tfsparse import UsageError
from zoo.studies import dnr


def row(recipe, seed, clean, robust):
    return {
        "recipe": recipe,
        "row": recipe,
        "seed": seed,
        "epochs": 12,
        "density": 0.1,
        "parameters": 78_426,
        "nonzero_parameters": 9_637,
        "macs": 12_500_000,
        "clean_accuracy": clean,
        "clean_examples": 10_000,
        "robust_accuracy": robust,
        "robust_attack": "PGD-50, 2 restarts",
        "robust_examples": 1_000,
        "hours": 0.5,
        "hardware": "2 CPU cores",
    }


def test_recipes_of_all_rows_exist_and_train_alike():
    alike = set()
    for recipe, seeds in dnr.ROWS:
        lines = (ROOT / "zoo" / "recipes" / f"{recipe}.cfg").read_text().splitlines()
        own = ("--arch", "--width", "--prune", "--density", "--structure", "--workdir")
        alike.add(tuple(line for line in lines if line[0] == "-" and not line.startswith(own)))
        assert seeds
    (settings,) = alike
    assert {"--loss=hybrid", "--epochs=12", "--eps=8/255", "--dataset=cifar10"} <= set(settings)


def test_table_has_mean_and_spread():
    rows = [row("a", 0, 0.50, 0.30), row("a", 1, 0.52, 0.31), row("b", 0, 0.4, 0.2)]
    lines = dnr.table(rows, "JPEG copy").splitlines()
    assert "CIFAR-10 (JPEG copy)" in lines[2]
    expected = "| a | 9,637 of 78,426 | 12.50 | 51.00 ± 1.41 | 30.50 ± 0.71 | 2 | 0.5 |"
    assert lines[6:] == [expected, "| b | 9,637 of 78,426 | 12.50 | 40.00 | 20.00 | 1 | 0.5 |"]


def test_page_shows_the_pictures():
    page = dnr.page([row("a", 0, 0.50, 0.30)], "", ["a"])
    assert page.startswith(dnr.table([row("a", 0, 0.50, 0.30)], ""))
    assert "![Densities of a](dnr_a.png)" in page
    assert "Share" not in dnr.page([row("a", 0, 0.50, 0.30)], "", [])


def test_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """Rows that are recorded are not run again; the others are, first seeds first."""
    first, second = "resnet8_dnr10_cifar10", "vgg16_w16_dnr5_cifar10"
    (tmp_path / "dnr.json").write_text(json.dumps([row(first, 0, 0.5, 0.3)]))
    trained = []
    monkeypatch.setattr(dnr, "ROWS", [(first, (0, 1)), (second, (0,))])
    monkeypatch.setattr(dnr, "train", lambda recipe, seed, folder: trained.append((recipe, seed)))
    monkeypatch.setattr(dnr, "evaluate", lambda recipe, _: [row(recipe, trained[-1][1], 0.4, 0.2)])
    monkeypatch.setattr(dnr, "read_history", lambda folder: [{"epoch": 1.0}])
    monkeypatch.setattr(dnr, "FLAGS", flags.FlagValues())
    monkeypatch.setattr(flags, "FLAGS", dnr.FLAGS)
    for name, value in {"workdir": tmp_path, "output": tmp_path, "note": ""}.items():
        flags.DEFINE_string(name, str(value), "", flag_values=dnr.FLAGS)
    flags.DEFINE_list("recipes", [first, second], "", flag_values=dnr.FLAGS)
    dnr.FLAGS.mark_as_parsed()
    dnr.main()
    dnr.FLAGS.recipes = ["x"]
    with pytest.raises(UsageError, match="Received: x"):
        dnr.main()
    assert trained == [(second, 0), (first, 1)]
    written = json.loads((tmp_path / "dnr.json").read_text())
    assert [(each["recipe"], each["seed"]) for each in written] == [
        (first, 0),
        (first, 1),
        (second, 0),
    ]


def test_an_unreadable_record_is_an_error(tmp_path):
    (tmp_path / "dnr.json").write_text("{")
    with pytest.raises(ValueError, match="Remove the file"):
        dnr.recorded(tmp_path / "dnr.json")
