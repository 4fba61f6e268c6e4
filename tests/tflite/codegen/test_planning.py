"""The plan of the buffer: nothing that is needed is overwritten, and little room is wasted."""

import numpy as np
import pytest

from tflite.codegen.planning import Block, plan


def check(blocks, distances, found):
    """Fails if two blocks that are needed together overlap without permission."""
    for i, a in enumerate(blocks):
        assert found.offsets[i] % 4 == 0
        assert 0 <= found.offsets[i] <= found.bytes - a.bytes
        for j, b in enumerate(blocks):
            together = i != j and a.first <= b.last and b.first <= a.last
            apart = (
                found.offsets[i] + a.bytes <= found.offsets[j]
                or found.offsets[j] + b.bytes <= found.offsets[i]
            )
            allowed = (i, j) in distances and (
                found.offsets[j] + distances[i, j] <= found.offsets[i]
            )
            allowed |= (j, i) in distances and (
                found.offsets[i] + distances[j, i] <= found.offsets[j]
            )
            assert not together or apart or allowed, (i, j)


@pytest.mark.parametrize("seed", range(8))
def test_random_networks(seed):
    rng = np.random.default_rng(seed)
    blocks, distances = [], {}
    for layer in range(12):
        last = min(11, layer + int(rng.integers(1, 4)))
        blocks.append(Block(int(rng.integers(1, 200)), layer, last))
        for other in range(layer):
            if blocks[other].last == layer and rng.random() < 0.7:
                distances[other, layer] = int(rng.integers(0, 50))
    found = plan(blocks, distances)
    check(blocks, distances, found)
    alone = plan(blocks, {})
    check(blocks, {}, alone)
    assert found.bytes <= alone.bytes
    live = max(sum(b.bytes for b in blocks if b.first <= t <= b.last) for t in range(12))
    assert live <= alone.bytes <= 1.25 * live + 16


def test_a_residual_block_takes_two_tensors():
    """x stays for the sum; the second convolution writes over its own input."""
    blocks = [Block(1000, 0, 2), Block(1000, 1, 2), Block(1000, 2, 3), Block(80, 2, 2)]
    assert plan(blocks, {(1, 2): 0}).bytes == 2080
    assert plan(blocks, {(1, 2): 40}).bytes == 2120
    assert plan(blocks, {}).bytes == 3080
