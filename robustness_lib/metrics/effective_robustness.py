"""Accuracy on shifted data as a line of accuracy on the original data, and what networks have beyond it (P2 §3, B.5).

Over a testbed of ordinary networks the two accuracies follow a line on a suitable scale; what a network has beyond it
is its effective robustness. "ID" is the original distribution, "OOD" the shifted one; all numbers are fractions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtr, ndtri

from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import Bools, Floats, Shape, check_correctness, check_numbers, check_whole

Array = npt.ArrayLike

SCALINGS: dict[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "linear": (np.positive, np.positive),
    "probit": (ndtri, ndtr),
    "logit": (logit, expit),
}
"""Scales of accuracies and their inverses (P2 Table 2)."""

_SAME = 1e-9  # accuracies that are nearer to each other differ by rounding alone

BINS = 100  # of ID accuracy that P2 averages in, from 0 to 1 (P2 B.5; the range is our choice, it states none)


def _accuracies(values: Array, what: str, shape: Shape = "") -> Floats:
    return check_numbers(values, what, shape, unit="fractions, such as 0.931 for 93.1 %")


def _pairs(id_accuracy: Array, ood_accuracy: Array) -> tuple[Floats, Floats]:
    inside = _accuracies(id_accuracy, "id_accuracy")
    return inside, _accuracies(ood_accuracy, "ood_accuracy", inside.shape)


def to_scale(accuracy: Array, scaling: str) -> Floats:
    """Accuracies on one of :data:`SCALINGS`; infinite for 0 and 1 on the probit and logit scales."""
    return SCALINGS[choose(scaling, SCALINGS, "scaling")][0](_accuracies(accuracy, "accuracy"))


@dataclass(frozen=True)
class LinearFit:
    """A baseline: OOD accuracy as a line of ID accuracy, both on a scale (P2 §3, Table 3)."""

    slope: float
    intercept: float
    scaling: str = "logit"
    r_squared: float | None = None  # None where there is no variance to explain, or it is not known
    models: int | None = None
    left_out: int = 0  # models with an accuracy of 0 or 1, for which the scale has no place
    slope_error: float | None = None
    intercept_error: float | None = None

    def __post_init__(self) -> None:
        choose(self.scaling, SCALINGS, "scaling")

    def predict(self, id_accuracy: Array) -> Floats:
        """The OOD accuracy of an ordinary model of this ID accuracy, beta(x) = logit⁻¹(slope logit(x) + intercept)."""
        return SCALINGS[self.scaling][1](self.slope * to_scale(id_accuracy, self.scaling) + self.intercept)


PRINTED_LINES: dict[str, LinearFit] = {
    "cifar10": LinearFit(0.8318, -0.4736, "logit", r_squared=0.998),
    "imagenet": LinearFit(0.9225, -0.4896, "logit", r_squared=0.996),
}
"""The lines that P2 prints (Tables 2 and 3), from CIFAR-10 to CIFAR-10.1, and from ImageNet to ImageNetV2."""


def fit_line(id_accuracy: Array, ood_accuracy: Array, scaling: str = "logit") -> LinearFit:
    """Fit a baseline to a testbed by ordinary least squares on a scale (P2 §3, Tables 2 and 3).

    Models with an accuracy of exactly 0 or 1 lie at infinity on the probit and logit scales: they are left out and
    counted in ``left_out``. Of the others there must be three that differ.
    """
    from scipy.stats import linregress

    inside, outside = _pairs(id_accuracy, ood_accuracy)
    x, y = to_scale(inside, scaling).ravel(), to_scale(outside, scaling).ravel()
    kept = np.isfinite(x) & np.isfinite(y)
    left_out = int((~kept).sum())
    if kept.sum() < 3:
        raise UserError(
            f"a line was asked for through {kept.sum()} models (and {left_out} with an accuracy of 0 or 1); give at "
            "least three"
        )
    x, y = x[kept], y[kept]
    if np.ptp(x) <= _SAME:
        raise UserError("all models have the same ID accuracy, so no line can be fitted; give models that differ")
    if np.ptp(y) <= _SAME:
        return LinearFit(0.0, float(y.mean()), scaling, None, len(x), left_out, 0.0, 0.0)
    fit = linregress(x, y)
    errors = float(fit.stderr), float(fit.intercept_stderr)
    return LinearFit(float(fit.slope), float(fit.intercept), scaling, float(fit.rvalue) ** 2, len(x), left_out, *errors)


def effective_robustness(id_accuracy: Array, ood_accuracy: Array, line: LinearFit) -> Floats:
    """What models have beyond the baseline at their ID accuracy, ``ood - line.predict(id)`` (P2 §3)."""
    inside, outside = _pairs(id_accuracy, ood_accuracy)
    return outside - line.predict(inside)


def standard_error(
    id_accuracy: Array, ood_accuracy: Array, line: LinearFit, id_images: float, ood_images: float
) -> Floats:
    """Standard error of an effective robustness that comes from the numbers of test images (delta method).

    The error of the line, which is on the logit scale, is not in it; the ID accuracy is in (0, 1).
    """
    inside, outside = _pairs(id_accuracy, ood_accuracy)
    if line.scaling != "logit":
        raise UserError(f"the line is on the {line.scaling} scale; give one that was fitted on the logit scale")
    baseline = line.predict(inside)
    gradient = line.slope * baseline * (1 - baseline) / (inside * (1 - inside))
    variance = outside * (1 - outside) / ood_images + gradient**2 * inside * (1 - inside) / id_images
    return np.asarray(np.sqrt(variance), dtype=np.float64)


def equal_accuracy_curve(id_accuracy: Array, line: LinearFit) -> Floats:
    """The accuracy gap of an ordinary model, ``id - line.predict(id)``: the curve y = x of P2's figures."""
    inside = _accuracies(id_accuracy, "id_accuracy")
    return inside - line.predict(inside)


