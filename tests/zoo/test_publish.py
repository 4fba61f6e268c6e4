"""Publishing: what is written loads again, and a run that does not fit together is refused."""

import json
import shutil

import keras
import numpy as np
import pytest

import zoo
from tflite import file_metadata
from tflite.convert import convert
from tfsparse import UsageError, pruning
from tfsparse.hashing import hash_of_weights
from zoo import adversarial_examples, figures, models, publishing, verification
from zoo.architectures.costs import costs
from zoo.data import open_dataset
from zoo.publishing import publish, refresh

pytestmark = pytest.mark.slow

SHIPPED = "resnet8_dnr10_fashion_mnist_small"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, fashion_mnist, data_dir):
    """{structure: what training leaves of a network of which weights, or channels, are pruned}.

    The folders have the name of a model of the zoo, as recipes give it.
    """
    architecture = {
        **{"arch": "resnet8", "input_shape": [28, 28, 1], "num_classes": 10},
        **{"width": 4, "pattern": None},
    }
    runs = {}
    for structure in ("unstructured", "channel"):
        runs[structure] = workdir = tmp_path_factory.mktemp(structure) / SHIPPED
        workdir.mkdir()
        keras.utils.set_random_seed(0)
        model = zoo.build(**architecture)
        schedule = pruning.DNRSchedule(0.5, end_step=9, frequency=1)
        pruning.Pruner(model, schedule, structure=structure).detach()
        model.save(workdir / "model.keras")
        content = convert(model, "int8", fashion_mnist[0][:50])
        content = file_metadata.embed(content, {"source_sha256": hash_of_weights(model)})
        (workdir / "model_int8.tflite").write_bytes(content)
        report = {
            **{key: zoo.card(SHIPPED)[key] for key in publishing._COPIED},
            # A teacher of the zoo, and one from a folder of this machine.
            "recipe": {
                **{**zoo.card(SHIPPED)["recipe"], "structure": structure},
                "teacher": [SHIPPED, str(workdir / "model.keras")],
            },
            **{"model": architecture, "seed": 7, "epochs": 6, "seconds_per_epoch": 600.0},
            **{"data_dir": str(data_dir), "int8": {"passed": True}},
        }
        (workdir / "report.json").write_text(json.dumps(report))
    return runs


@pytest.fixture
def workdir(runs, tmp_path):
    """A copy of a run, to damage."""
    return shutil.copytree(runs["unstructured"], tmp_path / SHIPPED)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of models, to publish in."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    monkeypatch.setenv(models.FURTHER, str(folder))
    return folder


