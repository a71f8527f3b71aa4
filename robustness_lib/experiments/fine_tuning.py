"""Trainings that are looked at on the way: what a network says about every test set, observation by observation (P2).

:func:`fit` trains a whole network, :func:`fit_head` a linear layer on features that are computed once. Both keep what
they saw, with the network, under the key of the training's description; a second call reads it. Beside them is what
P2's factors need: networks that see their images enlarged, features of networks of other libraries, an order in which
images of pre-training come again, and weights between two networks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.experiments.shifted_test_sets import Score, TargetTests, scores_of
from robustness_lib.files import locked
from robustness_lib.models.architectures import features, head, new_head
from robustness_lib.models.checkpoints import save_weights
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import PUBLIC, Context, Training, save_trained, target_images
from robustness_lib.training.config import TrainingConfig, early_steps
from robustness_lib.training.data_loader import normalise, to_unit_range
from robustness_lib.training.trainer import History, Sampler, predict, train

Convert = Callable[[Tensor], Tensor]
"""Logits of a network's head [N, J] to scores of the target's classes [N, K]."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a model while it was trained.

    Attributes:
        epochs: float64 [E], when: epochs trained, a part of one within the first; 0 before training.
        scores: By name of the test set, float32 [E, N, K].
        weights: The trained network's state; empty for a model that is none.
    """

    epochs: npt.NDArray[np.float64]
    scores: Mapping[str, npt.NDArray[np.float32]]
    weights: Mapping[str, Tensor]


def as_they_are(logits: Tensor) -> Tensor:
    """Logits of the target's own head, which are scores."""
    return logits


def fit(
    training: Training,
    tests: TargetTests,
    context: Context,
    *,
    start: Callable[[], nn.Module],
    data: ImageDataset | None = None,
    convert: Convert = as_they_are,
    progress: str | None = None,
    **hooks: Any,
) -> Seen:
    """Train a network and look at it on all test sets whenever the recipe says so; or read what was seen before.

    Args:
        convert: From the network's logits to scores of the target's classes.
        **hooks: ``loss`` or ``sampler`` for :func:`robustness_lib.training.trainer.train`; where a hook needs the
            network's parameters, a function of the network under the name ``loss_of``.

    Returns:
        What was seen, the trained network's weights with it.
    """
    recipe = training.recipe.training_part()
    path = context.store / "networks" / f"{training.key}.safetensors"
    with locked(context.store / "locks" / f"{training.key}.lock"):
        if not path.exists():
            network = start()
            if (loss_of := hooks.pop("loss_of", None)) is not None:
                hooks["loss"] = loss_of(network)

            def look(network: nn.Module) -> dict[str, Tensor]:
                return scores_of(
                    lambda images: convert(predict(network, images, recipe.normalisation, context.runtime)), tests
                )

            history = train(
                network,
                target_images(training, context) if data is None else data,
                recipe,
                seed=training.seed,
                runtime=context.runtime,
                observe=look,
                checkpoint=path.with_suffix(".partial.safetensors"),
                checkpoint_every=context.checkpoint_every,
                progress=progress if context.progress else None,
                **hooks,
            )
            save_trained(path, network, history, training.as_dict())
        weights, observed, _ = context.read_network(path)
    return _seen(observed, weights)


def fit_without_network(
    training: Training, tests: TargetTests, context: Context, *, score: Callable[[], Score]
) -> Seen:
    """The same for a model that is no network: fitted once, only its scores are kept."""
    path = context.store / "networks" / f"{training.key}.safetensors"
    with locked(context.store / "locks" / f"{training.key}.lock"):
        if not path.exists():
            found = {f"observed/{name}": value[None] for name, value in scores_of(score(), tests).items()}
            description = json.dumps(training.as_dict(), sort_keys=True)
            save_weights(path, {"observed/epochs": torch.ones(1), **found}, {"training": description})
        _, observed, _ = context.read_network(path)
    return _seen(observed, {})


def look_once(
    network: nn.Module, tests: TargetTests, recipe: TrainingConfig, context: Context, convert: Convert
) -> Seen:
    """What a network says without any training."""
    found = scores_of(lambda images: convert(predict(network, images, recipe.normalisation, context.runtime)), tests)
    return Seen(np.zeros(1), {name: value.numpy()[None] for name, value in found.items()}, {})


