"""The label noise section: training on wrong labels (P1 §3.2, Table 2, Figures 1 and 2).

A network trained from scratch is compared with one that was pre-trained and tuned, on labels that were corrupted with
a strength between 0 and 1; what is reported is the area under the test error over the strengths.

Methods: ``none`` trains on the corrupted labels as they are; ``forward`` is Forward correction; ``glc-5`` and
``glc-10`` are Gold Loss Correction with 5 and 10 % trusted labels; ``longer`` (Figure 1) is ``none`` from scratch for
many epochs at strength 0.6. On request only, the paper's variations of ``none``: ``none-allconv`` is another network,
``none-excluded`` and ``none-places365`` tune a checkpoint of another corpus, given by its id.

Noise: the recipe's ``noise`` says of which kind it is. Records of another kind than uniform have it in their method's
name (``forward-flip``), so that no table mixes them. Human noise is that of the image sets ``cifar10n-…``, whose
training labels come from annotators; such jobs have no strength, and the share of wrong labels is among their metrics.

At one seed both arms and all methods have the same corrupted labels. P1's code draws them with seed 1, which here is
the noise of seed 0; seed s draws with s + 1. With GLC all labels are corrupted before the trusted ones are put back,
where P1's code draws for the untrusted images alone: the same in distribution. Both stages of a correction begin with
the same weights, where P1's code draws those of the second anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.errors import UserError, choose
from robustness_lib.experiments.grid import Filters, GridPoint, Method, expand
from robustness_lib.experiments.presets import PROFILES, profile
from robustness_lib.methods.checks import Floats
from robustness_lib.methods.interfaces import Loss
from robustness_lib.methods.label_noise import KINDS, corrupt_labels, corruption_matrix, observed_matrix
from robustness_lib.methods.loss_correction import (
    TRUSTED,
    GoldLoss,
    estimate_forward_matrix,
    estimate_glc_matrix,
    forward_training_loss,
    matrix_error,
    trusted_split,
)
from robustness_lib.methods.loss_correction import forward_loss as forward_loss
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.calibration import area_under_error_curve as area_under_error_curve
from robustness_lib.runner.model_cache import Context, Trained, Training, keep_outputs, target_images, trained
from robustness_lib.runner.records import Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import cross_entropy, predict

SECTION = "label_noise"
STRENGTHS = tuple(tenths / 10 for tenths in range(11))
"""The corruption strengths of the paper."""

_LEVELS = {"smoke": STRENGTHS[::5], "cpu": STRENGTHS, "paper": STRENGTHS}
_LONGER = dict.fromkeys(PROFILES, (0.6,))  # the strength of Figure 1
_ON_REQUEST: dict[str, Any] = {"profiles": (), "levels": _LEVELS}

METHODS = {
    "none": Method(levels=_LEVELS),
    "forward": Method(levels=_LEVELS),
    "glc-5": Method(levels=_LEVELS),
    "glc-10": Method(levels=_LEVELS),
    "longer": Method(arms=["scratch"], levels=_LONGER, other_levels=False, changes={"schedule": "step"}),
    "none-allconv": Method(changes={"architecture": "allconv"}, **_ON_REQUEST),
    "none-excluded": Method(arms=["tuned"], corpus="imagenet32-no-cifar10", **_ON_REQUEST),
    "none-places365": Method(arms=["tuned"], corpus="places365", **_ON_REQUEST),
}

OUTLIER_PERCENTILE = 97.0
"""From which percentile on Forward passes over images, where it does."""

_FILTERED_CLASSES, _SHOWN_CLASSES = 10, 20
"""The most classes for which Forward passes over outliers, and for which a record holds matrices."""

_HUMAN, _CLEAN = "cifar10n-", "cifar10"
"""What the names of sets with human labels begin with, and the set that has their true labels."""

# --------------------------------------------------------------------------------------------- recipes


@dataclass(frozen=True, kw_only=True)
class LabelNoiseConfig(TrainingConfig):
    """A training recipe, how labels are corrupted, and how the corruption is corrected.

    The corrections have further settings of P1's code among those of every recipe: ``normalisation``, ``head_bias``
    and ``final_learning_rate`` (:data:`SETTINGS`).

    Attributes:
        noise: Kind of noise: one of :data:`robustness_lib.methods.label_noise.KINDS`, or ``"human"`` (the data set's
            own).
        noise_seed: From which labels are drawn (P1: 1); None for the job's seed + 1, so that every seed has labels of
            its own.
        filter_outliers: Whether Forward, on sets of at most 10 classes, passes over the images above the 97th
            percentile of a class's probability, as P1's code does.
        trusted: How GLC's trusted images are chosen (:func:`robustness_lib.methods.loss_correction.trusted_split`):
            P1's code takes the ``"first"`` of the file; ``"random"`` is a draw.
        separate_passes: Whether GLC's untrusted and trusted images go through the network one after the other, as in
            P1's code; false for all at once.
        nominal_divisor: Whether GLC divides a batch's loss by the nominal batch size, as P1's code does; false for the
            number of images in it.
    """

    noise: str = "uniform"
    noise_seed: int | None = None
    filter_outliers: bool = True
    trusted: str = "first"
    separate_passes: bool = True
    nominal_divisor: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.noise, (*KINDS, "human"), "kind of noise")
        choose(self.trusted, TRUSTED, "way to choose trusted images")
        if self.noise_seed is not None and not 0 <= self.noise_seed < 2**32:
            raise UserError(f"noise_seed is {self.noise_seed} but must be at least 0 and below 2**32; P1 takes 1")
        if self.observations < 1:
            raise UserError("observations is 0 but must be at least 1: the train error is measured at observations")


_SMALL = {"observations": 1, "trusted": "balanced", "separate_passes": False}  # one trusted image has no statistics

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "scratch": {"train_images": 200, "epochs": 6, **_SMALL},
        "tuned": {"train_images": 200, "epochs": 3, **_SMALL},
        "longer": {"epochs": 20, "observations": 5},
    },
    "cpu": {
        "scratch": {"train_images": 2000, "batch_size": 32, "epochs": 20, "learning_rate": 0.05, **_SMALL},
        "tuned": {"train_images": 2000, "batch_size": 32, "epochs": 3, "learning_rate": 0.01, **_SMALL},
        "longer": {"epochs": 60, "observations": 20},
    },
    "paper": {
        "scratch": {"observations": 10},
        "tuned": {"observations": 2},
        "longer": {"epochs": 200, "observations": 100},
    },
}
"""What is special to the section at each profile."""


def _configure(config: LabelNoiseConfig, point: GridPoint) -> LabelNoiseConfig:
    """Human noise where the data set has it; and at ``paper``, for Forward and GLC, the settings of P1's code.

    There images are normalised by CIFAR's statistics, although the checkpoint was pre-trained with others. At the
    smaller profiles these settings are those of ``none``, whose network is then the first stage of Forward.
    """
    changes: dict[str, Any] = {"noise": "human"} if point.dataset.startswith(_HUMAN) else {}
    if point.profile == "paper" and point.method.startswith(("forward", "glc")):
        changes |= {"normalisation": "cifar"}
        if point.arm == "tuned":
            changes |= {"head_bias": False, "learning_rate": 0.01, "final_learning_rate": 1e-7}
    return replace(config, **changes)


# --------------------------------------------------------------------------------------------- jobs


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile (:func:`robustness_lib.experiments.grid.expand`).

    Labels that people gave have no strength, so their data sets have one job where others have one a level.
    """
    levels = filters.get("chosen_levels")
    for strength in levels or ():
        if not 0 <= strength <= 1:
            raise UserError(f"the corruption strength is {strength} but must lie in [0, 1]; choose another")
    datasets = filters.get("datasets") or [name for name in profile(profile_name).datasets if "imagenet" not in name]
    human = [name for name in datasets if name.startswith(_HUMAN)]
    if levels and human == list(datasets):
        raise UserError(f"{', '.join(human)}: labels that people gave have no strength to choose; leave the levels out")
    without_levels = {name: replace(method, levels={}) for name, method in METHODS.items()}
    planned: list[Job] = []
    for names, methods, chosen in (
        ([name for name in datasets if name not in human], METHODS, levels),
        (human, without_levels, None),
    ):
        if names:
            filters["datasets"], filters["chosen_levels"] = names, chosen
            planned += expand(
                SECTION,
                profile_name,
                methods,
                LabelNoiseConfig,
                settings=SETTINGS,
                configure=_configure,
                smoke_seeds=1,
                **filters,
            )
    return [_named(job) for job in planned]


