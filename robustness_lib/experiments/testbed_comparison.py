"""What a network has beyond a testbed: effective robustness, dominance and hard examples (P2 §3, §5.4).

The models of the testbed and the network are given by their scores for the same test images
(:class:`robustness_lib.experiments.fine_tuning.Evaluations`), so everything here can be computed without training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from robustness_lib.errors import UserError
from robustness_lib.experiments.fine_tuning import Evaluations
from robustness_lib.experiments.shifted_test_sets import ORIGINAL, TargetTests, right_among, right_answers
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.effective_robustness import (
    BINS,
    PRINTED_LINES,
    SCALINGS,
    LinearFit,
    binned_average,
    dominance_matrix,
    effective_robustness,
    fit_line,
    hard_examples,
    hard_share_correct,
)

PRINTED_FOR = {"cifar10.1": "cifar10"}
"""Shifts whose baseline is the line that P2 prints, through more and stronger models than a testbed of one's own."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def testbed_metrics(evaluations: Evaluations, tests: TargetTests) -> Metrics:
    """Accuracies of one testbed model.

    Returns:
        ``accuracy`` among all classes; for each shift its ``accuracy_<shift>`` on the original and
        ``shifted_accuracy_<shift>`` on the shifted images of the shift's classes (fractions), and how many these are,
        ``images_<shift>`` and ``shifted_images_<shift>``.
    """
    last = {name: value[-1] for name, value in evaluations.scores.items()}
    found: Metrics = {"accuracy": float(_right(last[ORIGINAL], tests).mean())}
    for shift in tests.shifted:
        inside, outside = right_answers(last, tests, shift)
        found |= {f"accuracy_{shift}": float(inside.mean()), f"shifted_accuracy_{shift}": float(outside.mean())}
        found |= {f"images_{shift}": float(inside.size), f"shifted_images_{shift}": float(outside.size)}
    return found


def whole_testbed_metrics(testbed: Sequence[Evaluations], tests: TargetTests) -> Metrics:
    """Lines through the testbed, and how its models differ image by image.

    Returns:
        For each shift the lists ``accuracy_<shift>`` and ``shifted_accuracy_<shift>``, one value a model, their numbers
        of images ``images_<shift>`` and ``shifted_images_<shift>``, and by scale
        (:data:`robustness_lib.metrics.effective_robustness.SCALINGS`) the line through them, ``slope_<shift>_<scale>``,
        ``intercept_<shift>_<scale>`` and ``r_squared_<shift>_<scale>``. On the original images ``model_accuracy`` of
        each model, ``dominance`` of each pair (the upper triangle, row by row), and ``model_hard_share_correct``: the
        share that each gets right of those that all others get wrong. Fractions, but for the numbers of images.
    """
    found: Metrics = {}
    for shift in tests.shifted:
        pairs = [right_answers(model.scores, tests, shift) for model in testbed]
        inside, outside = (np.array([pair[side].mean() for pair in pairs]) for side in (0, 1))
        found |= {f"accuracy_{shift}": _rounded(inside), f"shifted_accuracy_{shift}": _rounded(outside)}
        found |= {f"images_{shift}": float(pairs[0][0].size), f"shifted_images_{shift}": float(pairs[0][1].size)}
        for scaling in SCALINGS:
            line = fit_line(inside, outside, scaling)
            found |= {f"slope_{shift}_{scaling}": line.slope, f"intercept_{shift}_{scaling}": line.intercept}
            found[f"r_squared_{shift}_{scaling}"] = line.r_squared or 0.0
    right = np.stack([_right(model.scores[ORIGINAL][-1], tests) for model in testbed])
    found |= {
        "model_accuracy": _rounded(right.mean(1)),
        "dominance": _rounded(dominance_matrix(right)[np.triu_indices(len(right), 1)]),
        "hard_images": float(hard_examples(right).sum()),
    }
    shares = hard_share_correct(right)
    if np.isfinite(shares).all():
        found["model_hard_share_correct"] = _rounded(shares)
    return found


