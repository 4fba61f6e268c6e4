"""What does sparsity save on a microcontroller? The zoo as C and in TFLM, in one table.

    python -m studies microcontroller --workdir=runs/microcontroller

Generates each int8 file of the zoo as C and compares it, compiled for this machine, with LiteRT's
reference kernels on test images; then runs it on an emulated Cortex-M4 and counts instructions.
LiteRT's outputs take long and are kept in --workdir; a model whose C is that of the record is not
measured again. Needs the extra `bench`. Adds to microcontroller.json and writes microcontroller.md
and its pictures.
"""

import collections
import functools
import pathlib
import tempfile

import numpy as np
import tqdm
from absl import flags

import zoo
from studies import records
from studies.zoo_table import is_dense, is_robust, network, plot, variant
from tflite.codegen import bench, host, package
from tflite.codegen.program import make_program
from tflite.codegen.writing import write_sources
from tflite.runtimes import FileModel
from tfsparse import tables
from tfsparse.files import replacing
from zoo.data import as_float, open_dataset

NAME = "microcontroller"
KEYS = ("model",)
DENSE = "resnet8_cifar10"  # what the other ResNet8s are compared with
NARROW = "resnet8_narrow_cifar10"
# {picture: (what it shows, label of the axis)}
_PICTURES = {
    "microcontroller_instructions": ("instructions", "instructions on a Cortex-M4, M"),
    "microcontroller_flash": ("flash", "flash, kB"),
}

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_list("models", None, "Names of zoo models; by default all.")
    flags.DEFINE_integer("exact_images", 1000, "Test images that are compared.", lower_bound=1)
    flags.DEFINE_string("workdir", None, "Folder that keeps LiteRT's outputs.", required=True)
    records.define_data()
    records.define_output()


def main():
    output = pathlib.Path(FLAGS.output)
    known = {run["model"]: run for run in records.read(output, NAME, KEYS)}
    for name in tqdm.tqdm(FLAGS.models or zoo.list_models(), "models", disable=None):
        run = measure(name, known.get(name))
        records.record(output, NAME, [run], page, KEYS, order=lambda run: run["model"])
    save_pictures(output)


def save_pictures(folder):
    """Writes the pictures of the page to a folder, from the record there."""
    runs = records.read(folder, NAME, KEYS)
    for name in _PICTURES if _robust({run["model"]: run for run in runs}) else ():
        records.save_picture(folder, name, picture(name, runs))


# ---- measuring ----


def measure(name, known):
    """Returns what a zoo model takes as C and how exact it is, a dict for JSON.

    Args:
        name: of the model.
        known: what the record has of it, or None. It is returned if the C is the same.
    """
    content = zoo.load_tflite(name).read_bytes()
    data = open_dataset(zoo.card(name)["dataset"], data_dir=FLAGS.data_dir)
    images = as_float(data.read("test", FLAGS.exact_images)[0])
    source = FileModel(content, "reference").source
    codes = np.concatenate([source.encode(image[None]) for image in images])
    program = make_program(content)
    with tempfile.TemporaryDirectory() as folder:
        sources, build = pathlib.Path(folder, "sources"), pathlib.Path(folder)
        sources.mkdir()
        expected = expected_outputs(name, content, images)
        write_sources(program, content, codes[:1], expected[:1], sources, name)
        identity = {"images": len(images), "sha256": package.hash_of_sources(sources)}
        if known and all(known[key] == value for key, value in identity.items()):
            return known
        found = host.run(host.build(sources, build, ("-O3",)), codes)
        made = package.Package(program, codes[:1], expected[:1], checked=len(codes))
        measured = bench.measure(made, sources)
    return {
        "model": name,
        **identity,
        "different": int((found != expected).any(1).sum()),
        **spent(measured),
        "kernels": dict(collections.Counter(layer["kernel"] for layer in measured.layers)),
        "layers": measured.layers,
    }


def expected_outputs(name, content, images):
    """Returns the outputs of LiteRT's reference kernels, from --workdir if they are known."""
    path = pathlib.Path(FLAGS.workdir) / f"{name}_{zoo.card(name)['tflite']['sha256'][:16]}.npy"
    if path.exists():
        known = np.load(path)
        if len(known) >= len(images):
            return known[: len(images)]
    outputs = FileModel(content, "reference").outputs(images)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.save(file, outputs)
    return outputs


