"""Measures the peak memory of LiteRT while it loads and runs a file.

    python -m tflite.memory THREADS < model.tflite

Each file is measured in its own process: memory that one file has freed would hide the use of the
next one.
"""

import pathlib
import re
import subprocess
import sys

_STATUS, _RESET = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def peak_memory(content, threads=1):
    """Returns the bytes that LiteRT allocates, without `content` itself; None except on Linux."""
    if not _RESET.exists():
        return None
    command = [sys.executable, "-m", "tflite.memory", str(threads)]
    folder = pathlib.Path(__file__).parents[1]
    done = subprocess.run(command, input=content, capture_output=True, cwd=folder, check=True)
    return int(done.stdout.split()[-1])


def _kilobytes(name):
    return int(re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)[1])


def main():
    from ai_edge_litert.interpreter import Interpreter

    content = sys.stdin.buffer.read()
    _RESET.write_text("5")  # resets the peak
    before = _kilobytes("VmRSS")
    interpreter = Interpreter(model_content=content, num_threads=int(sys.argv[1]))
    interpreter.allocate_tensors()
    interpreter.invoke()
    print(1024 * (_kilobytes("VmHWM") - before))


if __name__ == "__main__":
    main()
