"""`python -m zoo.commands COMMAND` is `tfsparse COMMAND`, where that is not installed."""

from zoo.commands import main

main()
