"""Telling foreign images from known ones: scores of single images, and how well scores separate (P1 §4.1).

A score is the larger, the more foreign an image seems; foreign images are the positive class of every measure. All
scores are functions of what a network says about an image (:class:`Outputs`), so one pass serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.batches import normalise, to_unit_range
from robustness_lib.checks import Floats, as_array, check_logits, check_numbers, check_whole
from robustness_lib.errors import UserError, choose
from robustness_lib.models import features, head
from robustness_lib.runtime import Runtime, full_float32

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


# --------------------------------------------------------------------------------------------- what networks say


@dataclass(frozen=True)
class Outputs:
    """What a network says about N images.

    Attributes:
        logits: float32 [N, K].
        features: float32 [N, D], what its last layer sees.
    """

    logits: Tensor
    features: Tensor


@torch.no_grad()
@full_float32()
def outputs(
    network: nn.Module, images: Tensor, normalisation: str, runtime: Runtime, *, batch_size: int = 500
) -> Outputs:
    """Features and logits of images in one pass, in evaluation mode and float32.

    Args:
        network: Any network of :func:`robustness_lib.models.build`; its training mode is restored afterwards.
        images: uint8 [N, 3, S, S]; or float in [-1, 1], the range of the network's input where ``normalisation`` is
            ``"half"``, in which synthetic images are made (:mod:`robustness_lib.foreign`).
        normalisation: A key of :data:`robustness_lib.recipes.NORMALISATIONS`.
        runtime: Where to run.
        batch_size: Images at a time; it does not change the result beyond rounding.

    Returns:
        The outputs, on the CPU.

    Raises:
        UserError: The images are of another kind, or the network's answers are not finite.
    """
    if images.dtype != torch.uint8 and not (images.is_floating_point() and (images.abs() <= 1).all()):
        raise UserError(f"the images are {images.dtype}; give uint8, or floating point in [-1, 1]")
    was_training, last = network.training, head(network)
    network.to(runtime.device).eval()
    logits, seen = [], []
    try:
        for part in torch.split(images, batch_size):
            batch = part.to(runtime.device)
            unit = to_unit_range(batch) if batch.dtype == torch.uint8 else (batch + 1) / 2
            unit = unit.contiguous(memory_format=torch.channels_last)
            penultimate = features(network, normalise(unit, normalisation))
            logits.append(last(penultimate).float().cpu())
            seen.append(penultimate.float().cpu())
    finally:
        network.train(was_training)
    return Outputs(check_logits(torch.cat(logits)), torch.cat(seen))


# --------------------------------------------------------------------------------------------- scores


def softmax_score(logits: Array | Tensor) -> Floats:
    """Maximum softmax probability, negated: the score of the papers (Hendrycks and Gimpel 2017; P1 §4.1).

    In float64: in float32 the confidence of a sure network is exactly 1 for many images, and ties lose their order.

    Args:
        logits: [N, K].

    Returns:
        [N], in [-1, -1/K].
    """
    from scipy.special import softmax

    return np.asarray(-softmax(check_numbers(logits, "logits", "[N, K]"), axis=1).max(1))


def max_logit_score(logits: Array | Tensor) -> Floats:
    """Largest logit, negated (Hendrycks et al. 2022).

    Args:
        logits: [N, K].

    Returns:
        [N].
    """
    return np.asarray(-check_numbers(logits, "logits", "[N, K]").max(1))


def energy_score(logits: Array | Tensor) -> Floats:
    """Free energy at temperature 1, -log sum_k exp(logit_k) (Liu et al. 2020).

    Args:
        logits: [N, K].

    Returns:
        [N].
    """
    from scipy.special import logsumexp

    return np.asarray(-logsumexp(check_numbers(logits, "logits", "[N, K]"), axis=1))


def _check_features(seen: Tensor, reference: Tensor) -> None:
    if seen.dim() != 2 or reference.dim() != 2 or seen.shape[1] != reference.shape[1] or not len(reference):
        raise UserError(
            f"the features have shapes {tuple(seen.shape)} and {tuple(reference.shape)}; give [N, D] and [M, D], M at "
            "least 1"
        )
    if not (seen.isfinite().all() and reference.isfinite().all()):
        raise UserError("a feature is not a finite number; the network diverged, or the file is damaged")


def neighbour_score(seen: Tensor, reference: Tensor, neighbours: int) -> Floats:
    """Distance to the k-th nearest of the reference features, all scaled to length 1 (Sun et al. 2022).

    Args:
        seen: [N, D], features of the images.
        reference: [M, D], features of images of the known set, such as the training images.
        neighbours: k, 1 ... M.

    Returns:
        [N], in [0, 2].

    Raises:
        UserError: There are fewer than k reference images, or the features do not fit together or are not finite.
    """
    _check_features(seen, reference)
    check_whole(neighbours, "neighbours", 1, "5 are usual here")
    if neighbours > len(reference):
        raise UserError(
            f"neighbours is {neighbours} but there are {len(reference)} reference images; give 1 to {len(reference)}"
        )
    bank = F.normalize(reference.float(), dim=1).T
    cosines = [
        (F.normalize(part.float(), dim=1) @ bank).topk(neighbours, dim=1).values[:, -1]
        for part in torch.split(seen, 1000)
    ]
    return np.asarray((2 - 2 * torch.cat(cosines).double()).clamp(min=0).sqrt())


def mahalanobis_score(seen: Tensor, reference: Tensor, labels: Tensor) -> Floats:
    """Squared Mahalanobis distance to the nearest class mean under one shared covariance (Lee et al. 2018).

    Of the penultimate features alone, without the input perturbation and the ensemble over layers of that paper, which
    need foreign images to be tuned on. Directions without variance are left out.

    Args:
        seen: [N, D], features of the images.
        reference: [M, D], features of images of the known set, from which means and covariance are estimated.
        labels: int64 [M], their classes.

    Returns:
        [N], at least 0.

    Raises:
        UserError: The features and labels do not fit together, or a feature is not finite.
    """
    _check_features(seen, reference)
    if labels.shape != reference.shape[:1]:
        raise UserError(f"labels have shape {tuple(labels.shape)}; give [{len(reference)}], one a reference image")
    known = reference.double()
    classes, index = torch.unique(labels, return_inverse=True)
    sums = torch.zeros(len(classes), known.shape[1], dtype=torch.float64).index_add_(0, index, known)
    means = sums / torch.bincount(index)[:, None]
    centred = known - means[index]
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(known))
    kept = values > values.max() * 1e-10
    whiten = vectors[:, kept] / values[kept].sqrt()
    distances = torch.cdist(seen.double() @ whiten, means @ whiten, compute_mode="use_mm_for_euclid_dist")
    return np.asarray(distances.min(1).values.square())


@dataclass(frozen=True)
class Reference:
    """What a network says about images of the known set, for the scores that compare with them.

    Attributes:
        features: float32 [M, D].
        labels: int64 [M].
        neighbours: Which neighbour's distance counts, k.
    """

    features: Tensor
    labels: Tensor
    neighbours: int


SCORES: dict[str, Callable[[Outputs, Reference], Floats]] = {
    "standard": lambda seen, known: softmax_score(seen.logits),
    "max-logit": lambda seen, known: max_logit_score(seen.logits),
    "energy": lambda seen, known: energy_score(seen.logits),
    "nearest-neighbours": lambda seen, known: neighbour_score(seen.features, known.features, known.neighbours),
    "mahalanobis": lambda seen, known: mahalanobis_score(seen.features, known.features, known.labels),
}
"""By the name of the method; ``standard`` is the papers' score."""


def score(method: str, seen: Outputs, known: Reference) -> Floats:
    """One score of each image.

    Args:
        method: A key of :data:`SCORES`.
        seen: The N images.
        known: Images of the known set.

    Returns:
        [N]; larger is more foreign.

    Raises:
        UserError: There is no such score.
    """
    return SCORES[choose(method, SCORES, "score")](seen, known)
