"""What a generated package takes on an emulated Cortex-M4: instructions, flash, RAM, by layer.

The emulator counts instructions. Cycles are estimated from them (tflite/codegen/cycles.py).
"""

import dataclasses
import pathlib

import numpy as np

from tflite.codegen import emulation
from tflite.codegen.writing import shortened
from tfsparse import tables
from tfsparse.errors import UsageError

MEGAHERTZ = 120  # of the processors on which MLPerf Tiny's results are published


@dataclasses.dataclass
class Measured:
    """What one inference takes.

    Attributes:
        instructions: of all layers, on the emulated processor.
        cycles: estimated from Arm's published timings.
        flash: bytes of code and constants, without memcpy and memset.
        code: bytes of the code alone.
        buffer: bytes of the one buffer, with the image and all scratch memory.
        stack: bytes, the high-water mark.
        layers: list of dicts: "operators", "kernel", "macs", "instructions", "flash" of constants.
    """

    instructions: int
    cycles: int
    flash: int
    code: int
    buffer: int
    stack: int
    layers: list

    @property
    def ram(self):
        """Bytes of the buffer and the stack."""
        return self.buffer + self.stack

    @property
    def milliseconds(self):
        """Estimated time at `MEGAHERTZ`."""
        return self.cycles / (1000 * MEGAHERTZ)


def measure(package, folder):
    """Runs a package on an emulated Cortex-M4 for its first image and returns its `Measured`.

    Args:
        package: the `tflite.codegen.package.Package`.
        folder: where its sources are.

    Raises:
        UsageError: if the compiler or the emulator is not installed, or the logits differ.
    """
    program, image, logits = package.program, package.images[0], package.logits[0]
    sources = sorted(set(pathlib.Path(folder).glob("*.c")) - {pathlib.Path(folder, "self_test.c")})
    entry = f"{package.prefix}_run"
    machine = emulation.Program(sources, "cortex-m4", entry)
    place, result = machine.place(image), machine.place(np.zeros(len(logits), np.int8))
    watched = {f"{package.prefix}_{call.kernel}" for call in program.calls}
    run = machine.call(entry, place, result, watched=sorted(watched))
    if run.result != 0 or not np.array_equal(machine.read(result, len(logits)), logits):
        raise UsageError("On the emulated Cortex-M4, the logits are not those of LiteRT.")
    counts = iter(run.calls)
    layers = []
    for call in program.calls:
        spent = sum(next(counts)[1] for _ in call.arguments)
        layers.append(
            {
                "operators": shortened(call.layer.title),
                "kernel": call.kernel,
                "macs": call.macs,
                "instructions": spent,
                "flash": call.flash_bytes,
            }
        )
    return Measured(
        run.instructions,
        run.cycles,
        machine.flash_bytes,
        machine.code_bytes,
        program.plan.bytes,
        run.stack_bytes,
        layers,
    )


def table(measured):
    """Returns the table of the layers and of the whole network, a str of lines."""
    rows = [["operators", "kernel", "MACs", "instructions", "per MAC", "flash"]]
    total = {
        "operators": "all",
        "kernel": "",
        "macs": sum(each["macs"] for each in measured.layers),
    }
    total |= {"instructions": measured.instructions, "flash": measured.flash}
    for each in (*measured.layers, total):
        ratio = each["instructions"] / each["macs"] if each["macs"] else None
        rows.append(
            [
                each["operators"],
                each["kernel"],
                f"{each['macs']:,}" if each["macs"] else "",
                f"{each['instructions']:,}",
                "" if ratio is None else f"{ratio:.2f}",
                f"{each['flash']:,}" if each["flash"] else "",
            ]
        )
    return (
        f"{tables.aligned(rows, left=2)}\n\n"
        f"Flash of all: {measured.code:,} bytes of code and "
        f"{measured.flash - measured.code:,} of constants.\n"
        f"RAM: {measured.buffer:,} bytes of buffer and {measured.stack:,} of stack.\n"
        f"Estimate: {measured.cycles:,} cycles, {measured.milliseconds:.1f} ms at {MEGAHERTZ} MHz, "
        "from Arm's published timings of the Cortex-M4, without wait states of flash."
    )
