"""The evidence frame: what counts, how seeds are paired and levels reduced."""

import numpy as np
import pytest
from scipy import stats

from robustness_lib.report import evidence
from robustness_lib.runner.records import Job, Record, checkpoint_id

SHARED = {"section": "label_noise", "profile": "cpu", "dataset": "cifar10", "method": "none", "level": None}
SIDE = {name: SHARED[name] for name in ("section", "profile", "dataset", "method")} | {"metric": "error"}


def record(*, seed=0, init="scratch", recipe=None, date="2026-01-01", **settings):
    job = SHARED | {name: settings.pop(name) for name in list(settings) if name in SHARED}
    job = Job(init=init, seed=seed, recipe=recipe or {"epochs": 1}, **job)
    return Record(job, settings, {"seconds": 1.0, "date": date, "precision": "float32"})


def pretraining(seed, **changes):
    recipe = {"architecture": "wrn-16-1", "train_images": 0, "epochs": 10, "learning_rate": 0.1} | changes
    return record(section="pretraining", dataset="imagenet32_160000x275", method="standard", seed=seed, recipe=recipe)


def start(seed, **changes):
    return checkpoint_id(pretraining(seed, **changes).job)


def both(values, **settings):
    return evidence.compare(values, SIDE | {"arm": "pre-trained"}, SIDE | {"arm": "scratch"}, **settings)


def test_effects_are_taken_at_each_seed():
    rows = [record(seed=s, error=0.5 + s / 10) for s in range(3)]
    rows += [record(seed=s, init=start(1), error=0.4 + s / 20) for s in range(4)]
    found = both(evidence.tidy(rows))
    gaps = np.array([-0.1, -0.15, -0.2])
    half = stats.t.ppf(0.975, 2) * gaps.std(ddof=1) / np.sqrt(3)
    assert found.seeds == (0, 1, 2)
    assert (found.effect, found.low, found.high) == pytest.approx((-0.15, -0.15 - half, -0.15 + half))
    assert found.pretraining_seeds == 1


def test_checkpoints_and_recipes_are_never_mixed():
    rows = [record(seed=s, error=0.5) for s in range(3)] + [record(seed=9, recipe={"epochs": 2}, error=0.1)]
    rows += [record(seed=s, init=start(1), error=0.4) for s in range(3)]
    rows += [record(seed=s, init=start(7), error=0.2) for s in range(2)]
    rows += [record(seed=s, init="timm/x", error=0.1) for s in range(4)]
    assert set(evidence.where(evidence.tidy(rows), main=True)["value"]) == {0.5, 0.4}


def test_seeds_that_start_from_their_own_pretraining_are_one_group_if_only_the_seed_differs():
    scratch = [record(seed=s, error=0.5) for s in range(3)]
    one = [record(seed=s, init=start(1), error=0.4) for s in range(3)]
    own = [record(seed=s, init=start(s), error=0.3) for s in (0, 2)]
    made = [pretraining(s) for s in range(3)]
    found = both(evidence.tidy([*scratch, *one, *own, *made]))
    assert (found.n, found.pretraining_seeds) == (3, 3)
    assert list(found.treated) == pytest.approx([0.3, 0.4, 0.3])
    more = [record(seed=s, init=start(1), error=0.4) for s in (3, 4)]
    for some, count in ((own, 3), (own[1:], 1)):  # three seeds are enough, however many share one pre-training
        assert both(evidence.tidy([*scratch, *one, *more, *some, *made])).pretraining_seeds == count
    faster = [pretraining(2, learning_rate=0.2)]
    changed = [record(seed=2, init=start(2, learning_rate=0.2), error=0.1)]
    for others in ([*own, *made[:2]], [own[0], *changed, *made, *faster]):  # unknown settings, other settings
        found = both(evidence.tidy([*scratch, *one, *others]))
        assert list(found.treated) == pytest.approx([0.4, 0.4, 0.4])
    values = evidence.tidy([*own, *changed, *made, *faster])
    assert values[values["section"] == "label_noise"].groupby("checkpoint", observed=True)[
        "init"
    ].nunique().tolist() == [2, 1]


def test_areas_are_over_the_levels_that_both_sides_have():
    rows = [record(seed=s, level=x, error=0.2 + x / 2) for s in (0, 1) for x in (0.0, 0.5, 1.0)]
    rows += [record(seed=s, level=x, init="c", error=0.1 + x * x) for s in (0, 1) for x in (0.0, 1.0)]
    values = evidence.tidy(rows)
    area, excess, mean = (both(values, reduce=how) for how in ("area", "excess", "mean"))
    assert area.levels == (0.0, 1.0)
    assert list(area.reference) == pytest.approx([0.45, 0.45])
    assert list(area.treated) == pytest.approx([0.6, 0.6])
    assert list(excess.treated) == pytest.approx([0.5, 0.5])
    assert list(mean.treated) == pytest.approx([0.6, 0.6])


def test_an_area_needs_both_ends_and_an_unfinished_sweep_keeps_the_levels_with_most_values():
    ends = [record(seed=s, level=x, init=i, error=0.5) for i in ("scratch", "c") for s in (0, 1) for x in (0.0, 1.0)]
    middle = [record(seed=0, level=0.5, init=i, error=0.9) for i in ("scratch", "c")]
    assert both(evidence.tidy(ends + middle), reduce="area").seeds == (0, 1)
    assert both(evidence.tidy([one for one in ends + middle if one.job.level != 1]), reduce="area").n == 0


