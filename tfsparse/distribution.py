"""Training on several devices and machines.

In TensorFlow, with the strategies of tf.distribute: each replica takes its share of every batch.
Gradients are summed over the replicas before the optimizer uses them, so all replicas hold the same
weights, momenta, and masks at every step. Each replica rewires on its own and arrives at the same
masks. In JAX, all devices of one machine share each batch, by Keras' data parallelism.
"""

import contextlib
import functools
import json
import os

import numpy as np

from tfsparse import backend
from tfsparse.errors import UsageError

STRATEGIES = ("none", "mirrored", "multi_worker")

_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@contextlib.contextmanager
def scope(name):
    """Runs a `with` block, which creates and trains the model, under a strategy.

    Args:
        name: "none" for one device; "mirrored" for all GPUs of this machine; "multi_worker" for
            all machines of the cluster in the environment variable TF_CONFIG. The last must be
            entered before TensorFlow does anything else.

    Raises:
        UsageError: if TF_CONFIG is missing or wrong, if the cluster cannot be started, or if a
            worker is lost.
    """
    if name == "none":
        yield
        return
    if name == "mirrored":
        with backend.scope():
            yield
        return
    if backend.NAME != "tensorflow":
        raise UsageError(
            "Training on several machines needs KERAS_BACKEND=tensorflow. Received: "
            f"{backend.NAME}; there, choose --distribution=mirrored."
        )
    import tensorflow as tf

    # What it raises on the remaining workers, depending on what they are doing.
    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
        tf.errors.InternalError,
    )
    read_tf_config()
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UsageError(
            "Cannot start the cluster of TF_CONFIG. Check that each address belongs to its machine "
            f"and that its port is free. TensorFlow's error: {str(error)[:200]}"
        ) from error
    with strategy.scope():
        try:
            with _leaving_together(lost):
                yield
        except lost as error:
            raise UsageError(
                "Another worker was lost. Start all workers again with the same commands; the run "
                f"continues from its checkpoint. TensorFlow's error: {error.message[:200]}"
            ) from error


@contextlib.contextmanager
def _leaving_together(lost):
    """Makes the workers exit together, at the end of a run and when all of them stop.

    If one exited at once, another that was still receiving its share of the last sum would fail.
    """

    def wait():
        with contextlib.suppress(*lost):  # one that is gone knew that all were to exit
            any_worker(False)

    try:
        yield
    except SystemExit:
        wait()
        raise
    wait()


def read_tf_config():
    """Returns the environment variable TF_CONFIG as a dict.

    Raises:
        UsageError: if it does not describe a cluster.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        fits = task["type"] in cluster and 0 <= task["index"] < len(cluster[task["type"]])
        fits = fits and cluster.keys() <= {"chief", "worker"}
        fits = fits and all(map(_are_hosts, cluster.values()))
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise UsageError(
            "Each of several workers needs the environment variable TF_CONFIG, such as "
            f"{_EXAMPLE}. Received: {text!r}"
        )
    return config


def _are_hosts(tasks):
    """Returns whether `tasks` is a list of addresses, HOST:PORT."""
    parts = [str(task).rpartition(":") for task in tasks]
    return isinstance(tasks, list) and all(
        host and port.isdecimal() and 0 < int(port) < 2**16 for host, _, port in parts
    )


def is_chief_of_cluster():
    """Returns whether this process is the chief according to TF_CONFIG; see `is_chief`."""
    config = read_tf_config()
    task = config["task"]
    return task["type"] == "chief" or ("chief" not in config["cluster"] and task["index"] == 0)


def is_chief():
    """Returns whether this process writes the files: the only one, or the cluster's first."""
    resolver = _resolver()
    if resolver is None or not resolver.task_type:
        return True
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def is_multi_worker():
    """Returns whether there are other processes."""
    resolver = _resolver()
    return resolver is not None and len(resolver.cluster_spec().as_dict()) > 0


def any_worker(flag):
    """Returns whether `flag` is true on any worker; all workers must call this together."""
    if not is_multi_worker():
        return bool(flag)
    return _total(float(bool(flag))) > 0


def check_same(number, message):
    """Raises UsageError with `message` unless the int `number` is the same on all workers."""
    if not is_multi_worker():
        return
    workers = _total(1.0)
    mean = _total(float(number)) / workers
    if any_worker(mean != number):
        raise UsageError(message)


def _resolver():
    """Returns what describes the cluster, or None without one."""
    if backend.NAME != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_strategy().cluster_resolver


def _total(number):
    """Returns the sum of a float over all replicas of all workers."""
    return float(_reducer()(np.float64(number)))


@functools.cache
def _reducer():
    import tensorflow as tf

    @tf.function(autograph=False)
    def reduce(number):
        strategy = tf.distribute.get_strategy()
        numbers = strategy.run(tf.identity, (number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None)

    return reduce
