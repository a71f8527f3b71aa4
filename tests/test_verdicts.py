"""The rule of the verdicts, on intervals that were computed by hand, and what the records of the book give."""

import dataclasses
import itertools
import math
from typing import Any

import pandas as pd
import pytest

from robustness_lib.paper.claims import CLAIMS, Claim
from robustness_lib.paper.numbers import SECTIONS
from robustness_lib.report import evidence, verdicts
from robustness_lib.runner.records import Job, Record, checkpoint_id

CHECKPOINT = "wrn-16-1_imagenet32_160000x275_e10_s1_abcdef"
T = 4.3026527 / math.sqrt(3)
"""Half an interval of three values whose standard deviation is one."""


def claim(name: str, **changes: Any) -> Claim:
    return dataclasses.replace(next(one for one in CLAIMS if one.id == name), **changes)


def record(init: str, seed: int, *, recipe: dict[str, Any] | None = None, **settings: Any) -> Record:
    job = {"section": "calibration", "profile": "cpu", "dataset": "cifar10", "method": "standard", "level": None}
    job |= {name: settings.pop(name) for name in list(job) if name in settings}
    provenance = {"seconds": 1.0, "date": "2026-01-01", "precision": "float32"}
    return Record(Job(init=init, seed=seed, recipe=recipe or {"name": "a"}, **job), settings, provenance)


def both(scratch: list[float], tuned: list[float], metric: str = "rms_calibration_error", **same: Any) -> list[Record]:
    return [*seeds("scratch", scratch, metric, **same), *seeds(CHECKPOINT, tuned, metric, **same)]


def seeds(init: str, values: list[float], metric: str = "error", **same: Any) -> list[Record]:
    return [record(init, seed, **{metric: value}, **same) for seed, value in enumerate(values)]


def at_levels(init: str, values: dict[float, list[float]], **same: Any) -> list[Record]:
    return [one for level, some in values.items() for one in seeds(init, some, level=level, **same)]


def judged(found: Claim, *records: list[Record]) -> verdicts.Verdict:
    return verdicts.all_verdicts(evidence.tidy([one for some in records for one in some]), [found])[0]


def test_an_effect_is_the_mean_over_seeds_of_the_paired_difference():
    # differences -0.10, -0.12, -0.08: mean -0.10, standard deviation 0.02, t(2 degrees, 97.5 %) = 4.303
    verdict = judged(claim("cal-error-cifar10"), both([0.30, 0.40, 0.50], [0.20, 0.28, 0.42], "error"))
    found = verdict.comparison
    assert (found.effect, found.low, found.high) == pytest.approx((-0.10, -0.10 - 0.02 * T, -0.10 + 0.02 * T), abs=1e-7)
    assert (found.n, found.profile, found.dataset, found.pretraining_seeds) == (3, "cpu", "cifar10", 1)
    assert found.reference == pytest.approx([0.30, 0.40, 0.50])
    assert found.treated == pytest.approx([0.20, 0.28, 0.42])
    assert (verdict.direction, verdict.scale) == ("supported", "cpu")


def test_the_highest_scale_with_two_paired_seeds_decides():
    found = claim("cal-error-cifar10")
    smoke = both([0.2, 0.21], [0.1, 0.1], "error", profile="smoke")
    assert judged(found, smoke).direction == "not measured"
    cpu, one = both([0.2, 0.21], [0.1, 0.1], "error"), both([0.1], [0.2], "error", profile="paper")
    assert judged(found, smoke, cpu, one).comparison.profile == "cpu"
    paper = both([0.1, 0.1, 0.11], [0.2, 0.21, 0.2], "error", profile="paper")
    verdict = judged(found, smoke, cpu, paper)
    assert (verdict.comparison.profile, verdict.comparison.n, verdict.direction) == ("paper", 3, "contradicted")


def test_fewer_than_two_paired_seeds_are_not_measured_but_shown():
    found = claim("cal-error-cifar10")
    for records, shown in (([], ()), (both([0.3], [0.2], "error"), (0.2,)), (both([0.3, 0.3], [], "error"), ())):
        verdict = judged(found, records)
        assert (verdict.direction, verdict.size) == ("not measured", "")
        assert tuple(verdict.comparison.treated) == shown
    assert judged(claim("noise-allconv-cifar10")).note.startswith("needs an AllConv network")


