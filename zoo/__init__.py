"""The model zoo: architectures, data sets, recipes, and trained models with their cards."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ finds
    from zoo.architectures import ARCHITECTURES, build
    from zoo.models import card, find, list_models, load, load_tflite
    from zoo.prediction import predict

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
__all__ = [
    "ARCHITECTURES",
    "build",
    "card",
    "find",
    "list_models",
    "load",
    "load_tflite",
    "predict",
]


def __getattr__(name: str) -> Any:
    # These modules import TensorFlow. `zoo.commands`, which is in this package, has to set
    # environment variables first, and prints help without it.
    if name not in _MODULES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
