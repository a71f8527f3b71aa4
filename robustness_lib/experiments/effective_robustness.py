"""The effective robustness section: what fine-tuned networks have beyond the line of ordinary ones (P2).

A pre-trained and a randomly initialised network are trained on the target and evaluated on the way on the original test
images and on shifted ones (:mod:`robustness_lib.experiments.evaluations`). A testbed of ordinary models gives the line:
``testbed-model`` is one of them a level, ``own-testbed`` all together. Methods of published predictions are in
:mod:`robustness_lib.experiments.testbed`.

``standard`` fine-tunes a network that was pre-trained *without* the classes related to CIFAR-10, and trains one from
scratch; ``seen`` is the same with a network whose pre-training had these classes. The others change one thing in the
pre-trained arm of ``standard``:

* ``low-rate``, ``high-rate``: the learning rate; ``mse``: the loss; ``easy``, ``hard``: the training images
  (:mod:`robustness_lib.methods.example_difficulty`); ``last-layer``: only a linear layer on fixed features is trained;
* ``class-map``: the old head goes on, with the classes that are mapped to the label
  (:mod:`robustness_lib.methods.class_mapping`); ``head-penalty`` is that with a penalty on the head's distance from the
  pre-trained one; ``wise-ft`` is the line in weight space from the pre-trained network to that of ``class-map``;
* ``replay``, ``replay-10``, ``replay-100``: images of pre-training come again under their old head;
* ``zero-shot``, ``zero-shot-mean``, ``zero-shot-sum``: the pre-trained network as it is, by the class map.

On request only: ``hardening``, where the easiest images go one by one; ``class-map-replay``, both at once;
``larger-network``; and with further pre-trainings ``smaller-corpus`` (a tenth of the corpus's images), ``corpus-25``
and ``corpus-50`` (per cent), and ``fewer-classes`` (as few images as the first, of a tenth of the classes).
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness_lib.data import SOURCES, ImageDataset, class_balanced_subset, data_root
from robustness_lib.data.imagenet_downsampled import read_class_map
from robustness_lib.errors import UserError, choose
from robustness_lib.experiments import evaluations, presets
from robustness_lib.experiments import testbed as testbeds
from robustness_lib.experiments.evaluations import ORIGINAL, Convert, Evaluations, TargetTests, scorer
from robustness_lib.experiments.grid import ARMS, Filters, GridPoint, Method, expand
from robustness_lib.experiments.testbed_comparison import metrics_against, testbed_metrics, whole_testbed_metrics
from robustness_lib.methods import class_mapping, example_difficulty, fine_tuning
from robustness_lib.methods.baseline_models import fit_pixel_model
from robustness_lib.methods.checks import Floats, check_whole
from robustness_lib.methods.interfaces import Forward
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import difference, load_trunk
from robustness_lib.models.checkpoint_ids import PUBLIC, origin
from robustness_lib.runner import model_cache
from robustness_lib.runner.model_cache import Context, Training, find_checkpoint, keep_outputs, target_images
from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import History, predict, train

SECTION = "effective_robustness"
TESTBED, WHOLE_TESTBED, PENALTY = "testbed-model", "own-testbed", "head-penalty"
ZERO_SHOT = {"zero-shot": "max", "zero-shot-mean": "mean", "zero-shot-sum": "sum"}  # and their rules

PENALTIES = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)  # P2's are not legible
SHARES = tuple(tenths / 10 for tenths in range(11))  # of wise-ft: 0 is the pre-trained network, 1 the fine-tuned one
TESTBEDS: dict[str, list[dict[str, Any]]] = presets.read_toml("testbeds.toml")["models"]  # by profile

_NUMBERS = {scale: [float(number) for number, _ in enumerate(models, 1)] for scale, models in TESTBEDS.items()}
_SLOW = ("cpu", "paper")  # what smoke leaves out: it shows that each piece of the machinery works
_AS_IN_P2 = {"schedule": "constant", "nesterov": False, "weight_decay": 1e-4, "batch_size": 64}  # B.6
_AS_IN_P1: dict[str, Any] = {"arms": ["scratch"], "settings": ["all", "testbed"], "seeds": 1}
_FURTHER_CORPORA = ("smaller-corpus", "corpus-25", "corpus-50", "fewer-classes")  # each is its own pre-training
_TUNED: dict[str, Any] = {"arms": ["tuned"], "further": "excluded", "changes": _AS_IN_P2}


def _tuned(*names: str, **changes: Any) -> dict[str, Method]:
    return {name: Method(**{**_TUNED, **changes}) for name in names}


OWN_METHODS = {
    TESTBED: Method(levels=_NUMBERS, other_levels=False, **_AS_IN_P1),
    WHOLE_TESTBED: Method(**_AS_IN_P1),
    **_tuned("standard", arms=ARMS),
    **_tuned("seen", profiles=_SLOW, further=""),
    **_tuned("low-rate", "high-rate", "mse", profiles=_SLOW),
    **_tuned("last-layer"),
    **_tuned("easy", profiles=_SLOW, changes={**_AS_IN_P2, "examples": "easy"}),
    **_tuned("hard", changes={**_AS_IN_P2, "examples": "hard"}),
    **_tuned("class-map", profiles=_SLOW),
    **_tuned(PENALTY, profiles=_SLOW, levels=dict.fromkeys(TESTBEDS, PENALTIES)),
    **_tuned("wise-ft", "replay"),
    **_tuned("replay-10", "replay-100", profiles=_SLOW),
    **_tuned("zero-shot"),
    **_tuned("zero-shot-mean", "zero-shot-sum", profiles=_SLOW),
    **_tuned("hardening", "class-map-replay", "larger-network", profiles=()),
    **{name: Method(**{**_TUNED, "profiles": (), "further": name}) for name in _FURTHER_CORPORA},
}
METHODS = {**OWN_METHODS, **testbeds.METHODS}  # those that train networks, and those of published predictions


@dataclass(frozen=True, kw_only=True)
class EffectiveRobustnessConfig(TrainingConfig):
    """A training config, and on which test images the network is evaluated.

    The first shift's metrics are also recorded without its name: claims are about it.
    """

    shifts: str = "corrupted"  # names of evaluations.SHIFTS, separated by commas or colons
    test_images: int = 0  # how many original test images; 0 for all
    shifted_images: int = 0  # how many of each shift
    model: str = ""  # a testbed model that is no network (methods.baseline_models.PIXEL_MODELS)
    image_size: int = 0  # pixels that images are enlarged to before the network; 0 for none (P2: 224)
    examples: str = "random"  # one of methods.example_difficulty.EXAMPLES
    difficulty: str = "cross-validated"  # where that of easy and hard examples comes from; or "c-score"
    replay_images: int = 0  # the replay buffer, a draw from the corpus; 0 for all of it
    bins: int = field(default=100, metadata={"added": True})  # of accuracy from 0 to 1 (P2: 100), to average in

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shifts", ",".join(evaluations.parse_shifts(self.shifts)))
        choose(self.examples, example_difficulty.EXAMPLES, "choice of examples")
        choose(self.difficulty, ("cross-validated", "c-score"), "score of difficulty")
        for name in ("test_images", "shifted_images", "image_size", "replay_images"):
            check_whole(getattr(self, name), name, 0, "give another value")
        check_whole(self.bins, "bins", 1, "the paper uses 100")
        check_whole(self.observations, "observations", 1, "robustness is measured at observations")


def _configure(config: EffectiveRobustnessConfig, point: GridPoint) -> EffectiveRobustnessConfig:
    if point.method == TESTBED and point.level is not None:
        return replace(config, **TESTBEDS[point.profile][int(point.level) - 1])
    if point.method == PENALTY and not (point.level or 0) >= 0:
        raise UserError(f"a penalty of {point.level:g} would reward distance; give strengths of at least 0 to --levels")
    return config


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile: those of published predictions, then those that train."""
    datasets, methods = filters.get("datasets"), filters.get("methods")
    for method in methods or ():
        choose(method, METHODS, f"method of the section {SECTION}")
    planned = testbeds.jobs(profile_name, **filters)
    filters["methods"] = [method for method in methods or () if method in OWN_METHODS]
    filters["datasets"] = [name for name in datasets or () if name not in testbeds.PAIRS_ALONE]
    if (methods and not filters["methods"]) or (datasets and not filters["datasets"]):
        return planned
    own = expand(SECTION, profile_name, OWN_METHODS, EffectiveRobustnessConfig, configure=_configure, **filters)
    return planned + own


