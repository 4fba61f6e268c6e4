"""Tests whether one model is more robust than another.

    tfsparse compare --results=a.json,b.json

Takes two files that `tfsparse evaluate --json` wrote for the same test images. For each attack that
both models were evaluated with, prints the difference of their accuracies and its 95 % interval.
"""

from absl import flags

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_list("results", None, "Two JSON files of tfsparse evaluate.", required=True)


def main():
    from tfsparse.errors import UsageError
    from zoo.robustness.comparison import compare

    if len(FLAGS.results) != 2:
        raise UsageError(f"--results must be two files. Received: {','.join(FLAGS.results)}")
    print(compare(*FLAGS.results))
