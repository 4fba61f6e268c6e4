"""C programs of single layers, for this machine and for emulated ones."""

import importlib.util
import subprocess

import numpy as np
import pytest

from tflite.codegen.emulation import KERNELS, Program

HAS_BENCH = all(map(importlib.util.find_spec, ("ziglang", "unicorn", "elftools")))
emulated = pytest.mark.skipif(not HAS_BENCH, reason="the extra `bench` is not installed")

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]

_HEAD = """#include <stdlib.h>
#include <string.h>
#include "tfsparse_kernels.h"
#define ALIGNED __attribute__((aligned(4)))
"""

# Reads the inputs of all layers from standard input. Buffers are allocated to the byte, so that
# the sanitizer sees whatever is read or written outside them.
_MAIN = """#include <stdio.h>
int main(void) {
  for (unsigned i = 0; i < sizeof layers / sizeof *layers; i++) {
    const layer *at = layers + i;
    int8_t *input = malloc(at->input_bytes), *output = malloc(at->output_bytes);
    void *scratch = malloc(at->scratch_bytes);
    if (fread(input, 1, at->input_bytes, stdin) != at->input_bytes) return 1;
    at->run(input, output, scratch);
    fwrite(output, 1, at->output_bytes, stdout);
    free(input), free(output), free(scratch);
  }
  return 0;
}
"""


def convolution_source(name, packed):
    """Returns C: a function `name` that runs a `Packed` convolution."""
    text = "".join(array_source(f"{name}_{key}", value) for key, value in packed.arrays.items())
    fields = [
        f".{field} = {f'{name}_{value}' if isinstance(value, str) else int(value)}"
        for field, value in packed.fields.items()
    ]
    call = f"tfsparse_{packed.kernel}(input, &{name}_layer, output, scratch);"
    return (
        text
        + f"static const tfsparse_convolution {name}_layer = {{{', '.join(fields)}}};\n"
        + function_source(name, call)
    )


def array_source(name, array):
    numbers = ",".join(map(str, array.ravel().tolist()))
    return f"static const {array.dtype.name}_t {name}[] ALIGNED = {{{numbers}}};\n"


def function_source(name, call):
    head = f"static void {name}(const int8_t *input, int8_t *output, void *scratch)"
    return f"{head} {{\n  (void)scratch;\n  {call}\n}}\n"


def write_program(folder, layers):
    """Writes program.c: a table of layers, and `run_layer(index, input, output, scratch)`.

    Args:
        folder: where it goes.
        layers: [(function of the source, source, bytes of input, output, and scratch)].
    """
    table = [
        f"{{{name}, {', '.join(str(max(1, size)) for size in sizes)}}}"
        for name, _, *sizes in layers
    ]
    text = _HEAD + "".join(source for _, source, *_ in layers)
    text += "typedef struct { void (*run)(const int8_t *, int8_t *, void *);\n"
    text += "  size_t input_bytes, output_bytes, scratch_bytes; } layer;\n"
    text += f"static const layer layers[] = {{{', '.join(table)}}};\n"
    run = "void run_layer(int i, const int8_t *input, int8_t *output, void *scratch)"
    text += f"{run};\n{run} {{ layers[i].run(input, output, scratch); }}\n"
    (folder / "layers.c").write_text(text.replace("#include <stdlib.h>\n", "#include <stddef.h>\n"))
    (folder / "program.c").write_text(text + _MAIN)


def run_here(folder, sources, inputs, output_bytes, compiler=("cc",), flags=()):
    """Compiles program.c with all warnings, runs it, and returns the bytes of each output."""
    command = [*compiler, *STRICT, f"-I{KERNELS}", *flags, "-o", "program", "program.c", *sources]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run(
        [folder / "program"], input=b"".join(inputs), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(done.stdout) == sum(output_bytes)
    ends = np.cumsum(output_bytes)
    return [done.stdout[end - size : end] for end, size in zip(ends, output_bytes, strict=True)]


def emulate(folder, sources, target):
    """Returns layers.c as an emulated `Program`."""
    return Program([folder / "layers.c", *sources], target, "run_layer", ("-O3", *STRICT))
