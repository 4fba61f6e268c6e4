"""The trained models, also those that only studies need: their cards are true.

Damaged files are noticed.
"""

import hashlib
import os
import shutil

import keras
import numpy as np
import pytest
from absl import flags

import train
import zoo
from tests.conftest import ROOT, STUDY_MODELS
from tflite.runtimes import FileModel
from tfsparse import UsageError, attacks
from tfsparse.cost import model_cost
from tfsparse.evaluation import accuracy
from tfsparse.layers import PeriodicConv2D
from zoo import figures, models, publishing, train_flags, verification
from zoo.architectures.costs import costs
from zoo.cards import pgd_beside_autoattack, threat_model
from zoo.data import batches, open_dataset
from zoo.robustness.intervals import wilson

pytestmark = pytest.mark.usefixtures("study_models")

PACKAGED = zoo.list_models()
NAMES = sorted([*PACKAGED, *(path.stem for path in (STUDY_MODELS / "cards").iterdir())])


@pytest.fixture(scope="module", params=NAMES)
def loaded(request):
    """Name and Keras model of each, loaded once."""
    return request.param, zoo.load(request.param)


def test_card_says_what_the_model_is(loaded):
    name, model = loaded
    card = zoo.card(name)
    assert card["name"] == name
    assert model.input_shape[1:] == tuple(card["model"]["input_shape"])
    assert model.output_shape[1] == len(card["class_names"]) == card["model"]["num_classes"]
    path = zoo.load_tflite(name)
    assert path.stat().st_size == card["tflite"]["bytes"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card["tflite"]["sha256"]


@pytest.mark.slow
def test_costs_and_golden_outputs_are_those_of_the_card(loaded):
    name, model = loaded
    golden = figures.golden(model, zoo.load_tflite(name).read_bytes())
    card = zoo.card(name)
    rows = verification.compare(card, {**costs(model, card["model"]), "golden": golden})
    assert [verdict for *_, verdict in rows] == ["ok"] * 9


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
    assert zoo.card(name)["density"] == kept / prunable
    if recipe.get("budget") == "macs":
        costs = [cost for cost in model_cost(model).layers if cost.is_convolution]
        kept, prunable = sum(c.nonzero_macs for c in costs), sum(c.macs for c in costs)
        assert kept / prunable == pytest.approx(recipe["density"], rel=1e-3)
    else:
        assert kept == pytest.approx(recipe["density"] * prunable, abs=1)


@pytest.mark.slow
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


ACCURACY = {"accuracy": float, "interval": list, "examples": int, "seed": int, "batch_size": int}
BOUND = {**ACCURACY, "eps": float}
PGD = {**BOUND, "steps": int, "restarts": int, "step_size": type(None), "loss": str}
MACHINE = {
    **{"cpu": str, "cores": int, "system": str, "python": str},
    **{"ai-edge-litert": str, "numpy": str},
}
FILE = {"file": str, "bytes": int, "sha256": str}
SCHEMA = {
    **{"name": str, "purpose": str, "note": str},
    **{"license": str, "intended_use": str, "limits": str},
    "model": {
        **{"arch": str, "input_shape": list, "num_classes": int},
        **{"width": (int, type(None)), "pattern": (str, type(None))},
    },
    **{"dataset": str, "image_size": type(None), "class_names": list, "test_sha256": str},
    **{"recipe": dict, "epochs": int, "seconds_per_epoch": float, "hours": float, "seed": int},
    **{"hardware": str, "versions": dict},
    **{"density": float, "parameters": int, "nonzero_parameters": int, "dense_parameters": int},
    **{"macs": int, "nonzero_macs": int, "dense_macs": int},
    "golden": {"logits": list, "int8": list},
    "results": {
        **{"clean": ACCURACY, "int8": ACCURACY, "pgd": PGD},
        "autoattack": {**BOUND, "steps": int, "version": str},
    },
    "device": {"arena_bytes": int, "latency_ratio": float, "runs": int, "machine": MACHINE},
    **{"weights": FILE, "tflite": FILE, "examples": {**FILE, "images": FILE}},
    "c_package": {
        **{"instructions": int, "flash_bytes": int, "ram_bytes": int},
        **{"sha256": str, "compiler": str},
    },
    **{"baseline": (dict, type(None)), "threat_model": str},
    **{"deployed": (dict, type(None)), "seeds": (dict, type(None))},
}


def departures(values, schema, prefix=""):
    """Returns what of a JSON object is not as `schema` says: {key: type or schema}."""
    found = [f"{prefix}{key}" for key in sorted(values.keys() ^ schema.keys())]
    for key in values.keys() & schema.keys():
        if isinstance(schema[key], dict):
            found += departures(values[key], schema[key], f"{prefix}{key}.")
        elif not isinstance(values[key], schema[key]) or isinstance(values[key], bool):
            found.append(f"{prefix}{key}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_card_has_all_fields_and_no_others(name):
    beside = {"pgd_200": PGD} if zoo.card(name)["results"]["autoattack"]["examples"] == 200 else {}
    schema = {**SCHEMA, "results": {**SCHEMA["results"], **beside}}
    assert departures(zoo.card(name), schema) == []


@pytest.mark.parametrize("name", NAMES)
def test_card_fits_together(name):
    card = zoo.card(name)
    for key in ("purpose", "license", "intended_use", "limits", "hardware", "versions"):
        assert card[key]
    assert card["dataset"] != "cifar10" or card["note"]
    assert card["threat_model"] == threat_model(card["recipe"])
    assert card["limits"] == publishing.limits(card["recipe"])
    assert card["hours"] == pytest.approx(card["epochs"] * card["seconds_per_epoch"] / 3600)
    assert card["seed"] == card["recipe"]["seed"]
    assert card["device"]["latency_ratio"] > 0.9
    if card["macs"] == card["dense_macs"] and card["density"] == 1:  # its own dense network
        assert card["device"]["latency_ratio"] == pytest.approx(1, abs=0.03)
    results = card["results"]
    for result in results.values():
        right = round(result["accuracy"] * result["examples"])
        assert result["accuracy"] == right / result["examples"]
        assert result["interval"] == pytest.approx(wilson(right, result["examples"]))
    clean, int8 = results["clean"], results["int8"]
    assert clean["examples"] == int8["examples"]
    assert abs(clean["accuracy"] - int8["accuracy"]) <= 0.005
    assert results["pgd"]["accuracy"] < clean["accuracy"]
    assert results["autoattack"]["accuracy"] <= pgd_beside_autoattack(results)["accuracy"]
    if found := card["deployed"]:
        assert found["sha256"] == card["tflite"]["sha256"]
        names = ("clean", "transfer", "pgd", "diva", "square")
        attacked = [found[name]["accuracy"] for name in names]
        assert found[found["worst"]]["accuracy"] == min(attacked)


@pytest.mark.parametrize("name", NAMES)
def test_card_is_of_its_recipe(name):
    """The recipe in the repository still says how the model was trained.

    Flags that are younger than the card have their defaults.
    """
    recipe = {"resnet8_dnr10_fashion_mnist_small": "quickstart"}.get(name, name)
    values = flags.FLAGS
    try:
        values(["train.py", f"--flagfile={ROOT / 'zoo' / 'recipes' / recipe}.cfg"])
        train_flags.check(values)
        own = values.get_key_flags_for_module(train)
        own = [flag for flag in own if flag.name not in train.NOT_RECIPE]
        said = {flag.name: flag.value for flag in own}
        defaults = {flag.name: flag.default for flag in own}
    finally:
        values.unparse_flags()
    recipe = defaults | zoo.card(name)["recipe"]
    said["teacher"] = [publishing.name_of_teacher(teacher) for teacher in said["teacher"]]
    recipe["teacher"] = [teacher.partition(" (sha256 ")[0] for teacher in recipe["teacher"]]
    assert recipe == said


def test_weights_of_none_are_an_untrained_network():
    name = "resnet8_dnr_channel50_cifar10"
    model = zoo.load(name, weights=None)
    assert model.count_params() > zoo.load(name).count_params()
    assert model.input_shape[1:] == tuple(zoo.card(name)["model"]["input_shape"])
    with pytest.raises(UsageError, match="Received: 'imagenet'"):
        zoo.load(name, weights="imagenet")


@pytest.mark.parametrize("folder", [models._FOLDER, STUDY_MODELS], ids=["zoo", "studies"])
def test_no_file_is_left_over(folder):
    cards = [zoo.card(name) for name in NAMES if models.folder_of(name) == folder]
    files = {card[kind]["file"] for card in cards for kind in ("weights", "tflite")}
    assert {path.name for path in (folder / "weights").iterdir()} == files
    entries = [card["examples"] for card in cards]
    files = {entry["file"] for entry in (*entries, *(each["images"] for each in entries))}
    assert {path.name for path in (folder / "examples").iterdir()} == files


@pytest.mark.slow
def test_every_model_is_in_the_wheel(run, tmp_path):
    """As `pip install .` installs it, in a fresh process far from the project's folder.

    The hashes of its files are compared, as by `zoo.load`; `loaded` loads the same files.
    """
    source, installed = tmp_path / "source", tmp_path / "installed"
    for name in ("tfsparse", "zoo", "tflite"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    result = run(
        "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", source, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("tfsparse-*.whl")
    assert wheel.stat().st_size < 30e6  # said in docs/results/zoo.md
    shutil.unpack_archive(wheel, installed, "zip")
    code = (
        "import os, zoo; print(os.path.dirname(zoo.__file__))\n"
        "from zoo import adversarial_examples, models, models_page\n"
        "assert len(list(models_page._TEMPLATES.iterdir())) == 3\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
        "for name in zoo.list_models():\n"
        "    assert adversarial_examples.read(name)\n"
        "    weights = models.checked(name, zoo.card(name)['weights'])\n"
        "    print(name, weights.name, zoo.load_tflite(name).stat().st_size)\n"
        "print(zoo.load(name).count_params())\n"
    )
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    result = run("-c", code, cwd=tmp_path, PYTHONPATH=str(installed), TFSPARSE_MODELS="")
    assert result.returncode == 0, result.stderr
    place, *found, parameters = result.stdout.splitlines()
    assert place == str(installed / "zoo")
    cards = [zoo.card(name) for name in PACKAGED]
    assert found == [f"{c['name']} {c['weights']['file']} {c['tflite']['bytes']}" for c in cards]
    assert int(parameters) == cards[-1]["parameters"]


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
    name = PACKAGED[0]
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
    logits, quantized = np.asarray(model(images)), FileModel(zoo.load_tflite(name).read_bytes())
    assert np.corrcoef(quantized(images).ravel(), logits.ravel())[0, 1] > 0.99
