"""The section on out-of-distribution detection: whether a network tells foreign images (P1 §4.1, Tables 4 and 6).

A network trained from scratch is compared with one that was pre-trained and tuned; both are the networks of the
calibration section, described in the same way, so that they are trained once. Every image of the test set and of
several foreign sets gets a score, and a foreign image should have the larger one.

Methods: ``standard`` is the papers' score, the maximum softmax probability; ``max-logit``, ``energy``,
``nearest-neighbours`` and ``mahalanobis`` are scores that came after it (:mod:`robustness_lib.methods.ood_scores`).
Features and logits of all images are computed in one pass, kept, and shared by the methods. ``overlap`` trains and
scores
nothing: it counts what the foreign sets share with the corpus of pre-training.

P1's "average of five runs" is over five draws of foreign images for one network. Here too, and the draws are the same
for both arms and all methods at one seed; what varies between seeds is the training, and the draws with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from robustness_lib.data import SOURCES, ImageDataset, class_balanced_subset, class_list, data_root
from robustness_lib.data.imagenet_downsampled import read_class_map
from robustness_lib.data.io import MissingData
from robustness_lib.errors import UserError
from robustness_lib.experiments.grid import Filters, Method, expand
from robustness_lib.experiments.presets import profile
from robustness_lib.files import locked
from robustness_lib.methods.checks import Floats
from robustness_lib.methods.ood_images import (
    DUPLICATE,
    NOISE_IMAGES,
    OODSample,
    check_size,
    make_noise_images,
    nearest_images,
    sample_ood_images,
    shared_classes,
)
from robustness_lib.methods.ood_scores import SCORES, FeatureBank, Outputs, outputs, score
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.ood_detection import detection_metrics, roc_curve
from robustness_lib.models.checkpoint_ids import origin
from robustness_lib.models.checkpoints import load_weights, save_weights
from robustness_lib.runner.model_cache import Context, Training, target_images, trained
from robustness_lib.runner.records import Job, short_hash
from robustness_lib.training.config import TrainingConfig

SECTION = "ood"
OVERLAP = "overlap"
METHODS = {**dict.fromkeys(SCORES, Method()), OVERLAP: Method(arms=["tuned"])}

MEASURES = ("auroc", "aupr", "fpr95")
OUT_PER_IN = 1 / 5
"""Foreign images for each known one (P1 §4.1)."""

RATES = tuple(round(rate, 3) for rate in np.linspace(0, 1, 41))
"""The false-positive rates at which a record has the receiver operating characteristic."""

BINS = 40
"""Bins of the histograms of a record, equally wide in [-1, 0], the range of the papers' score."""

# --------------------------------------------------------------------------------------------- recipes


@dataclass(frozen=True, kw_only=True)
class OODConfig(TrainingConfig):
    """A training recipe and how its network is judged.

    Attributes:
        ood_sets: The foreign sets that the means are over, separated by colons: those of
            :data:`robustness_lib.methods.ood_images.NOISE_IMAGES`, or any image set of the data root, bundles
            among them; of the latter the test images.
        further_sets: Sets that are measured too and left out of the means.
        draws: How often foreign images are drawn (P1: 5).
        draw_images: Foreign images of a draw; 0 for a fifth of the number of test images (P1).
        reference_images: Training images that ``nearest-neighbours`` and ``mahalanobis`` compare with, class-balanced;
            all that the network was trained on where these are fewer.
        neighbours: Whose distance is the score ``nearest-neighbours``: the k-th nearest reference image's.
    """

    ood_sets: str = "gaussian:rademacher:blobs"
    further_sets: str = ""
    draws: int = 5
    draw_images: int = 0
    reference_images: int = 5000
    neighbours: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"draws": 1, "draw_images": 0, "reference_images": 1, "neighbours": 1}.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)} but must be at least {least}; give another value")
        names = [*self.averaged, *self.further]
        if not self.averaged:
            raise UserError("ood_sets names no set; name at least one, such as gaussian:textures")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{twice[0]} is named more than once in ood_sets and further_sets; name it once")

    @property
    def averaged(self) -> list[str]:
        """The names in ``ood_sets``."""
        return _names(self.ood_sets)

    @property
    def further(self) -> list[str]:
        """The names in ``further_sets``."""
        return _names(self.further_sets)


def _names(text: str) -> list[str]:
    return [name for name in (part.strip() for part in text.split(":")) if name]


_MADE, _PHOTOGRAPHS = ":".join(NOISE_IMAGES), "textures:svhn:places365:lsun"
_EIGHTH = {"cifar10": "cifar100", "cifar100": "cifar10", "tiny_imagenet": "imagenet21k"}