def metrics_against(
    testbed: Sequence[Evaluations],
    evaluations: Evaluations,
    tests: TargetTests,
    classes: Sequence[int] | None = None,
    *,
    bins: int = BINS,
) -> Metrics:
    """What a network has beyond the testbed, observation by observation.

    Args:
        classes: The only target classes that the network knows; None for all. Shifts with fewer than two of them, and
            the accuracy among all classes, are then left out.

    Returns:
        ``history_epoch``; for each shift, at each of them, ``history_accuracy_<shift>`` on the original and
        ``history_shifted_accuracy_<shift>`` on the shifted images, and ``history_effective_robustness_<shift>``; the
        line, ``slope_<shift>``, ``intercept_<shift>``, ``r_squared_<shift>`` and the testbed's lowest and highest
        accuracy, ``lowest_<shift>`` and ``highest_<shift>``; ``maximum_effective_robustness_<shift>`` (the largest mean
        of a bin of accuracies, from the testbed's lowest on), the observation nearest to it, ``maximum_at_<shift>``
        (from 0), ``final_effective_robustness_<shift>`` and the difference, ``lost_effective_robustness_<shift>``;
        these three of the first shift again without its name. ``accuracy`` at the end, and ``history_accuracy``. On the
        original images, at the first shift's maximum and at the end: ``dominance_at_maximum`` and ``dominance_at_end``
        over each testbed model (:func:`robustness_lib.metrics.effective_robustness.dominance_matrix`), and of
        the ``hard_images`` that all testbed models get wrong the share that the network gets right,
        ``hard_share_correct`` and ``final_hard_share_correct``. Everything is a fraction.
    """
    found: Metrics = {"history_epoch": [round(float(epoch), 5) for epoch in evaluations.epochs]}
    first: dict[str, float] | None = None
    best = -1
    for shift in tests.shifted:
        known = tests.classes(shift) if classes is None else np.intersect1d(tests.classes(shift), list(classes))
        if len(known) < 2:
            continue
        inside, outside = (right.mean(-1) for right in right_answers(evaluations.scores, tests, shift, known.tolist()))
        line, lowest, highest = _line(testbed, tests, shift, known.tolist())
        line = PRINTED_LINES[PRINTED_FOR[shift]] if shift in PRINTED_FOR and classes is None else line
        beyond = effective_robustness(inside, outside, line)
        measured, place = _maximum(inside, beyond, lowest, bins)
        final = float(beyond[-1])
        course = {
            "maximum_effective_robustness": measured,
            "final_effective_robustness": final,
            "lost_effective_robustness": measured - final,
        }
        if first is None:
            first, best = course, place
        found |= {f"{name}_{shift}": value for name, value in course.items()}
        found |= {f"slope_{shift}": line.slope, f"intercept_{shift}": line.intercept}
        found |= {f"r_squared_{shift}": line.r_squared or 0.0, f"lowest_{shift}": lowest, f"highest_{shift}": highest}
        found[f"maximum_at_{shift}"] = float(place)
        found[f"history_accuracy_{shift}"] = _rounded(inside)
        found[f"history_shifted_accuracy_{shift}"] = _rounded(outside)
        found[f"history_effective_robustness_{shift}"] = _rounded(beyond)
    if first is None:
        raise UserError("no shift has two classes that this network knows; choose other shifts with --set shifts=…")
    right = _right(evaluations.scores[ORIGINAL], tests, classes)
    others = np.stack([_right(model.scores[ORIGINAL][-1], tests, classes) for model in testbed])
    hard = hard_examples(others)
    for when, at in (("maximum", best), ("end", -1)):
        found[f"dominance_at_{when}"] = _rounded(dominance_matrix(np.vstack([right[at], others]))[0, 1:])
    found |= {
        **first,
        "accuracy": float(right[-1].mean()),
        "history_accuracy": _rounded(right.mean(-1)),
        "hard_images": float(hard.sum()),
    }
    if hard.any():
        found |= {
            "hard_share_correct": float(right[best][hard].mean()),
            "final_hard_share_correct": float(right[-1][hard].mean()),
        }
    return found


def _right(scores: npt.ArrayLike, tests: TargetTests, classes: Sequence[int] | None = None) -> Bools:
    """Which original images of the classes are right, among these classes."""
    labels = tests.original.labels.numpy()
    return right_among(scores, labels, np.unique(labels) if classes is None else np.unique(list(classes)))


def _line(
    testbed: Sequence[Evaluations], tests: TargetTests, shift: str, classes: Sequence[int]
) -> tuple[LinearFit, float, float]:
    """The baseline of a shift, and the testbed's lowest and highest original accuracy."""
    pairs = [
        tuple(right.mean(-1)[-1] for right in right_answers(model.scores, tests, shift, classes)) for model in testbed
    ]
    inside, outside = np.array(pairs).T
    return fit_line(inside, outside), float(inside.min()), float(inside.max())


def _maximum(inside: Floats, beyond: Floats, lowest: float, bins: int) -> tuple[float, int]:
    """The largest bin mean at accuracies that the testbed reaches (all, where none is), and an observation in it."""
    counted = np.flatnonzero(inside >= lowest)
    counted = counted if len(counted) else np.arange(len(inside))
    average = binned_average(inside[counted], beyond[counted], bins)
    best = int(average.mean.argmax())
    near = np.abs(inside[counted] - average.id_accuracy[best])
    return float(average.mean[best]), int(counted[near.argmin()])


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]
