"""Prints what a model costs for one image, layer by layer: parameters, MACs, and storage.

    tfsparse summary --model=NAME_OR_PATH --bits=8

Below the table are memory traffic and energy, which are modeled, not measured.
"""

from absl import flags

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_string("model", None, "Zoo model, .keras file, or folder of a run.", required=True)
    flags.DEFINE_enum("bits", "32", ["8", "16", "32"], "Bits of a weight and of an activation.")


def main():
    from tfsparse import summary
    from zoo.loading import find_model

    model, _ = find_model(FLAGS.model)
    summary(model, int(FLAGS.bits))
