"""What a model says about the original test images of a target and about shifted ones, while it is trained (P2 §3).

Where a shifted set has a part of the classes only, the original images of these classes are taken, and on both sides a
model chooses among these classes alone, as P2's testbed does for ImageNet-R ("subclassed" accuracy). What is kept of a
model are its scores, so that the same can be computed for any part of the classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.data.corruptions import corrupted
from robustness_lib.data.io import read_npz, write_npz
from robustness_lib.errors import UserError, choose
from robustness_lib.files import locked
from robustness_lib.methods.baseline_models import Score
from robustness_lib.methods.checks import Bools, Floats, Labels, as_array
from robustness_lib.models.architectures import build, new_head
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import Context, Training
from robustness_lib.runner.records import short_hash
from robustness_lib.training.config import TrainingConfig, early_steps
from robustness_lib.training.trainer import History, predict, train

SHIFTS = {
    "cifar10.1": "cifar10.1-v6",
    "excluded": "cifar10-imagenet-excluded",
    "included": "cifar10-imagenet-included",
    "shifted": "synthetic-shifted",
    "corrupted": "",
}
"""The image set of each shift; none for common corruptions, which are made of the original test images."""

ORIGINAL = "original"  # the name of the test set without a shift, among scores


@dataclass(frozen=True)
class TargetTests:
    """The test sets of one target by name: :data:`ORIGINAL`, and shifted ones with the same class names."""

    sets: Mapping[str, ImageDataset]

    @property
    def shifts(self) -> list[str]:
        """The names of those that are shifted."""
        return [name for name in self.sets if name != ORIGINAL]

    def classes(self, name: str, known: Sequence[int] | None = None) -> Labels:
        """The classes that occur in a set, rising; only those that are known, where these are given."""
        there = np.unique(self.sets[name].labels.numpy())
        return there if known is None else np.intersect1d(there, list(known))

    def scores(self, score: Score) -> dict[str, Tensor]:
        """A model's scores for every set, float32 [N, K] on the CPU."""
        return {name: score(images).detach().float().cpu() for name, images in self.sets.items()}


def right_among(scores: npt.ArrayLike, labels: Labels, classes: Labels) -> Bools:
    """Which images of some ``classes`` a model gets right when it chooses among these classes.

    Gives bool [..., n] from scores [..., N, K] and labels [N], of the n images whose label is one of the classes.
    """
    every = as_array(scores, "scores")
    if every.ndim < 2 or every.shape[-2] != len(labels) or not set(np.unique(classes)) <= set(range(every.shape[-1])):
        raise UserError(f"scores have shape {every.shape}; give [..., {len(labels)}, K] of all K classes")
    chosen = np.isin(labels, classes)
    among = every[..., chosen, :][..., classes]
    if np.isnan(among).any():
        raise UserError("a score is not a number; the network diverged, or the file is damaged")
    right: Bools = classes[among.argmax(-1)] == labels[chosen]
    return right


def parse_shifts(text: str) -> list[str]:
    """Names of shifts as a config writes them, separated by commas or colons."""
    names = [choose(name.strip(), SHIFTS, "shift") for name in text.replace(":", ",").split(",") if name.strip()]
    if not names:
        raise UserError(f"no shift was named; give some of {', '.join(SHIFTS)}, separated by colons")
    return names


def target_tests(
    dataset: str, shifts: Sequence[str], context: Context, *, original: int = 0, shifted: int = 0
) -> TargetTests:
    """The test sets of one target: ``original`` images, and ``shifted`` ones of each shift; all of them for 0.

    Every network and seed has the same, drawn evenly from the classes; corrupted are the ``original`` ones.
    """

    def some(images: ImageDataset, count: int) -> ImageDataset:
        few = 0 < count < len(images)
        return images.subset(class_balanced_subset(images.labels, count, seed=0)) if few else images

    first = some(context.images(dataset, "test"), original)
    found = shifted_images(dataset, shifts, context)
    sets = {name: some(found[name] if name in found else corrupted(first), shifted) for name in shifts}
    return TargetTests({ORIGINAL: first, **sets})


def shifted_images(dataset: str, shifts: Sequence[str], context: Context) -> dict[str, ImageDataset]:
    """The images of each shift but common corruptions, which are made of the target's."""
    target = context.images(dataset, "test")
    found = {name: context.images(SHIFTS[name], "test", kept=True) for name in shifts if SHIFTS[name]}
    for name, images in found.items():
        if images.class_names != target.class_names or images.images.shape[1:] != target.images.shape[1:]:
            raise UserError(
                f"the shift {name} has images of {list(images.images.shape[1:])} and the classes "
                f"{', '.join(images.class_names[:3])}, …, which are not those of {dataset}; choose other shifts with "
                "--set shifts=…"
            )
    return found


