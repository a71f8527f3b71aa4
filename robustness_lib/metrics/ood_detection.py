"""How well scores separate OOD images from in-distribution (ID) ones (P1 §4.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustness_lib.errors import UserError
from robustness_lib.methods.checks import Floats, as_array, check_numbers

Array = npt.ArrayLike

RECALL = 0.95
"""The share of foreign images that is found at the threshold of ``fpr95``."""

# --------------------------------------------------------------------------------------------- measures


def _vector(scores: Array, which: str) -> Floats:
    values = as_array(scores, f"the scores of the {which} images").astype(np.float64)
    if values.ndim != 1 or not len(values):
        raise UserError(f"the scores of the {which} images have shape {values.shape}; give a vector, at least one")
    if np.isnan(values).any():
        count = int(np.isnan(values).sum())
        raise UserError(
            f"{count} of the {len(values)} scores of the {which} images are not a number; "
            "the network diverged, or the file is damaged"
        )
    return values


def _counts(in_scores: Array, out_scores: Array) -> tuple[Floats, Floats]:
    """Known and foreign images at or above each distinct score, from the highest score down; both begin with 0."""
    known, foreign = _vector(in_scores, "known"), _vector(out_scores, "foreign")
    scores = np.concatenate([known, foreign])
    order = np.argsort(-scores, kind="stable")
    ranked, is_foreign = scores[order], order >= len(known)
    last_of_its_value = np.append(ranked[1:] != ranked[:-1], True)
    found = np.cumsum(is_foreign)[last_of_its_value].astype(np.float64)
    flagged = np.flatnonzero(last_of_its_value) + 1.0
    return np.append(0.0, flagged - found), np.append(0.0, found)


def detection_metrics(in_scores: Array, out_scores: Array, *, out_per_in: float | None = None) -> dict[str, float]:
    """How well scores tell foreign images from known ones (P1 §4.1, Tables 4 and 6).

    Args:
        in_scores: [N], scores of images of the known set; larger is more foreign; infinite values are ranked.
        out_scores: [M], scores of foreign images.
        out_per_in: How many foreign images there are for each known one, where that is not M / N: every foreign image
            then counts as ``out_per_in`` N / M images. Only ``aupr`` depends on it (P1: 1/5).

    Returns:
        Fractions in [0, 1]:

        * ``auroc``: the probability that a foreign image has the larger score, ties counting half; 1/2 by chance.
        * ``aupr``: average precision, the sum over distinct scores of the gain in recall times the precision there,
          without interpolation; by chance the share of foreign images.
        * ``fpr95``: the share of known images at or above the threshold whose recall of foreign images is *closest* to
          95 %, as in P1's code: thresholds are the distinct scores down to the first that finds all; of those that are
          equally close (in floating-point numbers, so that 0.9 is closer than 1) it is the lowest. Other libraries take
          the highest threshold that reaches 95 %.

    Raises:
        UserError: A side is empty or holds NaN, or the ratio is not positive.
    """
    if out_per_in is not None and not (np.isfinite(out_per_in) and out_per_in > 0):
        raise UserError(f"out_per_in is {out_per_in} but must be a finite number above 0; the paper takes 1/5")
    flagged, found = _counts(in_scores, out_scores)
    false_rate, recall = flagged / flagged[-1], found / found[-1]
    ratio = found[-1] / flagged[-1] if out_per_in is None else out_per_in
    precision = recall[1:] * ratio / (recall[1:] * ratio + false_rate[1:])
    all_found = int(np.argmax(recall == 1))
    closest = all_found - int(np.argmin(np.abs(recall[all_found:0:-1] - RECALL)))
    return {
        "auroc": float((np.diff(false_rate) * (recall[1:] + recall[:-1])).sum() / 2),
        "aupr": float((np.diff(recall) * precision).sum()),
        "fpr95": float(false_rate[closest]),
    }


def roc_curve(in_scores: Array, out_scores: Array, rates: Array) -> Floats:
    """The receiver operating characteristic at given places.

    Args:
        in_scores: [N], scores of images of the known set.
        out_scores: [M], scores of foreign images.
        rates: [R], false-positive rates in [0, 1].

    Returns:
        [R]: the largest share of foreign images that any threshold finds while flagging at most that share of the
        known images.

    Raises:
        UserError: A side is empty or holds NaN, or a rate lies outside [0, 1].
    """
    flagged, found = _counts(in_scores, out_scores)
    wanted = check_numbers(rates, "rates", unit="false-positive rates as fractions")
    place = np.searchsorted(flagged / flagged[-1], wanted + 1e-12, side="right") - 1
    shares: Floats = found[place] / found[-1]
    return shares
