"""The effective robustness section: what fine-tuned networks have beyond the line of ordinary ones (P2).

What published predictions say is :mod:`robustness_lib.experiments.testbed`, whose methods are among this section's; the
rest is about our own trainings.

A pre-trained and a randomly initialised network are trained on the target and evaluated several times within the first
epoch and after every one or two later: accuracy on the original test images, and on shifted ones
(:mod:`robustness_lib.experiments.shifted_test_sets`). A testbed of ordinary models
(:mod:`robustness_lib.methods.baseline_models`), each a job too, gives the line; effective robustness is what a
network has beyond it.

Methods: ``testbed-model`` trains the testbed's models, one a level; ``own-testbed`` is all of them together, their
lines and how they differ image by image. ``standard`` fine-tunes a network that was
pre-trained *without* the classes related to CIFAR-10, and trains one from scratch; ``seen`` is the same with a network
whose pre-training had these classes. The others change one thing in the pre-trained arm of ``standard``:

* ``low-rate`` and ``high-rate``: the learning rate; ``mse``: the loss; ``last-layer``: features are computed once, and
  a linear layer is trained on them;
* ``easy`` and ``hard``: the training images, chosen by difficulty
  (:mod:`robustness_lib.methods.example_difficulty`);
* ``class-map``: the old head goes on, with the classes that are mapped to the label
  (:mod:`robustness_lib.methods.class_mapping`); ``head-penalty`` is that with a penalty on the distance of the head
  from the pre-trained one, at levels of its strength; ``wise-ft`` is the straight line in weight space from the
  pre-trained network to that of ``class-map``;
* ``replay``, ``replay-10`` and ``replay-100``: images of pre-training come again under their old head;
* ``zero-shot``, ``zero-shot-mean`` and ``zero-shot-sum``: the pre-trained network as it is, by the class map.

On request only: ``hardening``, where the easiest images go one by one; ``class-map-replay``, ``class-map`` with
``replay``; and, since they need further pre-trainings, ``smaller-corpus`` (a tenth of the corpus's images),
``corpus-25`` and ``corpus-50`` (per cent), ``fewer-classes`` (as few images as the first, of a tenth of the classes)
and ``larger-network``.

Which test images are taken is part of the config; they are the same for every network and seed. The maximum counts
only where the original accuracy is one that the testbed reaches: below it, the line would be extended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import SOURCES, ImageDataset, class_balanced_subset, data_root
from robustness_lib.errors import UserError, choose
from robustness_lib.experiments import testbed as testbeds
from robustness_lib.experiments.fine_tuning import (
    Evaluations,
    cross_validated_scores,
    evaluate_once,
    fit,
    fit_head,
    fit_without_network,
)
from robustness_lib.experiments.grid import Filters, GridPoint, Method, expand
from robustness_lib.experiments.presets import profile
from robustness_lib.experiments.pretraining import target_of
from robustness_lib.experiments.shifted_test_sets import TargetTests, parse_shifts, shifted_images, target_tests
from robustness_lib.experiments.testbed_comparison import metrics_against, testbed_metrics, whole_testbed_metrics
from robustness_lib.methods.baseline_models import TESTBEDS, fit_pixel_model
from robustness_lib.methods.class_mapping import (
    class_map,
    class_map_loss,
    completed,
    extend_head,
    mapped_scores,
    two_headed_loss,
)
from robustness_lib.methods.example_difficulty import EXAMPLES, c_scores, chosen_by_difficulty, hardening
from robustness_lib.methods.fine_tuning import (
    Features,
    at_size,
    head_penalty_loss,
    interpolated,
    public_features,
    renew_statistics,
    with_replay,
)
from robustness_lib.methods.interfaces import Forward, Sampler
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import build, difference, load_trunk
from robustness_lib.models.checkpoint_ids import origin
from robustness_lib.runner.model_cache import (
    PUBLIC,
    Context,
    Training,
    initialise,
    keep_outputs,
    read_trained,
    target_images,
)
from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import predict

SECTION = "effective_robustness"
TESTBED, WHOLE_TESTBED, PENALTY = "testbed-model", "own-testbed", "head-penalty"
REPLAYS = {"replay": 1, "replay-10": 10, "replay-100": 100}
"""Replayed images an image of the target."""
ZERO_SHOTS = {"zero-shot": "max", "zero-shot-mean": "mean", "zero-shot-sum": "sum"}

PENALTIES = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""Strengths of ``head-penalty`` (P2's are not legible)."""

