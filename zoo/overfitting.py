"""What a training run does when it overfits to its attack.

`tfsparse.epochs.overfits_attack` says whether it does.
"""

from tfsparse import attacks
from tfsparse.errors import UsageError

ACTIONS = ("restore", "stop", "continue")
MAX_STEPS = 10  # that `restore` chooses


def training_attack(model, name, steps, eps, recoveries=()):
    """Returns the attack of training, which has one step more after each recovery.

    Args:
        model: keras.Model under attack.
        name: "pgd", or "nfgsm", which has one step; with more steps it is PGD.
        steps: of PGD, without recoveries.
        eps: L_inf bound.
        recoveries: list, as `tfsparse.checkpoints.Checkpoints` has it.
    """
    if name == "nfgsm" and not recoveries:
        return attacks.nfgsm(model, eps)
    return attacks.pgd(model, eps, steps + len(recoveries))


def respond(action, checkpoints, steps):
    """Acts on the last epoch of `checkpoints.history`, in which the network overfitted.

    Args:
        action: one of ACTIONS: go back to the last sound epoch and make the attack one step longer;
            stop; or continue.
        checkpoints: the `tfsparse.checkpoints.Checkpoints` of the run.
        steps: of the training attack so far.

    Returns:
        `(line, goes_on)`: what to tell the user, and whether training continues. If it does not,
        the newest checkpoint is that of the last sound epoch.

    Raises:
        UsageError: if the action is to stop, or the attack would have more than MAX_STEPS steps.
    """
    last = checkpoints.history[-1]
    before = max(row["validation_robust_accuracy"] for row in checkpoints.history[:-1])
    line = (
        f"catastrophic overfitting in epoch {last['epoch']}: accuracy under PGD, on validation "
        f"images, is {last['validation_robust_accuracy']:.1%} after {before:.1%}; under the "
        f"training attack it is {last['train_adversarial_accuracy']:.1%}."
    )
    if action == "continue":
        return f"{line} Training continues.", True
    if action == "stop" or steps >= MAX_STEPS:
        remedy = f"Give --attack_steps={steps + 1} and another --workdir, or continue"
        if steps >= MAX_STEPS:
            remedy = "Continue"
        raise UsageError(
            f"Stopped: {line} best.keras is of an epoch before. {remedy} with "
            "--on_overfitting=continue."
        )
    checkpoints.go_back({**last, "attack_steps": steps + 1})
    return f"{line} Back to the last sound epoch, with PGD-{steps + 1}.", False
