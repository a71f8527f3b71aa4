"""Label noise: corruption matrices and the labels sampled from them (P1 §3.2).

Row i, column j of a corruption matrix is the probability that an image of class i gets the label j. Labels are sampled
with NumPy's legacy generator, so that one seed gives the labels of P1's code bit for bit.
"""

import numpy as np
import numpy.typing as npt

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import Floats, Labels, check_distributions, check_labels

KINDS = ("uniform", "flip")
"""Kinds of noise (:func:`corruption_matrix`)."""


def corruption_matrix(num_classes: int, strength: float, kind: str = "uniform", *, seed: int = 1) -> Floats:
    """The matrix, float64 [K, K], of one kind of noise of strength s in [0, 1].

    * ``uniform``: (1 - s) I + (s / K) 11ᵀ (P1 §3.2), so that the share of wrong labels is s (K - 1) / K.
    * ``flip``: 1 - s for the true class and s for one other, sampled for each class in turn by ``seed`` (P1's code).
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
        others = ([j for j in range(num_classes) if j != i] for i in range(num_classes))
        wrong = np.eye(num_classes)[[random.choice(classes) for classes in others]]
    return (1 - strength) * np.eye(num_classes) + strength * wrong


def check_matrix(matrix: npt.ArrayLike) -> Floats:
    """A corruption matrix as float64 [K, K], if it is one."""
    return check_distributions(matrix, "the corruption matrix", "[K, K]")


def corrupt_labels(labels: npt.ArrayLike, matrix: npt.ArrayLike, seed: int) -> Labels:
    """Sample a label, int64 [N], for each of the true classes [N] from its row of the matrix [K, K] (P1: seed 1)."""
    rows = check_matrix(matrix)
    classes = check_labels(labels, len(rows))
    boundaries = np.cumsum(rows, axis=1)
    boundaries /= boundaries[:, -1:]
    uniform = _legacy_generator(seed).random_sample(len(classes))
    return np.asarray((boundaries[classes] <= uniform[:, None]).sum(1))


def observed_matrix(labels: npt.ArrayLike, noisy: npt.ArrayLike, num_classes: int) -> Floats:
    """The corruption matrix, float64 [K, K], of true and noisy labels [N]; identity for classes without an example."""
    true = check_labels(labels, num_classes, "true labels")
    given = check_labels(noisy, num_classes, "given labels", len(true))
    counts = np.bincount(true * num_classes + given, minlength=num_classes**2).reshape(num_classes, num_classes)
    counts = np.where(counts.sum(axis=1, keepdims=True) == 0, np.eye(num_classes), counts)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _legacy_generator(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed of the noise is {seed} but must be at least 0 and below 2**32; choose another seed")
    return np.random.RandomState(seed)
