"""The Square attack: random search that needs nothing but logits.

Source: Andriushchenko et al., "Square Attack", ECCV 2020; the implementation is torchattacks'.
"""

import numpy as np

from tfsparse.errors import UsageError

IMAGES_OF_A_SEED = 100


def square(logits, eps, queries):
    """Returns the Square attack as `perturb(images, labels, seeds)`.

    Args:
        logits: function of float32 images [n, h, w, c] in [0, 1] that returns a NumPy array
            [n, classes]. Nothing else of the model is used.
        eps: radius of the L_inf ball, in (0, 1].
        queries: maximum number of times that `logits` is called on each image.

    Raises:
        UsageError: if torchattacks is not installed.
    """
    torch, torchattacks = import_torch("square")
    torch.set_num_threads(1)  # it does little itself, and its threads would slow the model's

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.none = torch.nn.Parameter(torch.zeros(()))  # tells torchattacks the device

        def forward(self, images):
            values = logits(images.permute(0, 2, 3, 1).contiguous().numpy())
            return torch.from_numpy(ranked(values))

    def perturb(images, labels, seeds):
        seed = seed_of_batch(seeds)
        attack = torchattacks.Square(Classifier(), eps=eps, n_queries=queries, seed=seed)
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
        adversarial = attack(images, torch.from_numpy(labels).long())
        return adversarial.permute(0, 2, 3, 1).contiguous().numpy()

    return perturb


def seed_of_batch(seeds):
    """Returns the only number that torchattacks takes for a batch; each hundred has its own.

    Args:
        seeds: int [n, 3], as `tfsparse.starts.image_seeds` returns them.
    """
    seed, restart, image = (int(value) for value in seeds[0])
    entropy = [1000 * seed + restart, image // IMAGES_OF_A_SEED]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def ranked(logits):
    """Returns logits, float32, in which the first of equal ones is slightly higher.

    The search stops when the margin is 0. Quantized logits often tie, and `argmax` takes the first
    of them: an image that ties with a class after the true one is still classified correctly.
    """
    logits = np.asarray(logits, np.float64)
    little = 1e-5 * max(np.abs(logits).max(initial=0.0), 1e-3)
    return (logits - little * np.arange(logits.shape[1]) / logits.shape[1]).astype(np.float32)


def import_torch(attack):
    """Returns the modules `(torch, torchattacks)` that `attack` needs."""
    try:
        import torch
        import torchattacks
    except ImportError as error:
        raise UsageError(
            f"The attack {attack} needs the package torchattacks, which is not installed "
            f"({error}). Run: pip install 'tfsparse[attacks]'"
        ) from error
    return torch, torchattacks
