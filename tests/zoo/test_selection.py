"""Which models are in the package, and how others are found."""

import json

import pytest

import zoo
from tests.conftest import ROOT, STUDY_MODELS
from tfsparse import UsageError
from zoo import figures, models

PACKAGED = zoo.list_models()
OTHERS = sorted(path.stem for path in (STUDY_MODELS / "cards").iterdir())
CARD = zoo.card(PACKAGED[0])
COSTS = {
    "flash": lambda card: card["tflite"]["bytes"],
    "RAM": lambda card: card["device"]["arena_bytes"],
    "flash, C": lambda card: card["c_package"]["flash_bytes"],
    "RAM, C": lambda card: card["c_package"]["ram_bytes"],
    "instructions": lambda card: card["c_package"]["instructions"],
}
ACCURACIES = ("clean", "autoattack")


def better(card, cost, accuracy):
    """Returns the packaged models of the same kind that take no more and are as accurate."""

    def figures(each):
        return COSTS[cost](each), -each["results"][accuracy]["accuracy"]

    found = []
    for name in PACKAGED:
        each = zoo.card(name)
        is_same_kind = _kind(each) == _kind(card)
        is_better = all(a <= b for a, b in zip(figures(each), figures(card), strict=True))
        if name != card["name"] and is_same_kind and is_better:
            found.append(name)
    return found


def _kind(card):
    return card["dataset"], card["recipe"]["loss"]


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_model_is_the_best_within_some_budget(name):
    """As docs/results/zoo.md says. One that is not belongs in studies/models."""
    card = zoo.card(name)
    assert not all(better(card, cost, accuracy) for cost in COSTS for accuracy in ACCURACIES)


def test_most_other_models_are_worse_in_everything(study_models):
    """As docs/results/zoo.md says."""
    worse = [
        name
        for name in OTHERS
        if set.intersection(*(set(better(zoo.card(name), cost, "clean")) for cost in COSTS))
    ]
    assert len(OTHERS) / 2 < len(worse) < len(OTHERS)


def test_models_of_another_folder_are_found(monkeypatch):
    monkeypatch.setenv(models.FURTHER, str(STUDY_MODELS))
    assert zoo.list_models() == sorted([*PACKAGED, *OTHERS])
    for name in OTHERS:
        assert models.path_of_card(name) == STUDY_MODELS / "cards" / f"{name}.json"
        assert zoo.load_tflite(name).is_relative_to(STUDY_MODELS)
    monkeypatch.setenv(models.FURTHER, "")
    for name in OTHERS:
        with pytest.raises(UsageError, match=f"Unknown model.*Received: '{name}'"):
            zoo.card(name)


def test_a_folder_of_models_may_be_relative(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(models.FURTHER, "studies/models")
    assert zoo.load_tflite(OTHERS[0]).as_uri().startswith("file:///")  # as the page of models has


def test_a_name_of_the_package_is_that_of_its_own_model(monkeypatch, tmp_path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / f"{PACKAGED[0]}.json").write_text("{}")
    monkeypatch.setenv(models.FURTHER, str(tmp_path))
    assert zoo.card(PACKAGED[0])["name"] == PACKAGED[0]


def test_the_baselines_of_packaged_models_stay_those_of_the_package(monkeypatch, tmp_path):
    """Even if another folder has the same dense network under a name that sorts first."""
    sparse, dense = zoo.card("resnet8_dnr10_cifar10"), zoo.card("resnet8_dense_robust_cifar10")
    (tmp_path / "cards").mkdir()
    other = tmp_path / "cards" / "a.json"
    other.write_text(json.dumps({**dense, "name": "a"}))
    monkeypatch.setenv(models.FURTHER, str(tmp_path))
    assert "a" in zoo.list_models()
    assert figures.baseline(sparse) == sparse["baseline"]


def test_a_damaged_card_of_another_folder_is_not_blamed_on_the_package(monkeypatch, tmp_path):
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.json").write_text("{}")
    monkeypatch.setenv(models.FURTHER, str(tmp_path))
    with pytest.raises(UsageError, match=r"cards/mine\.json is not a card.* restore the file if"):
        zoo.find()
    (tmp_path / "cards" / "mine.json").write_text(json.dumps({**CARD, "name": "other"}))
    with pytest.raises(UsageError, match=r"mine\.json is not a card: its name is 'other'"):
        zoo.card("mine")
    for field, value in (("recipe", {}), ("results", {}), ("results", {"clean": 5})):
        text = json.dumps({**CARD, "name": "mine", field: value})
        (tmp_path / "cards" / "mine.json").write_text(text)
        with pytest.raises(UsageError, match=rf"is not a card: {field}\."):
            zoo.card("mine")
    # Where it is not asked for, it is passed over: a run's report compares with a dense network.
    sparse = zoo.card("resnet8_dnr10_cifar10")
    assert figures.baseline(sparse) == sparse["baseline"]


def test_the_dense_baseline_is_the_most_accurate(monkeypatch, tmp_path):
    """Whatever its name, among several that were trained in the same way."""
    dense = zoo.card("resnet8_dense_robust_cifar10")
    (tmp_path / "cards").mkdir()
    for name, accuracy in (("a", 0.3), ("b", 0.5), ("c", 0.4)):
        clean = {**dense["results"]["clean"], "accuracy": accuracy}
        other = {**dense, "name": name, "dataset": "mine"}
        other["results"] = {**dense["results"], "clean": clean}
        (tmp_path / "cards" / f"{name}.json").write_text(json.dumps(other))
    monkeypatch.setenv(models.FURTHER, str(tmp_path))
    assert models.dense_baseline(dense["model"], "mine", "hybrid")["name"] == "b"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet18", "Did you mean resnet18_"),
        ("VGG16_W16_CIFAR10", "Did you mean vgg16_w16_cifar10?"),
        ("resnet8_cifar", "Did you mean resnet8_cifar10?"),
        ("resnet8_cfiar10", "Did you mean resnet8_cifar10, "),
        ("inception", "`tfsparse models` lists the models."),
        ("", "`tfsparse models` lists the models."),
    ],
)
def test_names_that_are_most_like_an_unknown_one(name, sentence):
    assert models.suggestion(name).startswith(sentence)


def test_a_folder_that_is_not_there_is_refused(monkeypatch, tfsparse, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in (tmp_path / "none", tmp_path / "loop", "~nobody-here/x", "x" * 300):
        monkeypatch.setenv(models.FURTHER, str(name))
        status, _, stderr = tfsparse("models")
        assert status == 1
        (line,) = stderr.splitlines()
        assert "TFSPARSE_MODELS must name a folder that exists, " in line
        assert f"Received: {name}" in line
    # Before training, whose report needs the folder.
    status, stdout, stderr = tfsparse("train", "--flagfile=quickstart", f"--workdir={tmp_path}/run")
    assert (status, stdout) == (1, "")
    assert "TFSPARSE_MODELS must name" in stderr


@pytest.mark.slow
def test_commands_check_a_model_of_another_folder(study_models, tfsparse):
    status, stdout, stderr = tfsparse("verify", "resnet8_dnr30_cifar10", "--fast")
    assert (status, stderr) == (0, "")
    assert "golden int8" in stdout
    assert "WRONG" not in stdout
