"""Is anything lost when a command is killed? Kills real ones again and again and compares the ends.

    python -m studies.interruption --kills=20 --workdir=runs/interruption --output=docs

Runs training, evaluation and conversion once in peace, and again killed at random moments by
SIGKILL and SIGTERM in turn and started with the same command; each as often as it takes for so many
kills. What they write has to be the same to the bit. Writes --output/interruption.json and .md;
fails where a bit differs.
"""

import csv
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import tqdm
from absl import flags
from safetensors.numpy import load_file

from tfsparse.errors import UsageError
from tfsparse.files import write_bytes
from zoo.commands import commandline

NAME = "interruption"
ROOT = pathlib.Path(__file__).parents[1]
MODEL = "--model=resnet8_dnr10_fashion_mnist_small"
SIGNALS = (signal.SIGKILL, signal.SIGTERM)

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_integer("kills", 20, "Of each command, at least so many.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Fixes when commands are killed.")
    flags.DEFINE_string("workdir", None, "A folder that is new or empty.", required=True)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_string("output", None, "Folder for table and JSON.")


def main():
    workdir = pathlib.Path(FLAGS.workdir)
    if workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"--workdir must be new or empty. Received: {workdir}")
    commands = {
        name: compare(name, workdir / name, FLAGS.kills, FLAGS.seed, FLAGS.data_dir)
        for name in COMMANDS
    }
    report = {"commands": commands, "machine": machine.facts()}
    print(page(report))
    if FLAGS.output:
        output = pathlib.Path(FLAGS.output)
        write_bytes(output / f"{NAME}.json", json.dumps(report, indent=2) + "\n")
        write_bytes(output / f"{NAME}.md", page(report))
    different = {name: found["different"] for name, found in commands.items()}
    if any(different.values()):
        raise UsageError(f"Commands that were killed ended differently: {different}.")


# ---- What is killed, and what it has to end with: {name: array, bytes or text} ----


def train(folder):
    """A checkpoint after every step, so that kills fall into the writing of one, too."""
    return [
        *("train.py", "--flagfile=zoo/recipes/quickstart.cfg", "--epochs=2", "--width=8"),
        *("--deterministic", "--checkpoint_minutes=0", f"--workdir={folder}"),
    ]


def trained(folder):
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    found = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found |= {f"{key}, epoch {row['epoch']}": row[key] for key in row if key != "seconds"}
    return found


def evaluate(folder):
    return [
        *("-m", "zoo.evaluate", MODEL, "--attacks=fgsm,pgd,gaussian,random", "--steps=10"),
        *("--examples=400", "--batch_size=20", f"--json={folder / 'results.json'}"),
    ]


def evaluated(folder):
    report = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    accuracies = {name: repr(found["accuracy"]) for name, found in report["results"].items()}
    return accuracies | {
        f"{name}, image by image": array
        for name, array in load_file(folder / "results.safetensors").items()
        if "seconds" not in name
    }


def convert(folder):
    return [
        *("-m", "tflite.convert", MODEL, "--precision=int8"),
        f"--output={folder / 'model.tflite'}",
    ]


def converted(folder):
    return {"model.tflite": (folder / "model.tflite").read_bytes()}


COMMANDS = {
    "training": (train, trained),
    "evaluation": (evaluate, evaluated),
    "conversion": (convert, converted),
}


# ---- Killing and comparing ----


def compare(name, workdir, kills, seed, data_dir=None):
    """Returns what happened: kills by moment, runs, and in what they differ from the peaceful one.

    Args:
        name: a key of `COMMANDS`.
        workdir: folder for what the runs write.
        kills: how many, at least.
        seed: of the moments.
        data_dir: where TFDS keeps its data.

    Raises:
        UsageError: where a run fails that was not killed.
    """
    command, outcome = COMMANDS[name]
    workdir, rest = workdir.resolve(), [f"--data_dir={data_dir}"] if data_dir else []
    start = time.monotonic()
    run([*command(workdir / "peace"), *rest])
    duration = time.monotonic() - start
    expected = outcome(workdir / "peace")
    rng = np.random.default_rng(seed)
    moments, different, runs = [], [], 0
    with tqdm.tqdm(total=kills, desc=f"kills of {name}", disable=None) as bar:
        while len(moments) < kills:
            folder = workdir / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            number, after = SIGNALS[0], rng.uniform(0, duration)
            while run([*command(folder), *rest], number, after):
                moments.append({"signal": number.name, "seconds": round(after, 2)})
                bar.update()
                number = SIGNALS[len(moments) % len(SIGNALS)]
                after = rng.uniform(0, duration) if len(moments) < kills else None
            runs += 1
            found = outcome(folder)
            different += [key for key in expected if not same(found.get(key), expected[key])]
    return {
        "kills": moments,
        "runs": runs,
        "seconds_in_peace": round(duration, 1),
        "compared": len(expected),
        "different": different,
    }


def run(arguments, number=None, after=None):
    """Runs Python; returns whether it was killed by signal `number`, `after` so many seconds."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, errors = process.communicate()
        if process.returncode in (-number, 128 + number):
            return True
    if process.returncode:
        raise UsageError(f"{arguments} ended with status {process.returncode}: {errors[-300:]}")
    return False


def same(found, expected):
    if isinstance(expected, np.ndarray):
        return found is not None and found.tobytes() == expected.tobytes()
    return found == expected


def page(report):
    """Returns the Markdown page of what `main` collects."""
    commands, machine = report["commands"], report["machine"]
    kills = [kill["signal"] for found in commands.values() for kill in found["kills"]]
    rows = "".join(
        f"| {name} | {found['seconds_in_peace']:.0f} s | {len(found['kills'])} | {found['runs']} | "
        f"{found['compared']} | **{len(found['different'])}** |\n"
        for name, found in commands.items()
    )
    each = min(len(found["kills"]) for found in commands.values())
    return (
        "# Commands that are killed\n\n"
        f"From `python -m studies.interruption --kills={each}` ({machine['cpu']}, "
        f"{machine['cores']} cores): {len(kills)} kills at random moments "
        f"({kills.count('SIGKILL')} SIGKILL, {kills.count('SIGTERM')} SIGTERM), each followed by "
        "the same command. *Training* is ResNet8 of width 8 on the bundled images, two epochs with "
        "DNR and adversarial examples; *evaluation* is four attacks on a shipped model, "
        "*conversion* that model's int8 file. What they end with is compared, to the bit, with "
        "what the same command ends with in peace: weights and history, accuracies and results "
        "image by image, the file.\n\n"
        "| command | in peace | kills | runs to their end | compared | different |\n"
        "|---|---|---|---|---|---|\n" + rows
    )


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
