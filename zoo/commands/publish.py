"""Adds a finished training run to the zoo.

    tfsparse publish --workdir=runs/mine --name=NAME
    tfsparse verify NAME --autoattack --write  # adds AutoAttack to its card

Measures the model and its int8 file, then writes its weights, the file, and its card into the
package.
"""

from absl import flags

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True


def define_flags():
    flags.DEFINE_string("workdir", None, "Folder of a finished training run.", required=True)
    flags.DEFINE_string("name", None, "Name of the model in the zoo.", required=True)
    flags.DEFINE_string("note", "", "What users must know about the data, such as its form.")
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")


def main():
    from zoo.publishing import publish

    card = publish(FLAGS.workdir, FLAGS.name, FLAGS.note, FLAGS.data_dir)
    print(f"published {card['name']}: {card['weights']['bytes']:,} bytes of weights")
