"""Pruning during training: DNR and, as its baseline, magnitude pruning, for Keras 3 models."""

from tfsparse.pruning.callback import UpdatePruningStep
from tfsparse.pruning.policy import ConvolutionPolicy
from tfsparse.pruning.pruner import STRUCTURES, Pruner
from tfsparse.pruning.schedule import DNRSchedule

__all__ = ["STRUCTURES", "ConvolutionPolicy", "DNRSchedule", "Pruner", "UpdatePruningStep"]
