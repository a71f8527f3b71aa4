"""Pre-training, a job like any other, whose checkpoint has an id that says what it is.

The id names the network, the corpus with its counts of images and classes, the epochs and the seed, and ends with
the first digits of the job's key, so that two checkpoints that differ in any setting never share an id.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path

from torch import nn
from torch.nn import functional as F

from robustness_lib.data import ImageDataset, class_balanced_subset
from robustness_lib.data.io import MissingData
from robustness_lib.errors import UserError, choose, first_line
from robustness_lib.experiments.presets import Profile, Target, profile
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import build
from robustness_lib.models.checkpoint_ids import PUBLIC, corpus_name
from robustness_lib.models.checkpoints import load_weights
from robustness_lib.runner.model_cache import SHIPPED, Context, find_checkpoint, missing_checkpoint
from robustness_lib.runner.records import PRETRAINING, SCRATCH, Job, Store, checkpoint_id
from robustness_lib.training.config import ADVERSARIES, TrainingConfig
from robustness_lib.training.trainer import History, predict, train


def job(
    scale: Profile,
    target: Target,
    further: str = "",
    *,
    corpus_holds: str | None = None,
    seed: int | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Job:
    """The main pre-training for one target of a profile, or one of its ``further`` ones, or one on another corpus.

    With an ``adversary`` among the overrides the recipe is the target's for adversarial training.
    """
    holds, images = target.further[further] if further else (corpus_holds or target.corpus_holds, 0)
    changes = {**(overrides or {}), **({"train_images": str(images)} if images else {})}
    adversary = choose(changes.get("adversary", ADVERSARIES[0]), ADVERSARIES, "adversary")
    recipe = target.against(adversary).pretraining.with_overrides(changes)
    return Job(
        section=PRETRAINING,
        profile=scale.name,
        dataset=holds,
        init=SCRATCH,
        method="supervised" if recipe.adversary == ADVERSARIES[0] else "adversarial",
        level=None,
        seed=scale.pretraining_seed if seed is None else seed,
        recipe=recipe.as_dict(),
    )


def run(job: Job, context: Context) -> Metrics:
    """Pre-train, keep the checkpoint in the store, and measure it on the corpus's validation images, if it has some.

    A checkpoint that is there already is not trained again.
    """
    data, recipe, network = _prepare(job, context)
    name = checkpoint_id(job)
    path = find_checkpoint(name, context.store) or context.store / "checkpoints" / f"{name}.safetensors"

    def make() -> tuple[nn.Module, History]:
        return network, train(network, data, recipe, seed=job.seed, **context.training_options(path, name))

    weights, _, metadata = context.made_once(path, {"id": name, **job.as_dict()}, make)
    try:
        network.load_state_dict(weights)
        training_seconds = len(data) * recipe.epochs / float(metadata["images_per_second"])
        losses = json.loads(metadata["losses"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is not the checkpoint that its name says ({first_line(error)}); delete it, then the same command "
            "pre-trains again"
        ) from error
    metrics: Metrics = {
        "images": float(len(data)),
        "classes": float(data.num_classes),
        "training_seconds": training_seconds,
        "losses": losses,
    }
    with contextlib.suppress(MissingData):
        test = context.images(corpus_name(job.dataset), "test")
        logits = predict(network, test, recipe.normalisation, context.runtime)
        metrics["error"] = float((logits.argmax(1) != test.labels).double().mean())
        metrics["negative_log_likelihood"] = float(F.cross_entropy(logits.double(), test.labels))
    return metrics


def assist(job: Job, context: Context) -> None:
    """Take a process's part in the training that :func:`run` does in the first of several processes."""
    data, recipe, network = _prepare(job, context)
    unfinished = context.store / "checkpoints" / f"{checkpoint_id(job)}.partial.safetensors"
    train(network, data, recipe, seed=job.seed, runtime=context.runtime, checkpoint=unfinished)


