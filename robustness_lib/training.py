"""The one training loop that every section uses, and prediction.

Images stay on the device as uint8 (:mod:`robustness_lib.batches`), and the host waits for the device once an epoch
(:mod:`robustness_lib.steps`). On a processor that has bfloat16 arithmetic the forward and backward passes run under
autocast (weights, batch statistics, the loss and every evaluation stay float32). Several networks can train at the
same time, each as if it were alone. None of this changes the recipe: batch size, schedule and number of updates are
those asked for, and the last partial batch of an epoch is kept.

Every random draw of epoch e comes from streams of the seed that are named after e, so a training that was killed
goes on from its last checkpoint to the weights it would have had: on a CPU bit for bit, on a GPU up to the rounding of
its libraries, which choose algorithms by trial and add in varying order.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from robustness_lib import together
from robustness_lib.attacks import adversary
from robustness_lib.batches import DeviceImages, normalise, to_unit_range
from robustness_lib.checkpoints import load_weights, save_weights
from robustness_lib.data import ImageSet
from robustness_lib.errors import UserError
from robustness_lib.models import train_mode
from robustness_lib.processes import joined, synchronise
from robustness_lib.progress import progress_bar
from robustness_lib.randomness import generator, stream_seed
from robustness_lib.recipes import Recipe, early_steps, learning_rate_at
from robustness_lib.runtime import Runtime, full_float32
from robustness_lib.steps import Forward, Loss, Perturb, Steps, Update

Sampler = Callable[[int, torch.Generator], Tensor]
"""``sampler(epoch, generator)``: the positions (int64 [M]) of the images of one epoch, in order; M is the same in
every epoch."""

Observe = Callable[[nn.Module], Mapping[str, Tensor]]
"""``observe(network)``: called in evaluation mode after the epochs that the recipe observes, and within the first one
where it asks for early looks; what it returns is kept in the history, and in the checkpoint of an unfinished
training."""


def cross_entropy(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Mean cross-entropy of a batch: the default loss."""
    return F.cross_entropy(network(images).float(), labels)


