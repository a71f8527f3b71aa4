"""The label noise section: training on wrong labels (P1 §3.2, Table 2, Figures 1 and 2).

Methods: ``none`` trains on the corrupted labels as they are; ``forward`` is Forward correction; ``glc-5`` and
``glc-10`` are Gold Loss Correction with 5 and 10 % trusted labels; ``longer`` (Figure 1) is ``none`` for many epochs.
On request: ``none-allconv``, another network; ``none-excluded`` and ``none-places365``, another corpus's checkpoint;
``none-1000`` and so on, so many training images; ``none-1000-longer``, more epochs of tuning. Noise that is not uniform
is in the method's name (``forward-flip``). The image sets ``cifar10n-…`` have labels of annotators, and no strength.

At one seed both arms and all methods have the same labels. P1's code draws them with seed 1, which is the noise of
seed 0 here. With GLC all labels are corrupted before the trusted ones are put back, where P1's code draws for the
untrusted images alone; and both stages of a correction begin with the same weights, where it draws the second's anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.errors import UserError, choose
from robustness_lib.experiments.grid import SIZES, Filters, GridPoint, Method, expand
from robustness_lib.experiments.presets import PROFILES
from robustness_lib.methods import loss_correction
from robustness_lib.methods.checks import Floats, check_whole
from robustness_lib.methods.interfaces import Loss
from robustness_lib.methods.label_noise import KINDS, corrupt_labels, corruption_matrix, observed_matrix
from robustness_lib.metrics import Metrics, rounded
from robustness_lib.runner.model_cache import Context, Trained, Training, keep_outputs, target_images, trained
from robustness_lib.runner.records import Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import cross_entropy, predict

SECTION = "label_noise"
STRENGTHS = tuple(tenths / 10 for tenths in range(11))  # of the paper
_LEVELS = {"smoke": STRENGTHS[::5], "cpu": STRENGTHS, "paper": STRENGTHS}
_LONGER = dict.fromkeys(PROFILES, (0.6,))  # the strength of Figure 1
_ON_REQUEST: dict[str, Any] = {"profiles": (), "levels": _LEVELS}

METHODS = {
    **dict.fromkeys(("none", "forward", "glc-5", "glc-10"), Method(levels=_LEVELS)),
    "longer": Method(arms=["scratch"], levels=_LONGER, other_levels=False, changes={"schedule": "step"}),
    "none-allconv": Method(changes={"architecture": "allconv"}, **_ON_REQUEST),
    "none-excluded": Method(arms=["tuned"], corpus="imagenet32-no-cifar10", **_ON_REQUEST),
    "none-places365": Method(arms=["tuned"], corpus="places365", **_ON_REQUEST),
    **{f"none-{n}": Method(changes={"train_images": n}, **_ON_REQUEST) for n in SIZES},
    "none-1000-longer": Method(arms=["tuned"], changes={"train_images": 1000, "epochs": 20}, **_ON_REQUEST),
}

_HUMAN, _CLEAN = "cifar10n-", "cifar10"  # how sets with human labels are called, and where their true labels are


@dataclass(frozen=True, kw_only=True)
class LabelNoiseConfig(TrainingConfig):
    """A training config, how labels are corrupted, and how that is corrected; the defaults are those of P1's code."""

    noise: str = "uniform"  # one of methods.label_noise.KINDS, or "human" (the data set's own labels)
    noise_seed: int | None = None  # from which labels are drawn (P1: 1); None for the job's seed + 1
    filter_outliers: bool = True  # whether Forward passes over images above the 97th percentile, with few classes
    trusted: str = "first"  # how GLC's trusted images are chosen (methods.loss_correction.trusted_split)
    separate_passes: bool = True  # whether GLC's untrusted and trusted images go through the network one by one
    nominal_divisor: bool = True  # whether GLC divides a batch's loss by the nominal batch size

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.noise, (*KINDS, "human"), "kind of noise")
        choose(self.trusted, loss_correction.TRUSTED, "way to choose trusted images")
        check_whole(self.noise_seed or 0, "noise_seed", 0, "P1 takes 1")
        check_whole(self.observations, "observations", 1, "the train error is measured at observations")


