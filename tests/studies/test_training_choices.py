"""Choices in training: recipes that differ in one flag, and the table of made-up runs."""

import json

from studies import training_choices
from tests.conftest import ROOT


def row(recipe, seed, clean):
    return {
        **{"recipe": recipe, "row": recipe, "note": "JPEG copy", "seed": seed, "epochs": 24},
        **{"clean_accuracy": clean, "clean_examples": 10_000, "hours": 0.25},
        "hardware": "2 CPU cores",
    }


def test_recipes_differ_in_one_flag():
    def settings(recipe):
        lines = (ROOT / "zoo" / "recipes" / f"{recipe}.cfg").read_text().splitlines()
        return {line for line in lines if line[0] == "-" and not line.startswith("--workdir")}

    plain = settings(training_choices.PLAIN)
    for recipe in training_choices.ROWS.keys() - {training_choices.PLAIN}:
        assert plain < settings(recipe)
        assert len(settings(recipe) - plain) == 1


def test_page():
    smoothed = "resnet8_short_smoothing_cifar10"
    rows = [row(training_choices.PLAIN, seed, 0.80 + seed / 100) for seed in range(2)]
    page = training_choices.page([*rows, row(smoothed, 0, 0.79)])
    assert "CIFAR-10 (JPEG copy), 24 epochs" in page
    assert f"| {training_choices.PLAIN} | 80.50 ± 0.71 |  | 2 | 0.2 |" in page
    assert f"| {smoothed} | 79.00 | -1.50 | 1 | 0.2 |" in page
    alone = training_choices.page([row(smoothed, 0, 0.79)])  # the first that was run
    assert f"| {smoothed} | 79.00 |  | 1 | 0.2 |" in alone


def test_docs_show_what_was_measured():
    path = ROOT / "docs" / f"{training_choices.NAME}.json"
    assert path.with_suffix(".md").read_text() == training_choices.page(
        json.loads(path.read_text())
    )
