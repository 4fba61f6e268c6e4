"""Is anything lost when a command is killed? Kills real commands and compares their results.

    python -m studies interruption --kills=20 --workdir=runs/interruption

Runs training, evaluation and conversion once without interruption, then kills them at random
moments, by SIGKILL and SIGTERM in turn, and starts the same command again until it ends; repeats
that for the given number of kills. The results have to be equal to the bit. Writes
interruption.json and interruption.md; fails if a bit differs.
"""

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

from studies import ROOT, TFSPARSE, recipe_runs, records
from tfsparse import machine, tables
from tfsparse.errors import UsageError

NAME = "interruption"
MODEL = "--model=resnet8_dnr10_fashion_mnist_small"
SIGNALS = (signal.SIGKILL, signal.SIGTERM)

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_integer("kills", 20, "Least number of kills of each command.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Fixes the moments of the kills.")
    flags.DEFINE_string("workdir", None, "A new or empty folder.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the TFDS data sets.")
    records.define_output()


def main():
    workdir = pathlib.Path(FLAGS.workdir)
    if workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"--workdir must be new or empty. Received: {workdir}")
    commands = {
        name: compare(name, workdir / name, FLAGS.kills, FLAGS.seed, FLAGS.data_dir)
        for name in COMMANDS
    }
    settings = {"kills": FLAGS.kills, "seed": FLAGS.seed}
    run = {"settings": settings, "machine": machine.facts(), "commands": commands}
    records.record(FLAGS.output, NAME, [run], page)
    print(table(run))
    different = {name: found["different"] for name, found in commands.items()}
    if any(different.values()):
        raise UsageError(f"Commands that were killed ended differently: {different}.")


# ---- the commands, and their results: {name: array, bytes or text} ----


def train(folder):
    """A checkpoint after every step, so that kills hit the writing of checkpoints, too."""
    return [
        *(sys.executable, "train.py", "--flagfile=zoo/recipes/quickstart.cfg", "--epochs=2"),
        *("--width=8", "--deterministic", "--checkpoint_minutes=0", f"--workdir={folder}"),
    ]


def trained(folder):
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    found = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    for row in recipe_runs.read_history(folder):
        found |= {f"{key}, epoch {row['epoch']}": row[key] for key in row if key != "seconds"}
    return found


def evaluate(folder):
    return [
        *(*TFSPARSE, "evaluate", MODEL, "--attacks=fgsm,pgd,gaussian,random", "--steps=10"),
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
    output = f"--output={folder / 'model.tflite'}"
    return [*TFSPARSE, "convert", MODEL, "--precision=int8", output]


def converted(folder):
    return {"model.tflite": (folder / "model.tflite").read_bytes()}


COMMANDS = {
    "training": (train, trained),
    "evaluation": (evaluate, evaluated),
    "conversion": (convert, converted),
}


# ---- killing and comparing ----


def compare(name, workdir, kills, seed, data_dir=None):
    """Returns the kills, the runs, and which results differ from those without interruption.

    Args:
        name: a key of `COMMANDS`.
        workdir: folder for what the runs write.
        kills: how many, at least.
        seed: of the moments.
        data_dir: folder of the TFDS data sets.

    Raises:
        UsageError: if a run fails that was not killed.
    """
    command, results = COMMANDS[name]
    workdir, rest = workdir.resolve(), [f"--data_dir={data_dir}"] if data_dir else []
    start = time.monotonic()
    run([*command(workdir / "uninterrupted"), *rest])
    duration = time.monotonic() - start
    expected = results(workdir / "uninterrupted")
    rng = np.random.default_rng(seed)
    moments, different, runs = [], [], 0
    with tqdm.tqdm(total=kills, desc=f"kills of {name}", disable=None) as bar:
        while len(moments) < kills:
            folder = workdir / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            after = rng.uniform(0, duration)
            while run([*command(folder), *rest], signal_of(len(moments)), after):
                moments.append({"signal": signal_of(len(moments)).name, "seconds": round(after, 2)})
                bar.update()
                after = rng.uniform(0, duration) if len(moments) < kills else None
            runs += 1
            found = results(folder)
            different += [key for key in expected if not same(found.get(key), expected[key])]
    return {
        "kills": moments,
        "runs": runs,
        "uninterrupted_seconds": round(duration, 1),
        "compared": len(expected),
        "different": different,
    }


def signal_of(kill):
    """Returns the signal of a kill, counted from 0: they take turns, whichever run they hit."""
    return SIGNALS[kill % len(SIGNALS)]


def run(command, number=None, after=None):
    """Runs a command; returns whether it was killed by signal `number` after `after` seconds."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, errors = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        _, errors = process.communicate()
        if process.returncode in (-number, 128 + number):
            return True
    if process.returncode:
        raise UsageError(f"{command} ended with status {process.returncode}: {errors[-300:]}")
    return False


def same(found, expected):
    """Returns whether two results are equal to the bit."""
    if isinstance(expected, np.ndarray):
        return found is not None and found.tobytes() == expected.tobytes()
    return found == expected


# ---- the page ----


def table(run):
    """Returns the Markdown table of one run."""
    commands, facts = run["commands"], run["machine"]
    signals = [kill["signal"] for found in commands.values() for kill in found["kills"]]
    header = "command|uninterrupted|kills|complete runs|results compared|different"
    rows = [
        [
            name,
            f"{found['uninterrupted_seconds']:.0f} s",
            len(found["kills"]),
            found["runs"],
            found["compared"],
            f"**{len(found['different'])}**",
        ]
        for name, found in commands.items()
    ]
    return (
        f"**--kills={run['settings']['kills']}** ({facts['cpu']}, {facts['cores']} cores): "
        f"{len(signals)} kills at random moments ({signals.count('SIGKILL')} SIGKILL, "
        f"{signals.count('SIGTERM')} SIGTERM), each followed by the same command.\n\n"
    ) + tables.markdown(header.split("|"), rows)


page = records.page_of_tables(NAME, table)
