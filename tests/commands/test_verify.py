"""The command verify: which models it checks, and what it says if one is wrong."""

import json
import sys

import pytest

import zoo
from zoo import models, verification


@pytest.fixture
def verified(monkeypatch):
    """Verification that takes no time; returns {name: its arguments}, in the order of calls."""
    calls = {}

    def verify(name, *arguments):
        calls[name] = arguments
        return f"table of {name}", ["macs"] if "narrow" in name else []

    monkeypatch.setattr(verification, "verify", verify)
    return calls


def test_all_models_or_those_that_are_named(verified, tfsparse):
    result = tfsparse("verify", "resnet8_cifar10", "vgg16_w16_cifar10", "--fast", "--data_dir=x")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "table of resnet8_cifar10\n\ntable of vgg16_w16_cifar10\n\n"
    assert verified["resnet8_cifar10"] == ("x", True, False, False)
    verified.clear()
    assert tfsparse("verify", "--write").returncode == 1
    assert list(verified) == zoo.list_models()
    assert set(verified.values()) == {(None, False, False, True)}


def test_autoattack_on_few_classes_is_refused_at_once(verified, tfsparse, tmp_path, monkeypatch):
    card = zoo.card("resnet8_cifar10")
    card = {**card, "name": "parts", "class_names": ["bolt", "nut", "washer"]}
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "parts.json").write_text(json.dumps(card))
    monkeypatch.setenv(models.FURTHER, str(tmp_path))
    result = tfsparse("verify", "resnet8_cifar10", "parts", "--autoattack")
    assert result.returncode == 1
    assert "4 classes or more" in result.stderr
    assert "on parts instead" in result.stderr
    assert not verified


def test_wrong_figures_are_named_after_all_models(verified, tfsparse):
    result = tfsparse("verify", "resnet8_narrow_cifar10", "resnet8_cifar10")
    assert result.returncode == 1
    assert "table of resnet8_cifar10" in result.stdout
    (line,) = result.stderr.splitlines()
    assert "1 figures of the cards are not confirmed: resnet8_narrow_cifar10: macs." in line


def test_an_unknown_model_is_refused_before_any_is_verified(verified, tfsparse):
    result = tfsparse("verify", "resnet8_cifar10", "resnet9000")
    assert (result.returncode, verified) == (1, {})
    assert "Received: 'resnet9000'" in result.stderr


def test_autoattack_that_is_not_installed_is_reported_first(verified, tfsparse, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    result = tfsparse("verify", "resnet8_cifar10", "--autoattack")
    assert (result.returncode, verified) == (1, {})
    assert "pip install 'tfsparse[attacks]'" in result.stderr


def test_autoattack_needs_data(verified, tfsparse):
    result = tfsparse("verify", "resnet8_cifar10", "--autoattack", "--fast")
    assert (result.returncode, verified) == (1, {})
    (line,) = result.stderr.splitlines()
    assert "--autoattack has no effect with --fast" in line
