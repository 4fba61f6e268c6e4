"""Makes a zoo model of a finished training run.

python -m zoo.publish --workdir=runs/mine --name=NAME
python -m zoo.verify NAME --autoattack --write  # adds AutoAttack to its card
"""

import json
import pathlib
import re

from absl import flags

from tflite import file_metadata
from tfsparse import pruning, save_weights
from tfsparse.errors import UsageError
from tfsparse.files import sha256_of, write_bytes
from tfsparse.hashing import hash_of_weights
from zoo import figures
from zoo.cards import NAME
from zoo.commands import commandline
from zoo.loading import find_dataset, find_model
from zoo.robustness.subjects import file_subject, model_subject

FLAGS = flags.FLAGS

_COPIED = (
    "dataset",
    "image_size",
    "class_names",
    "recipe",
    "epochs",
    "seconds_per_epoch",
    "seed",
    "hardware",
    "versions",
)
_INTENDED_USE = (
    "Research on sparse and robust networks, comparisons, teaching, and as a starting point for "
    "fine-tuning on other data."
)
_ROBUST = {
    "standard": "It is not robust to adversarial perturbations.",
    "hybrid": "It was trained to be robust to L_inf perturbations of up to {eps:.4g}/255; its "
    "results show how robust it is to these. Robustness to other perturbations was not measured.",
}
_LIMITS = (
    "The model recognizes only the classes of its data set, in images like those it was trained "
    "on; it assigns one of these classes to any other image, too. {robust} All figures are from a "
    "single training run; they vary with the seed. Do not rely on its predictions where people's "
    "safety is at stake."
)


def define_flags():
    flags.DEFINE_string("workdir", None, "Folder of a finished run of train.py.", required=True)
    flags.DEFINE_string("name", None, "Name of the model in the zoo.", required=True)
    flags.DEFINE_string("note", "", "What a user must know of the figures: the data's form.")
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps the data set.")


def main():
    workdir = pathlib.Path(FLAGS.workdir)
    publish(workdir, FLAGS.name, FLAGS.note, FLAGS.data_dir, pathlib.Path(__file__).parent)


def publish(workdir, name, note, data_dir, folder):
    """Makes the model `name` of the run in `workdir`: three files in folders of `folder`."""
    if not re.fullmatch(NAME, name, re.ASCII):
        raise UsageError(f"--name is of letters, digits, '.', '_' and '-'. Received: {name!r}")
    path = folder / "cards" / f"{name}.json"
    if path.exists():
        raise UsageError(
            f"{path} is there already. Remove it to replace {name}, or choose a --name."
        )
    model, content, report = read_run(workdir)
    if file_metadata.read(content).get("source_sha256") != hash_of_weights(model):
        raise UsageError(
            f"{workdir / 'model_int8.tflite'} was not made from the model.keras beside it. Run "
            "train.py again."
        )
    small = pruning.remove_channels(model) if report["recipe"]["structure"] == "channel" else model
    # All is measured before anything is written.
    card = {
        "name": name,
        "note": note,
        "license": "Apache-2.0",
        "intended_use": _INTENDED_USE,
        "limits": limits(report["recipe"]),
        "model": report["model"],
        **{key: report[key] for key in _COPIED},
        "hours": report["epochs"] * report["seconds_per_epoch"] / 3600,
        **measure(small, content, report, find_dataset(report, workdir, data_dir=data_dir)),
    }
    weights = folder / "weights" / f"{name}.safetensors.gz"
    int8 = folder / "weights" / f"{name}_int8.tflite"
    save_weights(model, weights)
    write_bytes(int8, content)
    card |= {"weights": _entry(weights), "tflite": _entry(int8)}
    write_bytes(path, json.dumps(card, indent=2) + "\n")
    print(f"published {name}: {weights.stat().st_size:,} bytes of weights")


def limits(recipe):
    """Returns what a card says a model is not good for, a str."""
    return _LIMITS.format(robust=_ROBUST[recipe["loss"]].format(eps=recipe["eps"] * 255))


def read_run(workdir):
    """Returns the Keras model, the bytes of the int8 file and the report of a finished run."""
    if not (workdir / "report.json").is_file():
        raise UsageError(f"--workdir must be the folder of a finished run. Received: {workdir}")
    model, report = find_model(str(workdir / "model.keras"))  # a folder may have a zoo model's name
    missing = {*_COPIED, "model", "int8"} - report.keys()
    if not missing and not report["int8"]["passed"]:
        raise UsageError(
            f"The int8 file of the run in {workdir} did not agree with its model, as train.py "
            "said, so that there is no file to publish."
        )
    content = None
    try:
        content = (workdir / "model_int8.tflite").read_bytes()
    except OSError as error:
        missing.add(str(error))
    if missing:
        raise UsageError(
            f"--workdir must be the folder of a finished run. Received: {workdir}, which lacks "
            f"{', '.join(sorted(missing))}"
        )
    return model, content, report


def measure(model, content, report, data):
    """Returns the card's figures of a run's model, as `zoo.load` will give it, and of its file."""
    subjects = model_subject("model", model), file_subject("file", content)
    quick = [name for name in figures.ACCURACIES if name not in figures.SLOW]
    return {
        "test_sha256": figures.hash_of_test_set(data),
        **figures.costs(model, report["model"]),
        "golden": figures.golden(model, content),
        "results": figures.accuracies(quick, *subjects, data, report["recipe"]["eps"]),
        "device": figures.on_device(report["model"], content, data),
    }


def _entry(path):
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
