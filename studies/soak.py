"""Does training keep its memory? Runs train.py for hours and looks at what it takes.

    python -m studies.soak --flags=zoo/recipes/NAME.cfg --workdir=runs/NAME --output=docs

Runs `train.py` with a flag file, reads its resident memory from the operating system every few
seconds, and asks it to save and stop (SIGTERM) after --hours. Writes --output/soak.json, .md and a
picture; fails where memory grows after the first epochs, which allocate what all others use again.
Linux only.
"""

import csv
import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from tfsparse.errors import UsageError
from tfsparse.files import replacing, write_bytes
from zoo.commands import commandline

NAME = "soak"
ROOT = pathlib.Path(__file__).parents[1]
SETTLED = 0.25  # of the time; memory may grow before
GROWTH = 0.05  # of the memory; more than that fails
LOOKS = 10  # that a line is fitted to, at least
ENDED, STOPPED = 0, 128 + signal.SIGTERM  # what train.py returns

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("flags", None, "Flag file of train.py.", required=True)
    flags.DEFINE_string("workdir", None, "Folder of the run; continues it.", required=True)
    flags.DEFINE_string("output", None, "Folder for table, picture and JSON.", required=True)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_float("hours", 2, "How long the run may take.", lower_bound=0)
    flags.DEFINE_float("seconds", 10, "Between two looks.", lower_bound=0.1)


def main():
    if not pathlib.Path("/proc/self/statm").exists():
        raise UsageError("Resident memory is read from /proc, which only Linux has.")
    workdir = pathlib.Path(FLAGS.workdir).resolve()  # train.py runs in the project's folder
    arguments = [f"--flagfile={pathlib.Path(FLAGS.flags).resolve()}", f"--workdir={workdir}"]
    if FLAGS.data_dir:
        arguments.append(f"--data_dir={pathlib.Path(FLAGS.data_dir).resolve()}")
    report = {"flags": FLAGS.flags, "machine": machine.facts()}
    report |= watch([sys.executable, "train.py", *arguments], FLAGS.seconds, 3600 * FLAGS.hours)
    report["epochs"] = epochs_of(workdir)
    if report["status"] not in (ENDED, STOPPED):
        raise UsageError(f"train.py ended with status {report['status']}; nothing was written.")
    if len(report["seconds"]) < LOOKS:
        raise UsageError(
            f"The run ended after {len(report['seconds'])} looks at its memory; {LOOKS} are "
            "needed. Give a longer run or fewer --seconds."
        )
    output = pathlib.Path(FLAGS.output)
    write_bytes(output / f"{NAME}.json", json.dumps(report) + "\n")
    write_bytes(output / f"{NAME}.md", page(report))
    with replacing(output / f"{NAME}.png") as partial:
        picture(report).savefig(partial, dpi=100)
    print(page(report))
    if growth(report) > GROWTH:
        raise UsageError(f"Memory grew by {100 * growth(report):.1f} %; see {output}/{NAME}.png.")


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
    """Returns the memory that process `pid` holds, in bytes; 0 where it has just ended."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return 1024 * int(lines.get("VmRSS", "0 kB").split()[0])


def epochs_of(workdir):
    """Returns how many epochs the run in a folder has done."""
    path = pathlib.Path(workdir) / "history.csv"
    if not path.exists():
        return 0
    with open(path, newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def growth(report):
    """Returns by what part of itself memory grew after it had settled; least squares.

    A slope times the time it was seen for: spikes, as when an epoch is evaluated, do not count.
    """
    seconds, memory = np.array(report["seconds"]), np.array(report["bytes"], np.float64)
    later = seconds >= SETTLED * seconds[-1]
    seconds, memory = seconds[later], memory[later]
    slope, _ = np.polyfit(seconds, memory, 1)
    return float(slope * (seconds[-1] - seconds[0]) / np.median(memory))


def page(report):
    """Returns the Markdown page of a report as `main` makes it."""
    machine, memory = report["machine"], np.array(report["bytes"])
    settled = memory[np.array(report["seconds"]) >= SETTLED * report["seconds"][-1]]
    return (
        "# Memory over hours of training\n\n"
        f"From `python -m studies.soak --flags={report['flags']}`, {machine['cpu']}, "
        f"{machine['cores']} cores.\n\n"
        f"{report['seconds'][-1] / 3600:.1f} hours, {report['epochs']} epochs, {len(memory):,} "
        "looks: median "
        f"{np.median(settled) / 2**20:,.0f} MiB, most {memory.max() / 2**20:,.0f} MiB; after the "
        f"first quarter it grew by {100 * growth(report):+.1f} % (least squares).\n\n"
        f"![Resident memory over time]({NAME}.png)\n"
    )


def picture(report):
    """Returns the figure of memory over time."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.array(report["seconds"]) / 60, np.array(report["bytes"]) / 2**20)
    axes.set(xlabel="minutes", ylabel="resident memory, MiB", ylim=(0, None))
    axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
