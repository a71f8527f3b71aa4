"""Label noise, made reproducibly: corruption matrices and the labels sampled from them (P1 §3.2).

A corruption matrix C holds in row i and column j the probability that an image of class i gets the label j; its rows
sum to 1. Labels are sampled with NumPy's legacy generator, whose numbers never change between versions, so that one
seed gives the labels of P1's code bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import Floats, Labels, as_array, check_labels

KINDS = ("uniform", "flip")
"""The kinds of noise that a matrix is made for."""


def corruption_matrix(num_classes: int, strength: float, kind: str = "uniform", *, seed: int = 1) -> Floats:
    """The matrix, float64 [K, K], of one kind of noise; row i is the distribution of the labels of class i.

    * ``uniform``: (1 - s) I + (s / K) 11ᵀ, as P1 has it (§3.2): the new label may be any of the K classes, the true one
      among them, so the share of wrong labels is s (K - 1) / K.
    * ``flip``: 1 - s for the true class and s for one other, which is sampled for each class in turn.

    P1 reports uniform noise alone; its code also has ``flip``, whose targets it samples with seed 1, and noise within
    CIFAR-100's coarse classes, which is not here.

    Args:
        num_classes: K, at least 2.
        strength: s in [0, 1].
        kind: One of :data:`KINDS`.
        seed: Of the targets of ``flip``.
    """
    choose(kind, KINDS, "kind of noise")
    if num_classes < 2:
        raise UserError(f"labels can be corrupted among at least 2 classes, not {num_classes}")
    if not 0 <= strength <= 1:
        raise UserError(f"the corruption strength is {strength} but must lie in [0, 1]; 0 leaves labels as they are")
    if kind == "uniform":
        wrong = np.full((num_classes, num_classes), 1 / num_classes)
    else:
        random = _legacy_generator(seed)
        others = [[j for j in range(num_classes) if j != i] for i in range(num_classes)]
        wrong = np.eye(num_classes)[[random.choice(choices) for choices in others]]
    return (1 - strength) * np.eye(num_classes) + strength * wrong


def check_matrix(matrix: npt.ArrayLike) -> Floats:
    """A corruption matrix as float64 [K, K], if it is one; rows may sum to 1 within 1e-4, as float32 makes them."""
    array = as_array(matrix, "the corruption matrix").astype(np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise UserError(f"a corruption matrix is square, one row and one column a class, not of shape {array.shape}")
    if not ((array >= 0) & (array <= 1 + 1e-9)).all():
        raise UserError("a corruption matrix holds probabilities: every entry must lie in [0, 1]")
    sums = array.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-4):
        row = int(np.abs(sums - 1).argmax())
        raise UserError(
            f"row {row} of the corruption matrix sums to {sums[row]:.4g} instead of 1; row i must be the distribution "
            "of the labels of class i (transpose a matrix whose columns sum to 1)"
        )
    return array


def corrupt_labels(labels: npt.ArrayLike, matrix: npt.ArrayLike, seed: int) -> Labels:
    """Sample a new label for each example from the row of its class: the labels of P1's code, bit for bit.

    Args:
        labels: Integers [N] in 0..K-1, the true classes, in file order.
        matrix: [K, K], as by :func:`corruption_matrix`.
        seed: Of the generator (P1: 1).

    Returns:
        int64 [N], the labels after corruption.
    """
    rows = check_matrix(matrix)
    classes = check_labels(labels, len(rows))
    boundaries = np.cumsum(rows, axis=1)
    boundaries /= boundaries[:, -1:]
    uniform = _legacy_generator(seed).random_sample(len(classes))
    noisy = np.empty(len(classes), dtype=np.int64)
    for k, upper in enumerate(boundaries):
        of_class = classes == k
        noisy[of_class] = np.searchsorted(upper, uniform[of_class], side="right")
    return noisy


def observed_matrix(labels: npt.ArrayLike, noisy: npt.ArrayLike, num_classes: int) -> Floats:
    """The corruption matrix, float64 [K, K], of true and noisy labels, integers [N] in 0..K-1.

    The row of a class without an example is that of the identity.
    """
    true = check_labels(labels, num_classes, "true labels")
    given = check_labels(noisy, num_classes, "given labels", len(true))
    counts = np.bincount(true * num_classes + given, minlength=num_classes**2).reshape(num_classes, num_classes)
    counts = np.where(counts.sum(axis=1, keepdims=True) == 0, np.eye(num_classes), counts)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _legacy_generator(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed of the noise is {seed} but must be at least 0 and below 2**32; choose another seed")
    return np.random.RandomState(seed)
