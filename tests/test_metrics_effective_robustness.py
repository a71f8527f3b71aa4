"""Baselines, effective robustness, intervals and dominance, against values worked out elsewhere."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy.stats import binomtest

from robustness_lib.errors import UserError
from robustness_lib.metrics import effective_robustness
from robustness_lib.metrics.effective_robustness import PRINTED_LINES, LinearFit
from robustness_lib.paper import select

CIFAR, IMAGENET = PRINTED_LINES["cifar10"], PRINTED_LINES["imagenet"]

BASELINES = [  # x, beta for CIFAR-10.1, beta for ImageNetV2: PROTOCOL 8.1
    (0.10, 0.091019, 0.074707),
    (0.20, 0.164280, 0.145734),
    (0.30, 0.235343, 0.219046),
    (0.50, 0.383765, 0.379988),
    (0.70, 0.557540, 0.572494),
    (0.80, 0.663631, 0.687672),
    (0.90, 0.794791, 0.823078),
    (0.95, 0.878210, 0.902617),
    (0.97, 0.918176, 0.938028),
    (0.99, 0.966060, 0.977009),
]


@pytest.mark.parametrize(("x", "cifar", "imagenet"), BASELINES)
def test_the_printed_baselines_to_six_digits(x: float, cifar: float, imagenet: float) -> None:
    assert CIFAR.predict(x) == pytest.approx(cifar, abs=5e-7)
    assert IMAGENET.predict(x) == pytest.approx(imagenet, abs=5e-7)
    assert effective_robustness.equal_accuracy_curve(x, CIFAR) == pytest.approx(x - cifar, abs=5e-7)
    assert effective_robustness.effective_robustness(x, x, IMAGENET) == pytest.approx(x - imagenet, abs=5e-7)


def test_the_standard_error_is_the_spread_over_draws_of_test_images() -> None:
    random = np.random.default_rng(0)
    drawn = [random.binomial(count, accuracy, 20_000) / count for count, accuracy in ((1000, 0.77), (800, 0.6))]
    spread = effective_robustness.effective_robustness(*drawn, CIFAR).std()
    assert effective_robustness.standard_error(0.77, 0.6, CIFAR, 1000, 800) == pytest.approx(spread, rel=0.02)
    with pytest.raises(UserError, match="on the linear scale; give one"):
        effective_robustness.standard_error(0.77, 0.6, LinearFit(1.0, 0.0, "linear"), 1000, 800)


def test_the_lines_are_those_of_the_papers_tables() -> None:
    for dataset, line in PRINTED_LINES.items():
        for metric in ("slope", "intercept", "r_squared"):
            row = select("effective_robustness", dataset=dataset, method="fit-logit", metric=metric)
            assert row["value"].tolist() == [getattr(line, metric)]


# --------------------------------------------------------------------------------------------- fits


@pytest.mark.parametrize("scaling", effective_robustness.SCALINGS)
def test_a_line_is_found_again(scaling: str) -> None:
    true = LinearFit(0.8, -0.1 if scaling == "linear" else -0.4, scaling)  # type: ignore[arg-type]
    x = np.array([0.2, 0.5, 0.7, 0.9, 0.95])
    found = effective_robustness.fit_line(x, true.predict(x), scaling)
    assert (found.slope, found.intercept) == pytest.approx((true.slope, true.intercept))
    assert found.r_squared == pytest.approx(1)
    assert (found.models, found.left_out) == (5, 0)
    np.testing.assert_allclose(effective_robustness.effective_robustness(x, found.predict(x) + 0.01, found), 0.01)


def test_scales_against_the_standard_library_and_back() -> None:
    x = np.array([0.003, 0.2, 0.5, 0.93])
    normal = statistics.NormalDist()
    np.testing.assert_allclose(effective_robustness.to_scale(x, "probit"), [normal.inv_cdf(value) for value in x])
    np.testing.assert_allclose(effective_robustness.to_scale(x, "logit"), np.log(x / (1 - x)))
    for scaling in effective_robustness.SCALINGS:
        np.testing.assert_allclose(
            effective_robustness.from_scale(effective_robustness.to_scale(x, scaling), scaling), x
        )


def test_r_squared_and_standard_errors_by_hand() -> None:
    found = effective_robustness.fit_line([0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.3, 0.3], "linear")
    assert (found.slope, found.intercept) == pytest.approx((0.8, 0.0))
    assert found.r_squared == pytest.approx(0.8)  # 1 - 0.008 / 0.04
    assert found.slope_error == pytest.approx(np.sqrt(0.008 / 2 / 0.05))
    assert found.intercept_error == pytest.approx(np.sqrt(0.008 / 2 * (1 / 4 + 0.25**2 / 0.05)))


def test_accuracies_of_0_and_1_are_left_out_where_they_lie_at_infinity() -> None:
    x, y = np.array([0.3, 0.5, 0.7, 0.9]), np.array([0.2, 0.35, 0.62, 0.8])
    ends_x, ends_y = np.append(x, [0, 0.4, 1]), np.append(y, [0.1, 0, 1])
    for scaling in ("probit", "logit"):
        without, found = (
            effective_robustness.fit_line(x, y, scaling),
            effective_robustness.fit_line(ends_x, ends_y, scaling),
        )
        assert (found.slope, found.intercept, found.models) == (without.slope, without.intercept, 4)
        assert (without.left_out, found.left_out) == (0, 3)
    assert effective_robustness.fit_line(ends_x, ends_y, "linear").models == 7
    np.testing.assert_array_equal(CIFAR.predict([0, 1]), [0, 1])
    np.testing.assert_allclose(effective_robustness.effective_robustness([0, 1], [0.1, 0.9], CIFAR), [0.1, -0.1])


@pytest.mark.parametrize(
    ("id_accuracy", "ood_accuracy", "message"),
    [
        ([0.1, 0.2], [0.1, 0.2], r"through 2 models \(and 0"),
        ([0.1, 0.2, 1.0], [0.1, 0.2, 0.3], r"through 2 models \(and 1 with an accuracy of 0 or 1\); give at least"),
        ([], [], r"through 0 models \(and 0"),
        ([0.1, 0.2, 0.3], [0.1, 0.2], r"the shape of ood_accuracy is \[2\]; give \[3\]"),
        ([0.1, 0.2, 93.1], [0.1, 0.2, 0.3], "id_accuracy holds a value outside .* 0.931 for 93.1 %"),
        ([0.1, 0.2, 0.3], [0.1, 0.2, np.nan], "ood_accuracy holds a value outside"),
        ([0.3, 0.3, 0.3], [0.1, 0.2, 0.3], "the same ID accuracy"),
    ],
)
def test_what_no_line_can_be_fitted_to(id_accuracy: list[float], ood_accuracy: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        effective_robustness.fit_line(id_accuracy, ood_accuracy)


# --------------------------------------------------------------------------------------------- effective robustness


def test_the_share_of_the_gap() -> None:
    x = np.array([0.3, 0.9])
    ordinary = CIFAR.predict(x)
    np.testing.assert_allclose(effective_robustness.accuracy_gap_share(x, ordinary, CIFAR), 0, atol=1e-12)
    np.testing.assert_allclose(effective_robustness.accuracy_gap_share(x, x, CIFAR), 1)
    np.testing.assert_allclose(effective_robustness.accuracy_gap_share(x, (x + ordinary) / 2, CIFAR), 0.5)
    assert np.isnan(effective_robustness.accuracy_gap_share([0, 0.03, 1], [0, 0.03, 1], CIFAR)).all()


def test_the_mixed_classifier_of_the_papers_appendix() -> None:
    low, high = ((x, float(CIFAR.predict(x))) for x in (0.20, 0.95))
    inside, outside = effective_robustness.mixed_classifier(low, high, [0.5, 0.25, 0.75, 0, 1])
    np.testing.assert_allclose(inside, [0.5750, 0.7625, 0.3875, 0.95, 0.20], atol=5e-5)
    np.testing.assert_allclose(outside[:3], [0.5212, 0.6997, 0.3428], atol=5e-5)
    robustness = effective_robustness.effective_robustness(inside, outside, CIFAR)
    np.testing.assert_allclose(robustness, [0.0766, 0.0781, 0.0443, 0, 0], atol=5e-5)
    with pytest.raises(UserError, match="share holds a value outside"):
        effective_robustness.mixed_classifier(low, high, 1.5)


# --------------------------------------------------------------------------------------------- averages


def test_points_are_averaged_in_bins_of_one_per_cent() -> None:
    found = effective_robustness.binned_average([0.501, 0.509, 0.512, 0.0, 1.0], [1.0, 3.0, 7.0, 5.0, 6.0])
    np.testing.assert_allclose(found.id_accuracy, [0.005, 0.505, 0.515, 0.995])
    np.testing.assert_allclose(found.mean, [5, 2, 7, 6])
    np.testing.assert_allclose(found.spread, [0, 1, 0, 0])
    assert found.points.tolist() == [1, 2, 1, 1]


def test_the_maximum_has_both_error_bars() -> None:
    accuracy = np.array([[0.305, 0.605, 0.905], [0.305, 0.605, 0.905]])
    robustness = np.array([[0.00, 0.04, 0.01], [0.04, 0.05, 0.01]])
    found = effective_robustness.binned_average(accuracy, robustness)
    best = found.mean.argmax()
    assert (found.mean[best], found.id_accuracy[best]) == pytest.approx((0.045, 0.605))
    assert (found.spread.max(), found.spread[best], found.points[best]) == pytest.approx((0.02, 0.005, 2))


def test_averages_of_unsuitable_points() -> None:
    with pytest.raises(UserError, match=r"the shape of values is \[1\]; give \[2\]"):
        effective_robustness.binned_average([0.1, 0.2], [0.1])
    with pytest.raises(UserError, match="at least one point"):
        effective_robustness.binned_average([], [])
    with pytest.raises(UserError, match="not a finite number"):
        effective_robustness.binned_average([0.1], [np.nan])
    with pytest.raises(UserError, match="bins is 0"):
        effective_robustness.binned_average([0.1], [0.1], bins=0)


# --------------------------------------------------------------------------------------------- intervals


def test_intervals_of_the_protocol_and_of_scipy() -> None:
    lower, upper = effective_robustness.clopper_pearson([1800, 9000, 0, 10], [2000, 10000, 10, 10])
    np.testing.assert_allclose(lower, [0.8860, 0.8940, 0, 0.6915], atol=5e-5)
    np.testing.assert_allclose(upper, [0.9128, 0.9058, 0.3085, 1], atol=5e-5)
    for right, total, confidence in ((3, 17, 0.95), (17, 17, 0.9), (0, 5, 0.99), (1, 1, 0.5)):
        expected = binomtest(right, total).proportion_ci(confidence, "exact")
        assert effective_robustness.clopper_pearson(right, total, confidence) == pytest.approx(
            (expected.low, expected.high)
        )


@pytest.mark.parametrize(
    ("correct", "total", "confidence", "message"),
    [
        (5, 4, 0.95, "0 <= correct <= total"),
        (-1, 4, 0.95, "0 <= correct <= total"),
        (0, 0, 0.95, "total >= 1"),
        (0.5, 1, 0.95, "whole numbers"),
        ([1, 2], [3, 4, 5], 0.95, r"the shape of total is \[3\]; give \[2\]"),
        (1, 2, 95, "confidence is 95"),
    ],
)
def test_counts_that_are_none(correct: object, total: object, confidence: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        effective_robustness.clopper_pearson(correct, total, confidence)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- image by image


def test_the_matrix_is_that_of_all_pairs() -> None:
    draw = np.random.default_rng(1)
    correct = draw.random((7, 501)) < np.linspace(0.2, 0.9, 7)[:, None]
    matrix = effective_robustness.dominance_matrix(correct)
    for i in range(7):
        for j in range(7):
            expected = (correct[min(i, j)] & ~correct[max(i, j)]).mean()  # rows rise in accuracy
            assert matrix[i, j] == pytest.approx(expected, abs=1e-12)


def test_hard_examples_and_who_gets_them_right() -> None:
    correct = np.array([[1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 1]])
    assert effective_robustness.hard_examples(correct).tolist() == [False, False, True, True, False]
    np.testing.assert_allclose(effective_robustness.hard_share_correct(correct), [0, 1 / 3, 0])
    np.testing.assert_array_equal(effective_robustness.hard_share_correct([[0, 1], [1, 1]]), [np.nan, 1])
    assert np.isnan(effective_robustness.hard_share_correct([[1, 1], [1, 1]])).all()


def test_answers_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="correct holds values other than 0 and 1"):
        effective_robustness.dominance_matrix([[1, 0], [1, 2]])
    with pytest.raises(UserError, match=r"the shape of correct is \[2\]; give \[M, N\]"):
        effective_robustness.hard_share_correct([1, 0])
    with pytest.raises(UserError, match=r"the shape of correct is \[1, 0\]"):
        effective_robustness.hard_examples([[]])
