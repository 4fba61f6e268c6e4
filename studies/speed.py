"""What the studies of speed share: flags, patterns, and tables of a network's layers."""

import collections

from absl import flags

import zoo
from studies import records
from tfsparse import patterns, tables
from tfsparse.layers import PeriodicConv2D

DENSE = "dense"
PAPER = ("PS4_P4", "PS2_P6", "PS1_P9", "PSD1_P16")
PATTERNS = [*PAPER, *(f"{pattern}_F1" for pattern in PAPER)]
TWO_PHASES = ["PS4_P4_F2", "PS2_P6_F2", "PS1_P9_F2"]
CLASSES = 10
SIZE = ("image_size", "channels", "filters", "stride")

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # a flag that this module defines belongs to the study


def define_flags(chosen, seconds, width=64):
    """Defines the flags of the network, with defaults, and --output."""
    flags.DEFINE_enum("arch", "resnet18", sorted(zoo.ARCHITECTURES), "Network architecture.")
    flags.DEFINE_integer("width", width, "Channels of the first stage.", lower_bound=1)
    flags.DEFINE_integer("size", 32, "Height and width of the images.", lower_bound=1)
    flags.DEFINE_list("patterns", chosen, "Patterns to compare with the dense baseline.")
    flags.DEFINE_float("seconds", seconds, "How long the variants run in turns.", lower_bound=0)
    records.define_output()


def settings(*names):
    """Returns {name: value} of flags."""
    return {name: FLAGS[name].value for name in names}


def chosen_patterns():
    """Returns the --patterns without "dense"; raises a UsageError for one that is no pattern."""
    chosen = [pattern for pattern in dict.fromkeys(FLAGS.patterns) if pattern != DENSE]
    for pattern in chosen:
        patterns.parse(pattern)
    return chosen


def layer_sizes(arch, width, size):
    """Returns {values of SIZE: how many periodic layers of this size a network has}."""
    model = zoo.build(arch, (size, size, 3), CLASSES, width, "PS4_P4")
    layers = [layer for layer in model.layers if isinstance(layer, PeriodicConv2D)]
    return collections.Counter(
        (*layer.input.shape[2:], layer.filters, layer.strides[0]) for layer in layers
    )


def layer_table(rows, cell, digits, total=False):
    """Returns the Markdown table of layers: a row for each size, a column for each pattern.

    Args:
        rows: list of dicts, one for each size and pattern.
        cell: function from such a dict to the text of its cell.
        digits: decimals of the dense layer's time.
        total: whether rows have a "count" and "minimum_ms", of which the last row is the sum.
    """
    chosen = list(dict.fromkeys(row["pattern"] for row in rows))
    groups = collections.defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in SIZE)].append(row)
    lines = []
    for (image, *others), group in groups.items():
        dense = f"{group[0]['dense_minimum_ms']:.{digits}f}"
        cells = [f"{image}x{image}", *others, dense, *map(cell, group)]
        lines.append([group[0]["count"], *cells] if total else cells)
    header = ["image", "channels", "filters", "stride", "dense, ms", *chosen]
    if total:
        header.insert(0, "layers")
        sums = collections.Counter()
        for row in rows:
            sums[row["pattern"]] += row["count"] * row["minimum_ms"]
        dense = sum(group[0]["count"] * group[0]["dense_minimum_ms"] for group in groups.values())
        ratios = [f"{dense / sums[pattern]:.2f}x" for pattern in chosen]
        lines.append(["all", "", "", "", "", f"{dense:.{digits}f}", *ratios])
    return tables.markdown(header, lines)


def title(words, machine, runs):
    """Returns the line above a table: what was measured, on which machine, and how often."""
    return f"**{words}** ({machine['cpu']}, {machine['cores']} cores; {runs})\n\n"