_NUMBERS = {scale: [float(number) for number, _ in enumerate(models, 1)] for scale, models in TESTBEDS.items()}
_SLOW = ("cpu", "paper")  # what smoke leaves out: it shows that each piece of the machinery works
_TUNED: dict[str, Any] = {"arms": ["tuned"], "further": "excluded"}

OWN_METHODS = {
    TESTBED: Method(arms=["scratch"], levels=_NUMBERS, other_levels=False, seeds=1),
    WHOLE_TESTBED: Method(arms=["scratch"], seeds=1),
    "standard": Method(further="excluded"),
    "seen": Method(arms=["tuned"], profiles=_SLOW),
    "low-rate": Method(profiles=_SLOW, **_TUNED),
    "high-rate": Method(profiles=_SLOW, **_TUNED),
    "mse": Method(profiles=_SLOW, **_TUNED),
    "last-layer": Method(**_TUNED),
    "easy": Method(profiles=_SLOW, changes={"examples": "easy"}, **_TUNED),
    "hard": Method(changes={"examples": "hard"}, **_TUNED),
    "class-map": Method(profiles=_SLOW, **_TUNED),
    PENALTY: Method(profiles=_SLOW, levels=dict.fromkeys(TESTBEDS, PENALTIES), **_TUNED),
    "wise-ft": Method(**_TUNED),
    "replay": Method(**_TUNED),
    "replay-10": Method(profiles=_SLOW, **_TUNED),
    "replay-100": Method(profiles=_SLOW, **_TUNED),
    "zero-shot": Method(**_TUNED),
    "zero-shot-mean": Method(profiles=_SLOW, **_TUNED),
    "zero-shot-sum": Method(profiles=_SLOW, **_TUNED),
    "hardening": Method(profiles=(), **_TUNED),
    "class-map-replay": Method(profiles=(), **_TUNED),
    "smaller-corpus": Method(arms=["tuned"], profiles=(), further="smaller-corpus"),
    "corpus-25": Method(arms=["tuned"], profiles=(), further="corpus-25"),
    "corpus-50": Method(arms=["tuned"], profiles=(), further="corpus-50"),
    "fewer-classes": Method(arms=["tuned"], profiles=(), further="fewer-classes"),
    "larger-network": Method(profiles=(), **_TUNED),
}
"""The methods that train networks."""
METHODS = {**OWN_METHODS, **testbeds.METHODS}

SHARES = tuple(tenths / 10 for tenths in range(11))
"""Where ``wise-ft`` is evaluated, between the pre-trained network (0) and the fine-tuned one (1)."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# --------------------------------------------------------------------------------------------- recipes


@dataclass(frozen=True, kw_only=True)
class EffectiveRobustnessConfig(TrainingConfig):
    """A training recipe, and on which test images the network is evaluated.

    Attributes:
        shifts: Names of shifts (:data:`robustness_lib.experiments.shifted_test_sets.SHIFTS`), separated by commas or
            colons. The first one's metrics are also recorded without its name: claims are about it.
        test_images: How many original test images; 0 for all.
        shifted_images: How many test images of each shift; 0 for all.
        model: A testbed model that is no network (:data:`robustness_lib.methods.baseline_models.PIXEL_MODELS`);
            empty for one.
        image_size: Pixels that images are enlarged to before the network; 0 for none (P2: 224).
        examples: Which training images: one of :data:`robustness_lib.methods.example_difficulty.EXAMPLES`.
        difficulty: Where their difficulty comes from: ``"cross-validated"`` or ``"c-score"``.
        replay_images: The replay buffer, a draw from the corpus; 0 for all of it.
        bins: How many bins of equal width the accuracies from 0 to 1 are averaged in (P2: 100; fewer where there are
            fewer evaluations, so that a maximum is not that of a single one).
    """

    shifts: str = "corrupted"
    test_images: int = 0
    shifted_images: int = 0
    model: str = ""
    image_size: int = 0
    examples: str = "random"
    difficulty: str = "cross-validated"
    replay_images: int = 0
    bins: int = field(default=100, metadata={"added": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shifts", ",".join(parse_shifts(self.shifts)))
        choose(self.examples, EXAMPLES, "choice of examples")
        choose(self.difficulty, ("cross-validated", "c-score"), "score of difficulty")
        for name in ("test_images", "shifted_images", "image_size", "replay_images"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)} but must be at least 0; give another value")
        if self.bins < 1:
            raise UserError(f"bins is {self.bins} but must be at least 1; the paper uses 100")
        if self.observations < 1:
            raise UserError("observations is 0 but must be at least 1: robustness is measured at observations")


_AS_IN_P2: dict[str, Any] = {"schedule": "constant", "nesterov": False, "weight_decay": 1e-4, "batch_size": 64}
"""P2's settings of every training (B.6)."""