def _configure(config: LabelNoiseConfig, point: GridPoint) -> LabelNoiseConfig:
    """Human noise where the data set has it; and at ``paper``, for Forward and GLC, the settings of P1's code."""
    changes: dict[str, Any] = {"noise": "human"} if point.dataset.startswith(_HUMAN) else {}
    if point.profile == "paper" and point.method.startswith(("forward", "glc")):
        changes["normalisation"] = "cifar"  # although the checkpoint was pre-trained with "half"
        if point.arm == "tuned":
            changes |= {"head_bias": False, "learning_rate": 0.01, "final_learning_rate": 1e-7}
    return replace(config, **changes)


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile; those on labels that people gave have no level."""
    levels = filters.get("chosen_levels")
    for strength in levels or ():
        corruption_matrix(2, strength)  # refuses what is no strength
    planned = expand(SECTION, profile_name, METHODS, LabelNoiseConfig, configure=_configure, **filters)
    jobs = list({job.key: job for job in map(_named, planned)}.values())
    if levels and all(job.level is None for job in jobs):
        sets = ", ".join(sorted({job.dataset for job in jobs}))
        raise UserError(f"{sets}: labels that people gave have no strength to choose; leave the levels out")
    return jobs


def _named(job: Job) -> Job:
    """The job without a level where people gave the labels, and else with its noise in its name unless uniform."""
    noise, human = job.recipe["noise"], job.dataset.startswith(_HUMAN)
    if (noise == "human") != human:
        wanted = "human (leave noise out)" if human else f"one of {', '.join(KINDS)}"
        raise UserError(
            f"noise={noise} does not go with the data set {job.dataset}; choose {wanted}, or another data set"
        )
    if human:
        return replace(job, level=None)
    return job if noise == "uniform" else replace(job, method=f"{job.method}-{noise}")


@dataclass(frozen=True)
class NoisyTraining:
    """A job's training images with corrupted labels, and how networks are trained on them."""

    job: Job
    context: Context
    config: LabelNoiseConfig
    plain: Training  # without a correction; corrections add to its variant, which says what the labels are
    true: ImageDataset
    given: ImageDataset  # the same images with the labels to train on
    matrix: Floats  # float64 [K, K], the corruption matrix; with human noise how often each class got each label

    def corrected(self, correction: str, **changes: Any) -> Training:
        """The description of a training on these labels, with all that a correction adds to it."""
        return replace(self.plain, variant=f"{self.plain.variant}; {correction}", **changes)

    def fit(self, training: Training, loss: Loss = cross_entropy) -> Trained:
        """Train on the given labels, evaluating the error on the training images against these and the true ones."""

        def training_errors(network: nn.Module) -> dict[str, Tensor]:
            prediction = predict(network, self.given, self.config.normalisation, self.context.runtime).argmax(1)
            against = {"train_error": self.given.labels, "train_error_clean": self.true.labels}
            return {name: (prediction != labels).double().mean() for name, labels in against.items()}

        label = self.job.label
        return trained(training, self.context, progress=label, data=self.given, observe=training_errors, loss=loss)

    def probabilities(self, network: nn.Module, images: ImageDataset) -> Floats:
        """Softmax probabilities [N, K]."""
        logits = predict(network, images, self.config.normalisation, self.context.runtime)
        return np.asarray(logits.double().softmax(1))