def test_a_stand_in_takes_the_place_of_a_set_without_records():
    found = judged(claim("cal-error-tiny_imagenet"), both([0.3, 0.31], [0.2, 0.2], "error", dataset="tiny_imagenet32"))
    assert (found.comparison.dataset, found.direction) == ("tiny_imagenet32", "supported")


LOWERED, FACTOR, SIMILAR, HARM = "cal-error-cifar10", "cal-factor", "adv-clean-accuracy-cifar10", "imb-excluded"


@pytest.mark.parametrize(
    ("name", "low", "high", "direction"),
    [
        (LOWERED, -0.3, -0.1, "supported"),
        (LOWERED, -0.3, 0.0, "undecided"),
        (LOWERED, 0.0, 0.1, "undecided"),
        (LOWERED, 0.1, 0.3, "contradicted"),
        (LOWERED, -math.inf, math.inf, "undecided"),
        (FACTOR, 1.1, 1.9, "supported"),  # of which no effect is one
        (FACTOR, 0.9, 1.9, "undecided"),
        (FACTOR, 0.5, 0.9, "contradicted"),
        (SIMILAR, -0.02, 0.02, "supported"),  # within 2 points to either side
        (SIMILAR, -0.05, 0.05, "undecided"),
        (SIMILAR, 0.01, 0.03, "undecided"),
        (SIMILAR, 0.021, 0.03, "contradicted"),
        (SIMILAR, -0.03, -0.021, "contradicted"),
        (HARM, 0.01, 0.021, "supported"),  # an error rises by at most 2.1 points
        (HARM, -0.5, -0.4, "supported"),
        (HARM, 0.02, 0.022, "undecided"),
        (HARM, 0.022, 0.03, "contradicted"),
    ],
)
def test_direction_by_the_interval(name, low, high, direction):
    found = claim(name)
    assert verdicts.direction(found, low, high) == direction
    if found.kind == "difference":  # of the same claim about something that rises
        assert verdicts.direction(dataclasses.replace(found, direction=-found.direction), -high, -low) == direction


@pytest.mark.parametrize(
    ("value", "direction"),
    [(0.92254, "supported"), (0.92246, "supported"), (0.92256, "contradicted"), (0.92244, "contradicted")],
)
def test_a_number_is_the_printed_one_to_its_last_digit(value, direction):
    fit = record("scratch", 0, section="effective_robustness", dataset="imagenet", method="fit-logit", slope=value)
    verdict = judged(claim("er-slope-imagenet"), [fit])
    assert (verdict.direction, verdict.comparison.n) == (direction, 1)
    assert verdict.comparison.reference == pytest.approx([0.9225])
    assert (verdict.comparison.effect, verdict.scale) == (pytest.approx(value - 0.9225), "published")


def test_a_side_may_be_the_number_zero():
    setting = {"section": "effective_robustness", "method": "replay"}
    records = seeds(CHECKPOINT, [-0.01, 0.0, -0.02], "final_effective_robustness", **setting)
    verdict = judged(claim("er-keep-replay"), records)  # at the end at most 1 point
    assert (verdict.comparison.effect, verdict.comparison.high) == pytest.approx((-0.01, -0.01 + 0.01 * T), abs=1e-7)
    assert verdict.direction == "undecided"  # up to +1.48 points
    assert verdict.comparison.reference == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(
    ("name", "low", "high", "size"),
    [
        ("cal-factor", 4.05, 5.0, "reached"),  # prints as 4.1
        ("cal-factor", 4.0, 5.0, "undecided"),
        ("cal-factor", 1.5, 4.04, "below"),
        ("cal-rms-cifar100", 0.5, 0.6, "reached"),  # at least halved
        ("cal-rms-cifar100", 0.41, 0.52, "undecided"),
        ("cal-rms-cifar100", 0.3, 0.49, "below"),
    ],
)
def test_size_by_the_interval(name, low, high, size):
    assert verdicts.size(claim(name), low, high) == size


def test_size_is_judged_at_the_papers_scale_only():
    found = claim("cal-rms-cifar10")
    values = [0.20, 0.30, 0.40], [0.08, 0.11, 0.15]  # reductions 0.600, 0.633, 0.625
    assert judged(found, both(*values)).size == "not judged"
    assert judged(found, both(*values, profile="paper")).size == "reached"


