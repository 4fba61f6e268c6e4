"""Where each tensor lies in the one buffer of a network.

Tensors that are needed at the same time lie apart, with one exception: a kernel that is done with
the first rows of its input before it writes over them lets its output begin `distance` bytes
before its input, or earlier, if nothing else reads that input later.

The order in which tensors are placed decides how much room they take. Larger ones first is a good
one; some others are tried, too.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

_ALIGNMENT = 4
_TRIALS = 200


class Block(NamedTuple):
    """A tensor, or the scratch memory of a layer: bytes, and the first and last layer that need it.

    The image is needed from layer -1 on.
    """

    bytes: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Offsets in bytes of the blocks in the buffer, and the size of the buffer."""

    offsets: list
    bytes: int


def plan(blocks, distances):
    """Returns the smallest `Plan` found for a list of `Block`s.

    Args:
        blocks: list of `Block`s.
        distances: {(input, output): bytes}: blocks of which the output may begin that many bytes
            before the input or earlier, although they overlap.
    """
    together = _together(blocks)
    least = _least(blocks, together, distances)
    by_size = sorted(range(len(blocks)), key=lambda i: (-blocks[i].bytes, blocks[i].first))
    by_time = sorted(range(len(blocks)), key=lambda i: (blocks[i].first, -blocks[i].bytes))
    rng, best = np.random.default_rng(0), None
    for trial in range(_TRIALS):
        order = [by_size, by_time, by_time[::-1]][trial] if trial < 3 else _shaken(blocks, rng)
        found = _place(blocks, order, together, distances)
        if best is None or found.bytes < best.bytes:
            best = found
        if best.bytes == least:
            break
    return best


def _together(blocks):
    """Returns for each block the others that are needed at the same time."""
    return [
        [
            j
            for j, other in enumerate(blocks)
            if j != i and other.first <= block.last and block.first <= other.last
        ]
        for i, block in enumerate(blocks)
    ]


def _least(blocks, together, distances):
    """Returns a number of bytes that no plan can go below."""
    least = 0
    for block in blocks:
        for moment in (block.first, block.last):
            alive = [i for i, each in enumerate(blocks) if each.first <= moment <= each.last]
            total = sum(_aligned(blocks[i].bytes) for i in alive)
            shared = (
                min(_aligned(blocks[a].bytes), _aligned(blocks[b].bytes)) - distance
                for (a, b), distance in distances.items()
                if a in alive and b in alive
            )
            least = max(least, total - max(0, *shared, 0))
    return least


def _shaken(blocks, rng):
    """Returns an order by size in which sizes are off by up to a factor of 2."""
    factors = np.exp2(rng.uniform(-1, 1, len(blocks)))
    sizes = np.array([block.bytes for block in blocks]) * factors
    return np.argsort(-sizes, kind="stable").tolist()


def _place(blocks, order, together, distances):
    """Places blocks one after the other, each at the lowest offset where it may lie."""
    offsets = {}
    for index in order:
        placed = [(other, offsets[other]) for other in together[index] if other in offsets]
        candidates = {0}
        for other, offset in placed:
            candidates.add(_aligned(offset + blocks[other].bytes))
            if (other, index) in distances:  # `index` is the output
                candidates.add((offset - distances[other, index]) // _ALIGNMENT * _ALIGNMENT)
            if (index, other) in distances:
                candidates.add(_aligned(offset + distances[index, other]))
        offsets[index] = min(
            each
            for each in candidates
            if each >= 0
            and all(_may_lie(blocks, distances, index, each, *other) for other in placed)
        )
    size = max((offsets[i] + block.bytes for i, block in enumerate(blocks)), default=0)
    return Plan([offsets[i] for i in range(len(blocks))], _aligned(size))


def _may_lie(blocks, distances, index, offset, other, other_offset):
    if offset + blocks[index].bytes <= other_offset:
        return True
    if other_offset + blocks[other].bytes <= offset:
        return True
    if (index, other) in distances:
        return other_offset <= offset - distances[index, other]
    if (other, index) in distances:
        return offset <= other_offset - distances[other, index]
    return False


def _aligned(size):
    return -(-size // _ALIGNMENT) * _ALIGNMENT
