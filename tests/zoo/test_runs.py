"""The folder of a training run refuses another run."""

import json

import pytest

from tfsparse import UsageError
from zoo import runs

RECIPE = {"density": 0.1, "epochs": 2, "arch": "resnet8", "width": 8}
DEFAULTS = {"density": 0.1, "epochs": 10, "arch": "resnet8", "width": None}


def test_the_same_recipe_or_a_new_folder_is_accepted(tmp_path):
    runs.check_recipe(tmp_path / "new", RECIPE, DEFAULTS)
    (tmp_path / "flags.json").write_text(json.dumps(RECIPE))
    runs.check_recipe(tmp_path, RECIPE, DEFAULTS)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"density": 0.2}, r"\(--density=0.1 there, 0.2 here\)"),
        (
            {"density": 0.2, "epochs": 3, "arch": "vgg16", "width": 16},
            r"--arch=resnet8 there, vgg16 here, and 1 more\)",
        ),
    ],
)
def test_another_recipe_is_refused(tmp_path, changes, named):
    (tmp_path / "flags.json").write_text(json.dumps(RECIPE))
    with pytest.raises(UsageError, match=named):
        runs.check_recipe(tmp_path, {**RECIPE, **changes}, DEFAULTS)


def test_a_flag_younger_than_the_run_had_its_default(tmp_path):
    (tmp_path / "flags.json").write_text(json.dumps({"epochs": 2, "arch": "resnet8", "width": 8}))
    runs.check_recipe(tmp_path, RECIPE, DEFAULTS)
    with pytest.raises(UsageError, match=r"--density=0\.1 there, 0\.2 here"):
        runs.check_recipe(tmp_path, {**RECIPE, "density": 0.2}, DEFAULTS)


@pytest.mark.parametrize("content", ["{", "7", "[1]"])
def test_damaged_flags_are_refused(tmp_path, content):
    (tmp_path / "flags.json").write_text(content)
    with pytest.raises(UsageError, match=r"Cannot read .*flags\.json"):
        runs.check_recipe(tmp_path, RECIPE, DEFAULTS)


def test_the_path_of_the_data_set_may_be_another(tmp_path):
    """Its images decide: see `check_data`."""
    recipe, defaults = {"dataset": "parts"}, {"dataset": "cifar10"}
    (tmp_path / "flags.json").write_text(json.dumps(recipe))
    for same in ("parts", "./parts/", "../photos/parts", "/data/parts"):
        runs.check_recipe(tmp_path, {"dataset": same}, defaults)
    with pytest.raises(UsageError, match="--dataset=parts there, other here"):
        runs.check_recipe(tmp_path, {"dataset": "other"}, defaults)
