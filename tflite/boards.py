"""Common boards for TFLM, and how much of their memory a model takes."""

from typing import NamedTuple


class Board(NamedTuple):
    """A board with the flash and RAM of its microcontroller, in bytes, as `source` states them.

    `ram` is the size of all banks together. `bank` is that of the largest contiguous one, if less:
    AXI SRAM in the STM32H743, SRAM1 in the ESP32-S3.
    """

    name: str
    processor: str
    flash: int
    ram: int
    source: str
    bank: int | None = None


_K = 1024
TIGHT = 0.75  # of flash or RAM: code, stack, and the camera's image need some, too

BOARDS = [
    Board(
        "BBC micro:bit V2",
        "nRF52833, Cortex-M4 64 MHz",
        512 * _K,
        128 * _K,
        "https://tech.microbit.org/hardware/",
    ),
    Board(
        "Nucleo-F446RE",
        "STM32F446RE, Cortex-M4 180 MHz",
        512 * _K,
        128 * _K,
        "https://www.st.com/en/microcontrollers-microprocessors/stm32f446re.html",
    ),
    Board(
        "Arduino Nano 33 BLE Sense",
        "nRF52840, Cortex-M4 64 MHz",
        1024 * _K,
        256 * _K,
        "https://docs.arduino.cc/hardware/nano-33-ble-sense/",
    ),
    Board(
        "Raspberry Pi Pico",
        "RP2040, Cortex-M0+ 133 MHz",
        2048 * _K,
        264 * _K,
        "https://www.raspberrypi.com/products/raspberry-pi-pico/",
    ),
    Board(
        "Nucleo-L4R5ZI",
        "STM32L4R5ZI, Cortex-M4 120 MHz",
        2048 * _K,
        640 * _K,
        "https://www.st.com/en/microcontrollers-microprocessors/stm32l4r5zi.html",
    ),
    Board(
        "Raspberry Pi Pico 2",
        "RP2350, Cortex-M33 150 MHz",
        4096 * _K,
        520 * _K,
        "https://www.raspberrypi.com/products/raspberry-pi-pico-2/",
    ),
    Board(
        "Nucleo-H743ZI2",
        "STM32H743ZI, Cortex-M7 480 MHz",
        2048 * _K,
        1024 * _K,
        "https://www.st.com/en/microcontrollers-microprocessors/stm32h743zi.html",
        512 * _K,
    ),
    Board(
        "ESP32-S3-DevKitC-1-N8",
        "ESP32-S3, Xtensa LX7 240 MHz",
        8192 * _K,
        512 * _K,
        "https://www.espressif.com/en/products/socs/esp32-s3",
        416 * _K,
    ),
]


def fit_table(variants):
    """Returns the Markdown table of the shares of each board's memory that each variant takes.

    Args:
        variants: {name: (bytes of flash, bytes of RAM)}.
    """
    lines = [
        "| board | processor | flash, KB | RAM (largest bank), KB | " + " | ".join(variants) + " |",
        "|---|---|---|---|" + "---|" * len(variants),
    ]
    for board in BOARDS:
        cells = [_fit(board, flash, ram) for flash, ram in variants.values()]
        lines.append(
            f"| [{board.name}]({board.source}) | {board.processor} | {board.flash // _K:,} "
            f"| {board.ram // _K:,} ({_bank(board) // _K:,}) | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _bank(board):
    return board.bank or board.ram


def _fit(board, flash, ram):
    shares = flash / board.flash, ram / _bank(board)
    verdict = "does not fit" if max(shares) > 1 else "tight" if max(shares) > TIGHT else "fits"
    return f"{verdict}: {_percent(shares[0])} of flash, {_percent(shares[1])} of RAM"


def _percent(share):
    return f"{share:.0%}" if share >= 0.01 else "<1%"
