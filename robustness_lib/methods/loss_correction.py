"""Learning from wrong labels: Forward correction and Gold Loss Correction (P1 §3.2).

Both estimate the corruption matrix from a network that was trained on the noisy labels, and train a second network
through that estimate: Forward correction (Patrini et al. 2017) from nothing else, Gold Loss Correction (GLC, Hendrycks
et al. 2018) with a few images whose labels can be trusted.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import Floats, check_distributions, check_labels
from robustness_lib.methods.interfaces import Forward, Loss, copies_by_device
from robustness_lib.methods.label_noise import check_matrix
from robustness_lib.randomness import generator

TRUSTED = ("first", "balanced", "random")


def estimate_forward_matrix(probabilities: npt.ArrayLike, percentile: float | None = None) -> Floats:
    """The corruption matrix, float64 [K, K], as a network sees it (P1 §3.2, Patrini et al. 2017).

    Row k is the prediction, of ``probabilities`` [N, K] for the noisy training images, with the largest probability of
    class k; outliers from this ``percentile`` on, in [0, 100), are left out. P1's code takes 97 on CIFAR-10, and none
    on CIFAR-100 (and sets what it leaves out to 0 in place, which later classes may see).
    """
    table = check_distributions(probabilities, "predictions", "[N, K]")
    kept = np.ones_like(table, dtype=bool)
    if percentile is not None:
        if not 0 <= percentile < 100:
            raise UserError(f"the percentile is {percentile} but must be at least 0 and below 100; P1 takes 97")
        kept = table < np.percentile(table, percentile, axis=0, method="higher")
    if not kept.any(axis=0).all():
        what = f"no image has a probability below its {percentile}th percentile"
        raise UserError(f"{what}: predictions are too few or alike; leave the filter out (filter_outliers=false)")
    return np.asarray(table[np.where(kept, table, -1.0).argmax(axis=0)])


def estimate_glc_matrix(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """The corruption matrix, float64 [K, K]: row k is the mean prediction for trusted images of class k (P1 §3.2)."""
    table = check_distributions(probabilities, "predictions", "[M, K]")
    classes = check_labels(labels, table.shape[1], count=len(table))
    present = np.isin(np.arange(table.shape[1]), classes)
    if not present.all():
        raise UserError(f"class {int(np.flatnonzero(~present)[0])} has no trusted image; trust more images")
    return np.stack([table[classes == k].mean(axis=0) for k in range(table.shape[1])])


def matrix_error(estimated: npt.ArrayLike, true: npt.ArrayLike) -> float:
    """How far an estimate is from the true matrix: the mean total variation distance of their rows, in [0, 1]."""
    truth = check_matrix(true)
    estimate = check_distributions(estimated, "the estimated matrix", truth.shape)
    return float(np.abs(estimate - truth).sum(axis=1).mean() / 2)


def trusted_split(labels: Tensor, share: float, how: str, seed: int) -> Tensor:
    """Which training images, of true classes int64 [N], are trusted: bool [N].

    ``how``: the ``first`` in file order (P1's code, which would shuffle them if they lacked a class), the first of each
    class in equal numbers (``balanced``), or a ``random`` sample.
    """
    choose(how, TRUSTED, "way to choose trusted images")
    if not 0 < share < 1 or not len(labels):
        raise UserError(f"the trusted share is {share} of {len(labels)} images; give between 0 and 1 (P1: 0.05, 0.1)")
    classes, count = torch.unique(labels), int(share * len(labels))
    if how == "balanced":
        chosen = torch.cat([torch.nonzero(labels == k).flatten()[: count // len(classes)] for k in classes])
    elif how == "random":
        chosen = torch.randperm(len(labels), generator=generator(seed, "trusted"))[:count]
    else:
        chosen = torch.arange(count)
    lacking = classes[~torch.isin(classes, labels[chosen])]
    if len(lacking):
        raise UserError(
            f"{len(chosen)} trusted images ({share:g} of {len(labels)}, {how}) hold none of class {int(lacking[0])}; "
            f"trust at least {len(classes) / len(labels):.2g} of the images and choose them with trusted=balanced"
        )
    return torch.zeros(len(labels), dtype=torch.bool).index_fill(0, chosen, True)


def forward_loss(
    logits: Tensor, labels: Tensor, matrix: Tensor, *, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor:
    """Cross-entropy, in nats, through a corruption matrix: -log Σ_k p(k | x) C[k, ỹ] (P1 §3.2, Patrini et al. 2017).

    From logits [B, K], noisy labels ỹ (integers [B]) and C [K, K], a row per true class; float32, or float64 as given.
    """
    shapes = [list(tensor.shape) for tensor in (logits, labels, matrix)]
    if logits.dim() != 2 or shapes[1:] != [shapes[0][:1], shapes[0][1:] * 2] or labels.is_floating_point():
        what = f"logits, labels ({labels.dtype}) and corruption matrix have the shapes {shapes}"
        raise UserError(f"{what}; give [B, K], whole numbers [B], and [K, K]")
    if labels.device.type == "cpu":  # on a GPU it would halt the host, and the next lines fail outside the range
        check_labels(labels, logits.shape[1])
    precision = torch.float64 if logits.dtype == torch.float64 else torch.float32
    to_label = matrix.to(logits.device, precision).log().T.index_select(0, labels.long())
    each = -torch.logsumexp(F.log_softmax(logits, dim=1, dtype=precision) + to_label, dim=1)
    return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()


def forward_training_loss(matrix: npt.ArrayLike) -> Loss:
    """Forward correction by a matrix [K, K]."""
    matrix_on = copies_by_device(torch.from_numpy(check_matrix(matrix)).float())

    def loss(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        return forward_loss(network(images), labels, matrix_on(images.device))

    return loss


class GoldLoss:
    """GLC's second stage, a loss: trusted images' labels count as they are, the others' go through the matrix [K, K].

    Args:
        trusted: bool [N], by position in the training set.
        batch_size: By which the sum of losses is divided also in the smaller last batch of an epoch (P1's code); None
            divides by the actual number.
        separate_passes: Whether the two parts of a batch go through the network one after the other (P1's code), so
            that batch normalisation has statistics of each.
    """

    def __init__(
        self, matrix: npt.ArrayLike, trusted: Tensor, *, batch_size: int | None, separate_passes: bool = True
    ) -> None:
        self.matrix = copies_by_device(torch.from_numpy(check_matrix(matrix)).float())
        if trusted.dtype != torch.bool:
            raise UserError(f"trusted is {trusted.dtype}; give bool, one value per training image")
        self.trusted = copies_by_device(trusted)
        self.batch_size, self.separate_passes = batch_size, separate_passes
        self.static_shapes = not separate_passes  # else the two parts of a batch vary in size

    def __call__(self, network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """The loss of a batch, in nats."""
        gold, matrix = self.trusted(images.device)[indices], self.matrix(images.device)
        if self.separate_passes:
            total = torch.zeros((), device=images.device)
            if not gold.all():
                total = total + forward_loss(network(images[~gold]), labels[~gold], matrix, reduction="sum")
            if gold.any():
                total = total + F.cross_entropy(network(images[gold]).float(), labels[gold], reduction="sum")
        else:
            logits = network(images).float()
            plain = F.cross_entropy(logits, labels, reduction="none")
            total = torch.where(gold, plain, forward_loss(logits, labels, matrix, reduction="none")).sum()
        return total / (self.batch_size or len(images))
