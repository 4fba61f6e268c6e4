"""The interfaces of TensorFlow Model Optimization, imported without its side effect.

Importing tensorflow_model_optimization sets TF_USE_LEGACY_KERAS=1 and so turns `tf.keras` into
tf_keras for the rest of the process, unless `tf.keras` was used before. Importing tfsparse changes
neither `tf.keras` nor the environment.
"""

import os

import tensorflow as tf


def _import():
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


_sparsity = _import()

PolynomialDecay = _sparsity.PolynomialDecay
PrunableLayer = _sparsity.PrunableLayer
PruningPolicy = _sparsity.PruningPolicy
PruningSchedule = _sparsity.PruningSchedule
