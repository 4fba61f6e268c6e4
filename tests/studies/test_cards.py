"""What cards have from the records of studies."""

import json

import numpy as np
import pytest

import zoo
from studies import cards, robustness
from tests.studies.conftest import RESULTS
from zoo import models

NAME = "resnet8_dnr10_cifar10"


def test_cards_have_what_the_records_say():
    """If a record has changed, `python -m studies cards` writes the cards."""
    for name, entries in cards.from_records(RESULTS).items():
        assert zoo.card(name) | entries == zoo.card(name)


def test_the_file_under_attack_is_that_of_the_card():
    record = json.loads((RESULTS / "robustness.json").read_text())
    parts = robustness.reports(record)[NAME]
    found = cards._deployed(zoo.card(NAME), parts)
    results = parts["deployed"]["results"] | parts["square"]["results"]
    for name in ("clean", "transfer", "pgd", "diva", "square"):
        assert found[name]["accuracy"] == results[name]["accuracy"]
    assert found[found["worst"]]["accuracy"] == min(results[name]["accuracy"] for name in results)
    other = {part: {**parts[part], "sha256": "0" * 64} for part in ("deployed", "square")}
    assert cards._deployed(zoo.card(NAME), other) is None
    assert "square" not in cards._deployed(zoo.card(NAME), {**parts, "square": other["square"]})
    assert cards._deployed(zoo.card(NAME), {}) is None


def run(seed, clean, robust, **changes):
    fixed = {"note": "JPEG copy", "epochs": 12, "clean_examples": 10_000, "robust_examples": 1000}
    return {**fixed, "seed": seed, "clean_accuracy": clean, "robust_accuracy": robust, **changes}


def test_mean_and_spread_over_seeds():
    card = zoo.card(NAME)
    own = card["results"]["clean"]["accuracy"]
    runs = [run(0, own, 0.2), run(1, own + 0.03, 0.23)]
    found = cards._seeds(card, [*runs, run(2, 0.9, 0.9, epochs=100)])  # another recipe
    assert (found["n"], found["seeds"]) == (2, [0, 1])
    for key, values in (("clean", [own, own + 0.03]), ("pgd", [0.2, 0.23])):
        assert found[key]["mean"] == pytest.approx(np.mean(values))
        assert found[key]["standard_deviation"] == pytest.approx(0.03 / np.sqrt(2))
    assert cards._seeds(card, runs[:1]) is None
    assert cards._seeds(card, [run(0, own - 0.1, 0.2), runs[1]]) is None  # not this model's run


def test_only_cards_that_change_are_written(tmp_path, monkeypatch, run_study, capsys):
    monkeypatch.setattr(cards, "list_models", lambda: [NAME, "resnet18_w16_cifar10"])
    monkeypatch.setattr(cards, "path_of_card", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(cards, "card", lambda name: models.card(name) | stale[name])
    stale = {NAME: {"seeds": None}, "resnet18_w16_cifar10": {}}
    run_study(cards, f"--output={RESULTS}")
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.json"]
    assert json.loads((tmp_path / f"{NAME}.json").read_text()) == zoo.card(NAME)
    assert capsys.readouterr().out == f"wrote {tmp_path / NAME}.json\n"
