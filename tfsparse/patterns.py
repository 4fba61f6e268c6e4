"""Kernel patterns: which taps of which kernel exist. NumPy only.

A convolution kernel of height x width taps belongs to one input channel j and one filter i. A
pattern keeps some taps in each, its *support*. In a periodic pattern, kernels are divided into as
many *phases* as the period P, and all kernels of a phase share one support.

Source: Kundu, Nazemi, Pedram, Chugg, Beerel, "Pre-defined Sparsity for Low-Complexity Convolutional
Neural Networks", IEEE Trans. Computers 69(7), 2020, arXiv 2001.10710; the families PS, PSD and pSC.
Support sizes other than 1, 2 and 4, kernels other than 3x3, supports of one's own and fewer filter
phases than the period are ours.
"""

import dataclasses
import re
from operator import index
from typing import Any, TypeAlias

import numpy as np

from tfsparse.errors import UsageError

_PERIODIC = re.compile(r"PS(D?)([1-9]\d?)_P([1-9]\d{0,3})(?:_F([1-9]\d{0,3}))?")
_RANDOM = re.compile(r"pSC([1-9]\d?)(?:_S(0|[1-9]\d{0,8}))?")


def parse(pattern: "Specification") -> "Pattern | RandomPattern":
    """Returns the pattern that a name, or what `Pattern.config` returned, stands for.

    Args:
        pattern: "PSn_Pp": n taps in every kernel, period p. "PSDn_Pp": one kernel in each period
            keeps all its taps, the others n. Either with "_Ff": f filter phases instead of p.
            "pSCn": n random taps in each kernel, not periodic; "pSCn_Ss" with seed s instead of 0.
            A dict {"supports": [[[row, column], ...], ...], "filter_phases": f}: supports of one's
            own, one list of taps for each phase. A pattern is returned as it is.

    Returns:
        A `Pattern` or, of pSCn, a `RandomPattern`.

    Raises:
        UsageError: if it is none of these.
    """
    if isinstance(pattern, (Pattern, RandomPattern)):
        return pattern
    if isinstance(pattern, dict):
        return _parse_supports(pattern)
    name = pattern if isinstance(pattern, str) else ""
    if match := _RANDOM.fullmatch(name):
        return RandomPattern(int(match[1]), int(match[2] or 0))
    if match := _PERIODIC.fullmatch(name):
        period = int(match[3])
        filter_phases = int(match[4] or period)
        if filter_phases <= period and (not match[1] or period > 1):
            return Pattern(period, filter_phases, int(match[2]), match[1] == "D")
    raise UsageError(
        "A pattern is PSn_Pp or PSDn_Pp with n taps per kernel and period p (PSD: at least 2), "
        "optionally with _Ff for f <= p filter phases, or pSCn with n random taps per kernel; such "
        f"as PS4_P4, PSD1_P16, PS2_P6_F1 or pSC4. Received: {pattern!r}"
    )


