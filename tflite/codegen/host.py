"""Runs a generated package on this machine: a C compiler, a process, and its outputs."""

import importlib.util
import pathlib
import shutil
import subprocess
import sys

import numpy as np

from tflite.codegen.writing import PREFIX, renamed
from tfsparse.errors import UsageError

_RUNNER = """
#include <stdio.h>
#include "model.h"
int main(void) {
  static int32_t image[(TFSPARSE_IMAGE_BYTES + 3) / 4];
  int8_t logits[TFSPARSE_CLASSES];
  while (fread(image, 1, TFSPARSE_IMAGE_BYTES, stdin) == TFSPARSE_IMAGE_BYTES) {
    if (tfsparse_run((const int8_t *)image, logits) != 0) return 1;
    if (fwrite(logits, 1, sizeof logits, stdout) != sizeof logits) return 1;
  }
  return 0;
}
"""


def compiler():
    """Returns the command of a C compiler for this machine, a list of str, or None."""
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    return None


def build(package, folder, flags=("-O2",), command=None, prefix=PREFIX):
    """Compiles a package with a program that classifies the images it reads.

    Args:
        package: folder of the package.
        folder: where the program goes.
        flags: of the compiler.
        command: of the compiler, a list of str; by default what `compiler` finds.
        prefix: of the names in the package.

    Returns:
        Path of the program, for `run`.

    Raises:
        UsageError: if there is no compiler or it refuses a file.
    """
    command = command or compiler()
    if command is None:
        raise UsageError(
            "There is no C compiler. Install gcc or clang, or run: pip install ziglang"
        )
    folder = pathlib.Path(folder)
    main, program = folder / "classify.c", folder / "classify"
    main.write_text(renamed(_RUNNER, prefix), encoding="utf-8")
    sources = sorted(
        set(pathlib.Path(package).glob("*.c")) - {pathlib.Path(package, "self_test.c")}
    )
    files = [str(each) for each in (*sources, main)]
    done = subprocess.run(
        [*command, "-std=c99", *flags, f"-I{package}", *files, "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UsageError(f"The C compiler failed: {_first_error(done.stderr)}")
    return program


def _first_error(text):
    lines = text.strip().splitlines() or ["no message"]
    return next((line for line in lines if "error" in line), lines[0]).strip()


def run(program, images):
    """Returns the logits, int8 [n, classes], of int8 images [n, h, w, c].

    Raises:
        UsageError: if the program fails.
    """
    images = np.ascontiguousarray(images, np.int8)
    done = subprocess.run([str(program)], input=images.tobytes(), capture_output=True, check=False)
    if done.returncode or not done.stdout or len(done.stdout) % len(images):
        reason = _first_error(done.stderr.decode(errors="replace"))
        raise UsageError(f"The generated program failed with status {done.returncode}: {reason}")
    return np.frombuffer(done.stdout, np.int8).reshape(len(images), -1)
