"""The study of training speed: what it measures, its order and its arithmetic; no times."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

import zoo
from studies import training_speed
from studies.training_speed import (
    PLAIN,
    XLA,
    has_torch,
    masked,
    masked_twin,
    summary,
    table,
    tensorflow_step,
    torch_network,
    torch_step,
    training_steps,
)
from tfsparse import UsageError
from tfsparse.layers import PeriodicConv2D


def batch(count=8, size=8):
    rng = np.random.default_rng(0)
    return rng.random((count, size, size, 3), np.float32), rng.integers(10, size=count)


@pytest.mark.parametrize("pattern", ["PSD1_P16", "PS4_P4_F1"])
def test_masked_twin_trains_as_the_periodic_network_does(pattern, monkeypatch):
    monkeypatch.setattr(tf, "function", lambda jit_compile: lambda step: step)  # takes longer
    keras.utils.set_random_seed(0)
    periodic = zoo.build("resnet8", (8, 8, 3), 10, width=8, pattern=pattern)
    twin = masked_twin(periodic)
    images, labels = batch()
    steps = [tensorflow_step(model, images, labels, xla=False) for model in (periodic, twin)]
    losses = np.array([[step() for step in steps] for _ in range(4)])
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-4)
    assert losses[-1, 0] < losses[0, 0]  # it does train
    checked = 0
    for layer in periodic.layers:
        if isinstance(layer, PeriodicConv2D):
            its = twin.get_layer(layer.name)
            mask = to_numpy(its.mask)
            assert mask.sum() == layer.kernel.shape[0]
            # As in TF-MOT, the step leaves momentum in masked weights until the next forward pass.
            np.testing.assert_allclose(
                to_numpy(its.kernel) * mask, to_numpy(layer.dense_kernel()), atol=1e-5
            )
            checked += 1
    assert checked == 6


def test_xla_takes_the_same_steps():
    images, labels = batch()
    losses = []
    for xla in (False, True):
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3))
        x = PeriodicConv2D(8, 3, "PS4_P4")(keras.layers.Conv2D(8, 3)(image))
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        logits = keras.layers.Dense(10)(keras.layers.Flatten()(x))
        step = tensorflow_step(keras.Model(image, logits), images, labels, xla)
        losses.append([step() for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-4)


needs_torch = pytest.mark.skipif(not has_torch(), reason="PyTorch for CPUs is not installed")


@needs_torch
def test_pytorch_is_measured_too():
    assert ("dense in PyTorch", PLAIN) in training_steps("vgg16", 4, [], batch_size=2, size=8)


@needs_torch
@pytest.mark.parametrize("arch", ["resnet18", "vgg16"])
def test_the_network_in_pytorch_has_the_same_convolutions_and_weights(arch):
    import torch

    model = zoo.build(arch, (16, 16, 3), 10, width=4)
    expected = sorted(
        (*layer.output.shape[1:], *layer.kernel.shape[:3])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    )
    network, found = torch_network(arch, 4), []

    def record(layer, _, output):
        channels, *size = output.shape[1:]
        found.append((*size, channels, *layer.kernel_size, layer.in_channels))

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(record)
    step = torch_step(network, *batch(size=16))
    losses = [step() for _ in range(5)]
    assert sorted(found[: len(expected)]) == expected
    assert losses[-1] < losses[0]
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == sum(np.prod(v.shape) for v in model.trainable_variables)


def test_all_variants_are_measured_in_both_modes(monkeypatch, capsys):
    """XLA itself is tested above; compiling each network would take minutes."""
    modes = []

    def step(model, images, labels, xla):
        modes.append(xla)
        return lambda: float(model(images)[0, 0])

    monkeypatch.setattr(training_speed, "tensorflow_step", step)
    steps = training_steps("resnet8", 4, ["PS4_P4", "PSD1_P4"], batch_size=2, size=8)
    variants = ["dense", "PS4_P4", masked("PS4_P4"), "PSD1_P4", masked("PSD1_P4")]
    expected = [(name, mode) for name in variants for mode in (PLAIN, XLA)]
    assert list(steps) == expected
    assert modes == [False, True] * 5
    captured = capsys.readouterr()
    assert captured.out == ""
    for name, mode in expected:
        assert f"{name}, {mode}: first step after" in captured.err
    with pytest.raises(UsageError, match="PS4P4"):
        training_steps("resnet8", 4, ["PS4P4"], batch_size=2, size=8)


def test_summary_of_raw_samples_and_its_table():
    rng = np.random.default_rng(0)
    names = ["dense", "PS4_P4", masked("PS4_P4")]
    samples = {(name, mode): rng.random(9).tolist() for name in names for mode in (PLAIN, XLA)}
    samples["dense in PyTorch", PLAIN] = rng.random(9).tolist()
    rows = summary(samples)
    assert [row["variant"] for row in rows] == [*names, "dense in PyTorch"]
    for kind, measure in (("minimum", min), ("median", np.median)):
        best = [min(measure(samples[name, mode]) for mode in (PLAIN, XLA)) for name in names]
        best.append(measure(samples["dense in PyTorch", PLAIN]))
        for row, value in zip(rows, best, strict=True):
            assert row[f"best_{kind}_ms"] == pytest.approx(1000 * value)
            assert row[f"{kind}_speedup_over_dense"] == pytest.approx(best[0] / value)
            plain = 1000 * measure(samples[row["variant"], PLAIN])
            assert row[f"plain_{kind}_ms"] == pytest.approx(plain)
        over_mask = [row[f"{kind}_speedup_over_mask"] for row in rows]
        assert over_mask == [None, pytest.approx(best[2] / best[1]), None, None]
        xla = 1000 * measure(samples["PS4_P4", XLA])
        assert rows[1][f"xla_{kind}_ms"] == pytest.approx(xla)
        assert rows[3][f"xla_{kind}_ms"] is None
    assert {row["steps"] for row in rows} == {9}
    settings = {"arch": "resnet8", "width": None, "batch_size": 2, "size": 8, "threads": None}
    facts = {"cpu": "a processor", "cores": 2, "tensorflow": "2.21"}
    lines = table({"settings": settings, "machine": facts, "variants": rows}).splitlines()
    periodic, peer = ([cell.strip() for cell in lines[i].split("|")] for i in (5, 7))
    assert periodic[1:3] == ["PS4_P4", f"{rows[1]['minimum_speedup_over_dense']:.2f}x"]
    assert peer[1] == "dense in PyTorch"
    assert peer[-3:-1] == ["-", "-"]


def test_runs_are_recorded(run_study, tmp_path, monkeypatch, capsys):
    def step(model, images, labels, xla):
        return lambda: float(model(images)[0, 0])

    monkeypatch.setattr(training_speed, "tensorflow_step", step)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    arguments = ["--arch=resnet8", "--width=4", "--size=8", "--batch_size=2", "--seconds=0"]
    run_study(training_speed, *arguments, "--patterns=dense", f"--output={tmp_path}")
    (written,) = json.loads((tmp_path / "training_speed.json").read_text())
    assert [row["variant"] for row in written["variants"]] == ["dense"]
    assert written["settings"]["width"] == 4
    assert written["machine"]["OMP_WAIT_POLICY"] == "passive"
    printed = capsys.readouterr().out.strip()
    assert "1 steps of each" in printed
    assert printed in (tmp_path / "training_speed.md").read_text()
