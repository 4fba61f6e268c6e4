"""Runs commands in the process of the tests, which spares most tests the import of TensorFlow."""

import contextlib
import io
import sys
from typing import NamedTuple

import pytest
from absl import flags

from zoo import commands


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
        return Result(status, out.getvalue(), err.getvalue())

    return tfsparse
