"""The `tfsparse` command: `tfsparse COMMAND --flag=value ...`.

Each command is a module of this package: its docstring is the help text, `define_flags()` defines
its flags, and `main()` does the work. `tfsparse train` runs `train.py`. Nothing here imports
TensorFlow or Keras, so that help appears at once.
"""

import difflib
import importlib
import importlib.metadata
import pathlib
import runpy
import sys

from zoo.commands import commandline

COMMANDS = {
    "train": "train a model from a flag file and convert it",
    "models": "list the models of the zoo",
    "summary": "print the parameters, MACs, and storage of a model, layer by layer",
    "evaluate": "attack a model or a .tflite file and measure its accuracy",
    "compare": "test whether one model is more robust than another",
    "convert": "convert a model to a verified .tflite file",
    "export": "write a model as ONNX, SavedModel, or float LiteRT",
    "micro": "package a model for a microcontroller, as C or for TFLM",
    "benchmark": "time .tflite files against each other in LiteRT",
    "publish": "add a finished run to the zoo, or write a folder for the Hugging Face hub",
    "verify": "measure the figures on the zoo's cards again",
}


def main():
    """Runs the command that `sys.argv` names."""
    _, *arguments = sys.argv
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help", "help"):
        print(_help())
    elif command == "--version":
        print(f"tfsparse {importlib.metadata.version('tfsparse')}")
    elif command in COMMANDS:
        sys.argv = [f"tfsparse {command}", *arguments[1:]]
        _run(command)
    else:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"Did you mean {close[0]}?" if close else "Run: tfsparse --help"
        commandline.exit_with(2, f"There is no command {command!r}. {hint}")


def _run(command):
    if command == "train":
        # By its path: `import train` could find a train.py of the user's own.
        path = pathlib.Path(importlib.import_module("zoo").__file__).parents[1] / "train.py"
        runpy.run_path(str(path), run_name="__main__")
    else:
        commandline.run(importlib.import_module(f"zoo.commands.{command}"))


def _help():
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Sparse, adversarially robust, and deployable CNNs for Keras and LiteRT.",
            "",
            "usage: tfsparse COMMAND --flag=value ...",
            "",
            *lines,
            "",
            "tfsparse COMMAND --help lists the flags of a command; tfsparse --version prints the "
            "version.",
        ]
    )
