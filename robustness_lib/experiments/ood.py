"""The section on out-of-distribution detection: whether a network tells OOD images (P1 §4.1, Tables 4 and 6).

The networks are those of the calibration section, described in the same way, so that they are trained once. Every
image of the test set, which is in-distribution (ID), and of several OOD sets gets a score; OOD ones should have larger.

Methods: ``standard`` is the papers' score; the others of :data:`robustness_lib.methods.ood_scores.SCORES` came after
it. ``overlap`` counts what the OOD sets share with the corpus of pre-training. On request: ``standard-1000`` and so on.

P1's "average of five runs" is over five draws of OOD images for one network; so it is here, with the same draws for
both arms and all methods at one seed.
"""

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from robustness_lib.data import SOURCES, ImageDataset, class_balanced_subset, class_list, data_root
from robustness_lib.data.imagenet_downsampled import read_class_map
from robustness_lib.data.io import MissingData
from robustness_lib.errors import UserError
from robustness_lib.experiments.grid import SIZED, Filters, Method, expand
from robustness_lib.experiments.presets import profile
from robustness_lib.files import locked
from robustness_lib.methods import ood_images
from robustness_lib.methods.checks import Floats, check_same_size, check_whole
from robustness_lib.methods.ood_images import NOISE_IMAGES
from robustness_lib.methods.ood_scores import SCORES, FeatureBank, Outputs, outputs
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.ood_detection import detection_metrics, roc_curve
from robustness_lib.models.checkpoint_ids import origin
from robustness_lib.models.checkpoints import load_weights, save_weights
from robustness_lib.runner.model_cache import Context, Training, target_images, trained
from robustness_lib.runner.records import Job, short_hash
from robustness_lib.training.config import TrainingConfig

SECTION = "ood"
OVERLAP = "overlap"
METHODS = {**dict.fromkeys(SCORES, Method()), OVERLAP: Method(arms=["tuned"]), **SIZED}

MEASURES = ("auroc", "aupr", "fpr95")  # of metrics.ood_detection.detection_metrics
OUT_PER_IN = 1 / 5  # OOD images for each ID one (P1 §4.1)

RATES = tuple(round(rate, 3) for rate in np.linspace(0, 1, 41))  # false-positive rates of the ROC in a record
BINS = 40  # of its histograms, equally wide in [-1, 0], the range of the papers' score


