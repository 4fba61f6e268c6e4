"""How robust are the zoo's models, and their int8 files? All attacks, one page.

    python -m studies robustness --models=NAME,NAME --workdir=runs/robustness

Runs `tfsparse evaluate` on each of --models and on its file, and fewer attacks on each of
--white_box and its file. Then checks the first model for masked gradients, and the same model
behind a layer that rounds images to eight levels, for which the checks must fail; the second model
is the source of these checks' transfer. Attacks on a model that the record has are not repeated,
and those of a run that was stopped continue from --workdir. Writes robustness.json and
robustness.md.
"""

import json
import pathlib
import subprocess

import keras
from absl import flags

import zoo
from studies import ROOT, TFSPARSE, records
from studies.recipe_runs import check_note
from tfsparse import tables
from tfsparse.errors import UsageError
from tfsparse.files import replacing, write_bytes
from zoo.cards import gap_warning
from zoo.robustness.subjects import find_subject

NAME = "robustness"
KEYS = ("model", "part")
LEVELS = 8  # of the masked model's input
MANY, FEW = 1000, 200  # examples: of attacks that take minutes, and of AutoAttack and Square
# {part: (suffix of the model's name, flags of `tfsparse evaluate`, attacks)}. Recorded results are
# of these: remove them after a change.
PARTS = {
    "white_box": ("", [f"--examples={MANY}", "--restarts=2"], "clean,fgsm,pgd,pgd_dlr,gaussian"),
    "autoattack": ("", [f"--examples={FEW}", "--restarts=2"], "clean,pgd,autoattack"),
    "deployed": (".tflite", [f"--examples={FEW}"], "clean,pgd,transfer,diva"),
    "file": (".tflite", [f"--examples={FEW}", "--restarts=2"], "clean,transfer,square"),
    "square": (".tflite", [f"--examples={FEW}"], "clean,square"),  # of the file alone
}
FEWER = ("white_box", "deployed", "square")
MASKING, MASKED = "masking", "masking, masked"  # parts of the first model

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_list("models", None, "Names of zoo models.", required=True)
    flags.DEFINE_list("white_box", [], "Names of more, without AutoAttack on 200 images.")
    flags.DEFINE_string("workdir", None, "Folder for the results of each model.", required=True)
    records.define_data()
    records.define_output()


def main():
    workdir = pathlib.Path(FLAGS.workdir).resolve()
    models = {name: [*PARTS] for name in FLAGS.models}
    models |= {name: [*FEWER] for name in FLAGS.white_box}
    for name in models:
        zoo.card(name)  # which raises a UsageError for an unknown name
    runs = records.read(FLAGS.output, NAME, KEYS)
    for run in runs:
        check_note(run["note"], pathlib.Path(FLAGS.output) / f"{NAME}.json")
    for name, parts in models.items():
        known = reports(runs).get(name, {})
        for part in dict.fromkeys([*parts, *(part for part in known if part in PARTS)]):
            record(name, part, part_of(name, part, known.get(part), workdir))
    first, *others = FLAGS.models
    known = reports(runs).get(first, {})
    if MASKED in known and known[MASKING]["sha256"] == find_subject(first).sha256:
        return
    masked = workdir / "masked.keras"
    with replacing(masked) as partial:
        behind_rounding(zoo.load(first)).save(partial)
    for part, model in ((MASKING, first), (MASKED, masked)):
        path = workdir / f"{'masked' if part == MASKED else first}_masking.json"
        settings = ["--masking", f"--examples={FEW}", f"--dataset={zoo.card(first)['dataset']}"]
        settings += [f"--source={name}" for name in others[:1]]
        report = evaluate(model, path, "clean", settings)
        record(first, part, report | {"model": part.replace(MASKING, first)})


def record(model, part, report):
    run = {"model": model, "part": part, "note": FLAGS.note, "report": report}
    records.record(FLAGS.output, NAME, [run], page, KEYS)


def behind_rounding(model):
    """Returns `model` behind a layer that rounds images to LEVELS values and has no gradient."""
    image = keras.Input(model.inputs[0].shape[1:])
    edges = [(level + 0.5) / (LEVELS - 1) for level in range(LEVELS - 1)]
    codes = keras.layers.Discretization(edges)(image)
    rounded = keras.layers.Rescaling(1 / (LEVELS - 1))(keras.ops.cast(codes, "float32"))
    return keras.Model(image, model(rounded))


def part_of(name, part, known, workdir):
    """Returns the report of one of PARTS of the zoo model `name`.

    It is `known`, the recorded report or None, if the model has not changed since.
    """
    suffix, settings, attacks = PARTS[part]
    model = f"{name}{suffix}"
    if known and known["sha256"] == find_subject(model).sha256:
        return known
    path = workdir / f"{name}_{part}.json"
    if part != "square":
        return evaluate(model, path, attacks, settings)
    # Elsewhere than in the zoo, it is a file without a float model, which would take longer.
    write_bytes(workdir / model, zoo.load_tflite(name).read_bytes())
    settings = [*settings, f"--dataset={zoo.card(name)['dataset']}"]
    return evaluate(workdir / model, path, attacks, settings) | {"model": model}


def evaluate(model, path, attacks, settings):
    """Returns the report that `tfsparse evaluate` writes to `path`, continuing earlier work."""
    arguments = [f"--model={model}", f"--attacks={attacks}", f"--json={path}", *settings]
    if FLAGS.data_dir:
        arguments += [f"--data_dir={pathlib.Path(FLAGS.data_dir).resolve()}"]
    command = [*TFSPARSE, "evaluate", *arguments]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise UsageError(f"tfsparse evaluate failed on {model}; its error is above.")
    return json.loads(path.read_text(encoding="utf-8"))


