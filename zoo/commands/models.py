"""Lists the models of the zoo.

    tfsparse models

"clean" is the accuracy on all test images, "robust" that under AutoAttack with the card's bound.
"int8" is the size of the .tflite file in kB, "nonzero_macs" are multiply-accumulates with non-zero
weights, and "RAM" is what TensorFlow Lite for Microcontrollers needs, in kB.
"""


def main():
    from zoo.models import card, list_models

    print(table(map(card, list_models())))
    print("\nint8, RAM: kB. robust: under AutoAttack. See tfsparse models --help")


def table(cards):
    """Returns one line for each card below a header, a str of at most 100 columns."""
    from tfsparse.tables import aligned

    rows = [["name", "data", "clean", "robust", "int8", "nonzero_macs", "RAM"]]
    for card in cards:
        results = [card["results"].get(name) for name in ("clean", "autoattack")]
        accuracies = [f"{found['accuracy']:.1%}" if found else "-" for found in results]
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
