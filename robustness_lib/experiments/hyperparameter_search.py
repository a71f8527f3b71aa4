"""How the recipes of the ``cpu`` profile were chosen: on training images that the target's subset leaves over.

Candidates are trained as the comparison trains them, with seed 0, and judged on 5,000 other training images; no test
image is used. The choice is made once for each number of training images, on CIFAR-10, and then left alone.

Methods: ``held-out`` is ordinary training; ``imbalanced`` is training on an imbalanced set, judged on a balanced one;
``adversarial`` is adversarial training, judged by accuracy under attack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.errors import UserError, choose
from robustness_lib.experiments import imbalance
from robustness_lib.experiments.adversarial import trained_and_evaluated
from robustness_lib.experiments.grid import Filters, Method, expand
from robustness_lib.experiments.presets import profile
from robustness_lib.methods.resampling import subsample
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.calibration import evaluate
from robustness_lib.metrics.robust_accuracy import Threat, attack
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import Context, Training, trained
from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.config import EPSILON, STEP_SIZE, TrainingConfig
from robustness_lib.training.trainer import predict

SECTION = "recipe_choice"
METHODS = {"held-out": Method(), "imbalanced": Method(), "adversarial": Method(adversary="untargeted")}

HELD_OUT_IMAGES = 5000

CANDIDATES: dict[int, dict[str, list[dict[str, int | float]]]] = {
    5000: {
        "tuned": [
            {"epochs": 10, "learning_rate": 0.01},
            {"epochs": 20, "learning_rate": 0.01},
            {"epochs": 20, "learning_rate": 0.03},
        ],
        "scratch": [{"epochs": 30}, {"epochs": 60}, {"epochs": 90}],
    },
    2000: {
        "tuned": [
            {"epochs": 10, "learning_rate": 0.01},
            {"epochs": 3, "learning_rate": 0.01, "batch_size": 32},
            {"epochs": 5, "learning_rate": 0.01, "batch_size": 32},
            {"epochs": 5, "learning_rate": 0.003, "batch_size": 32},
        ],
        "scratch": [
            {"epochs": 40},
            {"epochs": 10, "learning_rate": 0.05, "batch_size": 32},
            {"epochs": 20, "learning_rate": 0.05, "batch_size": 32},
            {"epochs": 20, "learning_rate": 0.1, "batch_size": 64},
        ],
    },
}
"""What is tried, by the number of training images: changes to the recipe of each arm. Two thousand images are for the
sections that need hundreds of trainings, where small batches make the most of few passes."""

IMBALANCED_CANDIDATES: dict[str, list[dict[str, int | float]]] = {
    "tuned": [
        {"images": 8_000, "learning_rate": 0.01, "batch_size": 32},
        {"images": 16_000, "learning_rate": 0.01, "batch_size": 32},
        {"images": 40_000, "learning_rate": 0.01, "batch_size": 32},
    ],
    "scratch": [
        {"images": 40_000, "learning_rate": 0.05, "batch_size": 32},
        {"images": 100_000, "learning_rate": 0.05, "batch_size": 32},
        {"images": 200_000, "learning_rate": 0.05, "batch_size": 32},
        {"images": 100_000, "learning_rate": 0.03, "batch_size": 16},
        {"images": 100_000, "learning_rate": 0.05, "batch_size": 16},
        {"images": 100_000, "learning_rate": 0.1, "batch_size": 128},
        {"images": 200_000, "learning_rate": 0.1, "batch_size": 128},
    ],
}
"""What is tried on imbalanced sets, at the two ends of their exponents (:data:`IMBALANCED_LEVELS`); ``images`` is how
many a training processes, in whole epochs, as in ``imbalance.IMAGES``."""

IMBALANCED_LEVELS = (0.2, 2.0)

ADVERSARIAL_CANDIDATES: dict[str, list[dict[str, int | float]]] = {
    "tuned": [
        {"epochs": 5, "learning_rate": 0.03},
        {"epochs": 10, "learning_rate": 0.03},
        {"epochs": 20, "learning_rate": 0.03},
    ],
    "scratch": [{"epochs": 15}, {"epochs": 30}],
}
"""What is tried in adversarial training."""

ATTACKED_IMAGES, ATTACK = 1000, Threat(epsilon=EPSILON, step_size=STEP_SIZE, steps=20)
"""How many of the held-out images are attacked, and how."""


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """One job a candidate, the tuned ones first.

    Only the ``cpu`` profile had a choice to make: the recipes of ``paper`` are the paper's.
    """
    if profile(profile_name).name != "cpu":
        return []
    filters["datasets"] = filters.get("datasets") or ["cifar10"]
    filters["seeds"] = filters.get("seeds") or [0]
    overrides = dict(filters.get("overrides") or {})
    sizes = [overrides["train_images"]] if "train_images" in overrides else [str(size) for size in CANDIDATES]
    candidates = []
    methods = filters.get("methods") or ["held-out"]
    for method in methods:
        choose(method, METHODS, f"method of the section {SECTION}")
    if "adversarial" in methods:
        filters["methods"] = ["adversarial"]
        for job in expand(SECTION, profile_name, METHODS, TrainingConfig, **filters):
            changes = ADVERSARIAL_CANDIDATES["scratch" if job.init == SCRATCH else "tuned"]
            candidates += [replace(job, recipe={**job.recipe, **change}) for change in changes]
    if "imbalanced" in methods:
        filters["methods"] = ["normal"]
        filters["chosen_levels"] = filters.get("chosen_levels") or IMBALANCED_LEVELS
        for job in imbalance.jobs(profile_name, **filters):
            job = replace(job, section=SECTION, method="imbalanced")
            for change in IMBALANCED_CANDIDATES["scratch" if job.init == SCRATCH else "tuned"]:
                candidates.append(_as_long(job, change))
    filters["methods"], filters["chosen_levels"] = ["held-out"], None
    for size in sizes if "held-out" in methods else []:
        choose(size, [str(size) for size in CANDIDATES], "number of training images with candidates")
        filters["overrides"] = {**overrides, "train_images": size}
        for job in expand(SECTION, profile_name, METHODS, TrainingConfig, **filters):
            for change in CANDIDATES[int(size)]["scratch" if job.init == SCRATCH else "tuned"]:
                candidates.append(replace(job, recipe={**job.recipe, "observations": 0, **change}))
    return sorted(candidates, key=lambda job: (job.init == SCRATCH, job.recipe["epochs"]))


def _as_long(job: Job, change: Mapping[str, int | float]) -> Job:
    """The job with other settings, and a training that processes so many ``images``, in whole epochs."""
    settings = dict(change)
    once = imbalance.images_trained(replace(job, recipe={**job.recipe, "epochs": 1}))
    epochs = imbalance.epochs_for(settings.pop("images"), once)
    return replace(job, recipe={**job.recipe, **settings, "epochs": epochs})


def left_over(data: ImageDataset, used: Tensor, seed: int) -> ImageDataset:
    """Training images to judge on: :data:`HELD_OUT_IMAGES` of those that are not trained on.

    Args:
        used: int64, indices of those that are trained on, or may be.
    """
    free = torch.ones(len(data), dtype=torch.bool)
    free[used] = False
    rest = torch.nonzero(free).flatten()
    if len(rest) < HELD_OUT_IMAGES:
        raise UserError(
            f"the recipe leaves {len(rest)} of the {len(data)} training images of {data.name} to judge on, but "
            f"{HELD_OUT_IMAGES} are needed; train on fewer (a smaller train_images, or largest on imbalanced sets)"
        )
    return data.subset(rest[torch.randperm(len(rest), generator=generator(seed, "held-out"))[:HELD_OUT_IMAGES]])


def run(job: Job, context: Context) -> Metrics:
    """Train a candidate and judge it on training images that it has not seen.

    On an imbalanced set, these are images that no exponent keeps, so all classes have equally many to draw from.

    Returns:
        The metrics of :func:`robustness_lib.metrics.calibration.evaluate`; for ``adversarial`` also
        ``adversarial_accuracy``.
    """
    data = context.images(job.dataset, "train")
    if job.method == "imbalanced":
        recipe: TrainingConfig = (thinned := imbalance.ImbalanceConfig.of(job.recipe))
        used = subsample(data.labels, [thinned.largest] * data.num_classes, job.seed)
        network, _ = imbalance.fitted(replace(job, method="normal"), context)
    else:
        recipe = TrainingConfig.of(job.recipe)
        used = class_balanced_subset(data.labels, recipe.train_images or len(data), job.seed)
        training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=recipe)
        fit = trained_and_evaluated if job.method == "adversarial" else trained
        network = fit(training, context, progress=job.label).network
    images = left_over(data, used, job.seed)
    logits = predict(network, images, recipe.normalisation, context.runtime)
    metrics = evaluate(logits.numpy(), images.labels.numpy())
    if job.method == "adversarial":
        few = images.subset(torch.arange(ATTACKED_IMAGES))
        metrics["adversarial_accuracy"] = attack(network, few, recipe.normalisation, context.runtime, ATTACK).accuracy()
    return metrics
