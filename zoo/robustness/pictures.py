"""The table and the page that show how robust a model is."""

import textwrap

import numpy as np

from tfsparse.attacks import default_step_size
from tfsparse.summaries import COLUMNS
from tfsparse.tables import aligned
from zoo.cards import gap_warning

AT_CHANCE = (
    "warning: clean accuracy is at chance level, so what attacks leave says nothing. Always "
    "answering the most frequent class is right on {majority:.1%} of the images. The model was "
    "given images in [{low}, {high}]; if it takes another range, give --input_range, such as 0,255."
)


def text(report):
    """Returns a report as a table to print, and the verdicts of the checks below it."""
    about = f"{report['model']} on the first {report['examples']:,} test images of "
    about += f"{report['dataset']}, L_inf {255 * report['eps']:.4g}/255, seed {report['seed']}"
    low, high = report["input_range"]
    majority = report["majority_accuracy"]
    chance = report["at_chance"] and AT_CHANCE.format(low=low, high=high, majority=majority)
    twin = report["twin_agreement"]
    twin = twin and f"gradients of a twin with the file's class on {100 * twin:.1f} % of images"
    verdicts = [f"{c['verdict']}: {c['rule']} ({c['evidence']})" for c in report["masking"]]
    warning = gap_warning(report["results"])
    warning = warning and f"warning: {warning}"
    about = textwrap.fill(about, COLUMNS)
    parts = [about, aligned(table(report)), chance, twin, warning, "\n".join(verdicts)]
    return "\n\n".join(part for part in parts if part)


def table(report):
    """Returns rows of str: a header, then each attack with the accuracy under it and its time."""
    header = ["attack", "accuracy %", "95 % interval", "success %", "s per 1,000 attacked"]
    results = report["results"]
    twin = any(name.startswith("float/") for name in results)
    rows = [[*header, "float model %"] if twin else header]
    for name, result in results.items():
        if name.startswith("float/"):
            continue
        low, high = (100 * bound for bound in result["interval"])
        time = 1000 * result["seconds"] / result["attacked"] if result["attacked"] else 0.0
        row = [name, _percent(result), f"{low:.1f} to {high:.1f}"]
        row.append("" if name == "clean" else _percent(result, "success_rate"))
        row.append(f"{time:.1f}")
        rows.append([*row, _percent(results.get(f"float/{name}"))] if twin else row)
    return rows


def page(report, flips, predictions, class_names):
    """Returns the page, a str of HTML.

    Args:
        report: as `zoo.robustness.evaluation.evaluate` returns.
        flips: as `zoo.robustness.flips.find_flips` returns.
        predictions: `(labels, predicted)` of the clean images, int [n] each.
        class_names: of the data set.
    """
    from zoo import pictures  # imports Matplotlib
    from zoo import report as html

    note = "success: share of correctly classified images that the attack flips."
    if warning := gap_warning(report["results"]):
        note += f" Warning: {warning}."
    sections = [
        html.table("Accuracy", table(report), note),
        html.facts("Threat model", threat_model(report)),
    ]
    for kind, label in (("eps", "eps, in 1/255"), ("steps", "steps")):
        if len(report["sweeps"][kind]) > 1:
            caption = f"The band is the 95 % interval over {report['examples']:,} images."
            sections.append(html.picture(curve(report, kind, label), caption))
    if flips:
        picture = pictures.adversarial_picture(flips, class_names, report["eps"])
        sections.append(html.picture(picture, f"{pictures.FLIPS_CAPTION} The attack is PGD."))
    confusion = pictures.confusion_picture(*predictions, class_names)
    caption = pictures.confusion_caption(*predictions, class_names)
    sections.append(html.picture(confusion, caption))
    if report["masking"]:
        checks = [f"{c['verdict']}: {c['rule']} ({c['evidence']})" for c in report["masking"]]
        sections.append(html.bullets("Checks for masked gradients", checks))
    sections.append(html.facts("Setting", _setting(report)))
    return html.page(f"{report['model']} under attack", *sections)


def threat_model(report):
    """Returns what the attacks may do, {name: value}: the bound, and the settings of each."""
    low, high = report["input_range"]
    bound = f"L_inf, eps {255 * report['eps']:.4g}/255 of images in [0, 1]"
    if (low, high) != (0, 1):
        bound += f", which the model takes in [{low}, {high}]"
    found = {
        "norm and bound": bound,
        "images": f"the first {report['examples']:,} test images of {report['dataset']}; those "
        "that the model classifies correctly are attacked",
    }
    for name, result in report["results"].items():
        if settings := _settings(name, result["settings"]):
            found[name] = settings
    return found


def _settings(name, settings):
    """Returns the settings of an attack in words; "" for none."""
    if "eps" not in settings:
        return ""
    if "version" in settings:
        return f"{settings['version']} version, {settings['steps']} steps of APGD and FAB"
    if "steps" in settings:
        eps, steps = settings["eps"], settings["steps"]
        size = settings["step_size"] or default_step_size(eps, steps)
        count = settings["restarts"]
        source = f" of {settings['source']}" if "source" in settings else ""
        return (
            f"{steps} step{'s' * (steps > 1)} of {255 * size:.3g}/255 within {255 * eps:.4g}/255, "
            f"{count} restart{'s' * (count > 1)} from a random start, loss: "
            f"{settings['loss'].replace('_', ' ')}{source}"
        )
    if name.endswith("fgsm"):
        return "1 step of eps, without a random start"
    if "queries" in settings:
        return f"random search, at most {settings['queries']:,} queries an image"
    draws = settings.get("draws", 1)
    return f"{draws} draw{'s' * (draws > 1)} of noise"


def _setting(report):
    """Returns what else the figures depend on, and what they compare with, {name: value}."""
    found = {key.replace("_", " "): report[key] for key in ("dataset", "seed", "batch_size")}
    found["always the most frequent class"] = f"{100 * report['majority_accuracy']:.2f} %"
    if report["at_chance"]:
        found["clean accuracy"] = "at chance level"
    if dense := report["dense_baseline"]:
        found["dense baseline"] = (
            f"{dense['name']}: clean {100 * dense['clean_accuracy']:.2f} %, "
            f"{dense['robust_attack']} {100 * dense['robust_accuracy']:.2f} %"
        )
    return found


def curve(report, kind, label):
    """Returns the figure of accuracy against bound or steps, with 95 % intervals."""
    factor = 255 if kind == "eps" else 1
    sweep = report["sweeps"][kind]
    points = np.array(
        [
            [factor * value, *(100 * np.array([result["accuracy"], *result["interval"]]))]
            for value, result in ((value, report["results"][name]) for name, value in sweep.items())
        ]
    )
    from matplotlib.figure import Figure

    from zoo.pictures import WIDTH

    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    x, accuracy, low, high = points.T
    axes.plot(x, accuracy, marker="o", color="tab:red")
    axes.fill_between(x, low, high, alpha=0.2, color="tab:red")
    clean = 100 * report["results"]["clean"]["accuracy"]
    axes.axhline(clean, linestyle="--", color="tab:blue", label="clean")
    axes.set(title=f"Accuracy under PGD against {kind}", xlabel=label, ylabel="accuracy, %")
    axes.set(xscale="log", ylim=(0, None), xticks=x)
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _percent(result, name="accuracy"):
    share = result and result[name]
    return "" if share is None else f"{100 * share:.2f}"
