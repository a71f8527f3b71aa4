"""How the recipes of the ``cpu`` profile were chosen: on training images that the target's subset leaves over.

Candidates are trained as the comparison trains them, with seed 0, and judged on 5,000 other training images; no test
image is used. The choice is made once for each number of training images, on CIFAR-10, and then left alone.

Methods: ``held-out`` is ordinary training; ``imbalanced`` is training on an imbalanced set, judged on a balanced one;
``adversarial`` is adversarial training, judged by accuracy under attack.
"""

from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.errors import UserError, choose
from robustness_lib.experiments import imbalance
from robustness_lib.experiments.adversarial import trained_and_evaluated
from robustness_lib.experiments.grid import SETTINGS, Filters, Method, expand
from robustness_lib.experiments.presets import profile
from robustness_lib.methods.pgd import Threat
from robustness_lib.methods.resampling import subsample
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.calibration import evaluate
from robustness_lib.metrics.robust_accuracy import attack
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import Context, Training, trained
from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.config import EPSILON, STEP_SIZE, TrainingConfig
from robustness_lib.training.trainer import predict

SECTION = "recipe_choice"
METHODS = {"held-out": Method(), "imbalanced": Method(), "adversarial": Method(adversary="untargeted")}

HELD_OUT_IMAGES = 5000
ATTACKED_IMAGES, ATTACK = 1000, Threat(epsilon=EPSILON, step_size=STEP_SIZE, steps=20)  # of the held-out images

CANDIDATES: dict[str, dict[str, list[dict[str, Any]]]] = SETTINGS[SECTION]

IMBALANCED_LEVELS = (0.2, 2.0)  # both ends of the exponents
SIZES = ("5000", "2000")  # numbers of training images


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """One job per candidate. Only ``cpu`` had a choice to make: the recipes of ``paper`` are the paper's."""
    if profile(profile_name).name != "cpu":
        return []
    filters["datasets"] = filters.get("datasets") or ["cifar10"]
    filters["seeds"] = filters.get("seeds") or [0]
    overrides = filters.get("overrides") or {}
    planned: list[tuple[str, Job]] = []
    for method in filters.get("methods") or ["held-out"]:
        chosen: Filters = {**filters, "methods": [choose(method, METHODS, f"method of the section {SECTION}")]}
        if method == "imbalanced":
            chosen |= {"methods": ["normal"], "chosen_levels": filters.get("chosen_levels") or IMBALANCED_LEVELS}
            planned += [(method, job) for job in imbalance.jobs(profile_name, **chosen)]
        elif method == "adversarial":
            planned += [(method, job) for job in expand(SECTION, profile_name, METHODS, TrainingConfig, **chosen)]
        else:
            for size in [overrides["train_images"]] if "train_images" in overrides else SIZES:
                choose(size, SIZES, "number of training images with candidates")
                chosen["overrides"] = {**overrides, "train_images": size, "observations": "0"}
                planned += [(size, job) for job in expand(SECTION, profile_name, METHODS, TrainingConfig, **chosen)]
    return [
        replace(job, section=SECTION, method=kind if kind in METHODS else "held-out", recipe={**job.recipe, **changes})
        for kind, job in planned
        for row in CANDIDATES[kind]["scratch" if job.init == SCRATCH else "tuned"]
        for changes in [_in_epochs(row, job) if kind == "imbalanced" else row]
    ]


def _in_epochs(row: dict[str, Any], job: Job) -> dict[str, Any]:
    """A candidate for an imbalanced set, whose length is given in images."""
    classes = imbalance.SIZES["cpu"].get(job.dataset, (10,))[0]
    sizes = imbalance.ImbalanceConfig.of(job.recipe).sizes(classes, job.level)
    epochs = max(1, round(row["images"] / sum(sizes)))
    return {"epochs": epochs, **{name: value for name, value in row.items() if name != "images"}}


def left_over(data: ImageDataset, used: Tensor, seed: int) -> ImageDataset:
    """Training images to judge on, none of those at ``used`` (int64), which are trained on."""
    rest = torch.from_numpy(np.setdiff1d(np.arange(len(data)), used.numpy()))
    if len(rest) < HELD_OUT_IMAGES:
        raise UserError(
            f"the recipe leaves {len(rest)} of the {len(data)} training images of {data.name} to judge on, but "
            f"{HELD_OUT_IMAGES} are needed; train on fewer (a smaller train_images, or largest on imbalanced sets)"
        )
    return data.subset(rest[torch.randperm(len(rest), generator=generator(seed, "held-out"))[:HELD_OUT_IMAGES]])


def run(job: Job, context: Context) -> Metrics:
    """Train a candidate and judge it on images that it has not seen; of an imbalanced set, that no exponent keeps."""
    data = context.images(job.dataset, "train")
    config: TrainingConfig
    if job.method == "imbalanced":
        config = thinned = imbalance.ImbalanceConfig.of(job.recipe)
        used = subsample(data.labels, [thinned.largest] * data.num_classes, job.seed)
        network, _ = imbalance.fitted(replace(job, method="normal"), context)
    else:
        config = TrainingConfig.of(job.recipe)
        used = class_balanced_subset(data.labels, config.train_images or len(data), job.seed)
        training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=config)
        fit = trained_and_evaluated if job.method == "adversarial" else trained
        network = fit(training, context, progress=job.label).network
    images = left_over(data, used, job.seed)
    logits = predict(network, images, config.normalisation, context.runtime)
    metrics = evaluate(logits.numpy(), images.labels.numpy())
    if job.method == "adversarial":
        few = images.subset(torch.arange(ATTACKED_IMAGES))
        metrics["adversarial_accuracy"] = attack(network, few, config.normalisation, context.runtime, ATTACK).accuracy()
    return metrics