def test_the_papers_area_is_over_the_same_strengths():
    setting = {"dataset": "cifar100", "arm": "scratch", "method": "none", "metric": "error", "reduce": "area"}
    assert evidence.paper_value("label_noise", **setting) == pytest.approx(0.554)
    part = evidence.paper_value("label_noise", levels=(0.0, 0.4, 0.8, 1.0), **setting)
    # trapezia over the errors 25.91, 43.74, 76.90 and 98.75 % that P1's Figure 2 shows at these strengths
    areas = 0.4 * (25.91 + 43.74) + 0.4 * (43.74 + 76.90) + 0.2 * (76.90 + 98.75)
    assert part == pytest.approx(areas / 200, abs=1e-4)
    no_curve = setting | {"dataset": "cifar10", "method": "glc-10"}
    assert evidence.paper_value("label_noise", levels=evidence.STRENGTHS, **no_curve) == pytest.approx(0.115)
    assert np.isnan(evidence.paper_value("label_noise", levels=(0.0, 1.0), **no_curve))


def test_the_papers_mean_is_over_the_sets_that_ours_is_over():
    ours = record(section="ood", method="standard", recipe={"ood_sets": "gaussian:textures"}, auroc_mean=0.5)
    found = evidence.paper_ood_means(evidence.tidy([ours]), "auroc_mean", dataset="cifar10", profile="cpu")
    assert found == pytest.approx([(0.962 + 0.883) / 2, (0.967 + 0.937) / 2])  # P1 Table 6


def test_basis_names_scales_seeds_and_pretrainings():
    rows = [record(seed=seed, error=0.5) for seed in range(3)] + [record(method="glc-5", error=1)]
    values = evidence.tidy(rows)
    assert evidence.basis(values) == "`cpu`, 1 to 3 seeds"
    assert evidence.basis(evidence.where(values, method="none")) == "`cpu`, 3 seeds"
    setting = {"section": "label_noise", "datasets": ["cifar10"], "methods": ["none"]}
    assert evidence.basis(evidence.arms(values, ["error"], **setting)) == ""  # of one arm alone
    for seeds, words in ((lambda s: 1, "one pre-training"), (lambda s: s, "3 pre-trainings")):
        made = [pretraining(s) for s in range(3)] + [record(seed=s, init=start(seeds(s)), error=0.4) for s in range(3)]
        arms = evidence.arms(evidence.tidy(rows + made), ["error"], **setting)
        assert evidence.basis(arms) == f"`cpu`, 3 seeds, {words}"


def test_two_values_of_one_seed_are_refused():
    rows = [record(error=0.5), record(init="c", error=0.4)]
    with pytest.raises(ValueError, match="two values for one seed"):
        evidence.compare(evidence.tidy(rows), SIDE, SIDE)


def derived(**metrics):
    return evidence.tidy([record(**metrics)]).set_index("metric")["value"]


def test_metrics_that_follow_from_others():
    assert derived(clean_accuracy=0.8, adversarial_accuracy=0.6)["adversarial_ratio"] == pytest.approx(0.75)
    found = derived(auroc_mean=0.7, auroc_svhn=0.6, auroc_gaussian=0.9)
    assert (found["auroc_photographs"], found["auroc_synthetic"]) == (0.6, 0.9)
    assert derived(high_count=20.0, compared_count=200.0)["high_share"] == pytest.approx(0.1)
    mixes = derived(share=[0.0, 0.5, 1.0], effective_robustness=[0.01, 0.06, 0.02])
    assert mixes["mixed_gain"] == pytest.approx(0.04)
    found = derived(history_error=[0.9, 0.5, 0.4, 0.3], history_epoch=[1.0, 2.0, 8.0, 10.0])
    assert (found["history_error_half"], found["history_error_last"]) == (0.5, 0.3)
    found = derived(class_error=[place / 20 for place in range(10)])
    assert (found["class_error_1"], found["class_error_10"]) == (0.0, 0.45)
    assert list(derived(class_error=[0.1] * 100, error=0.1).index) == ["error"]


def test_the_share_of_the_accuracy_gap_that_is_closed():
    """At an accuracy of 0.5 the line logit(x) - ln 3 is at 0.25, so the gap is 0.25."""
    found = derived(
        slope_excluded=1.0,
        intercept_excluded=-np.log(3),
        lowest_excluded=0.4,
        history_accuracy_excluded=[0.1, 0.5, 0.5, 0.5, 0.5],  # the first is below the testbed
        history_effective_robustness_excluded=[0.9, 0.10, 0.05, 0.025, -0.025],
    )
    assert found["gap_share_early"] == pytest.approx((0.4 + 0.2) / 2)
    assert found["gap_share_late"] == pytest.approx((0.1 - 0.1) / 2)


def test_dominance_is_compared_with_that_of_ordinary_pairs():
    pairs = {"model_accuracy": [0.5, 0.55, 0.9], "dominance": [0.1, 0.4, 0.3]}  # of (1, 2), (1, 3) and (2, 3)
    network = {
        "recipe": {"shifts": "included,corrupted,excluded"},
        "maximum_at_corrupted": 1.0,
        "maximum_at_excluded": 1.0,
        "maximum_at_included": 0.0,  # the first shift's counts
        "history_accuracy": [0.52, 0.85],
        "dominance_at_maximum": [0.2, 0.3, 0.9],
        "dominance_at_end": [0.9, 0.9, 0.12],
    }
    testbed = record(method="own-testbed", hard_images=9.0, **pairs)
    found = evidence.tidy([testbed, record(hard_images=9.0, **network)]).set_index("metric")["value"]
    assert found["dominance_excess_at_maximum"] == pytest.approx(0.25 - 0.1)  # models 1 and 2 are near
    assert found["dominance_excess_at_end"] == pytest.approx(0.12 - 0.1)  # model 3 is
    partial = record(hard_images=5.0, **network)  # among some of the classes, or on other images
    assert "dominance_excess_at_end" not in set(evidence.tidy([testbed, partial])["metric"])
