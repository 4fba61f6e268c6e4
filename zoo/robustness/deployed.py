"""White-box attacks on an int8 file: made on its differentiable twin, run against the file."""

import functools

import keras
from keras import ops

from tfsparse import attacks
from tfsparse.errors import UsageError
from tfsparse.evaluation import logits
from tfsparse.examples import from_unit
from zoo.robustness.subjects import of_unit_images

AGREEMENT = 0.995  # the least share of images whose class is the same in file and twin
CHECKED = 200  # images


def gradients_of(subject):
    """Returns the keras.Model of images in [0, 1] that has a `Subject`'s gradients.

    Raises:
        UsageError: if the subject is a file that has no twin.
    """
    return subject.model or _twin(subject.content, subject.input_range)


@functools.lru_cache(maxsize=2)
def _twin(content, input_range):
    from tflite.twin import twin

    return of_unit_images(twin(content), input_range)


def agreement(subject, images):
    """Returns the share of images that a file's twin classifies as LiteRT's reference kernels do.

    Those kernels, TFLM, and the C package give the same outputs to the bit. XNNPACK's, which run
    on phones and computers, differ by a step or two.

    Args:
        subject: the `Subject` of an int8 file.
        images: float [n, h, w, c] in [0, 1]; the first CHECKED are taken.

    Raises:
        UsageError: if it is below AGREEMENT, so that attacks on the twin say little of the file.
    """
    from tflite.runtimes import FileModel

    images = images[:CHECKED]
    expected = FileModel(subject.content, "reference")(from_unit(images, subject.input_range))
    found = ops.convert_to_numpy(logits(gradients_of(subject), images))
    share = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    if share < AGREEMENT:
        raise UsageError(
            f"The differentiable twin of {subject.name} gives {100 * share:.1f} % of "
            f"{len(images)} images the file's class; {100 * AGREEMENT:g} % are needed to attack "
            "the file through it. Use transfer and square."
        )
    return share


def diva(subject, options):
    """Returns DIVA on a file as a function of (images, labels, starts).

    It looks for images that the file misclassifies and the float model that it was made from does
    not, so that who tests the float model notices nothing: PGD on the difference of the two
    probabilities of the true class. Images that the float model misclassifies do not count; they
    are returned as they were.

    Source: Hao et al., "A Tale of Two Models: Constructing Evasive Attacks on Edge Models", MLSys
    2022, arXiv 2204.10933.

    Args:
        subject: the `Subject` of an int8 file.
        options: `zoo.robustness.catalogue.Options`, with `source`, the float model.
    """
    image = keras.Input(subject.image_shape)
    source = options.source.model
    both = keras.Model(
        image, ops.concatenate([source(image), gradients_of(subject)(image)], axis=1)
    )
    attack = attacks.pgd(both, options.eps, options.steps, options.step_size, loss=_evasion)

    def perturb(images, labels, starts):
        adversarial = ops.convert_to_numpy(attack(images, labels, starts))
        evades = options.source.logits(adversarial).argmax(axis=1) == labels
        adversarial[~evades] = images[~evades]
        return adversarial

    return perturb


def _evasion(labels, logits):
    true = ops.one_hot(labels, logits.shape[1] // 2)
    of_source, of_file = (
        ops.sum(true * ops.softmax(each), axis=1) for each in ops.split(logits, 2, axis=1)
    )
    return of_source - of_file
