"""Common boards for TFLM, and how much of their memory a model takes."""

import csv
import pathlib
from typing import NamedTuple

from tfsparse import tables
from tfsparse.errors import UsageError

TIGHT = 0.75  # of flash or RAM: code, stack, and the camera's image need some, too


class Board(NamedTuple):
    """A row of boards.csv: flash and RAM of a board's microcontroller in KB, as `source` says.

    `ram_kb` is that of all banks together, `bank_kb` that of the largest, since an array lies in
    one: the AXI SRAM of the STM32H743, the SRAM1 of the ESP32-S3.
    """

    name: str
    processor: str
    flash_kb: int
    ram_kb: int
    bank_kb: int
    source: str


def _read(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [
            Board(**{key: int(row[key]) if key.endswith("_kb") else row[key] for key in row})
            for row in rows
        ]


BOARDS = _read(pathlib.Path(__file__).with_suffix(".csv"))


def find_board(name: str) -> Board:
    """Returns the `Board` whose name contains `name`, without regard to case.

    Raises:
        UsageError: if that is not one board.
    """
    found = [board for board in BOARDS if str(name).lower() in board.name.lower()]
    exact = [board for board in BOARDS if board.name == name]
    if len(exact or found) != 1:
        names = ", ".join(board.name for board in found or BOARDS)
        raise UsageError(f"board must be one of {names}. Received: {name!r}")
    return (exact or found)[0]


def fit_table(variants: dict[str, tuple[int, int]]) -> str:
    """Returns the Markdown table of which variant takes which share of each board's memory.

    Args:
        variants: {name: (bytes of flash, bytes of RAM)}.
    """
    header = ["board", "processor", "flash, KB", "RAM (largest bank), KB", *variants]
    rows = [
        [
            f"[{board.name}]({board.source})",
            board.processor,
            f"{board.flash_kb:,}",
            f"{board.ram_kb:,} ({board.bank_kb:,})",
            *(_fit(board, *sizes) for sizes in variants.values()),
        ]
        for board in BOARDS
    ]
    return tables.markdown(header, rows)


def _fit(board, flash, ram):
    shares = flash / (1024 * board.flash_kb), ram / (1024 * board.bank_kb)
    verdict = "does not fit" if max(shares) > 1 else "tight" if max(shares) > TIGHT else "fits"
    return f"{verdict}: {_percent(shares[0])} of flash, {_percent(shares[1])} of RAM"


def _percent(share):
    return f"{share:.0%}" if share >= 0.01 else "<1%"
