"""Silences code that writes to the terminal from C++, below Python's own streams."""

import contextlib
import io
import os
import sys
import tempfile
import warnings


@contextlib.contextmanager
def quiet():
    """Discards what the process writes to stdout and stderr, and warnings, inside the block.

    Exceptions pass through unchanged.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    # Not redirect_stderr: a logger that is created in the block would keep the substitute.
    with (
        open(os.devnull, "w") as sink,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for number in saved:
                os.dup2(sink.fileno(), number)
            yield
        finally:
            sys.stderr.flush()
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)


@contextlib.contextmanager
def captured():
    """Collects what C++ code writes to stderr inside the block.

    Yields:
        A function that returns it as a str, to be called after the block.
    """
    sys.stderr.flush()
    saved, text = os.dup(2), ""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            text = file.read().decode(errors="replace")
