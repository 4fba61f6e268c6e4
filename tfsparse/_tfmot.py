"""The interfaces of TensorFlow Model Optimization, imported without its side effect.

Importing tensorflow_model_optimization sets TF_USE_LEGACY_KERAS=1 and so turns `tf.keras` into
tf_keras for the rest of the process, unless `tf.keras` was used before. Importing tfsparse changes
neither `tf.keras` nor the environment. Where it is not installed, `tfsparse.interfaces` has
classes of the same names that do what this package needs.
"""

import os
from typing import TYPE_CHECKING

from tfsparse.optional import are_installed


def _import():
    import tensorflow as tf

    before = os.environ.get("TF_USE_LEGACY_KERAS")
    tf.keras.layers  # noqa: B018 (here the lazy loader decides, once and for all, which Keras tf.keras is)
    try:
        from tensorflow_model_optimization.sparsity import keras as sparsity
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return sparsity


IS_INSTALLED = are_installed("tensorflow", "tensorflow_model_optimization", "tf_keras")
if IS_INSTALLED:
    _sparsity = _import()
else:
    from tfsparse import interfaces as _sparsity

if TYPE_CHECKING:  # TF-MOT has no types
    from tfsparse.interfaces import PolynomialDecay, PrunableLayer, PruningPolicy, PruningSchedule
else:
    PolynomialDecay = _sparsity.PolynomialDecay
    PrunableLayer = _sparsity.PrunableLayer
    PruningPolicy = _sparsity.PruningPolicy
    PruningSchedule = _sparsity.PruningSchedule


def ask(schedule, step):
    """Returns (whether to prune at `step`, sparsity), a bool and a float, as a schedule says."""
    if IS_INSTALLED:
        import tensorflow as tf

        step = tf.constant(step)
    should_prune, sparsity = schedule(step)
    return bool(should_prune), float(sparsity)
