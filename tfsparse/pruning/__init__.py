"""Pruning during training, DNR or by magnitude, and what it leaves, for Keras 3 models."""

from tfsparse.channels import remove_channels
from tfsparse.pruning.callback import UpdatePruningStep
from tfsparse.pruning.policy import ConvolutionPolicy
from tfsparse.pruning.pruner import STRUCTURES, Pruner
from tfsparse.pruning.schedule import DNRSchedule

__all__ = [
    "STRUCTURES",
    "ConvolutionPolicy",
    "DNRSchedule",
    "Pruner",
    "UpdatePruningStep",
    "remove_channels",
]
