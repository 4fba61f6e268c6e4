"""What each form of sparsity is worth on a device: files, speed, RAM, accuracy, in one table.

    python -m studies.deployment --networks=resnet8:16,resnet18:64 --output=docs

Converts each network dense, pruned and periodic, to float32 and int8; runs all files of a network
in LiteRT in turns; and runs the int8 ones in TFLM. Networks that the zoo has trained on CIFAR-10
are those, with their accuracy on the test set; the others have random weights, which change no
operator and so no time, except by channel, where all layers lose alike. Adds to
--output/deployment.json and writes --output/deployment.md.
"""

import inspect
import os

from absl import flags

from tflite.quiet import quiet


with quiet():
    import tqdm

    import zoo
    from tflite.benchmark import benchmark, machine
    from tflite.convert import conversion_images, convert
    from studies.pattern_speed import network as random_network
    from zoo.commands import commandline
from tfsparse import pruning, timing
    from tfsparse.cost import model_cost
    from tfsparse.errors import UsageError
    from tfsparse.evaluation import accuracy
    from zoo.data import batches, open_dataset

from tflite.arena import arena, smallest_arena
from tflite.decode import compress
from tflite.micro import difference
from tflite.routes import find_route
from tflite.runtimes import FileModel

NETWORKS = [f"{arch}:{width}" for arch in ("resnet8", "resnet18", "vgg16") for width in (16, 64)]
# {row: (pattern, prune, structure, density)}, as in a zoo model's recipe.
FORMS = {
    "dense": (None, "none", "irregular", 1.0),
    "magnitude 10 %": (None, "magnitude", "irregular", 0.1),
    "DNR 10 %": (None, "dnr", "irregular", 0.1),
    "DNR channel 50 %": (None, "dnr", "channel", 0.5),
    **{name: (name, "none", "irregular", 1.0) for name in ("PS4_P4", "PSD2_P8", "PS2_P6")},
    "PSD1_P16": ("PSD1_P16", "none", "irregular", 1.0),
}
DATASET, SIZE = "cifar10", 32
NAME = "deployment"

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_list("networks", NETWORKS, "ARCHITECTURE:WIDTH of each network.")
    flags.DEFINE_float("seconds", 60, "How long a network's files run together.", lower_bound=0)
    # A large network takes a second for one.
    flags.DEFINE_integer("exact_images", 100, "Test images that TFLM runs.", lower_bound=1)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_string("note", "", "What a reader must know of the data, such as its form.")
    flags.DEFINE_string("output", None, "Folder for table and JSON.", required=True)


def main():
    chosen = [_parse(each) for each in FLAGS.networks]
    data = open_dataset(DATASET, FLAGS.data_dir)
    for arch, width in chosen:
        run = {**measure(arch, width, data, FLAGS.seconds), "note": FLAGS.note}
        records.record(FLAGS.output, NAME, run, page)
        print(table(run))


def _parse(text):
    arch, _, width = text.partition(":")
    if arch not in zoo.ARCHITECTURES or not width.isdigit() or int(width) < 1:
        raise UsageError(
            f"--networks are ARCHITECTURE:WIDTH, with one of {', '.join(sorted(zoo.ARCHITECTURES))}"
            f". Received: {text}"
        )
    return arch, int(width)


def measure(arch, width, data, seconds):
    """Returns what the table says of a network in all its forms, a dict for JSON."""
    calibration, images, _ = conversion_images(data)
    models, names, files = {}, {}, {"float32": {}, "int8": {}}
    for form in tqdm.tqdm(FORMS, f"converting {arch}", leave=False, disable=None):
        names[form] = trained(arch, width, form)
        models[form] = zoo.load(names[form]) if names[form] else untrained(arch, width, form)
        for precision, contents in files.items():
            contents[form] = convert(models[form], precision, calibration)
    rows = {form: {"form": form, "model": names[form]} for form in FORMS}
    for precision, contents in files.items():
        for measured in benchmark(contents, 1, seconds):
            rows[measured["name"]][precision] = measured
    for form, row in rows.items():
        network = find_route(models[form], "int8").network
        row["parameters"] = model_cost(models[form]).parameters
        row["parameters_left"] = network.count_params()
        row["macs"] = model_cost(network).macs
        row["tflm"] = in_tflm(files["int8"][form], images[: FLAGS.exact_images])
        if row["model"]:
            row |= accuracies(models[form], files["int8"][form], data)
    settings = {"arch": arch, "width": width, "exact_images": FLAGS.exact_images}
    return {"settings": settings, "machine": machine(), "rows": list(rows.values())}


