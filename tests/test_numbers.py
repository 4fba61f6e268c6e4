"""Unusual sizes and precisions: a step of robust, sparse training, a file, and a .tflite."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import zoo
from tflite.convert import convert
from tfsparse import attacks, training
from tfsparse.pruning import DNRSchedule, Pruner

# What the dtype policy, image, number of classes, sizes of the batches, and pattern are. In mixed
# precision the weights of periodic layers are cast before they become kernels; a periodic network
# has dense convolutions, too. A batch of another size is another trace.
CASES = {
    "float16": ("mixed_float16", (8, 8, 3), 10, (4, 4, 1), "PS4_P4"),
    "bfloat16": ("mixed_bfloat16", (8, 8, 3), 10, (4, 4), "PS4_P4"),
    "many_classes_one_image": ("float32", (8, 8, 3), 1000, (1, 1, 1), None),
    "one_class_gray": ("float32", (8, 8, 1), 1, (4, 4, 1), None),
    "large": ("float32", (224, 224, 3), 10, (2, 2), "PS4_P4"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:In loss categorical_crossentropy:SyntaxWarning")  # one class
@pytest.mark.parametrize(
    ("policy", "shape", "classes", "sizes", "pattern"), CASES.values(), ids=CASES
)
def test_trains_saves_loads_and_converts(policy, shape, classes, sizes, pattern, tmp_path):
    default = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        # TensorFlow 2.21 crashes on 8 channels of large images (docs/reliability.md).
        width = 16 if shape[0] > 100 else 8
        model = zoo.build("resnet8", shape, classes, width, pattern)
    finally:
        keras.config.set_dtype_policy(default)
    pruner = Pruner(model, DNRSchedule(0.5, 2, 1))
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer = training.Trainer(model, optimizer, attacks.pgd(model, 8 / 255, 1), pruner)
    rng = np.random.default_rng(0)
    images = rng.random((sum(sizes), *shape), np.float32)
    labels = rng.integers(0, classes, len(images))
    before = [variable.numpy() for variable in model.trainable_variables]
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(sizes[0])
    means = trainer.run_epoch(batches, 0)
    assert np.isfinite(means["loss"])
    if classes > 1:
        assert all(
            np.any(variable.numpy() != value)
            for variable, value in zip(model.trainable_variables, before, strict=True)
        )
    else:
        assert means["loss"] < 1e-2  # the regularizer's: one class is always right
    assert pruner.density == pytest.approx(0.5, abs=1e-3)
    pruner.detach()

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected = np.asarray(model(images), np.float32)
    np.testing.assert_array_equal(np.asarray(loaded(images), np.float32), expected)
    interpreter = Interpreter(model_content=convert(loaded, "float32"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1])
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    tolerance = 1e-4 if policy == "float32" else 0.1  # 8 bits of bfloat16, through 8 layers
    np.testing.assert_allclose(outputs, expected[:1], atol=tolerance * (1 + abs(expected).max()))
    assert len(convert(loaded, "int8", images[:2])) > 1000
