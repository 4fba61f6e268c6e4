"""AutoAttack, the field's standard, on a Keras model: APGD-CE, APGD-T, FAB-T and Square.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", ICML 2020; the implementation is torchattacks'. The same Keras model runs
under Keras' PyTorch backend in a process of its own, since a process has one backend. This module
is both sides: `autoattack` starts the process, and `main` runs in it.
"""

import contextlib
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np

from tfsparse import copying
from tfsparse.errors import UsageError
from tfsparse.evaluation import logits
from tfsparse.files import read_tensors, write_tensors
from tfsparse.graph import leaf_layers
from tfsparse.layers import PeriodicConv2D
from zoo.robustness.square import import_torch, seed_of_batch

# Of APGD and FAB, as published and as is usual; torchattacks' own default is 10.
STEPS = 100
TARGETS = 9  # of APGD-T and FAB-T: the classes that come next after the true one
# As fractions of the largest logit: by how much the logits of the two backends may differ, and how
# close the two highest logits of an image count as a tie.
BACKENDS_DIFFER = 1e-3
CLASSES_TIE = 1e-5


def check_classes(count, name="the model"):
    """Raises a `UsageError` if AutoAttack cannot attack a model of so many classes."""
    if count < 4:  # the targeted loss uses the four highest logits
        raise UsageError(
            f"autoattack needs 4 classes or more. Run tfsparse evaluate --attacks=pgd,square on "
            f"{name} instead, and quote the worst. Received: {count}"
        )


