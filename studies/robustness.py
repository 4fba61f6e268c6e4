"""How robust are the zoo's models, and their int8 files? All attacks, one page.

    python -m studies.robustness --models=NAME,NAME --workdir=runs/robustness --output=docs

Runs `zoo.evaluate` on each of --models and on its file, and the attacks that take minutes on each
of --white_box; then its checks for masked gradients on the first model, and on the same behind an
input layer that rounds images to eight levels, which they have to find; the second model is the
source of these checks' transfer. Attacks on a model that --output has results of are not run again,
and those of a run that was stopped go on from --workdir. Writes --output/robustness_results.json
and .md.
"""

import json
import pathlib
import subprocess
import sys

import keras
from absl import flags

import zoo
from tfsparse.errors import UsageError
from tfsparse.files import replacing, write_bytes
from zoo.commands import commandline
from zoo.robustness.subjects import find_subject

NAME = "robustness_results"
LEVELS = 8  # of the masked model's input
MANY, FEW = 1000, 200  # examples: of attacks that take minutes, and of AutoAttack and Square
# {part: (suffix of the model's name, flags of zoo.evaluate, attacks)}. What is in --output is of
# these: remove it after a change.
PARTS = {
    "white_box": ("", [f"--examples={MANY}", "--restarts=2"], "clean,fgsm,pgd,pgd_dlr,gaussian"),
    "autoattack": ("", [f"--examples={FEW}", "--restarts=2"], "clean,pgd,autoattack"),
    "file": (".tflite", [f"--examples={FEW}", "--restarts=2"], "clean,transfer,square"),
}
ROOT = pathlib.Path(__file__).parents[1]

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_list("models", None, "Names of zoo models.", required=True)
    flags.DEFINE_list("white_box", [], "Names of more, without AutoAttack and Square.")
    flags.DEFINE_string("workdir", None, "Folder of the results of zoo.evaluate.", required=True)
    flags.DEFINE_string("output", None, "Folder for table and JSON.", required=True)
    flags.DEFINE_string("data_dir", None, "Where TFDS keeps its data.")
    flags.DEFINE_string("note", "", "What a reader must know of the data, such as its form.")


def main():
    workdir = pathlib.Path(FLAGS.workdir).resolve()
    models = {name: [*PARTS] for name in FLAGS.models}
    models |= {name: ["white_box"] for name in FLAGS.white_box}
    for name in models:
        zoo.card(name)  # which says so where there is none
    report = read()  # of models that are not asked for, too
    for name, parts in models.items():
        before = report["models"].get(name, {})
        parts = dict.fromkeys([*parts, *before])
        report["models"][name] = {
            part: part_of(name, part, before.get(part), workdir) for part in parts
        }
        write(report)
    first, *others = FLAGS.models
    masked = workdir / "masked.keras"
    with replacing(masked) as partial:
        behind_rounding(zoo.load(first)).save(partial)
    for title, model in ((first, first), (f"{first}, masked", masked)):
        path = workdir / f"{'masked' if model is masked else first}_masking.json"
        settings = ["--masking", f"--examples={FEW}", f"--dataset={zoo.card(first)['dataset']}"]
        settings += [f"--source={name}" for name in others[:1]]
        report["masking"][title] = {**evaluate(model, path, "clean", settings), "model": title}
        write(report)


def behind_rounding(model):
    """Returns `model` behind a layer that rounds images to LEVELS values and has no gradient."""
    image = keras.Input(model.inputs[0].shape[1:])
    edges = [(level + 0.5) / (LEVELS - 1) for level in range(LEVELS - 1)]
    codes = keras.layers.Discretization(edges)(image)
    rounded = keras.layers.Rescaling(1 / (LEVELS - 1))(keras.ops.cast(codes, "float32"))
    return keras.Model(image, model(rounded))


def part_of(name, part, known, workdir):
    """Returns what zoo.evaluate writes for one of PARTS of the zoo model `name`.

    That is `known`, what was written before, or None, where the model has not changed since.
    """
    suffix, settings, attacks = PARTS[part]
    if known and known["sha256"] == find_subject(f"{name}{suffix}").sha256:
        return known
    return evaluate(f"{name}{suffix}", workdir / f"{name}_{part}.json", attacks, settings)


def evaluate(model, path, attacks, settings):
    """Returns what zoo.evaluate writes to `path`; it does again only what is not there."""
    arguments = [f"--model={model}", f"--attacks={attacks}", f"--json={path}", *settings]
    if FLAGS.data_dir:
        arguments += [f"--data_dir={pathlib.Path(FLAGS.data_dir).resolve()}"]
    command = [sys.executable, "-m", "zoo.evaluate", *arguments]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise UsageError(f"zoo.evaluate failed on {model}, see above.")
    return json.loads(path.read_text(encoding="utf-8"))


# ---- the page ----


