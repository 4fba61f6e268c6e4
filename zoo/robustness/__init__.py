"""How robust is a model? Attacks, their results example by example, and what these say."""

# Here, so that a command can list the attacks in its help without importing TensorFlow.
WHITE_BOX = ("fgsm", "pgd", "pgd_dlr", "autoattack")
ATTACKS = ("clean", *WHITE_BOX, "square", "transfer", "uniform", "gaussian", "random")
