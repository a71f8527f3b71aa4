"""The one training loop that every section uses, and prediction.

Every random draw of epoch e comes from streams of the seed that are named after e, so a training that was killed goes
on from its last checkpoint to the weights it would have had: on a CPU bit for bit, on a GPU up to rounding.
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
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.methods.checks import check_logits
from robustness_lib.methods.interfaces import Forward, Loss, Perturb, Sampler, copies_by_device
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
"""``observe(network)``, called in evaluation mode; what it returns is kept in the history."""


def cross_entropy(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Mean cross-entropy of a batch: the default loss."""
    return F.cross_entropy(network(images).float(), labels)


def weighted_cross_entropy(weights: Tensor) -> Loss:
    """Cross-entropy with a weight for each training image [N], divided by the sum of the batch's weights."""
    weights_on = copies_by_device(weights)

    def loss(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        each = F.cross_entropy(network(images).float(), labels, reduction="none")
        batch = weights_on(each.device)[indices]
        return (batch * each).sum() / batch.sum()

    return loss


class TrainingDiverged(UserError):
    """The loss or a weight was not finite."""


def _diverged(where: str, recipe: TrainingConfig) -> TrainingDiverged:
    settings = json.dumps(recipe.as_dict())
    return TrainingDiverged(f"the training diverged: {where} with the recipe {settings}; lower the learning rate")


@dataclass
class History:
    """What a training reports."""

    losses: list[float] = field(default_factory=list)  # in nats, of every epoch the mean of its batches'
    seconds: float = 0.0  # spent in training steps
    images: int = 0  # processed in that time
    observed: dict[float, dict[str, Tensor]] = field(default_factory=dict)  # by epoch from 1; below 1 a part of it
    trained_on: list[str] = field(default_factory=list)  # device and precision, several where resumed elsewhere


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
    """Train ``network``, which takes normalised images, in place.

    Args:
        data: The training images, of which all are used (``recipe.train_images`` is not applied here).
        perturb: Replaces the images of every batch before the step; by default the recipe's adversary, if it has one.
        sampler: Which images an epoch has, in order, equally many in each; by default all of them, shuffled.
        observe: Called after the epochs of ``recipe.observed_epochs()``, and within the first as ``early_looks`` says.
        checkpoint: A file to resume from and to keep the state in, at ends of epochs; for the caller to delete.
        checkpoint_every: Least time between two checkpoints, in seconds.
    """
    draw: Sampler = sampler or (lambda _, stream: torch.randperm(len(data), generator=stream))
    network.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    update = Update(
        network,
        DeviceImages(data.images, recipe.crop_padding, runtime.device),
        data.labels.to(runtime.device),
        recipe,
        runtime,
        per_epoch=len(draw(1, generator(seed, "order", 1))),
        loss=loss,
        perturb=perturb or adversary(recipe, data.num_classes),
    )
    description = json.dumps({"recipe": recipe.as_dict(), "seed": seed, "data": data.checksum}, sort_keys=True)
    history, done = _resumed(checkpoint, network, update, description)
    history.trained_on = list(dict.fromkeys([*history.trained_on, runtime.in_words()]))
    saved_at = time.monotonic()
    early = early_steps(recipe, update.steps)
    rank, _ = rank_and_count()

    def observe_at(epoch: float, wanted: bool) -> None:
        if wanted and observe is not None:
            network.eval()
            history.observed[epoch] = dict(observe(network))
            train_mode(network)

    counts = {"total": recipe.epochs * update.per_epoch, "initial": done * update.per_epoch}
    bar = progress_bar(**counts, desc=progress, unit="img", unit_scale=True, disable=progress is None, delay=60)
    train_mode(network)
    with bar, _on_device(runtime, len(data), recipe):
        for epoch in range(done + 1, recipe.epochs + 1):
            started = time.monotonic()
            order = draw(epoch, generator(seed, "order", epoch))
            if len(order) != update.per_epoch:
                raise ValueError(f"the sampler gave {len(order)} images in epoch {epoch}, not {update.per_epoch}")
            purpose = ("dropout", epoch) if rank == 0 else ("dropout", epoch, rank)
            update.begin_epoch(epoch, _augmentation(order, recipe, seed, epoch), stream_seed(seed, *purpose))
            for step in range(1, update.steps + 1):
                size = update.size(step - 1)
                update.advance(size)
                observe_at(step / update.steps, epoch == 1 and step in early)
                if runtime.device == "cpu" and step % 50 == 0:  # on a GPU it would halt the device
                    _check_losses(update, epoch, step)
                bar.update(size)
            if runtime.device != "cpu":  # what was sent to the device is not yet done
                torch.cuda.synchronize(runtime.device)
            seconds = time.monotonic() - started
            if update.processes > 1:
                dist.all_reduce(update.losses)  # so that every process has those of whole batches
            _check_losses(update, epoch, update.steps)
            history.losses.append(float(update.losses.mean()))
            history.seconds += seconds
            history.images += update.per_epoch
            bar.set_postfix(epoch=f"{epoch}/{recipe.epochs}", loss=f"{history.losses[-1]:.3f}", refresh=False)
            observe_at(epoch, epoch in recipe.observed_epochs())
            due = time.monotonic() - saved_at >= checkpoint_every
            if checkpoint is not None and due and epoch < recipe.epochs and rank == 0:
                _save(checkpoint, network, update, history, {"epoch": str(epoch), "training": description})
                saved_at = time.monotonic()
    network.eval()
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        where = f"the weights are not finite after its last update (epoch {recipe.epochs})"
        raise _diverged(where, recipe)  # which may spoil them although every loss was finite
    return history


def progress_bar(**options: Any) -> tqdm[None]:
    """A tqdm bar on stderr; elsewhere than on a terminal one line, from ``delay`` seconds on, renewed once a minute."""
    if sys.stderr.isatty():
        return tqdm(dynamic_ncols=True, **options | {"delay": 0})
    quiet = {"mininterval": 60, "maxinterval": 60, "position": 0}  # inner bars would move the cursor otherwise
    return tqdm(**quiet | options)


@contextlib.contextmanager
def _on_device(runtime: Runtime, count: int, recipe: TrainingConfig) -> Iterator[None]:
    """On the device, with cuDNN's choice by trial, as batches have one shape; explains a batch of one image."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with contextlib.nullcontext() if runtime.device == "cpu" else torch.cuda.device(runtime.device):
            yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"batch normalisation has no statistics of a batch of one image, which {count} images in batches of "
            f"{recipe.batch_size} come to; choose another batch_size or train_images"
        ) from error
    finally:
        torch.backends.cudnn.benchmark = before


def _augmentation(order: Tensor, recipe: TrainingConfig, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """The epoch's order with a crop position and a flip for each of its images, all on the CPU."""
    stream = generator(seed, "augmentation", epoch)
    top, left = torch.randint(0, 2 * recipe.crop_padding + 1, (2, len(order)), generator=stream)
    mirrored = torch.rand(len(order), generator=stream) < 0.5
    return order, top, left, mirrored if recipe.flip else torch.zeros_like(mirrored)


def _check_losses(update: Update, epoch: int, steps: int) -> None:
    """Raise where one of the epoch's first ``steps`` losses is not finite."""
    losses, recipe = update.losses[:steps], update.recipe
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        step = (epoch - 1) * update.steps + int(bad[0]) + 1
        total = recipe.epochs * update.steps
        where = f"at step {step} of {total} (epoch {epoch}, learning rate {learning_rate_at(step, total, recipe):.3g})"
        raise _diverged(f"the loss was {float(losses[bad[0]])} {where}", recipe)


def _save(path: Path, network: nn.Module, update: Update, history: History, metadata: dict[str, str]) -> None:
    """Keep all that the training needs to go on, in one safetensors file."""
    tensors = {f"network/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"momentum/{name}": value for name, value in update.momentum.items()}
    for epoch, values in history.observed.items():
        tensors |= {f"observed/{epoch}/{name}": value for name, value in values.items()}
    so_far = {name: getattr(history, name) for name in ("losses", "seconds", "images", "trained_on")}
    save_weights(path, tensors, {**metadata, "history": json.dumps(so_far)})


def _resumed(path: Path | None, network: nn.Module, update: Update, description: str) -> tuple[History, int]:
    """Take the state from a checkpoint if it is there and whole; give the history and how many epochs are done."""
    history = History()
    if path is None or not path.exists():
        return history, 0
    try:
        tensors, metadata = load_weights(path)
    except UserError as error:
        print(f"an unfinished training begins again: {error}", file=sys.stderr)
        return history, 0
    if metadata.get("training") != description:
        raise UserError(f"{path} belongs to another training; remove it or choose another folder")
    weights = {name.removeprefix("network/"): v for name, v in tensors.items() if name.startswith("network/")}
    network.load_state_dict(weights)
    for name, buffer in update.momentum.items():
        buffer.copy_(tensors[f"momentum/{name}"])
    for name, value in tensors.items():
        if name.startswith("observed/"):
            _, epoch, quantity = name.split("/")
            history.observed.setdefault(float(epoch), {})[quantity] = value
    for name, value in json.loads(metadata["history"]).items():
        setattr(history, name, value)
    return history, int(metadata["epoch"])


@torch.no_grad()
@full_float32()
def predict(
    network: nn.Module, data: ImageDataset, normalisation: str, runtime: Runtime, *, batch_size: int | None = None
) -> Tensor:
    """Logits of all images, float32 [N, K] on the CPU, in evaluation mode and float32, as ties matter."""
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
