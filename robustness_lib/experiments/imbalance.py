"""The class imbalance section: networks trained where some classes have few images (P1 §3.3, Table 3, Figure 3).

The training set is thinned out so that class sizes fall by a power law; the test set stays whole.

Methods: ``normal`` trains on the thinned set as it is; ``cost-sensitive`` weights the loss of an example by one over
the size of its class; ``oversampling`` repeats images of the smaller classes until all classes are equally large;
``smote`` makes new images for them instead. On request: ``excluded`` is ``normal`` with a network that was pre-trained
without the classes related to CIFAR-10.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from robustness_lib.errors import UserError
from robustness_lib.experiments.grid import Filters, GridPoint, Method, expand
from robustness_lib.methods import resampling
from robustness_lib.methods.checks import check_labels, check_whole
from robustness_lib.methods.interfaces import Loss
from robustness_lib.metrics import Metrics
from robustness_lib.runner.model_cache import Context, Training, keep_outputs, trained
from robustness_lib.runner.records import Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import cross_entropy, predict, weighted_cross_entropy

SECTION = "imbalance"
GAMMAS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)  # of P1 Table 3; the smaller, the stronger the imbalance
_LEVELS = {"smoke": (0.2, 2.0), "cpu": GAMMAS, "paper": GAMMAS}

METHODS = {
    **dict.fromkeys(("normal", "cost-sensitive", "oversampling", "smote"), Method(levels=_LEVELS)),
    "excluded": Method(arms=["tuned"], profiles=(), levels=_LEVELS, corpus="imagenet32-no-cifar10"),
}

ENLARGED = ("oversampling", "smote")  # the methods that make all classes as large as the largest


@dataclass(frozen=True, kw_only=True)
class ImbalanceConfig(TrainingConfig):
    """A training config and how the training set is thinned out."""

    largest: int = 5000  # images of the first class (P1: 5000 of CIFAR-10, 500 of CIFAR-100)
    smallest: int = 250  # images of the last class (P1: 250 and 25)
    law: str = "v1"  # one of methods.resampling.LAWS
    smote_neighbours: int = 5  # how many nearest images SMOTE draws from

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sizes(2, 1.0)
        check_whole(self.smote_neighbours, "smote_neighbours", 1, "5 are usual")

    def sizes(self, num_classes: int, gamma: float | None) -> list[int]:
        """How many images each class keeps at an exponent."""
        return resampling.class_sizes(num_classes, gamma or 0.0, self.largest, self.smallest, self.law)


SIZES = {
    "smoke": {"synthetic": (10, 60, 6)},
    "cpu": {"cifar10": (10, 1000, 50), "cifar100": (100, 100, 6)},  # SMOTE with 5 neighbours needs 6 images
    "paper": {"cifar10": (10, 5000, 250), "cifar100": (100, 500, 25)},
}
"""By profile and data set the number of classes, images of the largest and of the smallest."""

IMAGES = {"smoke": {"scratch": 2000, "tuned": 600}, "cpu": {"scratch": 200_000, "tuned": 40_000}}
"""How many images a training processes, in whole epochs, so that all trainings of an arm are equally long. At ``paper``
they have P1's epochs, and one with oversampling or SMOTE takes several times as long as another."""


def _configure(config: ImbalanceConfig, point: GridPoint) -> ImbalanceConfig:
    """All images of the thinned set, the data set's class sizes, and for how long is trained."""
    config = replace(config, train_images=0, observations=0)
    if point.dataset not in SIZES[point.profile]:
        return config
    classes, largest, smallest = SIZES[point.profile][point.dataset]
    config = replace(config, largest=largest, smallest=smallest)
    count = classes * largest if point.method in ENLARGED else sum(config.sizes(classes, point.level))
    images = IMAGES.get(point.profile)
    epochs = max(1, round(images[point.arm] / count)) if images else {"scratch": 100, "tuned": 50}[point.arm]
    return replace(config, epochs=epochs)


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile."""
    planned = expand(SECTION, profile_name, METHODS, ImbalanceConfig, configure=_configure, **filters)
    for job in planned:
        config = ImbalanceConfig.of(job.recipe)
        config.sizes(2, job.level)
        if config.train_images:
            raise UserError(
                f"train_images is {config.train_images}, but this section draws its training images class by class; "
                "set largest and smallest instead"
            )
        if job.method == "smote":
            resampling.check_neighbours(config.smallest, config.smote_neighbours)
    return planned


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's network and measure it on the whole test set (:func:`evaluate`)."""
    config = ImbalanceConfig.of(job.recipe)
    network, metrics = fitted(job, context)
    test = context.images(job.dataset, "test")
    logits, labels = predict(network, test, config.normalisation, context.runtime).numpy(), test.labels.numpy()
    keep_outputs(job, context, {"logits": logits, "labels": labels})
    return evaluate(logits.argmax(1), labels, config.sizes(test.num_classes, job.level)) | metrics


def fitted(job: Job, context: Context) -> tuple[nn.Module, Metrics]:
    """The job's network on its imbalanced set; and for ``smote`` the time of making images, ``smote_seconds``."""
    config = ImbalanceConfig.of(job.recipe)
    data = context.images(job.dataset, "train")
    kept = resampling.subsample(data.labels, config.sizes(data.num_classes, job.level), job.seed)
    data = data.subset(kept, f"{data.name}, gamma {job.level:g}")
    metrics: Metrics = {}
    loss: Loss = cross_entropy
    if job.method == "cost-sensitive":
        loss = weighted_cross_entropy(resampling.class_weights(data.labels))
    elif job.method == "oversampling":
        data = resampling.oversample(data, job.seed)
    elif job.method == "smote":
        started = time.monotonic()
        data = resampling.smote(data, config.smote_neighbours, job.seed)
        metrics["smote_seconds"] = time.monotonic() - started
    return trained(training_of(job), context, data=data, progress=job.label, loss=loss).network, metrics


def training_of(job: Job) -> Training:
    """The description of the job's network; that of ``excluded`` is one of ``normal``."""
    config = ImbalanceConfig.of(job.recipe)
    method = "normal" if job.method == "excluded" else job.method
    words = f"imbalance, {method}, gamma {job.level}, {config.largest} to {config.smallest} by {config.law}"
    words += f", {config.smote_neighbours} neighbours" if method == "smote" else ""
    return Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=config, variant=words)


def evaluate(predictions: ArrayLike, labels: ArrayLike, sizes: Sequence[int]) -> Metrics:
    """All metrics of the section, fractions but for the class sizes, for predicted classes and labels [N].

    ``minority_error`` and ``majority_error`` are means of the class errors; ``minority_excess`` is the sum of the
    minority's class errors less that of the others, divided by K.
    """
    classes = check_labels(labels, len(sizes))
    wrong = check_labels(predictions, len(sizes), "predictions", len(classes)) != classes
    counts = np.bincount(classes, minlength=len(sizes))
    if not counts.all():
        raise UserError(
            f"the test images have {np.count_nonzero(counts)} classes and the training images {len(sizes)}; "
            "class-wise errors need test images of all of them"
        )
    errors = np.bincount(classes, wrong, minlength=len(sizes)) / counts
    few = resampling.minority_classes(sizes)
    return {
        "error": float(wrong.mean()),
        "minority_error": float(errors[few].mean()),
        "majority_error": float(errors[~few].mean()),
        "minority_excess": float((errors[few].sum() - errors[~few].sum()) / len(errors)),
        "balanced_accuracy": float(1 - errors.mean()),
        "class_error": [round(float(error), 5) for error in errors],
        "class_sizes": [float(size) for size in sizes],
    }
