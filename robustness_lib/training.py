"""The one training loop that every section uses, and prediction.

Images stay on the device as uint8; cropping, flipping and normalising happen there in batches. On a processor
that has bfloat16 arithmetic the forward and backward passes run under autocast (weights, batch statistics, the
loss and every evaluation stay float32). None of this changes the recipe: batch size, schedule and number of
updates are those asked for, and the last partial batch of an epoch is kept.

Every random draw of epoch e comes from streams of the seed that are named after e, so a training that was killed
goes on from its last checkpoint to the weights it would have had.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from robustness_lib.checkpoints import load_weights, save_weights
from robustness_lib.data import ImageSet
from robustness_lib.errors import UserError
from robustness_lib.models import freeze_all_but_head, train_mode
from robustness_lib.randomness import generator, stream_seed
from robustness_lib.recipes import NORMALISATIONS, Recipe, learning_rate_at
from robustness_lib.runtime import Runtime

# --------------------------------------------------------------------------------------------- batches


class DeviceImages:
    """An image set on the device as uint8, from which augmented batches are cut.

    Args:
        images: The set, uint8 [N, C, H, W].
        padding: Black pixels added on each side, so that a random crop is a window of the padded image. They
            are black before normalisation, as in the authors' code.
        device: Where the pixels are kept.
    """

    def __init__(self, images: Tensor, padding: int, device: str) -> None:
        count, channels, self.height, self.width = images.shape
        self.padding = padding
        self.padded_height, self.padded_width = self.height + 2 * padding, self.width + 2 * padding
        padded = torch.zeros((count, self.padded_height, self.padded_width, channels), dtype=torch.uint8)
        inside = padded[:, padding : padding + self.height, padding : padding + self.width]
        inside.copy_(images.permute(0, 2, 3, 1))
        self.pixels = padded.view(-1, channels).to(device)
        self.rows = torch.arange(self.height, device=device)
        self.columns = torch.arange(self.width, device=device)

    def crop(self, indices: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
        """Windows of the padded images.

        Args:
            indices: int64 [B], which images.
            top: int64 [B] in [0, 2 padding], first row of the window.
            left: int64 [B] in [0, 2 padding], first column.
            mirrored: bool [B], whether the window is flipped left to right.

        Returns:
            uint8 [B, C, H, W] in channels-last memory.
        """
        rows = indices[:, None] * self.padded_height + top[:, None] + self.rows
        columns = left[:, None] + torch.where(mirrored[:, None], self.columns.flip(0), self.columns)
        positions = rows[:, :, None] * self.padded_width + columns[:, None, :]
        crops = self.pixels.index_select(0, positions.view(-1))
        return crops.view(len(indices), self.height, self.width, -1).permute(0, 3, 1, 2)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to float32 in [0, 1], channels last."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def normalise(images: Tensor, normalisation: str) -> Tensor:
    """Images in [0, 1], float [B, 3, H, W], to the network's input (:data:`NORMALISATIONS`)."""
    mean, std = _mean_and_std(normalisation, images.device, images.dtype)
    return (images - mean) / std


