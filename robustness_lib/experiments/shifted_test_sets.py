"""Test sets under a shift, and how accuracies on them are compared with those on the original test set (P2 §3).

A network is asked about two sets of images of the same classes: the original test images ("ID") and shifted ones
("OOD"). Some shifted sets have images of a part of the classes only; then the original images of those classes are
taken, and on both sides the network chooses among those classes alone, as P2's testbed does for ImageNet-R
("subclassed" accuracy). What is kept of a network are its scores, so that the same can be computed again for any part
of the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.data.corruptions import corrupted
from robustness_lib.errors import UserError, choose
from robustness_lib.methods.baseline_models import Score
from robustness_lib.methods.checks import as_array
from robustness_lib.runner.model_cache import Context

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

SHIFTS = {
    "cifar10.1": "cifar10.1-v6",
    "excluded": "cifar10-imagenet-excluded",
    "included": "cifar10-imagenet-included",
    "shifted": "synthetic-shifted",
    "corrupted": "",
}
"""The image set of each shift; none for common corruptions, which are made of the original test images."""

ORIGINAL = "original"
"""The name of the test set without a shift, among scores."""


@dataclass(frozen=True)
class TargetTests:
    """The test sets of one target: the original one and its shifts.

    Attributes:
        original: Original test images.
        shifted: By name of the shift, its images, with the same class names.
        description: Which images they are, in words, as part of a training's description.
    """

    original: ImageDataset
    shifted: Mapping[str, ImageDataset]
    description: str

    def classes(self, shift: str) -> Integers:
        """The classes that occur in a shift, rising."""
        return np.unique(self.shifted[shift].labels.numpy())


def parse_shifts(text: str) -> tuple[str, ...]:
    """Names of shifts as a recipe writes them, separated by commas or colons."""
    names = tuple(name.strip() for name in text.replace(":", ",").split(",") if name.strip())
    for name in names:
        choose(name, SHIFTS, "shift")
    if not names:
        raise UserError(f"no shift was named; give some of {', '.join(SHIFTS)}, separated by colons")
    return names


def target_tests(
    dataset: str, shifts: Sequence[str], context: Context, *, original: int = 0, shifted: int = 0
) -> TargetTests:
    """The test sets of one target.

    Args:
        shifts: Names of shifts (:data:`SHIFTS`).
        original: How many original images, from every class as equally many as can be; 0 for all. The draw is the same
            for every network, whatever its seed.
        shifted: How many images of each shift; 0 for all.

    Returns:
        The sets. Corrupted images are corrupted original ones, those of the ``original`` draw.
    """
    first, found = _part(context.images(dataset, "test"), original), shifted_images(dataset, shifts, context)
    sets = {name: _part(found[name] if name in found else corrupted(first), shifted) for name in shifts}
    counts = ", ".join(f"{len(images)} {name}" for name, images in sets.items())
    return TargetTests(first, sets, f"{len(first)} original, {counts}")


def shifted_images(dataset: str, shifts: Sequence[str], context: Context) -> dict[str, ImageDataset]:
    """The images of each shift but common corruptions, which are made of the target's."""
    whole, found = context.images(dataset, "test"), {}
    for name in shifts:
        if not SHIFTS[name]:
            continue
        found[name] = images = context.images(SHIFTS[name], "test", kept=True)
        if images.class_names != whole.class_names:
            raise UserError(
                f"the shift {name} has the classes {', '.join(images.class_names[:3])} …, which are not those of "
                f"{dataset}; choose other shifts with --set shifts=…"
            )
        if images.images.shape[1:] != whole.images.shape[1:]:
            (height, width), (rows, columns) = images.images.shape[2:], whole.images.shape[2:]
            raise UserError(
                f"the shift {name} has images of {height}x{width} pixels but {dataset} of {rows}x{columns}; choose "
                "other shifts with --set shifts=…"
            )
    return found


def _part(images: ImageDataset, count: int) -> ImageDataset:
    if not count or count >= len(images):
        return images
    return images.subset(class_balanced_subset(images.labels, count, seed=0))


def scores_of(score: Score, tests: TargetTests) -> dict[str, Tensor]:
    """A model's scores for all test sets, by name, the original one first.

    Returns:
        float32 [N, K] each, on the CPU.
    """
    sets = {ORIGINAL: tests.original, **tests.shifted}
    return {name: score(images).detach().float().cpu() for name, images in sets.items()}


def right_answers(
    scores: Mapping[str, npt.ArrayLike], tests: TargetTests, shift: str, classes: Sequence[int] | None = None
) -> tuple[Bools, Bools]:
    """Which original and which shifted images of some classes a model gets right when it chooses among these classes.

    Args:
        scores: By name of the test set, [..., N, K].
        classes: Only these of the shift's classes; None for all of them.

    Returns:
        bool [..., n] for the original and [..., m] for the shifted images.
    """
    chosen = tests.classes(shift) if classes is None else np.intersect1d(tests.classes(shift), list(classes))
    if not len(chosen):
        raise UserError(f"none of the classes of the shift {shift} is left to choose among; choose other shifts")
    return (
        right_among(scores[ORIGINAL], tests.original.labels.numpy(), chosen),
        right_among(scores[shift], tests.shifted[shift].labels.numpy(), chosen),
    )


def right_among(scores: npt.ArrayLike, labels: npt.NDArray[np.int64], classes: Integers) -> Bools:
    """Which images of some classes a model gets right when it chooses among these classes.

    Args:
        scores: [..., N, K].
        labels: [N].
        classes: [C], distinct, rising.

    Returns:
        bool [..., n], of the n images whose label is one of the classes, in their order.
    """
    every = as_array(scores, "scores")
    if every.ndim < 2 or every.shape[-2] != len(labels) or not set(np.unique(classes)) <= set(range(every.shape[-1])):
        raise UserError(f"scores have shape {every.shape}; give [..., {len(labels)}, K] of all K classes")
    mine = np.isin(labels, classes)
    among = every[..., mine, :][..., classes]
    if np.isnan(among).any():
        raise UserError("a score is not a number; the network diverged, or the file is damaged")
    right: Bools = classes[among.argmax(-1)] == labels[mine]
    return right
