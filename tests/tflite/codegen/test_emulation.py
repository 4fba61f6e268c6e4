"""Counting instructions in an emulator."""

import itertools

import numpy as np
import pytest

from tests.tflite.codegen import programs
from tflite.codegen.emulation import Program
from tfsparse.errors import UsageError

pytestmark = programs.emulated

SOURCE = r"""
static volatile int touched;
__attribute__((noinline)) int twice(int x) { touched++; return 2 * x; }
__attribute__((noinline)) int largest(const signed char *x, int n) {
  int found = -128;
  for (int i = 0; i < n; i++) if (x[i] > found) found = x[i];
  return found;
}
__attribute__((noinline)) int work(const signed char *x, int n, int a, int b, int c, int d) {
  volatile char local[100];
  for (int i = 0; i < 100; i++) local[i] = (char)i;
  return largest(x, n) + twice(a) + twice(b) + 10 * c + 100 * d + local[0];
}
__attribute__((naked, noinline)) void counted(void) {
#ifdef __arm__
  __asm__("movs r0, #3\n 1: subs r0, #1\n add.w r1, r1, #1\n bne 1b\n cmp r0, #1\n it eq\n"
          "addeq r1, #1\n bx lr\n");
#else  // RISC-V; c.addi has two bytes, the others four
  __asm__(".option push\n .option norvc\n li a0, 3\n 1: addi a0, a0, -1\n .option pop\n"
          "c.addi a1, 1\n .option norvc\n bnez a0, 1b\n ret\n");
#endif
}
void entry(void) { counted(); work(0, 0, 0, 0, 0, 0); }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("arm"), "cortex-m4")


@pytest.fixture(scope="module")
def riscv_program(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("riscv"), "riscv32")


def compiled(folder, target):
    (folder / "source.c").write_text(SOURCE)
    return Program([folder / "source.c"], target, "entry", ("-O2",))


@pytest.mark.parametrize("target", ["program", "riscv_program"])
def test_arguments_memory_and_result(target, request):
    program = request.getfixturevalue(target)
    x = np.array([5, -3, 17, 0], np.int8)
    address = program.place(x)
    run = program.call("work", address, 4, 1, 2, 3, 4)
    assert run.result == 17 + 2 + 4 + 30 + 400
    assert np.array_equal(program.read(address, 4), x)
    assert 100 < run.stack_bytes < 250


def test_every_instruction_is_counted(program):
    """3 rounds of 3 instructions, and 5 others; a skipped one takes its turn, too."""
    assert program.call("counted").instructions == 1 + 3 * 3 + 4


def test_every_instruction_of_risc_v_is_counted(riscv_program):
    assert riscv_program.call("counted").instructions == 1 + 3 * 3 + 1
    assert riscv_program.call("counted").cycles == 0  # no timings of a RISC-V are known here


def test_blocks_add_up_to_instructions(program):
    """Against the emulator's own hook of single instructions, which leaves out skipped ones."""
    import unicorn

    address = program.place(np.arange(100, dtype=np.int8))
    addresses = []
    program._machine._uc.ctl_flush_tb()  # code that has run already would have no hook
    hook = program._machine._uc.hook_add(
        unicorn.UC_HOOK_CODE, lambda _uc, at, _size, _data: addresses.append(at)
    )
    run = program.call("work", address, 100, 1, 2, 3, 4)
    program._machine._uc.hook_del(hook)
    skipped = sum(_skipped(program, addresses))
    assert run.instructions == len(addresses) + skipped
    assert skipped < len(addresses) / 5


def _skipped(program, addresses):
    """Yields how many instructions were skipped after each if-then instruction."""
    for at, following in itertools.pairwise(addresses):
        code = program.read(at, 2, np.uint8)
        if code[1] == 0xBF and code[0] & 15 and following > at + 2:  # if-then
            yield _count(program, at + 2, following)


def _count(program, start, stop):
    count = 0
    while start < stop:
        start += 4 if program.read(start, 2, np.uint8)[1] >= 0xE8 else 2
        count += 1
    return count


def test_watched_functions(program):
    run = program.call("work", program.place(np.zeros(4)), 4, 1, 2, 3, 4, watched=("twice",))
    assert [name for name, _ in run.calls] == ["twice", "twice"]
    assert 0 < sum(count for _, count in run.calls) < run.instructions


def test_sizes(program):
    assert 7 * 2 + 4 <= program.code_bytes <= program.flash_bytes < 1000


@pytest.mark.parametrize("second", ["helper", "another"])
def test_static_functions_of_the_same_name_are_counted_each(second, tmp_path):
    for file, name in (("a", "helper"), ("b", second)):
        body = f"__attribute__((noinline)) static int {name}(int x) {{ return x * x + 77777; }}"
        call = f"int {file}(int x) {{ return {name}(x) + {name}(x + 1); }}"
        (tmp_path / f"{file}.c").write_text(f"{body}\n{call}\n")
    entry = "int a(int), b(int);\nint work(int x) { return a(x) + b(x); }\n"
    (tmp_path / "entry.c").write_text(entry)
    made = Program(sorted(tmp_path.glob("*.c")), "cortex-m4", "work")
    assert made.flash_bytes - 8 <= made.code_bytes <= made.flash_bytes  # there are no constants


def test_errors(tmp_path):
    path = tmp_path / "source.c"
    path.write_text("int entry(void) { return *(volatile int *)0x70000000; }")
    with pytest.raises(UsageError, match="failed at address"):
        Program([path], "cortex-m4", "entry").call("entry")
    path.write_text("int entry(void) { return unknown; }")
    with pytest.raises(UsageError, match=r"The compiler failed.*unknown"):
        Program([path], "cortex-m4", "entry")
