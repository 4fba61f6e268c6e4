"""The commands evaluate and compare: what they write is true, complete, and continued."""

import json
import re

import keras
import numpy as np
import pytest

import zoo
from tests.journeys import fewer_images
from tflite import file_metadata
from tfsparse.evaluation import accuracy
from tfsparse.files import write_tensors
from zoo.data import batches, open_dataset
from zoo.robustness.runner import CORRECT, NOT_RUN, read_examples

pytestmark = pytest.mark.slow

NAME = "resnet8_dnr10_fashion_mnist_small"
EVALUATE = ("evaluate", f"--model={NAME}", "--examples=60", "--steps=5")


@pytest.fixture(scope="module")
def evaluated(fork, data_dir, fashion_mnist, tmp_path_factory):
    """The JSON file that the command wrote, run as a user runs it, and its table."""
    path = tmp_path_factory.mktemp("evaluate") / "float.json"
    arguments = ("--attacks=fgsm,pgd,uniform", "--sweep_eps=2/255,8/255", f"--json={path}")
    result = fork("-m", "zoo.commands", *EVALUATE, *arguments, f"--data_dir={data_dir}")
    assert (result.returncode, result.stderr) == (0, "")
    return path, result.stdout


def test_clean_accuracy_is_that_of_the_library(evaluated, data_dir):
    report = json.loads(evaluated[0].read_text())
    images, labels = open_dataset("fashion_mnist_small", data_dir).read("test", 60)
    expected = accuracy(zoo.load(NAME), batches(images, labels, 60))
    assert report["results"]["clean"]["accuracy"] == pytest.approx(expected)
    assert report["model"] == NAME
    assert (report["dataset"], report["examples"], report["seed"]) == ("fashion_mnist_small", 60, 0)
    assert report["eps"] == pytest.approx(8 / 255)


def test_what_is_written_agrees(evaluated):
    path, table = evaluated
    report = json.loads(path.read_text())
    examples, _, _ = read_examples(path.with_suffix(".safetensors"))
    assert examples.keys() == report["results"].keys()
    for name, result in report["results"].items():
        assert result["accuracy"] == pytest.approx(np.mean(examples[name] == CORRECT))
        assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
        assert f"{100 * result['accuracy']:.2f}" in table
    accuracies = {name: result["accuracy"] for name, result in report["results"].items()}
    assert accuracies["pgd"] <= accuracies["fgsm"] <= accuracies["clean"]
    assert accuracies["pgd, eps 8/255"] == accuracies["pgd"]
    assert accuracies["pgd, eps 2/255"] > accuracies["pgd"]
    clean = examples["clean"] == CORRECT
    for name in report["results"].keys() - {"clean"}:
        rate = np.mean(examples[name][clean] != CORRECT)
        assert report["results"][name]["success_rate"] == pytest.approx(rate)
        assert f"{100 * rate:.2f}" in table
    page = path.with_suffix(".html").read_text()
    assert page.count("<img") == 3
    shown = dict(re.findall(r"<td>([a-z_]+)</td><td>([^<]+)</td>", page.partition("Threat")[2]))
    assert shown["pgd"].startswith("5 steps of 4/255 within 8/255, 1 restart from a random start")
    assert shown["fgsm"] == "1 step of eps, without a random start"
    assert shown["uniform"] == "1 draw of noise"
    assert "clean" not in shown
    for end in (".json", ".safetensors", ".html"):
        assert f"wrote {path.with_suffix(end)} (" in table
    assert max(map(len, table.splitlines())) <= 100


def test_more_attacks_are_added_and_models_compared(evaluated, tfsparse, fork, data_dir):
    """A file beside its float model; the attacks of the first run are not run again."""
    path, _ = evaluated
    before = json.loads(path.read_text())["results"]["pgd"]
    arguments = (f"--json={path}", f"--data_dir={data_dir}")
    result = tfsparse(*EVALUATE, "--attacks=fgsm,pgd,gaussian", *arguments)
    assert result.returncode == 0, result.stderr
    after = json.loads(path.read_text())["results"]
    assert after["pgd"] == before  # including its seconds
    assert "gaussian" in after

    file = path.with_name("file.json")
    arguments = (f"--model={NAME}.tflite", f"--json={file}", f"--data_dir={data_dir}")
    result = tfsparse(*EVALUATE, "--attacks=transfer,uniform,pgd,diva", *arguments)
    assert result.returncode == 0, result.stderr
    assert "float model %" in result.stdout
    assert "gradients of a twin with the file's class on 100.0 % of images" in result.stdout
    results = json.loads(file.read_text())["results"]
    assert results["float/transfer"]["accuracy"] == before["accuracy"]
    assert results["float/clean"]["accuracy"] == after["clean"]["accuracy"]
    assert abs(results["transfer"]["accuracy"] - before["accuracy"]) < 0.1
    assert abs(results["pgd"]["accuracy"] - before["accuracy"]) < 0.1
    # What evades the float model breaks the file, too, and is rarer.
    assert results["pgd"]["accuracy"] <= results["diva"]["accuracy"]
    assert "float/diva" not in results

    compared = fork("-m", "zoo.commands", "compare", f"--results={path},{file}")
    assert (compared.returncode, compared.stderr) == (0, "")
    rows = {line.split()[0]: line.split() for line in compared.stdout.splitlines()[4:]}
    assert rows.keys() == {"clean", "pgd", "uniform"}  # what both were run with
    assert float(rows["clean"][1]) == pytest.approx(100 * after["clean"]["accuracy"], abs=0.01)