@pytest.mark.parametrize("structure", ["unstructured", "channel"])
def test_what_is_published_loads_and_is_true(runs, structure, folder, fashion_mnist, monkeypatch):
    workdir = runs[structure]
    monkeypatch.setattr(figures, "PGD_STEPS", 1)
    monkeypatch.setattr(figures, "LATENCY_SECONDS", 0.1)
    monkeypatch.setattr(adversarial_examples, "EPS", (0, 8))
    if structure == "unstructured":  # the other one is also measured on the device
        monkeypatch.setattr(figures, "on_device", lambda *_: {"arena_bytes": None})
        monkeypatch.setattr(figures, "as_c", lambda content: None)
    # From the folder of the runs, where the run's name is also that of a model.
    monkeypatch.chdir(workdir.parent)
    published = publish(workdir.name, "mine", note="n", purpose="to test", license="MIT")
    assert zoo.card("mine") in zoo.find()
    assert models.folder_of("mine") == folder
    card, model = zoo.card("mine"), zoo.load("mine")
    assert card == json.loads(json.dumps(published))
    assert (card["seed"], card["hours"], card["note"]) == (7, 1.0, "n")
    assert (card["license"], card["intended_use"]) == ("MIT", "")
    taught = hash_of_weights(keras.saving.load_model(workdir / "model.keras"))
    assert card["recipe"]["teacher"] == [SHIPPED, f"{SHIPPED} (sha256 {taught[:16]})"]
    assert str(workdir.parent) not in json.dumps(card)
    images = figures.golden_images((28, 28, 1))
    trained = keras.saving.load_model(workdir / "model.keras")
    expected, found = np.asarray(trained(images)), np.asarray(model(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    content = zoo.load_tflite("mine").read_bytes()
    if structure == "unstructured":
        assert content == (workdir / "model_int8.tflite").read_bytes()
    # Converting what loads gives what is published, without the channels that were removed.
    made = convert(model, "int8", fashion_mnist[0][:50])
    assert content == file_metadata.embed(made, file_metadata.read(content))
    assert file_metadata.read(content)["source_sha256"] == hash_of_weights(model)
    expected = costs(model, card["model"])
    rows = verification.compare(card, {**expected, "golden": figures.golden(model, content)})
    assert {verdict for *_, verdict in rows} == {"ok"}
    assert card["parameters"] == model.count_params()
    assert (card["parameters"] < trained.count_params()) == (structure == "channel")
    assert card["results"]["clean"]["examples"] == card["results"]["pgd"]["examples"] == 1000
    assert "robust to L_inf perturbations of up to 8/255" in card["limits"]
    examples = adversarial_examples.read("mine")
    assert adversarial_examples.confirms(examples, content)
    wrong = examples._replace(outputs=examples.outputs + 1)
    assert not adversarial_examples.confirms(wrong, content)
    with pytest.raises(UsageError, match=r"mine\.json exists already"):
        publish(workdir, "mine")


def test_a_large_model_is_stored_in_16_bits(runs, folder, monkeypatch):
    """Its file and figures are those of the rounded weights, which are those that load."""
    monkeypatch.setattr(publishing, "_LARGE", 1_000)
    monkeypatch.setattr(publishing, "_SAME", 0.01)
    monkeypatch.setattr(figures, "PGD_STEPS", 1)
    monkeypatch.setattr(figures, "on_device", lambda *_: {"arena_bytes": None})
    monkeypatch.setattr(figures, "as_c", lambda content: None)
    monkeypatch.setattr(adversarial_examples, "EPS", (0, 8))
    card = publish(runs["unstructured"], "half")
    trained = keras.saving.load_model(runs["unstructured"] / "model.keras")
    model = zoo.load("half")
    for saved, loaded in zip(trained.get_weights(), model.get_weights(), strict=True):
        assert loaded.dtype == np.float32
        np.testing.assert_array_equal(loaded, saved.astype("float16").astype("float32"))
    assert not np.array_equal(trained.get_weights()[0], model.get_weights()[0])
    source = file_metadata.read(zoo.load_tflite("half").read_bytes())["source_sha256"]
    assert source == hash_of_weights(model)
    assert card["golden"] == figures.golden(model, zoo.load_tflite("half").read_bytes())


def test_a_model_that_16_bits_would_change_is_stored_in_32():
    """Logits of 1 and 1.0002 are equal in float16; a weight of 1e5 is infinite; integers stay."""
    images, labels = np.full((8, 1, 1, 1), 255, np.uint8), np.ones(8, np.int32)
    data = type("Data", (), {"read": lambda self, split: (images, labels)})()
    inputs = keras.Input((1, 1, 1))
    dense = keras.layers.Dense(2, use_bias=False)
    dense.add_weight(shape=(1,), dtype="int32", initializer="zeros", trainable=False)
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    for kernel, is_half in (([[1, 1.0002]], False), ([[1, 1e5]], False), ([[1, 1.1]], True)):
        model.set_weights([np.array(kernel, np.float32), np.array([123_456_789])])
        assert publishing.halve(model, data) == is_half
        found, integer = model.get_weights()
        np.testing.assert_array_equal(found, np.array(kernel, "float16" if is_half else "float32"))
        assert integer == 123_456_789


def test_a_name_that_is_taken_in_the_package_is_refused(workdir, folder):
    with pytest.raises(UsageError, match=r"resnet8_dnr10_cifar10\.json exists already"):
        publish(workdir, "resnet8_dnr10_cifar10")
    assert not any(folder.iterdir())


@pytest.mark.parametrize("missing", ["report.json", "model_int8.tflite"])
def test_a_run_that_is_not_finished_is_refused(workdir, folder, missing):
    (workdir / missing).unlink()
    with pytest.raises(UsageError, match="finished run"):
        publish(workdir, "mine")
    assert not any(folder.iterdir())


def test_a_file_of_another_model_is_refused(workdir, folder):
    shutil.copy(zoo.load_tflite(SHIPPED), workdir / "model_int8.tflite")
    with pytest.raises(UsageError, match=r"model_int8\.tflite was not made from the model\.keras"):
        publish(workdir, "mine")
    assert not any(folder.iterdir())


def test_a_run_whose_file_was_not_verified_is_refused(workdir, folder):
    report = json.loads((workdir / "report.json").read_text())
    (workdir / "report.json").write_text(json.dumps({**report, "int8": {"passed": False}}))
    (workdir / "model_int8.tflite").unlink()
    with pytest.raises(UsageError, match="did not agree with its model"):
        publish(workdir, "mine")


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    workdir, folder, monkeypatch
):
    (folder / "weights").touch()
    monkeypatch.setattr(publishing, "find_dataset", None)
    with pytest.raises(UsageError, match=r"Cannot write into .*weights: File exists\."):
        publish(workdir, "mine")


def test_a_teacher_that_is_gone_is_refused(workdir, folder):
    report = json.loads((workdir / "report.json").read_text())
    report["recipe"]["teacher"] = ["runs/large"]
    (workdir / "report.json").write_text(json.dumps(report))
    with pytest.raises(UsageError, match="needs the hash of the run's teacher runs/large, which"):
        publish(workdir, "mine")
    assert not any(folder.iterdir())


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/w1.5", "w1.5"),
        ("runs/w1.5/", "w1.5"),
        ("runs/large/model.keras", "large"),
        ("large.keras", "large"),
        ("resnet8_cifar10", "resnet8_cifar10"),
    ],
)
def test_the_name_of_a_teacher_has_no_path(path, name):
    assert publishing.name_of_teacher(path) == name