def spent(measured):
    """Returns the figures of a `bench.Measured`, a dict for JSON."""
    return {
        "macs": sum(layer["macs"] for layer in measured.layers),
        "instructions": measured.instructions,
        "cycles": measured.cycles,
        "flash": measured.flash,
        "code": measured.code,
        "buffer": measured.buffer,
        "stack": measured.stack,
    }


# ---- the page ----


def page(runs):
    """Returns the Markdown page of all runs."""
    models = {run["model"]: run for run in runs}
    return records.fill(
        NAME,
        table=table(models),
        family=family(models),
        verdict=verdict(models),
        comparison=comparison(models),
        pictures="\n\n".join(f"![{label}]({name}.png)" for name, (_, label) in _PICTURES.items()),
        exact=_exactness(models),
        megahertz=bench.MEGAHERTZ,
    )


def _ram(run):
    return run["buffer"] + run["stack"]


def _exactness(models):
    images, wrong = (sum(run[key] for run in models.values()) for key in ("images", "different"))
    return f"{wrong} of {images:,} outputs of {len(models)} models differ in any bit"


def table(models):
    """Returns the Markdown table of all models."""
    header = (
        "|network|data|clean, int8 %|PGD-50 %|TFLM: flash, kB|arena, kB|C: flash, kB|RAM, kB"
        "|RAM / arena|MACs, M|instructions, M|per MAC|ms at 120 MHz"
    )
    rows = []
    for name, run in models.items():
        about = zoo.card(name)
        arena, flash = about["device"]["arena_bytes"], about["tflite"]["bytes"]
        rows.append(
            [
                f"`{name}`",
                f"{network(about)}, {variant(about)}",
                about["dataset"],
                f"{100 * about['results']['int8']['accuracy']:.1f}",
                f"{100 * about['results']['pgd']['accuracy']:.1f}",
                f"{flash / 1000:,.1f}",
                f"{arena / 1000:,.1f}" if arena else "",
                f"{run['flash'] / 1000:,.1f}",
                f"{_ram(run) / 1000:,.1f}",
                f"{_ram(run) / arena:.2f}" if arena else "",
                f"{run['macs'] / 1e6:.1f}",
                f"{run['instructions'] / 1e6:.2f}",
                f"{run['instructions'] / run['macs']:.2f}",
                f"{run['cycles'] / bench.MEGAHERTZ / 1000:.0f}",
            ]
        )
    return tables.markdown(header.split("|"), rows)


def family(models):
    """Returns the Markdown table of what the ResNet8s take of the dense one."""
    dense, rows = models.get(DENSE), []
    if dense is None:
        return ""
    for name, run in models.items():
        about = zoo.card(name)
        if about["model"]["arch"] != "resnet8" or about["dataset"] != "cifar10":
            continue
        ratios = [dense[key] / run[key] for key in ("macs", "instructions", "cycles")]
        words = variant(about) + (f" of width {about['model']['width']}" * (name == NARROW))
        rows.append([f"`{name}`", words, *(f"{ratio:.2f}x" for ratio in ratios)])
    return tables.markdown(["", "", "fewer MACs", "fewer instructions", "fewer cycles"], rows)


def picture(name, runs):
    """Returns the figure `name` of _PICTURES: robust accuracy against a cost."""
    key, label = _PICTURES[name]
    robust = _robust({run["model"]: run for run in runs})
    x = [costs(run)[key] for run in robust.values()]
    title = f"Robust accuracy against {label.split(',')[0]}"
    return plot([zoo.card(each) for each in robust], x, "pgd", label, title)


@functools.cache
def _card(name):
    """Reads each card once: the comparisons below ask for the same ones thousands of times."""
    return zoo.card(name)


def _robust(models):
    return {
        name: run
        for name, run in models.items()
        if is_robust(_card(name)) and _card(name)["dataset"] == "cifar10"
    }


def costs(run):
    """Returns costs: kB of flash and RAM, millions of instructions, non-zero weights, and MACs."""
    return {
        "weights": _card(run["model"])["nonzero_parameters"],
        "macs": run["macs"] / 1e6,
        "flash": run["flash"] / 1000,
        "ram": _ram(run) / 1000,
        "instructions": run["instructions"] / 1e6,
    }


