"""The easiest and hardest training images of every class, by a score of their difficulty (P2 §5.3, C.9).

P2 ranks images by the C-score (Jiang et al. 2020): how likely networks that were trained on other images get an image
right. Scores are [N], the higher the easier.
"""

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


def c_scores(data: ImageDataset, root: Path) -> Floats:
    """The published C-scores [N] of CIFAR-10's training images, in [0, 1]."""
    path = root / C_SCORES
    if not path.is_file():
        raise MissingData(
            f"{path} is missing; download cifar10-cscores-orig-order.npz from pluskid.github.io/structural-regularity "
            "to it, or use the cross-validated score with --set difficulty=cross-validated"
        )
    published = read_npz(path, ("scores", "labels"))
    if not np.array_equal(published["labels"], data.labels.numpy()):
        raise UserError(f"{path} has other labels than {data.name}; C-scores are those of CIFAR-10 in official order")
    return check_numbers(published["scores"], f"{path}: scores", "[N]", unit="C-scores")


def _ranked(labels: Tensor, scores: npt.ArrayLike, count: int, easy: bool) -> tuple[list[Tensor], int]:
    """The images of each class, the easiest or the hardest first, and how many of each come to ``count`` images."""
    values = torch.from_numpy(check_numbers(scores, "scores", (len(labels),)))
    members = [torch.nonzero(labels == label).flatten() for label in torch.unique(labels)]
    each, rest = divmod(count, max(len(members), 1))
    if rest or each < 1 or each > min(map(len, members), default=0):
        what = f"{count} images cannot be chosen equally from {len(members)} classes of {len(labels)} images"
        raise UserError(f"{what}; give another train_images")
    return [own[torch.argsort(values[own], descending=easy, stable=True)] for own in members], each


def chosen_by_difficulty(labels: Tensor, scores: npt.ArrayLike, count: int, examples: str) -> Tensor:
    """The ``"easy"`` or ``"hard"`` images, from every class equally many: indices, int64 [count], in file order."""
    easy = choose(examples, EXAMPLES[1:], "choice of examples") == "easy"
    ranked, each = _ranked(labels, scores, count, easy)
    return torch.cat([order[:each] for order in ranked]).sort().values


def hardening(labels: Tensor, scores: npt.ArrayLike, epochs: int, last: int) -> Sampler:
    """An order of training in which the easiest images go one by one (P2 C.9).

    From all images in the first epoch, linearly, to the ``last`` hardest in the last (P2 does not say in which course).
    Each epoch has ``last`` of those that remain, drawn anew (P2's epochs become shorter).
    """
    hardest_first, each = _ranked(labels, scores, last, easy=False)

    def sampler(epoch: int, stream: torch.Generator) -> Tensor:
        done = (epoch - 1) / max(epochs - 1, 1)
        parts = []
        for order in hardest_first:
            left = round(len(order) + done * (each - len(order)))
            parts.append(order[torch.randperm(left, generator=stream)[:each]])
        drawn = torch.cat(parts)
        return drawn[torch.randperm(len(drawn), generator=stream)]

    return sampler
