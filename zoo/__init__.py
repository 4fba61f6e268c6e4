"""The model zoo: architectures, data sets, recipes, and trained models with their cards."""

from zoo.architectures import ARCHITECTURES, build
from zoo.models import card, list_models, load, load_tflite

__all__ = ["ARCHITECTURES", "build", "card", "list_models", "load", "load_tflite"]
