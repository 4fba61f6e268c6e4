"""What is each form of sparsity worth on a device? Files, speed, RAM and accuracy in one table.

    python -m studies deployment --networks=resnet8:16,resnet18:64

Converts each network dense, pruned and periodic, to float32 and int8; runs all files of a network
in LiteRT in turns; and runs the int8 files in TFLM. If the zoo has such a network trained on
CIFAR-10, that one is taken, with its accuracy on the test set. The others have random weights:
these change no operator and so no time, except with pruned channels, where every layer loses the
same share. Adds to deployment.json and writes deployment.md.
"""

import inspect

import tqdm
from absl import flags

import zoo
from studies import records
from studies.pattern_speed import network as random_network
from studies.speed import DENSE
from tflite.arena import arena, smallest_arena
from tflite.benchmark import benchmark, facts
from tflite.convert import convert
from tflite.decode import compress
from tflite.micro import difference
from tflite.routes import find_route
from tflite.runtimes import FileModel
from tfsparse import pruning, tables
from tfsparse.cost import model_cost
from tfsparse.errors import UsageError
from zoo import figures
from zoo.data import open_dataset
from zoo.loading import conversion_images
from zoo.robustness.subjects import file_subject, model_subject

NAME = "deployment"
NETWORKS = [f"{arch}:{width}" for arch in ("resnet8", "resnet18", "vgg16") for width in (16, 64)]
# {form: (pattern, prune, whether channels are pruned, density)}, as in a zoo model's recipe.
FORMS = {
    "dense": (None, "none", False, 1.0),
    "per-layer magnitude 10 %": (None, "magnitude", False, 0.1),
    "DNR 10 %": (None, "dnr", False, 0.1),
    "DNR channel 50 %": (None, "dnr", True, 0.5),
    **{name: (name, "none", False, 1.0) for name in ("PS4_P4", "PSD2_P8", "PS2_P6", "PSD1_P16")},
}
DATASET, SIZE = "cifar10", 32

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_list("networks", NETWORKS, "ARCHITECTURE:WIDTH of each network.")
    flags.DEFINE_float("seconds", 60, "How long a network's files run together.", lower_bound=0)
    # A large network takes a second for one.
    flags.DEFINE_integer("exact_images", 100, "Test images that TFLM runs.", lower_bound=1)
    records.define_data()
    records.define_output()


def main():
    chosen = [_parse(each) for each in FLAGS.networks]
    data = open_dataset(DATASET, FLAGS.data_dir)
    for arch, width in chosen:
        run = {**measure(arch, width, data, FLAGS.seconds), "note": FLAGS.note}
        records.record(FLAGS.output, NAME, [run], page)
        print(table(run))


def _parse(text):
    arch, _, width = text.partition(":")
    if arch not in zoo.ARCHITECTURES or not width.isdigit() or int(width) < 1:
        raise UsageError(
            f"--networks are ARCHITECTURE:WIDTH, with one of {', '.join(sorted(zoo.ARCHITECTURES))}"
            f". Received: {text}"
        )
    return arch, int(width)


# ---- measuring ----


def measure(arch, width, data, seconds):
    """Returns what the table says of a network in all its forms, a dict for JSON."""
    images = conversion_images(data)
    models, names, files = {}, {}, {"float32": {}, "int8": {}}
    for form in tqdm.tqdm(FORMS, f"converting {arch}", leave=False, disable=None):
        names[form] = trained(arch, width, form)
        models[form] = zoo.load(names[form]) if names[form] else untrained(arch, width, form)
        for precision, contents in files.items():
            contents[form] = convert(models[form], precision, images.calibration)
    rows = {form: {"form": form, "model": names[form]} for form in FORMS}
    for precision, contents in files.items():
        for measured in benchmark(contents, 1, seconds):
            rows[measured["name"]][precision] = measured
    for form, row in rows.items():
        converted = find_route(models[form], "int8").network
        row["parameters"] = model_cost(models[form]).parameters
        row["parameters_left"] = converted.count_params()
        row["macs"] = model_cost(converted).macs
        row["tflm"] = in_tflm(files["int8"][form], images.images[: FLAGS.exact_images])
        if row["model"]:
            row |= accuracies(row["model"], models[form], files["int8"][form], data)
    settings = {"arch": arch, "width": width, "exact_images": FLAGS.exact_images}
    return {"settings": settings, "machine": facts(), "rows": list(rows.values())}


