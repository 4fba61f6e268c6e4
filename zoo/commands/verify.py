"""Measures the figures on the zoo's cards again.

    tfsparse verify                                     # all models, on their data sets
    tfsparse verify resnet8_dnr10_cifar10 --autoattack  # half an hour more
    tfsparse verify --fast                              # without data, seconds

Prints each figure beside the card's. An accuracy is wrong if it is off by more than 0.05 points and
by more than one example, which the rounding of another processor can change (0.1 points of 1,000
examples, 0.5 of 200), or if it was measured in another way. The int8 file is wrong if converting
the model does not give its bytes; a file that other versions made is not judged. Any other figure
that does not depend on the machine is wrong if it is off at all. Latency is shown and not judged.
The command fails if a figure is wrong or missing.

--write adds what a card lacks, unless one of its figures is wrong, and changes nothing else. It
makes adversarial examples if there are none and the data set is at hand, measures the C again if
another one is generated now, and copies the figures of the dense baseline if its card has others
now. With --autoattack, it also replaces an AutoAttack on fewer than 1,000 images.
"""

from absl import flags

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True
TAKES_NAMES = True


def define_flags():
    flags.DEFINE_boolean("fast", False, "Measure only what needs no data set.")
    flags.DEFINE_boolean("autoattack", False, "Also measure AutoAttack.")
    flags.DEFINE_boolean("write", False, "Add what is missing to the cards.")
    flags.DEFINE_string("data_dir", None, "Folder of the data sets.")


def main(names):
    from tfsparse import backend
    from tfsparse.errors import UsageError
    from zoo.models import card, list_models
    from zoo.robustness.autoattack import check_classes
    from zoo.robustness.square import import_torch
    from zoo.verification import verify

    if FLAGS.fast and FLAGS.autoattack:
        raise UsageError(
            "--autoattack has no effect with --fast, which measures no accuracy. Received: both"
        )
    backend.expect_compilations()  # each attack compiles a function of its own on purpose
    backend.use_full_precision()  # so that figures are the same on every device
    names = names or list_models()
    for name in names:
        found = card(name)  # raises an error if there is none
        if FLAGS.autoattack:
            check_classes(len(found["class_names"]), name)
    if FLAGS.autoattack:
        import_torch("autoattack")  # raises an error if it is not installed
    wrong = []
    for name in names:
        text, figures = verify(name, FLAGS.data_dir, FLAGS.fast, FLAGS.autoattack, FLAGS.write)
        print(f"{text}\n", flush=True)
        wrong += [f"{name}: {figure}" for figure in figures]
    if wrong:
        raise UsageError(
            f"{len(wrong)} figures of the cards are not confirmed: {', '.join(wrong)}. See the "
            "tables above; --write adds what is MISSING."
        )
