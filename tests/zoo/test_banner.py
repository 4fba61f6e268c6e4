"""What a training run says before it trains."""

import types

import pytest

from zoo.banner import banner

RECIPE = {
    **{"arch": "resnet8", "width": 8, "pattern": None, "epochs": 6, "batch_size": 64},
    **{"prune": "dnr", "structure": "channel", "budget": "macs", "density": 0.05},
    **{"loss": "hybrid", "attack": "pgd", "attack_steps": 7, "eps": 8 / 255, "teacher": None},
    **{"beta": 0.5, "dtype_policy": "mixed_bfloat16"},
}


def show(done=0, taught=None, slow=False, **changes):
    dataset = types.SimpleNamespace(
        name="photos",
        sizes={"train": 4500, "validation": 500, "test": 1000},
        image_shape=(28, 28, 1),
        num_classes=10,
    )
    cost = types.SimpleNamespace(parameters=20_146, macs=3_000_000)
    machine = "2 CPU cores, a processor " + "with instructions, " * 6
    versions = {"keras": "3.15.1", "tensorflow": "2.21.0"}
    text = banner({**RECIPE, **changes}, machine, versions, dataset, cost, done, taught, slow)
    assert max(map(len, text.splitlines())) <= 100
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {},
            [
                "keras 3.15.1 on tensorflow 2.21.0 data photos: 4,500 train, 500 validation, 1,000 "
                "test images, 28 x 28 x 1, 10 classes",
                "network resnet8 of width 8: 20,146 parameters, 3.0 M MACs",
                "pruning dnr, channel, to a density of 5 % of the MACs of convolutions",
                "training 6 epochs of 70 steps, 64 images each; hybrid loss, 50 % clean and 50 % "
                "adversarial: PGD-7, L_inf 8/255 then",
            ],
        ),
        ({"prune": "none"}, ["pruning none training"]),
        ({"loss": "standard", "epochs": 1}, ["1 epoch of 70 steps, 64 images each; standard loss"]),
        (
            {"teacher": ["large", "runs/larger"], "teacher_weight": 0.9, "taught": 0.8764},
            [
                "PGD-7, L_inf 8/255; soft labels, weight 0.9, of large, runs/larger, right on "
                "87.6 % of the validation images then"
            ],
        ),
        ({"attack": "nfgsm"}, ["adversarial: N-FGSM"]),
        ({"beta": 0.2}, ["hybrid loss, 20 % clean and 80 % adversarial: PGD-7"]),
        ({"pattern": "PS4_P4", "width": None}, ["resnet8 with periodic kernels PS4_P4: 20,146"]),
        ({"done": 2}, ["8/255; continues after epoch 2 then"]),
    ],
)
def test_banner(changes, lines):
    text = show(**changes)
    for line in lines:
        assert line in text


def test_bfloat16_where_it_is_slow_is_told():
    assert "pass --dtype_policy=float32 to be faster" in show(slow=True)
    assert "bfloat16" not in show(slow=True, dtype_policy="float32") + show()
