"""Trains the networks of data/queue.csv at the papers' width, as many as time allows.

    python -m studies queue --seconds=600 --workdir=runs/queue --parallel=2

Each row is a network with its seeds. All first seeds come before all second ones, in the order of
the table, which has the most valuable rows first. A row whose flags name another one in braces, as
the teacher that it learns from, begins when the first seed of that row is done. Narrow networks
(w14, w43, ...) are the dense baselines of about equal weights: at 5 % and 10 %, and of PS4_P4,
PSD2_P8, PSD1_P16, and ResNet14's PS3_P3_F1.

A network that was trained robustly is then attacked by PGD-50 with 2 restarts on the first 1,000
test images; the results are robust.json in the folder of its run.

When the seconds are over, runs that are not done save a checkpoint and end; the same command
continues them before it begins others. The backend is the one that Keras uses: without TensorFlow,
run `train.py` with a finished folder's flags again where TensorFlow is, and it converts and
reports. `python -m studies full_width` records what the runs reached.
"""

import json
import os
import pathlib
import re
import shlex
import signal
import string
import subprocess
import sys
import time
from typing import NamedTuple

from absl import flags

from studies import ROOT, records
from tfsparse import tables
from tfsparse.errors import UsageError

SAVING_SECONDS = 20  # that runs have to save what they have done, of --seconds
# As `zoo.figures` attacks models for their cards.
ATTACK = "--attacks=pgd --steps=50 --restarts=2 --examples=1000 --batch_size=250"
ROBUST = "robust.json"
POLLING_SECONDS = 0.2

FLAGS = flags.FLAGS


class Job(NamedTuple):
    """A network, its seed, train.py's flags, and the folder of the run."""

    name: str
    seed: int
    arguments: list
    folder: pathlib.Path
    needs: list  # pathlib.Paths of the runs that it learns from

    @property
    def command(self):
        """What comes next, the arguments of Python; None if the job is done."""
        report = self.folder / "report.json"
        if not report.exists():
            return ["train.py", *self.arguments]
        loss = json.loads(report.read_text(encoding="utf-8"))["recipe"]["loss"]
        if loss == "standard" or (self.folder / ROBUST).exists():
            return None
        attack = ["-m", "zoo.commands", "evaluate", *ATTACK.split()]
        return [*attack, f"--model={self.folder / 'model.keras'}", f"--json={self.folder / ROBUST}"]

    @property
    def is_done(self):
        return self.command is None

    @property
    def is_due(self):
        return all((folder / "model.keras").exists() for folder in self.needs)

    @property
    def epochs_done(self):
        history = self.folder / "history.csv"
        return len(history.read_text().splitlines()) - 1 if history.exists() else 0


def define_flags():
    flags.DEFINE_float("seconds", None, "When to stop.", lower_bound=1, required=True)
    flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of TFDS's data.")
    flags.DEFINE_string("dataset", None, "Data set of all runs, instead of the recipes'.")
    flags.DEFINE_integer("parallel", 1, "Runs at a time, which share a GPU.", lower_bound=1)
    flags.DEFINE_list("rows", None, "Rows to run; by default all.")


def main():
    end = time.monotonic() + FLAGS.seconds
    waiting = jobs(records.read_csv("queue"), pathlib.Path(FLAGS.workdir).resolve())
    run([job for job in waiting if not job.is_done], FLAGS.parallel, end)
    print(table(waiting))
    failed = [job.folder.name for job in waiting if not job.is_done and status(job) == "failed"]
    if failed:
        raise UsageError(f"These runs failed: {', '.join(failed)}. Each folder has a log.txt.")


def jobs(rows, workdir):
    """Returns the `Job`s of the rows of data/queue.csv, in the order in which they are due.

    Raises:
        UsageError: if --rows names one that is not there, or leaves out one that another needs.
    """
    names = [row["row"] for row in rows]
    for name in FLAGS.rows or ():
        if name not in names:
            raise UsageError(f"--rows are some of {', '.join(names)}. Received: {name}")
    rest = [f"--data_dir={pathlib.Path(FLAGS.data_dir).resolve()}"] if FLAGS.data_dir else []
    rest += [f"--dataset={FLAGS.dataset}"] if FLAGS.dataset else []
    first = {row["row"]: workdir / f"{row['row']}_seed{row['seeds'].split()[0]}" for row in rows}
    found = []
    for row in rows:
        needed = [name for _, name, _, _ in string.Formatter().parse(row["flags"]) if name]
        own_flags = [flag.format_map(first) for flag in shlex.split(row["flags"])]
        for seed in map(int, row["seeds"].split()):
            folder = workdir / f"{row['row']}_seed{seed}"
            own = [f"--seed={seed}", f"--workdir={folder}"]
            arguments = [*own_flags, *rest, *own]
            needs = [first[name] for name in needed]
            found.append(Job(row["row"], seed, arguments, folder, needs))
    wanted = [job for job in found if not FLAGS.rows or job.name in FLAGS.rows]
    made = {job.folder for job in wanted}
    for job in wanted:
        for folder in job.needs:
            if folder not in made and not (folder / "model.keras").exists():
                raise UsageError(
                    f"{job.name} learns from {folder.name}, which is not done. Add its row to "
                    f"--rows. Received: {','.join(FLAGS.rows)}"
                )
    return sorted(wanted, key=lambda job: job.seed)  # stable: in the order of the table


def run(waiting, parallel, end):
    """Runs jobs, `parallel` at a time, to their ends or until `end`, a time of time.monotonic."""
    waiting, running = list(waiting), {}
    try:
        while (waiting or running) and time.monotonic() < end - SAVING_SECONDS:
            due = [job for job in waiting if job.is_due]
            if not due and not running:
                return  # the others need runs that failed or are not among --rows
            for job in due[: parallel - len(running)]:
                waiting.remove(job)
                print(f"{job.folder.name} from epoch {job.epochs_done + 1}", flush=True)
                running[job.folder] = job, start(job)
            for folder, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[folder]
                    if process.returncode == 0 and not job.is_done:
                        running[folder] = job, start(job)
            time.sleep(POLLING_SECONDS)
    finally:
        for _, process in running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in running.values():
            try:
                process.wait(max(1.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()  # its last checkpoint is complete
                process.wait()


def start(job):
    """Starts what comes next; what it prints goes to log.txt in the folder of the run."""
    job.folder.mkdir(parents=True, exist_ok=True)
    # JAX would take most of a GPU's memory for its first process.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    with (job.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *job.command],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def status(job):
    """Returns what became of a job: "done", "stopped", "failed", or "waiting"."""
    log = job.folder / "log.txt"
    if job.is_done:
        return "done"
    if not log.exists():
        return "waiting"
    errors = re.findall(r"^error: (.*)$", log.read_text(errors="replace"), re.MULTILINE)
    return "failed" if errors and "stopped by" not in errors[-1] else "stopped"


def table(waiting):
    """Returns what became of each job, a table."""
    rows = [["network", "seed", "epochs", "status"]]
    rows += [[job.name, str(job.seed), str(job.epochs_done), status(job)] for job in waiting]
    return tables.aligned(rows)
