"""Several replicas against one: the same weights, and what happens when a worker is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import ROOT
from tfsparse import UsageError, distribution

# Trains with the hybrid loss, DNR and rewiring; for all replicas the BatchNorm of the whole batch,
# and no random start, which differs for each replica. With "_own", one step on clean images, and
# each replica has the BatchNorm of its own images, as is the default.
TRAINING = """
import contextlib, sys
import keras, numpy as np, tensorflow as tf
import zoo
from tfsparse import attacks, distribution, training
from tfsparse.pruning import DNRSchedule, Pruner

name, output = sys.argv[1:]
own, name = name.endswith("_own"), name.removesuffix("_own")
if name == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
else:
    scope = distribution.scope(name)
with scope:
    keras.utils.set_random_seed(0)
    model = zoo.build("resnet8", (8, 8, 3), 10, width=8)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = not own
    pruner = Pruner(model, DNRSchedule(0.8, 7, 3))
    attack = attacks.pgd(model, 8 / 255, 1, random_start=False)
    attack = None if own else attack
    trainer = training.Trainer(model, training.sgd(8, 0.01, 5e-3), attack, pruner)
    rng = np.random.default_rng(0)
    images, labels = rng.random((88, 8, 8, 3), np.float32), rng.integers(0, 10, 88)
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = data.take(10).batch(10) if own else data.batch(11)
    means = trainer.run_epoch(batches, 0)
    strategy = tf.distribute.get_strategy()
    assert strategy.num_replicas_in_sync == (1 if name == "none" else 2)
    replicas = [
        strategy.experimental_local_results(v if isinstance(v, tf.Variable) else v.value)
        for v in trainer.variables.values()
    ]
    for index in range(len(replicas[0])):
        values = [copies[index].numpy() for copies in replicas]
        np.savez(f"{output}_{index}", loss=means["loss"], *values)
    if own:
        stem = next(l for l in model.layers if isinstance(l, keras.layers.BatchNormalization))
        mean, variance = np.array(stem.moving_mean), np.array(stem.moving_variance)
        np.savez(f"{output}_stem", mean=mean, variance=variance)
"""


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
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    return processes


def end(processes):
    """Returns the status and the error output of each process when all are done."""
    errors = [process.communicate(timeout=400)[1] for process in processes]
    return [process.returncode for process in processes], errors


@pytest.mark.slow
def test_replicas_follow_one_with_the_whole_batch(tmp_path):
    started = [
        *start(["-c", TRAINING, "none", str(tmp_path / "one")]),
        *start(["-c", TRAINING, "mirrored", str(tmp_path / "mirrored")]),
        *start(["-c", TRAINING, "multi_worker", str(tmp_path / "workerWORKER")], 2),
    ]
    statuses, errors = end(started)
    assert statuses == [0] * 4, errors
    names = ["one_0", "mirrored_0", "mirrored_1", "worker0_0", "worker1_0"]
    one, *replicas = [dict(np.load(tmp_path / f"{name}.npz")) for name in names]
    for first, second in (replicas[:2], replicas[2:]):
        for name in one:
            np.testing.assert_array_equal(first[name], second[name])
    for name in one:
        # Sums in another order; momenta and losses are of the size of 1.
        for replica in replicas:
            np.testing.assert_allclose(replica[name], one[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_statistics_are_the_mean_of_the_replicas(tmp_path):
    """The mean of two halves' means is that of the whole batch; of their variances, it is less."""
    started = [
        *start(["-c", TRAINING, "none_own", str(tmp_path / "one")]),
        *start(["-c", TRAINING, "mirrored_own", str(tmp_path / "mirrored")]),
    ]
    statuses, errors = end(started)
    assert statuses == [0] * 2, errors
    first, second = (np.load(tmp_path / f"mirrored_{index}.npz") for index in (0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    one, both = (dict(np.load(tmp_path / f"{name}_stem.npz")) for name in ("one", "mirrored"))
    assert np.abs(one["mean"]).max() > 1e-3
    np.testing.assert_allclose(both["mean"], one["mean"], rtol=1e-4, atol=1e-6)
    assert (both["variance"] <= one["variance"] + 1e-6).all()
    assert (both["variance"] < one["variance"] - 1e-6).any()


@pytest.mark.slow
def test_workers_stop_together_and_go_on_when_one_was_killed(tmp_path, data_dir):
    workdir = tmp_path / "run"
    arguments = ["train.py", "--flagfile=zoo/recipes/quickstart.cfg", "--epochs=2", "--width=4"]
    arguments += ["--batch_size=128", "--distribution=multi_worker", "--checkpoint_minutes=0"]
    arguments += [f"--workdir={workdir}", f"--data_dir={data_dir}"]

    def wait_for_checkpoint(processes, name):
        while not (workdir / name).exists():
            assert all(process.poll() is None for process in processes), end(processes)
            time.sleep(0.1)

    workers = start(arguments, 2)
    wait_for_checkpoint(workers, "checkpoint.safetensors")
    workers[1].send_signal(signal.SIGTERM)
    statuses, errors = end(workers)
    assert statuses == [143, 143], errors
    assert all("stopped by SIGTERM" in error for error in errors)

    (workdir / "checkpoint-previous.safetensors").unlink(missing_ok=True)
    workers = start(arguments, 2)
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


def test_a_port_that_is_taken_is_said(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        jobs = {"worker": [f"127.0.0.1:{taken.getsockname()[1]}"]}
        config = json.dumps({"cluster": jobs, "task": {"type": "worker", "index": 0}})
        result = run("train.py", "--distribution=multi_worker", "--workdir=none", TF_CONFIG=config)
    assert result.returncode == 1
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("error:")]
    assert "Cannot start the cluster" in line


def test_one_process_is_its_own_chief():
    assert distribution.is_chief()
    assert distribution.any_worker(True)
    assert not distribution.any_worker(None)
    distribution.check_same(3, "never")