_CPU = {"draw_images": 1000}
_CPU_CIFAR = {**_CPU, "further_sets": "imagenet32-no-cifar10"}

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {"synthetic": {"further_sets": "synthetic-source"}},
    "cpu": {
        "cifar10": {**_CPU_CIFAR, "ood_sets": f"{_MADE}:textures:cifar100"},
        "cifar100": {**_CPU_CIFAR, "ood_sets": f"{_MADE}:textures:cifar10"},
        "tiny_imagenet32": {**_CPU, "ood_sets": f"{_MADE}:textures"},
    },
    "paper": {known: {"ood_sets": f"{_MADE}:{_PHOTOGRAPHS}:{eighth}"} for known, eighth in _EIGHTH.items()},
}
"""What is special to each known set. At ``paper`` the means are over the paper's eight foreign sets; at ``cpu`` over
those that this project has, and a draw has 1,000 images, since there are 1,200 textures."""


# --------------------------------------------------------------------------------------------- jobs


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile (:func:`robustness_lib.experiments.grid.expand`).

    ``overlap`` does not depend on the seed, so it has the first alone. Where it is not asked for, that is the profile's
    first, and it is left out where the id of the checkpoint names no corpus all of which it was trained on, as those
    of imported weights do not.
    """
    order = ("dataset", "method", "seed")
    planned = expand(SECTION, profile_name, METHODS, OODConfig, settings=SETTINGS, order=order, **filters)
    asked = OVERLAP in (filters.get("methods") or ())
    first = (filters.get("seeds") if asked else None) or profile(profile_name).seeds
    for job in planned:
        config = OODConfig.of(job.recipe)
        if job.dataset in (*config.averaged, *config.further):
            raise UserError(f"{job.dataset} is the ID set, so it cannot be an OOD set too; leave it out of ood_sets")
    return [
        job
        for job in planned
        if job.method != OVERLAP or (job.seed == first[0] and (asked or _corpus(job.init) is not None))
    ]


def _corpus(checkpoint: str) -> str | None:
    """The corpus all of which a checkpoint was trained on, if its id says so."""
    found = origin(checkpoint)
    return None if found is None or found.images or found.epochs is None else found.corpus


# --------------------------------------------------------------------------------------------- measuring


def check_images(job: Job, context: Context) -> None:
    """Refuse, before anything is trained, foreign sets that are missing or do not go with the known one."""
    recipe, known = OODConfig.of(job.recipe), context.images(job.dataset, "test")
    for name in (*recipe.averaged, *recipe.further):
        if name not in NOISE_IMAGES:
            images = foreign_images(name, recipe, _side(known), context)
            check_size(name, images, known)
            if job.method != OVERLAP:
                sample_ood_images(name, images.images, _draw_size(job, recipe, known), 1, job.seed)
        elif (data_root(context.data) / name).is_dir():
            raise UserError(f"{name} is noise that is made here, so no data set can be called so; rename its folder")


def run(job: Job, context: Context) -> Metrics:
    """Score the test images and the foreign ones, and measure how well the scores tell them apart.

    Returns:
        ``error`` on the test set. For each foreign set ``auroc_<set>``, ``aupr_<set>`` and ``fpr95_<set>``
        (:func:`robustness_lib.metrics.ood_detection.detection_metrics`, one foreign image to five known ones), each a
        mean over the draws, and ``spread_auroc_<set>`` and so on, their standard deviation over the draws.
        ``auroc_mean`` is the mean over the sets that the recipe averages, without weights, and ``spread_auroc_mean``
        the standard deviation of that mean over the draws. Of method ``standard`` also curves: ``roc_<set>``, the share
        of foreign images found at the false-positive rates :data:`RATES`, and ``histogram_<set>`` and
        ``histogram_known``, the share of the images in each of :data:`BINS` bins of the score. Everything is a
        fraction. Method ``overlap`` has the metrics of :func:`measure_overlap`.
    """
    recipe = OODConfig.of(job.recipe)
    test = context.images(job.dataset, "test")
    if job.method == OVERLAP:
        return measure_overlap(job, recipe, test, context)
    seen = _seen(job, recipe, test, context)
    known = seen.known
    scores = _split(
        score(job.method, _joined([known, *seen.foreign.values()]), seen.reference),
        {"known": len(known.logits), **{name: len(part.logits) for name, part in seen.foreign.items()}},
    )
    metrics: Metrics = {"error": float((known.logits.argmax(1) != test.labels).double().mean())}
    by_draw: dict[str, Floats] = {}
    for name, rows in seen.rows.items():
        drawn = [detection_metrics(scores["known"], scores[name][row], out_per_in=OUT_PER_IN) for row in rows.numpy()]
        by_draw |= {f"{measure}_{name}": np.array([one[measure] for one in drawn]) for measure in MEASURES}
    for measure in MEASURES:
        by_draw[f"{measure}_mean"] = np.mean([by_draw[f"{measure}_{name}"] for name in recipe.averaged], axis=0)
    for name, values in by_draw.items():
        metrics[name] = float(values.mean())
        if recipe.draws > 1:
            metrics[f"spread_{name}"] = float(values.std(ddof=1))
    return metrics | (_curves(scores, seen.rows) if job.method == "standard" else {})


def _curves(scores: Mapping[str, Floats], rows: Mapping[str, Tensor]) -> Metrics:
    """What figures need of the scores."""
    curves: Metrics = {}
    for name, values in scores.items():
        count, _ = np.histogram(values, BINS, (-1, 0))
        curves[f"histogram_{name}"] = [round(float(share), 4) for share in count / len(values)]
    for name in rows:
        found = roc_curve(scores["known"], scores[name], RATES)
        curves[f"roc_{name}"] = [round(float(share), 4) for share in found]
    return curves


# --------------------------------------------------------------------------------------------- one pass for all scores


@dataclass(frozen=True)
class Seen:
    """What a network says about all images that its scores need.

    Attributes:
        known: Of the test images.
        foreign: Of the drawn images of each foreign set.
        rows: int64 [draws, n] for each foreign set: the draws.
        reference: Of some of its training images.
    """

    known: Outputs
    foreign: dict[str, Outputs]
    rows: dict[str, Tensor]
    reference: FeatureBank


def _seen(job: Job, recipe: OODConfig, test: ImageDataset, context: Context) -> Seen:
    """The outputs that all methods share: read if they were computed before, else computed and kept."""
    size, count = _side(test), _draw_size(job, recipe, test)
    foreign = {name: _foreign(name, job, recipe, test, count, context) for name in (*recipe.averaged, *recipe.further)}
    training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=recipe)
    images = target_images(training, context)
    few = min(recipe.reference_images, len(images))
    reference = images.subset(class_balanced_subset(images.labels, few, job.seed))
    if recipe.neighbours > few:
        raise UserError(f"neighbours is {recipe.neighbours} but there are {few} reference images; give fewer")
    network = trained(training, context, progress=job.label).network
    parts = {"known": test.images, "reference": reference.images}
    parts |= {f"foreign/{name}": draws.images for name, draws in foreign.items()}
    description = {
        "training": training.key,
        "images": [test.checksum, reference.checksum],
        "foreign": {name: _identity(name, recipe, count, size, context) for name in foreign},
    }
    path = context.store / "outputs" / SECTION / f"{short_hash(description)}.safetensors"
    with locked(context.store / "locks" / f"{path.stem}.lock"):
        if not path.exists():
            tensors: dict[str, Tensor] = {}
            for name, pixels in parts.items():
                found = outputs(network, pixels, recipe.normalisation, context.runtime)
                tensors |= {f"{name}/logits": found.logits, f"{name}/features": found.features}
            save_weights(path, tensors, {"training": training.key})
        kept, _ = load_weights(path)
    said = {name: Outputs(kept[f"{name}/logits"], kept[f"{name}/features"]) for name in parts}
    return Seen(
        known=said["known"],
        foreign={name: said[f"foreign/{name}"] for name in foreign},
        rows={name: draws.rows for name, draws in foreign.items()},
        reference=FeatureBank(said["reference"].features, reference.labels, recipe.neighbours),
    )


def _draw_size(job: Job, recipe: OODConfig, known: ImageDataset) -> int:
    """How many foreign images a draw has."""
    count = recipe.draw_images or int(len(known) * OUT_PER_IN)
    if count < 1:
        raise UserError(f"{job.dataset} has {len(known)} test images, of which a fifth is none; set draw_images")
    return count


def _side(known: ImageDataset) -> int:
    """Pixels along a side of the known images, which P1's noise is made for."""
    height, width = known.images.shape[2:]
    if height != width:
        raise UserError(
            f"{known.name} has images of {height}x{width} pixels, but foreign images are square; crop them to a square"
        )
    return int(width)