@dataclass(frozen=True, kw_only=True)
class OODConfig(TrainingConfig):
    """A training config, and how its network is evaluated; names of sets are separated by colons."""

    ood_sets: str = "gaussian:rademacher:blobs"  # what the means are over: noise, or test images of the data root
    further_sets: str = ""  # measured too and left out of the means
    draws: int = 5  # how often OOD images are drawn (P1: 5)
    draw_images: int = 0  # of a draw; 0 for a fifth of the number of test images (P1)
    reference_images: int = 5000  # at most, class-balanced, for nearest-neighbours and mahalanobis
    neighbours: int = 5  # the k of nearest-neighbours, whose score is the distance of the k-th nearest image

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"draws": 1, "draw_images": 0, "reference_images": 1, "neighbours": 1}.items():
            check_whole(getattr(self, name), name, least, "give another value")
        if not self.averaged:
            raise UserError("ood_sets names no set; name at least one, such as gaussian:textures")
        for name in self.names:
            if self.names.count(name) > 1:
                raise UserError(f"{name} is named more than once in ood_sets and further_sets; name it once")
            if name in ("known", "mean"):
                raise UserError(f"an OOD set cannot be called {name}, as records call something else so; rename it")

    @property
    def averaged(self) -> list[str]:
        """The names in ``ood_sets``."""
        return [name for name in map(str.strip, self.ood_sets.split(":")) if name]

    @property
    def names(self) -> list[str]:
        """The names in ``ood_sets`` and ``further_sets``."""
        return self.averaged + [name for name in map(str.strip, self.further_sets.split(":")) if name]

    def images_of_a_draw(self, test: ImageDataset) -> int:
        """How many OOD images a draw has."""
        return self.draw_images or int(len(test) * OUT_PER_IN)


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile (:func:`robustness_lib.experiments.grid.expand`).

    ``overlap``, which does not depend on the seed, is measured at the first alone; where it is not asked for, at the
    profile's first, if the checkpoint's id names a corpus all of which it was trained on.
    """
    planned = expand(SECTION, profile_name, METHODS, OODConfig, **filters)
    asked = OVERLAP in (filters.get("methods") or ())
    [first, *_] = (filters.get("seeds") if asked else None) or profile(profile_name).seeds
    for job in planned:
        if job.dataset in OODConfig.of(job.recipe).names:
            raise UserError(f"{job.dataset} is the ID set, so it cannot be an OOD set too; leave it out of ood_sets")
    return [job for job in planned if job.method != OVERLAP or (job.seed == first and (asked or _corpus(job.init)))]


def _corpus(checkpoint: str) -> str | None:
    """The corpus all of which a checkpoint was trained on, if its id says so."""
    found = origin(checkpoint)
    return None if found is None or found.images or found.epochs is None else found.corpus


def check_images(job: Job, context: Context) -> None:
    """Refuse, before anything is trained, OOD sets that are missing or do not go with the ID one."""
    config, test = OODConfig.of(job.recipe), context.images(job.dataset, "test")
    for name, images in ood_sets(config, test, context).items():
        if job.method != OVERLAP:
            ood_images.sample_ood_images(name, images.labels, config.images_of_a_draw(test), 1, job.seed)
    for name in NOISE_IMAGES:
        if name in config.names and (data_root(context.data) / name).is_dir():
            raise UserError(f"{name} is noise that is made here, so no data set can be called so; rename its folder")


def ood_sets(config: OODConfig, test: ImageDataset, context: Context) -> dict[str, ImageDataset]:
    """The test images of the OOD sets that are not made; of a set that comes in several sizes, the ID images' size."""
    height, width = test.images.shape[2:]
    if height != width:
        raise UserError(
            f"{test.name} has images of {height}x{width} pixels, but OOD images are square; crop them to a square"
        )
    found: dict[str, ImageDataset] = {}
    missing: dict[str, MissingData] = {}
    for name in config.names:
        if name not in NOISE_IMAGES:
            try:
                found[name] = context.images(sized if (sized := f"{name}-{width}") in SOURCES else name, "test")
            except MissingData as error:
                missing[name] = error
    for name, reason in missing.items():
        rest = ":".join(other for other in config.averaged if other not in missing) or ":".join(NOISE_IMAGES)
        remedy = f"ood_sets={rest}" if name in config.averaged else "further_sets="
        raise MissingData(f"{reason}; or do without it: --set {remedy}") from reason
    for images in found.values():
        check_same_size(images, test)
    return found


def run(job: Job, context: Context) -> Metrics:
    """Score the test images and the OOD ones, and measure how well the scores tell them apart.

    For each OOD set and measure the mean over the draws, such as ``auroc_<set>``, and their standard
    deviation, ``spread_auroc_<set>``; and ``…_mean``, over the averaged sets. Of method ``standard`` also ``roc_<set>``
    at ``RATES``, and ``histogram_<set>`` and ``histogram_known`` (ID).
    """
    config = OODConfig.of(job.recipe)
    test = context.images(job.dataset, "test")
    found = ood_sets(config, test, context)
    if job.method == OVERLAP:
        return measure_overlap(job, {job.dataset: test, **found}, context)
    parts, rows, bank = _network_outputs(job, config, test, found, context)
    every = Outputs(*(torch.cat([getattr(part, kind) for part in parts.values()]) for kind in ("logits", "features")))
    ends = np.cumsum([len(part.logits) for part in parts.values()])
    score = SCORES["standard" if job.method in SIZED else job.method]
    scores = dict(zip(parts, np.split(score(every, bank), ends[:-1]), strict=True))
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
        curves = {f"histogram_{name}": np.histogram(x, BINS, (-1, 0))[0] / len(x) for name, x in scores.items()}
        curves |= {f"roc_{name}": roc_curve(scores["known"], scores[name], RATES) for name in rows}
        metrics |= {name: [round(float(share), 4) for share in curve] for name, curve in curves.items()}
    return metrics


