"""What users get wrong, command by command: one line that names it, a status, nothing written."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest

from tests.journeys import fewer_images

MODEL = "resnet8_dnr10_fashion_mnist_small"
QUICK = ["--flagfile=quickstart", "--width=4", "--workdir={new}"]

# {command: {case: (arguments, status, what the line names)}}; {x} is a path of `places`, {new} one
# that is not there, another in each case.
CASES = {
    "train": {
        "unknown flag": (["--frobnicate=1"], 2, "frobnicate"),
        "positional argument": (["run"], 2, "run"),
        "missing flag file": (["--flagfile=nowhere.cfg"], 2, "nowhere.cfg"),
        "recipe that almost exists": (["--flagfile=quickstrt"], 2, "Did you mean quickstart?"),
        "recipe with an unknown flag": (["--flagfile={odd_recipe}"], 2, "frobnicate"),
        "architecture": (["--arch=resnet9"], 2, "resnet9"),
        "prune": (["--prune=randomly"], 2, "randomly"),
        "structure": (["--structure=rows"], 2, "rows"),
        "loss": (["--loss=mse"], 2, "mse"),
        "schedule": (["--schedule=steps"], 2, "steps"),
        "not a number": (["--epochs=ten"], 2, "ten"),
        "not a fraction": (["--eps=8/0"], 2, "8/0"),
        "eps 0": (["--eps=0"], 1, "--eps must be in (0, 1]. Received: 0.0"),
        "eps above 1": (["--eps=8"], 1, "Received: 8.0"),
        "eps nan": (["--eps=nan"], 1, "Received: nan"),
        "pattern": (["--pattern=PS3P4"], 1, "'PS3P4'"),
        "pattern of no taps": (["--pattern=PS0_P4"], 1, "'PS0_P4'"),
        "support that does not fit": (["--pattern=PS10_P4"], 1, "10 taps"),
        "pattern without a layer": (["--arch=mobilenet_v2", "--pattern=PS4_P4"], 1, "mobilenet"),
        "density 0": (["--density=0"], 1, "--density must be in (0, 1]. Received: 0.0"),
        "density above 1": (["--density=1.5"], 1, "Received: 1.5"),
        "density nan": (["--density=nan"], 1, "Received: nan"),
        "a layer would die": (["--prune=dnr", "--density=1e-5"], 1, "at least"),
        "learning rate 0": (["--learning_rate=0"], 1, "--learning_rate must be above 0"),
        "learning rate nan": (["--learning_rate=nan"], 1, "Received: nan"),
        "weight decay": (["--weight_decay=-1"], 1, "--weight_decay must be at least 0"),
        "average": (["--ema_momentum=1"], 1, "--ema_momentum must be in [0, 1)"),
        "teacher": (["--teacher=resnet9"], 1, "--teacher must be a .keras file, a run's folder"),
        "teacher twice": (
            ["--teacher=resnet8_cifar10,resnet8_cifar10"],
            1,
            "--teacher must be a list of different models. Received: ",
        ),
        "teacher of other images": (
            ["--teacher=resnet8_cifar10"],
            1,
            "images of shape (32, 32, 3) and tells 10 classes apart; the student, (28, 28, 1)",
        ),
        "teacher without a name": (["--teacher={three}.keras,"], 1, "--teacher must be"),
        "teacher of other classes": (
            ["--teacher={three}.keras"],
            1,
            "The teacher takes images of shape (28, 28, 1) and tells 3 classes apart",
        ),
        "teacher that returns probabilities": (
            ["--teacher={softmax}.keras"],
            1,
            "The last layer of probable is a softmax",
        ),
        "teacher that knows nothing": (["--teacher={ten}.keras"], 1, "no more than a guess"),
        "temperature without a teacher": (
            ["--teacher=", "--temperature=2"],
            1,
            "--temperature has no effect without --teacher",
        ),
        "temperature": (["--teacher=resnet8_cifar10", "--temperature=0"], 1, "--temperature must"),
        "weight of the teacher": (["--teacher_weight=0"], 1, "--teacher_weight must be in (0, 1]"),
        "weight without a teacher": (
            ["--teacher_weight=0.5"],
            1,
            "--teacher_weight has no effect without --teacher",
        ),
        "smoothed labels that nobody reads": (
            ["--teacher=resnet8_cifar10", "--teacher_weight=1", "--label_smoothing=0.1"],
            1,
            "--label_smoothing has no effect with --teacher_weight=1. Received: "
            "--label_smoothing=0.1",
        ),
        "clean images alone": (["--beta=1"], 1, "--beta must be in [0, 1). Received: 1"),
        "beta without a hybrid loss": (
            ["--loss=standard", "--beta=0.3"],
            1,
            "--beta has no effect with --loss=standard. Received: --beta=0.3",
        ),
        "attack steps": (["--attack_steps=0"], 1, "--attack_steps must be at least 1"),
        "epochs": (["--epochs=0"], 1, "--epochs must be at least 1"),
        "batch 0": (["--batch_size=0"], 1, "--batch_size must be at least 1"),
        "batch of more than all": (["--batch_size=5000"], 1, "--batch_size=5000"),
        "seed": (["--seed=-1"], 1, "--seed must be from 0"),
        "seed too large": (["--seed=2147483648"], 1, "--seed must be from 0"),
        "width": (["--width=0"], 1, "--width must be from 1 to 4096"),
        "image size": (["--image_size=0"], 1, "--image_size must be at least 1"),
        "images too large": (["--image_size=60000"], 1, "GB"),
        "checkpoints": (["--checkpoint_minutes=-1"], 1, "--checkpoint_minutes must be at least 0"),
        "data set": (["--dataset=cifar11"], 1, "'cifar11'"),
        "data set that is not of images": (["--dataset=imdb_reviews"], 1, "imdb_reviews"),
        "data folder": (["--data_dir={file}"], 1, "file"),
        "no workdir": (["--workdir="], 1, "--workdir"),
        "workdir is a file": (["--workdir={file}"], 1, "file"),
        "workdir below a file": (["--workdir={file}/run"], 1, "file"),
        "run of another recipe": (["--workdir={other_run}"], 1, "another recipe"),
        "damaged flags.json": (["--workdir={damaged_run}"], 1, "flags.json"),
        "damaged checkpoint": (["--workdir={damaged_checkpoint}"], 1, "checkpoint.safetensors"),
        "precision of the layers": (["--dtype_policy=float8"], 2, "float8"),
        "learning rate inf": (["--learning_rate=inf"], 1, "finite"),
        "too wide": (["--width=1000000"], 1, "--width must be from 1 to 4096"),
        "density without pruning": (["--prune=none"], 1, "--density has no effect with"),
        "attack without its loss": (
            ["--loss=standard", "--attack_steps=2"],
            1,
            "--attack_steps has no effect with --loss=standard",
        ),
        "attack": (["--attack=fgsm"], 2, "fgsm"),
        "what to do if it overfits": (["--on_overfitting=hope"], 2, "hope"),
        "steps of an attack of one": (
            ["--attack=nfgsm", "--attack_steps=2"],
            1,
            "--attack_steps has no effect with --attack=nfgsm",
        ),
        "overfitting without an attack": (
            ["--loss=standard", "--on_overfitting=stop"],
            1,
            "--on_overfitting has no effect with --loss=standard",
        ),
        "no folder of images": (["--dataset={new}"], 1, "Cannot read"),
        "a file as data set": (["--dataset={file}"], 1, "ends in .npz. Received"),
        "noise as data set": (["--dataset={noise}.npz"], 1, "noise.npz is not an .npz file"),
        "no share of a TFDS set": (
            ["--validation_fraction=0.2"],
            1,
            "--validation_fraction has no",
        ),
        "one device": (["--synchronized"], 1, "--synchronized has no effect with"),
        "no cluster": (["--distribution=multi_worker"], 1, "TF_CONFIG"),
        "loss that diverges": (["--learning_rate=1e30", "--epochs=1"], 1, "loss is"),
    },
    "convert": {
        "no model": (["--precision=int8", "--output={new}.tflite"], 2, "model"),
        "missing file": (["--model=none.keras"], 1, "none.keras"),
        "no Keras file": (["--model={noise}.keras"], 1, "noise.keras"),
        "empty Keras file": (["--model={empty}.keras"], 1, "empty.keras"),
        "zip that leaves its folder": (["--model={escaping}.keras"], 1, "escaping.keras"),
        "unknown name": (["--model=resnet99"], 1, "resnet99"),
        "folder without a model": (["--model={folder}"], 1, "model.keras"),
        "name that is too long": ([f"--model={'x' * 300}"], 1, "Cannot read --model"),
        "two inputs": (["--model={two_inputs}.keras", "--dataset=fashion_mnist_small"], 1, "2"),
        "other classes": (["--model={three}.keras", "--dataset=fashion_mnist_small"], 1, "3"),
        "nobody knows the data": (["--model={three}.keras"], 1, "--dataset"),
        "precision": (["--precision=int4"], 2, "int4"),
        "suffix": (["--output={new}.bin"], 1, ".bin"),
        "output below a file": (["--output={file}/x.tflite"], 1, "file"),
        "data set": (["--dataset=cifar11"], 1, "cifar11"),
        "image size": (["--image_size=32"], 1, "(32, 32, 1)"),
        "calibration": (["--calibration_examples=0"], 2, "calibration_examples"),
    },
    "micro": {
        "unknown name": (["--model=resnet99"], 1, "resnet99"),
        "folder with files": (["--output={folder_of_files}"], 1, "new or empty"),
        "folder below a file": (["--output={file}/x"], 1, "file"),
        "runtime": (["--runtime=rust"], 2, "rust"),
        "bench of TFLM": (["--bench"], 1, "--runtime=c"),
        "prefix of TFLM": (["--prefix=mine"], 1, "--prefix is for C. Give --runtime=c"),
        "prefix": (["--runtime=c", "--prefix=Mine", "--model=resnet99"], 1, "lower-case letters"),
        "file for TFLM": (["--model={noise}.tflite"], 1, "Give one, or --runtime=c"),
        "parents of a folder": (["--model=resnet99", "--output={new}/a/b"], 1, "resnet99"),
        "missing file": (["--runtime=c", "--model=none.tflite"], 1, "none.tflite"),
        "data of a file": (
            ["--runtime=c", f"--model={MODEL}.tflite", "--image_size=5"],
            1,
            "--image_size has no effect with a .tflite file",
        ),
        "no TFLite file": (["--runtime=c", "--model={noise}.tflite"], 1, "not a .tflite file"),
    },
    "benchmark": {
        "missing file": (["--models=none.tflite"], 1, "none.tflite"),
        "no TFLite file": (["--models={noise}.keras"], 1, "noise.keras"),
        "empty file": (["--models={empty}.keras"], 1, "empty.keras"),
        "threads": (["--models={noise}.keras", "--threads=0"], 2, "threads"),
    },
    "evaluate": {
        "unknown name": (["--model=resnet99"], 1, "resnet99"),
        "missing file": (["--model=none.tflite"], 1, "none.tflite"),
        "no TFLite file": (["--model={noise}.tflite"], 1, "noise.tflite is not a .tflite file"),
        "no attack": (["--attacks="], 1, "Received: ''"),
        "no file for the results": (["--json="], 1, "--json must name a file"),
        "endless steps": (["--step_size=inf"], 1, "--step_size must be in (0, 1]"),
        "attack": (["--attacks=magic"], 1, "'magic'"),
        "AutoAttack on a file": (
            [f"--model={MODEL}.tflite", "--attacks=autoattack"],
            1,
            "autoattack",
        ),
        "eps": (["--eps=0"], 1, "--eps"),
        "steps": (["--steps=0"], 2, "steps"),
        "sweep": (["--sweep_eps=a"], 1, "'a'"),
        "suffix": (["--json={new}.txt"], 1, ".txt"),
        "no source": (["--attacks=transfer"], 1, "--source"),
        "source": (["--attacks=transfer", "--source=resnet99"], 1, "resnet99"),
        "results of another model": (["--json={noise}.json"], 1, "noise.safetensors"),
    },
    "verify": {
        "unknown name": (["resnet99", "--fast"], 1, "'resnet99'"),
        "unknown flag": (["--frobnicate=1"], 2, "frobnicate"),
    },
    "compare": {
        "one file": (["--results=a.json"], 1, "a.json"),
        "missing files": (["--results=a.json,b.json"], 1, "a.json"),
    },
    "models": {
        "no page": (["--html="], 1, "--html must name a file"),
    },
    "publish": {
        "nothing": ([], 1, "Received: neither"),
        "a note for the hub": (
            [f"--model={MODEL}", "--to={new}", "--note=mine"],
            1,
            "--note has no effect with --to",
        ),
        "data for the hub": (
            [f"--model={MODEL}", "--to={new}", "--data_dir=data"],
            1,
            "--data_dir has no effect with --to",
        ),
        "no run": (["--workdir={folder}", "--name=x"], 1, "finished run"),
        "name": (["--workdir={folder}"], 1, "--name"),
    },
}
DEFAULTS = {
    "train": [*QUICK, "--epochs=1"],
    "convert": [f"--model={MODEL}", "--precision=int8", "--output={new}.tflite"],
    "micro": [f"--model={MODEL}", "--output={new}"],
    "evaluate": [f"--model={MODEL}", "--examples=10"],
}
# Cases that are about what is missing do without the defaults.
BARE = {("convert", "no model")}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files and folders that are not what they should be; {new} does not exist."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").write_text("mine")
    for name in ("folder", "folder_of_files", "other_run", "damaged_run", "damaged_checkpoint"):
        (folder / name).mkdir()
    (folder / "folder_of_files" / "file").write_text("mine")
    (folder / "other_run" / "flags.json").write_text(json.dumps({"density": 0.123}))
    (folder / "damaged_run" / "flags.json").write_text("{")
    (folder / "damaged_checkpoint" / "checkpoint.safetensors").write_bytes(b"\xff" * 99)
    (folder / "odd_recipe").write_text("--epochs=1\n--frobnicate=2\n")
    for suffix in ("keras", "tflite", "safetensors", "npz"):
        (folder / f"noise.{suffix}").write_bytes(bytes(range(256)))
    (folder / "empty.keras").write_bytes(b"")
    image, other = keras.Input((28, 28, 1)), keras.Input((28, 28, 1))
    flat = keras.layers.Flatten()(keras.layers.Add()([image, other]))
    keras.Model([image, other], keras.layers.Dense(10)(flat)).save(folder / "two_inputs.keras")
    flat = keras.layers.Flatten()(image)
    keras.Model(image, keras.layers.Dense(3)(flat)).save(folder / "three.keras")
    guess = keras.layers.Dense(10)
    ten = guess(flat)
    guess.set_weights([np.zeros((784, 10)), np.eye(10)[1]])  # a class that is not frequent
    keras.Model(image, ten).save(folder / "ten.keras")
    keras.Model(image, keras.layers.Softmax()(ten), name="probable").save(folder / "softmax.keras")
    shutil.copy(folder / "three.keras", folder / "escaping.keras")
    _rename_in_zip(folder / "escaping.keras")
    return folder


def _rename_in_zip(path):
    """Gives the first member of a zip file a name of equal length outside its folder."""
    content = path.read_bytes()
    assert content.count(b"metadata.json") == 2
    path.write_bytes(content.replace(b"metadata.json", b"../../ata.jsn"))


@pytest.fixture(scope="module")
def results(places, data_dir, tfsparse):
    """{(command, case): its `Result`}, and what the folder held before and after all of them."""
    before = listing(places)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        fewer_images(patch)
        for command, cases in CASES.items():
            for name, (arguments, _, _) in cases.items():
                defaults = [] if (command, name) in BARE else DEFAULTS.get(command, [])
                if command in ("train", "convert", "evaluate") and defaults:
                    defaults = [*defaults, f"--data_dir={data_dir}"]
                arguments = [_place(each, places, name) for each in [*defaults, *arguments]]
                found[command, name] = tfsparse(command, *arguments)
    return found, before, listing(places)


def _place(argument, places, case):
    flag, equals, value = argument.partition("=")
    if not value.startswith("{"):
        return argument
    name, _, rest = value[1:].partition("}")
    name = f"new/{case}" if name == "new" else name
    return f"{flag}{equals}{places / name}{rest}"


def listing(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else "folder"
        for path in pathlib.Path(folder).rglob("*")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, cases in CASES.items() for name in cases]
)
def test_one_line_that_names_it(results, command, name):
    status, stdout, stderr = results[0][command, name]
    _, expected, named = CASES[command][name]
    assert status == expected, stderr
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert named in lines[0]
    assert len(lines[0]) < 600
    if name != "loss that diverges":
        assert stdout == ""


@pytest.mark.slow
def test_nothing_is_written(results):
    _, before, after = results
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # A run that diverges in training has begun: its recipe is there.
    begun = {path for path in changed if path.startswith("new/loss that diverges/")}
    assert changed - begun == {"new", "new/loss that diverges"}
    assert not [path for path in begun if "partial" in path or path.endswith(".keras")]
