"""Verification: true cards pass, and a wrong figure is named."""

import copy
import json
import types

import pytest

import zoo
from zoo import figures, verification
from zoo.architectures.costs import costs
from zoo.robustness.intervals import wilson

NAME = "resnet8_dnr10_fashion_mnist_small"


@pytest.fixture(scope="module")
def measured():
    content = zoo.load_tflite(NAME).read_bytes()
    model = zoo.load(NAME)
    expected = costs(model, zoo.card(NAME)["model"])
    return {**expected, "golden": figures.golden(model, content)}


def verdicts(card, measured):
    return {figure: verdict for figure, _, _, verdict in verification.compare(card, measured)}


@pytest.mark.parametrize("key", ["parameters", "nonzero_macs", "dense_macs"])
def test_a_cost_that_is_off_by_one_is_wrong(measured, key):
    wrong = {**measured, key: measured[key] + 1}
    assert [k for k, v in verdicts(zoo.card(NAME), wrong).items() if v == "WRONG"] == [key]


def test_golden_outputs_that_changed_are_wrong(measured):
    changed = copy.deepcopy(measured)
    changed["golden"]["logits"][2][3] += 0.5
    changed["golden"]["int8"][3][0] += 1
    wrong = [k for k, v in verdicts(zoo.card(NAME), changed).items() if v == "WRONG"]
    assert wrong == ["golden logits", "golden int8"]


@pytest.mark.parametrize(
    ("examples", "difference", "verdict"),
    [(10_000, 5e-4, "ok"), (10_000, 6e-4, "WRONG"), (1000, 1e-3, "ok"), (1000, 2e-3, "WRONG")],
)
def test_an_accuracy_may_be_off_by_five_of_ten_thousand_or_one(
    measured, examples, difference, verdict
):
    card = {**zoo.card(NAME), "results": {"clean": {"accuracy": 0.5, "examples": examples}}}
    result = {"clean": {"accuracy": 0.5 - difference, "examples": examples}}
    assert verdicts(card, {**measured, "results": result})[f"clean, n={examples:,}"] == verdict


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ({}, "ok"),
        ({"steps": 20}, "WRONG"),
        ({"examples": 200}, "WRONG"),
        ({"seed": ...}, "MISSING"),  # ...: not in the card
        ({"accuracy": ...}, "MISSING"),
        ({"seed": ..., "accuracy": 0.51}, "WRONG"),
        ({"interval": [0.4, 0.6]}, "WRONG"),
        ({"interval": wilson(500, 1000)}, "ok"),
    ],
)
def test_an_accuracy_is_one_of_its_settings(measured, claim, verdict):
    result = {"accuracy": 0.5, "examples": 1000, "seed": 0, "steps": 50}
    said = {key: value for key, value in {**result, **claim}.items() if value is not ...}
    found = verdicts(
        {**zoo.card(NAME), "results": {"pgd": said}}, {**measured, "results": {"pgd": result}}
    )
    assert found["pgd, n=1,000"] == verdict


def test_a_figure_that_the_card_does_not_have_is_missing(measured):
    card = {key: value for key, value in zoo.card(NAME).items() if key not in ("golden", "results")}
    result = {"pgd": {"accuracy": 0.5, "examples": 1000}}
    found = verdicts(card, {**measured, "results": result})
    assert {found["golden logits"], found["golden int8"], found["pgd, n=1,000"]} == {"MISSING"}


def test_an_accuracy_that_is_wrong_is_named_with_its_difference(measured, monkeypatch):
    card = {**zoo.card(NAME), "results": {"pgd": {"accuracy": 0.5, "examples": 1000}}}
    found = {**measured, "results": {"pgd": {"accuracy": 0.497, "examples": 1000}}}
    _, wrong = verify_with(monkeypatch, card, found, fast=True)
    assert wrong == ["pgd, n=1,000 (-0.0030)"]