def _foreign(name: str, job: Job, recipe: OODConfig, known: ImageDataset, count: int, context: Context) -> OODSample:
    """The draws of one foreign set: of five times a draw's images where the set is made, as in P1's code."""
    size = _side(known)
    if name in NOISE_IMAGES:
        return sample_ood_images(
            name, make_noise_images(name, 5 * count, size, job.seed), count, recipe.draws, job.seed
        )
    images = foreign_images(name, recipe, size, context)
    check_size(name, images, known)
    return sample_ood_images(name, images.images, count, recipe.draws, job.seed)


def foreign_images(name: str, recipe: OODConfig, size: int, context: Context) -> ImageDataset:
    """The test images of a foreign set; of a set that is known in several sizes, those of the known images' size."""
    try:
        return _images(name, size, context)
    except MissingData as error:
        rest = ":".join(other for other in recipe.averaged if _at_hand(other, size, context)) or ":".join(NOISE_IMAGES)
        remedy = f"ood_sets={rest}" if name in recipe.averaged else "further_sets="
        raise MissingData(f"{error}; or do without it: --set {remedy}") from error


def _images(name: str, size: int, context: Context) -> ImageDataset:
    sized = f"{name}-{size}"
    return context.images(sized if sized in SOURCES else name, "test")


def _at_hand(name: str, size: int, context: Context) -> bool:
    try:
        return name in NOISE_IMAGES or len(_images(name, size, context)) > 0
    except UserError:
        return False


