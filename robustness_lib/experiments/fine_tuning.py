"""Trainings that are evaluated on the way: what a network says about every test set, observation by observation (P2).

:func:`fit` trains a whole network, :func:`fit_head` a linear layer on features that are computed once. Both keep
the evaluations, with the network, under the key of the training's description; a second call reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset
from robustness_lib.data.io import read_npz, write_npz
from robustness_lib.errors import UserError
from robustness_lib.experiments.shifted_test_sets import TargetTests, scores_of
from robustness_lib.files import locked
from robustness_lib.methods.baseline_models import Score
from robustness_lib.methods.checks import Floats
from robustness_lib.models.architectures import build, new_head
from robustness_lib.models.checkpoints import save_weights
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import Context, Training, save_trained, target_images
from robustness_lib.runner.records import short_hash
from robustness_lib.training.config import TrainingConfig, early_steps
from robustness_lib.training.trainer import History, predict, train

Convert = Callable[[Tensor], Tensor]
"""Logits of a network's head [N, J] to scores of the target's classes [N, K]."""


@dataclass(frozen=True)
class Evaluations:
    """What a model said about all test sets while it was trained.

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
) -> Evaluations:
    """Train a network and evaluate it on all test sets whenever the config says so; or read what was kept before.

    Args:
        convert: From the network's logits to scores of the target's classes.
        **hooks: ``loss`` or ``sampler`` for :func:`robustness_lib.training.trainer.train`; where a hook needs the
            network's parameters, a function of the network under the name ``loss_of``.

    Returns:
        The evaluations, the trained network's weights with them.
    """
    recipe = training.recipe.training_part()
    path = context.store / "networks" / f"{training.key}.safetensors"
    with locked(context.store / "locks" / f"{training.key}.lock"):
        if not path.exists():
            network = start()
            if (loss_of := hooks.pop("loss_of", None)) is not None:
                hooks["loss"] = loss_of(network)

            def evaluate_all(network: nn.Module) -> dict[str, Tensor]:
                return scores_of(
                    lambda images: convert(predict(network, images, recipe.normalisation, context.runtime)), tests
                )

            history = train(
                network,
                target_images(training, context) if data is None else data,
                recipe,
                seed=training.seed,
                runtime=context.runtime,
                observe=evaluate_all,
                checkpoint=path.with_suffix(".partial.safetensors"),
                checkpoint_every=context.checkpoint_every,
                progress=progress if context.progress else None,
                **hooks,
            )
            save_trained(path, network, history, training.as_dict())
        weights, observed, _ = context.read_network(path)
    return _evaluations(observed, weights)


def fit_without_network(
    training: Training, tests: TargetTests, context: Context, *, score: Callable[[], Score]
) -> Evaluations:
    """The same for a model that is no network: fitted once, only its scores are kept."""
    path = context.store / "networks" / f"{training.key}.safetensors"
    with locked(context.store / "locks" / f"{training.key}.lock"):
        if not path.exists():
            found = {f"observed/{name}": value[None] for name, value in scores_of(score(), tests).items()}
            description = json.dumps(training.as_dict(), sort_keys=True)
            save_weights(path, {"observed/epochs": torch.ones(1), **found}, {"training": description})
        _, observed, _ = context.read_network(path)
    return _evaluations(observed, {})


def evaluate_once(
    network: nn.Module, tests: TargetTests, recipe: TrainingConfig, context: Context, convert: Convert
) -> Evaluations:
    """What a network says without any training."""
    found = scores_of(lambda images: convert(predict(network, images, recipe.normalisation, context.runtime)), tests)
    return Evaluations(np.zeros(1), {name: value.numpy()[None] for name, value in found.items()}, {})


def _evaluations(observed: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Evaluations:
    scores = {name: value.numpy() for name, value in observed.items() if name != "epochs"}
    return Evaluations(observed["epochs"].double().numpy(), scores, weights)


def fit_head(
    training: Training,
    tests: TargetTests,
    context: Context,
    *,
    extractor: Callable[[], nn.Module],
    data: ImageDataset | None = None,
) -> Evaluations:
    """Train a linear layer on features that are computed once, without augmentation (P2 B.4, C.6).

    Returns:
        The evaluations; the weights are those of the layer alone.
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

            def evaluate_all(layer: nn.Module) -> dict[str, Tensor]:
                return scores_of(lambda part: layer(known[id(part)]), tests)

            layer, history = _train_layer(known[id(images)], images.labels, images.num_classes, training, evaluate_all)
            save_trained(path, layer, history, training.as_dict())
        weights, observed, _ = context.read_network(path)
    return _evaluations(observed, weights)


def _train_layer(
    inputs: Tensor,
    labels: Tensor,
    classes: int,
    training: Training,
    score: Callable[[nn.Module], Mapping[str, Tensor]],
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
            history.observed[epoch] = dict(score(layer))

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


def cross_validated_scores(
    data: ImageDataset, recipe: TrainingConfig, context: Context, *, cuts: int = 1, seed: int = 0
) -> Floats:
    """Our own score of every training image, computed once and kept.

    Returns:
        [N], the probability of the right label, in [0, 1]: the higher the easier.
    """
    description = {"data": data.checksum, "recipe": recipe.training_part().as_dict(), "cuts": cuts, "seed": seed}
    path = context.store / "difficulty" / f"{short_hash(description)}.npz"
    with locked(context.store / "locks" / f"difficulty-{short_hash(description)}.lock"):
        if not path.exists():
            scores = np.zeros(len(data))
            for cut in range(cuts):
                halves = torch.randperm(len(data), generator=generator(seed, "halves", cut)).chunk(2)
                for half, (mine, others) in enumerate((halves, halves[::-1])):
                    network = build(recipe.architecture, data.num_classes, recipe.dropout, seed + 2 * cut + half)
                    progress = f"difficulty, half {half + 1}" if context.progress else None
                    train(network, data.subset(mine), recipe, seed=seed, runtime=context.runtime, progress=progress)
                    logits = predict(network, data.subset(others), recipe.normalisation, context.runtime)
                    own = logits.double().softmax(1)[torch.arange(len(others)), data.labels[others]]
                    scores[others.numpy()] += own.numpy() / cuts
            write_npz(path, {"scores": scores})
        return np.asarray(read_npz(path, ("scores",))["scores"])