def check_images(job: Job, context: Context) -> None:
    """Refuse, before anything is trained, a shift that is missing or does not go with the target."""
    evaluations.shifted_images(job.dataset, evaluations.parse_shifts(str(job.recipe["shifts"])), context)


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's model and its testbed, and compare them; their scores are kept in the store.

    ``source_accuracy`` and ``source_accuracy_before`` are of the old head, where it is known, on the corpus.
    """
    if job.method in testbeds.METHODS:
        return testbeds.run(job, context)
    config = EffectiveRobustnessConfig.of(job.recipe)
    sizes = {"original": config.test_images, "shifted": config.shifted_images}
    tests = evaluations.target_tests(job.dataset, evaluations.parse_shifts(config.shifts), context, **sizes)
    if job.method == TESTBED:
        model = _testbed_model(Tuning(job, tests, context))
        keep_outputs(job, context, {name: value[-1] for name, value in model.scores.items()})
        return testbed_metrics(model, tests)
    if job.method == WHOLE_TESTBED:
        return whole_testbed_metrics(testbed_of(job, tests, context), tests)
    if job.init.startswith(PUBLIC) and job.method not in ("last-layer", *ZERO_SHOT):
        raise UserError(f"{job.init} is not tuned whole; choose last-layer or zero-shot methods, or another checkpoint")
    context.images(job.dataset, "train")  # noted for the provenance, though a kept network is not trained again
    result, further = TUNINGS.get(job.method, _new_head)(Tuning(job, tests, context))
    keep_outputs(job, context, {"epochs": result.epochs, **result.scores})
    return metrics_against(testbed_of(job, tests, context), result, tests, bins=config.bins) | further


def testbed_of(job: Job, tests: TargetTests, context: Context) -> list[Evaluations]:
    """The testbed that a job is compared with, on the same test images."""
    same = {name: str(job.recipe[name]) for name in ("shifts", "test_images", "shifted_images")}
    models = jobs(job.profile, datasets=[job.dataset], methods=[TESTBED], overrides=same)
    return [_testbed_model(Tuning(model, tests, context)) for model in models]


class UnknownHead(UserError):
    """It is not known what the classes of a checkpoint's head are."""


