"""Calibration and likelihood against golden values, other implementations, brute force and properties."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, log_loss

from robustness_lib.errors import UserError
from robustness_lib.metrics.calibration import (
    brier_score,
    evaluate,
    expected_calibration_error,
    mad_calibration_error,
    negative_log_likelihood,
    rms_calibration_error,
    tune_temperature,
)


def random_case(count: int, seed: int = 0, decimals: int = 9) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    confidence = stream.uniform(0.1, 1, count).round(decimals)
    return confidence, stream.uniform(size=count) < confidence**2


def random_logits(count: int, classes: int = 5, scale: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from the softmax at temperature ``scale``."""
    stream = np.random.default_rng(seed)
    calibrated = stream.normal(size=(count, classes)) * 1.5
    cumulative = softmax(calibrated, axis=1).cumsum(1)
    labels = (stream.uniform(size=(count, 1)) > cumulative[:, :-1]).sum(1)
    return calibrated * scale, labels


def test_golden_case() -> None:
    confidence = np.concatenate([np.linspace(0.5, 0.99, 900), np.full(100, 0.999)])
    case = confidence, np.arange(1000) < 900
    assert rms_calibration_error(*case) == pytest.approx(0.41970, abs=1e-5)
    assert mad_calibration_error(*case) == pytest.approx(0.32940, abs=1e-5)
    assert rms_calibration_error(*case, drop_last_bin=True) == pytest.approx(0.27631, abs=1e-5)
    assert mad_calibration_error(*case, drop_last_bin=True) == pytest.approx(0.22950, abs=1e-5)


def by_hand(confidence: np.ndarray, correct: np.ndarray, bin_size: int, drop: bool) -> tuple[float, float]:
    """As P1 defines it, one example after the other; among equal confidences the wrong ones come first."""
    pairs = sorted(zip(confidence.tolist(), correct.tolist(), strict=True))
    bins: list[list[tuple[float, float]]] = []
    for number, pair in enumerate(pairs):
        if number % bin_size == 0 and (not bins or len(pairs) - number >= bin_size):
            bins.append([])
        bins[-1].append(pair)
    squares = absolutes = 0.0
    for members in bins[:-1] if drop else bins:
        gap = abs(sum(c for c, _ in members) - sum(a for _, a in members)) / len(members)
        squares += len(members) / len(pairs) * gap**2
        absolutes += len(members) / len(pairs) * gap
    return math.sqrt(squares), absolutes


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize(("count", "bin_size"), [(530, 100), (50, 100), (64, 16), (3, 2), (1, 1), (20, 7)])
@pytest.mark.parametrize("decimals", [9, 1])
def test_equals_brute_force(count: int, bin_size: int, decimals: int, drop: bool) -> None:
    """Whatever the order of the examples; with one decimal many are equally confident."""
    confidence, correct = random_case(count, decimals=decimals)
    rms, mad = by_hand(confidence, correct, bin_size, drop)
    assert rms_calibration_error(confidence, correct, bin_size, drop_last_bin=drop) == pytest.approx(rms, abs=1e-12)
    order = np.random.default_rng(1).permutation(count)
    again = mad_calibration_error(confidence[order], correct[order], bin_size, drop_last_bin=drop)
    assert again == pytest.approx(mad, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_expected_calibration_error_equals_brute_force(bins: int) -> None:
    confidence, correct = random_case(500)
    expected = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert expected_calibration_error(confidence, correct, bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_likelihood_and_brier_score_equal_scikit_learn(classes: int) -> None:
    logits, labels = random_logits(200, classes)
    probabilities = softmax(logits, axis=1)
    names = list(range(classes))
    assert negative_log_likelihood(logits, labels) == pytest.approx(
        log_loss(labels, probabilities, labels=names), abs=1e-9
    )
    expected = brier_score_loss(labels, probabilities, labels=names, scale_by_half=False)
    assert brier_score(logits, labels) == pytest.approx(expected, abs=1e-9)


def test_all_metrics_of_a_network() -> None:
    logits, labels = random_logits(450)
    found = evaluate(logits, labels, 50)
    confidence, correct = softmax(logits, axis=1).max(1), logits.argmax(1) == labels
    for suffix, drop in (("", False), ("_dropped_bin", True)):
        errors = [found[f"{kind}_calibration_error{suffix}"] for kind in ("rms", "mad")]
        assert errors == pytest.approx(by_hand(confidence, correct, 50, drop))
    assert found["error"] == pytest.approx(1 - correct.mean())
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_temperature_is_the_minimiser(seed: int) -> None:
    logits, labels = random_logits(150, scale=0.5 + seed, seed=seed)

    def loss(temperature: float) -> float:
        return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())

    best = minimize_scalar(loss, bounds=(0.2, 5), method="bounded", options={"xatol": 1e-7})
    assert tune_temperature(logits, labels) == pytest.approx(best.x, abs=1e-4)


def test_temperature_at_the_ends_of_the_interval() -> None:
    sure = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert tune_temperature(sure, [0, 1]) == 0.2  # always right: the surer the better
    assert tune_temperature(sure, [1, 0]) == 5.0  # always wrong: the less sure the better
    assert tune_temperature(np.zeros((3, 2)), [0, 1, 0]) == pytest.approx(5, abs=1e-3)  # no slope at all


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mad_calibration_error([0.5, 0.6], [1]), r"the shape of correct is \[1\]; give \[2\]"),
        (lambda: expected_calibration_error([0.5, 1.0001], [1, 0]), r"outside \[0, 1\]"),
        (lambda: mad_calibration_error([0.5, 0.6], [1, 0.5]), "other than 0 and 1"),
        (lambda: negative_log_likelihood(np.zeros((0, 3)), []), "at least 1"),
        (lambda: evaluate([[0.0, math.nan]], [0]), "not a finite number"),
        (lambda: brier_score([[0.0, 1.0]], [2]), "whole numbers from 0 to 1"),
    ],
)
def test_bad_input_is_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