@cache
def _mean_and_std(normalisation: str, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Kept on the device: copying them there anew would halt the host at every step."""
    mean, std = NORMALISATIONS[normalisation]
    shape = (1, -1, 1, 1)
    return (
        torch.tensor(mean, device=device, dtype=dtype).view(shape),
        torch.tensor(std, device=device, dtype=dtype).view(shape),
    )


# --------------------------------------------------------------------------------------------- training


class Forward(Protocol):
    """A network as losses and attacks see it: images in the unit range to logits."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Float images [B, C, H, W] in [0, 1] to logits [B, K]."""


Loss = Callable[[Forward, Tensor, Tensor, Tensor], Tensor]
"""``loss(network, images, labels, indices)``: a scalar from images in [0, 1] (float [B, C, H, W]), their labels
(int64 [B]) and their positions in the training set (int64 [B]). It calls the network itself, so it may do so more
than once a batch, as Gold Loss Correction does."""

Perturb = Callable[[Forward, Tensor, Tensor], Tensor]
"""``perturb(network, images, labels)``: the images to train on instead, same shape and range."""

Sampler = Callable[[int, torch.Generator], Tensor]
"""``sampler(epoch, generator)``: the positions (int64 [M]) of the images of one epoch, in order; M is the same in
every epoch."""

Observe = Callable[[nn.Module], Mapping[str, Tensor]]
"""``observe(network)``: called in evaluation mode after the epochs that the recipe observes; what it returns is kept
in the history, and in the checkpoint of an unfinished training."""


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
        observed: By epoch (from 1), what ``observe`` returned.
    """

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    observed: dict[int, dict[str, Tensor]] = field(default_factory=dict)


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
    """Train ``network`` in place.

    Args:
        network: Takes normalised images; moved to the runtime's device.
        data: The training images; ``recipe.train_images`` is not applied here.
        recipe: How to train.
        seed: From which order, augmentation and dropout are drawn.
        runtime: Where, and in which precision.
        loss: What is minimised.
        perturb: Replaces the images of every batch before the step, as adversarial training does; by default
            images are used as they are.
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
        UserError: The checkpoint belongs to another training.
        ValueError: The sampler does not give equally many images in each epoch.
    """
    device = torch.device(runtime.device)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = _trainable_parameters(network, recipe)
    optimiser = torch.optim.SGD(
        trained.values(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
        fused=True,
    )
    images = DeviceImages(data.images, recipe.crop_padding, runtime.device)
    labels = data.labels.to(device)

    per_epoch = len(data) if sampler is None else len(sampler(1, generator(seed, "order", 1)))
    steps = math.ceil(per_epoch / recipe.batch_size)
    total_steps = recipe.epochs * steps
    forward = _forward(network, recipe.normalisation)

    history = History()
    state = _State(
        network,
        optimiser,
        trained,
        history,
        {"recipe": recipe.as_dict(), "seed": seed, "data": data.checksum},
    )
    first_epoch = state.load(checkpoint) if checkpoint is not None else 1
    saved_at = time.monotonic()
    observed = set(recipe.observed_epochs()) if observe is not None else set()
    bar = tqdm(
        total=recipe.epochs * per_epoch,
        initial=(first_epoch - 1) * per_epoch,
        desc=progress,
        unit="img",
        unit_scale=True,
        disable=progress is None,
        dynamic_ncols=True,
        mininterval=1.0,
    )
    with bar, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in range(first_epoch, recipe.epochs + 1):
            started = time.monotonic()
            train_mode(network)
            torch.manual_seed(stream_seed(seed, "dropout", epoch))
            order_stream = generator(seed, "order", epoch)
            order = (
                torch.randperm(len(data), generator=order_stream) if sampler is None else sampler(epoch, order_stream)
            )
            if len(order) != per_epoch:
                raise ValueError(f"the sampler gave {len(order)} images in epoch {epoch} but {per_epoch} in the first")
            order, top, left, mirrored = (part.to(device) for part in _augmentation(order, recipe, seed, epoch))
            losses = torch.zeros(steps, device=device)
            for step in range(steps):
                part = slice(step * recipe.batch_size, (step + 1) * recipe.batch_size)
                indices = order[part]
                batch = to_unit_range(images.crop(indices, top[part], left[part], mirrored[part]))
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate_at((epoch - 1) * steps + step + 1, total_steps, recipe)
                with runtime.autocast():
                    if perturb is not None:
                        batch = perturb(forward, batch, labels[indices])
                    value = loss(forward, batch, labels[indices], indices)
                optimiser.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses[step] = value.detach()
                bar.update(len(indices))
                if device.type == "cpu" and step % 50 == 49:
                    _check_finite(losses[: step + 1], epoch, steps, total_steps, recipe)
                    bar.set_postfix(
                        epoch=f"{epoch}/{recipe.epochs}",
                        loss=f"{losses[max(0, step - 49) : step + 1].mean():.3f}",
                    )
            _check_finite(losses, epoch, steps, total_steps, recipe)
            history.losses.append(float(losses.mean()))
            history.seconds += time.monotonic() - started
            history.images += len(order)
            bar.set_postfix(epoch=f"{epoch}/{recipe.epochs}", loss=f"{history.losses[-1]:.3f}")
            if epoch in observed and observe is not None:
                network.eval()
                history.observed[epoch] = dict(observe(network))
            due = time.monotonic() - saved_at >= checkpoint_every
            if checkpoint is not None and due and epoch < recipe.epochs:
                state.save(checkpoint, epoch)
                saved_at = time.monotonic()
    network.eval()
    _check_weights(network, recipe)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return history


def _trainable_parameters(network: nn.Module, recipe: Recipe) -> dict[str, nn.Parameter]:
    network.requires_grad_(True)
    if recipe.trainable == "head":
        freeze_all_but_head(network)
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def _augmentation(order: Tensor, recipe: Recipe, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The epoch's order with a crop position and a flip for each of its images, all on the CPU."""
    stream = generator(seed, "augmentation", epoch)
    window = (2, len(order))
    top, left = torch.randint(0, 2 * recipe.crop_padding + 1, window, generator=stream)
    mirrored = torch.rand(len(order), generator=stream) < 0.5
    return order, top, left, mirrored if recipe.flip else torch.zeros_like(mirrored)


def _forward(network: Callable[[Tensor], Tensor], normalisation: str) -> Forward:
    return lambda images, /: network(normalise(images, normalisation))


def _check_finite(losses: Tensor, epoch: int, steps: int, total_steps: int, recipe: Recipe) -> None:
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        step = (epoch - 1) * steps + int(bad[0]) + 1
        rate = learning_rate_at(step, total_steps, recipe)
        raise TrainingDiverged(
            f"the training diverged: the loss was {float(losses[bad[0]])} at step {step} of {total_steps} "
            f"(epoch {epoch}, learning rate {rate:.3g}) with the recipe {json.dumps(recipe.as_dict())}; "
            "lower the learning rate"
        )


def _check_weights(network: nn.Module, recipe: Recipe) -> None:
    """The last update may spoil the weights although every loss was finite."""
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise TrainingDiverged(
            f"the training diverged: the weights are not finite after its last update (epoch {recipe.epochs}) "
            f"with the recipe {json.dumps(recipe.as_dict())}; lower the learning rate"
        )


class _State:
    """All that a training needs to go on: weights, momentum, epoch and history, in one safetensors file."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        trained: Mapping[str, nn.Parameter],
        history: History,
        description: dict[str, Any],
    ) -> None:
        self.network, self.optimiser, self.trained = network, optimiser, trained
        self.history, self.description = history, json.dumps(description, sort_keys=True)

    def save(self, path: Path, epoch: int) -> None:
        tensors = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.trained.items():
            if (buffer := self.optimiser.state[parameter].get("momentum_buffer")) is not None:
                tensors[f"momentum/{name}"] = buffer
        for observed_epoch, values in self.history.observed.items():
            tensors |= {f"observed/{observed_epoch}/{name}": value for name, value in values.items()}
        so_far = {name: getattr(self.history, name) for name in ("losses", "seconds", "images")}
        metadata = {"epoch": str(epoch), "history": json.dumps(so_far), "training": self.description}
        save_weights(path, tensors, metadata)

    def load(self, path: Path) -> int:
        """Take the state from ``path`` if it is there; return the first epoch to run."""
        if not path.exists():
            return 1
        tensors, metadata = load_weights(path)
        if metadata.get("training") != self.description:
            raise UserError(f"{path} belongs to another training; remove it or choose another folder")
        self.network.load_state_dict(
            {name.removeprefix("network/"): v for name, v in tensors.items() if name.startswith("network/")}
        )
        for name, parameter in self.trained.items():
            if (buffer := tensors.get(f"momentum/{name}")) is not None:
                self.optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
        for name, value in tensors.items():
            if name.startswith("observed/"):
                _, observed_epoch, quantity = name.split("/")
                self.history.observed.setdefault(int(observed_epoch), {})[quantity] = value
        for name, value in json.loads(metadata["history"]).items():
            setattr(self.history, name, value)
        return int(metadata["epoch"]) + 1


# --------------------------------------------------------------------------------------------- prediction


@torch.no_grad()
def predict(
    network: nn.Module, data: ImageSet, normalisation: str, runtime: Runtime, *, batch_size: int = 500
) -> Tensor:
    """Logits of all images, in evaluation mode and float32 (ties and small differences matter to the metrics).

    Args:
        network: Takes normalised images; its training mode is restored afterwards.
        data: N images.
        normalisation: A key of :data:`NORMALISATIONS`.
        runtime: Where to run.
        batch_size: Images at a time; it does not change the result beyond rounding.

    Returns:
        float32 [N, K] on the CPU.
    """
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
