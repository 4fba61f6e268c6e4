"""What every command of this project does alike: parse flags, and say an error in one line."""

import functools
import sys

from absl import app, flags, logging

from tfsparse.errors import UsageError

flags.disclaim_key_flags()  # a flag that `define_fraction` defines belongs to its caller


def _parse_flags(argv, names=False):
    """Parses `argv`; an unusable flag ends the process with one line and status 2."""
    try:
        extra = flags.FLAGS(argv)[1:]
    except (flags.Error, OSError, UnicodeDecodeError) as error:
        _exit(2, str(error).splitlines()[0].removeprefix("ERROR:: "))
    if extra and not names:
        _exit(2, f"arguments are given as --flag=value. Received: {' '.join(extra)}")
    return [argv[0], *extra]


def _exit(status, message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def fraction(text):
    """Returns the float that `text`, a number or a fraction of two, stands for."""
    try:
        numerator, slash, denominator = str(text).partition("/")
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"expected {_FractionParser.syntactic_help}") from error


class _FractionParser(flags.ArgumentParser):
    syntactic_help = "a number or a fraction such as 8/255"

    def parse(self, argument):
        return fraction(argument)


def define_fraction(name, default, help_text):
    """Defines a float flag that can be given as a fraction, such as `--eps=8/255`."""
    return flags.DEFINE(_FractionParser(), name, default, help_text)


def run(main, names=False):
    """Runs `main()` after parsing the absl flags; a `UsageError` becomes one line, status 1.

    With `names`, it is `main(list of the arguments that are no flags)`, which others do not take.
    """

    def guarded(argv):
        logging.set_verbosity(logging.WARNING)  # TFDS reports each file it opens
        try:
            main(*([argv[1:]] if names else []))
        except UsageError as error:
            _exit(1, " ".join(str(error).split()))
        except KeyboardInterrupt:
            _exit(130, "interrupted")

    app.run(guarded, flags_parser=functools.partial(_parse_flags, names=names))
