"""Several replicas against one: the same weights, and what happens when a worker is lost."""

import contextlib
import json
import os
import signal
import socket
import sys
import time

import numpy as np
import pytest

from tests import forks
from tests.conftest import ROOT
from tests.tfsparse import replicas
from tfsparse import UsageError, distribution


def start(arguments, count=1):
    """Starts `count` workers of one cluster on this machine; returns the processes."""
    ports = []
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    processes = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": cluster, "task": task})
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": config}
        command = [sys.executable, *(a.replace("WORKER", str(index)) for a in arguments)]
        processes.append(forks.Popen(command, ROOT, environment))
    return processes


def end(processes):
    """Returns the status and the error output of each process when all are done."""
    errors = [process.communicate(timeout=400)[1] for process in processes]
    return [process.returncode for process in processes], errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What replicas.py saves: of one replica, of two devices, and of two workers."""
    folder = tmp_path_factory.mktemp("replicas")
    script = ["-m", "tests.tfsparse.replicas"]
    started = [
        *start([*script, "mirrored", str(folder / "mirrored")]),
        *start([*script, "multi_worker", str(folder / "workerWORKER")], 2),
    ]
    replicas.train(distribution.scope("none"), folder / "one")
    replicas.train(distribution.scope("none"), folder / "one_own", own=True)
    statuses, errors = end(started)
    assert statuses == [0] * 3, errors
    return folder


@pytest.mark.slow
def test_replicas_follow_one_with_the_whole_batch(folder):
    names = ["one_0", "mirrored_0", "mirrored_1", "worker0_0", "worker1_0"]
    one, *several = [dict(np.load(folder / f"{name}.npz")) for name in names]
    assert one.pop("count") == 1
    assert all(replica.pop("count") == 2 for replica in several)
    for first, second in (several[:2], several[2:]):
        for name in one:
            np.testing.assert_array_equal(first[name], second[name])
    for name in one:
        # Sums in another order; momenta and losses are of the size of 1.
        for replica in several:
            np.testing.assert_allclose(replica[name], one[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_statistics_are_the_mean_of_the_replicas(folder):
    """The mean of two halves' means is that of the whole batch; of their variances, it is less."""
    first, second = (np.load(folder / f"mirrored_own_{index}.npz") for index in (0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    one, both = (dict(np.load(folder / f"{name}_own_norm.npz")) for name in ("one", "mirrored"))
    assert np.abs(one["mean"]).max() > 1e-3
    np.testing.assert_allclose(both["mean"], one["mean"], rtol=1e-4, atol=1e-6)
    assert (both["variance"] <= one["variance"] + 1e-6).all()
    assert (both["variance"] < one["variance"] - 1e-6).any()


@pytest.mark.slow
def test_workers_stop_together_and_go_on_when_one_was_killed(tmp_path, data_dir):
    workdir = tmp_path / "run"
    arguments = ["train.py", "--distribution=multi_worker", "--epochs=2", "--width=4"]
    arguments += ["--image_size=8", "--batch_size=256", "--prune=dnr"]
    arguments += [f"--workdir={workdir}", f"--data_dir={data_dir}"]

    def wait_for_checkpoint(processes, name):
        while not (workdir / name).exists():
            assert all(process.poll() is None for process in processes), end(processes)
            time.sleep(0.1)

    workers = start([*arguments, "--checkpoint_minutes=0"], 2)
    wait_for_checkpoint(workers, "checkpoint.safetensors")
    workers[1].send_signal(signal.SIGTERM)
    statuses, errors = end(workers)
    assert statuses == [143, 143], errors
    assert all("stopped by SIGTERM" in error for error in errors)

    (workdir / "checkpoint-previous.safetensors").unlink(missing_ok=True)
    workers = start([*arguments, "--checkpoint_minutes=0"], 2)
    wait_for_checkpoint(workers, "checkpoint-previous.safetensors")
    workers[1].kill()
    statuses, errors = end(workers)
    assert statuses == [1, -signal.SIGKILL], errors
    assert "Another worker was lost" in errors[0]
    assert "Traceback" not in errors[0]

    workers = start(arguments, 2)
    statuses, errors = end(workers)
    assert statuses == [0, 0], errors
    assert (workdir / "report.json").exists()
    assert not list(workdir.rglob("partial-*"))


@pytest.mark.parametrize(
    ("ending", "waits"), [(None, True), (SystemExit(143), True), (ValueError("a loss"), False)]
)
def test_workers_wait_for_each_other_unless_one_fails(ending, waits, monkeypatch):
    """Of those that wait, the last finds the others gone, which is no error."""
    asked = []

    def any_worker(flag):
        asked.append(flag)
        raise ConnectionError

    monkeypatch.setattr(distribution, "any_worker", any_worker)
    with (
        contextlib.nullcontext() if ending is None else pytest.raises(type(ending)),
        distribution._leaving_together((ConnectionError,)),
    ):
        if ending is not None:
            raise ending
    assert asked == [False] * waits


@pytest.mark.parametrize(
    "config",
    [
        *("", "{", "[]", '{"cluster": {}}', '{"cluster": {"worker": ["a:1"]}, "task": {}}'),
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:999999"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": 5}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_bad_tf_config_is_refused(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match="TF_CONFIG") as caught, distribution.scope("multi_worker"):
        pass
    assert repr(config) in str(caught.value)


@pytest.mark.parametrize(
    ("jobs", "type_", "index", "is_chief"),
    [
        ({"worker": ["a:1", "b:1"]}, "worker", 0, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 1, False),
        ({"chief": ["c:1"], "worker": ["a:1"]}, "worker", 0, False),
        ({"chief": ["c:1"], "worker": ["a:1"]}, "chief", 0, True),
    ],
)
def test_the_chief_by_its_tf_config(jobs, type_, index, is_chief, monkeypatch):
    task = {"type": type_, "index": index}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": task}))
    assert distribution.is_chief_of_cluster() == is_chief


@pytest.mark.slow
def test_a_port_that_is_taken_is_named(fork):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        jobs = {"worker": [f"127.0.0.1:{taken.getsockname()[1]}"]}
        config = json.dumps({"cluster": jobs, "task": {"type": "worker", "index": 0}})
        result = fork("train.py", "--distribution=multi_worker", "--workdir=none", TF_CONFIG=config)
    assert result.returncode == 1
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("error:")]
    assert "Cannot start the cluster" in line


def test_one_process_is_its_own_chief():
    assert distribution.is_chief()
    assert distribution.any_worker(True)
    assert not distribution.any_worker(None)
    distribution.check_same(3, "never")