@pytest.mark.parametrize(("clean", "examples", "stays"), [(10_000, 200, False), (300, 300, True)])
def test_autoattack_on_few_images_is_measured_again(monkeypatch, clean, examples, stays):
    """With PGD on them; a data set of few images has no more. Other accuracies are of as many."""
    results = {"clean": {"examples": clean}, "int8": {"examples": clean}, "pgd": {"examples": 100}}
    results |= {name: {"examples": examples} for name in ("autoattack", "pgd_200")}
    card = {**zoo.card(NAME), "results": results}
    del card["test_sha256"]
    found = verification.without_small_autoattack(card)
    assert (found == card) == stays
    assert stays or found["results"].keys() == {"clean", "int8", "pgd"}
    monkeypatch.setattr(figures, "accuracies", lambda names, *_: (names, _[-1]))
    for name in ("hash_of_test_set", "provenance", "on_device", "as_c"):
        monkeypatch.setattr(figures, name, lambda *_: None)
    for each, more in ((card, {"pgd_200": examples, "autoattack": examples}), (found, {})):
        names, counts = verification.measure(NAME, zoo.load(NAME), each, "data", True)["results"]
        assert names[:4] == ["clean", "int8", "pgd", "autoattack"]
        assert ("pgd_200" in names) == ("pgd_200" in counts)
        assert counts["pgd"] == 100
        assert counts.items() >= more.items()


def test_a_slower_machine_is_not_wrong(measured):
    card = {**zoo.card(NAME), "device": {"arena_bytes": 100, "latency_ratio": 2.0}}
    device = {"arena_bytes": None, "latency_ratio": 1.0}
    found = verdicts(card, {**measured, "device": device})
    assert (found["arena_bytes"], found["latency_ratio"]) == ("", "")
    found = verdicts(card, {**measured, "device": {**device, "arena_bytes": 101}})
    assert found["arena_bytes"] == "WRONG"


def test_figures_of_another_c_are_missing_and_replaced(measured):
    card, spent = zoo.card(NAME), zoo.card(NAME)["c_package"]
    keys = [f"as C: {key}" for key in ("instructions", "flash_bytes", "ram_bytes")]
    wrong = {**measured, "c_package": {**spent, "instructions": spent["instructions"] + 1}}
    assert [verdicts(card, wrong)[key] for key in keys] == ["WRONG", "ok", "ok"]
    other = {**measured, "c_package": {**spent, "sha256": "0" * 64, "instructions": 1}}
    assert [verdicts(card, other)[key] for key in keys] == ["MISSING"] * 3
    assert verification.completed(card, other)["c_package"] == other["c_package"]
    assert "as C: instructions" not in verdicts(card, {**measured, "c_package": None})


def test_c_that_is_known_is_not_measured_again(monkeypatch):
    pytest.importorskip("unicorn")
    content, known = zoo.load_tflite(NAME).read_bytes(), zoo.card(NAME)["c_package"]
    monkeypatch.setattr(figures.bench, "measure", None)
    assert figures.as_c(content, known) == known


def test_the_baseline_is_the_dense_model_of_the_same_task():
    card = zoo.card("resnet8_dnr10_cifar10")
    dense = zoo.card("resnet8_dense_robust_cifar10")
    found = figures.baseline(card)
    assert found["model"] == dense["name"]
    assert found["clean"] == dense["results"]["clean"]["accuracy"]
    assert figures.baseline(dense) is None
    assert found["autoattack_examples"] == dense["results"]["autoattack"]["examples"]
    stale = {**card, "baseline": {**found, "clean": 0.99, "autoattack": None}}
    measured = {**card, "baseline": found}
    rows = verification.compare(stale, measured)
    assert {row[0]: row[-1] for row in rows if row[0].startswith("baseline")} == {
        **{"baseline: model": "ok", "baseline: clean": "MISSING"},
        **{"baseline: autoattack": "MISSING", "baseline: autoattack_examples": "ok"},
    }
    assert verification.completed(stale, measured) == card
    unknown = {**card, "baseline": {**found, "autoattack": None}}  # today
    assert verification.completed(card, unknown) == card