def test_a_name_must_be_a_file_name(workdir, folder):
    with pytest.raises(UsageError, match=r"--name must consist of .* Received: '\.\./x'"):
        publish(workdir, "../x")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A zoo of a copy of the small model."""
    for kind, pattern in (("cards", f"{SHIPPED}.json"), ("weights", f"{SHIPPED}*")):
        (tmp_path / "zoo" / kind).mkdir(parents=True)
        for path in (models._FOLDER / kind).glob(pattern):
            shutil.copy(path, tmp_path / "zoo" / kind)
    monkeypatch.setattr(models, "_FOLDER", tmp_path / "zoo")
    return tmp_path / "zoo"


def test_a_refreshed_file_is_that_of_the_loaded_model(shipped, data_dir, monkeypatch):
    data = open_dataset("fashion_mnist_small", data_dir)
    before = zoo.card(SHIPPED)
    path = zoo.load_tflite(SHIPPED)
    path.write_bytes(b"another file")
    monkeypatch.setattr(adversarial_examples, "EPS", (0, 8))
    monkeypatch.setattr(figures, "as_c", lambda content: before["c_package"])
    card = refresh(SHIPPED, data)
    assert zoo.card(SHIPPED) == json.loads(json.dumps(card))
    changed = {key for key in card if card[key] != before[key]}
    assert changed <= {"tflite", "device", "golden", "results", "examples", "deployed"}
    assert card["deployed"] is None  # the file that was attacked had other bytes
    assert card["results"]["int8"]["accuracy"] == before["results"]["int8"]["accuracy"]

    def verdicts(model):
        content = zoo.load_tflite(SHIPPED).read_bytes()
        measured = {
            **costs(model, card["model"]),
            "golden": figures.golden(model, content),
            "provenance": figures.provenance(model, content, data),
        }
        rows = verification.compare(card, measured)
        return {name: verdict for name, *_, verdict in rows if "provenance" in name}

    names = ("provenance source_sha256", "provenance sha256")
    assert verdicts(zoo.load(SHIPPED)) == dict.fromkeys(names, "ok")
    other = zoo.load(SHIPPED)
    other.weights[0].assign(1.01 * other.weights[0])
    assert verdicts(other) == dict.fromkeys(names, "WRONG")
    # Another version may write other bytes: not judged.
    monkeypatch.setattr(figures, "producers", lambda: {"producer": "tfsparse 9"})
    assert verdicts(zoo.load(SHIPPED)) == {"provenance": ""}


def test_a_refreshed_file_of_another_accuracy_is_not_written(shipped, data_dir):
    path = shipped / "cards" / f"{SHIPPED}.json"
    card = json.loads(path.read_text())
    card["results"]["int8"]["accuracy"] -= 0.01
    path.write_text(json.dumps(card))
    before = zoo.load_tflite(SHIPPED).read_bytes()
    with pytest.raises(UsageError, match="stays as it is: Its accuracy is"):
        refresh(SHIPPED, open_dataset("fashion_mnist_small", data_dir))
    assert zoo.load_tflite(SHIPPED).read_bytes() == before
