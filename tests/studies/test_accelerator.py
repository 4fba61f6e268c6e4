"""The study of accelerators, on a tiny network on the CPU."""

import json

import pytest

from tests.without_tensorflow import QUICK_XLA


@pytest.mark.slow
def test_measures_everything(run, tmp_path):
    pytest.importorskip("jax")
    sizes = ["--arch=resnet8", "--width=2", "--size=4", "--images=9", "--batch_size=4"]
    done = run(
        *("-m", "studies", "accelerator", *sizes, "--attack_steps=1", "--dtype_policy=float32"),
        f"--output={tmp_path / 'figures.json'}",
        KERAS_BACKEND="jax",
        XLA_FLAGS=QUICK_XLA,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert min(figures.values()) > 0
    # Two steps of four images are an epoch; the rest is left out.
    assert figures["images_per_second"] == pytest.approx(4 / figures["dense_step"])
    assert figures["first_step_from_cache"] < figures["first_step"]
    assert f"{figures['images_per_second']:,.0f}" in done.stdout
