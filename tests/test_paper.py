"""The published numbers, the claims, and the rule of the verdicts."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robustness_lib import paper, records, report, sections
from robustness_lib.errors import UserError
from robustness_lib.paper.claims import paper_rows

SOURCE = {"revision": "0123456789ab", "date": "2025-01-01T00:00:00+00:00"}


def record(**changes: Any) -> dict[str, Any]:
    row = {
        "section": "calibration", "profile": "cpu", "dataset": "cifar10", "init": "scratch", "arm": "scratch",
        "method": "standard", "level": None, "seed": 0, "recipe": {"epochs": 10}, "provenance": SOURCE,
    }  # fmt: skip
    row |= changes
    return {"key": str(sorted(row.items(), key=str)), **row}


def arms(scratch: list[float], tuned: list[float], metric: str = "rms_calibration_error", **same: Any) -> pd.DataFrame:
    pairs = (("scratch", scratch), ("pre-trained", tuned))
    return pd.DataFrame(
        record(arm=arm, seed=seed, **{metric: value}, **same)
        for arm, values in pairs
        for seed, value in enumerate(values)
    )


@functools.cache
def is_measured(section: str, dataset: str, method: str) -> bool:
    for scale in ("paper", "cpu"):
        try:
            if sections.SECTIONS[section].jobs(scale, datasets=[dataset], methods=[method], seeds=[0]):
                return True
        except UserError as error:
            if "no checkpoint was given" in str(error):
                return True
            raise
    return False


def test_every_claim_is_about_what_its_section_measures() -> None:
    """A misspelt method or metric would leave a claim unmeasured for ever."""

    def plain(name: str) -> str:
        return re.sub(r"\d+", "N", name)  # the number of steps or restarts is the profile's

    results = Path(__file__).parents[1] / "book/results"
    emitted: dict[tuple[str, str], set[str]] = {}
    for section in sections.SECTIONS:
        for made in records.load_published(section, results):
            emitted.setdefault((section, made.job.method), set()).update(map(plain, made.metrics))
    for one in paper.CLAIMS:
        for side in (one.treated, one.reference):
            if side.method == "printed":
                continue
            assert is_measured(one.section, one.dataset, side.method), one.id
            assert plain(side.metric) in emitted.get((one.section, side.method), {plain(side.metric)}), one.id


def claim(name: str) -> paper.Claim:
    return next(found for found in paper.CLAIMS if found.id == name)


# ---------------------------------------------------------------------------------------- published numbers


@pytest.mark.parametrize(
    ("section", "locator", "dataset", "arm", "method", "metric", "level", "printed"),
    [
        ("adversarial", "P1 Table 1", "cifar10", "pre-trained", "adversarial", "adversarial_accuracy", None, "57.4"),
        ("adversarial", "P1 Table 1", "cifar100", "scratch", "normal", "clean_accuracy", None, "81.0"),
        ("label_noise", "P1 Table 2", "cifar100", "scratch", "glc-10", "error_area", None, "38.9"),
        ("label_noise", "P1 Figure 2", "cifar10", "pre-trained", "forward", "error", 0.9, "36.60"),
        ("imbalance", "P1 Table 3", "cifar10", "scratch", "smote", "minority_error", 1.5, "22.1"),
        ("imbalance", "P1 Table 3", "cifar100", "pre-trained", "normal", "error", 2.0, "33.5"),
        ("ood", "P1 Table 6", "cifar100", "scratch", "standard", "aupr_rademacher", None, "15.7"),
        ("ood", "P1 Table 6", "cifar10", "pre-trained", "standard", "auroc_cifar100", None, "90.7"),
        ("ood", "P1 Table 4", "tiny_imagenet", "pre-trained", "standard", "aupr_mean", None, "31.0"),
        ("calibration", "P1 Table 5", "cifar100", "scratch", "standard", "mad_calibration_error", None, "10.3"),
        ("calibration", "P1 Figure 4", "cifar10", "scratch", "standard", "rms_calibration_error", None, "6.39"),
        ("calibration", "P1 log", "cifar10", "pre-trained", "standard", "error", None, "3.64"),
        ("effective_robustness", "P2 Table 3", "imagenet", "none", "fit-logit", "intercept", None, "-0.4896"),
    ],
)  # fmt: skip
def test_spot_checks_of_published_numbers(section, locator, dataset, arm, method, metric, level, printed):
    rows = paper.select(section, dataset=dataset, arm=arm, method=method, metric=metric, level=level, locator=locator)
    assert list(rows["printed"]) == [printed]
    assert list(rows["locator"]) == [locator]
    assert rows["value"].iloc[0] * paper.metric(metric).scale == pytest.approx(float(printed))


@pytest.mark.parametrize("section", paper.SECTIONS)
def test_tables_are_complete_and_consistent(section):
    table = paper.published(section)
    assert (table["section"] == section).all()
    assert table["value"].notna().all()
    assert set(table["arm"]) <= {"scratch", "pre-trained", "none"}
    words = {"rounded", "truncated", "read from figure", "about", "bound", "exact"}
    assert set(table["precision"]) <= words
    assert (table["axis"] == "").eq(table["position"].isna()).all()
    key = ["quantity", "locator", "dataset", "arm", "method", "level", "metric", "position"]
    assert not table.duplicated(key).any()
    ratio = table["value"] / table["printed"].astype(float)
    assert all(min(abs(found - 1), abs(found - 0.01)) < 1e-9 for found in ratio.dropna())


def test_published_returns_a_copy():
    table = paper.published("ood")
    table.loc[:, "value"] = 0.0
    assert paper.published("ood")["value"].gt(0).all()


def test_areas_under_the_curves_of_figure_2_are_the_areas_of_table_2():
    checked = 0
    for row in paper.select("label_noise", metric="error_area", locator="P1 Table 2").to_dict("records"):
        if row["method"] == "glc-10":
            continue  # not in the figure
        area = paper.figure_area(row["dataset"], row["arm"], row["method"])
        assert f"{area * 100:.1f}" == row["printed"]
        checked += 1
    assert checked == 12


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tiny_imagenet"])
@pytest.mark.parametrize("arm", ["scratch", "pre-trained"])
@pytest.mark.parametrize("name", ["auroc", "aupr"])
def test_means_over_ood_sets_are_the_printed_means(dataset, arm, name):
    rows = paper.select("ood", dataset=dataset, arm=arm, locator="P1 Table 6")
    rows = rows[rows["metric"].str.startswith(f"{name}_")].set_index("metric")["value"]
    sets = rows.drop(f"{name}_mean")
    assert len(sets) == 8
    assert sets.mean() == pytest.approx(rows[f"{name}_mean"], abs=0.00051)
    [table_4] = paper.select("ood", dataset=dataset, arm=arm, metric=f"{name}_mean", locator="P1 Table 4")["value"]
    assert table_4 == rows[f"{name}_mean"]


def test_classwise_errors_of_figure_3_reproduce_table_3_by_truncation():
    for row in paper.select("imbalance", dataset="cifar10", level=0.2, locator="P1 Table 3").to_dict("records"):
        classes = paper.select(
            "imbalance", dataset="cifar10", arm=row["arm"], method=row["method"], metric="class_error", curve=True
        )
        assert len(classes) == 10
        errors = classes if row["metric"] == "error" else classes[classes["position"] > 1]
        below, above = paper.tolerance(pd.Series(row))
        # the class-wise values are themselves read to 0.1 points, so their mean is known to 0.05
        assert row["value"] - below - 5e-4 <= errors["value"].mean() <= row["value"] + above + 5e-4


def test_figures_and_tables_agree_on_calibration():
    for row in paper.select("calibration", locator="P1 Table 5", metric="rms_calibration_error").to_dict("records"):
        bars = paper.select(
            "calibration", dataset=row["dataset"], arm=row["arm"], method="standard",
            metric="rms_calibration_error", locator="P1 Figure 4",
        )["value"]  # fmt: skip
        assert abs(bars.iloc[0] - row["value"]) <= 0.0005 + 1e-9


def test_calibration_curve_has_an_entry_for_every_epoch():
    rms = paper.select("calibration", metric="history_rms_calibration_error", curve=True)
    assert list(rms["position"]) == list(range(1, 101))
    error = paper.select("calibration", metric="history_error", locator="P1v1 Figure 4", curve=True)
    assert list(error["position"]) == list(range(6, 101))
    assert error["value"].iloc[-1] == pytest.approx(0.2389)


def test_tolerance():
    row = {"printed": "4.1", "value": 0.041, "precision": "rounded"}
    assert paper.tolerance(pd.Series(row)) == pytest.approx((0.0005, 0.0005))
    assert paper.tolerance(pd.Series(row | {"precision": "truncated"})) == pytest.approx((0, 0.001))
    figure = {"printed": "25.91", "value": 0.2591, "precision": "read from figure"}
    assert paper.tolerance(pd.Series(figure)) == pytest.approx((0.0002, 0.0002))


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(UserError, match="calibration"):
        paper.published("calibrations")
    with pytest.raises(UserError, match="rms_calibration_error"):
        paper.metric("rms_calibration_eror")


def test_metric_names_with_prefix_and_suffix():
    assert paper.metric("auroc_svhn").label == "AUROC, SVHN"
    assert paper.metric("fpr95_mean").better == -1
    tempered = paper.metric("rms_calibration_error_dropped_bin_tempered")
    assert (tempered.axis, tempered.better) == (
        "RMS calibration error, last bin dropped, temperature tuned (%)",
        -1,
    )


# ---------------------------------------------------------------------------------------- claims


def test_claims_are_many_unique_and_of_every_section():
    assert len(paper.CLAIMS) >= 30
    assert len({found.id for found in paper.CLAIMS}) == len(paper.CLAIMS)
    assert len({found.statement for found in paper.CLAIMS}) >= len(paper.CLAIMS) - 2
    assert {found.section for found in paper.CLAIMS} == set(paper.SECTIONS)


# P1 says so in words and shows the class-wise errors of one imbalance (Figure 3).
IN_WORDS = {"adv-clean-pretraining", "adv-targeted-pretraining", "imb-gain-cifar10", "imb-gain-cifar100"}


@pytest.mark.parametrize("found", paper.CLAIMS, ids=lambda found: found.id)
def test_every_claim_has_the_papers_numbers(found):
    assert found.direction in (-1, 1)
    assert found.kind == "difference" or found.direction == 1
    assert found.kind in ("difference", "ratio", "reduction")
    assert found.test in ("beyond", "equal") or found.magnitude
    paper.metric(found.treated.metric)
    printed = set(paper.published(found.section)["printed"])
    numbers = [word for word in found.paper.replace(";", "").split() if word[0].isdigit()]
    if found.over_levels not in ("mean", "every"):
        assert set(numbers) <= printed
    if found.section != "effective_robustness" and not found.own:  # P2 shows most of its results in figures only
        assert bool(numbers) is (found.id not in IN_WORDS)
    if found.magnitude:
        assert found.stated is not None
        assert found.stated > 0


# P1's own numbers contradict two of its sentences; the papers' numbers bear out all other claims.
CONTRADICTED = {"noise-superior-cifar10", "imb-margin"}


@pytest.mark.parametrize("found", [c for c in paper.CLAIMS if paper.paper_effect(c) is not None], ids=lambda c: c.id)
def test_papers_own_numbers_bear_out_their_claims(found):
    effect = paper.paper_effect(found)
    verdict = paper.verdict_of(found, effect, effect, effect)
    assert (verdict == "holds") is (found.id not in CONTRADICTED)


def test_paper_text_prefers_the_claims_locator():
    assert claim("cal-rms-tiny_imagenet").paper == "8.5 → 4.2 %"
    assert claim("cal-temperature").paper == "4.15 → 3.55 %"
    assert claim("cal-factor").paper.endswith("stated: a factor of 4.1")
    assert claim("noise-none-cifar10").paper == "28.7 → 15.9 %; stated: 45 %"
    [half] = paper_rows(claim("cal-longer-rms"), claim("cal-longer-rms").reference)["position"]
    assert half == 50


def test_a_claim_about_every_level_shows_the_papers_least_effect():
    found = claim("imb-smote-cifar10")  # the least of the seven differences is 15.7 - 7.2, at the weakest imbalance
    assert found.paper == "15.7 → 7.2 % (least effect, at 2)"
    assert paper.paper_effect(found) == pytest.approx(-0.085)


def test_a_claim_about_a_larger_gain_shows_both():
    found = claim("ood-gain-cifar10")
    assert found.paper == "91.5 → 94.5 % on CIFAR-10, 69.4 → 83.1 % on CIFAR-100"
    assert paper.paper_effect(found) == pytest.approx(0.137 - 0.030)


def test_larger_gains_are_compared_at_the_same_seed():
    """Gains of 10, 12 and 14 points against 1, 2 and 6; a seed that one set lacks is left out."""
    both = [
        arms([0.6, 0.6, 0.6], [0.7, 0.72, 0.74], "auroc_mean", dataset="cifar100", section="ood"),
        arms([0.8, 0.8, 0.8, 0.8], [0.81, 0.82, 0.86, 0.9], "auroc_mean", dataset="cifar10", section="ood"),
    ]
    verdict = paper.evaluate(claim("ood-gain-cifar10"), pd.concat(both, ignore_index=True))
    assert verdict.treated == pytest.approx([0.10, 0.12, 0.14])
    assert verdict.reference == pytest.approx([0.01, 0.02, 0.06])
    assert (verdict.n, verdict.dataset) == (3, "cifar100")
    assert (verdict.effect, verdict.low, verdict.high) == pytest.approx(paper.mean_interval([0.09, 0.10, 0.08]))
    assert verdict.verdict == "holds"
    assert paper.evaluate(claim("ood-gain-cifar10"), both[0]).verdict == "not yet measured"
    board = report.scoreboard(pd.concat(both, ignore_index=True), sections=["ood"])
    here = "gains of 3.0 ± 2.6 points on CIFAR-10 and 12.0 ± 2.0 points on CIFAR-100 (`cpu`, n = 3)"
    assert f"| {here} | +9.0 points [" in board
    small = both[1].assign(dataset="tiny_imagenet32")
    stand_in = paper.evaluate(claim("ood-gain-tiny_imagenet"), pd.concat([both[0], small], ignore_index=True))
    assert stand_in.effect == pytest.approx(0.09)


def test_claims_of_a_section():
    assert {found.section for found in paper.claims_of("ood")} == {"ood"}
    with pytest.raises(UserError, match="odd"):
        paper.claims_of("odd")


# ---------------------------------------------------------------------------------------- the rule

finite = st.floats(-1, 1, allow_nan=False, width=32)


@given(st.lists(finite, min_size=2, max_size=8))
def test_interval_is_scipys(values):
    mean, low, high = paper.mean_interval(values)
    assert low <= mean <= high
    if np.std(values) > 1e-6:
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (low, high) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_interval_of_one_value_is_unbounded():
    assert paper.mean_interval([0.5]) == (0.5, -math.inf, math.inf)


@given(finite, st.floats(0, 1), st.sampled_from(["cal-rms-cifar10", "ood-auroc-cifar10"]))
def test_verdict_without_a_stated_size(mean, half, name):
    found = claim(name)
    verdict = paper.verdict_of(found, mean, mean - half, mean + half)
    turned = found.direction * mean
    if turned <= 0:
        assert verdict == "does not hold"
    else:
        assert verdict == ("holds" if turned - half > 0 else "holds in direction")


@pytest.mark.parametrize(
    ("mean", "low", "high", "verdict"),
    [
        (4.3, 4.0, 4.6, "holds"),  # the stated 4.1 lies in the interval
        (6.0, 5.0, 7.0, "holds"),  # and is exceeded here
        (4.0, 3.95, 4.05, "holds"),  # 4.05 prints as 4.1
        (4.0, 3.96, 4.04, "holds in direction"),
        (2.0, 0.9, 3.1, "holds in direction"),  # a factor of 1 is no effect
        (4.5, 0.5, 8.5, "holds in direction"),
        (1.0, 0.9, 1.1, "does not hold"),
        (0.5, 0.4, 0.6, "does not hold"),
    ],
)
def test_verdict_on_a_factor(mean, low, high, verdict):
    assert paper.verdict_of(claim("cal-factor"), mean, low, high) == verdict


@pytest.mark.parametrize(
    ("mean", "low", "high", "verdict"),
    [
        (0.01, 0.0, 0.02, "holds"),  # at most 2.1 points
        (-0.05, -0.06, -0.04, "holds"),  # no harm at all
        (0.02, 0.01, 0.03, "holds in direction"),
        (0.03, 0.01, 0.05, "does not hold"),
    ],
)
def test_verdict_on_a_bound(mean, low, high, verdict):
    assert paper.verdict_of(claim("imb-excluded"), mean, low, high) == verdict


def test_a_harm_to_an_accuracy_is_a_fall():
    found = claim("adv-excluded")  # at most 1.04 points less
    assert paper.verdict_of(found, -0.005, -0.009, -0.001) == "holds"
    assert paper.verdict_of(found, 0.05, 0.04, 0.06) == "holds"
    assert paper.verdict_of(found, -0.03, -0.04, -0.02) == "does not hold"


def test_effects_are_paired_by_seed():
    # arms vary by 10 points together, so that only the paired difference is certain
    frame = arms([0.10, 0.15, 0.20], [0.09, 0.141, 0.189])
    verdict = paper.evaluate(claim("cal-rms-cifar10"), frame)
    differences = np.array([-0.01, -0.009, -0.011])
    assert verdict.effect == pytest.approx(differences.mean())
    assert (verdict.low, verdict.high) == pytest.approx(paper.mean_interval(differences)[1:])
    assert (verdict.verdict, verdict.n, verdict.profile, verdict.dataset) == ("holds", 3, "cpu", "cifar10")
    shuffled = frame.sample(frac=1, random_state=1)
    assert paper.evaluate(claim("cal-rms-cifar10"), shuffled).effect == pytest.approx(verdict.effect)


def test_ratio_and_reduction():
    factor = paper.evaluate(
        claim("cal-factor"), arms([0.4, 0.4], [0.1, 0.08], "mad_calibration_error", dataset="cifar100")
    )
    assert factor.effect == pytest.approx(4.5)


def test_unmeasured_without_two_pairs():
    found = claim("cal-rms-cifar10")
    empty = pd.DataFrame(columns=["key", "section", "profile", "dataset", "arm", "method", "level", "seed", "recipe"])
    for frame, n in (
        (empty, 0),
        (arms([0.2], [0.1]), 1),
        (arms([0.2, 0.2], []), 0),
        (arms([0.2, 0.2], [0.1, math.nan]), 1),
    ):
        verdict = paper.evaluate(found, frame)
        assert (verdict.verdict, verdict.n, verdict.profile) == ("not yet measured", n, "cpu" if n else "")
        assert math.isnan(verdict.effect)
        assert verdict.treated == (0.1,) * n  # shown, though it decides nothing
    other_seeds = arms([0.2, 0.2], [0.1, 0.1])
    other_seeds.loc[other_seeds["arm"] == "scratch", "seed"] += 5
    assert paper.evaluate(found, other_seeds).verdict == "not yet measured"


def test_smoke_never_counts_and_the_paper_profile_goes_first():
    found = claim("cal-rms-cifar10")
    smoke = arms([0.2, 0.2], [0.1, 0.1], profile="smoke")
    assert paper.evaluate(found, smoke).verdict == "not yet measured"
    cpu = arms([0.2, 0.21], [0.1, 0.1])
    full = arms([0.1, 0.1, 0.1], [0.2, 0.21, 0.2], profile="paper")
    verdict = paper.evaluate(found, pd.concat([smoke, cpu, full]))
    assert (verdict.profile, verdict.n, verdict.verdict) == ("paper", 3, "does not hold")
    half_done = pd.concat([cpu, arms([0.1], [0.2], profile="paper")])
    assert paper.evaluate(found, half_done).profile == "cpu"


def test_stand_in_for_tiny_imagenet():
    frame = arms([0.2, 0.21], [0.1, 0.1], dataset="tiny_imagenet32")
    verdict = paper.evaluate(claim("cal-rms-tiny_imagenet"), frame)
    assert (verdict.dataset, verdict.verdict) == ("tiny_imagenet32", "holds")


def noise(levels: list[float], arm: str, seed: int, scale: float) -> list[dict[str, Any]]:
    return [
        record(section="label_noise", method="none", arm=arm, seed=seed, level=level, error=scale * (0.1 + level**2))
        for level in levels
    ]


def test_an_unfinished_sweep_leaves_the_verdict_as_it_was():
    """A further level of one seed, or a further seed at some levels, does not count before the others have it."""

    def at(level: float, seeds: range, scratch: float, tuned: float) -> pd.DataFrame:
        rows = [
            record(section="imbalance", arm=arm, method="normal", level=level, seed=seed, error=value + seed / 100)
            for arm, value in (("scratch", scratch), ("pre-trained", tuned))
            for seed in seeds
        ]
        return pd.DataFrame(rows)

    whole = pd.concat([at(0.2, range(3), 0.5, 0.4), at(2.0, range(3), 0.4, 0.2)], ignore_index=True)
    setting = {"section": "imbalance", "profile": "cpu", "dataset": "cifar10", "method": "normal"}
    for further in (at(0.4, range(1), 0.9, 0.1), at(0.2, range(3, 4), 0.9, 0.1)):
        frame = pd.concat([whole, further], ignore_index=True)
        values = paper.per_seed(frame, arm="scratch", metric="error", over_levels="mean", **setting)
        assert values.to_list() == pytest.approx([0.45, 0.46, 0.47])
        rows = report.comparison_rows(
            "imbalance", frame, metrics=["error"], datasets=["cifar10"], methods=["normal"], over_levels="mean"
        )
        assert rows["n"].to_list() == [3, 3]
        assert rows["levels"].to_list() == [2, 2]
    alone = at(0.4, range(3), 0.9, 0.1)
    lacking = pd.concat([whole, alone[alone["arm"] == "scratch"]], ignore_index=True)
    rows = report.comparison_rows(
        "imbalance", lacking, metrics=["error"], datasets=["cifar10"], methods=["normal"], over_levels="mean"
    )
    assert rows["levels"].to_list() == [2, 2], "both arms over the levels that both have"
    two = pd.concat([at(0.2, range(1), 0.5, 0.4), at(2.0, range(2), 0.4, 0.2), at(1.0, range(1), 0.4, 0.2)])
    values = paper.per_seed(two, arm="scratch", metric="error", over_levels="mean", **setting)
    assert values.to_list() == pytest.approx([0.4, 0.41]), "two seeds before many levels"


def test_area_needs_the_whole_range_and_the_same_levels():
    found, grid = claim("noise-none-cifar10"), [0.0, 0.5, 1.0]
    scales = (("scratch", 1.0), ("pre-trained", 0.5))
    rows = [row for seed in range(3) for arm, scale in scales for row in noise(grid, arm, seed, scale)]
    frame = pd.DataFrame(rows)
    verdict = paper.evaluate(found, frame)
    assert verdict.reference == pytest.approx([0.1 + 0.5 * (0 / 2 + 0.25 + 1 / 2)] * 3)
    assert verdict.effect == pytest.approx(0.5)
    assert verdict.verdict == "holds"
    # a level of one arm only does not count
    more = pd.concat([frame, pd.DataFrame(noise([0.7], "scratch", 0, 9))])
    assert paper.evaluate(found, more).effect == pytest.approx(0.5)
    # a seed without a level that the others have is left out
    lacking = frame.drop(frame[(frame["seed"] == 2) & (frame["level"] == 0.5)].index[:1])
    assert paper.evaluate(found, lacking).n == 2
    assert paper.evaluate(found, frame[frame["level"] < 1]).verdict == "not yet measured"


def imbalance(values: dict[float, list[float]], method: str = "normal", arm: str = "scratch") -> list[dict[str, Any]]:
    return [
        record(section="imbalance", method=method, arm=arm, level=level, seed=seed, error=value)
        for level, errors in values.items()
        for seed, value in enumerate(errors)
    ]


def test_a_claim_about_every_level_stands_by_the_weakest_one():
    found = claim("imb-smote-cifar10")
    smote = imbalance({0.2: [0.40, 0.41, 0.42], 1.0: [0.35, 0.36, 0.37], 2.0: [0.30, 0.31, 0.32]}, "smote")
    better = {0.2: [0.20, 0.21, 0.22], 1.0: [0.30, 0.309, 0.322], 2.0: [0.20, 0.21, 0.22]}
    verdict = paper.evaluate(found, pd.DataFrame(smote + imbalance(better, arm="pre-trained")))
    assert (verdict.verdict, verdict.level, verdict.levels, verdict.n) == ("holds", 1.0, 3, 3)
    assert verdict.effect == pytest.approx(np.mean([-0.05, -0.051, -0.048]))
    assert verdict.claim == found
    # the mean over the levels is as good as before, and yet one level is lost
    worse = better | {0.2: [0.10, 0.11, 0.12], 1.0: [0.40, 0.41, 0.421]}
    verdict = paper.evaluate(found, pd.DataFrame(smote + imbalance(worse, arm="pre-trained")))
    assert (verdict.verdict, verdict.level) == ("does not hold", 1.0)
    # neither a wide interval elsewhere nor a level of one side only hides it
    wide = worse | {2.0: [0.0, 0.40, 0.10], 0.4: [0.9, 0.9, 0.9]}
    verdict = paper.evaluate(found, pd.DataFrame(smote + imbalance(wide, arm="pre-trained")))
    assert (verdict.verdict, verdict.level, verdict.levels) == ("does not hold", 1.0, 3)
    assert paper.evaluate(found, pd.DataFrame(smote)).verdict == "not yet measured"


def test_history_claims_read_the_recorded_epochs():
    rows = [
        record(dataset="cifar100", seed=s, history_epoch=[1.0, 2.0, 8.0, 10.0],
               history_rms_calibration_error=[0.9, 0.1 + s / 100, 0.8, 0.2])
        for s in range(2)
    ]  # fmt: skip
    verdict = paper.evaluate(claim("cal-longer-rms"), pd.DataFrame(rows))
    assert verdict.reference == pytest.approx((0.1, 0.11))  # epoch 2 is the last one of the first half
    assert verdict.treated == pytest.approx((0.2, 0.2))


def test_overridden_recipes_do_not_mix():
    frame = arms([0.2, 0.2, 0.2], [0.1, 0.1, 0.1])
    other = arms([0.9], [0.9], recipe={"epochs": 1})
    verdict = paper.evaluate(claim("cal-rms-cifar10"), pd.concat([frame, other]))
    assert verdict.n == 3
    assert verdict.effect == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("scratch", "tuned", "verdict", "is_open"),
    [
        ([0.20, 0.21, 0.19], [0.10, 0.11, 0.10], "holds", False),
        ([0.20, 0.30, 0.10], [0.19, 0.10, 0.19], "holds in direction", True),
        ([0.10, 0.30, 0.20], [0.19, 0.30, 0.19], "does not hold", True),
        ([0.10, 0.11, 0.10], [0.20, 0.21, 0.19], "does not hold", False),
        ([0.10], [0.20], "not yet measured", False),
    ],
)
def test_a_verdict_is_open_where_the_interval_includes_no_effect(scratch, tuned, verdict, is_open):
    found = paper.evaluate(claim("cal-rms-cifar10"), arms(scratch, tuned))
    assert (found.verdict, found.is_open) == (verdict, is_open)


def test_checkpoints_do_not_mix():
    frame = pd.concat([arms([0.2, 0.2, 0.2], [0.1, 0.1, 0.1]), arms([], [0.19, 0.19], init="other")])
    verdict = paper.evaluate(claim("cal-rms-cifar10"), frame)
    assert verdict.n == 3
    assert verdict.effect == pytest.approx(-0.1)


def test_undefined_effects_are_left_out():
    frame = arms([0.4, 0.4, 0.4], [0.1, 0.1, 0.0], "mad_calibration_error", dataset="cifar100")
    assert paper.evaluate(claim("cal-factor"), frame).n == 2


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.92254, None, None, "holds"),  # prints as 0.9225
        (0.92256, None, None, "does not hold"),
        (0.93, 0.91, 0.95, "holds in direction"),
        (0.91, 0.90, 0.92244, "does not hold"),  # prints as 0.9224
        (0.91, 0.90, 0.92246, "holds in direction"),
    ],
)
def test_a_number_is_compared_with_the_printed_one(value, low, high, verdict):
    row = record(section="effective_robustness", dataset="imagenet", method="fit-logit", slope=value)
    row |= {} if low is None else {"slope_low": low, "slope_high": high}
    found = paper.evaluate(claim("er-slope-imagenet"), pd.DataFrame([row]))
    assert (found.verdict, found.n, found.reference) == (verdict, 1, (0.9225,))
    assert found.effect == pytest.approx(value - 0.9225)
    assert (found.low, found.high) == pytest.approx(((low or value) - 0.9225, (high or value) - 0.9225))
    assert claim("er-intercept-imagenet").paper == "−0.4896"
    assert claim("er-hard-images").paper == "4.8 %"


def test_an_exact_measurement_needs_one_record():
    rows = [
        record(section="effective_robustness", method=f"fit-{scale}", r_squared=value)
        for scale, value in (("linear", 0.98), ("logit", 0.99))
    ]
    verdict = paper.evaluate(claim("er-fit-cifar10"), pd.DataFrame(rows))
    assert (verdict.verdict, verdict.n) == ("holds", 1)
    assert verdict.low == verdict.effect == verdict.high


def test_a_metric_under_a_shift_or_over_draws_has_the_digits_of_its_base():
    for name in ("slope_corrupted", "spread_auroc_mean"):
        base = paper.metric("slope" if name.startswith("slope") else "auroc_mean")
        assert (paper.metric(name).digits, paper.metric(name).unit) == (base.digits, base.unit)
    assert paper.metric("slope").digits == 4
