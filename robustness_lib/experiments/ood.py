"""The section on out-of-distribution detection: whether a network tells OOD images (P1 §4.1, Tables 4 and 6).

A network trained from scratch is compared with one that was pre-trained and tuned; both are the networks of the
calibration section, described in the same way, so that they are trained once. Every image of the test set, which is
in-distribution (ID), and of several OOD sets gets a score, and an OOD image should have the larger one.

Methods: ``standard`` is the papers' score, the maximum softmax probability; the others of
:data:`robustness_lib.methods.ood_scores.SCORES` came after it. Features and logits of all images are computed in one
pass, kept, and shared by the methods. ``overlap`` counts what the OOD sets share with the corpus of pre-training.

P1's "average of five runs" is over five draws of OOD images for one network. Here too, and the draws are the same for
both arms and all methods at one seed; what varies between seeds is the training, and the draws with it.
"""

from __future__ import annotations

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
"""OOD images for each ID one (P1 §4.1)."""

RATES = tuple(round(rate, 3) for rate in np.linspace(0, 1, 41))
"""The false-positive rates at which a record has the receiver operating characteristic."""

BINS = 40
"""Bins of the histograms of a record, equally wide in [-1, 0], the range of the papers' score."""

# --------------------------------------------------------------------------------------------- configs


@dataclass(frozen=True, kw_only=True)
class OODConfig(TrainingConfig):
    """A training config, and how its network is evaluated.

    Attributes:
        ood_sets: The OOD sets that the means are over, separated by colons: those of
            :data:`robustness_lib.methods.ood_images.NOISE_IMAGES`, or any image set of the data root, bundles
            among them; of the latter the test images.
        further_sets: Sets that are measured too and left out of the means.
        draws: How often OOD images are drawn (P1: 5).
        draw_images: OOD images of a draw; 0 for a fifth of the number of test images (P1).
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
    "paper": {name: {"ood_sets": f"{_MADE}:{_PHOTOGRAPHS}:{eighth}"} for name, eighth in _EIGHTH.items()},
}
"""What is special to each ID set. At ``paper`` the means are over the paper's eight OOD sets; at ``cpu`` over
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
    """Refuse, before anything is trained, OOD sets that are missing or do not go with the ID one."""
    config, test = OODConfig.of(job.recipe), context.images(job.dataset, "test")
    for name in (*config.averaged, *config.further):
        if name not in NOISE_IMAGES:
            images = ood_set(name, config, test, context)
            if job.method != OVERLAP:
                sample_ood_images(name, images.images, _draw_size(config, test), 1, job.seed)
        elif (data_root(context.data) / name).is_dir():
            raise UserError(f"{name} is noise that is made here, so no data set can be called so; rename its folder")


def run(job: Job, context: Context) -> Metrics:
    """Score the test images and the OOD ones, and measure how well the scores tell them apart.

    Returns:
        ``error`` on the test set. For each OOD set ``auroc_<set>``, ``aupr_<set>`` and ``fpr95_<set>``
        (:func:`robustness_lib.metrics.ood_detection.detection_metrics`, one OOD image to five ID ones), each a mean
        over the draws, and ``spread_auroc_<set>`` and so on, their standard deviation over the draws. ``auroc_mean`` is
        the mean over the sets that the config averages, without weights, and ``spread_auroc_mean`` the standard
        deviation of that mean over the draws. Of method ``standard`` also curves: ``roc_<set>``, the true-positive rate
        at the false-positive rates :data:`RATES`, and ``histogram_<set>`` and ``histogram_known`` (of the ID images),
        the share of the images in each of :data:`BINS` bins of the score. Everything is a fraction. Method ``overlap``
        has the metrics of :func:`measure_overlap`.
    """
    config = OODConfig.of(job.recipe)
    test = context.images(job.dataset, "test")
    if job.method == OVERLAP:
        return measure_overlap(job, config, test, context)
    parts, rows, bank = _network_outputs(job, config, test, context)
    every = Outputs(*(torch.cat([getattr(part, name) for part in parts.values()]) for name in ("logits", "features")))
    ends = np.cumsum([len(part.logits) for part in parts.values()])
    scores = dict(zip(parts, np.split(score(job.method, every, bank), ends[:-1]), strict=True))
    metrics: Metrics = {"error": float((parts["known"].logits.argmax(1) != test.labels).double().mean())}
    by_draw: dict[str, Floats] = {}
    for name, draws in rows.items():
        drawn = [detection_metrics(scores["known"], scores[name][row], out_per_in=OUT_PER_IN) for row in draws.numpy()]
        by_draw |= {f"{measure}_{name}": np.array([draw[measure] for draw in drawn]) for measure in MEASURES}
    for measure in MEASURES:
        by_draw[f"{measure}_mean"] = np.mean([by_draw[f"{measure}_{name}"] for name in config.averaged], axis=0)
    for name, values in by_draw.items():
        metrics[name] = float(values.mean())
        if config.draws > 1:
            metrics[f"spread_{name}"] = float(values.std(ddof=1))
    if job.method == "standard":
        for name, values in scores.items():
            count, _ = np.histogram(values, BINS, (-1, 0))
            metrics[f"histogram_{name}"] = [round(float(share), 4) for share in count / len(values)]
            if name != "known":
                curve = roc_curve(scores["known"], values, RATES)
                metrics[f"roc_{name}"] = [round(float(share), 4) for share in curve]
    return metrics


