"""Models and reports by path: what cannot be one is refused before it takes memory."""

import contextlib
import json
import pathlib
import types
import zipfile

import keras
import numpy as np
import pytest

from tfsparse.errors import UsageError
from zoo.loading import check_fit, find_dataset, find_model, read_report
from zoo.own_data import public_name


def small_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))


def test_model_and_its_report(tmp_path):
    model = small_model()
    model.save(tmp_path / "model.keras")
    (tmp_path / "report.json").write_text('{"dataset": "cifar10"}')
    for name in (tmp_path, tmp_path / "model.keras"):
        found, about = find_model(str(name))
        assert about == {"dataset": "cifar10"}
        for weight, expected in zip(found.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)


def test_a_card_stands_in_for_a_report(tmp_path):
    small_model().save(tmp_path / "model.keras")
    card = {"name": "x", "recipe": {}, "dataset": "parts", "class_names": ["a", "b", "c"]}
    for content, expected in ((json.dumps(card), card), ("[]", {}), ('{"model": "other"}', {})):
        (tmp_path / "card.json").write_text(content)  # others call other files so
        assert find_model(str(tmp_path))[1] == expected


def test_classes_of_another_order_are_refused():
    """All labels would be wrong."""
    data = types.SimpleNamespace(image_shape=(4, 4, 1), num_classes=3, class_names=["a", "b", "c"])
    for names in (None, ["a", "b", "c"], ["0", "1", "2"]):  # an .npz file has only numbers
        check_fit((4, 4, 1), 3, data, names)
    with pytest.raises(UsageError, match=r"classes are b, a, c\. .* Received: a, b, c"):
        check_fit((4, 4, 1), 3, data, ["b", "a", "c"])


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("/photos/parts", "parts"),
        ("../photos/parts/", "parts"),
        ("~/parts.npz", "parts.npz"),
        ("parts", "parts"),
        (".", pathlib.Path.cwd().name),
        ("clients/acme/parts", "parts"),
        ("cifar10_corrupted/fog_1", "cifar10_corrupted/fog_1"),
    ],
)
def test_public_name(name, public):
    assert public_name(name) == public


def test_public_name_of_a_folder_that_is_here(tmp_path, monkeypatch):
    (tmp_path / "photos" / "parts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("photos/parts") == "parts"


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "bomb.keras"
    small_model().save(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("padding", bytes(100_000_000))
    assert path.stat().st_size < 200_000
    with pytest.raises(UsageError, match=r"bomb\.keras: .*unpacks to 100,0"):
        find_model(str(path))


def test_a_member_outside_of_the_file_is_not_written(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = folder / "model.keras"
    small_model().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../escaped", b"x")
    with contextlib.suppress(UsageError):  # Keras 3.12 refuses the file, later ones the member
        find_model(str(path))
    assert [each.name for each in tmp_path.rglob("*")] == ["a", "b", "model.keras"]


def test_a_name_that_is_too_long():
    with pytest.raises(UsageError, match="Cannot read --model"):
        find_model("x" * 300)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "[" * 100_000, '{"dataset": 5}', '{"image_size": "x"}', '{"model": "x"}'],
    ids=lambda content: content[:20],
)
def test_what_is_no_report(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match=r"report\.json"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text(json.dumps({"dataset": None, "model": {}}))
    assert read_report(tmp_path / "report.json") == {"dataset": None, "model": {}}


def test_a_relative_data_set_seen_from_elsewhere():
    """What a report names is said to be of training; what a user names is not."""
    with pytest.raises(UsageError, match=r"no data set 'photos'.* runs/x was trained on it"):
        find_dataset({"dataset": "photos"}, "runs/x")
    with pytest.raises(UsageError) as error:
        find_dataset({"dataset": "photos"}, "runs/x", dataset="pictures")
    assert "'pictures'" in str(error.value)
    assert "was trained on" not in str(error.value)
