"""The study of DNR: its recipes and its tables, of runs that are made up."""

import json

import zoo
from studies import dnr
from tests.conftest import ROOT


def row(recipe, seed, clean, robust):
    return {
        "recipe": recipe,
        "row": recipe,
        "note": "JPEG copy",
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
    for recipe, seeds in dnr.ROWS.items():
        lines = (ROOT / "zoo" / "recipes" / f"{recipe}.cfg").read_text().splitlines()
        own = ("--arch", "--width", "--pattern", "--prune", "--density", "--structure", "--workdir")
        alike.add(tuple(line for line in lines if line[0] == "-" and not line.startswith(own)))
        assert seeds
    (settings,) = alike
    assert {"--loss=hybrid", "--epochs=12", "--eps=8/255", "--dataset=cifar10"} <= set(settings)


def test_table_has_mean_and_spread():
    rows = [row("a", 0, 0.50, 0.30), row("a", 1, 0.52, 0.31), row("b", 0, 0.4, 0.2)]
    lines = dnr.table(rows).splitlines()
    assert "CIFAR-10 (JPEG copy)" in lines[2]
    expected = "| a | 9,637 of 78,426 | 12.50 | 51.00 ± 1.41 | 30.50 ± 0.71 | 2 | 0.5 |"
    assert lines[6:] == [expected, "| b | 9,637 of 78,426 | 12.50 | 40.00 | 20.00 | 1 | 0.5 |"]


def test_page_shows_the_pictures():
    page = dnr.page([row("a", 0, 0.50, 0.30)], ["a"])
    assert page.startswith(dnr.table([row("a", 0, 0.50, 0.30)]))
    assert "![Densities of a](dnr_a.png)" in page
    assert "Share" not in dnr.page([row("a", 0, 0.50, 0.30)], [])


def test_docs_show_what_was_measured():
    docs = ROOT / "docs"
    rows = json.loads((docs / f"{dnr.NAME}.json").read_text())
    assert (docs / f"{dnr.NAME}.md").read_text() == dnr.page(rows, dnr.pictures(docs))


def test_the_zoo_s_models_are_the_runs_of_seed_0():
    rows = json.loads((ROOT / "docs" / f"{dnr.NAME}.json").read_text())
    # As the zoo has them: of those pruned by channel, without these channels.
    found = {
        row["recipe"]: row
        for row in sorted(rows, key=lambda row: len(row["row"]))
        if row["seed"] == 0
    }
    assert found.keys() <= set(zoo.list_models())
    for name, row in found.items():
        card = zoo.card(name)
        assert row["nonzero_parameters"] == card["nonzero_parameters"]
        assert row["clean_accuracy"] == card["results"]["clean"]["accuracy"]
        assert row["robust_accuracy"] == card["results"]["pgd"]["accuracy"]
