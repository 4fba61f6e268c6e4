"""Classes of images in all forms, against the model's own outputs and Pillow."""

import keras
import numpy as np
import pytest
from PIL import Image

import zoo
from tflite.conversion import Images, convert_and_verify
from tfsparse import UsageError

NAME = "resnet8_dnr10_fashion_mnist_small"


@pytest.fixture(scope="module")
def images(fashion_mnist):
    return np.round(255 * fashion_mnist[0][:6]).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(images):
    """[(name, probability), ...] of each image, the most probable first, in ten lines."""
    logits = zoo.load(NAME).predict(images / 255, verbose=0).astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = zoo.card(NAME)["class_names"]
    return [sorted(zip(row, names, strict=True), reverse=True) for row in probabilities]


def check(found, expected, top=5, tolerance=1e-5):
    assert len(found) == len(expected)
    for predictions, pairs in zip(found, expected, strict=True):
        assert len(predictions) == top
        for prediction, (probability, name) in zip(predictions, pairs, strict=False):
            assert prediction.probability == pytest.approx(probability, abs=tolerance)
            if tolerance < 1e-3:
                assert prediction.class_name == name


def test_forms_of_images(images, expected, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    model = zoo.load(NAME)
    names = zoo.card(NAME)["class_names"]
    check(zoo.predict(NAME, images), expected)
    check(zoo.predict(NAME, np.float32(images / 255), top=10), expected, 10)
    check(zoo.predict(model, list(images), class_names=names), expected)
    check(zoo.predict(NAME, images[0]), expected[:1])
    check(zoo.predict(NAME, paths), expected)
    check(zoo.predict(NAME, str(paths[1])), expected[1:2])
    check(zoo.predict(NAME, [paths[2].as_uri(), images[3]]), expected[2:4])
    assert zoo.predict(model, images[0])[0][0].class_name.isdigit()
    colored = tmp_path / "colored.png"
    Image.fromarray(np.repeat(images[4], 3, axis=2)).save(colored)
    check(zoo.predict(NAME, colored), expected[4:5])


def test_files_of_models(images, expected, tmp_path):
    model = zoo.load(NAME)
    model.save(tmp_path / "model.keras")
    names = zoo.card(NAME)["class_names"]
    check(zoo.predict(tmp_path / "model.keras", images, class_names=names), expected)
    # Of the int8 file, by its own labels; its probabilities are coarser.
    found = zoo.predict(zoo.load_tflite(NAME), images)
    check(found, expected, tolerance=0.05)
    assert [row[0].class_name for row in found] == [row[0][1] for row in expected]


def test_arrays_are_resized_as_files_are(images, tmp_path):
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    Image.fromarray(large[0, ..., 0]).save(tmp_path / "large.png")
    (file,) = zoo.predict(NAME, tmp_path / "large.png", top=10)
    (array,) = zoo.predict(NAME, large[0], top=10)
    assert file[0].class_name == array[0].class_name
    # Pillow rounds to 8 bits.
    assert dict(file) == pytest.approx(dict(array), abs=0.01)


def test_outputs_of_other_forms(images):
    inputs = keras.Input((28, 28, 1))
    features = keras.layers.Flatten()(inputs)
    keras.utils.set_random_seed(0)
    logits = keras.layers.Dense(3)(features)
    plain = keras.Model(inputs, logits)
    softmax = keras.Model(inputs, keras.layers.Softmax()(logits))
    check(
        zoo.predict(softmax, images, top=3),
        [[(p.probability, p.class_name) for p in row] for row in zoo.predict(plain, images, top=3)],
        top=3,
    )
    logit = keras.layers.Dense(1)(features)
    second = keras.Model(inputs, keras.layers.Activation("sigmoid")(logit))
    probabilities = second.predict(images / 255, verbose=0)[:, 0]
    for model in (second, keras.Model(inputs, logit)):
        for row, probability in zip(zoo.predict(model, images), probabilities, strict=True):
            assert dict(row)["1"] == pytest.approx(probability, abs=1e-6)
            assert row[0].class_name == str(int(probability > 0.5))


def test_a_file_of_another_range(images, expected, tmp_path):
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, zoo.load(NAME)(keras.layers.Rescaling(1 / 255)(inputs)))
    labels = np.zeros(len(images), np.int32)
    names, floats = zoo.card(NAME)["class_names"], np.float32(images)
    conversion = convert_and_verify(
        model, "float32", Images(floats, floats, labels, names, None, (0, 255))
    )
    (tmp_path / "model.tflite").write_bytes(conversion.content)
    check(zoo.predict(tmp_path / "model.tflite", images), expected)


@pytest.mark.parametrize(
    ("images", "named"),
    [
        (np.full((1, 28, 28, 1), 255, np.float32), "divide 8-bit images by 255"),
        (np.full((1, 28, 28, 1), 200, np.int32), "Received: int32 from 200 to 200"),
        (np.full((14, 14, 1), np.nan, np.float32), "Received: float32 from nan"),
        (np.zeros((28, 28, 3), np.uint8), r"array \[height, width, 1\].*Received: \(28, 28, 3\)"),
        (np.zeros((28, 28), np.uint8), r"Received: \(28, 28\)"),
        (np.zeros((0, 28, 28, 1), np.uint8), r"Received: \(0, 28, 28, 1\)"),
        ("missing.png", r"Cannot read missing\.png: there is no such file. Check the path."),
        (".", r"Cannot read \.: it is a folder. Give an image."),
        ([], r"one image or more. Received: \[\]"),
        ("https://example.com/a.png", "Download the image first"),
    ],
)
def test_bad_images(images, named):
    with pytest.raises(UsageError, match=named):
        zoo.predict(NAME, images)


def test_bad_arguments(images):
    for model, named in (("resnet9", "Received: resnet9"), (3, "Received: 3"), ("x.tflite", "x.t")):
        with pytest.raises(UsageError, match=named):
            zoo.predict(model, images)
    with pytest.raises(UsageError, match=r"10 classes apart. Received: 2 class_names"):
        zoo.predict(NAME, images, class_names=["a", "b"])
    with pytest.raises(UsageError, match=r"top must be at least 1. Received: 0"):
        zoo.predict(NAME, images, top=0)