def _named(job: Job) -> Job:
    """The job, its kind of noise in its method's name where that is not uniform."""
    noise, human = job.recipe["noise"], job.dataset.startswith(_HUMAN)
    if (noise == "human") != human:
        sets = "annotators gave its labels; leave noise out" if human else f"choose one of {', '.join(KINDS)}"
        raise UserError(
            f"noise={noise} does not go with the data set {job.dataset}: {sets}, or choose another data set "
            f"({_HUMAN}… have human labels)"
        )
    return job if noise in ("uniform", "human") else replace(job, method=f"{job.method}-{noise}")


# --------------------------------------------------------------------------------------------- noise


@dataclass(frozen=True)
class NoisyLabels:
    """Training images before and after the corruption of their labels.

    Attributes:
        true: The images with their true labels.
        given: The same images with the labels that a network is trained on.
        matrix: float64 [K, K], the corruption matrix; with human noise how often each class got each label.
        what: What the given labels are, in words, as part of a training's description.
    """

    true: ImageDataset
    given: ImageDataset
    matrix: Floats
    what: str


def noisy_labels(job: Job, context: Context) -> NoisyLabels:
    """The training images of a job, their labels corrupted: the same ones for all methods and both arms at one seed.

    A subset is drawn by the true labels first; then labels are corrupted in file order.
    """
    recipe = LabelNoiseConfig.of(job.recipe)
    true = target_images(_training(job, recipe, ""), context)
    if recipe.noise == "human":
        given, count = context.images(job.dataset, "train").labels, recipe.train_images
        if count:
            given = given[class_balanced_subset(context.images(_CLEAN, "train").labels, count, job.seed)]
        matrix = observed_matrix(true.labels, given, true.num_classes)
        return NoisyLabels(true, true.with_labels(given), matrix, f"labels of {job.dataset}")
    seed = job.seed + 1 if recipe.noise_seed is None else recipe.noise_seed
    strength = job.level or 0.0
    matrix = corruption_matrix(true.num_classes, strength, recipe.noise, seed=seed)
    given = torch.from_numpy(corrupt_labels(true.labels, matrix, seed))
    what = f"{recipe.noise} noise of strength {strength:g}, seed {seed}"
    return NoisyLabels(true, true.with_labels(given), matrix, what)


