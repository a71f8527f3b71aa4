"""The one training loop that every section uses, and prediction.

Images stay on the device as uint8 (:mod:`robustness_lib.training.data_loader`), and the host waits for the device once
an epoch (:mod:`robustness_lib.training.train_step`). On a processor that has bfloat16 arithmetic the forward and
backward passes run under autocast (weights, batch statistics, the loss and every evaluation stay float32). None of this
changes the recipe: batch size, schedule and number of updates are those asked for, and the last partial batch of an
epoch is kept.

Every random draw of epoch e comes from streams of the seed that are named after e, so a training that was killed
goes on from its last checkpoint to the weights it would have had: on a CPU bit for bit, on a GPU up to the rounding of
its libraries, which choose algorithms by trial and add in varying order.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.methods.checks import check_logits
from robustness_lib.methods.interfaces import Forward, Loss, Perturb, Sampler
from robustness_lib.methods.pgd import Adversary
from robustness_lib.models.architectures import train_mode
from robustness_lib.models.checkpoints import load_weights, save_weights
from robustness_lib.randomness import generator, stream_seed
from robustness_lib.training.config import ADVERSARIES, TrainingConfig, early_steps, learning_rate_at
from robustness_lib.training.data_loader import DeviceImages, normalise, to_unit_range
from robustness_lib.training.device import Runtime, full_float32
from robustness_lib.training.distributed import rank_and_count
from robustness_lib.training.train_step import Update

Observe = Callable[[nn.Module], Mapping[str, Tensor]]
"""``observe(network)``: called in evaluation mode after the observed epochs, and within the first one where the config
has ``early_looks``; what it returns is kept in the history, and in the checkpoint of an unfinished training."""


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
        losses: Of every epoch the mean of its batches' training losses (nats); a smaller last batch counts as one.
        seconds: Wall time spent in training steps (of all runs of a resumed training).
        images: Images processed in that time.
        observed: By epoch (from 1; below 1 a part of the first), what ``observe`` returned.
        trained_on: Device and precision (:meth:`robustness_lib.training.device.Runtime.in_words`), each once: several
            where a training was resumed elsewhere.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    observed: dict[float, dict[str, Tensor]] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)


def adversary(recipe: TrainingConfig, num_classes: int) -> Adversary | None:
    """The attack that a recipe trains with; None where it trains on the images as they are."""
    if recipe.adversary == ADVERSARIES[0]:
        return None
    return Adversary(
        epsilon=recipe.epsilon,
        step_size=recipe.step_size,
        steps=recipe.attack_steps,
        anchor=recipe.anchor,
        targeted=recipe.adversary == "targeted",
        num_classes=num_classes,
        evaluation_mode=recipe.attack_mode == "eval",
    )


def train(
    network: nn.Module,
    data: ImageDataset,
    recipe: TrainingConfig,
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
    """Train ``network`` in place.

    Args:
        network: Takes normalised images; moved to the runtime's device.
        data: The training images; ``recipe.train_images`` is not applied here.
        recipe: How to train.
        seed: From which order, augmentation and dropout are drawn.
        runtime: Where, and in which way.
        loss: What is minimised.
        perturb: Replaces the images of every batch before the step; by default the recipe's adversary, if it has one.
        sampler: Which images an epoch has, in order; by default all of them, shuffled.
        observe: Called after the epochs named by ``recipe.observed_epochs()``.
        checkpoint: A file to resume from and to keep the state in while training; removed at the end.
        checkpoint_every: Least time between two checkpoints, in seconds; they are written at ends of epochs.
        progress: Label of a progress bar with loss, images/s and time left; None for no bar.

    Returns:
        The history.

    Raises:
        TrainingDiverged: The loss (or at the end a weight) became NaN or infinite; says at which step, epoch and
            learning rate.
        UserError: The checkpoint belongs to another training, or batch normalisation gets a batch of one value.
        ValueError: The sampler does not give equally many images in each epoch.
    """
    training = _Training(
        network,
        data,
        recipe,
        seed=seed,
        runtime=runtime,
        loss=loss,
        perturb=perturb,
        sampler=sampler or (lambda _, stream: torch.randperm(len(data), generator=stream)),
        observe=observe,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
    bar = progress_bar(
        total=recipe.epochs * training.update.per_epoch,
        initial=(training.epoch - 1) * training.update.per_epoch,
        desc=progress,
        unit="img",
        unit_scale=True,
        disable=progress is None,
        delay=60,
    )
    try:
        with bar, _on_device(runtime):
            while training.epoch <= recipe.epochs:
                training.run_epoch(bar)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"batch normalisation has no statistics of a batch of one image, which {len(data)} images in batches of "
            f"{recipe.batch_size} come to; choose another batch_size or train_images"
        ) from error
    return training.finish()


def progress_bar(**options: Any) -> tqdm[None]:
    """A tqdm bar on stderr; elsewhere than on a terminal one line, from ``delay`` seconds on, renewed once a minute."""
    if sys.stderr.isatty():
        return tqdm(dynamic_ncols=True, **options | {"delay": 0})
    quiet = {"mininterval": 60, "maxinterval": 60, "position": 0}  # inner bars would move the cursor otherwise
    return tqdm(**quiet | options)


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

    def __init__(
        self,
        network: nn.Module,
        data: ImageDataset,
        recipe: TrainingConfig,
        *,
        seed: int,
        runtime: Runtime,
        loss: Loss,
        perturb: Perturb | None,
        sampler: Sampler,
        observe: Observe | None,
        checkpoint: Path | None,
        checkpoint_every: float,
    ) -> None:
        self.network, self.recipe, self.seed, self.runtime = network, recipe, seed, runtime
        self.sampler, self.observe = sampler, observe
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        network.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rank, processes = rank_and_count()
        self.update = Update(
            network,
            DeviceImages(data.images, recipe.crop_padding, runtime.device),
            data.labels.to(runtime.device),
            recipe,
            runtime,
            per_epoch=len(sampler(1, generator(seed, "order", 1))),
            loss=loss,
            perturb=perturb or adversary(recipe, data.num_classes),
        )
        smallest = self.update.size(self.update.steps - 1)
        if smallest < processes:
            raise UserError(
                f"the last batch of an epoch has {smallest} images, fewer than the {processes} processes "
                "that share it; choose another number of processes or batch_size"
            )
        self.description = json.dumps({"recipe": recipe.as_dict(), "seed": seed, "data": data.checksum}, sort_keys=True)
        self.history = History()
        self.epoch = self._load()
        self.history.trained_on = list(dict.fromkeys([*self.history.trained_on, runtime.in_words()]))
        self.saved_at = time.monotonic()
        self.observed = set(recipe.observed_epochs()) if observe is not None else set()
        self.early = set(early_steps(recipe, self.update.steps)) if observe is not None else set()

    def run_epoch(self, bar: tqdm[None]) -> None:
        started = time.monotonic()
        self._begin_epoch()
        for step in range(1, self.update.steps + 1):
            size = self.update.size(step - 1)
            self.update.advance(size)
            if self.epoch == 1 and step in self.early:
                self._observe(step / self.update.steps)
                train_mode(self.network)
            if self.runtime.device == "cpu" and step % 50 == 0:  # on a GPU it would halt the device
                self._check_losses(step)
            bar.update(size)
        if self.runtime.device != "cpu":  # what was sent to the device is not yet done
            torch.cuda.synchronize(self.runtime.device)
        self._end_epoch(time.monotonic() - started)
        bar.set_postfix(
            epoch=f"{self.epoch - 1}/{self.recipe.epochs}", loss=f"{self.history.losses[-1]:.3f}", refresh=False
        )

    def _begin_epoch(self) -> None:
        train_mode(self.network)
        order = self.sampler(self.epoch, generator(self.seed, "order", self.epoch))
        if len(order) != self.update.per_epoch:
            raise ValueError(
                f"the sampler gave {len(order)} images in epoch {self.epoch} but {self.update.per_epoch} in the first"
            )
        purpose = ("dropout", self.epoch) if self.rank == 0 else ("dropout", self.epoch, self.rank)
        self.update.begin_epoch(
            self.epoch,
            _augmentation(order, self.recipe, self.seed, self.epoch),
            stream_seed(self.seed, *purpose),
        )

    def _end_epoch(self, seconds: float) -> None:
        self.update.sum_losses()
        self._check_losses(self.update.steps)
        self.history.losses.append(float(self.update.losses.mean()))
        self.history.seconds += seconds
        self.history.images += self.update.per_epoch
        if self.epoch in self.observed:
            self._observe(self.epoch)
        due = time.monotonic() - self.saved_at >= self.checkpoint_every
        if self.checkpoint is not None and due and self.epoch < self.recipe.epochs and self.rank == 0:
            self._save(self.checkpoint)
            self.saved_at = time.monotonic()
        self.epoch += 1

    def _observe(self, epoch: float) -> None:
        assert self.observe is not None
        self.network.eval()
        self.history.observed[epoch] = dict(self.observe(self.network))

    def _check_losses(self, steps: int) -> None:
        """Raise where one of the epoch's first ``steps`` losses is not finite."""
        losses = self.update.losses[:steps]
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            step = (self.epoch - 1) * self.update.steps + int(bad[0]) + 1
            total = self.recipe.epochs * self.update.steps
            raise TrainingDiverged(
                f"the training diverged: the loss was {float(losses[bad[0]])} at step {step} of {total} "
                f"(epoch {self.epoch}, learning rate {learning_rate_at(step, total, self.recipe):.3g}) with the recipe "
                f"{json.dumps(self.recipe.as_dict())}; lower the learning rate"
            )

    def finish(self) -> History:
        self.network.eval()
        if not all(bool(torch.isfinite(value).all()) for value in self.network.state_dict().values()):
            raise TrainingDiverged(  # the last update may spoil the weights although every loss was finite
                f"the training diverged: the weights are not finite after its last update (epoch {self.recipe.epochs}) "
                f"with the recipe {json.dumps(self.recipe.as_dict())}; lower the learning rate"
            )
        if self.checkpoint is not None and self.rank == 0:
            self.checkpoint.unlink(missing_ok=True)
        return self.history

    def _save(self, path: Path) -> None:
        """Keep all that the training needs to go on, in one safetensors file."""
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"momentum/{name}": value for name, value in self.update.momentum.items()}
        for observed_epoch, values in self.history.observed.items():
            tensors |= {f"observed/{observed_epoch}/{name}": value for name, value in values.items()}
        so_far = {name: getattr(self.history, name) for name in ("losses", "seconds", "images", "trained_on")}
        metadata = {"epoch": str(self.epoch), "history": json.dumps(so_far), "training": self.description}
        save_weights(path, tensors, metadata)

    def _load(self) -> int:
        """Take the state from the checkpoint if it is there and whole; return the first epoch to run."""
        path = self.checkpoint
        if path is None or not path.exists():
            return 1
        try:
            tensors, metadata = load_weights(path)
        except UserError as error:
            print(f"an unfinished training begins again: {error}", file=sys.stderr)
            return 1
        if metadata.get("training") != self.description:
            raise UserError(f"{path} belongs to another training; remove it or choose another folder")
        self.network.load_state_dict(
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


def _augmentation(
    order: Tensor, recipe: TrainingConfig, seed: int, epoch: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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
    network: nn.Module, data: ImageDataset, normalisation: str, runtime: Runtime, *, batch_size: int | None = None
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

    Raises:
        UserError: Some are not finite.
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
    return check_logits(torch.cat(parts))


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Run with so many CPU threads, then restore the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
