"""What every command sets before TensorFlow is imported, unless the user has set it."""

import os

# TensorFlow logs in C++; real errors are exceptions. It leaves oneDNN off on some processors on
# which a training step is 1.5 times faster with it. PyTorch's threads would go on spinning after a
# step and slow down what runs next.
VARIABLES = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "OMP_WAIT_POLICY": "passive",
}


def prepare():
    """Sets `VARIABLES` and imports TensorFlow, which reads them and reports missing GPUs.

    Raises:
        RuntimeError: if another package hides this project's `tflite`.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        from tflite.quiet import quiet
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "The installed package `tflite`, which is TFLite's schema, hides this project's folder "
            "of that name. Both work if this project is installed, too: pip install ."
        ) from error

    with quiet():
        import ai_edge_litert.interpreter  # noqa: F401 (it brings a runtime of its own)

        import tfsparse  # noqa: F401