def weighted_cross_entropy(weights: Tensor) -> Loss:
    """Cross-entropy with one weight an example, divided by the sum of the batch's weights.

    Args:
        weights: float [N], at least 0, by position in the training set.
    """
    kept = {weights.device: weights}

    def loss(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        each = F.cross_entropy(network(images).float(), labels, reduction="none")
        if each.device not in kept:
            kept[each.device] = weights.to(each.device)
        batch = kept[each.device][indices]
        return (batch * each).sum() / batch.sum()

    return loss


class TrainingDiverged(UserError):
    """The loss was not finite."""


@dataclass
class History:
    """What a training reports.

    Attributes:
        losses: Mean training loss (nats) of each epoch.
        seconds: Wall time spent in training steps (of all runs of a resumed training).
        images: Images processed in that time.
        observed: By epoch (from 1; below 1 a part of the first), what ``observe`` returned.
        trained_on: Device and precision (:meth:`robustness_lib.runtime.Runtime.in_words`), each once: several where a
            training was resumed elsewhere.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    observed: dict[float, dict[str, Tensor]] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Assignment:
    """One training that is to be done.

    Attributes:
        network: Takes normalised images; trained in place, moved to the runtime's device.
        data: The training images; ``recipe.train_images`` is not applied here.
        recipe: How to train.
        seed: From which order, augmentation and dropout are drawn.
        loss: What is minimised.
        perturb: Replaces the images of every batch before the step; by default the recipe's adversary, if it has one.
        sampler: Which images an epoch has, in order; by default all of them, shuffled.
        observe: Called after the epochs named by ``recipe.observed_epochs()``.
        checkpoint: A file to resume from and to keep the state in while training; removed at the end.
        checkpoint_every: Least time between two checkpoints, in seconds; they are written at ends of epochs.
        progress: Label of a progress bar with loss, images/s and time left; None for no bar.
    """

    network: nn.Module
    data: ImageSet
    recipe: Recipe
    seed: int
    loss: Loss = cross_entropy
    perturb: Perturb | None = None
    sampler: Sampler | None = None
    observe: Observe | None = None
    checkpoint: Path | None = None
    checkpoint_every: float = 30.0
    progress: str | None = None

    def images_per_epoch(self) -> int:
        """How many images an epoch has."""
        return len(self.data if self.sampler is None else self.sampler(1, generator(self.seed, "order", 1)))

    def shape(self) -> tuple[int, int]:
        """What trainings that run at the same time have in common: images an epoch, and images an update."""
        return self.images_per_epoch(), self.recipe.batch_size


def train(
    network: nn.Module,
    data: ImageSet,
    recipe: Recipe,
    *,
    seed: int,
    runtime: Runtime,
    loss: Loss = cross_entropy,
    perturb: Perturb | None = None,
    sampler: Sampler | None = None,
    observe: Observe | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 30.0,
    progress: str | None = None,
) -> History:
    """Train ``network`` in place, as :class:`Assignment` describes.

    Within :func:`robustness_lib.together.run` it may be done at the same time as others of the same shape.

    Returns:
        The history.

    Raises:
        TrainingDiverged: The loss (or at the end a weight) became NaN or infinite; says at which step, epoch and
            learning rate.
        UserError: The checkpoint belongs to another training.
        ValueError: The sampler does not give equally many images in each epoch.
    """
    assignment = Assignment(
        network=network,
        data=data,
        recipe=recipe,
        seed=seed,
        loss=loss,
        perturb=perturb,
        sampler=sampler,
        observe=observe,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        progress=progress,
    )
    done = together.request(assignment.shape(), assignment, lambda many: train_together(many, runtime))
    if isinstance(done, Exception):
        raise done
    return done


def train_together(assignments: Sequence[Assignment], runtime: Runtime) -> list[History | Exception]:
    """Train several networks at the same time, each to what it would be alone.

    Where the runtime has CUDA graphs their updates run side by side on the device; elsewhere one after the other.
    A training that fails ends alone.

    Args:
        assignments: Trainings of one shape (:meth:`Assignment.shape`).
        runtime: Where, and in which way.

    Returns:
        For each its history, or what it failed with (:func:`train` says with what).

    Raises:
        ValueError: The shapes differ.
    """
    if len({assignment.shape() for assignment in assignments}) > 1:
        raise ValueError("trainings that run together have equally many images an epoch and an update")
    results: dict[int, History | Exception] = {}
    trainings: dict[int, _Training] = {}
    pixels: dict[tuple[int, int], DeviceImages] = {}
    for number, assignment in enumerate(assignments):
        with _failing_alone(results, number):
            trainings[number] = _Training(assignment, runtime, pixels)
    with _bar(list(trainings.values())) as bar, _on_device(runtime):
        steps: Steps | None = None
        while active := {number: one for number, one in trainings.items() if number not in results and one.left()}:
            started = time.monotonic()
            for number, training in active.items():
                with _failing_alone(results, number):
                    training.begin_epoch()
            updates = [one.update for number, one in active.items() if number not in results]
            if updates and (steps is None or steps.updates != updates):
                steps = Steps(updates, runtime)
            if steps is not None and updates:
                _epoch(steps, active, results, bar)
            if runtime.device != "cpu":  # what was sent to the device is not yet done
                torch.cuda.synchronize(runtime.device)
            seconds = (time.monotonic() - started) / len(active)
            for number, training in active.items():
                if number not in results:
                    with _failing_alone(results, number):
                        training.end_epoch(seconds)
                        bar.set_postfix(epoch=training.progress(), loss=f"{training.history.losses[-1]:.3f}")
    for number, training in trainings.items():
        if number not in results:
            with _failing_alone(results, number):
                results[number] = training.finish()
    return [results[number] for number in range(len(assignments))]


def _epoch(
    steps: Steps, active: Mapping[int, _Training], results: dict[int, History | Exception], bar: tqdm[None]
) -> None:
    update = steps.updates[0]
    for step in range(update.steps):
        size = update.size(step)
        replayed = steps.replay(size)
        look = not update.images.on_gpu and step % 50 == 49  # on a GPU it would halt the device
        for number, training in active.items():
            if number not in results:
                with _failing_alone(results, number):
                    if not replayed:
                        training.update.run(size)
                    training.look_early(step + 1)
                    if look:
                        training.check_losses(step + 1)
                bar.update(size)
        if all(number in results for number in active):
            return


@contextlib.contextmanager
def _failing_alone(results: dict[int, History | Exception], number: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the user's has a sentence of its own; its traceback would keep networks in memory
        results[number] = error.with_traceback(None) if isinstance(error, UserError) else error


def _bar(trainings: Sequence[_Training]) -> tqdm[None]:
    labels = [one.assignment.progress for one in trainings if one.assignment.progress is not None]
    return progress_bar(
        brief=True,
        total=sum(one.assignment.recipe.epochs * one.update.per_epoch for one in trainings),
        initial=sum((one.epoch - 1) * one.update.per_epoch for one in trainings),
        desc=labels[0] if len(labels) == 1 else f"{len(labels)} networks",
        unit="img",
        unit_scale=True,
        disable=not labels,
        mininterval=1.0,
    )


@contextlib.contextmanager
def _on_device(runtime: Runtime) -> Iterator[None]:
    """Make the device the current one, and let cuDNN choose its algorithms by trial: every batch has the same shape."""
    if runtime.device == "cpu":
        yield
        return
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with torch.cuda.device(runtime.device):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


class _Training:
    """One training on its way: its update, its history and its checkpoint."""

    def __init__(self, assignment: Assignment, runtime: Runtime, pixels: dict[tuple[int, int], DeviceImages]) -> None:
        self.assignment, self.history = assignment, History()
        network, data, recipe = assignment.network, assignment.data, assignment.recipe
        network.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.processes = joined()
        if self.processes.count > 1:
            synchronise(network)
        kind = id(data.images), recipe.crop_padding  # trainings on the same images share them
        if kind not in pixels:
            pixels[kind] = DeviceImages(data.images, recipe.crop_padding, runtime.device)
        self.update = Update(
            network,
            pixels[kind],
            data.labels.to(runtime.device),
            recipe,
            runtime,
            per_epoch=assignment.images_per_epoch(),
            loss=assignment.loss,
            perturb=assignment.perturb or adversary(recipe, data.num_classes),
            processes=self.processes,
        )
        if self.update.size(self.update.steps - 1) < self.processes.count:
            raise UserError(
                f"the last batch of an epoch has {self.update.size(self.update.steps - 1)} images, fewer than the "
                f"{self.processes.count} processes that share it; choose another number of processes or batch_size"
            )
        self.description = json.dumps(
            {"recipe": recipe.as_dict(), "seed": assignment.seed, "data": data.checksum}, sort_keys=True
        )
        self.epoch = self._load()
        self.history.trained_on = list(dict.fromkeys([*self.history.trained_on, runtime.in_words()]))
        self.saved_at = time.monotonic()
        self.observed = set(recipe.observed_epochs()) if assignment.observe is not None else set()
        self.early = set(early_steps(recipe, self.update.steps))

    def left(self) -> bool:
        """Whether there are epochs to run."""
        return self.epoch <= self.assignment.recipe.epochs

    def progress(self) -> str:
        """Epochs done of all."""
        return f"{self.epoch - 1}/{self.assignment.recipe.epochs}"

    def begin_epoch(self) -> None:
        one = self.assignment
        train_mode(one.network)
        stream = generator(one.seed, "order", self.epoch)
        sampler = one.sampler or (lambda _, stream: torch.randperm(len(one.data), generator=stream))
        order = sampler(self.epoch, stream)
        if len(order) != self.update.per_epoch:
            raise ValueError(
                f"the sampler gave {len(order)} images in epoch {self.epoch} but {self.update.per_epoch} in the first"
            )
        purpose = ("dropout", self.epoch) if self.processes.rank == 0 else ("dropout", self.epoch, self.processes.rank)
        self.update.begin_epoch(
            self.epoch,
            _augmentation(order, one.recipe, one.seed, self.epoch),
            stream_seed(one.seed, *purpose),
        )

    def end_epoch(self, seconds: float) -> None:
        one, history = self.assignment, self.history
        self.processes.sum(self.update.losses)
        self.check_losses(self.update.steps)
        history.losses.append(float(self.update.losses.mean()))
        history.seconds += seconds
        history.images += self.update.per_epoch
        if self.epoch in self.observed and one.observe is not None:
            one.network.eval()
            history.observed[self.epoch] = dict(one.observe(one.network))
        due = time.monotonic() - self.saved_at >= one.checkpoint_every
        if one.checkpoint is not None and due and self.epoch < one.recipe.epochs and self.processes.rank == 0:
            self._save(one.checkpoint)
            self.saved_at = time.monotonic()
        self.epoch += 1

    def look_early(self, step: int) -> None:
        """Observe after update number ``step`` of the first epoch, where the recipe asks for it."""
        one = self.assignment
        if self.epoch == 1 and one.observe is not None and step in self.early:
            one.network.eval()
            self.history.observed[step / self.update.steps] = dict(one.observe(one.network))
            train_mode(one.network)

    def check_losses(self, steps: int) -> None:
        """Raise where one of the epoch's first ``steps`` losses is not finite."""
        losses, recipe = self.update.losses[:steps], self.assignment.recipe
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            step = (self.epoch - 1) * self.update.steps + int(bad[0]) + 1
            total = recipe.epochs * self.update.steps
            raise TrainingDiverged(
                f"the training diverged: the loss was {float(losses[bad[0]])} at step {step} of {total} "
                f"(epoch {self.epoch}, learning rate {learning_rate_at(step, total, recipe):.3g}) with the recipe "
                f"{json.dumps(recipe.as_dict())}; lower the learning rate"
            )

    def finish(self) -> History:
        one = self.assignment
        one.network.eval()
        if not all(bool(torch.isfinite(value).all()) for value in one.network.state_dict().values()):
            raise TrainingDiverged(  # the last update may spoil the weights although every loss was finite
                f"the training diverged: the weights are not finite after its last update (epoch {one.recipe.epochs}) "
                f"with the recipe {json.dumps(one.recipe.as_dict())}; lower the learning rate"
            )
        if one.checkpoint is not None and self.processes.rank == 0:
            one.checkpoint.unlink(missing_ok=True)
        return self.history

    def _save(self, path: Path) -> None:
        """Keep all that the training needs to go on, in one safetensors file."""
        tensors = {f"network/{name}": value for name, value in self.assignment.network.state_dict().items()}
        tensors |= {f"momentum/{name}": value for name, value in self.update.momentum.items()}
        for observed_epoch, values in self.history.observed.items():
            tensors |= {f"observed/{observed_epoch}/{name}": value for name, value in values.items()}
        so_far = {name: getattr(self.history, name) for name in ("losses", "seconds", "images", "trained_on")}
        metadata = {"epoch": str(self.epoch), "history": json.dumps(so_far), "training": self.description}
        save_weights(path, tensors, metadata)

    def _load(self) -> int:
        """Take the state from the checkpoint if it is there (the first process's); return the first epoch to run."""
        path = self.assignment.checkpoint
        found = load_weights(path) if path is not None and self.processes.rank == 0 and path.exists() else None
        found = self.processes.tell(found)
        if found is None:
            return 1
        tensors, metadata = found
        if metadata.get("training") != self.description:
            raise UserError(f"{path} belongs to another training; remove it or choose another folder")
        self.assignment.network.load_state_dict(
            {name.removeprefix("network/"): v for name, v in tensors.items() if name.startswith("network/")}
        )
        for name, buffer in self.update.momentum.items():
            buffer.copy_(tensors[f"momentum/{name}"])
        for name, value in tensors.items():
            if name.startswith("observed/"):
                _, observed_epoch, quantity = name.split("/")
                self.history.observed.setdefault(float(observed_epoch), {})[quantity] = value
        for name, value in json.loads(metadata["history"]).items():
            setattr(self.history, name, value)
        return int(metadata["epoch"]) + 1


def _augmentation(order: Tensor, recipe: Recipe, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The epoch's order with a crop position and a flip for each of its images, all on the CPU."""
    stream = generator(seed, "augmentation", epoch)
    window = (2, len(order))
    top, left = torch.randint(0, 2 * recipe.crop_padding + 1, window, generator=stream)
    mirrored = torch.rand(len(order), generator=stream) < 0.5
    return order, top, left, mirrored if recipe.flip else torch.zeros_like(mirrored)


# --------------------------------------------------------------------------------------------- prediction


@torch.no_grad()
@full_float32()
def predict(
    network: nn.Module, data: ImageSet, normalisation: str, runtime: Runtime, *, batch_size: int | None = None
) -> Tensor:
    """Logits of all images, in evaluation mode and float32 (ties and small differences matter to the metrics).

    Args:
        network: Takes normalised images; its training mode is restored afterwards.
        data: N images.
        normalisation: A key of :data:`NORMALISATIONS`.
        runtime: Where to run.
        batch_size: Images at a time, which does not change the result beyond rounding; None for what is fast.

    Returns:
        float32 [N, K] on the CPU.
    """
    batch_size = batch_size or (100 if runtime.device == "cpu" else 500)  # so that activations stay in a CPU's cache
    was_training = network.training
    network.to(runtime.device).eval()
    try:
        parts = [
            network(normalise(to_unit_range(part.to(runtime.device)), normalisation)).float().cpu()
            for part in torch.split(data.images, batch_size)
        ]
    finally:
        network.train(was_training)
    return torch.cat(parts)


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run with so many CPU threads, then restore the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
