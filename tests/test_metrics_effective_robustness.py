"""Baselines, effective robustness, intervals and dominance, against values worked out elsewhere."""

import itertools
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from robustness_lib.errors import UserError
from robustness_lib.metrics.effective_robustness import (
    PRINTED_LINES,
    SCALINGS,
    LinearFit,
    accuracy_gap_share,
    alone_of_three,
    binned_average,
    dominance_matrix,
    effective_robustness,
    equal_accuracy_curve,
    fit_line,
    hard_examples,
    hard_share_correct,
    mixed_classifier,
    standard_error,
    to_scale,
)
from robustness_lib.paper import select

CIFAR, IMAGENET = PRINTED_LINES["cifar10"], PRINTED_LINES["imagenet"]

BASELINES = [  # x, beta for CIFAR-10.1, beta for ImageNetV2: PROTOCOL 8.1
    (0.10, 0.091019, 0.074707),
    (0.30, 0.235343, 0.219046),
    (0.50, 0.383765, 0.379988),
    (0.70, 0.557540, 0.572494),
    (0.90, 0.794791, 0.823078),
    (0.99, 0.966060, 0.977009),
]


@pytest.mark.parametrize(("x", "cifar", "imagenet"), BASELINES)
def test_the_printed_baselines_to_six_digits(x: float, cifar: float, imagenet: float) -> None:
    assert CIFAR.predict(x) == pytest.approx(cifar, abs=5e-7)
    assert IMAGENET.predict(x) == pytest.approx(imagenet, abs=5e-7)
    assert equal_accuracy_curve(x, CIFAR) == pytest.approx(x - cifar, abs=5e-7)
    assert effective_robustness(x, x, IMAGENET) == pytest.approx(x - imagenet, abs=5e-7)


def test_the_standard_error_is_the_spread_over_draws_of_test_images() -> None:
    random = np.random.default_rng(0)
    drawn = [random.binomial(count, accuracy, 20_000) / count for count, accuracy in ((1000, 0.77), (800, 0.6))]
    spread = effective_robustness(*drawn, CIFAR).std()
    assert standard_error(0.77, 0.6, CIFAR, 1000, 800) == pytest.approx(spread, rel=0.02)


def test_the_lines_are_those_of_the_papers_tables() -> None:
    for dataset, line in PRINTED_LINES.items():
        for metric in ("slope", "intercept", "r_squared"):
            row = select("effective_robustness", dataset=dataset, method="fit-logit", metric=metric)
            assert row["value"].tolist() == [getattr(line, metric)]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_line_is_found_again(scaling: str) -> None:
    true = LinearFit(0.8, -0.1 if scaling == "linear" else -0.4, scaling)
    x = np.array([0.2, 0.5, 0.7, 0.9, 0.95])
    np.testing.assert_allclose(to_scale(true.predict(x), scaling), 0.8 * to_scale(x, scaling) + true.intercept)
    found = fit_line(x, true.predict(x), scaling)
    assert (found.slope, found.intercept) == pytest.approx((true.slope, true.intercept))
    assert found.r_squared == pytest.approx(1)
    assert (found.models, found.left_out) == (5, 0)
    np.testing.assert_allclose(effective_robustness(x, found.predict(x) + 0.01, found), 0.01)


def test_scales_against_the_standard_library() -> None:
    x = np.array([0.003, 0.2, 0.5, 0.93])
    normal = statistics.NormalDist()
    np.testing.assert_allclose(to_scale(x, "probit"), [normal.inv_cdf(value) for value in x])
    np.testing.assert_allclose(to_scale(x, "logit"), np.log(x / (1 - x)))


def test_r_squared_and_standard_errors_by_hand() -> None:
    found = fit_line([0.1, 0.2, 0.3, 0.4], [0.1, 0.1, 0.3, 0.3], "linear")
    assert (found.slope, found.intercept) == pytest.approx((0.8, 0.0))
    assert found.r_squared == pytest.approx(0.8)  # 1 - 0.008 / 0.04
    assert found.slope_error == pytest.approx(np.sqrt(0.008 / 2 / 0.05))
    assert found.intercept_error == pytest.approx(np.sqrt(0.008 / 2 * (1 / 4 + 0.25**2 / 0.05)))


def test_accuracies_of_0_and_1_are_left_out_where_they_lie_at_infinity() -> None:
    x, y = np.array([0.3, 0.5, 0.7, 0.9]), np.array([0.2, 0.35, 0.62, 0.8])
    ends_x, ends_y = np.append(x, [0, 0.4, 1]), np.append(y, [0.1, 0, 1])
    for scaling in ("probit", "logit"):
        without, found = fit_line(x, y, scaling), fit_line(ends_x, ends_y, scaling)
        assert (found.slope, found.intercept, found.models) == (without.slope, without.intercept, 4)
        assert (without.left_out, found.left_out) == (0, 3)
    assert fit_line(ends_x, ends_y, "linear").models == 7
    np.testing.assert_array_equal(CIFAR.predict([0, 1]), [0, 1])
    np.testing.assert_allclose(effective_robustness([0, 1], [0.1, 0.9], CIFAR), [0.1, -0.1])