def test_results_that_do_not_compare_are_refused(evaluated, tfsparse, tmp_path):
    path, _ = evaluated
    examples, attacks, identity = read_examples(path.with_suffix(".safetensors"))

    def compare(examples=examples, attacks=attacks, identity=identity):
        other = tmp_path / "other.json"
        other.write_text(path.read_text())
        metadata = {"identity": json.dumps(identity), "attacks": json.dumps(attacks)}
        write_tensors(other.with_suffix(".safetensors"), examples, metadata)
        result = tfsparse("compare", f"--results={path},{other}")
        (line,) = result.stderr.splitlines() or [result.stdout]
        return line

    assert "left out" not in compare()
    assert "of different images: images" in compare(identity={**identity, "images": "other"})
    before = {key: value for key, value in identity.items() if key != "images"}
    assert "of another version" in compare(identity=before)
    settings = {**attacks["fgsm"]["settings"], "eps": 0.1}
    changed = {**attacks, "fgsm": {**attacks["fgsm"], "settings": settings}}
    assert "fgsm is left out" in compare(attacks=changed)
    assert "\npgd " in compare(attacks=changed)
    assert "\nfgsm  " not in compare(attacks=changed)
    half = np.where(np.arange(60) < 30, examples["pgd"], NOT_RUN).astype(np.int8)
    assert "is not complete (pgd)" in compare({**examples, "pgd": half})


def test_transfer_from_a_keras_model_of_the_same_images(tfsparse, data_dir, tmp_path):
    path = tmp_path / "r.json"
    arguments = (f"--source={NAME}", "--attacks=transfer,pgd", f"--json={path}")
    result = tfsparse(*EVALUATE, *arguments, "--sweep_steps=1,3", f"--data_dir={data_dir}")
    assert result.returncode == 0, result.stderr
    results = json.loads(path.read_text())["results"]
    assert results["transfer"]["accuracy"] == results["pgd"]["accuracy"]  # from itself
    assert results["pgd, 3 steps"]["accuracy"] <= results["pgd, 1 steps"]["accuracy"]
    assert results.keys() == {"clean", "transfer", "pgd", "pgd, 1 steps", "pgd, 3 steps"}


def test_a_model_of_images_in_0_to_255(evaluated, tfsparse, data_dir, tmp_path, monkeypatch):
    """It is as robust as the model of images in [0, 1] in it; without the flag, it is blind."""
    fewer_images(monkeypatch)
    image = keras.Input((28, 28, 1))
    model = keras.Model(image, zoo.load(NAME)(keras.layers.Rescaling(1 / 255)(image)))
    model.save(tmp_path / "model.keras")
    data = ("--dataset=fashion_mnist_small", f"--data_dir={data_dir}")
    source, file, path = (tmp_path / name for name in ("model.keras", "x.tflite", "r.json"))

    def evaluate(model, *arguments):
        settings = ("--examples=60", "--steps=5", f"--json={path}", *data)
        path.with_suffix(".safetensors").unlink(missing_ok=True)
        result = tfsparse("evaluate", f"--model={model}", *settings, *arguments)
        assert result.returncode == 0, result.stderr
        return json.loads(path.read_text()), result.stdout

    report, table = evaluate(source, "--attacks=fgsm,pgd", "--input_range=0,255")
    assert (report["input_range"], report["at_chance"]) == ([0, 255], False)
    expected = json.loads(evaluated[0].read_text())["results"]
    for name in ("clean", "fgsm", "pgd"):
        assert report["results"][name]["accuracy"] == expected[name]["accuracy"]
    assert "chance" not in table

    report, table = evaluate(source, "--attacks=fgsm")
    assert report["at_chance"]
    assert "chance level" in table
    assert "images in [0, 1]; if it takes another range, give --input_range" in table

    arguments = (f"--model={source}", "--precision=float32", f"--output={file}", *data)
    result = tfsparse("convert", *arguments)
    assert "passed" in result.stdout
    assert "Keras' accuracy is at chance level" in result.stdout
    result = tfsparse("convert", *arguments, "--input_range=0,255")
    assert (result.returncode, result.stderr) == (0, "")
    assert "chance" not in result.stdout
    # The file itself says what it takes.
    assert file_metadata.read(file.read_bytes())["input_range"] == [0, 255]
    report, _ = evaluate(file, "--attacks=uniform", "--source=")
    assert report["results"]["clean"]["accuracy"] == expected["clean"]["accuracy"]


@pytest.mark.parametrize("text", ["0", "255,0", "a,b", "0,inf", "0,1,2"])
def test_what_is_no_range_is_refused_in_one_line(tfsparse, text):
    result = tfsparse(*EVALUATE, f"--input_range={text}")
    (line,) = result.stderr.splitlines()
    assert "two numbers in ascending order" in line
    assert result.returncode == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--attacks=cw", "--attacks are among clean, "),
        ("--eps=2", "--eps must be in (0, 1]. Received: 2.0"),
        ("--sweep_eps=1/2,a", "--sweep_eps must be a list of numbers. Received: '1/2,a'"),
        ("--sweep_steps=1.5", "--sweep_steps must be a list of numbers. Received: '1.5'"),
        ("--json=r.txt", "ends with .json. Received: r.txt"),
        ("--attacks=transfer", "needs --source"),
        (f"--source={NAME}.tflite", "--source must be a Keras model"),
        ("--source=resnet8_dnr10_cifar10", "(28, 28, 1)"),
        ("--model=none.tflite", "Cannot read none.tflite"),
        ("--attacks=diva", "diva attacks a .tflite file"),
        (f"--model={NAME}.tflite --attacks=autoattack", "autoattack attacks Keras models"),
        ("--model=none", "Received: none"),
        ("--step_size=0", "--step_size must be in (0, 1]"),
        ("--dataset=cifar100", "cifar100"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(tfsparse, data_dir, argument, message):
    result = tfsparse(*EVALUATE, f"--data_dir={data_dir}", *argument.split())
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