def accuracy_gap_share(id_accuracy: Array, ood_accuracy: Array, line: LinearFit) -> Floats:
    """Effective robustness as a share of an ordinary model's accuracy gap (P2 §4): 1 for no drop at all.

    NaN where the baseline lies on or above y = x (P2's for CIFAR-10 does so up to an accuracy of 0.056).
    """
    gap = equal_accuracy_curve(id_accuracy, line)
    return effective_robustness(id_accuracy, ood_accuracy, line) / np.where(gap > 0, gap, np.nan)


def mixed_classifier(low: tuple[float, float], high: tuple[float, float], share: Array) -> tuple[Floats, Floats]:
    """Accuracies of a classifier that asks one of two models at random for each image (P2 D.1).

    It lies above a baseline that bends downwards: effective robustness that says nothing about robustness. ``low`` and
    ``high`` are ID and OOD accuracy of the two models, and ``share`` is the probability that the first is asked.
    """
    first, second, chance = _accuracies(low, "low"), _accuracies(high, "high"), _accuracies(share, "share")
    return chance * first[0] + (1 - chance) * second[0], chance * first[1] + (1 - chance) * second[1]


@dataclass(frozen=True)
class BinnedAverage:
    """Averages of many points in bins [B] of ID accuracy, rising; empty bins are left out."""

    id_accuracy: Floats  # the middles of the bins
    mean: Floats
    spread: Floats  # standard deviation, over the number of points
    points: npt.NDArray[np.int64]


def binned_average(id_accuracy: Array, values: Array, bins: int = BINS) -> BinnedAverage:
    """Average points of all runs in ``bins`` bins [(k - 1)/bins, k/bins) of ID accuracy (P2 B.5); 1 is in the last."""
    inside = _accuracies(id_accuracy, "id_accuracy")
    points = check_numbers(values, "values", inside.shape).ravel()
    if not points.size:
        raise UserError("there are no points to average; give at least one point")
    check_whole(bins, "bins", 1, f"the paper uses {BINS}")
    number = np.searchsorted(np.arange(1, bins) / bins, inside.ravel(), side="right")
    filled, index, counts = np.unique(number, return_inverse=True, return_counts=True)
    spread = np.array([points[number == which].std() for which in filled])
    return BinnedAverage((filled + 0.5) / bins, np.bincount(index, points) / counts, spread, counts)


def dominance_matrix(correct: Array) -> Floats:
    """How often the less accurate of two models is right where the other is wrong (P2 C.10, Mania and Sra 2020).

    For all pairs of models, [M, M] in [0, 0.5], from where each is right, [M, N].
    """
    right = check_correctness(correct, "correct", "[M, N]").astype(np.float64)
    both, alone = right @ right.T, right.sum(1)
    least: Floats = np.minimum(alone[:, None], alone[None, :])
    return np.asarray((least - both) / right.shape[1])


def alone_of_three(correct: Array) -> Floats:
    """How often a given model is right where two others are both wrong, our reading of P2's Figure 20.

    For each model, in order, and each pair of the others, in the order of ``numpy.triu_indices``,
    [M (M - 1) (M - 2) / 2] in [0, 1], from where each of at least three models is right, [M, N]. P2 refers to Mania and
    Sra (2020) for the definition. Errors: those of :func:`dominance_matrix`.
    """
    right = check_correctness(correct, "correct", "[M, N]")
    shares = []
    for model, own in enumerate(right):
        wrong = np.delete(~right[:, own], model, axis=0).astype(np.float64)
        shares.append((wrong @ wrong.T)[np.triu_indices(len(wrong), 1)])
    return np.asarray(np.concatenate(shares) / right.shape[1])


def hard_examples(correct: Array) -> Bools:
    """The images, bool [N], that no model gets right, from where each is right [M, N] (P2 §5.4)."""
    return np.logical_not(check_correctness(correct, "correct", "[M, N]").any(0))


def hard_share_correct(correct: Array) -> Floats:
    """For each model of a testbed, the share it gets right of the images that all *other* models get wrong (P2 §5.4).

    [M] from where each model is right [M, N]; NaN where the others leave no image.
    """
    right = check_correctness(correct, "correct", "[M, N]")
    times = right.sum(0)
    alone = (right & (times == 1)).sum(1)
    hard = alone + (times == 0).sum()
    return np.asarray(alone / np.where(hard > 0, hard, np.nan))