# ---- the page ----


def reports(runs):
    """Returns {model: {part: report}} of all runs."""
    found = {}
    for run in runs:
        found.setdefault(run["model"], {})[run["part"]] = run["report"]
    return found


def page(runs):
    """Returns the Markdown page of all runs."""
    models = reports(runs)
    name, parts = next(iter(models.items()))
    first, note = parts["white_box"], runs[0]["note"]
    checks = {
        name + part.removeprefix(MASKING): parts[part]
        for part in (MASKING, MASKED)
        if part in parts
    }
    masking = [
        "## Does the model only mask its gradients?",
        f"The checks of `tfsparse evaluate --masking` on {FEW} images, of a model as it is, and of "
        f"the same model behind a layer that rounds images to {LEVELS} levels.",
        *(_checks(title, report) for title, report in checks.items()),
    ]
    return records.fill(
        NAME,
        data=first["dataset"] + (f" ({note})" if note else ""),
        eps=f"{255 * first['eps']:.4g}/255",
        white_box=_white_box(models, first["dataset"]),
        few=FEW,
        deployed=_deployed(models),
        evasions=_evasions(models),
        files=_files(models),
        model=name,
        cpu=first["machine"]["cpu"],
        cores=first["machine"]["cores"],
        times=_times(parts),
        masking="\n\n".join(masking if checks else []),
    )


def _cell(result):
    low, high = (100 * bound for bound in result["interval"])
    return f"{100 * result['accuracy']:.1f} ({low:.1f} to {high:.1f})"


def _white_box(models, dataset):
    header = ["model", *(f"{name}, n={MANY:,}" for name in ("clean", "FGSM", "PGD", "PGD-DLR"))]
    header += [f"PGD, n={FEW}", f"AutoAttack, n={FEW}"]
    rows = []
    for name, parts in models.items():
        many = parts["white_box"]["results"]
        cells = [_cell(many[attack]) for attack in ("clean", "fgsm", "pgd", "pgd_dlr")]
        few = parts.get("autoattack", {"results": {}})["results"]
        cells += [_cell(few[attack]) if few else "" for attack in ("pgd", "autoattack")]
        cells[-1] += " **!**" if gap_warning(few) else ""
        other = parts["white_box"]["dataset"]
        rows.append([f"`{name}`" + (f" ({other})" if other != dataset else ""), *cells])
    return tables.markdown(header, rows)


def on_file(parts):
    """Returns {attack: result} of what was run against a file itself, of a model's `parts`."""
    found = parts.get("square", {"results": {}})["results"] | parts["deployed"]["results"]
    names = ("clean", "transfer", "pgd", "diva", "square")
    return {name: found[name] for name in names if name in found}


def worst(found):
    """Returns the name of the attack in what `on_file` returns that leaves the lowest accuracy."""
    return min(found, key=lambda name: found[name]["accuracy"])


def _deployed(models):
    shown = {
        "clean": f"clean, n={FEW}",
        "float/pgd": "PGD, float model",
        "transfer": "transfer",
        "pgd": "PGD",
        "diva": "DIVA",
        "square": "Square",
        "worst": "worst",
    }
    rows = []
    for name, parts in models.items():
        if "deployed" in parts:
            found = on_file(parts)
            found |= {"worst": found[worst(found)]}
            found |= {"float/pgd": parts["deployed"]["results"]["float/pgd"]}
            rows.append(
                [f"`{name}`", *(_cell(found[each]) if each in found else "" for each in shown)]
            )
    return tables.markdown(["int8 file of", *shown.values()], rows)


def _evasions(models):
    """Returns a sentence: how many images DIVA found of robust models, and of others."""
    found = {True: [], False: []}
    for name, parts in models.items():
        if "deployed" in parts:
            clean, diva = (parts["deployed"]["results"][each] for each in ("clean", "diva"))
            count = round((clean["accuracy"] - diva["accuracy"]) * clean["examples"])
            found[zoo.card(name)["recipe"]["loss"] == "hybrid"].append(count)
    robust, others = (f"{max(counts, default=0)} of {FEW}" for counts in found.values())
    return (
        f"DIVA finds at most {robust} images of a robust network, and at most {others} of a "
        "network that was trained on unchanged images only."
    )


def _files(models):
    attacks = {"clean": "clean", "transfer": "transfer", "square": "Square"}
    header = [f"{title}, {kind}" for title in attacks.values() for kind in ("float", "int8")]
    rows = []
    for name, parts in models.items():
        if "file" in parts:
            results = parts["file"]["results"]
            found = [results[prefix + attack] for attack in attacks for prefix in ("float/", "")]
            rows.append([f"`{name}`", *map(_cell, found)])
    return tables.markdown(["model", *header], rows)


def _times(parts):
    columns = {
        "FGSM": ("white_box", "fgsm"),
        "PGD": ("white_box", "pgd"),
        "PGD-DLR": ("white_box", "pgd_dlr"),
        "noise": ("white_box", "gaussian"),
        "random search": (MASKING, "random"),
        "AutoAttack": ("autoattack", "autoattack"),
        "Square": ("file", "float/square"),
        "Square, int8 file": ("file", "square"),
    }
    found = {
        title: parts[part]["results"][attack]
        for title, (part, attack) in columns.items()
        if part in parts
    }
    seconds = [1000 * each["seconds"] / max(each["attacked"], 1) for each in found.values()]
    return tables.markdown(list(found), [[f"{each:,.1f}" for each in seconds]])


def _checks(title, report):
    lines = [f"**{title}**", ""]
    lines += [f"- *{c['verdict']}*: {c['rule']} ({c['evidence']})" for c in report["masking"]]
    return "\n".join(lines)
