"""The kernel of softmax: its bits are those of LiteRT."""

import ctypes
import functools
import pathlib
import subprocess
import tempfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite.codegen import reference
from tests.tflite.codegen.programs import STRICT
from tflite.codegen import emulation, host
from tflite.codegen.softmax import exponentials

pytestmark = pytest.mark.skipif(host.compiler() is None, reason="no C compiler")


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("count", [2, 10, 511])
def test_softmax(beta, scale, count):
    """As LiteRT's, whose polynomial and Newton's method in fixed point it follows."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, [[5], [40], [90]], (3, count)).clip(-128, 127).astype(np.int8)
    options = schema.SoftmaxOptionsT()
    options.beta = beta
    tensors = [reference.tensor((1, count), scale, 3)]
    output = reference.tensor((1, count), 1 / 256, -128)
    expected = [reference.run("SOFTMAX", options, tensors, output, [row[None]]) for row in values]
    found = softmax_library()(values, exponentials(scale, beta))
    np.testing.assert_array_equal(found, np.concatenate(expected))


@functools.cache
def softmax_library():
    """The kernel as a function of int8 [n, count] and its table."""
    folder = pathlib.Path(tempfile.mkdtemp())
    command = [
        *host.compiler(),
        "-shared",
        "-fPIC",
        *STRICT,
        f"-I{emulation.KERNELS}",
    ]
    source, library = emulation.KERNELS / "softmax.c", folder / "softmax.so"
    subprocess.run([*command, source, "-o", library], check=True)
    kernel = ctypes.CDLL(str(library)).tfsparse_softmax

    def call(values, table):
        rows = [np.ascontiguousarray(row) for row in values]
        for row in rows:
            kernel(
                row.ctypes.data_as(ctypes.c_void_p),
                table.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_int32(len(row)),
                row.ctypes.data_as(ctypes.c_void_p),
            )
        return np.stack(rows)

    return call