_SMOKE = {"train_images": 400, "bins": 25, "observations": 4, "early_looks": 2}

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "all": {"shifts": "shifted,corrupted", "test_images": 200, "shifted_images": 200, "replay_images": 400},
        "scratch": {**_SMOKE, "epochs": 8, "learning_rate": 0.05},
        "tuned": {**_SMOKE, "epochs": 4, "learning_rate": 0.02},
        "last-layer": {"batch_size": 64, "epochs": 20, "learning_rate": 0.1, "observations": 5},
        "low-rate": {"learning_rate": 0.006},
        "high-rate": {"learning_rate": 0.06},
        "larger-network": {"architecture": "wrn-10-2"},
        "testbed": {"learning_rate": 0.1},
    },
    "cpu": {
        "all": {
            "shifts": "excluded,included,corrupted",
            "test_images": 2000,
            "shifted_images": 1000,
            "replay_images": 20_000,
        },
        "scratch": {"bins": 25, "epochs": 30, "learning_rate": 0.05, "observations": 10, "early_looks": 5},
        "tuned": {"bins": 25, "epochs": 12, "learning_rate": 0.01, "observations": 12, "early_looks": 5},
        "last-layer": {"epochs": 100, "learning_rate": 0.01, "observations": 25, "weight_decay": 0.0},
        "low-rate": {"learning_rate": 0.003},
        "high-rate": {"learning_rate": 0.03},
        "larger-network": {"architecture": "wrn-16-2"},
        "testbed": {"learning_rate": 0.1},
    },
    "paper": {
        "all": {"shifts": "cifar10.1,excluded,included,corrupted", "crop_padding": 4},
        "scratch": {"dropout": 0.0, "epochs": 250, "learning_rate": 0.01, "observations": 250, "early_looks": 6},
        "tuned": {"epochs": 100, "learning_rate": 0.001, "observations": 100, "early_looks": 6},
        "last-layer": {
            "batch_size": 4096,
            "epochs": 1000,
            "learning_rate": 0.0001,
            "observations": 100,
            "momentum": 0.0,
            "weight_decay": 0.0,
        },
        "low-rate": {"learning_rate": 0.0001},
        "high-rate": {"learning_rate": 0.01},
        "easy": {"train_images": 5000},
        "hard": {"train_images": 5000},
        "hardening": {"train_images": 5000},
        "larger-network": {"architecture": "wrn-28-10"},
        "testbed": {"learning_rate": 0.1, "dropout": 0.0},
    },
}
"""What is special to the section at each profile: for all trainings, for each arm, for some methods, and for the
testbed's networks, which are trained as P1 trains (cosine schedule)."""


