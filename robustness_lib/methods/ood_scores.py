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

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import Floats, check_logits, check_numbers, check_whole
from robustness_lib.models.architectures import features, head
from robustness_lib.training.data_loader import normalise, to_unit_range
from robustness_lib.training.device import Runtime, full_float32

Array = npt.ArrayLike

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
        network: Any network of :func:`robustness_lib.models.architectures.build`; its training mode is restored
            afterwards.
        images: uint8 [N, 3, S, S]; or float in [-1, 1], the range of the network's input where ``normalisation`` is
            ``"half"``, in which synthetic images are made (:mod:`robustness_lib.methods.ood_images`).
        normalisation: A key of :data:`robustness_lib.training.config.NORMALISATIONS`.
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


def knn_score(seen: Tensor, reference: Tensor, neighbours: int) -> Floats:
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
class FeatureBank:
    """What a network says about images of the known set, for the scores that compare with them.

    Attributes:
        features: float32 [M, D].
        labels: int64 [M].
        neighbours: Which neighbour's distance counts, k.
    """

    features: Tensor
    labels: Tensor
    neighbours: int


SCORES: dict[str, Callable[[Outputs, FeatureBank], Floats]] = {
    "standard": lambda seen, known: softmax_score(seen.logits),
    "max-logit": lambda seen, known: max_logit_score(seen.logits),
    "energy": lambda seen, known: energy_score(seen.logits),
    "nearest-neighbours": lambda seen, known: knn_score(seen.features, known.features, known.neighbours),
    "mahalanobis": lambda seen, known: mahalanobis_score(seen.features, known.features, known.labels),
}
"""By the name of the method; ``standard`` is the papers' score."""


def score(method: str, seen: Outputs, known: FeatureBank) -> Floats:
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