def _identity(name: str, recipe: OODConfig, count: int, size: int, context: Context) -> list[str | int]:
    """What determines the drawn images of a set beside the seed, which the training's key has."""
    checksum = "" if name in NOISE_IMAGES else foreign_images(name, recipe, size, context).checksum
    return [checksum, count, size, recipe.draws]


def _joined(parts: list[Outputs]) -> Outputs:
    return Outputs(torch.cat([part.logits for part in parts]), torch.cat([part.features for part in parts]))


def _split(scores: Floats, sizes: Mapping[str, int]) -> dict[str, Floats]:
    ends = np.cumsum(list(sizes.values()))
    return dict(zip(sizes, np.split(scores, ends[:-1]), strict=True))


# --------------------------------------------------------------------------------------------- overlap


def measure_overlap(job: Job, recipe: OODConfig, test: ImageDataset, context: Context) -> Metrics:
    """What the test set and the foreign sets share with the corpus of pre-training (P1 §4.1, appendix A).

    Returns:
        Counts: ``corpus_images`` and ``corpus_classes``; ``corpus_related_classes``, those of the 153 ImageNet classes
        that P1 calls related to CIFAR-10 (by name; 0 for a corpus of other classes). For each set, the known one among
        them: ``images_<set>`` and ``classes_<set>``; ``shared_classes_<set>``, its classes whose name is that of a
        class of the corpus, and ``kindred_classes_<set>``, those that share at least its last word
        (:func:`robustness_lib.methods.ood_images.shared_classes`); and ``shared_images_<set>``, its images that are
        nearly equal to one of the corpus: whose similarity (:func:`robustness_lib.methods.ood_images.nearest_images`)
        is at least :data:`robustness_lib.methods.ood_images.DUPLICATE`.
    """
    name = _corpus(job.init)
    if name is None:
        raise UserError(
            f"the id of the checkpoint {job.init} does not name a corpus all of which it was pre-trained on, so "
            "overlap has nothing to compare with; choose other methods"
        )
    corpus, size = context.images(name, "train"), _side(test)
    check_size(name, corpus, test)
    related = {words for wnid, words in read_class_map() if wnid in class_list("cifar10_related")}
    metrics: Metrics = {
        "corpus_images": float(len(corpus)),
        "corpus_classes": float(corpus.num_classes),
        "corpus_related_classes": float(sum(words in related for words in corpus.class_names)),
    }
    sets = {job.dataset: test}
    sets |= {
        name: foreign_images(name, recipe, size, context)
        for name in (*recipe.averaged, *recipe.further)
        if name not in NOISE_IMAGES
    }
    for name, images in sets.items():
        check_size(name, images, test)
        present = [images.class_names[label] for label in torch.unique(images.labels).tolist()]
        same, kindred = shared_classes(present, corpus.class_names)
        similarity, _ = nearest_images(images.images, corpus.images, context.runtime.device)
        metrics |= {
            f"images_{name}": float(len(images)),
            f"classes_{name}": float(len(present)),
            f"shared_classes_{name}": float(len(same)),
            f"kindred_classes_{name}": float(len(kindred)),
            f"shared_images_{name}": float((similarity >= DUPLICATE).sum()),
        }
    return metrics