@dataclass(frozen=True)
class Tuning:
    """The training of a job, to which its method adds."""

    job: Job
    tests: TargetTests
    context: Context

    @cached_property
    def config(self) -> EffectiveRobustnessConfig:
        """The job's config."""
        return EffectiveRobustnessConfig.of(self.job.recipe)

    def described(self, added: str = "", config: TrainingConfig | None = None) -> Training:
        """The training's description, with what the method adds in words, and its own config where it has one."""
        job, own = self.job, self.config
        parts = ["effective robustness", *(f"{len(images)} {name}" for name, images in self.tests.sets.items())]
        if own.image_size:
            parts.append(f"at {own.image_size} pixels")
        if own.model:
            parts.append(f"{own.model} on pixels")
        if own.examples != "random":
            parts.append(f"the {own.examples} images by the {self.difficulty[2]}")
        variant = ", ".join([*parts, added] if added else parts)
        return Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=config or own, variant=variant)

    @cached_property
    def data(self) -> ImageDataset:
        """The training images, a draw or the easiest or hardest of each class."""
        examples, count = self.config.examples, self.config.train_images
        if examples == "random":
            return target_images(self.described(), self.context)
        whole, scores, _ = self.difficulty
        chosen = example_difficulty.chosen_by_difficulty(whole.labels, scores, count or len(whole), examples)
        return whole.subset(chosen, f"{whole.name}, {examples}")

    @cached_property
    def difficulty(self) -> tuple[ImageDataset, Floats, str]:
        """The target's whole training set, the score of each of its images (the higher the easier), and what it is."""
        whole = self.context.images(self.job.dataset, "train")
        if self.config.difficulty == "c-score":
            return whole, example_difficulty.c_scores(whole, data_root(self.context.data)), "C-score"
        judge = {"smoke": ("wrn-10-1", 3), "cpu": ("wrn-10-1", 4), "paper": ("wrn-40-2", 20)}[self.job.profile]
        base = presets.target_of(self.job.profile, self.job.dataset).scratch
        config = replace(base, architecture=judge[0], epochs=judge[1], train_images=0, dropout=0.0)
        scores = evaluations.cross_validated_scores(whole, config, self.context)
        return whole, scores, f"cross-validated score of {judge}"

    def new_head(self) -> nn.Module:
        """The network before its training: random, or the pre-trained trunk under a new head."""
        network = model_cache.initialise(self.described(), self.tests.sets[ORIGINAL].num_classes, self.context)
        return fine_tuning.at_size(network, self.config.image_size)

    def old_head(self) -> tuple[nn.Module, Tensor]:
        """The pre-trained network with its old head, and which of its classes are which of the target's."""
        classes = self.tests.sets[ORIGINAL].class_names
        if self.job.init.startswith(PUBLIC):
            network = fine_tuning.public_network(self.job.init.removeprefix(PUBLIC), self.config.image_size, head=True)
            names = [name for _, name in sorted(read_class_map())]  # in the order of their WordNet ids
            return network, class_mapping.class_map(self.job.dataset, classes, names)
        corpus = self.corpus("test")
        network = model_cache.initialise(self.described(), corpus.num_classes, self.context)
        path = find_checkpoint(self.job.init, self.context.store)
        assert path is not None
        weights = model_cache.read_trained(path)[0]
        if misfit := difference(network.state_dict(), weights):
            raise UnknownHead(
                f"the old head of {self.job.init} is not known here, since {corpus.name} has {corpus.num_classes} "
                f"classes ({misfit}); choose a method with a new head, such as standard, or another --init"
            )
        network.load_state_dict(weights, strict=False)
        return network, class_mapping.class_map(self.job.dataset, classes, corpus.class_names)

    def mapped_head(self) -> tuple[nn.Module, Tensor]:
        """The same with a fresh class for each target class that has none."""
        network, members = self.old_head()
        every = class_mapping.completed(members)
        return class_mapping.extend_head(network, every.shape[1] - members.shape[1], self.job.seed), every

    def corpus(self, split: str) -> ImageDataset:
        """The images of pre-training."""
        made = origin(self.job.init)
        if made is None or made.corpus not in SOURCES or self.config.image_size:
            raise UnknownHead(
                f"the old head of {self.job.init} is not known here, since its id names none of our corpora, or images "
                "are enlarged; choose a method with a new head, such as standard"
            )
        return self.context.images(made.corpus, split)

    def source_accuracy(self, network: nn.Module) -> float:
        """Accuracy on the corpus's test images under the old head, whose classes are the network's first."""
        corpus = self.corpus("test")
        logits = predict(network, corpus, self.config.normalisation, self.context.runtime)[:, : corpus.num_classes]
        return float((logits.argmax(1) == corpus.labels).double().mean())

    def fit(
        self,
        network: nn.Module,
        added: str = "",
        *,
        data: ImageDataset | None = None,
        config: TrainingConfig | None = None,
        convert: Convert = lambda logits: logits,
        **hooks: Any,
    ) -> Evaluations:
        """Train a network, evaluated when the config says so, or read what was kept; ``added`` says how in words."""
        training, context = self.described(added, config), self.context

        def make() -> tuple[nn.Module, History]:
            return network, train(
                network,
                self.data if data is None else data,
                training.recipe.training_part(),
                seed=training.seed,
                observe=lambda network: self.tests.scores(scorer(network, self.config, context, convert)),
                **context.training_options(training.path(context.store), self.job.label),
                **hooks,
            )

        return evaluations.kept(training, context, make)

    def replay(self, ratio: int) -> tuple[str, dict[str, Any]]:
        """Which images of pre-training come again, and what :meth:`fit` needs for ``ratio`` of them an image."""
        corpus = self.corpus("train")
        if self.config.replay_images:
            corpus = corpus.subset(class_balanced_subset(corpus.labels, self.config.replay_images, seed=0))
        both, config, sampler = fine_tuning.with_replay(self.data, corpus, self.config, ratio)
        return f"{len(corpus)} {corpus.name}, both losses added", {"data": both, "config": config, "sampler": sampler}


