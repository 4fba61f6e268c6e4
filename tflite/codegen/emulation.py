"""Compiles C for microcontrollers, runs it in an emulator, and counts its instructions.

The emulator counts instructions, not cycles. It knows neither caches nor flash wait states.
"""

import importlib.util
import pathlib
import struct
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from tflite.codegen.cycles import BRANCH_REFILL, block_cycles
from tfsparse.errors import UsageError

KERNELS = pathlib.Path(__file__).parent / "kernels"
_SUPPORT = pathlib.Path(__file__).parent / "support.c"

_FLASH, _RAM, _MEGABYTES = 0x00010000, 0x20000000, 8 << 20
_RETURN = 0xFFFF0  # an address in a page of its own, outside the program
_STACK_BYTES = 64 << 10
_UNTOUCHED = 0xA5  # fills the stack before a call

_LINKER_SCRIPT = f"""
SECTIONS {{
  . = {_FLASH + 0x100000};
  .support : {{ *support.o(.text*) }}
  .text : {{ *(.text*) }}
  .rodata : {{ *(.rodata*) }}
  . = {_RAM};
  .data : {{ *(.data*) }}
  .bss : {{ *(.bss*) *(COMMON) }}
  /DISCARD/ : {{ *(.ARM*) *(.comment) *(.debug*) *(.eh_frame*) *(.note*) }}
}}
"""

# Targets without an operating system come without this header.
_STRING_H = """
#include <stddef.h>
void *memcpy(void *restrict, const void *restrict, size_t);
void *memset(void *, int, size_t);
"""


class Target(NamedTuple):
    """A processor: flags of the compiler, its name in the emulator, and whether it is an Arm."""

    flags: tuple
    model: str
    is_arm: bool = True


TARGETS = {
    "cortex-m4": Target(
        ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4"), "UC_CPU_ARM_CORTEX_M4"
    ),
    "cortex-m0": Target(
        ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0"), "UC_CPU_ARM_CORTEX_M0"
    ),
    "riscv32": Target(
        ("-target", "riscv32-freestanding", "-mcpu=generic_rv32+m+c"), "UC_CPU_RISCV32_ANY", False
    ),
}


class Run(NamedTuple):
    """What a call took.

    Attributes:
        instructions: all instructions, those of called functions included.
        cycles: of an Arm, estimated from them; see tflite/codegen/cycles.py. Otherwise 0.
        calls: [(function, instructions)] for the functions that were watched, in order; each gets
            all instructions until the next one is entered.
        stack_bytes: the high-water mark of the stack.
        result: what the function returned, an unsigned integer.
    """

    instructions: int
    cycles: int
    calls: list
    stack_bytes: int
    result: int


