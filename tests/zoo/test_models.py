"""The trained models of the package: their cards are true and damaged files are noticed."""

import hashlib
import os
import shutil

import keras
import numpy as np
import pytest
from absl import flags

import train
import zoo
from tests.conftest import ROOT
from tflite.runtimes import FileModel
from tfsparse import UsageError, attacks
from tfsparse.cost import model_cost
from tfsparse.evaluation import accuracy
from tfsparse.layers import PeriodicConv2D
from zoo import figures, models, table, verify
from zoo.data import batches, open_dataset

NAMES = zoo.list_models()


def test_there_are_models():
    assert sorted(NAMES) == NAMES
    assert NAMES


@pytest.fixture(scope="module", params=NAMES)
def loaded(request):
    """Name and Keras model of each, loaded once."""
    yield request.param, zoo.load(request.param)
    keras.backend.clear_session()


def test_card_says_what_the_model_is(loaded):
    name, model = loaded
    card = zoo.card(name)
    assert card["name"] == name
    assert model.input_shape[1:] == tuple(card["model"]["input_shape"])
    assert model.output_shape[1] == len(card["class_names"]) == card["model"]["num_classes"]
    path = zoo.load_tflite(name)
    assert path.stat().st_size == card["tflite"]["bytes"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["tflite"]["sha256"]


def test_costs_and_golden_outputs_are_those_of_the_card(loaded):
    name, model = loaded
    golden = figures.golden(model, zoo.load_tflite(name).read_bytes())
    card = zoo.card(name)
    rows = verify.compare(card, {**figures.costs(model, card["model"]), "golden": golden})
    assert [verdict for *_, verdict in rows] == ["ok"] * 8


def test_pruned_weights_are_zero(loaded):
    name, model = loaded
    recipe = zoo.card(name)["recipe"]
    if recipe["prune"] == "none" or recipe["structure"] == "channel":
        return
    kernels = [
        keras.ops.convert_to_numpy(layer.kernel)  # of a periodic layer, what its pattern keeps
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, PeriodicConv2D))
    ]
    kept = sum(np.count_nonzero(kernel) for kernel in kernels)
    prunable = sum(kernel.size for kernel in kernels)
    assert kept == pytest.approx(recipe["density"] * prunable, abs=1)


def test_bundled_model_reaches_what_its_card_says(data_dir):
    name = next(name for name in NAMES if zoo.card(name)["dataset"] == "fashion_mnist_small")
    card, model = zoo.card(name), zoo.load(name)
    images, labels = open_dataset("fashion_mnist_small", data_dir).read("test")
    assert card["results"]["clean"]["examples"] == len(images)
    # Two images of 1,000 for the rounding of other processors.
    clean = accuracy(model, batches(images, labels, 500))
    assert clean == pytest.approx(card["results"]["clean"]["accuracy"], abs=0.0021)
    attack = attacks.pgd(model, card["recipe"]["eps"], 20)
    few = accuracy(model, batches(images[:200], labels[:200], 100), attack)
    # 200 of the card's 1,000 images: three standard deviations.
    assert few == pytest.approx(card["results"]["pgd"]["accuracy"], abs=0.1)
    assert few < accuracy(model, batches(images[:200], labels[:200], 100))


@pytest.mark.parametrize("name", NAMES)
def test_card_is_complete(name):
    card = zoo.card(name)
    assert card["hours"] > 0
    for key in ("licence", "intended_use", "limits", "hardware", "versions", "recipe", "device"):
        assert card[key]
    assert card["dataset"] != "cifar10" or card["note"]
    assert card["device"]["latency_ratio"] > 0.8
    results = card["results"]
    assert results.keys() >= {"clean", "int8", "pgd"}
    for result in results.values():
        assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    clean, int8 = results["clean"], results["int8"]
    assert clean["examples"] == int8["examples"]
    assert abs(clean["accuracy"] - int8["accuracy"]) <= 0.005
    assert results["pgd"]["accuracy"] < clean["accuracy"]
    if "autoattack" in results:
        assert results["autoattack"]["examples"] == results["pgd_200"]["examples"] == 200
        assert results["autoattack"]["accuracy"] <= results["pgd_200"]["accuracy"]


@pytest.mark.parametrize("name", NAMES)
def test_card_is_of_its_recipe(name):
    """The recipe in the repository still says how the model was trained."""
    recipe = {"resnet8_dnr10_fashion_mnist_small": "quickstart"}.get(name, name)
    values = flags.FLAGS
    try:
        values(["train.py", f"--flagfile={ROOT / 'zoo' / 'recipes' / recipe}.cfg"])
        train.check_flags()
        said = {key: values[key].value for key in zoo.card(name)["recipe"]}
    finally:
        values.unparse_flags()
    assert zoo.card(name)["recipe"] == said