def _testbed_model(tuning: Tuning) -> Evaluations:
    if not tuning.config.model:
        return tuning.fit(tuning.new_head())

    def make() -> tuple[nn.Module, History]:
        score = fit_pixel_model(tuning.config.model, tuning.data, tuning.job.seed)
        return nn.Module(), History(observed={1: tuning.tests.scores(score)})

    return evaluations.kept(tuning.described(), tuning.context, make)


Tuned = tuple[Evaluations, Metrics]


def _new_head(tuning: Tuning, added: str = "", **how: Any) -> Tuned:
    """From scratch or under a new head; and how much the old one still knows, where it can be asked."""
    network = None
    if tuning.job.init != SCRATCH:
        with contextlib.suppress(UnknownHead):  # before the training, which a missing corpus would make in vain
            network = tuning.old_head()[0]
    result = tuning.fit(tuning.new_head(), added, **how)
    if network is None:
        return result, {}
    before = tuning.source_accuracy(network)
    load_trunk(network, result.weights)
    return result, {"source_accuracy": tuning.source_accuracy(network), "source_accuracy_before": before}


def squared_error(network: Forward, images: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
    """Mean squared distance of the logits from the one-hot labels (P2 C.4)."""
    logits = network(images).float()
    return F.mse_loss(logits, torch.zeros_like(logits).scatter(1, labels[:, None], 1.0))


def _hardening(tuning: Tuning) -> Tuned:
    (data, scores, judge), config = tuning.difficulty, tuning.config
    sampler = example_difficulty.hardening(data.labels, scores, config.epochs, config.train_images or len(data))
    return _new_head(tuning, f"ever harder images by the {judge}", data=data, sampler=sampler)


def _last_layer(tuning: Tuning) -> Tuned:
    training = tuning.described("the last layer on fixed features")
    if training.recipe.schedule != "constant":
        raise UserError(f"the last layer is trained at a constant rate alone, not schedule={training.recipe.schedule}")

    def make() -> tuple[nn.Module, History]:
        if training.init.startswith(PUBLIC):
            extractor = fine_tuning.public_network(training.init.removeprefix(PUBLIC), tuning.config.image_size)
        else:
            extractor = fine_tuning.without_head(tuning.new_head())
        return evaluations.train_head(training, extractor, tuning.data, tuning.tests, tuning.context)

    return evaluations.kept(training, tuning.context, make), {}


def _zero_shot(tuning: Tuning, rule: str) -> Tuned:
    network, members = tuning.old_head()
    convert = partial(class_mapping.mapped_scores, members=members, rule=rule)
    found = tuning.tests.scores(scorer(network, tuning.config, tuning.context, convert))
    scores = {name: value.numpy()[None] for name, value in found.items()}
    return Evaluations(np.zeros(1), scores, classes=torch.nonzero(members.any(1)).flatten().tolist()), {}


def _class_map(tuning: Tuning) -> Tuned:
    """Fine-tuning of the pre-trained head by the class map; target classes that it lacks get a fresh row."""
    network, members = tuning.mapped_head()
    loss, added = class_mapping.class_map_loss(members), "class map"
    how: dict[str, Any] = {}
    if tuning.job.method == "class-map-replay":
        buffer, how = tuning.replay(1)
        added += f", replay of {buffer}"
        loss = class_mapping.class_map_loss(members, old_labels_from=len(tuning.data))
    if tuning.job.method == PENALTY:
        strength = tuning.job.level or 0.0
        added += f", head penalty {strength:g}"
        loss = fine_tuning.head_penalty_loss(network, loss, strength)
    convert = partial(class_mapping.mapped_scores, members=members)
    return tuning.fit(network, added, loss=loss, convert=convert, **how), {}


def _wise_ft(tuning: Tuning) -> Tuned:
    """The straight line in weight space from the pre-trained network to that of ``class-map``."""
    tuned, config, context = _class_map(tuning)[0], tuning.config, tuning.context
    (before, members), (mixed, _), (_, known) = tuning.mapped_head(), tuning.mapped_head(), tuning.old_head()
    score = scorer(mixed, config, context, partial(class_mapping.mapped_scores, members=members))
    found = []
    for share in SHARES:
        mixed.load_state_dict(fine_tuning.interpolated(before, tuned.weights, share))
        if 0 < share < 1:
            fine_tuning.renew_statistics(mixed, tuning.data, config, context.runtime.device)
        found.append(tuning.tests.scores(score))
    scores = {name: np.stack([one[name].numpy() for one in found]) for name in found[0]}
    return Evaluations(np.array(SHARES), scores, classes=torch.nonzero(known.any(1)).flatten().tolist()), {}


def _replay(tuning: Tuning, ratio: int) -> Tuned:
    """Fine-tuning of two heads, the old one on images of pre-training."""
    (network, members), count = tuning.old_head(), tuning.data.num_classes
    before, old = tuning.source_accuracy(network), members.shape[1]
    network = class_mapping.extend_head(network, count, tuning.job.seed)
    buffer, how = tuning.replay(ratio)
    how |= {"loss": class_mapping.two_headed_loss(old, len(tuning.data)), "convert": lambda logits: logits[:, old:]}
    result = tuning.fit(network, f"{tuning.job.method} of {buffer}", **how)
    network.load_state_dict(dict(result.weights))
    return result, {"source_accuracy": tuning.source_accuracy(network), "source_accuracy_before": before}


TUNINGS: dict[str, Callable[[Tuning], Tuned]] = {
    "mse": partial(_new_head, added="mean squared error", loss=squared_error),
    "hardening": _hardening,
    "last-layer": _last_layer,
    **{name: partial(_zero_shot, rule=rule) for name, rule in ZERO_SHOT.items()},
    **dict.fromkeys(("class-map", "class-map-replay", PENALTY), _class_map),
    "wise-ft": _wise_ft,
    "replay": partial(_replay, ratio=1),
    "replay-10": partial(_replay, ratio=10),
    "replay-100": partial(_replay, ratio=100),
}
"""By method, its evaluations and further metrics; the others train with a new head."""
