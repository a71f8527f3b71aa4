"""The adversarial section: whether networks withstand attacks (P1 §3.1, Table 1, appendix B).

A network that was trained against an adversary from scratch is compared with one that was trained against it on
another task first and then tuned; what is reported is the accuracy on clean images and under attack
(:mod:`robustness_lib.methods.pgd`).

Methods: ``normal`` is ordinary training; ``adversarial`` is adversarial training in both arms, its pre-training
included; ``last-layer`` tunes only the last layer of the pre-trained network; ``clean-pretraining`` tunes against the
adversary what was pre-trained without one; ``checks`` attacks the networks of ``adversarial`` in further ways, to see
whether their gradients mislead the attack. On request only: ``targeted-pretraining``, whose adversary aims at random
wrong classes in pre-training; ``full`` and ``excluded``, adversarial tuning of a whole corpus's checkpoint and of one
without the classes related to CIFAR-10, given by its id; ``independent``, attacks of others' making on the networks
of ``adversarial``, which need the optional extra ``attacks``.

Ordinary training is that of the calibration section, and its networks are the same. As in P1, networks are evaluated
after their last epoch. All networks are attacked on the same images of the test set, from the same random starts.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.experiments.grid import Filters, Method, expand
from robustness_lib.methods.pgd import Threat, pgd
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.robust_accuracy import (
    BATCH,
    WithNormalisation,
    attack,
    correct_on,
    fixed_subset,
    worst_case,
    zero_gradient_share,
)
from robustness_lib.models.checkpoint_ids import trained_on
from robustness_lib.runner.model_cache import Context, Trained, Training, keep_outputs, target_images, trained
from robustness_lib.runner.records import Job
from robustness_lib.training.config import EPSILON, STEP_SIZE, TrainingConfig
from robustness_lib.training.data_loader import to_unit_range
from robustness_lib.training.device import Runtime, full_float32
from robustness_lib.training.trainer import predict

SECTION = "adversarial"
EXCLUDED_CORPUS = "imagenet32-no-cifar10"

_ATTACKED: dict[str, Any] = {"adversary": "untargeted", "pretrained_against": "untargeted"}

METHODS = {
    "normal": Method(arms=["scratch"]),
    "adversarial": Method(**_ATTACKED),
    "last-layer": Method(arms=["tuned"], changes={"trainable": "head"}, **_ATTACKED),
    "clean-pretraining": Method(arms=["tuned"], adversary="untargeted", pretrained_against="none"),
    "checks": Method(seeds=2, **_ATTACKED),
    "targeted-pretraining": Method(arms=["tuned"], profiles=(), adversary="untargeted", pretrained_against="targeted"),
    "full": Method(arms=["tuned"], profiles=(), **_ATTACKED),
    "excluded": Method(arms=["tuned"], profiles=(), corpus=EXCLUDED_CORPUS, **_ATTACKED),
    "independent": Method(profiles=(), seeds=1, **_ATTACKED),
}

EPSILONS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Radii of the curve of accuracy against epsilon, in 255ths."""

SHOWN_STEPS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
"""Where the curve of accuracy against the number of steps has its points, and after the last step."""

# --------------------------------------------------------------------------------------------- recipes


EVALUATED_IMAGES, EVALUATION_STEPS = 200, 10
"""On how many test images, and with how many steps, a network is attacked while it is trained."""


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(TrainingConfig):
    """A training recipe, and how its network is attacked afterwards.

    Attributes:
        test_images: On how many test images, equally many of each class; 0 for all of them (P1).
        test_epsilon: Radius of the attack's ball, in [0, 1].
        test_step_size: Length of its steps.
        test_steps: How many (P1: 20).
        long_steps: How many in the longer attack (P1: 100), 0 for none.
        restarts: Random starts in the checks, of which the worst counts (P1: 1000).
        restart_steps: How many steps from each of them (P1: 100); 0 for ``test_steps``.
    """

    test_images: int = 0
    test_epsilon: float = EPSILON
    test_step_size: float = STEP_SIZE
    test_steps: int = 20
    long_steps: int = 0
    restarts: int = 10
    restart_steps: int = field(default=0, metadata={"added": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        _threat(self)  # which checks them
        if self.test_images < 0:
            raise UserError(f"test_images is {self.test_images} but must be at least 0; 0 takes the whole test set")
        if self.long_steps and self.long_steps < self.test_steps:
            raise UserError(
                f"long_steps is {self.long_steps} but must be 0 or at least test_steps, {self.test_steps}; the paper "
                "takes 100"
            )
        if self.restarts < 1:
            raise UserError(f"restarts is {self.restarts} but must be at least 1; the paper takes 1000")
        if self.restart_steps < 0:
            raise UserError(f"restart_steps is {self.restart_steps} but must be at least 0; the paper takes 100")


SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "all": {"test_images": 100, "test_epsilon": 4 / 255, "test_step_size": 1 / 255, "test_steps": 10},
        "adversarial": {"long_steps": 20},
        "checks": {"restarts": 2, "test_images": 50},
    },
    "cpu": {
        "all": {"test_images": 1000},
        "adversarial": {"long_steps": 100},
        "checks": {"test_images": 500},
        "independent": {"test_images": 500},
    },
    "paper": {
        "all": {},
        "adversarial": {"long_steps": 100},
        "checks": {"test_images": 1000, "restarts": 1000, "restart_steps": 100},
        "independent": {"test_images": 1000},
    },
}
"""How networks are attacked at each scale, and what is special to a method."""


