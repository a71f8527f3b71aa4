"""The adversarial section: whether networks withstand attacks (P1 §3.1, Table 1, appendix B).

Networks trained against an adversary from scratch, and on another task first, are compared after the last epoch by
their accuracy on the same test images, clean and under attack (:mod:`robustness_lib.methods.pgd`).

Methods: ``normal`` is ordinary training, that of the calibration section; ``adversarial`` is adversarial training in
both arms, its pre-training included; ``last-layer`` tunes only the last layer of the pre-trained network;
``clean-pretraining`` tunes against the adversary what was pre-trained without one; ``checks`` attacks the networks of
``adversarial`` in further ways, to see whether their gradients mislead the attack. On request only:
``targeted-pretraining``, whose adversary aims at random wrong classes in pre-training; ``full`` and ``excluded``,
adversarial tuning of a whole corpus's checkpoint and of one without the classes related to CIFAR-10, given by its id;
``independent``, attacks of others' making on the networks of ``adversarial`` (with the extra ``attacks``).
"""

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
from robustness_lib.methods.checks import check_whole
from robustness_lib.methods.pgd import Threat, pgd
from robustness_lib.metrics import Metrics, rounded
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
from robustness_lib.training.device import full_float32
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

EPSILONS = (0, 1, 2, 4, 8, 16, 32, 64)  # radii of the curve of accuracy against epsilon, in 255ths
SHOWN_STEPS = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # points of the curve against the number of steps, beside the last
EVALUATED_IMAGES, EVALUATION_STEPS = 200, 10  # of the attack while a network is trained


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(TrainingConfig):
    """A training config, and how its network is attacked afterwards."""

    test_images: int = 0  # how many are attacked, equally many of each class; 0 for all of them (P1)
    test_epsilon: float = EPSILON  # radius of the attack's ball, in [0, 1]
    test_step_size: float = STEP_SIZE
    test_steps: int = 20  # as in P1
    long_steps: int = 0  # of the longer attack (P1: 100); 0 for none
    restarts: int = 10  # random starts in the checks, of which the worst counts (P1: 1000)
    restart_steps: int = field(default=0, metadata={"added": True})  # from each of them (P1: 100); 0 for test_steps

    def __post_init__(self) -> None:
        super().__post_init__()
        _threat(self)  # which checks them
        check_whole(self.test_images, "test_images", 0, "0 takes the whole test set")
        check_whole(self.restarts, "restarts", 1, "the paper takes 1000")
        check_whole(self.restart_steps, "restart_steps", 0, "the paper takes 100")
        if self.long_steps:
            check_whole(self.long_steps, "long_steps", self.test_steps, "0 leaves the longer attack out")


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile."""
    planned = expand(SECTION, profile_name, METHODS, AdversarialConfig, **filters)
    for job in planned:
        if job.method == "full" and trained_on(job.init, EXCLUDED_CORPUS):
            raise UserError(
                f"the method full tunes a network that was pre-trained on a whole corpus, but {job.init} was not; give "
                "it to the method excluded, or another checkpoint to --init"
            )
    return planned


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's network and measure it on clean images and under attack.

    Clean accuracy, error and negative log-likelihood (nats) are of the whole test set, ``adversarial_accuracy`` of
    ``attacked_images`` of it, and ``history_adversarial_accuracy`` of a weaker attack on fewer images.
    """
    config = AdversarialConfig.of(job.recipe)
    if job.method == "independent":
        _independent_packages()  # refused before anything is trained
    result = fit(job, context)
    test = context.images(job.dataset, "test")
    few = fixed_subset(test, config.test_images)
    if job.method in ("checks", "independent"):
        return (check if job.method == "checks" else attack_independently)(job, result.network, few, context)
    setting = (config.normalisation, context.runtime)
    logits = predict(result.network, test, *setting)
    threat = replace(_threat(config), steps=max(config.test_steps, config.long_steps))
    found = attack(result.network, few, *setting, threat)
    outputs = {"logits": logits.numpy(), "labels": test.labels.numpy(), "correct_by_step": found.correct}
    keep_outputs(job, context, outputs)
    clean = float((logits.argmax(1) == test.labels).double().mean())
    metrics: Metrics = {
        "clean_accuracy": clean,
        "error": 1 - clean,
        "negative_log_likelihood": float(F.cross_entropy(logits.double(), test.labels)),
        "attacked_images": float(len(few)),
        "adversarial_accuracy": found.accuracy(config.test_steps),
    }
    if config.long_steps:
        shown = sorted({step for step in SHOWN_STEPS if step < config.long_steps} | {config.long_steps})
        metrics[f"adversarial_accuracy_{config.long_steps}_steps"] = found.accuracy(config.long_steps)
        metrics["curve_steps"] = [float(step) for step in shown]
        metrics["adversarial_accuracy_by_steps"] = rounded([found.accuracy(step) for step in shown])
    if job.method == "adversarial":
        own = target_images(_training(job), context)
        seen = fixed_subset(own, min(len(few), len(own)))
        metrics["adversarial_train_accuracy"] = attack(result.network, seen, *setting, _threat(config)).accuracy()
    return metrics | _history(result)


def fit(job: Job, context: Context) -> Trained:
    """The job's network, trained or found."""
    one = trained if job.recipe.get("adversary", "none") == "none" else trained_and_evaluated
    return one(_training(job), context, progress=job.label)


