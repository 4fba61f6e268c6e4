"""The one error type for what users can mend."""


class UsageError(ValueError):
    """Something the user gave cannot be used; its message is one line that says what to do.

    Commands print the message and exit with status 1. In a program of one's own it is a
    `ValueError` like any other.
    """

    # Raised in the call of a layer, it is not wrapped by Keras in lines about the call's arguments.
    _keras_call_info_injected = True