def trained(arch, width, form):
    """Returns the name of the zoo model that is this form of the network, or None.

    Where there are several, it is one that was trained robustly, as pruned networks are.
    """
    fitting = []
    for name in zoo.list_models():
        about = zoo.card(name)
        model, recipe = about["model"], about["recipe"]
        default = inspect.signature(zoo.ARCHITECTURES[model["arch"]]).parameters["width"].default
        density = recipe["density"] if recipe["prune"] != "none" else 1.0
        found = (model["pattern"], recipe["prune"], recipe["structure"], density)
        network = (about["dataset"], model["arch"], model["width"] or default)
        if network == (DATASET, arch, width) and found == FORMS[form]:
            fitting.append((recipe["loss"] != "hybrid", name))
    return min(fitting)[1] if fitting else None


def untrained(arch, width, form):
    """Returns the network of random weights in this form."""
    pattern, prune, structure, density = FORMS[form]
    model = random_network(arch, width, SIZE, pattern or "dense")
    if prune != "none":
        schedule = pruning.DNRSchedule(1 - density, end_step=9, frequency=1)
        pruning.Pruner(model, schedule, structure=structure).detach()
    return model


def in_tflm(content, images):
    """Returns what TFLM makes of an int8 file, a dict.

    Returns:
        "steps": the largest difference of its outputs for `images` from those of LiteRT's
            reference kernels, in steps of the output: 0 are the same bits. None where it cannot run
            the file, and "reason" says why.
        "arena": bytes of the smallest arena in which it starts and runs.
        "compressed_bytes", "compressed_arena": of the file with its zeros left out, where that
            makes it smaller; see tflite/decode.py.
    """
    try:
        expected = FileModel(content, "reference").outputs(images)
        steps = difference(FileModel(content, "tflm").outputs(images), expected)
        found = {"steps": steps, "arena": smallest_arena(content, arena(content))}
    except UsageError as error:
        return {"steps": None, "reason": str(error)}
    small = compress(content)
    if small != content:
        found["compressed_bytes"] = len(small)
        found["compressed_arena"] = smallest_arena(small, arena(small))
        found["steps"] = max(steps, difference(FileModel(small, "tflm").outputs(images), expected))
    return found


def accuracies(model, content, data):
    """Returns the accuracy of a model and of its int8 file on all test images, fractions."""
    images, labels = data.read("test")
    file = FileModel(content)
    correct = sum(
        int((file(x.numpy()).argmax(axis=1) == y.numpy()).sum())
        for x, y in batches(images, labels, 500)
    )
    return {
        "accuracy": accuracy(model, batches(images, labels, 500)),
        "int8_accuracy": correct / len(labels),
        "examples": len(labels),
    }


def page(runs):
    """Returns the Markdown page of the runs in the JSON file."""
    introduction = """\
# What sparsity is worth on a device

From `python -m studies.deployment`. *Left* are the parameters and multiply-accumulates (MACs) of \
the network that is converted: without removed channels, periodic layers as small convolutions \
where these should be faster. *Faster* is the dense network's latency by this one's, in LiteRT on \
one thread, minimum over runs in turns. *Arena* is the smallest in which TFLM starts and runs the \
int8 file on a 64-bit host, to a kilobyte. *Compressed* are flash and arena of the int8 file whose \
kernels are stored without zeros, for TFLM's operator DECODE. *Exact*: in both, TFLM gives the \
bits of LiteRT's reference kernels for the stated number of test images. *Left* are the int8 \
file's; the float32 one has more small convolutions. Accuracy is that of the zoo's model on all \
test images, float and int8, robustly trained where there is such a one, otherwise on clean \
images: *r* and *c*, which do not compare. Rows without have random weights, of which all layers \
lose the same share of channels: training takes fewer of the early ones, where most \
multiply-accumulates are, and makes networks faster by less.

"""
    return introduction + "\n".join(table(run) for run in runs) + "\n" + savings(runs)


