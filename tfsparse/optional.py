"""Packages that parts of this one need and that may not be installed."""

import importlib.util
import os

from tfsparse.errors import UsageError


def are_installed(*modules):
    """Returns whether all of these modules can be found; it imports none of them."""
    try:
        return all(importlib.util.find_spec(module) for module in modules)
    except ImportError:
        return False


def choose_backend():
    """Has Keras compute with JAX if TensorFlow, its default, is not installed and JAX is.

    The environment variable KERAS_BACKEND says otherwise if it is set.
    """
    is_chosen = os.environ.get("KERAS_BACKEND")
    if not is_chosen and not are_installed("tensorflow") and are_installed("jax"):
        os.environ["KERAS_BACKEND"] = "jax"


def missing(**packages):
    """Returns which packages are not installed, a list; see `require`."""
    return [package for module, package in packages.items() if not are_installed(module)]


def require(task, **packages):
    """Raises a `UsageError` that names the packages that are missing.

    Args:
        task: what needs them, the beginning of the message, such as "Conversion to .tflite".
        packages: {name of the module: name of the package that is installed}.
    """
    names = missing(**packages)
    if names:
        raise UsageError(
            f"{task} needs {' and '.join(names)}, which {'are' if names[1:] else 'is'} not "
            f"installed. Run: pip install {' '.join(names)}"
        )