def _prepare(job: Job, context: Context) -> tuple[ImageDataset, TrainingConfig, nn.Module]:
    corpus = corpus_name(job.dataset)
    data = context.images(corpus, "train")
    if job.dataset not in (corpus, there := with_counts(data)):
        raise UserError(
            f"the job pre-trains on {job.dataset} but the data root holds {there}; run 'robustness pretrain --profile "
            f"{job.profile} --corpus {corpus}' for a checkpoint of what is there and give its id to --init"
        )
    recipe = TrainingConfig.of(job.recipe)
    if recipe.train_images:
        data = data.subset(class_balanced_subset(data.labels, recipe.train_images, job.seed))
    return data, recipe, build(recipe.architecture, data.num_classes, recipe.dropout, job.seed)


def with_counts(corpus: ImageDataset) -> str:
    """A corpus's name with its numbers of images and classes, as ``imagenet32_160000x275``."""
    return f"{corpus_name(corpus.name)}_{len(corpus)}x{corpus.num_classes}"


ARMS = ("scratch", "tuned", "pretraining")  # what a setting can be restricted to, as in tuned.epochs=5


def overrides_for(arm: str, overrides: Mapping[str, str] | None) -> dict[str, str]:
    """The settings that hold for one of the arms; those restricted to it win."""
    everywhere, own = {}, {}
    for name, value in (overrides or {}).items():
        before, dot, after = name.partition(".")
        if dot:
            choose(before, ARMS, "training to restrict a setting to")
        if dot and before == arm:
            own[after] = value
        elif not dot and (arm != "pretraining" or name == "architecture"):
            everywhere[name] = value
    return everywhere | own


def pretrainings(
    scale: Profile, target: Target, overrides: Mapping[str, str] | None = None, seed: int | None = None
) -> list[Job]:
    """The different pre-trainings that methods may tune at a target: its main one first, then ``further`` ones."""
    found = [job(scale, target, name, seed=seed, overrides=overrides) for name in ("", *target.further)]
    return list({checkpoint_id(one): one for one in found}.values())


def missing(jobs: Iterable[Job], overrides: Mapping[str, str] | None, store: Path | None) -> list[Job]:
    """The pre-trainings of all checkpoints that are neither in the store nor shipped; of all, where it is None."""
    found: dict[str, Job] = {}
    for wanted in jobs:
        known = wanted.init == SCRATCH or wanted.init.startswith(PUBLIC) or wanted.init in found
        if known or (store is not None and find_checkpoint(wanted.init, store)):
            continue
        scale = profile(wanted.profile)
        changes = {"architecture": str(wanted.recipe["architecture"]), **overrides_for("pretraining", overrides)}
        kinds = [{"adversary": adversary, **changes} for adversary in ADVERSARIES]
        possible = (
            one
            for seed, target, kind in product((None, wanted.seed), scale.targets.values(), kinds)
            for one in pretrainings(scale, target, kind, seed)
        )
        made = next((one for one in possible if checkpoint_id(one) == wanted.init), None)
        if made is None:
            raise missing_checkpoint(wanted.init, store or Path())
        found[wanted.init] = made
    return list(found.values())


def forget(job: Job, store: Path) -> None:
    """Delete the record of a pre-training whose checkpoint is not there, as after a clean-up: it does not count."""
    path = Store(store).path(job)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"the checkpoint {checkpoint_id(job)} must be made, but its old record {path} cannot be deleted "
            f"({error.strerror or error}); choose another --store, a folder that can be written"
        ) from error


def unrecorded(jobs: Iterable[Job], store: Path) -> list[Job]:
    """The pre-trainings of which the store has the checkpoint but no record, as after a kill between the two.

    Imported weights, and those that come with the repository, have no record to make.
    """
    recorded = {checkpoint_id(record.job) for record in Store(store).records(PRETRAINING)}
    found = []
    for name in dict.fromkeys(job.init for job in jobs):
        path = find_checkpoint(name, store)
        if name in recorded or path is None or path.parent == SHIPPED:
            continue
        with contextlib.suppress(UserError, KeyError, TypeError, ValueError):
            description = json.loads(load_weights(path)[1]["training"])
            made = Job(**{field: description[field] for field in Job.__dataclass_fields__})
            found += [made] if checkpoint_id(made) == name else []
    return found
