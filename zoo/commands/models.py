"""Lists the models of the zoo, the most accurate first.

    tfsparse models
    tfsparse models --robust --max_flash=100k
    tfsparse models --board=micro:bit
    tfsparse models --html=models.html  # a page to choose from, in a browser

"clean" is the accuracy on all test images, "robust" that under AutoAttack with the card's bound, on
the first 1,000 test images or, with a *, on fewer, which differ by a few points. A mark, !, means
that PGD is more than 6 points above it, which hints at masked gradients. "int8" is
the size of the .tflite file in kB, "nonzero_macs" are multiply-accumulates with non-zero weights,
and "RAM" is what TensorFlow Lite for Microcontrollers needs, in kB. For a model's card:
print(zoo.card(NAME)). The page has all figures, plots of any two, and adversarial examples. It is
one file that loads nothing from elsewhere. It needs vl-convert-python: pip install 'tfsparse[page]'

The environment variable TFSPARSE_MODELS names a folder of further models.
"""

import re

from absl import flags

FLAGS = flags.FLAGS
MANY = 1000  # images, of AutoAttack on new cards
MULTIPLES = {"": 1, "k": 1000, "m": 1_000_000}


def define_flags():
    flags.DEFINE_boolean("robust", None, "Only models trained to be robust, or only others.")
    flags.DEFINE_string("dataset", None, "Only models of this data set.")
    flags.DEFINE_string("max_flash", None, "Most bytes of the int8 file, such as 100k.")
    flags.DEFINE_string("max_ram", None, "Most bytes of RAM, such as 64k.")
    flags.DEFINE_string("board", None, "Only models that fit on this board, such as micro:bit.")
    flags.DEFINE_string("max_instructions", None, "Most instructions as C, such as 10M.")
    flags.DEFINE_string("html", None, "File to write the page of these models to.")


def main():
    from zoo.models import find

    cards = find(
        FLAGS.robust,
        FLAGS.dataset,
        size("max_flash", FLAGS.max_flash),
        size("max_ram", FLAGS.max_ram),
        FLAGS.board,
        size("max_instructions", FLAGS.max_instructions),
    )
    if not cards:
        print("No model of the zoo meets these conditions.")
        return
    if FLAGS.html is not None:
        write_page(FLAGS.html, cards)
        return
    print(table(cards))
    print(f"\nrobust: under AutoAttack, on {MANY:,} test images; *: on fewer, see its card")
    print("int8, RAM: kB. See tfsparse models --help")


def write_page(path, cards):
    """Writes the page of these cards' models, and says so."""
    import pathlib

    from tfsparse.errors import UsageError
    from tfsparse.files import write_bytes
    from zoo.models_page import page

    if pathlib.Path(path).suffix != ".html":
        raise UsageError(f"--html must name a file that ends with .html. Received: {path}")
    content = page(cards).encode()
    write_bytes(path, content)
    models = f"{len(cards)} model{'s' * (len(cards) != 1)}"
    print(f"wrote {path} ({len(content) / 1e6:.1f} MB) with {models}")


def size(flag, text):
    """Returns the number that a flag names, such as 100k, or None for None."""
    from tfsparse.errors import UsageError

    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(k|m|)b?", text.strip().lower())
    if not match:
        raise UsageError(f"--{flag} must be a number, 0 or more, such as 100k. Received: {text}")
    return float(match[1]) * MULTIPLES[match[2]]


def table(cards):
    """Returns one line for each card below a header, a str of at most 100 columns."""
    from tfsparse.tables import aligned
    from zoo.cards import gap_warning

    rows = [["name", "data", "clean", "robust", "int8", "nonzero_macs", "RAM"]]
    for card in cards:
        results = [card["results"].get(name) for name in ("clean", "autoattack")]
        accuracies = [f"{found['accuracy']:.1%}" if found else "-" for found in results]
        accuracies[1] += "*" if results[1] and results[1]["examples"] < MANY else ""
        accuracies[1] += " !" if gap_warning(card["results"]) else ""
        arena = card["device"]["arena_bytes"]
        rows.append(
            [
                *(card["name"], card["dataset"], *accuracies),
                f"{card['tflite']['bytes'] / 1000:,.0f}",
                f"{card['nonzero_macs']:,}",
                f"{arena / 1000:,.0f}" if arena else "-",
            ]
        )
    return aligned(rows, left=2)