# ---- sparse networks against dense ones ----

COSTS = {
    **{"weights": "weights", "macs": "MACs"},
    **{"flash": "flash", "ram": "RAM", "instructions": "instructions"},
}


def comparison(models):
    """Returns the Markdown table of sparse models beside dense ones of equal cost."""
    rows = []
    for name in [*filter(_is_dense, _robust(models)), *_sparse(models)]:
        about = _card(name)
        cells = [f"{network(about)}, {variant(about)}"]
        cells.append(f"{_accuracy(name, 'int8'):.1f} / {_accuracy(name, 'pgd'):.1f}")
        if _is_dense(name):
            rows.append([f"`{name}`", *cells, *[""] * len(COSTS)])
            continue
        for cost in COSTS:
            dense = [dense_accuracy(models, name, cost, result) for result in ("int8", "pgd")]
            cells.append("none" if None in dense else "{:.1f} / {:.1f}".format(*dense))
            if None not in dense:
                cells[-1] += f" ({judged(models, name, cost)})"
        rows.append([f"`{name}`", *cells])
    header = [
        "",
        "network",
        "clean / PGD, %",
        *(f"dense at equal {word}" for word in COSTS.values()),
    ]
    return tables.markdown(header, rows)


def verdict(models):
    """Returns sentences that say which sparse models beat dense ones, from the figures."""
    sentences = []
    for cost, word in COSTS.items():
        better = [f"`{name}`" for name in _sparse(models) if judged(models, name, cost) == "better"]
        worse = [f"`{name}`" for name in _sparse(models) if judged(models, name, cost) == "worse"]
        sentences.append(
            f"- At equal {word}, better: {', '.join(better) or 'none'}. Worse: "
            f"{', '.join(worse) or 'none'}."
        )
    return "\n".join(sentences)


def dense_accuracy(models, name, cost, result):
    """Returns the accuracy in % of a dense model that costs as much as a sparse one, or None.

    It is interpolated between the dense models that cost less and more, on a logarithmic axis of
    the cost. A dense model that is less accurate than a cheaper one is left out. None if all cost
    more; the best one's if all cost less.

    Args:
        models: {name: run} of all models.
        name: of the sparse one.
        cost: a key of COSTS.
        result: "int8" or "pgd".
    """
    robust = _robust(models)
    dense = sorted((costs(run)[cost], each) for each, run in robust.items() if _is_dense(each))
    points = []
    for spent, each in dense:
        if not points or _accuracy(each, result) > points[-1][1]:
            points.append((np.log(spent), _accuracy(each, result)))
    here = np.log(costs(models[name])[cost])
    if not points or here < points[0][0]:
        return None
    return float(np.interp(here, *zip(*points, strict=True)))


def judged(models, name, cost):
    """Returns "better", "worse", or "mixed", of clean accuracy and that under PGD, beyond chance.

    A difference is beyond chance if it exceeds twice its standard error over test images.
    """
    signs = []
    for result in ("int8", "pgd"):
        dense = dense_accuracy(models, name, cost, result)
        if dense is None:
            return "mixed"
        shares = np.array([_accuracy(name, result), dense]) / 100
        examples = _card(name)["results"][result]["examples"]
        error = np.sqrt((shares * (1 - shares)).sum() / examples)
        gain = shares[0] - shares[1]
        signs.append(0 if abs(gain) <= 2 * error else np.sign(gain))
    if max(signs) > 0 and min(signs) >= 0:
        return "better"
    return "worse" if min(signs) < 0 and max(signs) <= 0 else "mixed"


def _sparse(models):
    """Returns the names of sparse robust models that were trained as a dense one was."""
    robust = _robust(models)
    trained = {_training(name) for name in robust if _is_dense(name)}
    return [name for name in robust if not _is_dense(name) and _training(name) in trained]


def _training(name):
    about = _card(name)
    recipe = about["recipe"]
    return about["epochs"], recipe["attack_steps"], recipe.get("beta", 0.5)  # older cards: 0.5


def _is_dense(name):
    return is_dense(_card(name))


def _accuracy(name, result):
    return 100 * _card(name)["results"][result]["accuracy"]
