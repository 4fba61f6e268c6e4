"""Sparse, adversarially robust and deployable CNNs for Keras 3 and LiteRT."""

from tfsparse import attacks, cost, layers, packed, patterns, pruning
from tfsparse.errors import UsageError
from tfsparse.sparsification import sparsify
from tfsparse.summaries import summary

__all__ = [
    "UsageError",
    "attacks",
    "cost",
    "layers",
    "packed",
    "patterns",
    "pruning",
    "sparsify",
    "summary",
]