# --------------------------------------------------------------------------------------------- training


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's networks and measure the last one on the whole test set.

    Returns:
        ``error`` on the test set after the last epoch; ``train_error`` against the labels trained on, and
        ``train_error_clean`` against the true ones, both of the training images without augmentation; all three by
        ``history_epoch`` as ``history_…``; ``changed_labels``, the share of labels that the noise made wrong (before
        GLC's trusted ones are put back). With an estimate of the corruption matrix its ``matrix_error``
        (:func:`robustness_lib.methods.loss_correction.matrix_error`) and, where there are at most 20 classes,
        ``estimated_matrix`` and ``true_matrix`` row by row. Everything is a fraction.
    """
    recipe = LabelNoiseConfig.of(job.recipe)
    noise = noisy_labels(job, context)
    correction = CORRECTIONS.get(job.method.removesuffix(f"-{recipe.noise}"), _uncorrected)
    result, estimate = correction(job, recipe, noise, context)
    test = context.images(_true_set(job), "test")
    logits = predict(result.network, test, recipe.normalisation, context.runtime)
    curves = {"error": 1 - result.correct.mean(axis=1), **result.further}
    metrics: Metrics = {
        **{name: float(values[-1]) for name, values in sorted(curves.items())},
        **{f"history_{name}": [round(float(value), 5) for value in values] for name, values in sorted(curves.items())},
        "history_epoch": [float(epoch) for epoch in result.epochs],
        "changed_labels": float((noise.true.labels != noise.given.labels).double().mean()),
    }
    outputs = {"logits": logits.numpy(), "labels": test.labels.numpy()}
    if estimate is not None:
        outputs["estimated_matrix"] = estimate
        metrics["matrix_error"] = matrix_error(estimate, noise.matrix)
        if len(estimate) <= _SHOWN_CLASSES:
            metrics["estimated_matrix"] = [round(float(value), 5) for value in estimate.flat]
            metrics["true_matrix"] = [round(float(value), 5) for value in noise.matrix.flat]
    keep_outputs(job, context, outputs)
    return metrics


def _uncorrected(job: Job, recipe: LabelNoiseConfig, noise: NoisyLabels, context: Context) -> tuple[Trained, None]:
    """A network trained on the noisy labels as they are."""
    return _fit(_training(job, recipe, noise.what), noise.given, noise.true.labels, context, job.label), None


def _forward(job: Job, recipe: LabelNoiseConfig, noise: NoisyLabels, context: Context) -> tuple[Trained, Floats]:
    """A network trained on the noisy labels, the estimate that it gives, and a second one trained through it."""
    first = _training(job, recipe, noise.what)
    network = _fit(first, noise.given, noise.true.labels, context, f"{job.label}, stage 1").network
    few = noise.true.num_classes <= _FILTERED_CLASSES
    percentile = OUTLIER_PERCENTILE if recipe.filter_outliers and few else None
    estimate = estimate_forward_matrix(_probabilities(network, noise.given, recipe, context), percentile)
    second = _training(job, recipe, f"{noise.what}; Forward through {first.key}, outliers from {percentile}")
    loss = forward_training_loss(estimate)
    return _fit(second, noise.given, noise.true.labels, context, f"{job.label}, stage 2", loss), estimate


def _glc(
    job: Job, recipe: LabelNoiseConfig, noise: NoisyLabels, context: Context, share: float
) -> tuple[Trained, Floats]:
    """The same with Gold Loss Correction, whose first network does not see the trusted images."""
    trusted = trusted_split(noise.true.labels, share, recipe.trusted, job.seed)
    what = f"{noise.what}; {recipe.trusted} {share:g} trusted"
    first = _training(job, replace(recipe.training_part(), observations=0), f"{what}, the rest")
    label = f"{job.label}, stage 1"
    network = trained(first, context, progress=label, data=noise.given.subset(~trusted)).network
    gold = noise.true.subset(trusted)
    estimate = estimate_glc_matrix(_probabilities(network, gold, recipe, context), gold.labels)
    batch_size = recipe.batch_size if recipe.nominal_divisor else None
    passes = "separate" if recipe.separate_passes else "joint"
    second = _training(job, recipe, f"{what}; GLC through {first.key}, {passes} passes, divided by {batch_size}")
    given = noise.given.with_labels(torch.where(trusted, noise.true.labels, noise.given.labels))
    loss = GoldLoss(estimate, trusted, batch_size=batch_size, separate_passes=recipe.separate_passes)
    return _fit(second, given, noise.true.labels, context, f"{job.label}, stage 2", loss), estimate


Correction = Callable[[Job, LabelNoiseConfig, NoisyLabels, Context], tuple[Trained, Floats | None]]
"""What a method trains: its last network, and its estimate of the corruption matrix where it makes one."""

CORRECTIONS: dict[str, Correction] = {
    "forward": _forward,
    "glc-5": partial(_glc, share=0.05),
    "glc-10": partial(_glc, share=0.10),
}
"""By method; the others train without a correction."""


def _training(job: Job, recipe: TrainingConfig, variant: str) -> Training:
    return Training(dataset=_true_set(job), init=job.init, seed=job.seed, recipe=recipe, variant=variant)


def _true_set(job: Job) -> str:
    """The image set with the true labels of the job's."""
    return _CLEAN if job.dataset.startswith(_HUMAN) else job.dataset


def _fit(
    training: Training, given: ImageDataset, true: Tensor, context: Context, label: str, loss: Loss = cross_entropy
) -> Trained:
    """Train on given labels, evaluating the error on the training images against these and the true ones."""

    def training_errors(network: nn.Module) -> dict[str, Tensor]:
        prediction = predict(network, given, training.recipe.normalisation, context.runtime).argmax(1)
        against = {"train_error": given.labels, "train_error_clean": true}
        return {name: (prediction != labels).double().mean() for name, labels in against.items()}

    return trained(training, context, progress=label, data=given, observe=training_errors, loss=loss)


def _probabilities(network: nn.Module, images: ImageDataset, recipe: TrainingConfig, context: Context) -> Floats:
    logits = predict(network, images, recipe.normalisation, context.runtime)
    return np.asarray(logits.double().softmax(1))
