"""Runs a study: python -m studies NAME --flag=value ..."""

import importlib
import os
import sys

from studies import MODELS
from studies.pages import STUDIES
from zoo import models
from zoo.commands import commandline

WITHOUT_PAGE = (
    *("accelerator", "cards", "fashion_mnist_small", "full_width", "pages", "queue", "screenshot"),
)
COMMANDS = (*STUDIES, *WITHOUT_PAGE)


def main():
    _, *arguments = sys.argv
    if not arguments or arguments[0] not in COMMANDS:
        received = f" Received: {arguments[0]}" if arguments else ""
        commandline.exit_with(2, f"Studies are {', '.join(COMMANDS)}.{received}")
    # In the processes that a study starts, too.
    os.environ[models.FURTHER] = str(MODELS)
    name, *rest = arguments
    sys.argv = [f"studies {name}", *rest]
    commandline.run(importlib.import_module(f"studies.{name}"))


if __name__ == "__main__":  # not in the processes that a study starts
    main()
