"""The model zoo: architectures, data sets, recipes, and trained models with their cards."""

import importlib

_MODULES = {
    "ARCHITECTURES": "zoo.architectures",
    "build": "zoo.architectures",
    "card": "zoo.models",
    "find": "zoo.models",
    "list_models": "zoo.models",
    "load": "zoo.models",
    "load_tflite": "zoo.models",
    "predict": "zoo.prediction",
}
__all__ = list(_MODULES)


def __getattr__(name):
    # These modules import TensorFlow. `zoo.commands`, which is in this package, has to set
    # environment variables first, and prints help without it.
    if name not in _MODULES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__():
    return sorted([*globals(), *__all__])