def trained(arch, width, form):
    """Returns the name of the zoo model that is this form of the network, or None.

    If there are several, it is one that was trained robustly, as pruned networks are.
    """
    fitting = []
    for name in zoo.list_models():
        about = zoo.card(name)
        model, recipe = about["model"], about["recipe"]
        default = inspect.signature(zoo.ARCHITECTURES[model["arch"]]).parameters["width"].default
        is_pruned, by_channel = recipe["prune"] != "none", recipe["structure"] == "channel"
        density = recipe["density"] if is_pruned else 1.0
        found = (model["pattern"], recipe["prune"], is_pruned and by_channel, density)
        network = (about["dataset"], model["arch"], model["width"] or default)
        if network == (DATASET, arch, width) and found == FORMS[form]:
            fitting.append((recipe["loss"] != "hybrid", name))
    return min(fitting)[1] if fitting else None


def untrained(arch, width, form):
    """Returns the network of random weights in this form."""
    pattern, prune, by_channel, density = FORMS[form]
    model = random_network(arch, width, SIZE, pattern or DENSE)
    if prune != "none":
        schedule = pruning.DNRSchedule(1 - density, end_step=9, frequency=1)
        structure = {"structure": "channel"} if by_channel else {}
        pruning.Pruner(model, schedule, **structure).detach()
    return model


def in_tflm(content, images):
    """Returns how an int8 file runs in TFLM, a dict.

    Returns:
        "steps": the largest difference of its outputs for `images` from those of LiteRT's
            reference kernels, in steps of the output: 0 means the same bits. None if it cannot run
            the file, and "reason" says why.
        "arena": bytes of the smallest arena in which it starts and runs.
        "compressed_bytes", "compressed_arena": of the file stored without its zeros, if that makes
            it smaller; see tflite/decode.py.
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


def accuracies(name, model, content, data):
    """Returns the accuracy of a model and of its int8 file on all test images, as for its card."""
    subjects = model_subject(name, model), file_subject(name, content)
    results = figures.accuracies(
        ["clean", "int8"], *subjects, data, zoo.card(name)["recipe"]["eps"]
    )
    return {
        "accuracy": results["clean"]["accuracy"],
        "int8_accuracy": results["int8"]["accuracy"],
        "examples": results["clean"]["examples"],
    }


# ---- the page ----


def page(runs):
    """Returns the Markdown page of all runs."""
    return records.fill(NAME, tables="\n\n".join(map(table, runs)), savings=savings(runs))


def savings(runs):
    """Returns the Markdown table of how much of the parameters' saving reaches the files."""
    names = ["{arch} of width {width}".format(**run["settings"]) for run in runs]
    lines = []
    for index, (form, (pattern, _, by_channel, _)) in enumerate(FORMS.items()):
        if pattern or by_channel:
            shares = (_shares(run["rows"][index], run["rows"][0]) for run in runs)
            lines.append([form, *(" / ".join(f"{share:.2f}" for share in each) for each in shares)])
    return tables.markdown(["", *names], lines)


def _shares(row, dense):
    """Returns that share for the float32, the int8 and the compressed int8 file of a row."""
    sizes = [(row[each]["file_bytes"], dense[each]["file_bytes"]) for each in ("float32", "int8")]
    sizes.append((row["tflm"].get("compressed_bytes", sizes[1][0]), sizes[1][1]))
    fewer = 1 - min(row["parameters"], row["parameters_left"]) / dense["parameters"]
    return [(1 - size / whole) / fewer for size, whole in sizes]


def table(run):
    """Returns the Markdown table of one network."""
    settings, facts, dense = run["settings"], run["machine"], run["rows"][0]
    data = ", ".join(filter(None, [DATASET, run["note"]]))
    header = (
        "|parameters left|MACs left, M|float32, kB (gzip)|speed-up|int8, kB (gzip)|speed-up"
        "|arena, kB|compressed, kB (arena)|exact|accuracy, float / int8"
    )
    return (
        f"**{settings['arch']} of width {settings['width']}** ({facts['cpu']}, {facts['cores']} "
        f"cores; {dense['float32']['runs']:,} and {dense['int8']['runs']:,} runs of each file; "
        f"{settings['exact_images']} images in TFLM; {data})\n\n"
    ) + tables.markdown(header.split("|"), map(_cells, run["rows"]))


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
    exact = {0: "yes", 1: "1 step", None: tflm.get("reason")}
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
        exact.get(tflm["steps"], f"{tflm['steps']} steps"),
        accuracies,
    ]
