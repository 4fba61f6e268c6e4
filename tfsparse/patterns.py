"""Periodic kernel patterns: which taps of which kernel exist. NumPy only.

A convolution kernel of height x width taps belongs to one input channel j and one filter i. A
pattern keeps a *support* of n taps in each. Kernels are divided into as many *phases* as the period
P, and all kernels of a phase share one support.

Source: Kundu, Nazemi, Pedram, Chugg, Beerel, "Pre-defined Sparsity for Low-Complexity Convolutional
Neural Networks", IEEE Trans. Computers 69(7), 2020, arXiv 2001.10710; the families PS and PSD.
"""

import dataclasses
import re
from typing import NamedTuple

import numpy as np

from tfsparse.errors import UsageError

_NAME = re.compile(r"PS(D?)([1-9]\d{0,3})_P([1-9]\d{0,3})(?:_F([1-9]\d{0,3}))?")
_WINDOWS = {1: (1, 1), 2: (1, 2), 4: (2, 2)}  # support size: height and width of its window


class Window(NamedTuple):
    """A rectangle of kernel taps: the support of the kernels of one phase."""

    top: int
    left: int
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A named periodic pattern; make one with `Pattern.parse`.

    Attributes:
        support_size: taps kept in each kernel (n; the paper's KSS), one of 1, 2 and 4.
        period: number of phases (P).
        dense_phase: whether one kernel in each period keeps all its taps (the PSD family).
        filter_phases: into how many groups with supports of their own the filters fall. The
            paper's patterns have as many as the period; with 1 all filters share their supports.
    """

    support_size: int
    period: int
    dense_phase: bool
    filter_phases: int

    @classmethod
    def parse(cls, name):
        """Returns the pattern called `name`, such as "PS4_P4", "PSD1_P16" or "PS2_P6_F1".

        Raises:
            UsageError: where `name` is no pattern's name.
        """
        match = _NAME.fullmatch(name) if isinstance(name, str) else None
        if not match:
            raise _unknown(name)
        size, period = int(match[2]), int(match[3])
        filter_phases = int(match[4] or period)
        dense_phase = match[1] == "D"
        if size not in _WINDOWS or filter_phases > period or (dense_phase and period < 2):
            raise _unknown(name)
        return cls(size, period, dense_phase, filter_phases)

    @property
    def name(self):
        family = f"PS{'D' if self.dense_phase else ''}{self.support_size}_P{self.period}"
        return family + (f"_F{self.filter_phases}" if self.filter_phases != self.period else "")

    def supports(self, kernel_size):
        """Returns the `period` windows kept in kernels of `kernel_size`, one for each phase.

        The supports of n taps are all windows of 1x1, 1x2 or 2x2 taps in row-major order, used in
        turn; in the PSD family phase 0 is the whole kernel and the turn starts at phase 1.

        Raises:
            UsageError: where the window is larger than the kernel.
        """
        rows, columns = kernel_size
        height, width = _WINDOWS[self.support_size]
        if height > rows or width > columns:
            raise UsageError(
                f"Pattern {self.name} keeps windows of {height}x{width} taps, which do not fit a "
                f"kernel of {rows}x{columns}. Use a larger kernel or a smaller support."
            )
        windows = [
            Window(top, left, height, width)
            for top in range(rows - height + 1)
            for left in range(columns - width + 1)
        ]
        if self.dense_phase:
            whole = Window(0, 0, rows, columns)
            return [whole] + [windows[q % len(windows)] for q in range(self.period - 1)]
        return [windows[q % len(windows)] for q in range(self.period)]

    def phase(self, channel_block, filter_block):
        """Returns the phase of kernels in a block of input channels and a block of filters.

        The paper gives kernel (i, j) the phase (i + j) mod P, so that filter i is filter 0 rotated
        by i. Here channels and filters of equal remainder stand next to each other, as blocks:
        the same family of networks up to the order of channels and filters, in which the kernels
        of a phase are a contiguous slice. With fewer filter phases than the period, those left
        are spread evenly over it.
        """
        return (channel_block + filter_block * self.period // self.filter_phases) % self.period

    def mask(self, kernel_size, channels, filters):
        """Returns bool [height, width, channels, filters], true where a weight exists."""
        kept = np.zeros((self.period, *kernel_size), bool)
        for q, (top, left, height, width) in enumerate(self.supports(kernel_size)):
            kept[q, top : top + height, left : left + width] = True
        channel_block = np.repeat(np.arange(self.period), np.diff(bounds(channels, self.period)))
        filter_block = np.repeat(
            np.arange(self.filter_phases), np.diff(bounds(filters, self.filter_phases))
        )
        phases = self.phase(channel_block[:, None], filter_block[None, :])
        return np.moveaxis(kept[phases], (0, 1), (2, 3))


def bounds(count, blocks):
    """Returns the blocks + 1 bounds that divide `count` items into blocks of near equal size.

    The first `count % blocks` blocks have one item more, as many as there are items of that
    remainder modulo `blocks`; blocks are empty where there are more of them than items.
    """
    sizes = [count // blocks + (block < count % blocks) for block in range(blocks)]
    return np.cumsum([0, *sizes])


def _unknown(name):
    return UsageError(
        "A pattern is PSn_Pp or PSDn_Pp with n taps per kernel (1, 2 or 4) and period p (PSD: at "
        "least 2), and optionally _Ff with f <= p filter phases, such as PS4_P4, PSD1_P16 or "
        f"PS2_P6_F1. Received: {name!r}"
    )
