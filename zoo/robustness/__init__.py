"""How robust is a model? Attacks, their results example by example, and what these say."""

# Here, so that a command can list the attacks in its help without importing TensorFlow.
OF_GRADIENTS = ("fgsm", "pgd", "pgd_dlr", "diva")  # those of a file are its twin's
ATTACKS = (
    *("clean", *OF_GRADIENTS, "autoattack", "square", "transfer"),
    *("uniform", "gaussian", "random"),
)
