"""What tests share: real images, and commands run as a user runs them."""

import contextlib
import fcntl
import gc
import io
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import pytest
from absl import flags
from hypothesis import HealthCheck, settings

# On processors with AVX-512, TensorFlow 2.21's oneDNN was seen to compute convolutions of unusual
# sizes wrongly, and to crash. What is tested is this package.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# There are more processes than cores: with threads of their own, they would wait for each other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import forks
from zoo import commands

ROOT = pathlib.Path(__file__).parents[1]
STUDY_MODELS = ROOT / "studies" / "models"

# Python would look for garbage a dozen times while TensorFlow is imported.
gc.disable()

# Registered here, where pytest's option --hypothesis-profile finds them.
ALL = list(HealthCheck)
settings.register_profile(
    "default", max_examples=300, derandomize=True, deadline=None, suppress_health_check=ALL
)
settings.register_profile("long", max_examples=40_000, deadline=None, suppress_health_check=ALL)
settings.load_profile("default")


def pytest_collection_finish():
    """Looks for garbage again, but no longer among what has been imported."""
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers():
    """Returns one worker more than cores: tests also wait, for processes that they start."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    """Runs the files with slow tests first: the last file should not keep one worker alone busy."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Returns a function that returns a folder which the first of all test processes fills."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def shared(name, fill):
        folder = root / name
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                partial = root / f"{name}.partial"
                partial.mkdir()
                fill(partial)
                partial.rename(folder)
        return folder

    return shared


@pytest.fixture(scope="session")
def data_dir(shared):
    """A folder with the bundled data set, prepared, so that tests write nowhere else."""
    from zoo.data import open_dataset  # not in the process that only hands out the tests

    return shared("tensorflow_datasets", lambda folder: open_dataset("fashion_mnist_small", folder))


@pytest.fixture(scope="session")
def fashion_mnist(data_dir):
    """The bundled data set's validation split: float32 [500, 28, 28, 1] in [0, 1], and labels."""
    return images_of("validation", data_dir)


@pytest.fixture(scope="session")
def fashion_mnist_training(data_dir):
    """The same of its training split, 4,500 images."""
    return images_of("train", data_dir)


@pytest.fixture(scope="module")
def study_models():
    """Adds the models that only studies need to those that are found by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFSPARSE_MODELS", str(STUDY_MODELS))
        yield


def images_of(split, data_dir):
    from zoo.data import as_float, open_dataset

    images, labels = open_dataset("fashion_mnist_small", data_dir).read(split)
    return as_float(images), labels


class Result(NamedTuple):
    """What a command did: its exit status, and what it wrote to stdout and stderr."""

    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def no_flags():
    """Replaces the defined flags by absl's own, as in a new process, and restores them."""
    state, saved = flags.FLAGS.__dict__, dict(flags.FLAGS.__dict__)
    fresh = flags.FlagValues()
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith("absl.") else []:
            fresh[flag.name] = flag
    state.update(fresh.__dict__)
    try:
        yield
    finally:
        state.clear()
        state.update(saved)


@pytest.fixture(scope="session")
def tfsparse():
    """Returns a function that runs `tfsparse` with its arguments and returns a `Result`."""
    from tensorflow.python.framework import config  # not in the process that hands out the tests

    def tfsparse(*arguments):
        out, err, status = io.StringIO(), io.StringIO(), 0
        argv, sys.argv = sys.argv, ["tfsparse", *map(str, arguments)]
        try:
            with no_flags(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                commands.main()
        except SystemExit as end:
            status = end.code or 0
        finally:
            sys.argv = argv
            config.disable_op_determinism()  # of --deterministic, which is of a process
        return Result(status, out.getvalue(), err.getvalue())

    return tfsparse


def variables_of(variables):
    """Returns the environment of a command of its own process, with more variables, a dict."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    # JAX, where it is installed, sets it for the process that runs the tests.
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return environment


def run_by(popen):
    """Returns a function that runs Python in the project's folder, or in `cwd`.

    Keywords are environment variables.
    """

    def run(*arguments, cwd=ROOT, **variables):
        command = [sys.executable, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = popen(command, cwd=cwd, env=variables_of(variables), **pipes)
        stdout, stderr = process.communicate(timeout=600)
        return Result(process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def run():
    """Runs Python, as `run_by` has it."""
    return run_by(subprocess.Popen)


@pytest.fixture(scope="session")
def fork():
    """The same for a script or a module (-m), without waiting until TensorFlow is imported."""
    return run_by(forks.Popen)
