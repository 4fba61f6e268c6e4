"""The papers' claims: their recipes, and the arithmetic of the verdicts on runs made up."""

import numpy as np
import pytest

from studies import claims, dnr, records


def row(recipe, seed, clean, robust=None, parameters=1000, macs=2_000_000):
    return {
        "row": recipe,
        "note": "JPEG copy",
        "seed": seed,
        "epochs": 24,
        "parameters": parameters,
        "nonzero_parameters": parameters,
        "macs": macs,
        "clean_accuracy": clean,
        "robust_accuracy": robust,
        "robust_attack": "PGD-50, 2 restarts",
        "robust_examples": 1000,
        "hours": 0.5,
    }


def claim(points, *others):
    return claims.Claim("A above B", "0", "a", others or ("b",), "clean", points)


def test_claims_are_about_rows():
    for table, rows in ((claims.PERIODIC, claims.ROWS), (claims.DNR, dnr.ROWS)):
        assert {name for each in table for name in (each.recipe, *each.others)} <= rows.keys()
    queued = {row["row"] for row in records.read_csv("queue")}
    for each in (*claims.FULL_PERIODIC, *claims.FULL_DNR):
        assert {each.recipe, *each.others} <= queued


def test_interval_is_student_s():
    """Two groups of three: the classical two-sample interval, with 4 degrees of freedom."""
    first, second = [0.60, 0.62, 0.61], [0.65, 0.64, 0.66]
    grouped = {
        "a": [row("a", seed, value) for seed, value in enumerate(first)],
        "b": [row("b", seed, value) for seed, value in enumerate(second)],
    }
    difference, half = claims.compare(grouped, claim(0.0))
    assert difference == pytest.approx(-4.0)
    assert half == pytest.approx(2.776 * np.sqrt(1.0 * (1 / 3 + 1 / 3)), rel=1e-6)


def test_spread_is_pooled_where_one_of_both_has_seeds():
    grouped = {"a": [row("a", 0, 0.60)], "b": [row("b", 0, 0.65)]}
    grouped["c"] = [row("c", 0, 0.50), row("c", 1, 0.52)]
    assert claims.compare(grouped, claim(0.0)) == (pytest.approx(-5.0), None)
    grouped["b"].append(row("b", 1, 0.65))
    _, half = claims.compare(grouped, claim(0.0))
    # Squares 0 and 2 of one degree of freedom each.
    assert half == pytest.approx(4.303 * np.sqrt(1.0 * (1 + 1 / 2)), rel=1e-6)


def test_mean_of_several_networks():
    """Its variance is that of a single run, by 2, and by 2 again for each mean of two runs."""
    grouped = {
        "a": [row("a", seed, 0.60 + seed / 100) for seed in range(2)],
        "b": [row("b", 0, 0.6)],
    }
    grouped["c"] = [row("c", seed, 0.50 + seed / 50) for seed in range(2)]
    difference, half = claims.compare(grouped, claim(0.0, "b", "c"))
    assert difference == pytest.approx(60.5 - (60.0 + 51.0) / 2)
    # Squares 0.5 and 2 of one degree of freedom each.
    assert half == pytest.approx(4.303 * np.sqrt(1.25 * (1 / 2 + 1 / 4 + 1 / 8)), rel=1e-6)
    rows = [each for group in grouped.values() for each in group]
    assert claims.table([claim(0.0, "b", "c")], rows).splitlines()[-1] == (
        f"| A above B | 0 | 60.50 ± 0.71 vs. 60.00 and 51.00 ± 1.41 |  |  "
        f"| {difference:+.2f} ({difference - half:+.2f} to {difference + half:+.2f}) "
        "| 2, 1, 2 | **confirmed** |"
    )


def test_networks_of_no_claim_have_no_say():
    rows = [row("a", seed, 0.60 + seed / 100) for seed in range(2)] + [row("b", 0, 0.6)]
    others = [row("c", 0, 0.1), row("c", 1, 0.9)]
    others += [{**each, "row": "a, channels removed"} for each in rows[:2]]
    assert claims.table([claim(0.0)], rows + others) == claims.table([claim(0.0)], rows)


def test_no_verdict_on_what_is_not_claimed():
    rows = [row(name, seed, 0.60 + seed / 100) for name in "ab" for seed in range(2)]
    line = claims.table([claim(0.0)._replace(published="")], rows).splitlines()[-1]
    assert line.endswith("| 2, 2 |  |")
    assert claims.table([claim(0.0)], rows).endswith("| 2, 2 | **open** |")


