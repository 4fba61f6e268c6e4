"""The Square attack: random search that asks for nothing but logits.

Source: Andriushchenko et al., "Square Attack", ECCV 2020; the implementation is torchattacks'.
"""

import numpy as np

from tfsparse.errors import UsageError


def square(logits, eps, queries):
    """Returns the Square attack as `perturb(images, labels, seed, index)`.

    Args:
        logits: function of float32 images [n, h, w, c] in [0, 1] that returns a NumPy array
            [n, classes]. Nothing else of the model is used.
        eps: radius of the L_inf ball, in (0, 1].
        queries: how often `logits` is asked about each image, at most.

    Raises:
        UsageError: where torchattacks is not installed.
    """
    torch, torchattacks = import_torch("square")
    torch.set_num_threads(1)  # its own work is little; its threads would wait for the model's

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.none = torch.nn.Parameter(torch.zeros(()))  # tells torchattacks the device

        def forward(self, images):
            values = logits(images.permute(0, 2, 3, 1).contiguous().numpy())
            return torch.from_numpy(ranked(values))

    def perturb(images, labels, seed, index):
        # The seed is a single number there, and that of another batch must be another one.
        seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        attack = torchattacks.Square(Classifier(), eps=eps, n_queries=queries, seed=seed)
        images = torch.from_numpy(images).permute(0, 3, 1, 2)
        adversarial = attack(images, torch.from_numpy(labels).long())
        return adversarial.permute(0, 2, 3, 1).contiguous().numpy()

    return perturb


def ranked(logits):
    """Returns logits, float32, in which the first of equal ones is the highest by a little.

    The search stops where no margin is left. Quantised logits often tie, and of these `argmax`
    takes the first: a tie with a class behind the true one has not fooled anybody yet.
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
            f"The attack {attack} is that of the package torchattacks, which is not installed "
            f"({error}). Run: pip install 'tfsparse[attacks]'"
        ) from error
    return torch, torchattacks
