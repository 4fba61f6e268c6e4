"""Is anything lost when training is killed? Kills a real run again and again and compares the ends.

    python -m zoo.studies.interruption --kills=20 --workdir=runs/interruption --output=docs

Trains the quick start's network, smaller and for two epochs, once in peace, and again killed at
random moments by SIGKILL and SIGTERM in turn and started with the same command; as often as it
takes for so many kills. The weights, of which masks are the zeros, and the history have to be the
same to the bit. Writes --output/interruption.json and .md; fails where a bit differs.
"""

import csv
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from zoo import environment

if __name__ == "__main__":
    environment.prepare()

import keras
import numpy as np
import tqdm
from absl import flags

from tfsparse import commandline, timing
from tfsparse.errors import UsageError
from tfsparse.files import write_bytes

NAME = "interruption"
ROOT = pathlib.Path(__file__).parents[2]
# A checkpoint after every step, so that kills fall into the writing of one, too.
RUN = [
    *("--flagfile=zoo/recipes/quickstart.cfg", "--epochs=2", "--width=8"),
    *("--deterministic", "--checkpoint_minutes=0"),
]
SIGNALS = (signal.SIGKILL, signal.SIGTERM)

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_integer("kills", 20, "So many, at least.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Fixes when runs are killed.")
    flags.DEFINE_string("workdir", None, "A folder that is new or empty.", required=True)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_string("output", None, "Folder for table and JSON.")


def main():
    workdir = pathlib.Path(FLAGS.workdir)
    if workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"--workdir must be new or empty. Received: {workdir}")
    report = compare(workdir, FLAGS.kills, FLAGS.seed, FLAGS.data_dir)
    print(page(report))
    if FLAGS.output:
        write_bytes(
            pathlib.Path(FLAGS.output) / f"{NAME}.json", json.dumps(report, indent=2) + "\n"
        )
        write_bytes(pathlib.Path(FLAGS.output) / f"{NAME}.md", page(report))
    if report["different"]:
        raise UsageError(f"Runs that were killed ended differently: {report['different']}.")


def compare(workdir, kills, seed, data_dir=None):
    """Returns what happened: kills by moment, runs, and in what they differ from the peaceful one.

    Raises:
        UsageError: where a run fails that was not killed.
    """
    start = time.monotonic()
    run(workdir / "peace", data_dir)
    duration = time.monotonic() - start
    expected = outcome(workdir / "peace")
    rng = np.random.default_rng(seed)
    moments, different, runs = [], [], 0
    with tqdm.tqdm(total=kills, desc="kills", disable=None) as bar:
        while len(moments) < kills:
            folder = workdir / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            while not (folder / "report.json").exists():
                number = SIGNALS[len(moments) % len(SIGNALS)]
                after = rng.uniform(0, duration) if len(moments) < kills else None
                if run(folder, data_dir, number, after):
                    moments.append({"signal": number.name, "seconds": round(after, 2)})
                    bar.update()
            runs += 1
            found = outcome(folder)
            different += [name for name in expected if not same(found.get(name), expected[name])]
    return {
        "kills": moments,
        "runs": runs,
        "seconds_in_peace": round(duration, 1),
        "compared": len(expected),
        "different": different,
        "machine": timing.processor(),
    }


def run(folder, data_dir, number=None, after=None):
    """Runs train.py; returns whether it was killed by signal `number`, `after` so many seconds."""
    arguments = [*RUN, f"--workdir={folder.resolve()}"]
    if data_dir:
        arguments.append(f"--data_dir={data_dir}")
    process = subprocess.Popen(
        [sys.executable, "train.py", *arguments],
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
        raise UsageError(f"train.py ended with status {process.returncode}: {errors[-300:]}")
    return False


def outcome(folder):
    """Returns {name: array or text} of all that a run has to end with."""
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    found = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found |= {f"{key}, epoch {row['epoch']}": row[key] for key in row if key != "seconds"}
    return found


def same(found, expected):
    if isinstance(expected, str):
        return found == expected
    return found is not None and found.tobytes() == expected.tobytes()


def page(report):
    """Returns the Markdown page of what `compare` returned."""
    counts = {
        name.name: sum(kill["signal"] == name.name for kill in report["kills"]) for name in SIGNALS
    }
    machine = report["machine"]
    return (
        "# Runs that are killed\n\n"
        f"From `python -m zoo.studies.interruption --kills={len(report['kills'])}`: ResNet8 of "
        f"width 8 on the bundled images, two epochs with DNR and adversarial examples, "
        f"{report['seconds_in_peace']:.0f} s in peace ({machine['cpu']}, {machine['cores']} "
        f"cores).\n\n"
        f"{len(report['kills'])} kills at random moments ({counts['SIGKILL']} SIGKILL, "
        f"{counts['SIGTERM']} SIGTERM), {report['runs']} runs to their end; "
        f"{report['compared']} weights and entries of the history compared with those of the run "
        f"that was not killed: **{len(report['different'])} differ**.\n"
    )


if __name__ == "__main__":
    define_flags()
    commandline.run(main)