def test_two_pretrainings_of_one_seed_each_leave_a_claim_undecided():
    values = {"excluded": [0.30, 0.31, 0.32], "full": [0.20, 0.21, 0.221]}
    corpora = {"excluded": "imagenet32-no-cifar10_144900x249", "full": "imagenet32_160000x275"}
    recipe = {"architecture": "wrn-16-1", "epochs": 10, "train_images": 0}

    def judged_with(corpora: dict[str, str], own_seed: bool) -> verdicts.Verdict:
        records = []
        for (method, some), seed in itertools.product(values.items(), range(3)):
            start = record("scratch", own_seed * seed, section="pretraining", dataset=corpora[method], recipe=recipe)
            same = {"section": "adversarial", "method": method, "adversarial_accuracy": some[seed]}
            records += [start, record(checkpoint_id(start.job), seed, **same)]
        return judged(claim("adv-excluded"), records)

    one = judged_with(corpora, own_seed=False)
    assert (one.direction, one.comparison.pretraining_seeds) == ("undecided", 1)
    assert "of the two pre-trainings compared one has a single seed" in one.note
    several = judged_with(corpora, own_seed=True)
    assert (several.direction, several.comparison.pretraining_seeds) == ("supported", 3)
    assert "a single seed" not in several.note
    same = judged_with(corpora | {"excluded": corpora["full"]}, own_seed=False)
    assert same.direction == "supported"  # one pre-training, two ways of tuning


def test_gains_from_two_pretrainings_of_one_seed_each_leave_a_claim_undecided():
    scratch, other = [0.30, 0.31, 0.32], CHECKPOINT.replace("imagenet32", "imagenet32-no-tiny")
    for start, direction in ((CHECKPOINT, "supported"), (other, "undecided")):
        tiny = {"dataset": "tiny_imagenet", "metric": "rms_calibration_error"}
        records = both(scratch, [0.10, 0.11, 0.121], dataset="cifar100")
        records += [*seeds("scratch", scratch, **tiny), *seeds(start, [0.25, 0.262, 0.27], **tiny)]
        assert judged(claim("cal-gain-tiny_imagenet"), records).direction == direction


def test_seeds_that_all_give_the_same_value_decide_nothing():
    verdict = judged(claim("cal-error-cifar10"), both([0.3, 0.3, 0.3], [0.2, 0.2, 0.2], "error"))
    assert (verdict.direction, verdict.comparison.n) == ("undecided", 3)
    assert "no randomness" in verdict.note


def test_arms_that_have_learned_next_to_nothing_are_no_test():
    def judged_at(scratch: float, tuned: float, profile: str = "cpu") -> verdicts.Verdict:
        measured = both([0.20, 0.30, 0.41], [0.10, 0.14, 0.20], profile=profile)
        errors = {"scratch": scratch, CHECKPOINT: tuned}
        records = [dataclasses.replace(one, metrics=one.metrics | {"error": errors[one.job.init]}) for one in measured]
        return judged(claim("cal-rms-cifar10"), records)

    verdict = judged_at(0.90, 0.88)
    assert (verdict.direction, verdict.size) == ("not testable here", "")
    assert "test error 90 and 88 % on CIFAR-10" in verdict.note
    assert verdict.comparison.effect == pytest.approx((1 / 2 + 16 / 30 + 21 / 41) / 3)  # still shown
    assert judged_at(0.90, 0.80).direction == "supported"
    assert judged_at(0.90, 0.88, "paper").direction == "not testable here"


def noise(method: str, init: str, at_zero: float, slope: float) -> list[Record]:
    values = {level: [at_zero + slope * level + seed / 100 for seed in range(3)] for level in (0.0, 0.5, 1.0)}
    return at_levels(init, values, section="label_noise", method=method)


def test_no_correction_is_not_superior_where_forward_correction_fails():
    found = claim("noise-superior-cifar10")
    tuned = noise("none", CHECKPOINT, 0.1, 0.2) + noise("forward", CHECKPOINT, 0.2, 0.21)
    works = noise("none", "scratch", 0.2, 0.4) + noise("forward", "scratch", 0.2, 0.3)
    fails = noise("none", "scratch", 0.2, 0.3) + noise("forward", "scratch", 0.2, 0.4)
    verdict = judged(found, tuned, fails)
    assert verdict.direction == "not testable here"
    assert "Forward correction fails here" in verdict.note
    verdict = judged(found, tuned, works)  # the differences of the three seeds are equal
    assert (verdict.direction, verdict.comparison.effect) == ("undecided", pytest.approx(-0.105))