def _network_outputs(
    job: Job, config: OODConfig, test: ImageDataset, context: Context
) -> tuple[dict[str, Outputs], dict[str, Tensor], FeatureBank]:
    """What the network says about the ID images ("known") and each OOD set's, the draws, and the reference images.

    It is shared by all methods: read if it was computed before, else computed and kept.
    """
    count, names = _draw_size(config, test), (*config.averaged, *config.further)
    checksums, samples = dict.fromkeys(names, ""), {}
    for name in names:
        if name in NOISE_IMAGES:  # five times a draw's images, as in P1's code
            pixels = make_noise_images(name, 5 * count, _side(test), job.seed)
        else:
            images = ood_set(name, config, test, context)
            pixels, checksums[name] = images.images, images.checksum
        samples[name] = sample_ood_images(name, pixels, count, config.draws, job.seed)
    training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=config)
    images = target_images(training, context)
    few = min(config.reference_images, len(images))
    reference = images.subset(class_balanced_subset(images.labels, few, job.seed))
    if config.neighbours > few:
        raise UserError(f"neighbours is {config.neighbours} but there are {few} reference images; give fewer")
    network = trained(training, context, progress=job.label).network
    description = {  # its words, and those in the file, stay: kept outputs are found by them
        "training": training.key,
        "images": [test.checksum, reference.checksum],
        "foreign": {name: [checksums[name], count, _side(test), config.draws] for name in names},
    }
    path = context.store / "outputs" / SECTION / f"{short_hash(description)}.safetensors"
    pictures = {"known": test.images, "reference": reference.images}
    pictures |= {f"foreign/{name}": sample.images for name, sample in samples.items()}
    with locked(context.store / "locks" / f"{path.stem}.lock"):
        if not path.exists():
            tensors: dict[str, Tensor] = {}
            for name, pixels in pictures.items():
                said = outputs(network, pixels, config.normalisation, context.runtime)
                tensors |= {f"{name}/logits": said.logits, f"{name}/features": said.features}
            save_weights(path, tensors, {"training": training.key})
        kept, _ = load_weights(path)
    parts = {
        name.removeprefix("foreign/"): Outputs(kept[f"{name}/logits"], kept[f"{name}/features"])
        for name in pictures
        if name != "reference"
    }
    bank = FeatureBank(kept["reference/features"], reference.labels, config.neighbours)
    return parts, {name: sample.rows for name, sample in samples.items()}, bank


def _draw_size(config: OODConfig, test: ImageDataset) -> int:
    """How many OOD images a draw has."""
    count = config.draw_images or int(len(test) * OUT_PER_IN)
    if count < 1:
        raise UserError(f"{test.name} has {len(test)} test images, of which a fifth is none; set draw_images")
    return count


def _side(test: ImageDataset) -> int:
    """Pixels along a side of the ID images, which P1's noise is made for."""
    height, width = test.images.shape[2:]
    if height != width:
        raise UserError(
            f"{test.name} has images of {height}x{width} pixels, but OOD images are square; crop them to a square"
        )
    return int(width)


def ood_set(name: str, config: OODConfig, test: ImageDataset, context: Context) -> ImageDataset:
    """The test images of an OOD set; of a set that comes in several sizes, those of the ID images' size."""

    def find(name: str) -> ImageDataset:
        sized = f"{name}-{_side(test)}"
        return context.images(sized if sized in SOURCES else name, "test")

    def is_available(name: str) -> bool:
        try:
            return name in NOISE_IMAGES or len(find(name)) > 0
        except UserError:
            return False

    try:
        images = find(name)
    except MissingData as error:
        rest = ":".join(filter(is_available, config.averaged)) or ":".join(NOISE_IMAGES)
        remedy = f"ood_sets={rest}" if name in config.averaged else "further_sets="
        raise MissingData(f"{error}; or do without it: --set {remedy}") from error
    check_size(name, images, test)
    return images


# --------------------------------------------------------------------------------------------- overlap


def measure_overlap(job: Job, config: OODConfig, test: ImageDataset, context: Context) -> Metrics:
    """What the test set and the OOD sets share with the corpus of pre-training (P1 §4.1, appendix A).

    Returns:
        Counts: ``corpus_images`` and ``corpus_classes``; ``corpus_related_classes``, those of the 153 ImageNet classes
        that P1 calls related to CIFAR-10 (by name; 0 for a corpus of other classes). For each set, the ID one among
        them: ``images_<set>`` and ``classes_<set>``; ``shared_classes_<set>``, its classes whose name is that of a
        class of the corpus, and ``kindred_classes_<set>``, those that share at least its last word
        (:func:`robustness_lib.methods.ood_images.shared_classes`); and ``shared_images_<set>``, its images whose
        similarity to one of the corpus (:func:`robustness_lib.methods.ood_images.nearest_images`) is at least
        :data:`robustness_lib.methods.ood_images.DUPLICATE`.
    """
    name = _corpus(job.init)
    if name is None:
        raise UserError(
            f"the id of the checkpoint {job.init} does not name a corpus all of which it was pre-trained on, so "
            "overlap has nothing to compare with; choose other methods"
        )
    corpus = context.images(name, "train")
    check_size(name, corpus, test)
    related = {words for wnid, words in read_class_map() if wnid in class_list("cifar10_related")}
    metrics: Metrics = {
        "corpus_images": float(len(corpus)),
        "corpus_classes": float(corpus.num_classes),
        "corpus_related_classes": float(sum(words in related for words in corpus.class_names)),
    }
    sets = {job.dataset: test}
    sets |= {
        name: ood_set(name, config, test, context)
        for name in (*config.averaged, *config.further)
        if name not in NOISE_IMAGES
    }
    for name, images in sets.items():
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
