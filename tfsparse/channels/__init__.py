"""Removal of the channels that nothing reads: traced by rules for each layer, then rebuilt without.

Every channel of every tensor gets a number. A layer that passes a channel on, such as BatchNorm,
gives it the same number; an addition, whose operands stay or go together, makes two numbers one.
From the outputs backwards it is then found which channels are read.
"""

from tfsparse.channels.rebuilding import remove_channels

__all__ = ["remove_channels"]