def _configure(config: EffectiveRobustnessConfig, point: GridPoint) -> EffectiveRobustnessConfig:
    """A testbed's model is trained as P1 trains, all others as P2 does."""
    ours, method = SETTINGS[point.profile], point.method
    if method in (TESTBED, WHOLE_TESTBED):
        model = {} if point.level is None else TESTBEDS[point.profile][int(point.level) - 1]
        return replace(config, **ours["all"], **ours["testbed"], observations=1, early_looks=0, **model)
    if method == PENALTY and not (point.level or 0) >= 0:
        raise UserError(f"a penalty of {point.level:g} would reward distance; give strengths of at least 0 to --levels")
    return replace(config, **{**_AS_IN_P2, **ours["all"], **ours[point.arm], **ours.get(method, {})})


# --------------------------------------------------------------------------------------------- jobs


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile: those of published predictions, then those that train.

    Returns:
        The jobs (:func:`robustness_lib.experiments.testbed.jobs`, :func:`robustness_lib.experiments.grid.expand`).
    """
    datasets, methods = filters.get("datasets"), filters.get("methods")
    for method in methods or ():
        choose(method, METHODS, f"method of the section {SECTION}")
    planned = testbeds.jobs(profile_name, datasets=datasets or None, methods=methods or None)
    own_methods = [method for method in methods or () if method in OWN_METHODS]
    own_datasets = [name for name in datasets or () if name not in _PAIRS_ALONE]
    if (methods and not own_methods) or (datasets and not own_datasets):
        return planned
    filters["methods"], filters["datasets"] = own_methods, own_datasets
    return planned + expand(
        SECTION,
        profile_name,
        OWN_METHODS,
        EffectiveRobustnessConfig,
        configure=_configure,
        default_datasets=("synthetic", "cifar10"),
        smoke_seeds=1,
        order=("method", "dataset", "level", "seed"),
        **filters,
    )


_PAIRS_ALONE = set(testbeds.PAIRS) - {"cifar10"}
"""Data sets of which there are published predictions alone."""


def shifts_of(planned: Sequence[Job]) -> tuple[str, ...]:
    """The shifts that jobs of the section measure, those of published predictions aside."""
    found = [str(job.recipe["shifts"]) for job in planned if "shifts" in job.recipe]
    return parse_shifts(found[0]) if found else ()


# --------------------------------------------------------------------------------------------- measuring


def check_images(job: Job, context: Context) -> None:
    """Refuse, before anything is trained, a shift that is missing or does not go with the target."""
    shifted_images(job.dataset, parse_shifts(EffectiveRobustnessConfig.of(job.recipe).shifts), context)


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's model, evaluate it, and compare it with the testbed, which is trained where it is not.

    Returns:
        For published predictions :func:`robustness_lib.experiments.testbed.run`, for a testbed model
        :func:`testbed_metrics`, for all of them :func:`whole_testbed_metrics`, for others :func:`metrics_against`; with
        a pre-trained network whose old head can still be asked, ``source_accuracy`` and ``source_accuracy_before`` on
        the corpus's test images. Scores by observation, image and class are kept in the store.
    """
    if testbeds.is_job(job):
        return testbeds.run(job, context)
    recipe = EffectiveRobustnessConfig.of(job.recipe)
    tests = target_tests(
        job.dataset,
        parse_shifts(recipe.shifts),
        context,
        original=recipe.test_images,
        shifted=recipe.shifted_images,
    )
    if job.method == TESTBED:
        evaluations = _fit_testbed_model(_training(job, recipe, tests, ""), recipe, tests, context)
        keep_outputs(job, context, {name: value[-1] for name, value in evaluations.scores.items()})
        return testbed_metrics(evaluations, tests)
    if job.method == WHOLE_TESTBED:
        return whole_testbed_metrics(testbed_of(job, recipe, tests, context), tests)
    evaluations, classes, further = _fine_tuned(job, recipe, tests, context)
    testbed = testbed_of(job, recipe, tests, context)
    keep_outputs(job, context, {"epochs": evaluations.epochs, **evaluations.scores})
    return metrics_against(testbed, evaluations, tests, classes, bins=recipe.bins) | further


# --------------------------------------------------------------------------------------------- testbed


