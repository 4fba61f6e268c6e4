"""What all commands share: flags, help, and errors in one line."""

import difflib
import math
import os
import pathlib
import re
import sys

from absl import flags, logging

from zoo.commands import environment

flags.disclaim_key_flags()  # a flag that `define_fraction` defines belongs to its caller

DATASET = "TFDS name, folder of images, or .npz file; by default what it was trained on."
RECIPES = pathlib.Path(__file__).parents[1] / "recipes"


def run(command, names=False):
    """Runs the module `command`: parses its flags, then calls its `main()`.

    `--help` prints the module's docstring and flags. An unusable flag ends the process with one
    line and status 2, a `UsageError` with one line and status 1. A command with `NEEDS_TENSORFLOW`
    runs under TensorFlow, whatever Keras' backend is set to. One whose `is_finished_at_once()`
    returns True has nothing left to do.

    Args:
        command: a module with `main()`, and with `define_flags()` unless importing it defines them.
        names: whether `main` takes the list of arguments that are not flags.
    """
    try:
        _run(command, names)
        sys.stdout.flush()
    except BrokenPipeError:  # of `tfsparse models | head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(command, names):
    getattr(command, "define_flags", lambda: None)()
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(command))
        return
    arguments = _parse(sys.argv, names or getattr(command, "TAKES_NAMES", False))
    if getattr(command, "is_finished_at_once", lambda: False)():
        return
    try:
        environment.prepare_command(getattr(command, "NEEDS_TENSORFLOW", False))
    except RuntimeError as error:
        exit_with(1, str(error))
    logging.set_verbosity(logging.ERROR)  # TFDS reports each file that it opens or misses
    from tfsparse.errors import UsageError

    try:
        command.main(*arguments)
    except UsageError as error:
        exit_with(1, " ".join(str(error).split()))
    except KeyboardInterrupt:
        exit_with(130, "interrupted")


def _one_line(error):
    """Returns what absl says of flags that it cannot parse, in one line."""
    text = str(error).splitlines()[0].removeprefix("ERROR:: ")
    text = re.sub(r"^flag --(\w+)=None: Flag --\1 must have a value.*", r"Give --\1.", text)
    return re.sub(r"\('Non-boolean argument.*\)", "must be true or false", text)


def _parse(argv, names):
    """Parses `argv`; returns the arguments of `main`."""
    try:
        extra = flags.FLAGS([argv[0], *map(_find_recipe, argv[1:])])[1:]
    except (flags.Error, OSError, UnicodeDecodeError) as error:
        exit_with(2, _one_line(error))
    if extra and not names:
        exit_with(2, f"Arguments are given as --flag=value. Received: {' '.join(extra)}")
    return [extra] if names else []


def _find_recipe(argument):
    """Returns `argument`, with the name of a recipe of the zoo as the path of its flag file."""
    prefix, _, name = argument.partition("=")
    if prefix not in ("--flagfile", "-flagfile") or pathlib.Path(name).exists():
        return argument
    recipes = {path.stem: path for path in RECIPES.rglob("*.cfg")}
    stem = pathlib.Path(name).name.removesuffix(".cfg")
    if stem in recipes:
        return f"--flagfile={recipes[stem]}"
    close = difflib.get_close_matches(stem, recipes, n=1, cutoff=0.0)
    exit_with(2, f"There is no flag file {name!r}. Did you mean {close[0]}?")


def help_text(command):
    """Returns the docstring of a command's module and its flags, a str of lines."""
    lines = [command.__doc__.strip()]
    name = sys.argv[0] if command.__name__ == "__main__" else command.__name__
    own = flags.FLAGS.get_key_flags_for_module(name)
    lines += ["", "flags:"] if own else []
    for flag in own:
        choices = "|".join(getattr(flag.parser, "enum_values", []))
        lines.append(f"  --{flag.name}={choices or flag.flag_type()}")
        required = any("other than None" in each.message for each in flag.validators)
        default = "required" if required else f"default: {flag.default}"
        text = flag.help.removeprefix(f"<{choices}>: ")  # absl puts the choices in front
        lines.append(f"      {text}{'' if default.endswith('None') else f' ({default})'}")
    return "\n".join(lines)


def define_input_range():
    """Defines --input_range; `FLAGS.input_range` is (low, high), or None without the flag."""
    flags.DEFINE(
        _RangeParser(),
        "input_range",
        None,
        "Smallest and largest value of the images that the model takes, such as 0,255; by default "
        "0,1.",
    )


class _RangeParser(flags.ArgumentParser):
    """Parses two numbers in ascending order, separated by a comma."""

    def parse(self, argument):
        if isinstance(argument, tuple):
            return argument
        try:
            low, high = (float(text) for text in argument.split(","))
        except ValueError:
            low = high = 0.0
        if not low < high < math.inf:
            raise ValueError("must be two numbers in ascending order, such as 0,255")
        return low, high


def exit_with(status, message):
    """Ends the process with one line on stderr."""
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

    def flag_type(self):
        return "fraction"


def define_fraction(name, default, help_text):
    """Defines a float flag that can be given as a fraction, such as `--eps=8/255`."""
    return flags.DEFINE(_FractionParser(), name, default, help_text)
