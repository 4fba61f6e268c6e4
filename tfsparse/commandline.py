"""What every command of this project does alike: parse flags, and say an error in one line."""

import sys

from absl import app, flags


class UsageError(ValueError):
    """Something the user gave cannot be used; its message is one line that says what to do.

    Commands print the message and exit with status 1. In a program of one's own it is a
    `ValueError` like any other.
    """


def _parse_flags(argv):
    """Parses `argv`; an unusable flag ends the process with one line and status 2."""
    try:
        extra = flags.FLAGS(argv)[1:]
    except (flags.Error, OSError) as error:
        _exit(2, str(error).splitlines()[0])
    if extra:
        _exit(2, f"arguments are given as --flag=value. Received: {' '.join(extra)}")
    return argv[:1]


def _exit(status, message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def run(main):
    """Runs `main()` after parsing the absl flags; a `UsageError` becomes one line, status 1."""

    def guarded(_):
        try:
            main()
        except UsageError as error:
            _exit(1, " ".join(str(error).split()))
        except KeyboardInterrupt:
            _exit(130, "interrupted")

    app.run(guarded, flags_parser=_parse_flags)
