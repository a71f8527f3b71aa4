"""What the calibration page computes: tables with sources, and sentences that follow from the records."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_paper import record

from robustness_lib import report

SETS = ["cifar10", "cifar100", "tiny_imagenet"]
HALF_RIGHT = {"reliability_accuracy": [0.5] * 4}


def rms(plain: float, tuned: float, **others: Any) -> dict[str, Any]:
    name = "rms_calibration_error"
    values = {name: plain, f"{name}_tempered": tuned, f"{name}_dropped_bin": plain - 0.001}
    return {**values, f"{name}_dropped_bin_tempered": tuned - 0.001, **others}


@pytest.fixture
def frame() -> pd.DataFrame:
    curve = {
        "history_epoch": [2.0, 4.0, 6.0, 8.0],
        "history_error": [0.9, 0.8, 0.7, 0.6],
        "history_rms_calibration_error": [0.1, 0.3, 0.15, 0.2],
    }
    rows = [record(method="temperature", arm="scratch", temperature=2.0, recipe={}, **rms(0.16, 0.04), **HALF_RIGHT)]
    rows += [
        record(method="temperature", arm="pre-trained", temperature=1.5, recipe={}, **rms(0.1, 0.03), **HALF_RIGHT)
    ]
    rows += [record(seed=seed, recipe={}, **rms(0.2 + 0.02 * seed, 0.05)) for seed in (0, 1)]
    rows += [record(dataset="cifar100", seed=seed, recipe={}, **curve) for seed in (0, 1)]
    return pd.DataFrame(rows)


def test_noise_of_bins_is_the_scatter_of_a_share() -> None:
    draw = np.random.default_rng(0)
    shares = draw.binomial(100, 0.5, 100_000) / 100
    assert report.bin_noise([0.5] * 7) == pytest.approx(0.05, rel=0.01)
    assert report.bin_noise(shares) == pytest.approx(shares.std(), rel=0.01)
    assert report.bin_noise([1.0, 1.0]) == 0


def test_published_temperatures_have_their_source_and_no_difference(frame: pd.DataFrame) -> None:
    table = report.temperature_table(frame, datasets=SETS, caption="C.", name="tab-x")
    assert "| CIFAR-10, from scratch | here, `cpu`, n = 1 | 16.0 → 4.0 | 15.9 → 3.9 | 2.000 |" in table
    assert "| CIFAR-10, from scratch | OE log | – | – → 2.57 | 1.589 |" in table
    assert "| Tiny ImageNet, pre-trained | P1 §4.2 | – | 4.15 → 3.55 | – |" in table
    assert "Difference" not in table
    assert "here" not in report.temperature_table(frame.iloc[:0], datasets=SETS, caption="C.", name="tab-x")


def test_what_a_temperature_brings_is_said_from_the_records(frame: pd.DataFrame) -> None:
    text = report.temperature_note(frame, datasets=SETS)
    assert "- CIFAR-10, `cpu`: 16.0 → 4.0 % from scratch (noise 5.0 %, 1 seed); 10.0 → 3.0 % pre-trained" in text
    assert "the gap between the arms is 6.0 points before tuning and 1.0 points after (1 seed). So" in text
    frame.loc[frame["arm"] == "pre-trained", "rms_calibration_error_tempered"] = 0.001
    assert "3.9 points after (1 seed).\n" in report.temperature_note(frame, datasets=SETS) + "\n"
    assert "not run" in report.temperature_note(frame.iloc[:0], datasets=SETS)


def test_the_papers_error_stands_beside_ours_without_the_last_bin(frame: pd.DataFrame) -> None:
    table = report.bins_table(frame, datasets=["cifar10"], caption="C.", name="tab-x")
    assert "| CIFAR-10, from scratch | 21.0 ± 1.4 | 20.9 ± 1.4 | 6.4 | +14.5 | `cpu`, 2 |" in table
    assert "| CIFAR-10, pre-trained | not run | not run | 2.9 | – | – |" in table
    assert "at most 0.10 points" in report.bins_note(frame, datasets=["cifar10"])
    assert "not run" in report.bins_note(frame.iloc[:0], datasets=["cifar10"])


def test_course_of_the_error_in_words(frame: pd.DataFrame) -> None:
    text = report.epochs_note(frame, dataset="cifar100")
    assert "lowest after epoch 26, with 8.41 %, and ends with 12.66 %" in text
    assert "observed only 4 times in 8 epochs" in text
    assert "by up to 20.0 points, most of all next to" in text
    assert "10.0 % in the mean (after epoch 2), rises to 20.0 % at the end (2 seeds)" in text
    assert "still wrong on 90.0 %" in text
    assert report.epochs_note(frame.iloc[:0], dataset="cifar100").endswith("Ours: not run.")


def test_recipes_that_the_rms_error_would_have_chosen() -> None:
    rows = []
    for arm, epochs, loss, error in (
        ("scratch", 30, 0.9, 0.11),
        ("scratch", 60, 0.8, 0.14),
        ("pre-trained", 10, 0.7, 0.05),
        ("pre-trained", 20, 0.6, 0.10),
    ):
        recipe = {"epochs": epochs, "learning_rate": 0.1, "train_images": 5000}
        values = {"negative_log_likelihood": loss, "rms_calibration_error": error, "recipe": recipe}
        rows.append({"arm": arm, "method": "held-out", **values})
    text = report.recipe_by_rms_note(pd.DataFrame(rows), method="held-out", train_images=5000)
    assert "from scratch 30 epochs at 0.1 (11.0 % rather than 14.0 %) and pre-trained 10 epochs" in text
    assert "lower it by 6.0 points, with the recipes taken by 4.0 points" in text
    assert "not run" in report.recipe_by_rms_note(pd.DataFrame(rows), method="other")
    assert "the same recipes" in report.recipe_by_rms_note(pd.DataFrame(rows[::2]), method="held-out")


@pytest.mark.parametrize(("tuned", "ours"), [(0.1, "50 % less"), (0.25, "25 % more")])
def test_by_how_much_the_error_falls(tuned: float, ours: str) -> None:
    rows = [record(arm=arm, seed=0, recipe={}, **rms(value, value)) for arm, value in
            (("scratch", 0.2), ("pre-trained", tuned))]  # fmt: skip
    text = report.falls_note(pd.DataFrame(rows), datasets=["cifar10", "cifar100"])
    assert text.startswith(
        "RMS error with pre-training, in the paper: 55 % less on CIFAR-10 and 73 % less on CIFAR-100; "
        f"here: {ours} on CIFAR-10 (`cpu`)."
    )
    assert report.falls_note(pd.DataFrame(rows).iloc[:1], datasets=["cifar10"]) == ""


def rated(arm: str, method: str, rate: float, seed: int, error: float, calibration: float) -> dict[str, Any]:
    values = {"error": error, "rms_calibration_error": calibration, "negative_log_likelihood": 1.0}
    recipe = {"learning_rate": rate}
    return record(profile="paper", arm=arm, method=method, seed=seed, recipe=recipe, **values)


def test_rates_are_compared_over_the_seeds_that_both_have() -> None:
    rows = [rated("scratch", "standard", 0.1, seed, 0.05, 0.06) for seed in (0, 1)]
    rows += [rated("pre-trained", "standard", 0.001, seed, 0.08 + 0.02 * seed, 0.03) for seed in (0, 1)]
    plain = pd.DataFrame(rows)
    assert "not run" in report.rates_note(plain, datasets=SETS)
    assert "not run" in report.rates_table(plain, datasets=SETS, caption="C.", name="tab-x")
    both = pd.DataFrame([*rows, rated("pre-trained", "high-rate", 0.01, 1, 0.06, 0.04)])
    assert report.rates_note(both, datasets=SETS) == (
        "- On CIFAR-10 at `paper` (1 seed), tuned at 0.01 instead of 0.001, the test error falls from 10.0 to 6.0 % "
        "(from scratch it is 5.0 %), the RMS calibration error rises from 3.0 to 4.0 % (from scratch it is 6.0 %)."
    )
    table = report.rates_table(both, datasets=SETS, caption="C.", name="tab-x")
    assert "| CIFAR-10, `paper` | pre-trained | 0.001 | 9.0 ± 1.4 | 3.0 ± 0.0 | 1.000 ± 0.000 | 2 |" in table
    assert "| CIFAR-10, `paper` | pre-trained | 0.01 | 6.0 | 4.0 | 1.000 | 1 |" in table
    assert table.count("| CIFAR-10, `paper` |") == 3


def test_rates_without_the_standard_one_or_without_scratch_are_shown_alone() -> None:
    lone = pd.DataFrame([rated("pre-trained", "low-rate", 0.0001, 0, 0.06, 0.04)])
    assert "not run" in report.rates_note(lone, datasets=SETS)
    assert "| CIFAR-10, `paper` | pre-trained | 0.0001 |" in report.rates_table(
        lone, datasets=SETS, caption="C.", name="tab-x"
    )


@pytest.mark.parametrize("worse", [False, True])
def test_a_loss_of_accuracy_is_said(worse: bool) -> None:
    rows = [rated("scratch", "standard", 0.1, seed, 0.05, 0.06) for seed in (0, 1)]
    rows += [rated("pre-trained", "standard", 0.001, seed, 0.08 if worse else 0.04, 0.03) for seed in (0, 1)]
    text = report.accuracy_note(pd.DataFrame(rows), datasets=SETS)
    if not worse:
        assert text == ""
        return
    assert "raises it here on CIFAR-10, 5.0 → 8.0 % (`paper`; theirs 5.32 → 3.64 %)." in text
    assert text.endswith("The confidence is nearer to the accuracy all the same.")
    likely = [row | {"negative_log_likelihood": 0.2 if row["arm"] == "scratch" else 0.3} for row in rows]
    assert "gets worse with the error (0.200 → 0.300 nats)." in report.accuracy_note(
        pd.DataFrame(likely), datasets=SETS
    )
    unsure = pd.DataFrame([row | {"rms_calibration_error": 0.06} for row in rows])
    assert "all the same" not in report.accuracy_note(unsure, datasets=SETS)


def test_arms_are_compared_at_one_profile_and_the_other_profile_is_told() -> None:
    high = [rated("scratch", "standard", 0.1, 0, 0.05, 0.06), rated("pre-trained", "standard", 0.001, 0, 0.08, 0.03)]
    low = [
        row | {"profile": "cpu", "error": error, "recipe": {"train_images": 5000}}
        for row, error in zip(high, (0.25, 0.21), strict=True)
    ]
    assert report.accuracy_note(pd.DataFrame([high[0], *low]), datasets=SETS) == ""
    text = report.accuracy_note(pd.DataFrame([*high, *low]), datasets=SETS)
    assert text.endswith("it lowers it: on CIFAR-10, 25.0 → 21.0 % (`cpu`, 5,000 images of the target).")
