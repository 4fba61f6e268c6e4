"""`python -m zoo.verify`: true cards pass, and a figure that is off is named."""

import copy
import json
import sys

import pytest
from absl import flags

import zoo
from tfsparse import UsageError
from zoo import figures, verify
from zoo.robustness.intervals import wilson

NAME = "resnet8_dnr10_fashion_mnist_small"


@pytest.fixture(scope="module")
def measured():
    content = zoo.load_tflite(NAME).read_bytes()
    model = zoo.load(NAME)
    costs = figures.costs(model, zoo.card(NAME)["model"])
    return {**costs, "golden": figures.golden(model, content)}


def verdicts(card, measured):
    return {figure: verdict for figure, _, _, verdict in verify.compare(card, measured)}


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


def test_a_slower_machine_is_not_wrong(measured):
    card = {**zoo.card(NAME), "device": {"arena_bytes": 100, "latency_ratio": 2.0}}
    device = {"arena_bytes": None, "latency_ratio": 1.0}
    found = verdicts(card, {**measured, "device": device})
    assert (found["arena_bytes"], found["latency_ratio"]) == ("", "")
    found = verdicts(card, {**measured, "device": {**device, "arena_bytes": 101}})
    assert found["arena_bytes"] == "WRONG"


def test_a_card_is_completed_and_not_changed():
    card = {
        "image_size": None,
        "results": {"clean": {"accuracy": 0.5}, "autoattack": {"accuracy": 0.1}},
        "device": {"arena_bytes": None, "latency_ratio": 2.0},
    }
    measured = {
        "density": 1.0,
        "results": {"clean": {"accuracy": 0.4999, "seed": 0}, "pgd": {"step_size": None}},
        "device": {"arena_bytes": 100, "latency_ratio": 1.0},
    }
    assert verify.completed(card, measured) == {
        "image_size": None,
        "density": 1.0,
        "results": {
            "clean": {"accuracy": 0.5, "seed": 0},
            "pgd": {"step_size": None},
            "autoattack": {"accuracy": 0.1},
        },
        "device": {"arena_bytes": 100, "latency_ratio": 2.0},
    }
    assert verify.completed(zoo.card(NAME), zoo.card(NAME)) == zoo.card(NAME)


@pytest.fixture
def settings(monkeypatch):
    """The command's flags, in this process."""
    monkeypatch.setattr(verify, "FLAGS", flags.FlagValues())
    monkeypatch.setattr(flags, "FLAGS", verify.FLAGS)
    flags.DEFINE_string("data_dir", None, "", flag_values=verify.FLAGS)
    for name in ("fast", "autoattack", "write"):
        flags.DEFINE_boolean(name, False, "", flag_values=verify.FLAGS)
    verify.FLAGS.mark_as_parsed()
    return verify.FLAGS


def test_writing_adds_what_is_missing_and_keeps_what_is_off(
    measured, monkeypatch, settings, tmp_path
):
    card, path = zoo.card(NAME), tmp_path / "cards" / f"{NAME}.json"
    monkeypatch.setattr(verify, "__file__", str(tmp_path / "verify.py"))
    path.parent.mkdir()
    monkeypatch.setattr(verify, "measure", lambda *_: measured)
    settings.write = settings.fast = True
    incomplete = {key: value for key, value in card.items() if key != "golden"}
    monkeypatch.setattr(zoo, "card", lambda _: incomplete)
    verify.main([NAME])
    assert json.loads(path.read_text()) == {**incomplete, "golden": measured["golden"]}
    path.unlink()
    monkeypatch.setattr(zoo, "card", lambda _: {**incomplete, "macs": card["macs"] + 1})
    with pytest.raises(UsageError, match=rf"1 figures are not .*: {NAME}: macs"):
        verify.main([NAME])
    assert not path.exists()
    settings.write = False
    monkeypatch.setattr(zoo, "card", lambda _: incomplete)
    with pytest.raises(UsageError, match=r"2 figures are not .* golden logits"):
        verify.main([NAME])


def test_what_another_process_writes_meanwhile_stays(measured, monkeypatch, settings, tmp_path):
    card, path = zoo.card(NAME), tmp_path / "cards" / f"{NAME}.json"
    path.parent.mkdir()
    path.write_text(json.dumps({key: card[key] for key in card if key not in ("golden", "hours")}))
    monkeypatch.setattr(verify, "__file__", str(tmp_path / "verify.py"))
    monkeypatch.setattr(zoo, "card", lambda _: json.loads(path.read_text()))

    def measure(*_):
        path.write_text(json.dumps({**zoo.card(NAME), "hours": 1.0}))
        return measured

    monkeypatch.setattr(verify, "measure", measure)
    settings.write = settings.fast = True
    verify.main([NAME])
    written = json.loads(path.read_text())
    assert (written["golden"], written["hours"]) == (measured["golden"], 1.0)


def test_autoattack_that_is_not_installed_is_said_first(monkeypatch, settings):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    monkeypatch.setattr(verify, "measure", lambda *_: pytest.fail("measured before"))
    settings.autoattack = True
    with pytest.raises(UsageError, match=r"pip install 'tfsparse\[attacks\]'"):
        verify.main([NAME])


def test_other_test_images_are_refused(monkeypatch, settings, data_dir, capsys):
    """Such as those of a JPEG copy, where the card is of the data set as published."""
    settings.data_dir = str(data_dir)
    card = {**zoo.card(NAME), "test_sha256": "0" * 64, "note": "another copy"}
    monkeypatch.setattr(zoo, "card", lambda _: card)
    with pytest.raises(UsageError, match=rf"1 figures are not .* {NAME}: test_sha256"):
        verify.main([NAME])
    shown = capsys.readouterr().out
    assert f"not those that {NAME} was measured on (another copy)" in shown
    assert "golden logits" in shown  # what is of no data set is judged
    assert "clean, n=" not in shown


def test_without_the_data_set_the_rest_is_judged(monkeypatch, settings, data_dir, capsys):
    """Of all models, though the first one's data set is not there."""
    settings.data_dir = str(data_dir)
    cards = {name: zoo.card(name) for name in ("resnet8_dnr10_cifar10", NAME)}
    cards[NAME] = {**cards[NAME], "test_sha256": "0" * 64}  # which spares its attacks
    cards["resnet8_dnr10_cifar10"]["dataset"] = "no_such_data"
    monkeypatch.setattr(zoo, "card", lambda name: cards[name])
    failures = r"resnet8_dnr10_cifar10: test images, .*: test_sha256\. The tables"
    with pytest.raises(UsageError, match=failures):
        verify.main(list(cards))
    shown = capsys.readouterr().out
    assert "no data set 'no_such_data' in tensorflow-datasets" in shown
    assert shown.count("golden int8") == 2


def test_command(run):
    result = run("-m", "zoo.verify", NAME, "--fast")
    assert result.returncode == 0, result.stderr
    assert "WRONG" not in result.stdout
    assert result.stdout.count(" ok") == 9
    result = run("-m", "zoo.verify", "resnet9000", "--fast")
    assert result.returncode == 1
    assert "Received: 'resnet9000'" in result.stderr