def testbed_of(job: Job, recipe: EffectiveRobustnessConfig, tests: TargetTests, context: Context) -> list[Evaluations]:
    """The models of the job's testbed, evaluated on the job's test sets; those that are not there are trained."""
    scale = profile(job.profile)
    base = target_of(scale, job.dataset).scratch
    found = []
    for number in range(1, len(TESTBEDS[scale.name]) + 1):
        start = EffectiveRobustnessConfig(**{**base.as_dict(), "observations": 1})
        own = _configure(start, GridPoint(scale.name, "scratch", TESTBED, job.dataset, float(number)))
        own = replace(own, shifts=recipe.shifts, test_images=recipe.test_images, shifted_images=recipe.shifted_images)
        model = replace(job, init=SCRATCH, seed=scale.seeds[0], method=TESTBED, level=number, recipe=own.as_dict())
        found.append(_fit_testbed_model(_training(model, own, tests, ""), own, tests, context))
    return found


def _fit_testbed_model(
    training: Training, recipe: EffectiveRobustnessConfig, tests: TargetTests, context: Context
) -> Evaluations:
    if recipe.model:
        return fit_without_network(
            training,
            tests,
            context,
            score=lambda: fit_pixel_model(recipe.model, target_images(training, context), training.seed),
        )
    progress = f"testbed {recipe.architecture}, {recipe.train_images} images"
    return fit(training, tests, context, start=lambda: _fresh(training, recipe, context), progress=progress)


def _training(job: Job, recipe: EffectiveRobustnessConfig, tests: TargetTests, what: str) -> Training:
    size = f", at {recipe.image_size} pixels" if recipe.image_size else ""
    size += f", {recipe.model} on pixels" if recipe.model else ""
    variant = f"effective robustness, {tests.description}{size}{what and ', '}{what}"
    return Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=recipe, variant=variant)


def _fresh(training: Training, recipe: EffectiveRobustnessConfig, context: Context) -> nn.Module:
    """The network before its training, with a new head."""
    classes = context.images(training.dataset, "test").num_classes
    return at_size(initialise(training, classes, context), recipe.image_size)


# --------------------------------------------------------------------------------------------- fine-tuning


def _fine_tuned(
    job: Job, recipe: EffectiveRobustnessConfig, tests: TargetTests, context: Context
) -> tuple[Evaluations, Sequence[int] | None, Metrics]:
    """The job's network at each evaluation, the only classes it knows (None for all), and further metrics."""
    if job.init.startswith(PUBLIC) and job.method != "last-layer":
        raise UserError(f"{job.init} gives features alone; choose the method last-layer, or another checkpoint")
    if recipe.examples == "random":
        training = _training(job, recipe, tests, "")
        data = target_images(training, context)
    else:
        whole, scores, what = _difficulty(job, recipe, context)
        chosen = chosen_by_difficulty(whole.labels, scores, recipe.train_images or len(whole), recipe.examples)
        data = whole.subset(chosen, f"{whole.name}, {recipe.examples}")
        training = _training(job, recipe, tests, f"the {recipe.examples} images by the {what}")
    if job.method in ZERO_SHOTS:
        network, members = _pretrained(training, recipe, context)
        known = torch.nonzero(members.any(1)).flatten().tolist()
        convert = partial(mapped_scores, members=members, rule=ZERO_SHOTS[job.method])
        return evaluate_once(network, tests, recipe, context, convert), known, {}
    if job.method == "last-layer":
        training = replace(training, variant=f"{training.variant}, the last layer on fixed features")

        def extractor() -> nn.Module:
            if training.init.startswith(PUBLIC):
                return public_features(training.init.removeprefix(PUBLIC), recipe.image_size)
            return Features(_fresh(training, recipe, context))

        return fit_head(training, tests, context, extractor=extractor, data=data), None, {}
    if job.method in ("class-map", "class-map-replay", PENALTY, "wise-ft"):
        return _with_old_head(job, training, recipe, data, tests, context)
    if job.method in REPLAYS:
        return _with_replay(job, training, recipe, data, tests, context)
    hooks: dict[str, Any] = {}
    if job.method == "mse":
        training, hooks = replace(training, variant=f"{training.variant}, mean squared error"), {"loss": squared_error}
    if job.method == "hardening":
        data, scores, what = _difficulty(job, recipe, context)
        training = replace(training, variant=f"{training.variant}, ever harder images by the {what}")
        hooks["sampler"] = hardening(data.labels, scores, recipe.epochs, recipe.train_images or len(data))
    old_head = None
    if job.init != SCRATCH:
        with contextlib.suppress(UnknownHead):  # before the training, which a missing corpus would make in vain
            old_head = _pretrained(training, recipe, context)[0]
    evaluations = fit(
        training,
        tests,
        context,
        start=lambda: _fresh(training, recipe, context),
        data=data,
        progress=job.label,
        **hooks,
    )
    if old_head is None:
        return evaluations, None, {}
    before, own = _source_accuracy(old_head, training, recipe, context), old_head.state_dict()
    trunk = {name: value for name, value in evaluations.weights.items() if own[name].shape == value.shape}
    old_head.load_state_dict({**own, **trunk})
    after = _source_accuracy(old_head, training, recipe, context)
    return evaluations, None, {"source_accuracy": after, "source_accuracy_before": before}