def trained_and_evaluated(training: Training, context: Context, *, progress: str | None = None) -> Trained:
    """The network of a training against an adversary, with its ``adversarial_accuracy`` at the observed epochs."""
    config = training.recipe
    test = context.images(training.dataset, "test")
    few = fixed_subset(test, min(EVALUATED_IMAGES, len(test)))
    threat = Threat(epsilon=config.epsilon, step_size=STEP_SIZE, steps=EVALUATION_STEPS)

    def accuracy_under_attack(network: nn.Module) -> dict[str, Tensor]:
        found = attack(network, few, config.normalisation, context.runtime, threat)
        return {"adversarial_accuracy": torch.tensor(found.accuracy())}

    what = f"attacked on {len(few)} test images with {EVALUATION_STEPS} steps on the way"
    return trained(replace(training, variant=what), context, progress=progress, observe=accuracy_under_attack)


def _training(job: Job) -> Training:
    return Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=AdversarialConfig.of(job.recipe))


def _threat(config: AdversarialConfig) -> Threat:
    return Threat(epsilon=config.test_epsilon, step_size=config.test_step_size, steps=config.test_steps)


def _history(result: Trained) -> Metrics:
    whole = [place for place, epoch in enumerate(result.epochs) if float(epoch).is_integer()]  # a loss is an epoch's
    if not whole:
        return {}
    epochs = [int(epoch) for epoch in result.epochs[whole]]
    history: Metrics = {
        "history_epoch": [float(epoch) for epoch in epochs],
        "history_error": rounded(1 - result.correct[whole].mean(1)),
        "history_train_loss": rounded(result.losses[epoch - 1] for epoch in epochs),
    }
    if (found := result.further.get("adversarial_accuracy")) is not None:
        history["history_adversarial_accuracy"] = rounded(found[whole])
    return history


def check(job: Job, network: nn.Module, data: ImageDataset, context: Context) -> Metrics:
    """Attack a network in ways that would show that its gradients mislead the attack (Athalye et al. 2018)."""
    config = AdversarialConfig.of(job.recipe)
    threat, setting = _threat(config), (config.normalisation, context.runtime)

    def accuracy(*, as_trained: bool = False, **changes: Any) -> float:
        return attack(network, data, *setting, replace(threat, **changes), as_trained=as_trained).accuracy()

    from_each = replace(threat, steps=config.restart_steps or threat.steps)
    everyone = worst_case(network, data, *setting, from_each, restarts=config.restarts)
    other = fit(replace(job, seed=job.seed + 1), context).network  # trained alike
    transferred = attack(other, data, *setting, threat).images
    by_epsilon = [  # with steps that grow where the ball could not be crossed otherwise
        accuracy(epsilon=e / 255, step_size=max(threat.step_size, 2.5 * e / 255 / threat.steps)) for e in EPSILONS
    ]
    keep_outputs(job, context, {"robust": everyone, "labels": data.labels.numpy()})
    metrics: Metrics = {
        "attacked_images": float(len(data)),
        "adversarial_accuracy": accuracy(),
        f"adversarial_accuracy_{config.restarts}_restarts": float(everyone.mean()),
        "adversarial_accuracy_noised": accuracy(anchor="noised"),  # the ball of P1's code
        "adversarial_accuracy_targeted": accuracy(targeted=True),
        "adversarial_accuracy_as_trained": accuracy(as_trained=True),  # gradients of the precision of trainings
        "transfer_accuracy": float(correct_on(network, transferred, data, *setting).mean()),
        "zero_gradient": zero_gradient_share(network, data, *setting),  # images without any gradient
        "curve_epsilon": [float(e) for e in EPSILONS],
        "adversarial_accuracy_by_epsilon": rounded(by_epsilon),
    }
    if config.restart_steps:
        metrics[f"adversarial_accuracy_{config.restart_steps}_steps"] = accuracy(steps=config.restart_steps)
    return metrics


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
def attack_independently(job: Job, network: nn.Module, data: ImageDataset, context: Context) -> Metrics:
    """Attack a network by implementations that are not ours, so that its robustness is not our attack's weakness.

    With the same settings and random starts as ours, ``…_torchattacks``; ``…_apgd_ce`` under the first of AutoAttack's
    four attacks (100 steps, whose size it chooses), ``…_apgd`` under the second too, towards nine wrong classes.
    """
    autoattack, torchattacks = _independent_packages()
    config, runtime = AdversarialConfig.of(job.recipe), context.runtime
    threat, setting = _threat(config), (config.normalisation, runtime)
    model = WithNormalisation(network, config.normalisation).to(runtime.device).eval()
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
    metrics: Metrics = {"attacked_images": float(len(data))}
    for name, changed in {"": ours, "_torchattacks": theirs, "_apgd_ce": first, "_apgd": both}.items():
        right = correct_on(network, changed.detach().cpu(), data, *setting)
        metrics[f"adversarial_accuracy{name}"] = float(right.mean())
    return metrics


def examples(job: Job, context: Context, count: int = 6) -> tuple[Tensor, Tensor, list[str], list[str]]:
    """Test images, one a class, that the job's network predicts right, and what the test attack makes of them.

    Both are float32 [N, C, H, W] in [0, 1]; with the names of their classes, and of those predicted after the attack.
    """
    config = AdversarialConfig.of(job.recipe)
    network, test = fit(job, context).network, context.images(job.dataset, "test")
    setting = (config.normalisation, context.runtime)
    right = torch.from_numpy(correct_on(network, to_unit_range(test.images), test, *setting))
    places = [torch.nonzero(right & (test.labels == label)).flatten()[:1] for label in range(test.num_classes)]
    few = test.subset(torch.cat(places)[:count])
    attacked, names = attack(network, few, *setting, _threat(config)).images, few.class_names
    with torch.no_grad(), full_float32():
        logits = WithNormalisation(network, config.normalisation)(attacked.to(context.runtime.device))
    before, after = ([names[k] for k in labels.tolist()] for labels in (few.labels, logits.argmax(1)))
    return to_unit_range(few.images), attacked, before, after
