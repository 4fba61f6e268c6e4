"""What the history of a training run says: whether it overfits, and which epoch is the best."""

from collections.abc import Sequence


def overfits_attack(history: Sequence[dict[str, float]], chance: float = 0.0) -> bool:
    """Returns whether training has overfitted to its attack in the last epoch.

    In "catastrophic overfitting", the network classifies the examples of its one-step attack, but
    fails under an attack of several steps (Andriushchenko and Flammarion, "Understanding and
    improving fast adversarial training", NeurIPS 2020). All of this must hold in the last epoch:

    - Robust accuracy on held-out images is more than 20 points below that of the epoch before, as
      in the early stopping of Wong et al. ("Fast is better than free", ICLR 2020, section 5.4; the
      number is that of their code); or it is less than half of its best; or it has been no better
      than guessing in all epochs, of two or more.
    - Adversarial accuracy in training is more than 20 points above it, or more than twice it. If
      robust accuracy has never been better than guessing, both must hold, and adversarial accuracy
      must be better than guessing.
    - Clean accuracy on held-out images is at least three quarters of its best. Otherwise training
      is unstable, which more attack steps do not mend.

    The halves, for networks that are never far above 20 %, what is said of guessing, for networks
    that overfit from the start, and the last two conditions are ours.

    Args:
        history: list of dicts, one per epoch, with "train_adversarial_accuracy",
            "validation_robust_accuracy", and "validation_clean_accuracy".
        chance: the highest accuracy that guessing reaches; robust accuracies up to it are none.
    """
    *before, last = history
    robust, trained = last["validation_robust_accuracy"], last["train_adversarial_accuracy"]
    learned = [row["validation_robust_accuracy"] for row in before]
    learned = [accuracy if accuracy > chance else 0.0 for accuracy in learned]
    apart = trained - robust > 0.2, robust < 0.5 * trained
    if any(learned):
        falls = learned[-1] - robust > 0.2 or robust < 0.5 * max(learned)
        is_one_sided = any(apart)
    else:
        falls = bool(before) and robust <= chance
        is_one_sided = all(apart) and trained > chance
    clean = [row["validation_clean_accuracy"] for row in history]
    return falls and is_one_sided and clean[-1] >= 0.75 * max(clean)


def best_epoch(history: Sequence[dict[str, float]]) -> int:
    """Returns the first epoch, counted from 1, with the best held-out robust accuracy.

    Without an attack in training, clean accuracy counts instead. If the network is pruned during
    training, only epochs whose density is within 1 % of the lowest count. The tolerance is for
    channel pruning, in which the number of remaining weights varies slightly.

    Args:
        history: list of dicts, one per epoch, with "validation_robust_accuracy" or
            "validation_clean_accuracy", and "density" if the network is pruned.
    """
    name = "validation_robust_accuracy"
    name = name if name in history[0] else "validation_clean_accuracy"
    densities = [row.get("density", 1.0) for row in history]
    sparse = [index for index, density in enumerate(densities) if density <= 1.01 * min(densities)]
    return max(sparse, key=lambda index: history[index][name]) + 1
