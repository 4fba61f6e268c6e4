"""Commands in processes that fork from one that has imported TensorFlow.

Importing it takes longer than most commands that are tested. The process that forks has imported
packages, but nothing of this project. TensorFlow starts its threads later, in the new process.
"""

import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from unittest import mock

from tflite.quiet import quiet

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["ai_edge_litert.interpreter", "tensorflow", "keras", "tensorflow_datasets", "tf_keras"]
)


class Popen:
    """What `subprocess.Popen` offers, as far as tests use it.

    Args:
        command: [sys.executable, ...]: a script, `-m` and a module, or `-c` and code.
        cwd: folder in which it runs.
        env: environment variables; None for those of this process. Those that TensorFlow reads when
            it is imported have no effect.
        options: of `subprocess.Popen`; what the command writes is always kept, as text.
    """

    def __init__(self, command, cwd, env=None, **options):
        self.args = [str(each) for each in command]
        # Read when the command has ended.
        self._files = [tempfile.NamedTemporaryFile(encoding="utf-8", mode="r") for _ in "oe"]  # noqa: SIM115
        names = [file.name for file in self._files]
        variables = dict(os.environ if env is None else env)
        self._process = _CONTEXT.Process(
            target=_execute, args=(self.args[1:], str(cwd), variables, *names), daemon=True
        )
        # TensorFlow, which is imported before the first command, reads what commands set for it.
        with mock.patch.dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"), quiet():
            self._process.start()

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return tuple(file.read() for file in self._files)

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def _execute(arguments, cwd, variables, stdout, stderr):
    """Does in a new process what `python ARGUMENTS` does."""
    gc.freeze()  # looking for garbage in what was imported would copy it for this process
    for name, number in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(name, os.O_WRONLY), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments[0] == "-m":
        _, name, *rest = arguments
        sys.argv = [name, *rest]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        _, code, *rest = arguments
        sys.argv = ["-c", *rest]
        exec(code, {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
