"""Runs a module, or a file ending in .py, as if what needs TensorFlow was not installed.

python -m tests.without_tensorflow MODULE ARGUMENTS
"""

import runpy
import sys

# The networks of tests are compiled for longer than they run.
QUICK_XLA = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"
)
MISSING = {
    "ai_edge_litert",
    "flatbuffers",
    "matplotlib",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_model_optimization",
    "tf_keras",
    "torch",
}


class Blocked:
    """A finder, for `sys.meta_path`, that finds no module of these packages."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, Blocked)
    _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    run = runpy.run_path if module.endswith(".py") else runpy.run_module
    run(module, run_name="__main__")
