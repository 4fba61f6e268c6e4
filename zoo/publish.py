"""Makes a zoo model of a finished training run: `python -m zoo.publish --workdir=W --name=N`."""

import hashlib
import json
import pathlib

from zoo import environment

if __name__ == "__main__":
    environment.prepare()

import keras
from absl import flags

from tfsparse import commandline, cost, packed, pruning
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of a finished run of train.py.", required=True)
flags.DEFINE_string("name", None, "Name of the model in the zoo.", required=True)
flags.DEFINE_string("note", "", "What a user of the figures must know, such as the data's form.")

_COPIED = (
    "dataset",
    "image_size",
    "class_names",
    "recipe",
    "clean_accuracy",
    "clean_examples",
    "robust_accuracy",
    "robust_attack",
    "robust_examples",
    "density",
    "parameters",
    "nonzero_parameters",
    "macs",
    "nonzero_macs",
    "dense_parameters",
    "dense_macs",
    "int8",
    "epochs",
    "seconds_per_epoch",
    "seed",
    "hardware",
    "versions",
)


def main():
    workdir = pathlib.Path(FLAGS.workdir)
    try:
        report = json.loads((workdir / "report.json").read_text(encoding="utf-8"))
        model = keras.saving.load_model(workdir / "model.keras", compile=False)
        tflite = (workdir / "model_int8.tflite").read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--workdir must be the folder of a finished run. Received: {workdir} ({error})"
        ) from error
    zoo = pathlib.Path(__file__).parent
    weights = zoo / "weights" / f"{FLAGS.name}.safetensors"
    int8 = zoo / "weights" / f"{FLAGS.name}_int8.tflite"
    copied = {key: report[key] for key in _COPIED}  # before anything is written
    packed.save_weights(model, weights)
    if report["recipe"]["structure"] == "channel":  # zoo.load removes them
        spent = cost.model_cost(pruning.remove_channels(model))
        copied |= {"parameters": spent.parameters, "nonzero_parameters": spent.nonzeros}
        copied |= {"macs": spent.macs, "nonzero_macs": spent.nonzero_macs}
    write_bytes(int8, tflite)
    card = {
        "name": FLAGS.name,
        "note": FLAGS.note,
        "licence": "Apache-2.0",
        "model": report["model"],
        "weights": _entry(weights),
        "tflite": _entry(int8),
        **copied,
    }
    write_bytes(zoo / "cards" / f"{FLAGS.name}.json", json.dumps(card, indent=2) + "\n")
    print(f"published {FLAGS.name}: {weights.stat().st_size:,} bytes of weights")


def _entry(path):
    content = path.read_bytes()
    return {
        "file": path.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


if __name__ == "__main__":
    commandline.run(main)
