"""How well scores separate OOD images, the positive class, from in-distribution (ID) ones (P1 §4.1)."""

import numpy as np
import numpy.typing as npt

from robustness_lib.errors import UserError
from robustness_lib.methods.checks import Floats, check_numbers

Array = npt.ArrayLike

RECALL = 0.95  # at the threshold of fpr95


def _counts(in_scores: Array, out_scores: Array) -> tuple[Floats, Floats]:
    """False and true positives at each distinct score as threshold, from the highest down; both begin with 0."""
    in_distribution = check_numbers(in_scores, "the scores of the ID images", "[N]", finite=False)
    ood = check_numbers(out_scores, "the scores of the OOD images", "[M]", finite=False)
    scores = np.concatenate([in_distribution, ood])
    order = np.argsort(-scores, kind="stable")
    ranked, is_ood = scores[order], order >= len(in_distribution)
    last_of_its_value = np.append(ranked[1:] != ranked[:-1], True)
    true = np.cumsum(is_ood)[last_of_its_value].astype(np.float64)
    positives = np.flatnonzero(last_of_its_value) + 1.0
    return np.append(0.0, positives - true), np.append(0.0, true)


def detection_metrics(in_scores: Array, out_scores: Array, *, out_per_in: float | None = None) -> dict[str, float]:
    """How well scores tell OOD images from ID ones (P1 §4.1, Tables 4 and 6).

    Args:
        in_scores: [N], of ID images; larger is more OOD; infinite values are ranked.
        out_scores: [M], of OOD images.
        out_per_in: How many OOD images count for each ID one, where not M / N; matters to ``aupr`` alone (P1: 1/5).

    Returns ``auroc``, in which ties count half; ``aupr``, the average precision, without interpolation; and ``fpr95``,
    the false-positive rate at the distinct score whose recall of OOD images is *closest* to 95 % in floating-point
    numbers, the lowest of several, as in P1's code (other libraries take the highest score that reaches 95 %).
    """
    if out_per_in is not None and not (np.isfinite(out_per_in) and out_per_in > 0):
        raise UserError(f"out_per_in is {out_per_in} but must be a finite number above 0; the paper takes 1/5")
    false, true = _counts(in_scores, out_scores)
    false_rate, recall = false / false[-1], true / true[-1]
    ratio = true[-1] / false[-1] if out_per_in is None else out_per_in
    precision = recall[1:] * ratio / (recall[1:] * ratio + false_rate[1:])
    full_recall = int(np.argmax(recall == 1))
    closest = full_recall - int(np.argmin(np.abs(recall[full_recall:0:-1] - RECALL)))
    return {
        "auroc": float((np.diff(false_rate) * (recall[1:] + recall[:-1])).sum() / 2),
        "aupr": float((np.diff(recall) * precision).sum()),
        "fpr95": float(false_rate[closest]),
    }


def roc_curve(in_scores: Array, out_scores: Array, rates: Array) -> Floats:
    """The receiver operating characteristic: the recall [R] of OOD images at false-positive rates of at most [R]."""
    false, true = _counts(in_scores, out_scores)
    wanted = check_numbers(rates, "rates", unit="false-positive rates as fractions")
    recall: Floats = true[np.searchsorted(false / false[-1], wanted + 1e-12, side="right") - 1] / true[-1]
    return recall