def compile_sources(sources, target, folder, flags=("-O3",)):
    """Compiles C files to object files.

    Args:
        sources: paths of .c files.
        target: a key of `TARGETS`.
        folder: where the object files go.
        flags: further flags of the compiler; the folder of the kernels is included.

    Returns:
        The paths of the object files.

    Raises:
        UsageError: if the compiler is not installed or refuses a file; the message has its first
            error.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise UsageError("The cross compiler is not installed. Run: pip install 'tfsparse[bench]'")
    (pathlib.Path(folder) / "string.h").write_text(_STRING_H)
    base = [*_zig(), *TARGETS[target].flags, "-std=c99", f"-I{folder}", f"-I{KERNELS}"]
    base += ["-fbuiltin", "-ffunction-sections", "-fdata-sections", *flags]
    objects = []
    for source in map(pathlib.Path, sources):
        objects.append(pathlib.Path(folder) / f"{source.stem}.o")
        _run([*base, "-c", str(source), "-o", str(objects[-1])])
    return objects


def _zig():
    return [sys.executable, "-m", "ziglang", "cc"]


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        first = next((line for line in lines if "error" in line), (*lines, "no message")[0])
        raise UsageError(f"The compiler failed: {first.strip()}")


class Program:
    """C files as a program for a microcontroller without an operating system, in an emulator.

    Args:
        sources: paths of .c files, without `main`.
        target: a key of `TARGETS`.
        entry: a function that is called; with what it calls, it is the program.
        flags: of the compiler.

    Attributes:
        flash_bytes: code and constants, and the initial values of variables; without memcpy and
            memset.
        code_bytes: code alone.
        symbols: {name: address}.

    Raises:
        UsageError: if the sources cannot be compiled or linked.
    """

    def __init__(self, sources, target="cortex-m4", entry="main", flags=("-O3",)):
        self.target = target
        with tempfile.TemporaryDirectory() as folder:
            elf = _link(sources, target, entry, flags, pathlib.Path(folder))
        self._segments, self.symbols, self.code_bytes, self.flash_bytes = _read(elf)
        self._machine = _Machine(self._segments, TARGETS[target])
        self._free = _RAM + (1 << 20)

    def place(self, array):
        """Copies an array to the emulated RAM and returns its address."""
        data = np.ascontiguousarray(array).tobytes()
        address = -(-self._free // 16) * 16
        self._free = address + len(data) + 16
        self._machine.write(address, data)
        return address

    def read(self, address, shape, dtype=np.int8):
        """Returns an array copied from the emulated memory."""
        count = int(np.prod(shape))
        data = self._machine.read(address, count * np.dtype(dtype).itemsize)
        return np.frombuffer(data, dtype).reshape(shape)

    def write(self, address, array):
        """Copies an array to an address."""
        self._machine.write(address, np.ascontiguousarray(array).tobytes())

    def call(self, function, *arguments, watched=()):
        """Calls a function with integers and addresses and returns a `Run`.

        Args:
            function: its name.
            *arguments: integers.
            watched: names of functions whose instructions are counted apart.

        Raises:
            UsageError: if the program reads or writes outside its memory.
        """
        names = {self.symbols[name] & ~1: name for name in watched if name in self.symbols}
        return self._machine.call(self.symbols[function], arguments, names)


def _link(sources, target, entry, flags, folder):
    objects = compile_sources(sources, target, folder, flags)
    objects += compile_sources([_SUPPORT], target, folder, ("-O2", "-fno-builtin"))
    script = folder / "program.ld"
    script.write_text(_LINKER_SCRIPT)
    elf = folder / "program.elf"
    options = ["-nostdlib", "-Wl,--gc-sections", f"-Wl,--entry={entry}", f"-Wl,-T,{script}"]
    _run([*_zig(), *TARGETS[target].flags, *options, *map(str, objects), "-o", str(elf)])
    return elf.read_bytes()


def _read(content):
    """Returns segments, addresses of symbols, bytes of functions, and bytes of flash of an ELF."""
    import io

    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(content))
    segments = [
        (segment["p_vaddr"], segment.data())
        for segment in elf.iter_segments()
        if segment["p_type"] == "PT_LOAD"
    ]
    support = elf.get_section_index(".support")
    symbols, functions = {}, {}  # by address: static functions of several files share a name
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        symbols[symbol.name] = symbol["st_value"]
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != support:
            functions[symbol["st_value"]] = symbol["st_size"]
    sections = filter(None, map(elf.get_section_by_name, (".text", ".rodata", ".data")))
    flash = sum(section["sh_size"] for section in sections)
    return segments, symbols, sum(functions.values()), flash


class _Processor(NamedTuple):
    """What the emulator calls the parts of a processor that a call needs."""

    arch: int
    mode: int
    arguments: list  # the registers of a function's first arguments; its result is in the first
    stack_pointer: int
    return_address: int
    program_counter: int
    code_bit: int  # which the addresses of functions have set


def _processor(target):
    """Returns the `_Processor` of a `Target`, and its model in the emulator."""
    import unicorn
    from unicorn import arm_const as arm
    from unicorn import riscv_const as riscv

    if target.is_arm:
        arguments = [arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3]
        mode = unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
        registers = arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR, arm.UC_ARM_REG_PC
        found = _Processor(unicorn.UC_ARCH_ARM, mode, arguments, *registers, 1)
        return found, getattr(arm, target.model)
    arguments = [riscv.UC_RISCV_REG_A0 + index for index in range(8)]
    registers = riscv.UC_RISCV_REG_SP, riscv.UC_RISCV_REG_RA, riscv.UC_RISCV_REG_PC
    found = _Processor(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32, arguments, *registers, 0)
    return found, getattr(riscv, target.model)


class _Machine:
    """The emulated processor and its memory."""

    def __init__(self, segments, target):
        import unicorn

        self._target = target
        self._processor, model = _processor(target)
        self._error = unicorn.UcError
        self._uc = unicorn.Uc(self._processor.arch, self._processor.mode)
        self._uc.ctl_set_cpu_model(model)
        self._uc.mem_map(0, 32 << 20)
        self._uc.mem_map(_RAM, _MEGABYTES)
        for address, data in segments:
            self._uc.mem_write(address, data)
        self._blocks = {}  # instructions and cycles by address and bytes of a block
        self._uc.hook_add(unicorn.UC_HOOK_BLOCK, self._enter)

    def write(self, address, data):
        self._uc.mem_write(address, data)

    def read(self, address, count):
        return bytes(self._uc.mem_read(address, count))

    def _enter(self, uc, address, size, _):
        name = self._watched.get(address)
        if name is not None:
            self._calls.append((name, self._count))
        block = (address, size)
        if block not in self._blocks:
            code = uc.mem_read(address, size)
            is_arm = self._target.is_arm
            cycles = block_cycles(code) if is_arm else 0
            self._blocks[block] = _instructions(code, is_arm), cycles
        count, cycles = self._blocks[block]
        self._count += count
        self._cycles += cycles + BRANCH_REFILL * (self._target.is_arm and address != self._next)
        self._next = address + size

    def call(self, address, arguments, watched):
        uc, processor = self._uc, self._processor
        top = _RAM + _MEGABYTES - 4096
        uc.mem_write(top - _STACK_BYTES, bytes([_UNTOUCHED]) * _STACK_BYTES)
        words = [argument & 0xFFFFFFFF for argument in arguments]
        rest = words[len(processor.arguments) :]
        stack = top - (-(-len(rest) // 4) * 16)
        uc.mem_write(stack, struct.pack(f"<{len(rest)}I", *rest))
        for register, word in zip(processor.arguments, words, strict=False):
            uc.reg_write(register, word)
        uc.reg_write(processor.stack_pointer, stack)
        uc.reg_write(processor.return_address, _RETURN | processor.code_bit)
        self._count, self._cycles, self._next = 0, 0, None
        self._calls, self._watched = [], watched
        try:
            uc.emu_start(address | processor.code_bit, _RETURN)
        except self._error as error:
            place = uc.reg_read(processor.program_counter)
            raise UsageError(f"The program failed at address {place:#x}: {error}") from error
        ends = [*[start for _, start in self._calls], self._count][1:]
        pairs = zip(self._calls, ends, strict=False)
        calls = [(name, end - start) for (name, start), end in pairs]
        untouched = uc.mem_read(top - _STACK_BYTES, _STACK_BYTES)
        depth = len(untouched) - next(
            (i for i, byte in enumerate(untouched) if byte != _UNTOUCHED), len(untouched)
        )
        result = uc.reg_read(processor.arguments[0])
        return Run(self._count, self._cycles, calls, depth, result)


def _instructions(code, is_arm):
    """Returns how many instructions, of 2 or 4 bytes each, are in a block of code.

    An instruction of four bytes begins in Thumb with 0b11101, 0b11110, or 0b11111, the highest bits
    of its first half, and in RISC-V ends with 0b11, the lowest bits of it.
    """
    at, count = 0, 0
    while at < len(code):
        at += 4 if (code[at + 1] >= 0xE8 if is_arm else code[at] & 3 == 3) else 2
        count += 1
    return count