def test_the_excess_area_needs_room_for_the_error_to_rise():
    found, tuned = claim("noise-softer-cifar10"), noise("none", CHECKPOINT, 0.6, 0.3)
    verdict = judged(found, noise("none", "scratch", 0.88, 0.05), tuned)
    assert (verdict.direction, verdict.comparison.effect) == ("not testable here", pytest.approx(0.15 - 0.025))
    assert judged(found, noise("none", "scratch", 0.5, 0.05), tuned).direction != "not testable here"


def test_a_claim_about_every_level_stands_by_the_weakest():
    found = claim("imb-smote-cifar10")
    setting = {"section": "imbalance", "method": "normal"}
    values = {0.2: [0.40, 0.41, 0.42], 1.0: [0.35, 0.36, 0.37], 2.0: [0.30, 0.31, 0.32]}
    smote = at_levels("scratch", values, section="imbalance", method="smote")
    good = {0.2: [0.20, 0.21, 0.23], 1.0: [0.30, 0.309, 0.322], 2.0: [0.20, 0.21, 0.23]}
    verdict = judged(found, smote, at_levels(CHECKPOINT, good, **setting))
    assert (verdict.direction, verdict.level, verdict.comparison.n) == ("supported", 1.0, 3)
    assert "3 of 3 levels support the claim" in verdict.note
    assert verdict.comparison.effect == pytest.approx((-0.05 - 0.051 - 0.048) / 3)
    assert verdict.claim == found
    unsure = good | {2.0: [0.20, 0.40, 0.10]}
    assert judged(found, smote, at_levels(CHECKPOINT, unsure, **setting)).direction == "undecided"
    lost = unsure | {1.0: [0.40, 0.41, 0.421]}  # beside a level that is merely unsure
    verdict = judged(found, smote, at_levels(CHECKPOINT, lost, **setting))
    assert (verdict.direction, verdict.level) == ("contradicted", 1.0)
    assert "1 of 3 levels support the claim" in verdict.note
    assert judged(found, smote).direction == "not measured"


def test_a_claim_about_every_ood_set():
    means = {"auroc_mean": 0.9, "auroc_photographs": 0.9, "auroc_synthetic": 0.9}  # are no sets
    sets = {"scratch": (0.70, 0.80, 0.01), CHECKPOINT: (0.90, 0.70, 0.0)}
    records = [
        record(init, s, section="ood", auroc_svhn=svhn + s / 90, auroc_blobs=blobs + s**2 / 90 + s * more, **means)
        for init, (svhn, blobs, more) in sets.items()
        for s in range(3)
    ]
    verdict = judged(claim("ood-every-cifar10"), records)
    assert (verdict.direction, verdict.level) == ("contradicted", "blobs")
    assert "1 of 2 OOD sets support the claim" in verdict.note


def test_a_larger_gain_is_the_difference_of_two_differences():
    found = claim("cal-gain-cifar10")  # lowered more on CIFAR-100 than on CIFAR-10
    large = both([0.30, 0.30, 0.30], [0.20, 0.18, 0.16], dataset="cifar100")  # -0.10, -0.12, -0.14
    small = both([0.30, 0.30, 0.30], [0.29, 0.28, 0.24])  # -0.01, -0.02, -0.06
    verdict = judged(found, large, small)  # -0.09, -0.10, -0.08
    gap = verdict.comparison
    assert (gap.effect, gap.low, gap.high) == pytest.approx((-0.09, -0.09 - 0.01 * T, -0.09 + 0.01 * T), abs=1e-7)
    assert verdict.direction == "supported"
    assert verdict.comparison.treated == pytest.approx([-0.10, -0.12, -0.14])
    assert judged(found, large).direction == "not measured"
    assert verdicts.here_text(verdict) == "−3.0 ± 2.6 points on CIFAR-10, −12.0 ± 2.0 points on CIFAR-100"


def test_curves_are_compared_at_half_of_the_epochs_and_at_the_end():
    curve = {"history_epoch": [1.0, 2.0, 8.0, 10.0]}
    records = [
        record("scratch", s, dataset="cifar100", **curve, history_rms_calibration_error=[0.9, 0.1 + s / 100, 0.8, 0.2])
        for s in range(3)
    ]
    verdict = judged(claim("cal-longer-rms"), records)
    assert verdict.comparison.reference == pytest.approx([0.1, 0.11, 0.12])  # epoch 2 is the last one of the first half
    assert verdict.comparison.treated == pytest.approx([0.2, 0.2, 0.2])


