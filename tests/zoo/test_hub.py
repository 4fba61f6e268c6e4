"""The folder for the Hugging Face hub: the hub's own reader, and its code run as written."""

import json
import re

import keras
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

import zoo
from tfsparse import UsageError
from zoo import hub

ROBUST, PERIODIC = "resnet8_dnr10_fashion_mnist_small", "resnet8_psd2p8_cifar10"


@pytest.fixture(scope="module", params=[ROBUST, PERIODIC])
def folder(request, tfsparse, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / request.param
    status, out, err = tfsparse("publish", f"--model={request.param}", f"--to={folder}")
    assert (status, err) == (0, "")
    assert f"hf upload USER/{request.param} {folder}" in out
    return folder


def test_the_code_of_the_card(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    names = {}
    for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        exec(code, names)
    images = names["images"]
    expected = zoo.predict(folder.name, images[0])[0][0].class_name
    assert capsys.readouterr().out.splitlines() == [expected, expected]
    loaded, shipped = names["model"], zoo.load(folder.name)
    np.testing.assert_array_equal(loaded(images + 0.5), shipped(images + 0.5))


def test_other_files(folder):
    assert (folder / "model_int8.tflite").read_bytes() == zoo.load_tflite(folder.name).read_bytes()
    assert json.loads((folder / "card.json").read_text()) == zoo.card(folder.name)
    assert len(list(folder.iterdir())) == 4


def test_the_hub_reads_the_metadata(folder):
    card = zoo.card(folder.name)
    found = ModelCard.load(folder / "README.md").data
    assert found.to_dict() | {"model-index": None} == hub.metadata(card) | {"model-index": None}
    assert (found.license, found.library_name) == ("apache-2.0", "keras")
    assert found.model_name == folder.name
    figures = [each.metric_value for each in found.eval_results]
    names = ("clean", "int8", "pgd", "autoattack")
    assert figures == [round(card["results"][name]["accuracy"], 4) for name in names]
    assert all(each.task_type == "image-classification" for each in found.eval_results)
    titles = [each.metric_name for each in found.eval_results]
    assert titles[0] == f"accuracy, {card['results']['clean']['examples']:,} images"
    assert titles[3] == "accuracy under AutoAttack, L_inf 8/255, 200 images"
    assert ("adversarial-robustness" in found.tags) == (folder.name == ROBUST)
    assert ("periodic-sparsity" in found.tags) == (folder.name == PERIODIC)


def test_all_cards_have_metadata_that_the_hub_reads():
    for name in zoo.list_models():
        assert ModelCard(hub.readme(zoo.card(name))).data.model_name == name


def test_what_only_the_owner_can_say(folder):
    """No license unless it is stated, and no path of the owner's folders."""
    card = zoo.card(folder.name)
    recipe = {**card["recipe"], "dataset": "/photos/parts"}
    mine = type(card)({**card, "license": "", "dataset": "/photos/parts", "recipe": recipe})
    shown = hub.readme(hub._public(mine))
    assert "license" not in hub.metadata(mine)
    assert "License" not in shown
    assert "parts" in shown
    assert "/photos" not in shown + json.dumps(hub._public(mine))
    assert mine["dataset"] == "/photos/parts"  # where `verify` finds it


def test_odd_values_survive_yaml():
    value = {"a": ["x: y", "#", "é", 'quote"', ""], "b": {"c": 1, "d": [{"e": 0.5, "f": None}]}}
    assert yaml.safe_load("\n".join(hub._yaml(value))) == value


def test_what_cannot_be_written(tmp_path, tfsparse):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="new or empty"):
        hub.write_folder(ROBUST, tmp_path)
    with pytest.raises(UsageError, match="Unknown model"):
        hub.write_folder("resnet9000", tmp_path / "new")
    status, _, err = tfsparse("publish", f"--model={ROBUST}")
    assert status == 1
    assert err.startswith("error: Give --workdir and --name")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_is_left_if_writing_fails(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", fail)
    with pytest.raises(UsageError, match="No space left"):
        hub.write_folder(ROBUST, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
