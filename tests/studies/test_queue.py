"""Runs that share a time budget: their order, and how they go on; these runs only count."""

import subprocess
import sys

import pytest
from absl import flags

import train  # noqa: F401 (defines its flags)
from studies import queue, records
from tests.conftest import ROOT
from tfsparse import UsageError
from zoo import train_flags

# Counts to 20 epochs in history.csv, some of them a call; then it writes model.keras and a report.
COUNT = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: stopped by SIGTERM; it continues"))
folder = pathlib.Path(sys.argv[1])
path = folder / "history.csv"
if "broken" in folder.name:
    sys.exit("error: The loss is nan at step 3.")
if not path.exists():
    path.write_text("epoch\\n")
while path.read_text().count("\\n") <= 20:
    time.sleep(float(sys.argv[2]))
    with path.open("a") as file:
        file.write("1\\n")
(folder / "model.keras").touch()
loss = "hybrid" if "robust" in folder.name else "standard"
(folder / "report.json").write_text('{"recipe": {"loss": "%s"}}' % loss)
"""
ATTACK = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"


@pytest.fixture
def start_queue(monkeypatch, tmp_path):
    """Returns a function that runs the queue of two rows for some seconds."""

    def start_queue(seconds, pause, parallel=1, rows="a b"):
        def start(job):
            job.folder.mkdir(parents=True, exist_ok=True)
            started.append(job.folder.name)
            with (job.folder / "log.txt").open("ab") as log:
                command = [sys.executable, "-c", COUNT, str(job.folder), str(pause)]
                if "evaluate" in job.command:
                    started[-1] += " attacked"
                    command = [sys.executable, "-c", ATTACK, str(job.folder / queue.ROBUST)]
                return subprocess.Popen(command, stdout=log, stderr=log)

        started = []
        monkeypatch.setattr(queue, "start", start)
        monkeypatch.setattr(queue, "SAVING_SECONDS", 0.5)
        monkeypatch.setattr(queue, "POLLING_SECONDS", 0.01)
        table = [
            {"row": row, "flags": f"--teacher={{{needs}}}" if needs else "", "seeds": "0 1"}
            for row, _, needs in (each.partition(":") for each in rows.split())
        ]
        monkeypatch.setattr(records, "read_csv", lambda name: table)
        values = {"seconds": seconds, "workdir": str(tmp_path), "parallel": parallel}
        names = {**values, "rows": None, "data_dir": None, "dataset": None}
        monkeypatch.setattr(queue, "FLAGS", type("Flags", (), names))
        queue.main()
        return started

    return start_queue


@pytest.mark.parametrize("parallel", [1, 3])
def test_all_first_seeds_come_first(start_queue, parallel, capsys):
    expected = ["a_seed0", "b_seed0", "a_seed1", "b_seed1"]
    assert start_queue(60, 0, parallel) == expected
    assert capsys.readouterr().out.count(" 20    done") == 4
    assert start_queue(60, 0) == []  # all are done


def test_a_run_that_was_stopped_goes_on(start_queue, capsys):
    assert start_queue(4, 0.25) == ["a_seed0"]
    assert "stopped" in capsys.readouterr().out
    found = start_queue(60, 0)
    assert found == ["a_seed0", "b_seed0", "a_seed1", "b_seed1"]
    printed = capsys.readouterr().out
    assert "a_seed0 from epoch 1\n" not in printed
    assert printed.count(" 20    done") == 4


def test_a_run_that_fails_is_named_and_the_others_go_on(start_queue, capsys):
    with pytest.raises(UsageError, match="runs failed: broken_seed0, broken_seed1"):
        start_queue(60, 0, rows="broken a")
    assert capsys.readouterr().out.count(" 20    done") == 2


def test_a_robust_network_is_attacked(start_queue, capsys):
    first = ["robust_seed0", "robust_seed0 attacked", "a_seed0"]
    assert start_queue(60, 0, rows="robust a")[:3] == first
    assert capsys.readouterr().out.count(" 20    done") == 4
    assert start_queue(60, 0, rows="robust a") == []


def test_a_student_waits_for_its_teacher(start_queue, capsys):
    first = ["a_seed0", "b_seed0", "student_seed0"]
    second = ["student_seed1", "a_seed1", "b_seed1"]  # in the order of the table
    assert start_queue(60, 0, rows="student:b a b") == first + second
    assert capsys.readouterr().out.count(" 20    done") == 6


def test_a_student_of_a_teacher_that_fails_waits(start_queue, capsys):
    with pytest.raises(UsageError, match="runs failed: broken_seed0, broken_seed1"):
        start_queue(60, 0, rows="student:broken broken")
    assert capsys.readouterr().out.count("waiting") == 2


def test_a_student_without_its_teacher_is_refused(monkeypatch, tmp_path):
    """And a folder's name may have spaces."""
    names = {"rows": ["resnet8_distilled"], "data_dir": None, "dataset": None}
    monkeypatch.setattr(queue, "FLAGS", type("Flags", (), names))
    workdir = tmp_path / "my runs"
    with pytest.raises(UsageError, match="resnet8_distilled learns from resnet18_seed0, which"):
        queue.jobs(records.read_csv("queue"), workdir)
    teacher = workdir / "resnet18_seed0"
    teacher.mkdir(parents=True)
    (teacher / "model.keras").touch()
    for job in queue.jobs(records.read_csv("queue"), workdir):
        assert f"--teacher={teacher}" in job.arguments


def test_rows_are_accepted_by_train(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    names = {"rows": None, "data_dir": "data", "dataset": None}
    monkeypatch.setattr(queue, "FLAGS", type("Flags", (), names))
    found = queue.jobs(records.read_csv("queue"), tmp_path)
    assert len({job.folder for job in found}) == len(found)
    for job in found:
        flags.FLAGS(["train.py", *job.arguments])
        train_flags.check(flags.FLAGS)
        assert flags.FLAGS.batch_size == 256
        assert flags.FLAGS.workdir == str(job.folder)
        flags.FLAGS.unparse_flags()
    monkeypatch.setattr(queue.FLAGS, "rows", ["resnet19"], raising=False)
    with pytest.raises(UsageError, match=r"--rows are some of resnet18, .*: resnet19"):
        queue.jobs(records.read_csv("queue"), tmp_path)