def noisy_training(job: Job, context: Context) -> NoisyTraining:
    """The training images of a job, their labels corrupted: the same ones for all methods and both arms at one seed.

    A subset is drawn by the true labels first; then labels are corrupted in file order.
    """
    config = LabelNoiseConfig.of(job.recipe)
    dataset = _CLEAN if config.noise == "human" else job.dataset
    plain = Training(dataset=dataset, init=job.init, seed=job.seed, recipe=config)
    true = target_images(plain, context)
    if config.noise == "human":
        given = context.images(job.dataset, "train").labels
        if count := config.train_images:
            given = given[class_balanced_subset(context.images(dataset, "train").labels, count, job.seed)]
        matrix, what = observed_matrix(true.labels, given, true.num_classes), f"labels of {job.dataset}"
    else:
        seed, strength = job.seed + 1 if config.noise_seed is None else config.noise_seed, job.level or 0.0
        matrix = corruption_matrix(true.num_classes, strength, config.noise, seed=seed)
        given = torch.from_numpy(corrupt_labels(true.labels, matrix, seed))
        what = f"{config.noise} noise of strength {strength:g}, seed {seed}"
    return NoisyTraining(job, context, config, replace(plain, variant=what), true, true.with_labels(given), matrix)


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's networks and measure the last one on the whole test set.

    ``train_error`` is against the labels trained on and ``train_error_clean`` against the true ones, of the training
    images without augmentation; ``changed_labels`` is the share that the noise made wrong (before GLC's trusted ones
    are put back). An estimate of the corruption matrix is kept row by row where there are at most 20 classes.
    """
    noisy = noisy_training(job, context)
    correction = CORRECTIONS.get(job.method.removesuffix(f"-{noisy.config.noise}"))
    result, estimate = correction(noisy) if correction else (noisy.fit(noisy.plain), None)
    test = context.images(noisy.plain.dataset, "test")
    logits = predict(result.network, test, noisy.config.normalisation, context.runtime)
    curves = {"error": 1 - result.correct.mean(axis=1), **result.further}
    metrics: Metrics = {"history_epoch": [float(epoch) for epoch in result.epochs]}
    for name, values in curves.items():
        metrics |= {name: float(values[-1]), f"history_{name}": rounded(values)}
    metrics["changed_labels"] = float((noisy.true.labels != noisy.given.labels).double().mean())
    outputs = {"logits": logits.numpy(), "labels": test.labels.numpy()}
    if estimate is not None:
        outputs["estimated_matrix"] = estimate
        metrics["matrix_error"] = loss_correction.matrix_error(estimate, noisy.matrix)
        if len(estimate) <= 20:
            metrics |= {"estimated_matrix": rounded(estimate.flat), "true_matrix": rounded(noisy.matrix.flat)}
    keep_outputs(job, context, outputs)
    return metrics


def _forward(noisy: NoisyTraining) -> tuple[Trained, Floats]:
    """A network trained on the noisy labels, the estimate that it gives, and a second one trained through it."""
    probabilities = noisy.probabilities(noisy.fit(noisy.plain).network, noisy.given)
    percentile = 97.0 if noisy.config.filter_outliers and noisy.true.num_classes <= 10 else None
    estimate = loss_correction.estimate_forward_matrix(probabilities, percentile)
    second = noisy.corrected(f"Forward through {noisy.plain.key}, outliers from {percentile}")
    return noisy.fit(second, loss_correction.forward_training_loss(estimate)), estimate


def _glc(noisy: NoisyTraining, share: float) -> tuple[Trained, Floats]:
    """The same with Gold Loss Correction, whose first network does not see the trusted images."""
    config, true, given = noisy.config, noisy.true, noisy.given
    trusted = loss_correction.trusted_split(true.labels, share, config.trusted, noisy.job.seed)
    what = f"{config.trusted} {share:g} trusted"
    first = noisy.corrected(f"{what}, the rest", recipe=replace(config.training_part(), observations=0))
    network = replace(noisy, true=true.subset(~trusted), given=given.subset(~trusted)).fit(first).network
    gold = true.subset(trusted)
    estimate = loss_correction.estimate_glc_matrix(noisy.probabilities(network, gold), gold.labels)
    batch_size = config.batch_size if config.nominal_divisor else None
    passes = "separate" if config.separate_passes else "joint"
    second = noisy.corrected(f"{what}; GLC through {first.key}, {passes} passes, divided by {batch_size}")
    loss = loss_correction.GoldLoss(estimate, trusted, batch_size=batch_size, separate_passes=config.separate_passes)
    corrected = given.with_labels(torch.where(trusted, true.labels, given.labels))
    return replace(noisy, given=corrected).fit(second, loss), estimate


CORRECTIONS: dict[str, Callable[[NoisyTraining], tuple[Trained, Floats | None]]] = {
    "forward": _forward,
    "glc-5": partial(_glc, share=0.05),
    "glc-10": partial(_glc, share=0.10),
}
"""The last network and the estimate of the corruption matrix, by method; the others train without a correction."""
