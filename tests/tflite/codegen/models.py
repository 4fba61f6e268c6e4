"""Keras models for the tests of C packages."""

import keras


def flattened_cnn(shape, classes):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 3, 2, activation="relu"), keras.layers.MaxPooling2D(3)]
    layers += [keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input(shape), *layers])
