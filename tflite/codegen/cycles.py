"""Estimates the cycles of Thumb code on a Cortex-M4 from its instructions.

The cycles of each instruction are those of Arm's table, without wait states of flash and RAM. What
the table leaves open is estimated: a taken branch refills the pipeline in 2 cycles (of 1 to 3), and
of loads and stores that follow each other, all but the first take one cycle.

Source: Arm, "Cortex-M4 Processor Technical Reference Manual" (ARM 100166), section 3.3.1.
"""

BRANCH_REFILL = 2  # 1 to 3, by the alignment and width of the target
_DIVISION = 7  # 2 to 12, by the numbers


def block_cycles(code):
    """Returns the estimated cycles of a block of Thumb code, run from its start to its end.

    A branch at its end counts as not taken: whoever runs the block adds BRANCH_REFILL if it is.
    """
    at, total, pipelined = 0, 0, False
    while at < len(code):
        first = code[at] | code[at + 1] << 8
        is_long = first >> 11 in (0b11101, 0b11110, 0b11111)
        second = code[at + 2] | code[at + 3] << 8 if is_long else 0
        cycles, single = _long(first, second) if is_long else _short(first)
        total += 1 if single and pipelined else cycles
        pipelined = single
        at += 4 if is_long else 2
    return total


def _short(word):
    """Returns (cycles, whether it is a single load or store) of a 16-bit instruction."""
    top5 = word >> 11
    if top5 == 0b01001 or word >> 12 in (0b0101, 0b0110, 0b0111, 0b1000, 0b1001):
        return 2, True
    if word >> 12 == 0b1100:  # stm, ldm
        return 1 + (word & 0xFF).bit_count(), False
    if word & 0xF600 == 0xB400:  # push, pop; pop of pc refills the pipeline, too
        count = (word & 0x1FF).bit_count()
        return 1 + count, False
    return 1, False


def _long(first, second):
    """Returns the same of a 32-bit instruction."""
    if first & 0xFE40 == 0xE800:  # ldm, stm
        return 1 + second.bit_count(), False
    if first & 0xFE40 == 0xE840:  # ldrd, strd, exclusives, table branches
        is_double = first & 0x0120  # pre-indexed or with write-back
        return (3 if is_double else 2), False
    if first & 0xFE00 == 0xF800:  # ldr, str and their kin
        return 2, True
    if first & 0xFFD0 == 0xFB90:  # sdiv, udiv
        return _DIVISION, False
    return 1, False
