"""The page of a training run."""

from zoo import outcome, pictures
from zoo import report as html

_DENSITIES_CAPTION = (
    "Density at the end of each epoch, on a logarithmic scale; layers in the order of the network. "
    "On the right, that of the last epoch."
)


def page(report, history, results, predictions, flips):
    """Returns the page, a str of HTML; arguments as of `zoo.runs.write_report`."""
    names = report["class_names"]
    heading, *bullets = results.splitlines()
    sections = [
        html.table("Beside the dense network", outcome.rows(report), _stars(report)),
        html.bullets(f"The {heading.rstrip(':')}", [line.removeprefix("- ") for line in bullets]),
        html.facts("Threat model", _threat(report)),
    ]
    if flips:
        picture = pictures.adversarial_picture(flips, names, report["threat_model"]["eps"])
        sections.append(html.picture(picture, pictures.FLIPS_CAPTION))
    sections.append(html.picture(pictures.accuracy_picture(history), _accuracy_caption(report)))
    if densities := pictures.density_picture(history):
        sections.append(html.picture(densities, _DENSITIES_CAPTION))
    confusion = pictures.confusion_picture(*predictions, names)
    caption = pictures.confusion_caption(*predictions, names)
    sections.append(html.picture(confusion, caption))
    recipe = {name: value for name, value in report["recipe"].items() if value not in (None, [])}
    sections += [html.facts("Recipe", recipe), html.facts("Versions", report["versions"])]
    return html.page(f"{report['model']['arch']} on {report['dataset']}", *sections)


def _accuracy_caption(report):
    texts = [
        f"The best epoch on validation images is {report['best_epoch']}.",
        "Always answering the most frequent class is right on "
        f"{report['majority_accuracy']:.1%} of the test images.",
    ]
    if baseline := report.get("dense_baseline"):
        texts.append(f"The dense {baseline['name']} has {baseline['clean_accuracy']:.1%}.")
    return " ".join(texts)


def _stars(report):
    return " ".join(f"* {note}." for note in outcome.notes(report))


def _threat(report):
    """Returns the threat model and what the attack achieved, {name: value}."""
    threat, rate = report["threat_model"], report["success_rate"]
    attacked = f"the first {threat['examples']:,} of {report['clean_examples']:,} test images"
    return {
        "norm and bound": f"{threat['norm']}, eps {255 * threat['eps']:.4g}/255, images in [0, 1]",
        "attack": "PGD on the cross-entropy, with full knowledge of the model",
        "steps": f"{threat['steps']} of {255 * threat['step_size']:.4g}/255",
        "restarts": f"{threat['restarts']}, from a random start in the ball",
        "images": attacked,
        "accuracy under attack": outcome.percent(report["robust_accuracy"]),
        "success rate": f"{outcome.percent(rate) or 'undefined'}, of the images that are "
        "classified correctly without the attack",
    }
