"""What is set before TensorFlow is imported, unless the user has set it."""

import gc
import importlib.util
import os

# TensorFlow logs in C++; real errors are exceptions. PyTorch's threads would go on spinning after a
# step and slow down what runs next.
VARIABLES = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_WAIT_POLICY": "passive"}
# TensorFlow leaves oneDNN off on some processors on which a training step is 1.5 to 2.2 times
# faster with it. With it, `Model.fit` of a narrow network may crash: see `tfsparse.pointwise`.
OF_COMMANDS = {"TF_ENABLE_ONEDNN_OPTS": "1"}


# What conversion needs: {module: package}.
PACKAGES = {
    "tensorflow": "tensorflow",
    "ai_edge_litert": "ai-edge-litert",
    "flatbuffers": "flatbuffers",
}


def prepare_command(needs_tensorflow=False):
    """Does what `prepare` does for a command, which also turns oneDNN on."""
    _set(OF_COMMANDS)
    prepare(needs_tensorflow)


def prepare(needs_tensorflow=False):
    """Sets `VARIABLES` and imports this project, and with it TensorFlow, if that is installed.

    TensorFlow reads the variables and reports missing GPUs when it is imported.

    Args:
        needs_tensorflow: whether the command converts or runs .tflite files. It then runs under
            TensorFlow whatever KERAS_BACKEND says.

    Raises:
        RuntimeError: if another package hides this project's `tflite`, or one is missing.
    """
    _set(VARIABLES)
    missing = [package for module, package in PACKAGES.items() if not _is_installed(module)]
    if needs_tensorflow and missing:
        raise RuntimeError(
            f"This command needs {' and '.join(missing)}. Run: pip install {' '.join(missing)}"
        )
    if needs_tensorflow:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        from tflite.quiet import quiet
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "The installed package `tflite`, which is TFLite's schema, hides this project's folder "
            "of that name. Both work if this project is installed, too: pip install ."
        ) from error

    # What is imported stays. Looking for garbage in it takes a fifth of the time of the import.
    gc.disable()
    with quiet():
        if not missing:
            import ai_edge_litert.interpreter  # noqa: F401 (it brings a runtime of its own)

        import tfsparse  # noqa: F401
    gc.enable()


def _set(variables):
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _is_installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