def _seen(observed: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Seen:
    scores = {name: value.numpy() for name, value in observed.items() if name != "epochs"}
    return Seen(observed["epochs"].double().numpy(), scores, weights)


# --------------------------------------------------------------------------------------------- the last layer alone


class Features(nn.Module):
    """A network without its head: normalised images [N, 3, H, W] to what the head sees, [N, d]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Features of normalised images."""
        if isinstance(self.network, ImageSizeAdapter):
            return features(self.network.network, self.network.resized(x))
        return features(self.network, x)


def fit_head(
    training: Training,
    tests: TargetTests,
    context: Context,
    *,
    extractor: Callable[[], nn.Module],
    data: ImageDataset | None = None,
) -> Seen:
    """Train a linear layer on features that are computed once, without augmentation (P2 B.4, C.6).

    Returns:
        What was seen; the weights are those of the layer alone.
    """
    recipe = training.recipe.training_part()
    if recipe.schedule != "constant":
        raise UserError(f"the last layer alone is trained at a constant rate, not schedule={recipe.schedule}")
    path = context.store / "networks" / f"{training.key}.safetensors"
    with locked(context.store / "locks" / f"{training.key}.lock"):
        if not path.exists():
            images = target_images(training, context) if data is None else data
            network = extractor()

            def compute(images: ImageDataset) -> Tensor:
                return predict(network, images, recipe.normalisation, context.runtime)

            known = {id(part): compute(part) for part in (images, tests.original, *tests.shifted.values())}

            def look(layer: nn.Module) -> dict[str, Tensor]:
                return scores_of(lambda part: layer(known[id(part)]), tests)

            layer, history = _train_layer(known[id(images)], images.labels, images.num_classes, training, look)
            save_trained(path, layer, history, training.as_dict())
        weights, observed, _ = context.read_network(path)
    return _seen(observed, weights)


def _train_layer(
    inputs: Tensor, labels: Tensor, classes: int, training: Training, look: Callable[[nn.Module], Mapping[str, Tensor]]
) -> tuple[nn.Module, History]:
    recipe, history = training.recipe, History()
    layer = nn.Sequential(nn.Linear(inputs.shape[1], classes))
    new_head(layer, classes, training.seed)
    optimiser = torch.optim.SGD(
        layer.parameters(),
        recipe.learning_rate,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov and recipe.momentum > 0,
    )
    early = early_steps(recipe, math.ceil(len(inputs) / recipe.batch_size))

    def observe(epoch: float) -> None:
        with torch.no_grad():
            history.observed[epoch] = dict(look(layer))

    for epoch in range(1, recipe.epochs + 1):
        order = torch.randperm(len(inputs), generator=generator(training.seed, "order", epoch))
        batches, total = torch.split(order, recipe.batch_size), 0.0
        for step, batch in enumerate(batches, start=1):
            loss = F.cross_entropy(layer(inputs[batch]), labels[batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            total += float(loss.detach()) * len(batch)
            if epoch == 1 and step in early:
                observe(step / len(batches))
        history.losses.append(total / len(inputs))
        if not np.isfinite(total):
            raise UserError(f"the last layer diverged in epoch {epoch}; lower the learning rate")
        if epoch in recipe.observed_epochs():
            observe(epoch)
    return layer, history


# --------------------------------------------------------------------------------------------- other networks


class ImageSizeAdapter(nn.Module):
    """A network that sees its images enlarged, as P2's torchvision networks see CIFAR-10 at 224 pixels (P2 B.4).

    Images are enlarged bilinearly after the crop; P2 enlarges before it, from 32 to 224 pixels, and crops with a
    padding of 28, which is 4 of the 32: the same but for crops between two pixels of the original.

    Args:
        network: Any network.
        size: Pixels of a side.
    """

    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def resized(self, x: Tensor) -> Tensor:
        """Images [N, 3, H, W] at the network's size."""
        return F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of normalised images [N, 3, H, W]."""
        logits: Tensor = self.network(self.resized(x))
        return logits


def at_size(network: nn.Module, size: int) -> nn.Module:
    """The network as it is for size 0, else one that sees its images enlarged (:class:`ImageSizeAdapter`)."""
    return ImageSizeAdapter(network, size) if size else network


def public_features(init: str, size: int) -> nn.Module:
    """The features of a network that timm publishes, such as Big Transfer (P2 B.2: BiT's last layer alone is tuned).

    Args:
        size: Pixels that images are enlarged to; 0 for none.

    Returns:
        Normalised images to features [N, d].
    """
    name = init.removeprefix(PUBLIC)
    try:
        import timm
    except ImportError:
        raise UserError(
            f"{init} is a network of timm, which is not installed; pip install robustness-lib[models]"
        ) from None
    try:
        network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # no such name, no connection, no disk: all of timm's and its hub's errors
        raise UserError(
            f"timm cannot provide {name} ({str(error).splitlines()[0]}); check its name, or the connection"
        ) from error
    return at_size(network, size)


# --------------------------------------------------------------------------------------------- replay


def with_replay(
    target: ImageDataset, replayed: ImageDataset, recipe: TrainingConfig, ratio: int
) -> tuple[ImageDataset, TrainingConfig, Sampler]:
    """The target's images with images of pre-training that come again, ``ratio`` of them an image (P2 C.11).

    Returns:
        All images, the target's first; the recipe, whose batches are larger by the replayed images; and the order, in
        which every batch has the target's and the replayed images in this ratio.
    """
    (height, width), (rows, columns) = target.images.shape[2:], replayed.images.shape[2:]
    if (height, width) != (rows, columns):
        raise UserError(
            f"{replayed.name} has images of {rows}x{columns} pixels but {target.name} of {height}x{width}, so they "
            "cannot be trained on together; choose another checkpoint"
        )
    names = max(target.class_names, replayed.class_names, key=len)
    both = ImageDataset(
        f"{target.name}, with {replayed.name}",
        torch.cat([target.images, replayed.images]),
        torch.cat([target.labels, replayed.labels]),
        names,
    )

    def sampler(epoch: int, stream: torch.Generator) -> Tensor:
        own = torch.randperm(len(target), generator=stream)
        count = ratio * len(target)
        rounds = -(-count // len(replayed))
        again = torch.cat([torch.randperm(len(replayed), generator=stream) for _ in range(rounds)])[:count]
        parts = zip(torch.split(own, recipe.batch_size), torch.split(again, recipe.batch_size * ratio), strict=True)
        return torch.cat([torch.cat([mine, old + len(target)]) for mine, old in parts])

    return both, replace(recipe, batch_size=recipe.batch_size * (1 + ratio)), sampler


# --------------------------------------------------------------------------------------------- weight space


def interpolated(before: nn.Module, after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the straight line between two networks of one architecture (Wortsman et al. 2022, WiSE-FT).

    Args:
        before: The network at share 0.
        after: The state at share 1.

    Returns:
        The state there; counts, which are no real numbers, are those of ``after``.
    """
    mixed = {}
    for name, value in before.state_dict().items():
        end = after[name].to(value.device)
        mixed[name] = value + share * (end - value) if value.is_floating_point() else end
    return mixed


def renew_statistics(network: nn.Module, data: ImageDataset, recipe: TrainingConfig, context: Context) -> None:
    """Measure the batch statistics of a network anew, in place: those between two networks belong to neither."""
    device = context.runtime.device
    network.to(device)
    batches = [
        normalise(to_unit_range(part.to(device)), recipe.normalisation)
        for part in torch.split(data.images, recipe.batch_size)
    ]
    torch.optim.swa_utils.update_bn(batches, network)
    network.eval()


def head_penalty_loss(network: nn.Module, loss: Any, strength: float) -> Any:
    """A loss and ``strength`` times the squared distance of the head, its bias included, from where it is (P2 C.12)."""
    layer = head(network)
    first = [value.detach().clone() for value in layer.parameters()]
    kept = {first[0].device: first}

    def penalised(forward: Any, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        if labels.device not in kept:
            kept[labels.device] = [value.to(labels.device) for value in first]
        away = sum(((now - then) ** 2).sum() for now, then in zip(layer.parameters(), kept[labels.device], strict=True))
        total: Tensor = loss(forward, images, labels, indices) + strength * away
        return total

    return penalised