Convert = Callable[[Tensor], Tensor]  # logits of a network's head [N, J] to scores of the target's classes [N, K]


@dataclass(frozen=True)
class Evaluations:
    """What a model said about all test sets while it was trained."""

    epochs: Floats  # float64 [E], when: epochs trained, a part of one within the first; 0 before training
    scores: Mapping[str, npt.NDArray[np.float32]]  # [E, N, K] by name of the test set
    weights: Mapping[str, Tensor] = field(default_factory=dict)  # of the trained network
    classes: Sequence[int] | None = None  # the only target classes that it knows; None for all


def kept(training: Training, context: Context, make: Callable[[], tuple[nn.Module, History]]) -> Evaluations:
    """The evaluations that are kept under a training's key; ``make`` trains first where there are none."""
    weights, observed, _ = context.made_once(training.path(context.store), training.as_dict(), make)
    epochs = observed.pop("epochs").double().numpy()
    return Evaluations(epochs, {name: value.numpy() for name, value in observed.items()}, weights)


def scorer(
    network: nn.Module, config: TrainingConfig, context: Context, convert: Convert = lambda logits: logits
) -> Score:
    """A network as what gives images their scores; those of a published one, which is large, are kept."""

    def score(images: ImageDataset) -> Tensor:
        if not (name := getattr(network, "published", "")):
            return convert(predict(network, images, config.normalisation, context.runtime))
        path = context.store / "published" / f"{short_hash([name, config.normalisation, images.checksum])}.npz"
        if not path.exists():
            write_npz(path, {"scores": predict(network, images, config.normalisation, context.runtime).numpy()})
        return convert(torch.from_numpy(read_npz(path, ("scores",))["scores"]))

    return score


def train_head(
    training: Training, extractor: nn.Module, data: ImageDataset, tests: TargetTests, context: Context
) -> tuple[nn.Module, History]:
    """Train a linear layer on features that are computed once, without augmentation (P2 B.4, C.6)."""
    config, compute = training.recipe, scorer(extractor, training.recipe, context)
    inputs, test_inputs = compute(data), {id(part): compute(part) for part in tests.sets.values()}
    layer = new_head(nn.Sequential(nn.Linear(inputs.shape[1], 1)), data.num_classes, training.seed)
    optimiser = torch.optim.SGD(
        layer.parameters(),
        config.learning_rate,
        config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov and config.momentum > 0,
    )
    history, early = History(), early_steps(config, math.ceil(len(inputs) / config.batch_size))
    for epoch in range(1, config.epochs + 1):
        order = torch.randperm(len(inputs), generator=generator(training.seed, "order", epoch))
        batches, total = torch.split(order, config.batch_size), 0.0
        for step, batch in enumerate(batches, start=1):
            loss = F.cross_entropy(layer(inputs[batch]), data.labels[batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            total += float(loss.detach()) * len(batch)
            last = step == len(batches) and epoch in config.observed_epochs()
            if last or (epoch == 1 and step in early):
                scores = tests.scores(lambda part: layer(test_inputs[id(part)]))
                history.observed[epoch - 1 + step / len(batches)] = scores
        history.losses.append(total / len(inputs))
        if not np.isfinite(total):
            raise UserError(f"the last layer diverged in epoch {epoch}; lower the learning rate")
    return layer, history


def cross_validated_scores(data: ImageDataset, config: TrainingConfig, context: Context) -> Floats:
    """The probability of each image's label, [N], by a network that was trained on the other half; kept."""
    description = {"data": data.checksum, "recipe": config.training_part().as_dict(), "cuts": 1, "seed": 0}
    path = context.store / "difficulty" / f"{short_hash(description)}.npz"
    with locked(context.store / "locks" / f"difficulty-{short_hash(description)}.lock"):
        if not path.exists():
            scores = np.zeros(len(data))
            halves = torch.randperm(len(data), generator=generator(0, "halves", 0)).chunk(2)
            for number, (half, others) in enumerate((halves, halves[::-1])):
                network = build(config.architecture, data.num_classes, config.dropout, number)
                progress = f"difficulty, half {number + 1}" if context.progress else None
                train(network, data.subset(half), config, seed=0, runtime=context.runtime, progress=progress)
                logits = predict(network, data.subset(others), config.normalisation, context.runtime)
                probability = logits.double().softmax(1)[torch.arange(len(others)), data.labels[others]]
                scores[others.numpy()] = probability.numpy()
            write_npz(path, {"scores": scores})
        return np.asarray(read_npz(path, ("scores",))["scores"])