def test_weights_of_none_are_an_untrained_network():
    name = "resnet8_dnr_channel50_cifar10"
    model = zoo.load(name, weights=None)
    assert model.count_params() > zoo.load(name).count_params()
    assert model.input_shape[1:] == tuple(zoo.card(name)["model"]["input_shape"])
    with pytest.raises(UsageError, match="Received: 'imagenet'"):
        zoo.load(name, weights="imagenet")


def test_all_files_are_small():
    sizes = [path.stat().st_size for path in (models._FOLDER / "weights").iterdir()]
    assert sum(sizes) < 40e6


@pytest.mark.slow
def test_loads_in_one_line_in_a_fresh_process(run, tmp_path):
    code = (
        "import zoo, numpy as np; model = zoo.load(zoo.list_models()[0]);"
        "import os; assert 'TF_USE_LEGACY_KERAS' not in os.environ;"
        "print(model(np.zeros((1, *model.input_shape[1:]), 'float32')).shape)"
    )
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    result = run("-c", code, cwd=tmp_path)
    assert result.stdout.startswith("(1, "), result.stderr


def test_unknown_model():
    with pytest.raises(UsageError, match="Received: 'resnet9000'"):
        zoo.load("resnet9000")
    with pytest.raises(UsageError, match="Received"):
        zoo.card("../cards/" + NAMES[0])


def test_a_card_that_was_not_written_whole_is_no_model(copy):
    (copy.parent / "cards" / "partial-x.json").write_text("{")
    assert zoo.list_models() == NAMES


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the zoo's files to damage; returns its weights folder."""
    for folder in ("cards", "weights"):
        shutil.copytree(models._FOLDER / folder, tmp_path / folder)
    monkeypatch.setattr(models, "_FOLDER", tmp_path)
    return tmp_path / "weights"


def test_changed_or_missing_file_is_noticed(copy):
    name = NAMES[0]
    path = copy / zoo.card(name)["weights"]["file"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="sha256"):
        zoo.load(name)
    path.unlink()
    with pytest.raises(UsageError, match="Cannot read"):
        zoo.load(name)


def test_pruned_channels_are_gone():
    name = "resnet8_dnr_channel50_cifar10"
    card, model = zoo.card(name), zoo.load(name)
    spent = model_cost(model)
    dense = zoo.card("resnet8_dense_robust_cifar10")
    assert spent.parameters < 0.6 * dense["parameters"]
    assert (spent.parameters, spent.nonzeros) == (card["parameters"], card["nonzero_parameters"])
    assert (spent.macs, spent.nonzero_macs) == (card["macs"], card["nonzero_macs"])
    images = np.random.default_rng(0).random((20, 32, 32, 3), np.float32)
    logits, quantised = np.asarray(model(images)), FileModel(zoo.load_tflite(name).read_bytes())
    assert np.corrcoef(quantised(images).ravel(), logits.ravel())[0, 1] > 0.99


def test_readme_and_docs_show_the_cards():
    assert table.markdown() in (ROOT / "README.md").read_text(encoding="utf-8")
    assert table.page() == (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["zoo_macs", "zoo_kilobytes", "zoo_robust"])
def test_pictures_show_all_cards(name):
    """One mark and one text for each CIFAR-10 model, the robust ones only where that is shown."""
    cards = [card for card in map(zoo.card, NAMES) if card["dataset"] == "cifar10"]
    if name == "zoo_robust":
        cards = [card for card in cards if card["recipe"]["loss"] == "hybrid"]
    (axes,) = table.picture(name).axes
    shown = sorted((text.xy[1], text.get_text()) for text in axes.texts)
    key = "pgd" if name == "zoo_robust" else "clean"
    expected = {card["name"]: 100 * card["results"][key]["accuracy"] for card in cards}
    assert [height for height, _ in shown] == sorted(expected.values())
    words = dict((round(height, 2), text) for height, text in shown)
    for model, text in {
        "resnet8_narrow_cifar10": "dense",
        "resnet8_dnr_channel50_cifar10": "DNR 50 % of channels",
        "vgg16_w16_magnitude5_cifar10": "magnitude 5 %",
        "vgg16_w16_dnr10_cifar10": "DNR 10 %",
        "resnet18_w16_psd2p8_cifar10": "PSD2_P8",
    }.items():
        assert model not in expected or words[round(expected[model], 2)] == text
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 for box in boxes)