def _network_outputs(
    job: Job, config: OODConfig, test: ImageDataset, found: dict[str, ImageDataset], context: Context
) -> tuple[dict[str, Outputs], dict[str, Tensor], FeatureBank]:
    """What the network says about the ID images ("known") and each OOD set, the draws, and the reference images.

    It is computed once for all methods.
    """
    count, side = config.images_of_a_draw(test), test.images.shape[-1]
    samples = {}
    for name in config.names:  # of noise five times a draw's images are made, as in P1's code
        noise = name in NOISE_IMAGES
        pixels = ood_images.make_noise_images(name, 5 * count, side, job.seed) if noise else found[name].images
        samples[name] = ood_images.sample_ood_images(name, pixels, count, config.draws, job.seed)
    training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=config)
    images = target_images(training, context)
    few = min(config.reference_images, len(images))
    reference = images.subset(class_balanced_subset(images.labels, few, job.seed))
    if config.neighbours > few:
        raise UserError(f"neighbours is {config.neighbours} but there are {few} reference images; give fewer")
    network = trained(training, context, progress=job.label).network
    checksums = {name: found[name].checksum if name in found else "" for name in config.names}
    description = {  # its words, and those in the file, stay: kept outputs are found by them
        "training": training.key,
        "images": [test.checksum, reference.checksum],
        "foreign": {name: [checksum, count, side, config.draws] for name, checksum in checksums.items()},
    }
    path = context.store / "outputs" / SECTION / f"{short_hash(description)}.safetensors"
    pictures = {"known": test.images, "reference": reference.images}
    pictures |= {f"foreign/{name}": sample.images for name, sample in samples.items()}
    with locked(context.store / "locks" / f"{path.stem}.lock"):
        if not path.exists():
            tensors: dict[str, Tensor] = {}
            for name, values in pictures.items():
                said = outputs(network, values, config.normalisation, context.runtime)
                tensors |= {f"{name}/{kind}": tensor for kind, tensor in vars(said).items()}
            save_weights(path, tensors, {"training": training.key})
        kept, _ = load_weights(path)
    bank = FeatureBank(kept["reference/features"], reference.labels, config.neighbours)
    del pictures["reference"]
    parts = {
        name.removeprefix("foreign/"): Outputs(kept[f"{name}/logits"], kept[f"{name}/features"]) for name in pictures
    }
    return parts, {name: sample.rows for name, sample in samples.items()}, bank


def measure_overlap(job: Job, sets: dict[str, ImageDataset], context: Context) -> Metrics:
    """What the test set and the OOD sets share with the corpus of pre-training (P1 §4.1, appendix A).

    Classes are shared or kindred by :func:`robustness_lib.methods.ood_images.shared_classes`; shared images have a
    :data:`robustness_lib.methods.ood_images.DUPLICATE` in the corpus; related classes are those of CIFAR-10 (P1).
    """
    name = _corpus(job.init)
    if name is None:
        raise UserError(
            f"the id of the checkpoint {job.init} does not name a corpus all of which it was pre-trained on, so "
            "overlap has nothing to compare with; choose other methods"
        )
    corpus = context.images(name, "train")
    check_same_size(corpus, sets[job.dataset])
    related = {words for wnid, words in read_class_map() if wnid in class_list("cifar10_related")}
    metrics: Metrics = {
        "corpus_images": float(len(corpus)),
        "corpus_classes": float(corpus.num_classes),
        "corpus_related_classes": float(sum(words in related for words in corpus.class_names)),
    }
    for name, images in sets.items():
        present = [images.class_names[label] for label in torch.unique(images.labels).tolist()]
        same, kindred = ood_images.shared_classes(present, corpus.class_names)
        similarity, _ = ood_images.nearest_images(images.images, corpus.images, context.runtime.device)
        metrics |= {
            f"images_{name}": float(len(images)),
            f"classes_{name}": float(len(present)),
            f"shared_classes_{name}": float(len(same)),
            f"kindred_classes_{name}": float(len(kindred)),
            f"shared_images_{name}": float((similarity >= ood_images.DUPLICATE).sum()),
        }
    return metrics
