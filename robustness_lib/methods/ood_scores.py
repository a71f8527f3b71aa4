"""OOD scores: how much an image looks as if it were not from the training distribution (P1 §4.1).

Scores are functions of a network's logits and penultimate features; larger means more out-of-distribution (OOD).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp, softmax
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.errors import UserError
from robustness_lib.methods.checks import Floats, as_array, check_logits, check_numbers
from robustness_lib.models.architectures import features, head
from robustness_lib.training.data_loader import normalise, to_unit_range
from robustness_lib.training.device import Runtime, full_float32

Array = npt.ArrayLike


@dataclass(frozen=True)
class Outputs:
    """Logits, float32 [N, K], and features, the input of the last layer, float32 [N, D]."""

    logits: Tensor
    features: Tensor


@torch.no_grad()
@full_float32()
def outputs(
    network: nn.Module, images: Tensor, normalisation: str, runtime: Runtime, *, batch_size: int = 500
) -> Outputs:
    """Features and logits of images in one pass, in evaluation mode and float32, on the CPU.

    ``images`` are uint8 [N, 3, S, S], or float in [-1, 1] as noise images are.
    """
    if images.dtype != torch.uint8 and not (images.is_floating_point() and (images.abs() <= 1).all()):
        raise UserError(f"the images are {images.dtype}; give uint8, or floating point in [-1, 1]")
    last = head(network.to(runtime.device).eval())
    logits, penultimate = [], []
    for part in torch.split(images, batch_size):
        batch = part.to(runtime.device)
        unit = to_unit_range(batch) if batch.dtype == torch.uint8 else (batch + 1) / 2
        unit = unit.contiguous(memory_format=torch.channels_last)
        batch_features = features(network, normalise(unit, normalisation))
        logits.append(last(batch_features).float().cpu())
        penultimate.append(batch_features.float().cpu())
    return Outputs(check_logits(torch.cat(logits)), torch.cat(penultimate))


def softmax_score(logits: Array | Tensor) -> Floats:
    """Maximum softmax probability of logits [N, K], negated, in [-1, -1/K] (Hendrycks and Gimpel 2017; P1 §4.1).

    In float64: in float32 the confidence of a sure network is exactly 1 for many images, and ties lose their order.
    """
    return np.asarray(-softmax(check_numbers(logits, "logits", "[N, K]"), axis=1).max(1))


def max_logit_score(logits: Array | Tensor) -> Floats:
    """Maximum of logits [N, K], negated (Hendrycks et al. 2022)."""
    return np.asarray(-check_numbers(logits, "logits", "[N, K]").max(1))


def energy_score(logits: Array | Tensor) -> Floats:
    """Free energy of logits [N, K] at temperature 1, -log sum_k exp(logit_k) (Liu et al. 2020)."""
    return np.asarray(-logsumexp(check_numbers(logits, "logits", "[N, K]"), axis=1))


def _check_features(images: Tensor, reference: Tensor) -> None:
    check_numbers(reference, "the reference features", "[M, D]")
    check_numbers(images, "the features", f"[N, {reference.shape[1]}]")


def knn_score(images: Tensor, reference: Tensor, neighbours: int) -> Floats:
    """Distance, in [0, 2], to the k-th nearest reference feature, all scaled to length 1 (Sun et al. 2022).

    From features [N, D] and those of in-distribution (ID) images, ``reference`` [M, D].
    """
    _check_features(images, reference)
    if not 1 <= neighbours <= len(reference):
        there = f"there are {len(reference)} reference images"
        raise UserError(f"neighbours is {neighbours} but {there}; give 1 to {len(reference)}")
    bank = F.normalize(reference.float(), dim=1).T
    parts = (F.normalize(part.float(), dim=1) for part in torch.split(images, 1000))
    cosines = [(part @ bank).topk(neighbours, dim=1).values[:, -1] for part in parts]
    return np.asarray((2 - 2 * torch.cat(cosines).double()).clamp(min=0).sqrt())


def mahalanobis_score(images: Tensor, reference: Tensor, labels: Tensor) -> Floats:
    """Squared Mahalanobis distance to the nearest class mean under one shared covariance (Lee et al. 2018).

    Without that paper's input perturbation and ensemble over layers, which need OOD images to be tuned on; means and
    covariance are of the ``reference`` features [M, D] with ``labels`` int64 [M]. Directions without variance are left
    out.
    """
    _check_features(images, reference)
    as_array(labels, "labels", (len(reference),))
    fitted = reference.double()
    classes, index = torch.unique(labels, return_inverse=True)
    sums = torch.zeros(len(classes), fitted.shape[1], dtype=torch.float64).index_add_(0, index, fitted)
    means = sums / torch.bincount(index)[:, None]
    centred = fitted - means[index]
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(fitted))
    kept = values > values.max() * 1e-10
    whiten = vectors[:, kept] / values[kept].sqrt()
    distances = torch.cdist(images.double() @ whiten, means @ whiten, compute_mode="use_mm_for_euclid_dist")
    return np.asarray(distances.min(1).values.square())


@dataclass(frozen=True)
class FeatureBank:
    """Features [M, D] and labels [M] of ID images to compare with, and which neighbour's distance counts."""

    features: Tensor
    labels: Tensor
    neighbours: int


SCORES: dict[str, Callable[[Outputs, FeatureBank], Floats]] = {
    "standard": lambda images, bank: softmax_score(images.logits),
    "max-logit": lambda images, bank: max_logit_score(images.logits),
    "energy": lambda images, bank: energy_score(images.logits),
    "nearest-neighbours": lambda images, bank: knn_score(images.features, bank.features, bank.neighbours),
    "mahalanobis": lambda images, bank: mahalanobis_score(images.features, bank.features, bank.labels),
}
"""Scores [N] of N images, larger where more OOD, by the name of the method; ``standard`` is the papers' score."""