# --------------------------------------------------------------------------------------------- jobs


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile (:func:`robustness_lib.experiments.grid.expand`).

    A user's checkpoint counts for the methods whose pre-training had the same adversary as the checkpoint's.
    """
    planned = expand(
        SECTION,
        profile_name,
        METHODS,
        AdversarialConfig,
        settings=SETTINGS,
        default_datasets=("synthetic", "cifar10", "cifar100"),
        smoke_seeds=1,
        order=("dataset", "method", "seed"),
        **filters,
    )
    for job in planned:
        if job.method == "full" and trained_on(job.init, EXCLUDED_CORPUS):
            raise UserError(
                f"the method full tunes a network that was pre-trained on a whole corpus, but {job.init} was not; give "
                "it to the method excluded, or another checkpoint to --init"
            )
    return planned


# --------------------------------------------------------------------------------------------- measuring


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's network and measure it on clean images and under attack.

    Returns:
        ``clean_accuracy``, ``error`` and ``negative_log_likelihood`` (nats) on the whole test set;
        ``adversarial_accuracy`` on ``attacked_images`` of it. For ``adversarial`` also ``adversarial_train_accuracy``
        on as many of the training images, and with ``long_steps`` the accuracy after so many
        (``adversarial_accuracy_100_steps``) and after some of them (``adversarial_accuracy_by_steps`` at
        ``curve_steps``). With an adversary in training ``history_error``, ``history_adversarial_accuracy`` (of a
        weaker attack on fewer images) and ``history_train_loss`` (nats) at ``history_epoch``. For ``checks`` see
        :func:`check`, for ``independent`` see :func:`attack_independently`. All but what says so are fractions.
    """
    recipe = AdversarialConfig.of(job.recipe)
    if job.method == "independent":
        attacks = _independent_packages()
    result = fit(job, context)
    test = context.images(job.dataset, "test")
    few = fixed_subset(test, recipe.test_images)
    if job.method == "checks":
        return check(job, result.network, few, context)
    if job.method == "independent":
        return attack_independently(result.network, few, recipe, context.runtime, attacks)
    logits = predict(result.network, test, recipe.normalisation, context.runtime)
    threat = replace(_threat(recipe), steps=max(recipe.test_steps, recipe.long_steps))
    found = attack(result.network, few, recipe.normalisation, context.runtime, threat)
    outputs = {"logits": logits.numpy(), "labels": test.labels.numpy(), "correct_by_step": found.correct}
    keep_outputs(job, context, outputs)
    clean = float((logits.argmax(1) == test.labels).double().mean())
    metrics: Metrics = {
        "clean_accuracy": clean,
        "error": 1 - clean,
        "negative_log_likelihood": float(F.cross_entropy(logits.double(), test.labels)),
        "attacked_images": float(len(few)),
        "adversarial_accuracy": found.accuracy(recipe.test_steps),
    }
    if recipe.long_steps:
        shown = sorted({step for step in SHOWN_STEPS if step < recipe.long_steps} | {recipe.long_steps})
        metrics[f"adversarial_accuracy_{recipe.long_steps}_steps"] = found.accuracy(recipe.long_steps)
        metrics["curve_steps"] = [float(step) for step in shown]
        metrics["adversarial_accuracy_by_steps"] = [round(found.accuracy(step), 5) for step in shown]
    if job.method == "adversarial":
        own = target_images(_training(job, recipe), context)
        seen = fixed_subset(own, min(len(few), len(own)))
        trained_on = attack(result.network, seen, recipe.normalisation, context.runtime, _threat(recipe))
        metrics["adversarial_train_accuracy"] = trained_on.accuracy()
    return metrics | _history(result)