def test_a_card_is_completed_and_not_changed():
    card = {
        "image_size": None,
        "results": {"clean": {"accuracy": 0.5}, "autoattack": {"accuracy": 0.1}},
        "device": {"arena_bytes": None, "latency_ratio": 2.0},
    }
    measured = {
        "density": 1.0,
        "results": {
            "clean": {"accuracy": 0.4999, "seed": 0},
            "pgd": {"step_size": None, "examples": 200},
        },
        "examples": True,  # whether the file's are confirmed
        "device": {"arena_bytes": 100, "latency_ratio": 1.0},
    }
    assert verification.completed(card, measured) == {
        "image_size": None,
        "density": 1.0,
        "results": {
            "clean": {"accuracy": 0.5, "seed": 0},
            "pgd": {"step_size": None, "examples": 200},
            "autoattack": {"accuracy": 0.1},
        },
        "device": {"arena_bytes": 100, "latency_ratio": 2.0},
    }
    assert verification.completed(zoo.card(NAME), zoo.card(NAME)) == zoo.card(NAME)


@pytest.fixture
def card_file(monkeypatch, tmp_path):
    """The card's file in a zoo of its own, where there is none yet."""
    path = tmp_path / "cards" / f"{NAME}.json"
    places = {"path_of_card": lambda _: path, "folder_of": lambda _: tmp_path}
    monkeypatch.setattr(verification, "models", types.SimpleNamespace(**places))
    return path


def verify_with(monkeypatch, card, measured=None, **settings):
    """Returns the text and the wrong figures of `NAME`, as if its card were `card`."""
    monkeypatch.setattr(zoo, "card", card if callable(card) else lambda _: card)
    if measured:
        monkeypatch.setattr(verification, "measure", lambda *_: measured)
        monkeypatch.setattr(zoo, "load", lambda _: None)
    return verification.verify(NAME, **settings)


def test_writing_adds_what_is_missing_and_keeps_what_is_wrong(measured, monkeypatch, card_file):
    card = zoo.card(NAME)
    incomplete = {key: value for key, value in card.items() if key != "golden"}
    _, wrong = verify_with(monkeypatch, incomplete, measured, fast=True, write=True)
    assert wrong == []
    assert json.loads(card_file.read_text()) == {**incomplete, "golden": measured["golden"]}
    card_file.unlink()
    other = {**incomplete, "macs": card["macs"] + 1}
    assert verify_with(monkeypatch, other, measured, fast=True, write=True)[1] == ["macs"]
    _, wrong = verify_with(monkeypatch, incomplete, measured, fast=True)
    assert wrong == ["golden logits", "golden int8"]
    assert not card_file.exists()


def test_what_another_process_writes_meanwhile_stays(measured, monkeypatch, card_file):
    card = zoo.card(NAME)
    card_file.parent.mkdir()
    card_file.write_text(json.dumps({k: card[k] for k in card if k not in ("golden", "hours")}))

    def measure(*_):
        card_file.write_text(json.dumps({**zoo.card(NAME), "hours": 1.0}))
        return measured

    monkeypatch.setattr(verification, "measure", measure)
    verify_with(monkeypatch, lambda _: json.loads(card_file.read_text()), fast=True, write=True)
    written = json.loads(card_file.read_text())
    assert (written["golden"], written["hours"]) == (measured["golden"], 1.0)


def test_other_test_images_are_refused(monkeypatch, data_dir):
    """Such as those of a JPEG copy if the card is of the data set as published."""
    card = {**zoo.card(NAME), "test_sha256": "0" * 64, "note": "another copy"}
    text, wrong = verify_with(monkeypatch, card, data_dir=data_dir)
    assert wrong == ["test_sha256"]
    assert f"not those that {NAME} was measured on (another copy)" in text
    assert "golden logits" in text  # what needs no data set is judged
    assert "clean, n=" not in text


def test_without_the_data_set_the_rest_is_judged(monkeypatch):
    card = {**zoo.card(NAME), "dataset": "no_such_data"}
    text, wrong = verify_with(monkeypatch, card)
    assert wrong == ["test images"]
    assert "no data set 'no_such_data' in tensorflow-datasets" in text
    assert text.count(" ok\n") == 14
