"""The table and the page that show how robust a model is."""

import numpy as np

from tfsparse.tables import aligned

AT_CHANCE = (
    "warning: clean accuracy is at chance level, so what attacks leave says nothing. The model was "
    "given images in [{low}, {high}]; if it takes another range, give --input_range, such as 0,255."
)


def text(report):
    """Returns a report as a table to print, and the verdicts of the checks below it."""
    about = f"{report['model']} on the first {report['examples']:,} test images of "
    about += f"{report['dataset']}, L_inf {255 * report['eps']:.4g}/255, seed {report['seed']}"
    low, high = report["input_range"]
    chance = report["at_chance"] and AT_CHANCE.format(low=low, high=high)
    twin = report["twin_agreement"]
    twin = twin and f"gradients of a twin with the file's class on {100 * twin:.1f} % of images"
    verdicts = [f"{c['verdict']}: {c['rule']} ({c['evidence']})" for c in report["masking"]]
    parts = [about, aligned(table(report)), chance, twin, "\n".join(verdicts)]
    return "\n\n".join(part for part in parts if part)


def table(report):
    """Returns rows of str: a header, then each attack with the accuracy under it and its time."""
    header = ["attack", "accuracy %", "95 % interval", "s per 1,000 attacked"]
    results = report["results"]
    twin = any(name.startswith("float/") for name in results)
    rows = [[*header, "float model %"] if twin else header]
    for name, result in results.items():
        if name.startswith("float/"):
            continue
        low, high = (100 * bound for bound in result["interval"])
        time = 1000 * result["seconds"] / result["attacked"] if result["attacked"] else 0.0
        row = [name, _percent(result), f"{low:.1f} to {high:.1f}", f"{time:.1f}"]
        rows.append([*row, _percent(results.get(f"float/{name}"))] if twin else row)
    return rows


def page(report, examples, class_names):
    """Returns the page, a str of HTML.

    Args:
        report: as `zoo.robustness.evaluation.evaluate` returns.
        examples: as `zoo.robustness.evaluation.adversarial_examples` returns.
        class_names: of the data set.
    """
    from zoo import report as runs  # imports Matplotlib

    shown = []
    for kind, label in (("eps", "eps, in 1/255"), ("steps", "steps of PGD")):
        if len(report["sweeps"][kind]) > 1:
            shown.append((curve(report, kind, label), f"Accuracy under PGD against {label}."))
    if examples:
        images, adversarial, labels, seen = examples
        titles = [(class_names[a], class_names[b]) for a, b in zip(labels, seen, strict=True)]
        picture = runs.adversarial_picture(images, adversarial, titles, report["eps"])
        caption = "Test images that the model classifies correctly, PGD's perturbation of them, "
        shown.append(
            (picture, caption + "and the result, each with the class that the model predicts.")
        )
    checks = {f"{each['verdict']}: {each['rule']}": each["evidence"] for each in report["masking"]}
    facts = {key: str(report[key]) for key in ("dataset", "examples", "seed", "batch_size")}
    if report["at_chance"]:
        facts["clean accuracy"] = "at chance level"
    return runs.page(f"{report['model']} under attack", {**checks, **facts}, table(report), shown)


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

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    x, accuracy, low, high = points.T
    axes.plot(x, accuracy, marker="o", color="tab:red")
    axes.fill_between(x, low, high, alpha=0.2, color="tab:red")
    clean = 100 * report["results"]["clean"]["accuracy"]
    axes.axhline(clean, linestyle="--", color="tab:blue", label="clean")
    axes.set(xlabel=label, ylabel="accuracy in %", xscale="log", ylim=(0, None), xticks=x)
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _percent(result):
    return f"{100 * result['accuracy']:.2f}" if result else ""
