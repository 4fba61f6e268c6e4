"""Pruning during training, by DNR, RigL, SET or magnitude, for Keras 3 models."""

from tfsparse.channels import remove_channels
from tfsparse.pruning.algorithms import (
    ALGORITHMS,
    DNR,
    SET,
    Algorithm,
    ERKMagnitude,
    GlobalMagnitude,
    Magnitude,
    RigL,
)
from tfsparse.pruning.callback import UpdatePruningStep
from tfsparse.pruning.policy import ConvolutionPolicy
from tfsparse.pruning.pruner import Pruner
from tfsparse.pruning.schedule import DNRSchedule, default_schedule
from tfsparse.pruning.units import STRUCTURES

__all__ = [
    "ALGORITHMS",
    "DNR",
    "SET",
    "STRUCTURES",
    "Algorithm",
    "ConvolutionPolicy",
    "DNRSchedule",
    "ERKMagnitude",
    "GlobalMagnitude",
    "Magnitude",
    "Pruner",
    "RigL",
    "UpdatePruningStep",
    "default_schedule",
    "remove_channels",
]