def trained_and_evaluated(training: Training, context: Context, *, progress: str | None = None) -> Trained:
    """The network of a training against an adversary, its adversarial accuracy evaluated on the way.

    Returns:
        The network; ``further`` has ``adversarial_accuracy`` at the observed epochs: on the first
        :data:`EVALUATED_IMAGES` images of the fixed part of the test set, after :data:`EVALUATION_STEPS` steps.
    """
    recipe = training.recipe
    test = context.images(training.dataset, "test")
    few = fixed_subset(test, min(EVALUATED_IMAGES, len(test)))
    threat = Threat(epsilon=recipe.epsilon, step_size=TrainingConfig().step_size, steps=EVALUATION_STEPS)

    def accuracy_under_attack(network: nn.Module) -> dict[str, Tensor]:
        found = attack(network, few, recipe.normalisation, context.runtime, threat)
        return {"adversarial_accuracy": torch.tensor(found.accuracy())}

    described = Training(
        dataset=training.dataset,
        init=training.init,
        seed=training.seed,
        recipe=recipe,
        variant=f"attacked on {len(few)} test images with {EVALUATION_STEPS} steps on the way",
    )
    return trained(described, context, progress=progress, observe=accuracy_under_attack)


def fit(job: Job, context: Context) -> Trained:
    """The job's network, trained or found."""
    recipe = AdversarialConfig.of(job.recipe)
    one = trained if recipe.adversary == "none" else trained_and_evaluated
    return one(_training(job, recipe), context, progress=job.label)


def _training(job: Job, recipe: TrainingConfig) -> Training:
    return Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=recipe)


def _threat(recipe: AdversarialConfig) -> Threat:
    return Threat(epsilon=recipe.test_epsilon, step_size=recipe.test_step_size, steps=recipe.test_steps)


def _history(result: Trained) -> Metrics:
    whole = [place for place, epoch in enumerate(result.epochs) if float(epoch).is_integer()]  # a loss is an epoch's
    if not whole:
        return {}
    epochs = [int(result.epochs[place]) for place in whole]
    history: Metrics = {
        "history_epoch": [float(epoch) for epoch in epochs],
        "history_error": [round(float(1 - result.correct[place].mean()), 5) for place in whole],
        "history_train_loss": [round(result.losses[epoch - 1], 5) for epoch in epochs],
    }
    if (found := result.further.get("adversarial_accuracy")) is not None:
        history["history_adversarial_accuracy"] = [round(float(found[place]), 5) for place in whole]
    return history


# --------------------------------------------------------------------------------------------- checks


def check(job: Job, network: nn.Module, data: ImageDataset, context: Context) -> Metrics:
    """Attack a network in ways that would show that its gradients mislead the attack (Athalye et al. 2018).

    Returns:
        ``adversarial_accuracy`` from one start; the worst case over all of them
        (``adversarial_accuracy_10_restarts``), and where these take ``restart_steps``, one start with as many
        (``adversarial_accuracy_100_steps``); ``adversarial_accuracy_noised``, where the ball is around the noised
        image, as in P1's released code; ``adversarial_accuracy_targeted``, aiming at random wrong classes;
        ``adversarial_accuracy_as_trained``, with gradients of the precision that trainings have;
        ``transfer_accuracy``, on the adversarial images of another network, trained alike with the next seed;
        ``zero_gradient``, the share of images without any gradient; ``adversarial_accuracy_by_epsilon`` at
        ``curve_epsilon`` (in 255ths), with steps that grow where the ball could not be crossed otherwise; and
        ``attacked_images``, N.
    """
    recipe = AdversarialConfig.of(job.recipe)
    threat = _threat(recipe)

    setting = (recipe.normalisation, context.runtime)

    def accuracy(*, as_trained: bool = False, **changes: Any) -> float:
        return attack(network, data, *setting, replace(threat, **changes), as_trained=as_trained).accuracy()

    from_each = replace(threat, steps=recipe.restart_steps or threat.steps)
    everyone = worst_case(network, data, *setting, from_each, restarts=recipe.restarts)
    other = fit(replace(job, seed=job.seed + 1), context).network
    transferred = attack(other, data, *setting, threat).images
    by_epsilon = [
        accuracy(epsilon=e / 255, step_size=max(threat.step_size, 2.5 * e / 255 / threat.steps)) for e in EPSILONS
    ]
    keep_outputs(job, context, {"robust": everyone, "labels": data.labels.numpy()})
    metrics: Metrics = {
        "attacked_images": float(len(data)),
        "adversarial_accuracy": accuracy(),
        f"adversarial_accuracy_{recipe.restarts}_restarts": float(everyone.mean()),
        "adversarial_accuracy_noised": accuracy(anchor="noised"),
        "adversarial_accuracy_targeted": accuracy(targeted=True),
        "adversarial_accuracy_as_trained": accuracy(as_trained=True),
        "transfer_accuracy": float(correct_on(network, transferred, data, *setting).mean()),
        "zero_gradient": zero_gradient_share(network, data, *setting),
        "curve_epsilon": [float(e) for e in EPSILONS],
        "adversarial_accuracy_by_epsilon": [round(value, 5) for value in by_epsilon],
    }
    if recipe.restart_steps:
        metrics[f"adversarial_accuracy_{recipe.restart_steps}_steps"] = accuracy(steps=recipe.restart_steps)
    return metrics