@pytest.mark.parametrize(
    ("points", "difference", "half", "expected"),
    [
        (-0.8, -1.0, 0.5, "confirmed"),  # -1.5 is above -1.8
        (-0.8, -1.4, 0.7, "open"),
        (-0.8, -3.0, 0.5, "contradicted"),
        (-0.8, -3.0, None, "open"),
        (2.4, 2.0, 0.5, "confirmed"),
        (2.4, 1.0, 0.3, "contradicted"),  # better, if by less than published
    ],
)
def test_verdict(points, difference, half, expected):
    assert claims.verdict(claim(points), difference, half) == expected


def test_page():
    dense, sparse = "resnet18_w16_cifar10", "resnet18_w16_psd1p16_cifar10"
    rows = [row(dense, seed, 0.86 + seed / 1000, macs=11_200_000) for seed in range(2)]
    rows += [row(sparse, seed, 0.85 + seed / 1000, parameters=180) for seed in range(2)]
    names = "vgg16_w16_dense_robust_cifar10", "vgg16_w16_dnr5_cifar10"
    robust = [row(name, 0, 0.7, 0.3 - i / 10) for i, name in enumerate(names)]
    page = claims.page(rows, robust, [])
    assert "CIFAR-10 (JPEG copy). The networks" in page
    assert "under PGD-50 with 2 restarts on the first 1,000 test images" in page
    # sd of both 0.0707, 2 degrees of freedom: 4.303 * 0.0707 * sqrt(1 / 2 + 1 / 2) = 0.304
    assert (
        "| 92.01 % instead of 92.84 (-0.83) | 85.05 ± 0.07 vs. 86.05 ± 0.07 | -82 % "
        "| 5.6x fewer | -1.00 (-1.30 to -0.70) | 2, 2 | **confirmed** |"
    ) in page
    assert "| 20.00 vs. 30.00 | +0 % |  | -10.00 | 1, 1 | **open** |" in page
    assert "MobileNetV2 at about" not in page  # has no run
    assert "## At the papers' width\n\nNot measured yet." in page
    assert "Interpolated" not in page
    baselines = [row("mobilenet_v2_w8_cifar10", 0, 0.84), row("shufflenet_w80_cifar10", 0, 0.82)]
    assert "85.05 ± 0.07 vs. 84.00 and 82.00" in claims.page(rows + baselines, robust, [])


def test_baselines_with_more_operations():
    """Twice and four times those of PSD1_P16, which gains 1 point for each factor of two."""
    rows = [row("resnet18_w16_psd1p16_cifar10", seed, 0.80 + seed / 100) for seed in range(2)]
    rows.append(row("resnet18_w16_psd2p8_cifar10", 0, 0.815, macs=4_000_000))
    rows.append(row("mobilenet_v2_w8_cifar10", 0, 0.77, macs=4_000_000))
    rows.append(row("shufflenet_w80_cifar10", 0, 0.77, macs=8_000_000))
    page = claims.page(rows, [row("resnet8_dnr10_cifar10", 0, 0.7, 0.3)], [])
    assert "gain 1.00 and 2.00 points with their MACs, and differ by +5.00 points" in page


def test_networks_of_full_width():
    """The standard deviation of both differences is 0.1 points, with 2 degrees of freedom."""
    periodic = [row("resnet18", seed, 0.920 + seed / 1000, macs=5_600_000) for seed in range(2)]
    periodic += [row("resnet18_psd1_p16", seed, 0.910 + seed / 1000) for seed in range(2)]
    for run in periodic:
        del run["robust_accuracy"], run["robust_attack"], run["robust_examples"]
    robust = [row("resnet18_robust", 0, 0.80, 0.40), row("resnet18_robust_dnr5", 0, 0.78, 0.39)]
    robust[1] |= {"autoattack": 0.37, "autoattack_examples": 500}
    for run in periodic + robust:
        run |= {"hardware": "1 NVIDIA H200", "clean_examples": 10_000}
    section = claims.full_width_section(periodic + robust)
    assert (
        "| 92.01 % instead of 92.84 (-0.83) | 91.05 ± 0.07 vs. 92.05 ± 0.07 | +0 % "
        "| 2.8x fewer | -1.00 (-1.30 to -0.70) | 2, 2 | **confirmed** |"
    ) in section
    assert "| 78.00 vs. 80.00 | +0 % |  | -2.00 | 1, 1 | **open** |" in section
    assert "on CIFAR-10 (JPEG copy), on 1 NVIDIA H200. Clean" in section
    assert "| resnet18 | 24 | 1,000 of 1,000 | 5.60 |" in section
    assert "| 39.00 | 37.00 (500 images) | 1 |" in section
    assert "PS4_P4" not in section  # has no run
    assert "AutoAttack" not in claims.full_width_section(periodic)
