"""Does the memory of a training run stay constant? Runs train.py for hours and measures it.

    python -m studies soak --flags=zoo/recipes/NAME.cfg --workdir=runs/NAME

Runs `train.py` with a flag file, reads its resident memory from the operating system every few
seconds, and asks it to save and stop (SIGTERM) after --hours. Writes soak.json, soak.md and a
picture; fails if memory grows after the first epochs, whose allocations all others reuse. Linux
only.
"""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from studies import ROOT, recipe_runs, records
from tfsparse import machine
from tfsparse.errors import UsageError
from tfsparse.files import replacing

NAME = "soak"
SETTLED = 0.25  # of the time; memory may grow before
GROWTH = 0.05  # of the memory; more than that fails
SAMPLES = 10  # that a line is fitted to, at least
ENDED, STOPPED = 0, 128 + signal.SIGTERM  # what train.py returns

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("flags", None, "Flag file of train.py.", required=True)
    flags.DEFINE_string("workdir", None, "Folder of the run, which continues.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the TFDS data sets.")
    flags.DEFINE_float("hours", 2, "How long the run may take.", lower_bound=0)
    flags.DEFINE_float("seconds", 10, "Between two samples.", lower_bound=0.1)
    records.define_output()


def main():
    if not pathlib.Path("/proc/self/statm").exists():
        raise UsageError("Resident memory is read from /proc, which only Linux has.")
    workdir = pathlib.Path(FLAGS.workdir).resolve()  # train.py runs in the project's folder
    arguments = [f"--flagfile={pathlib.Path(FLAGS.flags).resolve()}", f"--workdir={workdir}"]
    if FLAGS.data_dir:
        arguments.append(f"--data_dir={pathlib.Path(FLAGS.data_dir).resolve()}")
    run = {"settings": {"flags": FLAGS.flags}, "machine": machine.facts()}
    run |= watch([sys.executable, "train.py", *arguments], FLAGS.seconds, 3600 * FLAGS.hours)
    run["epochs"] = len(recipe_runs.read_history(workdir))
    if run["status"] not in (ENDED, STOPPED):
        raise UsageError(f"train.py ended with status {run['status']}; nothing was written.")
    if len(run["seconds"]) < SAMPLES:
        raise UsageError(
            f"The run ended after {len(run['seconds'])} samples of its memory; {SAMPLES} are "
            "needed. Give a longer run or fewer --seconds."
        )
    runs = records.record(FLAGS.output, NAME, [run], page)
    path = pathlib.Path(FLAGS.output) / f"{NAME}.png"
    with replacing(path) as partial:
        picture(runs).savefig(partial, dpi=100)
    print(summary(run))
    if growth(run) > GROWTH:
        raise UsageError(f"Memory grew by {100 * growth(run):.1f} %; see {path}.")


def watch(command, interval, limit):
    """Returns {"seconds", "bytes", "status"}: when, and how much memory a process had.

    A process that takes longer than `limit` seconds is sent SIGTERM.
    """
    process = subprocess.Popen(command, cwd=ROOT)
    start, seconds, memory, asked = time.monotonic(), [], [], False
    while True:
        try:
            process.wait(interval)
            return {"seconds": seconds, "bytes": memory, "status": process.returncode}
        except subprocess.TimeoutExpired:
            now, elapsed = resident_bytes(process.pid), time.monotonic() - start
            if now:
                seconds.append(round(elapsed, 1))
                memory.append(now)
            if elapsed >= limit and not asked:  # a second signal would not let it save
                process.terminate()
                asked = True


def resident_bytes(pid):
    """Returns the memory that process `pid` holds, in bytes; 0 if it has just ended."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return 1024 * int(lines.get("VmRSS", "0 kB").split()[0])


def growth(run):
    """Returns the relative growth of memory after it had settled, by least squares.

    A slope times its duration: spikes, as when an epoch is evaluated, do not count.
    """
    seconds, memory = np.array(run["seconds"]), np.array(run["bytes"], np.float64)
    later = seconds >= SETTLED * seconds[-1]
    seconds, memory = seconds[later], memory[later]
    slope, _ = np.polyfit(seconds, memory, 1)
    return float(slope * (seconds[-1] - seconds[0]) / np.median(memory))


def page(runs):
    """Returns the Markdown page of all runs."""
    return records.fill(NAME, runs="\n\n".join(map(summary, runs)))


def summary(run):
    """Returns a line about one run."""
    facts, memory = run["machine"], np.array(run["bytes"])
    settled = memory[np.array(run["seconds"]) >= SETTLED * run["seconds"][-1]]
    return (
        f"`--flags={run['settings']['flags']}` ({facts['cpu']}, {facts['cores']} cores): "
        f"{run['seconds'][-1] / 3600:.1f} hours, {run['epochs']} epochs, {len(memory):,} samples: "
        f"median {np.median(settled) / 2**20:,.0f} MiB, maximum {memory.max() / 2**20:,.0f} MiB; "
        f"growth after the first quarter {100 * growth(run):+.1f} % (least squares)."
    )


def picture(runs):
    """Returns the figure of memory over time."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        axes.plot(np.array(run["seconds"]) / 60, np.array(run["bytes"]) / 2**20)
    axes.set(title="Memory of a training process", xlabel="time, minutes")
    axes.set(ylabel="resident memory, MiB", ylim=(0, None))
    axes.grid(alpha=0.3)
    return figure
