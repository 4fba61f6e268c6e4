"""Shifts against ten lines of NumPy, values and gradients, in both ways."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfsparse.shifts import Offset, by_depthwise_convolution, shift


def reference(inputs, offsets, before, sizes, strides):
    """Returns what `shift` says it returns."""
    outputs = np.zeros((len(inputs), *sizes, inputs.shape[-1]), inputs.dtype)
    for start, stop, top, left in offsets:
        for r in range(sizes[0]):
            for c in range(sizes[1]):
                i, j = r + top - before[0], c + left - before[1]
                if 0 <= i < inputs.shape[1] and 0 <= j < inputs.shape[2]:
                    outputs[:, r, c, start:stop] = inputs[:, i, j, start:stop]
    return outputs[:, :: strides[0], :: strides[1]]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("xla", [False, True], ids=["depthwise", "slices"])
def test_shift(seed, xla):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(2, *rng.integers(1, 8, 2), 7)).astype(np.float32)
    bounds = sorted({0, 7, *rng.integers(0, 8, rng.integers(0, 4)).tolist()})
    offsets = [
        Offset(start, stop, *rng.integers(0, 4, 2).tolist())
        for start, stop in itertools.pairwise(bounds)
    ]
    before, sizes = rng.integers(0, 5, 2).tolist(), rng.integers(1, 9, 2).tolist()
    strides = tuple([(1, 1), (1, 1), (2, 2), (1, 3)][rng.integers(4)])
    arguments = offsets, before, sizes, strides
    expected = reference(inputs, *arguments)
    upstream = rng.normal(size=expected.shape).astype(np.float32)
    ways = []

    @tf.function(jit_compile=xla)
    def both(x):
        ways.append(by_depthwise_convolution())
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = shift(x, *arguments)
        return outputs, tape.gradient(outputs, x, upstream)

    outputs, gradient = both(tf.constant(inputs))
    assert set(ways) == {not xla}
    np.testing.assert_array_equal(outputs, expected)
    # A shift is linear: the product of its outputs with `upstream` is that of inputs and gradient.
    for _ in range(3):
        other = rng.normal(size=inputs.shape).astype(np.float32)
        np.testing.assert_allclose(
            np.sum(reference(other, *arguments) * upstream), np.sum(other * gradient), atol=1e-4
        )
