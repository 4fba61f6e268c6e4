"""Adds a finished training run to the zoo, or writes a model of the zoo for the Hugging Face hub.

    tfsparse publish --workdir=runs/mine --name=NAME
    tfsparse verify NAME --autoattack --write  # adds AutoAttack to its card; from 4 classes on

Measures the model and its int8 file, then writes its card, its weights, the file, and adversarial
examples into the folder that the environment variable TFSPARSE_MODELS names, which must exist, or
else into the package. As long as the variable names it, commands find the model by its name.

    tfsparse publish --model=NAME --to=FOLDER
    hf upload USER/NAME FOLDER

Writes a folder with a model card, the Keras model, its int8 file, and its card; the second command
is the hub's own.
"""

import shlex

from absl import flags

FLAGS = flags.FLAGS
NEEDS_TENSORFLOW = True
WORDS = {
    "purpose": "Why the model is in the zoo, one line.",
    "note": "What users must know about the data, such as its form.",
    "license": "SPDX identifier of the model's license; by default, the card names none.",
    "intended_use": "What the model is for; by default, the card does not say.",
}


def define_flags():
    flags.DEFINE_string("workdir", None, "Folder of a finished training run.")
    flags.DEFINE_string("name", None, "Name of the model in the zoo.")
    for name, meaning in WORDS.items():
        flags.DEFINE_string(name, "", meaning)
    flags.DEFINE_string("data_dir", None, "Folder of the data set.")
    flags.DEFINE_string("model", None, "A model of the zoo, to write to the folder --to.")
    flags.DEFINE_string("to", None, "The folder to write, new or empty.")


def main():
    from tfsparse.errors import UsageError

    given = [name for name in ("workdir", "name", "model", "to") if FLAGS[name].value is not None]
    if given == ["model", "to"]:
        for name in (*WORDS, "data_dir"):
            if FLAGS[name].present:
                raise UsageError(
                    f"--{name} has no effect with --to. Received: --{name}={FLAGS[name].value}"
                )
        from zoo.hub import write_folder

        write_folder(FLAGS.model, FLAGS.to)
        upload = shlex.join(["hf", "upload", f"USER/{FLAGS.model}", FLAGS.to])
        print(f"wrote {FLAGS.to}; to upload it: {upload}")
        return
    if given != ["workdir", "name"]:
        received = ", ".join(f"--{each}" for each in given)
        raise UsageError(
            "Give --workdir and --name, to add a run to the zoo, or --model and --to, to write a "
            f"model of the zoo to a folder. Received: {received or 'neither'}"
        )
    from tfsparse import backend
    from zoo import models
    from zoo.publishing import publish

    backend.expect_compilations()  # each attack compiles a function of its own
    backend.use_full_precision()  # so that `tfsparse verify` measures the same
    words = {name: FLAGS[name].value for name in WORDS}
    card = publish(FLAGS.workdir, FLAGS.name, FLAGS.data_dir, **words)
    print(f"published {card['name']}: {models.path_of_card(card['name'])}")