def savings(runs):
    """Returns the Markdown table of how much of the parameters' saving the files have."""
    names = ["{arch} of width {width}".format(**run["settings"]) for run in runs]
    lines = [
        "## Fewer parameters, smaller files",
        "",
        "What a file is smaller by than the dense one, divided by what its parameters are fewer by "
        "(those of the pattern, or without removed channels): float32 / int8 / int8 compressed. 1 "
        "would be all of it.",
        "",
        f"| | {' | '.join(names)} |",
        "|---" * (len(runs) + 1) + "|",
    ]
    for index, (form, (pattern, _, structure, _)) in enumerate(FORMS.items()):
        if pattern or structure == "channel":
            shares = (_shares(run["rows"][index], run["rows"][0]) for run in runs)
            cells = (" / ".join(f"{share:.2f}" for share in each) for each in shares)
            lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shares(row, dense):
    """Returns that share for the float32, the int8 and the compressed int8 file of a row."""
    sizes = [(row[each]["file_bytes"], dense[each]["file_bytes"]) for each in ("float32", "int8")]
    sizes.append((row["tflm"].get("compressed_bytes", sizes[1][0]), sizes[1][1]))
    fewer = 1 - min(row["parameters"], row["parameters_left"]) / dense["parameters"]
    return [(1 - size / whole) / fewer for size, whole in sizes]


def table(run):
    """Returns the Markdown table of one network, a dict of the JSON file."""
    settings, facts, (dense, *_) = run["settings"], run["machine"], run["rows"]
    lines = [
        f"**{settings['arch']} of width {settings['width']}** ({facts['cpu']}, {facts['cores']} "
        f"cores; {dense['float32']['runs']:,} and {dense['int8']['runs']:,} runs of each file; "
        f"{settings['exact_images']} images in TFLM; "
        f"{', '.join(filter(None, [DATASET, run['note']]))})",
        "",
        "| | parameters left | MACs left, M | float32, kB (gzip) | faster | int8, kB (gzip) "
        "| faster | arena, kB | compressed, kB (arena) | exact | accuracy, float / int8 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in run["rows"]]
    return "\n".join(lines) + "\n"


def _cells(row):
    single, int8, tflm = row["float32"], row["int8"], row["tflm"]

    def kilobytes(count):
        return f"{count / 1000:,.0f}"

    def size(measured):
        return f"{kilobytes(measured['file_bytes'])} ({kilobytes(measured['gzip_bytes'])})"

    compressed, accuracies = "", ""
    if "compressed_bytes" in tflm:
        sizes = tflm["compressed_bytes"], tflm["compressed_arena"]
        compressed = "{} ({})".format(*map(kilobytes, sizes))
    if "accuracy" in row:
        kind = {"hybrid": "r", "standard": "c"}[zoo.card(row["model"])["recipe"]["loss"]]
        accuracies = f"{kind}: {row['accuracy']:.2%} / {row['int8_accuracy']:.2%}"
    return [
        row["form"],
        f"{row['parameters_left']:,}",
        f"{row['macs'] / 1e6:.1f}",
        size(single),
        f"{single['minimum_speedup']:.2f}x",
        size(int8),
        f"{int8['minimum_speedup']:.2f}x",
        kilobytes(tflm["arena"]) if "arena" in tflm else "",
        compressed,
        {0: "yes", 1: "1 step", None: tflm.get("reason")}.get(
            tflm["steps"], f"{tflm['steps']} steps"
        ),
        accuracies,
    ]


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