# --------------------------------------------------------------------------------------------- independent attacks


def _independent_packages() -> tuple[Any, Any]:
    """The packages ``pyautoattack`` (AutoAttack's own code) and ``torchattacks``."""
    try:
        return importlib.import_module("pyautoattack"), importlib.import_module("torchattacks")
    except ImportError as error:
        raise UserError(
            f"the method independent needs {error.name}, which is not installed; run 'pip install pyautoattack' and "
            "'pip install --no-deps torchattacks'"
        ) from error


@full_float32()
def attack_independently(
    network: nn.Module, data: ImageDataset, recipe: AdversarialConfig, runtime: Runtime, packages: tuple[Any, Any]
) -> Metrics:
    """Attack a network by implementations that are not ours, so that its robustness is not our attack's weakness.

    Returns:
        ``adversarial_accuracy`` by our attack; ``adversarial_accuracy_torchattacks``, by that package's, with the
        same settings and random starts; ``adversarial_accuracy_apgd_ce``, by APGD on the cross-entropy, the first of
        AutoAttack's four attacks (100 steps, whose size it chooses); ``adversarial_accuracy_apgd``, of images that
        withstand the second too, APGD towards nine wrong classes one after the other; and ``attacked_images``, N.
    """
    autoattack, torchattacks = packages
    threat, setting = _threat(recipe), (recipe.normalisation, runtime)
    model = WithNormalisation(network, recipe.normalisation).to(runtime.device).eval()
    images = to_unit_range(data.images.to(runtime.device)).contiguous()
    labels = data.labels.to(runtime.device)
    strength: Any = (threat.epsilon, threat.step_size, threat.steps)
    parts = list(zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True))
    with torch.random.fork_rng(devices=[] if runtime.device == "cpu" else [runtime.device]):
        torch.manual_seed(0)
        ours = torch.cat([pgd(model, *part, threat) for part in parts])
        torch.manual_seed(0)
        their_pgd = torchattacks.PGD(model, *strength, random_start=True)
        theirs = torch.cat([their_pgd(*part) for part in parts])
        options = {"eps": threat.epsilon, "norm": "Linf", "seed": 0, "device": runtime.device, "version": "custom"}
        adversary = autoattack.AutoAttack(model, attacks=["apgd-ce"], **options)
        adversary.verbose, adversary.apgd.n_restarts = False, 1
        adversary.apgd_targeted.n_target_classes = min(9, data.num_classes - 1)
        first, _ = adversary.run_standard_evaluation(images, labels, batch_size=BATCH)
        left = np.flatnonzero(correct_on(network, first.cpu(), data, *setting))
        both = first.clone()
        if len(left):
            adversary.attacks_to_run = ["apgd-t"]
            both[left], _ = adversary.run_standard_evaluation(images[left], labels[left], batch_size=BATCH)
    found = {"": ours, "_torchattacks": theirs, "_apgd_ce": first, "_apgd": both}
    right = {name: correct_on(network, changed.detach().cpu(), data, *setting) for name, changed in found.items()}
    accuracies = {f"adversarial_accuracy{name}": float(value.mean()) for name, value in right.items()}
    return {"attacked_images": float(len(data)), **accuracies}


# --------------------------------------------------------------------------------------------- examples


@dataclass(frozen=True)
class Examples:
    """A few images before and after an attack.

    Attributes:
        clean: float32 [N, C, H, W] in [0, 1].
        adversarial: The same images after the attack.
        labels: Names of their classes.
        before: Names of the classes that are predicted for the clean images.
        after: And for the adversarial ones.
    """

    clean: Tensor
    adversarial: Tensor
    labels: list[str]
    before: list[str]
    after: list[str]


def examples(job: Job, context: Context, count: int = 6) -> Examples:
    """Test images, one a class, that the job's network predicts right, and what the test attack makes of them."""
    recipe = AdversarialConfig.of(job.recipe)
    network, test = fit(job, context).network, context.images(job.dataset, "test")
    setting = (recipe.normalisation, context.runtime)
    right = torch.from_numpy(correct_on(network, to_unit_range(test.images), test, *setting))
    places = [torch.nonzero(right & (test.labels == label)).flatten()[:1] for label in range(test.num_classes)]
    few = test.subset(torch.cat(places)[:count])
    found = attack(network, few, *setting, _threat(recipe)).images
    names = few.class_names

    def predicted(images: Tensor) -> list[str]:
        with torch.no_grad(), full_float32():
            logits = WithNormalisation(network, recipe.normalisation)(images.to(context.runtime.device))
        return [names[k] for k in logits.argmax(1).tolist()]

    clean = to_unit_range(few.images)
    return Examples(clean, found, [names[k] for k in few.labels.tolist()], predicted(clean), predicted(found))
