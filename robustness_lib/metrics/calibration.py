"""Accuracy, likelihood and calibration of a network's outputs.

Functions of logits [N, K] and labels [N], or of the confidence [N] (largest softmax probability) and whether the
prediction was right [N].
"""

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from robustness_lib.methods.checks import Floats, Labels, check_correctness, check_labels, check_numbers, check_whole
from robustness_lib.metrics import Metrics

Array = npt.ArrayLike


def _logits_and_labels(logits: Array, labels: Array) -> tuple[Floats, Labels]:
    scores = check_numbers(logits, "logits", "[N, K]")
    return scores, check_labels(labels, scores.shape[1], count=len(scores))


def confidence_and_correctness(logits: Array, labels: Array) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Largest softmax probability [N] and whether that class is the label [N]."""
    scores, classes = _logits_and_labels(logits, labels)
    return softmax(scores, axis=1).max(1), scores.argmax(1) == classes


def evaluate(logits: Array, labels: Array, bin_size: int = 100) -> Metrics:
    """Error and all metrics of this module for the test images; ``_dropped_bin`` is as in the authors' code."""
    confidence, correct = confidence_and_correctness(logits, labels)
    return {
        "error": float(1 - correct.mean()),
        "rms_calibration_error": rms_calibration_error(confidence, correct, bin_size),
        "mad_calibration_error": mad_calibration_error(confidence, correct, bin_size),
        "rms_calibration_error_dropped_bin": rms_calibration_error(confidence, correct, bin_size, drop_last_bin=True),
        "mad_calibration_error_dropped_bin": mad_calibration_error(confidence, correct, bin_size, drop_last_bin=True),
        "expected_calibration_error": expected_calibration_error(confidence, correct),
        "negative_log_likelihood": negative_log_likelihood(logits, labels),
        "brier_score": brier_score(logits, labels),
    }


def _confidence_and_correct(confidence: Array, correct: Array) -> tuple[Floats, Floats]:
    confidences = check_numbers(confidence, "confidence", "[N]", unit="softmax probabilities")
    return confidences, check_correctness(correct, "correct", confidences.shape).astype(np.float64)


def adaptive_bins(confidence: Array, correct: Array, bin_size: int = 100) -> tuple[Floats, Floats, Floats]:
    """Mean confidence, mean correctness and size, [B] each, of bins of equally many examples (P1 §4.2).

    Examples are sorted by confidence, at equal confidence with the wrong ones first; floor(N / bin_size) bins follow
    (at least one), the last with the remainder too.
    """
    confidences, right = _confidence_and_correct(confidence, correct)
    check_whole(bin_size, "bin_size", 1, "the paper uses 100")
    order = np.lexsort((right, confidences))
    starts = np.arange(max(len(confidences) // bin_size, 1)) * bin_size
    counts = np.diff(np.append(starts, len(confidences))).astype(np.float64)
    return np.add.reduceat(confidences[order], starts) / counts, np.add.reduceat(right[order], starts) / counts, counts


def _gaps(confidence: Array, correct: Array, bin_size: int, drop_last_bin: bool) -> tuple[Floats, Floats]:
    """Absolute gap and weight of each bin."""
    confidences, right, counts = adaptive_bins(confidence, correct, bin_size)
    kept = slice(None, -1) if drop_last_bin else slice(None)
    return np.abs(confidences - right)[kept], (counts / counts.sum())[kept]


def rms_calibration_error(
    confidence: Array, correct: Array, bin_size: int = 100, *, drop_last_bin: bool = False
) -> float:
    """Root mean square calibration error with adaptive bins, ``sqrt(sum_b w_b (conf_b - acc_b)^2)`` (P1 §4.2).

    With ``drop_last_bin`` the most confident bin is left out of the sum, but not of the weights' N, as in the authors'
    released code. The published numbers were probably made so.
    """
    gaps, weights = _gaps(confidence, correct, bin_size, drop_last_bin)
    return float(np.sqrt((weights * gaps**2).sum()))


def mad_calibration_error(
    confidence: Array, correct: Array, bin_size: int = 100, *, drop_last_bin: bool = False
) -> float:
    """Mean absolute calibration error, ``sum_b w_b |conf_b - acc_b|`` (P1 §4.2); else as the RMS error."""
    gaps, weights = _gaps(confidence, correct, bin_size, drop_last_bin)
    return float((weights * gaps).sum())


def expected_calibration_error(confidence: Array, correct: Array, bins: int = 15) -> float:
    """Expected calibration error with bins ((k - 1)/bins, k/bins] of equal width (Guo et al. 2017)."""
    confidences, right = _confidence_and_correct(confidence, correct)
    check_whole(bins, "bins", 1, "15 are usual")
    index = np.searchsorted(np.arange(1, bins) / bins, confidences, side="left")
    return float(np.abs(np.bincount(index, confidences - right, minlength=bins)).sum() / len(confidences))


def negative_log_likelihood(logits: Array, labels: Array) -> float:
    """Mean negative log-likelihood of the labels under the softmax, in nats."""
    scores, classes = _logits_and_labels(logits, labels)
    return float(-log_softmax(scores, axis=1)[np.arange(len(classes)), classes].mean())


def brier_score(logits: Array, labels: Array) -> float:
    """Mean squared distance of the softmax probabilities from the one-hot label, in [0, 2] (Brier 1950)."""
    scores, classes = _logits_and_labels(logits, labels)
    distance = softmax(scores, axis=1)
    distance[np.arange(len(classes)), classes] -= 1
    return float((distance**2).sum(1).mean())


def tune_temperature(logits: Array, labels: Array) -> float:
    """The softmax temperature that makes held-out labels most likely, by the authors' bisection (P1 §4.2).

    The derivative of the mean cross-entropy of logits / T is bisected from [0.2, 5] to an interval shorter than 1e-4;
    of its ends and middle the one with the least loss is returned.
    """
    scores, classes = _logits_and_labels(logits, labels)
    own, lower, upper = scores[np.arange(len(classes)), classes], 0.2, 5.0
    while upper - lower > 1e-4:
        middle = (lower + upper) / 2
        expected = (softmax(scores / middle, axis=1) * scores).sum(1)
        if float((own - expected).mean()) > 0:
            upper = middle
        else:
            lower = middle
    candidates = (lower, (lower + upper) / 2, upper)
    return min(candidates, key=lambda temperature: negative_log_likelihood(scores / temperature, classes))