def _parse_supports(config):
    try:
        supports = tuple(
            tuple(sorted({(index(row), index(column)) for row, column in support}))
            for support in config["supports"]
        )
        filter_phases = index(config.get("filter_phases", len(supports)))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            'A pattern of supports is {"supports": [[[row, column], ...], ...], "filter_phases": '
            f"number}}. Received: {config!r}"
        ) from error
    if not all(supports) or not 1 <= filter_phases <= len(supports):
        raise UsageError(
            "Each support needs at least one tap, and there are 1 to as many filter phases as "
            f"supports. Received: {config!r}"
        )
    if min(min(tap) for support in supports for tap in support) < 0:
        raise UsageError(f"Taps are counted from (0, 0). Received: {config!r}")
    return Pattern(len(supports), filter_phases, taps=supports)


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A periodic pattern; `parse` makes one.

    Attributes:
        period: number of phases (P).
        filter_phases: number of groups of filters with supports of their own. The paper's patterns
            have as many as the period; with 1, all filters share their supports.
        support_size: taps kept in each kernel (n; the paper's KSS), or None.
        dense_phase: whether one kernel in each period keeps all its taps (the PSD family).
        taps: supports of one's own, a tuple of (row, column) pairs for each phase, or None.
    """

    period: int
    filter_phases: int
    support_size: int | None = None
    dense_phase: bool = False
    taps: tuple[tuple[tuple[int, int], ...], ...] | None = None

    def __str__(self) -> str:
        """The pattern's name, or "custom_Pp" for supports of one's own."""
        family = "custom" if self.taps else f"PS{'D' if self.dense_phase else ''}"
        size = self.support_size or ""
        phases = f"_F{self.filter_phases}" if self.filter_phases != self.period else ""
        return f"{family}{size}_P{self.period}{phases}"

    @property
    def config(self) -> str | dict[str, Any]:
        """What `parse` makes this pattern from again, in JSON's types."""
        if not self.taps:
            return str(self)
        supports = [[list(tap) for tap in support] for support in self.taps]
        return {"supports": supports, "filter_phases": self.filter_phases}

    def supports(self, kernel_size: tuple[int, int]) -> list[tuple[tuple[int, int], ...]]:
        """Returns what is kept in kernels of `kernel_size`, for each of the `period` phases.

        Phases take the supports of n taps in turn: all windows of the most square shape with n taps
        that fits the kernel (2x2, 1x2; of two such shapes, the wider), in row-major order. If no
        rectangle has n taps, as with 5 in a 3x3 kernel, they are the runs of n taps in row-major
        order that start at each tap and wrap around. In the PSD family phase 0 is the whole kernel
        and the turn starts at phase 1.

        Returns:
            List of `period` tuples of (row, column) pairs, in row-major order.

        Raises:
            UsageError: if a support does not fit the kernel.
        """
        rows, columns = kernel_size
        if self.taps:
            for row, column in (tap for support in self.taps for tap in support):
                if row >= rows or column >= columns:
                    raise UsageError(
                        f"The pattern's tap ({row}, {column}) is outside a kernel of "
                        f"{rows}x{columns}. Use a larger kernel or other supports."
                    )
            return list(self.taps)
        variants = _supports_of(self.support_size, rows, columns)
        if not variants:
            raise _too_large(self, rows, columns)
        if self.dense_phase:
            whole = _rectangle(0, 0, rows, columns)
            return [whole] + [variants[q % len(variants)] for q in range(self.period - 1)]
        return [variants[q % len(variants)] for q in range(self.period)]

    def phase(self, channel_block: Any, filter_block: Any) -> Any:
        """Returns the phase of kernels in a block of input channels and a block of filters.

        The paper gives kernel (i, j) the phase (i + j) mod P, so that filter i is filter 0 rotated
        by i. Here channels and filters of equal remainder stand next to each other, as blocks:
        the same family of networks up to the order of channels and filters, in which the kernels
        of a phase are a contiguous slice. If there are fewer filter phases than the period, they
        are spread evenly over it.
        """
        return (channel_block + filter_block * self.period // self.filter_phases) % self.period

    def mask(self, kernel_size: tuple[int, int], channels: int, filters: int) -> np.ndarray:
        """Returns bool [height, width, channels, filters], true where a weight exists."""
        kept = np.zeros((self.period, *kernel_size), bool)
        for q, support in enumerate(self.supports(kernel_size)):
            kept[q][tuple(zip(*support, strict=True))] = True
        channel_block = np.repeat(np.arange(self.period), np.diff(bounds(channels, self.period)))
        filter_block = np.repeat(
            np.arange(self.filter_phases), np.diff(bounds(filters, self.filter_phases))
        )
        phases = self.phase(channel_block[:, None], filter_block[None, :])
        return np.moveaxis(kept[phases], (0, 1), (2, 3))


@dataclasses.dataclass(frozen=True)
class RandomPattern:
    """The paper's baseline pSCn: `support_size` taps of each kernel, drawn at random from `seed`.

    Kernels of equal size, channels and filters have equal taps.
    """

    support_size: int
    seed: int = 0

    def __str__(self) -> str:
        return f"pSC{self.support_size}" + (f"_S{self.seed}" if self.seed else "")

    @property
    def config(self) -> str:
        return str(self)

    def mask(self, kernel_size: tuple[int, int], channels: int, filters: int) -> np.ndarray:
        """Returns bool [height, width, channels, filters], true where a weight exists.

        Raises:
            UsageError: if a kernel has fewer taps.
        """
        rows, columns = kernel_size
        if self.support_size > rows * columns:
            raise _too_large(self, rows, columns)
        rng = np.random.default_rng([self.seed, rows, columns, channels, filters])
        # The ranks of random numbers are a random permutation of the taps of each kernel.
        ranks = rng.random((rows * columns, channels, filters)).argsort(axis=0).argsort(axis=0)
        return (ranks < self.support_size).reshape(rows, columns, channels, filters)


# What `parse` takes.
Specification: TypeAlias = str | dict[str, Any] | Pattern | RandomPattern


def bounds(count: int, blocks: int) -> np.ndarray:
    """Returns the blocks + 1 bounds that divide `count` items into blocks of near equal size.

    The first `count % blocks` blocks have one item more: as many as there are items of that
    remainder modulo `blocks`; if there are more blocks than items, some are empty.
    """
    sizes = [count // blocks + (block < count % blocks) for block in range(blocks)]
    return np.cumsum([0, *sizes])


def _too_large(pattern, rows, columns):
    return UsageError(
        f"Pattern {pattern} keeps {pattern.support_size} taps, which do not fit a kernel of "
        f"{rows}x{columns}. Use a larger kernel or a smaller support."
    )


def _rectangle(top, left, height, width):
    return tuple((top + u, left + v) for u in range(height) for v in range(width))


def _supports_of(size, rows, columns):
    """Returns all supports of `size` taps in a kernel; see `Pattern.supports`."""
    shapes = [(height, size // height) for height in range(1, size + 1) if size % height == 0]
    for height, width in sorted(shapes, key=lambda shape: (abs(shape[0] - shape[1]), shape)):
        if height <= rows and width <= columns:
            return [
                _rectangle(top, left, height, width)
                for top in range(rows - height + 1)
                for left in range(columns - width + 1)
            ]
    taps = _rectangle(0, 0, rows, columns)
    if size > len(taps):
        return []
    return [tuple(sorted((taps + taps)[start : start + size])) for start in range(len(taps))]