def autoattack(model, eps):
    """Returns AutoAttack's standard version on `model` as `perturb(images, labels, seeds)`.

    Args:
        model: keras.Model from images [n, h, w, c] in [0, 1] to logits.
        eps: radius of the L_inf ball, in (0, 1].

    Returns:
        A function that returns `(images, misclassified)`: the adversarial images, and a bool array
        [n] of those that the model misclassifies under PyTorch. An example on the decision boundary
        may be misclassified in one backend only.

    Raises:
        UsageError: if torchattacks is not installed or there are fewer than 4 classes. The function
            raises it if the model does not give the same logits under PyTorch.
    """
    where = device()
    check_classes(model.outputs[0].shape[-1])
    folder = tempfile.TemporaryDirectory(prefix="autoattack-")
    path = pathlib.Path(folder.name)
    model.save(path / "model.keras")

    def perturb(images, labels, seeds, folder=folder):  # the folder lives as long as this
        tensors = {
            "images": images,
            "labels": labels,
            "logits": keras.ops.convert_to_numpy(logits(model, images)),
            "eps": np.array(eps),
            "seed": np.array([seed_of_batch(seeds)], np.int64),
        }
        write_tensors(path / "in.safetensors", tensors)
        environment = {
            **os.environ,
            "KERAS_BACKEND": "torch",
            "KERAS_TORCH_DEVICE": where,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, "-m", "zoo.robustness.autoattack", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise UsageError(f"AutoAttack failed: {reason.removeprefix('error: ')}")
        result, _ = read_tensors(path / "out.safetensors")
        return result["images"], result["misclassified"].astype(bool)

    return perturb


def device():
    """Returns where PyTorch computes, "cuda" or "cpu"; raises a `UsageError` without PyTorch."""
    torch, _ = import_torch("autoattack")
    return "cuda" if torch.cuda.is_available() else "cpu"


def main(folder):
    """Attacks the images in `folder`; runs in the process with the PyTorch backend."""
    torch, torchattacks = import_torch("autoattack")
    # In TensorFloat-32, logits would differ from those of other devices.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = with_dense_kernels(keras.saving.load_model(folder / "model.keras", compile=False))
    model.trainable = False  # the attacks need gradients with respect to the images only
    for layer in leaf_layers(model):
        if type(layer) is keras.layers.AveragePooling2D and layer.padding == "same":
            layer.__class__ = AveragePooling2D
        if type(layer) is keras.layers.Conv2D and layer.data_format == "channels_last":
            layer.__class__ = Conv2D
    tensors, _ = read_tensors(folder / "in.safetensors")
    images = torch.from_numpy(tensors["images"]).to(device()).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(tensors["labels"]).to(device()).long()
    seed, classes = int(tensors["seed"][0]), tensors["logits"].shape[1]

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            logits = self.model(images.permute(0, 2, 3, 1), training=False)
            # Gives the images a gradient of 0 if the input layer has none.
            return logits + 0 * images.sum()

    classifier = Classifier()
    # Keras' own Python takes several times as long as a small network's operations: record these.
    torch._C._jit_set_texpr_fuser_enabled(False)  # or kernels are made for each size of a batch
    with torch.no_grad():
        with contextlib.suppress(RuntimeError):  # of a layer that cannot be recorded
            recorded = torch.jit.trace(classifier, images[:2], check_trace=False)
            classifier.forward = lambda images: recorded(images)  # itself, it would be a submodule
        check_logits(tensors["logits"], classifier(images).cpu().numpy())
    attack = torchattacks.AutoAttack(
        classifier, eps=float(tensors["eps"]), n_classes=min(classes, TARGETS + 1), seed=seed
    )
    for each in attack._autoattack.attacks[:3]:
        each.steps = STEPS
    adversarial = attack(images, labels).detach()
    with torch.no_grad():
        misclassified = classifier(adversarial).argmax(dim=1) != labels
    result = {
        "images": np.ascontiguousarray(adversarial.permute(0, 2, 3, 1).cpu().numpy()),
        "misclassified": misclassified.cpu().numpy().astype(np.uint8),
    }
    write_tensors(folder / "out.safetensors", result)


def with_dense_kernels(model):
    """Returns a Keras model with a stock layer in the place of each periodic one, if it can be.

    That is faster under PyTorch, which cannot record a gradient of the layer's own.
    """
    periodic = [layer for layer in leaf_layers(model) if type(layer) is PeriodicConv2D]
    if not periodic:
        return model

    def make(operation):
        if operation not in periodic:
            return copying.clone(operation)
        names = ("filters", "kernel_size", "strides", "padding", "activation", "use_bias", "name")
        return keras.layers.Conv2D(**{name: getattr(operation, name) for name in names})

    def weights(original, new):
        if original not in periodic:
            return original.get_weights()
        return [keras.ops.convert_to_numpy(original.dense_kernel()), *original.get_weights()[1:]]

    with contextlib.suppress(UsageError):  # of a model that cannot be copied layer by layer
        return copying.copy_model(model, make, weights)
    return model


class Conv2D(keras.layers.Conv2D):
    """Convolution that leaves its input where it is in memory, with the same result to the bit.

    Up to version 3.15, Keras copies inputs with channels last to channels first under PyTorch and
    back: on a CPU, a fifth of a small network's attack.
    """

    def convolution_op(self, inputs, kernel):
        kernel = keras.ops.convert_to_tensor(kernel).permute(3, 0, 1, 2).contiguous()
        outputs = keras.ops.conv(
            inputs.permute(0, 3, 1, 2),
            kernel.permute(1, 2, 3, 0),
            strides=self.strides,
            padding=self.padding,
            data_format="channels_first",
            dilation_rate=self.dilation_rate,
        )
        return outputs.permute(0, 2, 3, 1)


class AveragePooling2D(keras.layers.AveragePooling2D):
    """Average pooling with padding "same" that leaves the padding out, as TensorFlow does.

    Up to version 3.15, Keras repeats the images' border under PyTorch (keras pull request 23233).
    """

    def call(self, inputs):
        rows, columns = (1, 2) if self.data_format == "channels_last" else (2, 3)
        padding = [(0, 0)] * 4
        for axis, size, stride in zip((rows, columns), self.pool_size, self.strides, strict=True):
            length = inputs.shape[axis]
            missing = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
            padding[axis] = (missing // 2, missing - missing // 2)

        def pool(images):
            padded = keras.ops.pad(images, padding)
            return keras.ops.average_pool(
                padded, self.pool_size, self.strides, "valid", self.data_format
            )

        return pool(inputs) / pool(keras.ops.ones_like(inputs[:1]))


def check_logits(tensorflow, torch):
    """Raises a `UsageError` unless the logits [n, classes] of the two backends are the same."""
    largest = np.abs(tensorflow).max()
    difference = np.abs(tensorflow - torch).max() / largest
    others = tensorflow.argmax(axis=1) != torch.argmax(axis=1)
    classes = others.sum()
    second, first = np.sort(tensorflow, axis=1)[:, -2:].T
    # Rounding may decide a tie between two classes, and nothing else.
    decided = first - second > CLASSES_TIE * largest
    if not difference <= BACKENDS_DIFFER or (others & decided).any():
        raise UsageError(
            "The model is not the same under PyTorch as under this backend: its logits differ by "
            f"{difference:.1e} of the largest, and {classes} of {len(torch)} images have another "
            "class. Use only Keras layers and keras.ops."
        )


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except UsageError as error:
        sys.exit(f"error: {error}")
