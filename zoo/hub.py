"""A model of the zoo as a folder for the Hugging Face hub, with a model card that its readers know.

    FOLDER/README.md          the model card: metadata in YAML, figures, and code
    FOLDER/model.keras        the Keras model
    FOLDER/model_int8.tflite  its int8 file
    FOLDER/card.json          the zoo's card

The metadata follow the hub's specification of model cards; `hf upload NAME FOLDER` uploads it.
"""

import json
import shutil
import string

from tfsparse import files
from zoo import models
from zoo.own_data import public_name

# The hub's names of data sets that the zoo's models were trained on.
_DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "fashion_mnist_small": "zalando-datasets/fashion_mnist",
}
_TITLES = {
    "clean": "accuracy",
    "int8": "accuracy of the int8 file",
    "pgd": "accuracy under PGD",
    "autoattack": "accuracy under AutoAttack",
}
_README = string.Template("""---
$metadata
---

# $name

A convolutional network for $classes classes of images, $kind, made with tfsparse.

```text
$page
```

## Use

It takes images [n, $height, $width, $channels] in [0, 1] and returns logits. In the folder of these
files:

```python
import json

import keras
import numpy as np
$imports
model = keras.saving.load_model("model.keras", compile=False)
class_names = json.load(open("card.json"))["class_names"]
images = np.zeros((1, $height, $width, $channels), "float32")  # your own
print(class_names[int(np.argmax(model(images)[0]))])
```

The int8 file needs neither TensorFlow nor Keras. With `images` and `class_names` as above:

```python
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("model_int8.tflite")
interpreter.allocate_tensors()
(source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
scale, zero_point = source["quantization"]
codes = np.clip(np.round(images[:1] / scale + zero_point), -128, 127).astype("int8")
interpreter.set_tensor(source["index"], codes)
interpreter.invoke()
print(class_names[int(interpreter.get_tensor(target["index"]).argmax())])
```

## Cite

Periodic kernels: [arXiv 2001.10710](https://arxiv.org/abs/2001.10710). Dynamic network rewiring
(DNR): [arXiv 2011.03083](https://arxiv.org/abs/2011.03083).
""")


def write_folder(name, folder):
    """Writes the files above for a model of the zoo; the folder is complete or absent.

    Args:
        name: of the model.
        folder: new or empty.

    Raises:
        UsageError: if there is no such model, or the folder has files or cannot be made.
    """
    card, model, int8 = _public(models.card(name)), models.load(name), models.load_tflite(name)
    with files.new_folder(folder) as partial:
        model.save(partial / "model.keras")
        shutil.copyfile(int8, partial / "model_int8.tflite")
        (partial / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(readme(card), encoding="utf-8")


def _public(card):
    """Returns a card that names a data set of one's own without the path of the folders above."""
    found = type(card)(card)
    found["dataset"] = public_name(card["dataset"])
    found["recipe"] = {**card["recipe"], "dataset": public_name(card["recipe"]["dataset"])}
    return found


def readme(card):
    """Returns the model card of a `zoo.cards.Card`, a str of Markdown with metadata."""
    height, width, channels = card["model"]["input_shape"]
    is_periodic = card["model"]["pattern"] is not None
    kinds = [
        "with periodic kernels" if is_periodic else "",
        "pruned" if card["recipe"]["prune"] != "none" else "",
        "trained on adversarial examples" if card["recipe"]["loss"] == "hybrid" else "",
    ]
    return _README.substitute(
        metadata="\n".join(_yaml(metadata(card))),
        name=card["name"],
        classes=len(card["class_names"]),
        kind=", ".join(filter(None, kinds)) or "dense",
        page=card,
        height=height,
        width=width,
        channels=channels,
        imports="import tfsparse  # has the periodic layers\n" if is_periodic else "",
    )


def metadata(card):
    """Returns the metadata of a model card, a dict: what the hub searches and shows."""
    dataset = card["dataset"]
    known, shown = _DATASETS.get(dataset), f"{dataset} ({card['note']})".removesuffix(" ()")
    tags = ["litert", "tflite", "quantized", "tinyml"]
    tags += ["pruned", "sparse"] if card["recipe"]["prune"] != "none" else []
    tags += ["periodic-sparsity", "sparse"] if card["model"]["pattern"] else []
    tags += ["adversarial-robustness"] if card["recipe"]["loss"] == "hybrid" else []
    results = {
        "task": {"type": "image-classification"},
        "dataset": {"name": shown, "type": known or dataset, "split": "test"},
        "metrics": [
            _metric(name, card["results"][name]) for name in _TITLES if name in card["results"]
        ],
    }
    return {
        **({"license": card["license"].lower()} if card["license"] else {}),
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(tags)),
        **({"datasets": [known]} if known else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": card["name"], "results": [results]}],
    }


def _metric(name, found):
    title = _TITLES[name]
    if "eps" in found:
        title += f", L_inf {found['eps'] * 255:.4g}/255"
    return {
        "type": "accuracy",
        "name": f"{title}, {found['examples']:,} images",
        "value": round(found["accuracy"], 4),
    }


def _yaml(value, indent=""):
    """Returns the lines of a dict or a list in YAML; a scalar in JSON is one in YAML, too."""
    lines = []
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        head = f"{indent}{key}:" if isinstance(value, dict) else f"{indent}-"
        if isinstance(each, (dict, list)) and isinstance(value, dict):
            lines += [head, *_yaml(each, indent + "  ")]
        elif isinstance(each, dict):
            first, *others = _yaml(each, indent + "  ")
            lines += [f"{head} {first.strip()}", *others]
        else:
            lines.append(f"{head} {json.dumps(each)}")
    return lines
