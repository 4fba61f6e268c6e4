"""Silence for code that writes to the terminal from C++, below Python's own streams."""

import contextlib
import io
import os
import sys
import warnings


@contextlib.contextmanager
def quiet():
    """Discards what the process writes to stdout and stderr, and warnings, inside the block.

    Exceptions pass through unchanged.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {number: os.dup(number) for number in (1, 2)}
    # Not redirect_stderr: a logger that is set up in the block would keep the substitute.
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