def test_the_share_of_the_gap() -> None:
    x = np.array([0.3, 0.9])
    ordinary = CIFAR.predict(x)
    np.testing.assert_allclose(accuracy_gap_share(x, ordinary, CIFAR), 0, atol=1e-12)
    np.testing.assert_allclose(accuracy_gap_share(x, x, CIFAR), 1)
    np.testing.assert_allclose(accuracy_gap_share(x, (x + ordinary) / 2, CIFAR), 0.5)
    assert np.isnan(accuracy_gap_share([0, 0.03, 1], [0, 0.03, 1], CIFAR)).all()


def test_the_mixed_classifier_of_the_papers_appendix() -> None:
    low, high = ((x, float(CIFAR.predict(x))) for x in (0.20, 0.95))
    inside, outside = mixed_classifier(low, high, [0.5, 0.25, 0.75, 0, 1])
    np.testing.assert_allclose(inside, [0.5750, 0.7625, 0.3875, 0.95, 0.20], atol=5e-5)
    np.testing.assert_allclose(outside[:3], [0.5212, 0.6997, 0.3428], atol=5e-5)
    robustness = effective_robustness(inside, outside, CIFAR)
    np.testing.assert_allclose(robustness, [0.0766, 0.0781, 0.0443, 0, 0], atol=5e-5)


def test_points_are_averaged_in_bins_of_one_per_cent() -> None:
    found = binned_average([0.501, 0.509, 0.512, 0.0, 1.0], [1.0, 3.0, 7.0, 5.0, 6.0])
    np.testing.assert_allclose(found.id_accuracy, [0.005, 0.505, 0.515, 0.995])
    np.testing.assert_allclose(found.mean, [5, 2, 7, 6])
    np.testing.assert_allclose(found.spread, [0, 1, 0, 0])
    assert found.points.tolist() == [1, 2, 1, 1]
    np.testing.assert_allclose(binned_average([[0.305, 0.605]] * 2, [[0.0, 0.04], [0.04, 0.05]]).mean, [0.02, 0.045])


def test_the_matrix_is_that_of_all_pairs() -> None:
    correct = np.random.default_rng(1).random((7, 501)) < np.linspace(0.2, 0.9, 7)[:, None]
    matrix = dominance_matrix(correct)
    for i, j in itertools.product(range(7), repeat=2):
        expected = (correct[min(i, j)] & ~correct[max(i, j)]).mean()  # rows rise in accuracy
        assert matrix[i, j] == pytest.approx(expected, abs=1e-12)


def test_alone_of_three_is_counted_triple_by_triple() -> None:
    correct = np.random.default_rng(2).random((5, 301)) < 0.6
    triples = [(i, *pair) for i in range(5) for pair in itertools.combinations(sorted({0, 1, 2, 3, 4} - {i}), 2)]
    expected = [(correct[i] & ~correct[j] & ~correct[k]).mean() for i, j, k in triples]
    np.testing.assert_allclose(alone_of_three(correct), expected, atol=1e-12)


def test_hard_examples_and_who_gets_them_right() -> None:
    correct = np.array([[1, 0, 0, 0, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 1]])
    assert hard_examples(correct).tolist() == [False, False, True, True, False]
    np.testing.assert_allclose(hard_share_correct(correct), [0, 1 / 3, 0])
    np.testing.assert_array_equal(hard_share_correct([[0, 1], [1, 1]]), [np.nan, 1])
    assert np.isnan(hard_share_correct([[1, 1], [1, 1]])).all()


THREE = [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_line([0.1, 0.2, 1.0], THREE), r"through 2 models \(and 1 with an accuracy of 0 or 1\)"),
        (lambda: fit_line([0.1, 0.2, 93.1], THREE), "id_accuracy holds a value outside .* 0.931 for 93.1 %"),
        (lambda: fit_line([0.3, 0.3, 0.3], THREE), "the same ID accuracy"),
        (lambda: LinearFit(1.0, 0.0, "log"), "unknown scaling 'log'"),
        (lambda: standard_error(0.77, 0.6, LinearFit(1.0, 0.0, "linear"), 1000, 800), "on the linear scale; give one"),
        (lambda: mixed_classifier((0.2, 0.2), (0.9, 0.8), 1.5), "share holds a value outside"),
        (lambda: binned_average([], []), "at least one point"),
        (lambda: binned_average([0.1], [0.1], bins=0), "bins is 0"),
        (lambda: dominance_matrix([[1, 0], [1, 2]]), "correct holds values other than 0 and 1"),
    ],
)
def test_bad_input_is_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
