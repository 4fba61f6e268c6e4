"""What the zoo's commands set before they import TensorFlow, unless their user did."""

import os

from tflite.quiet import quiet

# TensorFlow leaves oneDNN off on some processors on which it speeds up these networks. PyTorch's
# threads would go on spinning after a step, in the way of what runs next.
VARIABLES = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "OMP_WAIT_POLICY": "passive",
}


def prepare():
    """Sets `VARIABLES` and imports TensorFlow, which reads them and reports missing GPUs."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    with quiet():
        import ai_edge_litert.interpreter  # noqa: F401, which has a TensorFlow of its own

        import tfsparse  # noqa: F401
