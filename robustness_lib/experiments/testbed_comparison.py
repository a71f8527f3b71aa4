"""What a network has beyond a testbed: effective robustness, dominance and hard examples (P2 §3, §5.4).

Everything is computed from kept scores (:class:`robustness_lib.experiments.evaluations.Evaluations`), without training.
"""

from collections.abc import Sequence

import numpy as np

from robustness_lib.errors import UserError
from robustness_lib.experiments.evaluations import ORIGINAL, Evaluations, TargetTests, right_among
from robustness_lib.methods.checks import Bools, Floats, Labels
from robustness_lib.metrics import Metrics, rounded
from robustness_lib.metrics import effective_robustness as measures

PRINTED_FOR = {"cifar10.1": "cifar10"}
"""Shifts whose baseline is the line that P2 prints, through more and stronger models than a testbed of one's own."""


def testbed_metrics(model: Evaluations, tests: TargetTests) -> Metrics:
    """Accuracies of one testbed model: among all classes, and for each shift among the shift's."""
    found: Metrics = {"accuracy": float(_right(model, tests, ORIGINAL, tests.classes(ORIGINAL))[-1].mean())}
    for shift in tests.shifts:
        [inside], [outside] = _accuracies([model], tests, shift, tests.classes(shift))
        found |= {f"accuracy_{shift}": float(inside), f"shifted_accuracy_{shift}": float(outside)}
        found |= _images(tests, shift)
    return found


def whole_testbed_metrics(testbed: Sequence[Evaluations], tests: TargetTests) -> Metrics:
    """Lines through the testbed, and how its models differ image by image on the original images."""
    found: Metrics = {}
    for shift in tests.shifts:
        inside, outside = _accuracies(testbed, tests, shift, tests.classes(shift))
        found |= {f"accuracy_{shift}": rounded(inside, 4), f"shifted_accuracy_{shift}": rounded(outside, 4)}
        found |= _images(tests, shift)
        for scaling in measures.SCALINGS:
            line = measures.fit_line(inside, outside, scaling)
            found |= {f"slope_{shift}_{scaling}": line.slope, f"intercept_{shift}_{scaling}": line.intercept}
            found[f"r_squared_{shift}_{scaling}"] = line.r_squared or 0.0
    right = np.stack([_right(model, tests, ORIGINAL, tests.classes(ORIGINAL))[-1] for model in testbed])
    found |= {
        "model_accuracy": rounded(right.mean(1), 4),
        "dominance": rounded(measures.dominance_matrix(right)[np.triu_indices(len(right), 1)], 4),
        "hard_images": float(measures.hard_examples(right).sum()),
    }
    shares = measures.hard_share_correct(right)
    if np.isfinite(shares).all():
        found["model_hard_share_correct"] = rounded(shares, 4)
    return found


def metrics_against(
    testbed: Sequence[Evaluations], evaluations: Evaluations, tests: TargetTests, *, bins: int = measures.BINS
) -> Metrics:
    """What a network has beyond the testbed, observation by observation; everything is a fraction.

    The maximum is the largest mean of a bin of accuracies, from the testbed's lowest on: below it, the line would be
    extended. Maximum, final value and their difference of the first shift are given without its name too. Shifts of
    which the network knows fewer than two classes are left out.
    """
    known = evaluations.classes
    shifts = [shift for shift in tests.shifts if len(tests.classes(shift, known)) >= 2]
    if not shifts:
        raise UserError("no shift has two classes that this network knows; choose other shifts with --set shifts=…")
    found: Metrics = {"history_epoch": [round(float(epoch), 5) for epoch in evaluations.epochs]}
    best = []
    for shift in shifts:
        classes = tests.classes(shift, known)
        inside, outside = (_right(evaluations, tests, name, classes).mean(-1) for name in (ORIGINAL, shift))
        ordinary = _accuracies(testbed, tests, shift, classes)
        printed = measures.PRINTED_LINES[PRINTED_FOR[shift]] if shift in PRINTED_FOR and known is None else None
        line, lowest = printed or measures.fit_line(*ordinary), float(ordinary[0].min())
        beyond = measures.effective_robustness(inside, outside, line)
        reached = np.flatnonzero(inside >= lowest)  # all, where the testbed has no model as weak
        reached = reached if len(reached) else np.arange(len(inside))
        average = measures.binned_average(inside[reached], beyond[reached], bins)
        maximum, near = float(average.mean.max()), inside[reached] - average.id_accuracy[average.mean.argmax()]
        best.append(int(reached[np.abs(near).argmin()]))
        found |= {
            f"maximum_effective_robustness_{shift}": maximum,
            f"final_effective_robustness_{shift}": float(beyond[-1]),
            f"lost_effective_robustness_{shift}": maximum - float(beyond[-1]),
            f"maximum_at_{shift}": float(best[-1]),  # the observation nearest to it, from 0
            f"slope_{shift}": line.slope,
            f"intercept_{shift}": line.intercept,
            f"r_squared_{shift}": line.r_squared or 0.0,
            f"lowest_{shift}": lowest,
            f"highest_{shift}": float(ordinary[0].max()),
            f"history_accuracy_{shift}": rounded(inside, 4),
            f"history_shifted_accuracy_{shift}": rounded(outside, 4),
            f"history_effective_robustness_{shift}": rounded(beyond, 4),
        }
    for name in ("maximum", "final", "lost"):
        found[f"{name}_effective_robustness"] = found[f"{name}_effective_robustness_{shifts[0]}"]
    classes = tests.classes(ORIGINAL, known)
    right = _right(evaluations, tests, ORIGINAL, classes)
    others = np.stack([_right(model, tests, ORIGINAL, classes)[-1] for model in testbed])
    hard = measures.hard_examples(others)
    found |= {
        "accuracy": float(right[-1].mean()),
        "history_accuracy": rounded(right.mean(-1), 4),
        "hard_images": float(hard.sum()),
    }
    for when, share, place in (("maximum", "hard_share_correct", best[0]), ("end", "final_hard_share_correct", -1)):
        found[f"dominance_at_{when}"] = rounded(measures.dominance_matrix(np.vstack([right[place], others]))[0, 1:], 4)
        if hard.any():
            found[share] = float(right[place][hard].mean())
    return found


def _right(model: Evaluations, tests: TargetTests, name: str, classes: Labels) -> Bools:
    """Which images of a test set are right, [E, n], when the model chooses among some classes."""
    return right_among(model.scores[name], tests.sets[name].labels.numpy(), classes)


def _accuracies(
    testbed: Sequence[Evaluations], tests: TargetTests, shift: str, classes: Labels
) -> tuple[Floats, Floats]:
    """Each testbed model's accuracy among some classes on the original and on the shifted images, [M] each."""
    pairs = [[_right(model, tests, name, classes)[-1].mean() for model in testbed] for name in (ORIGINAL, shift)]
    return np.array(pairs[0]), np.array(pairs[1])


def _images(tests: TargetTests, shift: str) -> Metrics:
    """How many original and shifted images there are of a shift's classes."""
    count = np.isin(tests.sets[ORIGINAL].labels, tests.classes(shift)).sum()
    return {f"images_{shift}": float(count), f"shifted_images_{shift}": float(len(tests.sets[shift]))}