def read():
    """Returns the report that is there, or one of no models."""
    path = pathlib.Path(FLAGS.output) / f"{NAME}.json"
    if not path.exists():
        return {"note": FLAGS.note, "models": {}, "masking": {}}
    report = json.loads(path.read_text(encoding="utf-8"))
    if report["note"] != FLAGS.note:
        raise UsageError(
            f"{path} has results on other data: --note={report['note']!r} there, {FLAGS.note!r} "
            "here. Give that --note, if it is true of the data here, or another --output."
        )
    return report


def write(report):
    output = pathlib.Path(FLAGS.output)
    write_bytes(output / f"{NAME}.json", json.dumps(report, indent=2) + "\n")
    write_bytes(output / f"{NAME}.md", page(report))


def page(report):
    """Returns the Markdown page of a report as `main` makes it."""
    name = next(iter(report["models"]))
    first = report["models"][name]["white_box"]
    note = report["note"] and f" ({report['note']})"
    parts = [
        "# Robustness of the zoo",
        f"From `python -m studies.robustness`: {first['dataset']}{note}, test images from the "
        f"first on, L_inf {255 * first['eps']:.4g}/255, one training run each. Accuracies in %, "
        "with 95 % intervals (Wilson). PGD has 50 steps and 2 restarts, AutoAttack is the standard "
        "version; where a model has none here, it is in [zoo.md](zoo.md).",
        _white_box(report["models"]),
        "## The int8 file beside its float model",
        f"On {FEW} images. *Transfer* are PGD's examples for the float model; *Square* asks the "
        "model itself, 5,000 queries an image. A file is at most as robust as its lowest figure "
        "says, and what AutoAttack leaves of its float model is the better guide: where Square "
        "finds less on the file, logits of 256 levels gave random search plateaus to walk on, "
        "which is no defence.",
        _files(report["models"]),
        "## What the attacks take",
        f"Seconds for 1,000 images that are classified correctly, of `{name}`, "
        f"{first['machine']['cpu']}, {first['machine']['cores']} cores, with what TensorFlow takes "
        f"to compile an attack; extrapolated from {FEW} images from random search on. That is the "
        "best of 100 draws.",
        _times(report, name),
    ]
    if report["masking"]:
        parts += [
            "## Does it only hide its gradients?",
            f"The checks of `zoo.evaluate --masking` on {FEW} images, of a model as it is, and of "
            f"the same behind a layer that rounds images to {LEVELS} levels.",
            *(_checks(title, found) for title, found in report["masking"].items()),
        ]
    return "\n\n".join(parts) + "\n"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(result):
    low, high = (100 * bound for bound in result["interval"])
    return f"{100 * result['accuracy']:.1f} ({low:.1f} to {high:.1f})"


def _white_box(models):
    header = ["model", *(f"{name}, n={MANY:,}" for name in ("clean", "FGSM", "PGD", "PGD-DLR"))]
    header += [f"PGD, n={FEW}", f"AutoAttack, n={FEW}"]
    rows, dataset = [], next(iter(models.values()))["white_box"]["dataset"]
    for name, parts in models.items():
        many = parts["white_box"]["results"]
        cells = [_cell(many[attack]) for attack in ("clean", "fgsm", "pgd", "pgd_dlr")]
        few = parts.get("autoattack", {"results": {}})["results"]
        cells += [_cell(few[attack]) if few else "" for attack in ("pgd", "autoattack")]
        other = parts["white_box"]["dataset"]
        title = f"`{name}`" if other == dataset else f"`{name}` ({other})"
        rows.append([title, *cells])
    return _table(header, rows)


def _files(models):
    attacks = {"clean": "clean", "transfer": "transfer", "square": "Square"}
    header = [
        "model",
        *(f"{title}, {kind}" for title in attacks.values() for kind in ("float", "int8")),
    ]
    rows = []
    for name, parts in models.items():
        if "file" not in parts:
            continue
        results = parts["file"]["results"]
        cells = [results[prefix + attack] for attack in attacks for prefix in ("float/", "")]
        rows.append([f"`{name}`", *map(_cell, cells)])
    return _table(header, rows)


def _times(report, name):
    parts = {**report["models"][name], "masking": report["masking"].get(name)}
    columns = {
        "FGSM": ("white_box", "fgsm"),
        "PGD": ("white_box", "pgd"),
        "PGD-DLR": ("white_box", "pgd_dlr"),
        "noise": ("white_box", "gaussian"),
        "random search": ("masking", "random"),
        "AutoAttack": ("autoattack", "autoattack"),
        "Square": ("file", "float/square"),
        "Square, int8 file": ("file", "square"),
    }
    columns = {title: column for title, column in columns.items() if parts[column[0]]}
    found = [parts[part]["results"][attack] for part, attack in columns.values()]
    seconds = [1000 * each["seconds"] / max(each["attacked"], 1) for each in found]
    return _table(list(columns), [[f"{each:,.1f}" for each in seconds]])


def _checks(title, found):
    lines = [f"**{title}**", ""]
    lines += [f"- *{c['verdict']}*: {c['rule']} ({c['evidence']})" for c in found["masking"]]
    return "\n".join(lines)


if __name__ == "__main__":
    commandline.run(sys.modules[__name__])
