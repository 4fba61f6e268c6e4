"""How the optimizer keeps pruned weights at 0, and what Keras adds to the loss."""

import keras
import tensorflow as tf


class Mask(keras.constraints.Constraint):
    """Zeros outside the mask, after the weight's own constraint."""

    def __init__(self, constraint, mask):
        self.constraint, self.mask = constraint, mask

    def __call__(self, weight):
        weight = tf.convert_to_tensor(self.constraint(weight) if self.constraint else weight)
        return tf.where(self.mask > 0, weight, tf.zeros_like(weight))


class Sum(keras.regularizers.Regularizer):
    """The weight's own regularizer and the algorithm's."""

    def __init__(self, own, other):
        self.own, self.other = own, other

    def __call__(self, weight):
        return (self.own(weight) if self.own else 0.0) + self.other(weight)


def finder(weights, masks):
    """Returns a compiled function without arguments: is any weight outside its mask not 0?"""

    @tf.function(autograph=False)
    def any_outside():
        return tf.reduce_any(
            [
                tf.reduce_any(tf.not_equal(tf.convert_to_tensor(weight), 0) & (mask <= 0))
                for weight, mask in zip(weights, masks, strict=True)
            ]
        )

    return any_outside
