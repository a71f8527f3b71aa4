"""The easiest and hardest training images of every class, by a score of their difficulty (P2 §5.3, C.9).

P2 ranks images by the C-score (Jiang et al. 2020): how likely networks that were trained on other images get an image
right, averaged over training sets of many sizes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustness_lib.data import ImageDataset
from robustness_lib.data.io import MissingData, read_npz
from robustness_lib.errors import UserError, choose
from robustness_lib.methods.checks import Floats, check_numbers
from robustness_lib.methods.interfaces import Sampler

C_SCORES = Path("cscores") / "cifar10-cscores-orig-order.npz"
"""CIFAR-10's published C-scores (pluskid.github.io/structural-regularity), below the data root."""


EXAMPLES = ("random", "easy", "hard")
"""Which images a network is fine-tuned on."""


def c_scores(data: ImageDataset, root: Path) -> Floats:
    """The published C-scores of CIFAR-10's training images.

    Returns:
        [N], the higher the easier, in [0, 1].
    """
    path = root / C_SCORES
    if not path.is_file():
        raise MissingData(
            f"{path} is missing; download cifar10-cscores-orig-order.npz from pluskid.github.io/structural-regularity "
            "to it, or use the cross-validated score with --set difficulty=cross-validated"
        )
    found = read_npz(path, ("scores", "labels"))
    if not np.array_equal(found["labels"], data.labels.numpy()):
        raise UserError(f"{path} has other labels than {data.name}; C-scores are those of CIFAR-10 in official order")
    return check_numbers(found["scores"], f"{path}: scores", "[N]", unit="C-scores")


def chosen_by_difficulty(labels: Tensor, scores: npt.ArrayLike, count: int, examples: str) -> Tensor:
    """The easiest or hardest images, from every class equally many.

    Args:
        labels: int64 [N].
        scores: [N], the higher the easier; equal ones count in file order.
        examples: ``"easy"`` or ``"hard"``.

    Returns:
        int64 [count]: indices, ascending (file order).
    """
    choose(examples, EXAMPLES[1:], "choice of examples")
    values, (classes, sizes) = _scores(scores, labels), torch.unique(labels, return_counts=True)
    each, rest = divmod(count, max(len(classes), 1))
    if rest or each < 1 or each > int(sizes.min()):
        raise UserError(
            f"{count} images cannot be chosen equally from {len(classes)} classes of {len(labels)} images; "
            "give another train_images"
        )
    parts = []
    for label in classes.tolist():
        members = torch.nonzero(labels == label).flatten()
        order = torch.argsort(values[members], descending=examples == "easy", stable=True)
        parts.append(members[order[:each]])
    return torch.cat(parts).sort().values


def _scores(scores: npt.ArrayLike, labels: Tensor) -> Tensor:
    values = check_numbers(scores, "scores", "[N]")
    if len(values) != len(labels):
        raise UserError(f"there are {len(values)} scores but {len(labels)} labels; give one of each an image")
    return torch.from_numpy(values)


def hardening(labels: Tensor, scores: npt.ArrayLike, epochs: int, last: int) -> Sampler:
    """An order of training in which the easiest images go one by one (P2 C.9).

    From epoch to epoch fewer images remain, of each class the hardest: all of them in the first, ``last`` in the last
    epoch, linearly in between (P2 does not say in which course). Of those that remain, each epoch has ``last``, drawn
    anew, so that epochs are equally long (P2's become shorter).

    Args:
        labels: int64 [N].
        scores: [N], the higher the easier.
        last: How many images remain in the last, from every class equally many.

    Returns:
        What :func:`robustness_lib.training.trainer.train` takes as ``sampler``.
    """
    chosen_by_difficulty(labels, scores, last, "hard")
    values, classes = _scores(scores, labels), torch.unique(labels)
    members = [torch.nonzero(labels == label).flatten() for label in classes]
    hardest_first = [mine[torch.argsort(values[mine], stable=True)] for mine in members]
    each = last // len(classes)

    def sampler(epoch: int, stream: torch.Generator) -> Tensor:
        done = (epoch - 1) / max(epochs - 1, 1)
        parts = []
        for order in hardest_first:
            left = round(len(order) + done * (each - len(order)))
            parts.append(order[torch.randperm(left, generator=stream)[:each]])
        drawn = torch.cat(parts)
        return drawn[torch.randperm(len(drawn), generator=stream)]

    return sampler
