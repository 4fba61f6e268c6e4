"""Sparse, adversarially robust and deployable CNNs for Keras 3 and LiteRT."""

from tfsparse import attacks, cost, layers, patterns, pruning
from tfsparse.errors import UsageError
from tfsparse.sparsification import sparsify

__all__ = ["UsageError", "attacks", "cost", "layers", "patterns", "pruning", "sparsify"]