def squared_error(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Mean squared distance of the logits from the one-hot labels (P2 C.4)."""
    logits = network(images).float()
    return F.mse_loss(logits, torch.zeros_like(logits).scatter(1, labels[:, None], 1.0))


def _difficulty(
    job: Job, recipe: EffectiveRobustnessConfig, context: Context
) -> tuple[ImageDataset, npt.NDArray[np.float64], str]:
    """The target's whole training set, the score of each of its images (the higher the easier), and what it is."""
    whole = context.images(job.dataset, "train")
    if recipe.difficulty == "c-score":
        return whole, c_scores(whole, data_root(context.data)), "C-score"
    judge = target_of(profile(job.profile), job.dataset)
    settings = {"smoke": ("wrn-10-1", 3), "cpu": ("wrn-10-1", 4), "paper": ("wrn-40-2", 20)}[job.profile]
    own = replace(judge.scratch, architecture=settings[0], epochs=settings[1], train_images=0, dropout=0.0)
    return whole, cross_validated_scores(whole, own, context), f"cross-validated score of {settings}"


class UnknownHead(UserError):
    """A checkpoint has a head of which it is not known what its classes are."""


def _pretrained(training: Training, recipe: EffectiveRobustnessConfig, context: Context) -> tuple[nn.Module, Tensor]:
    """The pre-trained network with its old head, and which of its classes are which of the target's."""
    name = _corpus_of(training.init)
    if name is None or recipe.image_size:
        raise UnknownHead(
            f"the old head of {training.init} is not known here, since its id names none of our corpora; "
            "choose a method with a new head, such as standard"
        )
    corpus = context.images(name, "test")
    path = context.checkpoint(training.init)
    if path is None:
        initialise(training, 1, context)  # says where it was searched for and how to get it
    assert path is not None
    weights = read_trained(path)[0]
    network = build(recipe.architecture, corpus.num_classes)
    load_trunk(network, weights)
    if misfit := difference(network.state_dict(), weights):
        raise UnknownHead(
            f"the old head of {training.init} is not known here, since {name} has {corpus.num_classes} classes "
            f"({misfit}); choose a method with a new head, such as standard, or another checkpoint with --init"
        )
    network.load_state_dict(weights)
    target = context.images(training.dataset, "test")
    return network, class_map(training.dataset, target.class_names, corpus.class_names)


def _corpus_of(checkpoint: str) -> str | None:
    """The image set that a checkpoint was pre-trained on, from its id; None where that names none."""
    found = origin(checkpoint)
    return found.corpus if found is not None and found.corpus in SOURCES else None


def _with_old_head(
    job: Job,
    training: Training,
    recipe: EffectiveRobustnessConfig,
    data: ImageDataset,
    tests: TargetTests,
    context: Context,
) -> tuple[Evaluations, Sequence[int] | None, Metrics]:
    """Fine-tuning of the pre-trained head by the class map; target classes that it lacks get a fresh row."""

    def start() -> tuple[nn.Module, Tensor]:
        network, members = _pretrained(training, recipe, context)
        every = completed(members)
        return extend_head(network, every.shape[1] - members.shape[1], training.seed), every

    network, members = start()
    convert = partial(mapped_scores, members=members)
    what: str = "class map"
    hooks: dict[str, Any] = {"loss": class_map_loss(members)}
    if job.method == "class-map-replay":
        hooks["loss"] = class_map_loss(members, old_labels_from=len(data))
        data, recipe_with, hooks["sampler"], again = _replayed(data, training, recipe, 1, context)
        what, training = f"{what}, replay of {again}", replace(training, recipe=recipe_with)
    if job.method == PENALTY:
        what = f"{what}, head penalty {job.level:g}"
        hooks = {"loss_of": partial(head_penalty_loss, loss=hooks["loss"], strength=job.level or 0.0)}
    training = replace(training, variant=f"{training.variant}, {what}")
    evaluations = fit(
        training, tests, context, start=lambda: start()[0], data=data, convert=convert, progress=job.label, **hooks
    )
    if job.method != "wise-ft":
        return evaluations, None, {}
    mixed = build(recipe.architecture, members.shape[1])
    mixtures = []
    for share in SHARES:
        mixed.load_state_dict(interpolated(network, evaluations.weights, share))
        if 0 < share < 1:
            renew_statistics(mixed, data, recipe, context.runtime.device)
        mixtures.append(evaluate_once(mixed, tests, recipe, context, convert))
    scores = {name: np.concatenate([mixture.scores[name] for mixture in mixtures]) for name in mixtures[0].scores}
    known = torch.nonzero(_pretrained(training, recipe, context)[1].any(1)).flatten().tolist()
    return Evaluations(np.array(SHARES), scores, {}), known, {}


def _replayed(
    target: ImageDataset, training: Training, recipe: EffectiveRobustnessConfig, ratio: int, context: Context
) -> tuple[ImageDataset, TrainingConfig, Sampler, str]:
    """What :func:`with_replay` makes of the target's images and the buffer, and what the buffer is."""
    corpus = context.images(_corpus_of(training.init) or "", "train")
    if recipe.replay_images:
        corpus = corpus.subset(class_balanced_subset(corpus.labels, recipe.replay_images, seed=0))
    return *with_replay(target, corpus, recipe, ratio), f"{len(corpus)} {corpus.name}, both losses added"


def _with_replay(
    job: Job,
    training: Training,
    recipe: EffectiveRobustnessConfig,
    data: ImageDataset,
    tests: TargetTests,
    context: Context,
) -> tuple[Evaluations, Sequence[int] | None, Metrics]:
    """Fine-tuning of two heads, the old one on images of pre-training."""
    before, members = _pretrained(training, recipe, context)
    old = members.shape[1]
    both, larger, sampler, again = _replayed(data, training, recipe, REPLAYS[job.method], context)
    what = f"{job.method} of {again}"
    wider = replace(training, recipe=larger, variant=f"{training.variant}, {what}")

    def start() -> nn.Module:
        return extend_head(_pretrained(training, recipe, context)[0], data.num_classes, training.seed)

    evaluations = fit(
        wider,
        tests,
        context,
        start=start,
        data=both,
        convert=lambda logits: logits[:, old:],
        progress=job.label,
        loss=two_headed_loss(old, len(data)),
        sampler=sampler,
    )
    network = build(recipe.architecture, old + data.num_classes)
    network.load_state_dict(dict(evaluations.weights))
    after, first = (_source_accuracy(one, training, recipe, context) for one in (network, before))
    return evaluations, None, {"source_accuracy": after, "source_accuracy_before": first}


def _source_accuracy(
    network: nn.Module, training: Training, recipe: EffectiveRobustnessConfig, context: Context
) -> float:
    """Accuracy on the corpus's test images under the old head, whose classes are a network's first."""
    corpus = context.images(_corpus_of(training.init) or "", "test")
    logits = predict(network, corpus, recipe.normalisation, context.runtime)[:, : corpus.num_classes]
    return float((logits.argmax(1) == corpus.labels).double().mean())