def test_what_is_shown_beside_an_effect():
    records = both([0.10, 0.11, 0.12], [0.05, 0.05, 0.05])
    errors = both([0.20, 0.21, 0.22], [0.25, 0.26, 0.27], "error")
    pairs = zip(records, errors, strict=True)
    records = [dataclasses.replace(one, metrics=one.metrics | other.metrics) for one, other in pairs]
    assert "test error: +5.0 points [+5.0, +5.0]" in judged(claim("cal-rms-cifar10"), records).note


@pytest.mark.parametrize(
    ("name", "metric", "scratch", "tuned", "text"),
    [
        ("cal-error-cifar10", "error", [0.30, 0.40, 0.50], [0.20, 0.28, 0.42], "−10.0 points [−15.0, −5.0]"),
        ("cal-error-cifar10", "error", [0.3], [0.2], "−10.0 points"),
        ("cal-rms-cifar10", "rms_calibration_error", [0.2, 0.2, 0.2], [0.10, 0.11, 0.09], "50 % less [38, 62]"),
        ("cal-factor", "mad_calibration_error", [0.40, 0.42, 0.38], [0.1, 0.1, 0.1], "a factor of 4.0 [3.5, 4.5]"),
    ],
)
def test_effects_in_words(name, metric, scratch, tuned, text):
    found = claim(name)
    assert verdicts.effect_text(judged(found, both(scratch, tuned, metric, dataset=found.dataset))) == text


def test_counts_by_section_and_verdict():
    rows = verdicts.frame(evidence.tidy(both([0.30, 0.40, 0.50], [0.20, 0.28, 0.42], "error")))
    row = rows.set_index("id").loc["cal-error-cifar10"]
    assert (row["direction"], row["scale"], row["n"], row["source"]) == ("supported", "cpu", 3, "authors' logs")
    counts = verdicts.counts(rows)
    assert list(counts.index) == [*SECTIONS, "all"]
    assert counts.loc["all"].tolist() == [1, 0, 0, 0, len(CLAIMS) - 1]
    assert counts.loc["calibration", "supported"] == 1


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return verdicts.frame(evidence.load()).set_index("id", drop=False)


def test_every_claim_is_measured_or_says_what_it_needs(published):
    """A misspelt method or metric would leave it unmeasured."""
    for one in CLAIMS:
        assert (published["direction"][one.id] == "not measured") == bool(one.needs), one.id
        assert bool(one.margin_reason) == (one.test != "beyond"), one.id
        assert one.untestable or not one.untestable_if
        assert one.test == "beyond" or one.bounds[0] < one.bounds[1]


def test_verdicts_of_the_audit(published):
    """What an independent audit computed from the records; of label noise, a plain script of today's."""
    intervals = {"noise-excluded": "+1.9 points [−0.2, +4.0]", "noise-softer-cifar10": "−5.9 points [−12.3, +0.5]"}
    assert {name: published["interval"][name] for name in intervals} == intervals
    directions = {"noise-excluded": "undecided", "er-slope-imagenet": "supported"}
    directions |= dict.fromkeys(("er-fit-cifar10", "er-slope-cifar10", "er-r2-cifar10"), "not testable here")
    assert {name: published["direction"][name] for name in directions} == directions
    assert "photographs: −8.9 points" in published["note"]["ood-auroc-cifar100"]
    assert "89" in published["note"]["cal-rms-tiny_imagenet"]
    assert "without a correction: −17.3 points [−21.3, −13.3]" in published["note"]["noise-trust-cifar10"]
    assert "less that from scratch: +3.4 points [−4.3, +11.0], undecided" in published["note"]["er-dominance-maximum"]
    assert "more data: 43.3 %; share among the others: 4.1 %" in published["note"]["er-rare"]  # 13 of 30, 7 of 171


def test_claims_table_has_a_row_a_claim(published):
    whole = verdicts.claims_table(published, name="tab-claims")
    lines = [line for line in whole.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(CLAIMS)
    assert lines[0] == "| Claim | Paper | Here [95 %] | Verdict | Scale | Page |"
    assert all("(calibration.ipynb)" in line for line in lines if "(P1 Table 5)" in line)
    own = verdicts.claims_table(published[published["section"] == "calibration"], name="t")
    assert "| Verdict | Scale |\n" in own
