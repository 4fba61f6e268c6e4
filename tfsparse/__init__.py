"""Sparse, adversarially robust and deployable CNNs for Keras 3 and LiteRT."""

# ruff: noqa: E402 (Keras is imported when its backend is chosen)

from tfsparse import optional

optional.choose_backend()  # before anything imports Keras

from tfsparse import attacks, cost, layers, patterns, pruning
from tfsparse.errors import UsageError
from tfsparse.sparsification import sparsify
from tfsparse.summaries import summary
from tfsparse.weights import load_weights, save_weights

__version__ = "0.2.0"
__all__ = [
    "UsageError",
    "attacks",
    "cost",
    "layers",
    "load_weights",
    "patterns",
    "pruning",
    "save_weights",
    "sparsify",
    "summary",
]
