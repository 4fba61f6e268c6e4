"""`python -m zoo.commands COMMAND` is `tfsparse COMMAND`, without installation."""

from zoo.commands import main

main()
