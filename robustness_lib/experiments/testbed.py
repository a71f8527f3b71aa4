"""What published predictions say about accuracy under shift: lines, dominance, hard examples (P2 §3, §5.4).

The testbeds of effective robustness are other people's networks, whose answers and accuracies are public
(:mod:`robustness_lib.data.published_predictions`). What is computed from them trains nothing, has no randomness and
does not depend on the machine, so there is one scale and one seed: the jobs belong to the profile ``cpu``, seed 0.

Data sets are pairs of test sets (:data:`PAIRS`), named by the shifted one where ImageNet or CIFAR-10 has several. The
methods are these:

* ``fit-linear``, ``fit-probit``, ``fit-logit``: the line on that scale (P2 Tables 2 and 3). With a suffix of
  :data:`VARIANTS`, as ``fit-logit-2021-09``, the same through other models of the same testbed;
* ``testbed``: the accuracies themselves, and effective robustness against the line that P2 prints;
* ``image-by-image``: dominance probabilities of all pairs, and the images that no model gets right (P2 §5.4, C.10);
* ``mixed``: the classifier that asks the weakest or the strongest model of the testbed at random (P2 D.1).

**Which ImageNet models.** P2 does not say which state of the testbed's table it fits, nor which of the two formats of
ImageNetV2's images. It names 204 models, and the state of 2020-08-31 has 204, of which 201 have both accuracies.
Through them, with the values of that state and the images in the format of ImageNet's validation set, slope, intercept
and all three R² come out as printed, to every digit. The other format gives other digits, and so do today's values of
the same models. The state of 2020-11-20 cannot be told apart by its digits, but by its number of models.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from robustness_lib.data.published_predictions import (
    CHECKSUMS,
    SNAPSHOTS,
    Correctness,
    cifar10_correctness,
    imagenet_accuracies,
    imagenet_correctness,
)
from robustness_lib.experiments.grid import Filters
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.effective_robustness import (
    PRINTED_LINES,
    SCALINGS,
    dominance_matrix,
    effective_robustness,
    fit_line,
    hard_examples,
    hard_share_correct,
    mixed_classifier,
)
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import SCRATCH, Job

SECTION = "effective_robustness"
PROFILE = "cpu"

HIGH = 0.01
"""Effective robustness above this counts as high (P2)."""

BROKEN = ("fv_16k",)
"""Models whose published answers on ImageNetV2 are broken: 2.5 % right, against 28 % on ImageNet."""

SHARES = tuple(twentieths / 20 for twentieths in range(21))
"""How often the mixed classifier asks the weaker model."""

Floats = npt.NDArray[np.float64]

# --------------------------------------------------------------------------------------------- test sets


@dataclass(frozen=True)
class Pair:
    """Two test sets and the models whose accuracies on them are compared.

    Attributes:
        source: ``"cifar10-testbed"`` or ``"imagenet-answers"`` (answers image by image), or ``"imagenet-testbed"`` (a
            table of accuracies).
        original: The test set of the ID accuracy: a name among the answers, or a column of the table.
        shifted: That of the OOD accuracy.
        original_images: Images of the one.
        shifted_images: Images of the other.
        models: ``"all"``, a date (the models that the table had then), or a date and ``"standard"`` (those of them that
            were trained on ImageNet in the standard way).
    """

    source: str
    original: str
    shifted: str
    original_images: int
    shifted_images: int
    models: str = "all"


_V2 = "imagenetv2-matched-frequency-format-val"
_TABLE = Pair("imagenet-testbed", "val", _V2, 50_000, 10_000, SNAPSHOTS[0])

PAIRS: dict[str, Pair] = {
    "cifar10": Pair("cifar10-testbed", "cifar10", "cifar10.1-v6", 10_000, 2_000),
    "cifar10.1-v4": Pair("cifar10-testbed", "cifar10", "cifar10.1-v4", 10_000, 2_021),
    "imagenet": replace(_TABLE, original=f"val@{SNAPSHOTS[0]}", shifted=f"{_V2}@{SNAPSHOTS[0]}"),
    "imagenetv2-threshold": replace(_TABLE, shifted="imagenetv2-threshold-0.7-format-val"),
    "imagenetv2-top-images": replace(_TABLE, shifted="imagenetv2-top-images-format-val"),
    "imagenet-r": replace(
        _TABLE,
        original="val-on-imagenet-r-classes",
        shifted="imagenet-r",
        original_images=10_000,
        shifted_images=30_000,
    ),
    "objectnet": replace(
        _TABLE,
        original="val-on-objectnet-classes",
        shifted="objectnet-1.0-beta",
        original_images=6_250,
        shifted_images=18_514,
    ),
}
"""The pairs by the name that records have as their data set. ``cifar10`` is CIFAR-10 with CIFAR-10.1 v6, ``imagenet``
is ImageNet with ImageNetV2 MatchedFrequency: P2's pairs, for which it prints lines."""

VARIANTS: dict[str, Pair] = {
    "2020-08-today": _TABLE,
    "2020-11": replace(_TABLE, models=SNAPSHOTS[1]),
    "2021-09": replace(_TABLE, models=SNAPSHOTS[2]),
    "standard": replace(PAIRS["imagenet"], models=f"{SNAPSHOTS[0]} standard"),
    "answers": Pair("imagenet-answers", "imagenet", "imagenetv2", 50_000, 10_000),
}
"""Other models for the line of ``imagenet``: the same ones with the values that the table has today, those of later
states of the table, only those that were trained on ImageNet in the standard way, and the 66 older ones of ImageNetV2's
authors."""

_FITS = tuple(f"fit-{scaling}" for scaling in SCALINGS)
_PRINTED = ("cifar10", "imagenet")  # the pairs that have more than fits
METHODS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_FITS, tuple(PAIRS)),
    **{f"{fit}-{variant}": ("imagenet",) for variant in VARIANTS for fit in _FITS},
    **dict.fromkeys(("testbed", "image-by-image", "mixed"), _PRINTED),
}
"""The methods, each with the pairs that have it. They are no :class:`robustness_lib.experiments.grid.Method`: they
train nothing, so there is neither config nor arm, seed or checkpoint."""

# --------------------------------------------------------------------------------------------- jobs


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements, all at the profile ``cpu``: a job for each selected pair and method that it has.

    Only ``datasets`` and ``methods`` of the filters count; names that are no pair or method here are the rest of the
    section's, which checks them.
    """
    datasets, methods = filters.get("datasets"), filters.get("methods")
    return [
        _job(dataset, method)
        for dataset in PAIRS
        for method in METHODS
        if profile_name == PROFILE
        and dataset in METHODS[method]
        and (datasets is None or dataset in datasets)
        and (methods is None or method in methods)
    ]


def _job(dataset: str, method: str) -> Job:
    kind, _, rest = method.partition("-")
    scaling, _, variant = rest.partition("-")
    settings: dict[str, str | int] = asdict(VARIANTS[variant] if variant and kind == "fit" else PAIRS[dataset])
    if kind == "fit":
        settings["scaling"] = scaling
    if method == "image-by-image":
        settings = {"source": "imagenet-answers" if dataset == "imagenet" else "cifar10-testbed", "images": dataset}
    return Job(
        section=SECTION,
        profile=PROFILE,
        dataset=dataset,
        init=SCRATCH,
        method=method,
        level=None,
        seed=0,
        recipe=settings,
    )


def is_job(job: Job) -> bool:
    """Whether a job of the section is one of these, which need no image set and train nothing."""
    return job.section == SECTION and job.dataset in PAIRS and "source" in job.recipe


# --------------------------------------------------------------------------------------------- measurements


def run(job: Job, context: Context) -> Metrics:
    """Compute one measurement from the published tables.

    Returns:
        By method (accuracies, shares and probabilities are fractions):

        * fits: ``slope``, ``intercept``, ``r_squared``, ``slope_error`` and ``intercept_error`` (standard errors),
          their 95 % intervals as ``…_low`` and ``…_high``,
          ``model_count`` (models that the line goes through), ``left_out`` (with an accuracy of 0 or 1), ``residual``
          (root mean square of what models have beyond the line), and, where P2 prints a line,
          ``printed_line_distance``: the largest difference of the two baselines within the models' ID accuracies;
        * ``testbed``: ``model_count`` (of the testbed) and ``compared_count`` (with both accuracies), ``id_accuracy``
          and ``ood_accuracy`` by rising ID accuracy, ``id_images`` and ``ood_images``, ``more_data`` (1 where a model
          was trained on more than ImageNet), ``effective_robustness`` (the largest), and ``high_count``, how many have
          more than one point of it, with ``high_more_data``, how many of these were trained on more data;
        * ``image-by-image``: ``model_count``, ``accuracy`` of the models, rising, ``dominance`` of every pair of them
          (the upper triangle without the diagonal, row by row), its ``dominance_mean``, ``dominance_lowest`` and
          ``dominance_highest``, ``dominance_independent`` (the mean if models erred independently), ``hard_count``,
          ``hard_share``, ``hard_class_count`` and ``hard_class_maximum``, and ``hard_share_correct`` of each model
          against the others (0 where these leave no image);
        * ``mixed``: the weaker model's ``share``, with ``id_accuracy``, ``ood_accuracy`` and ``effective_robustness``
          against the printed line for each; ``maximum_effective_robustness``.
    """
    measure = {"image-by-image": _image_by_image, "testbed": _testbed, "mixed": _mixed}.get(job.method, _fit)

    def digits(value: float) -> float:  # ten significant ones: what libraries of linear algebra agree on
        return float(f"{value:.10g}")

    return {
        name: [digits(number) for number in value] if isinstance(value, list) else digits(value)
        for name, value in measure(job, context).items()
    }


def _answers(source: str, context: Context) -> Correctness:
    read = {"cifar10-testbed": cifar10_correctness, "imagenet-answers": imagenet_correctness}[source]
    found = read(context.data)
    context.note_data(source, CHECKSUMS[source])
    return found


@dataclass(frozen=True, eq=False)
class _Models:
    """Accuracies of the models that have both, by rising ID accuracy.

    ``count`` also has the models without; ``more_data`` is 1 where a model was trained on more than ImageNet.
    """

    inside: Floats
    outside: Floats
    count: int
    more_data: Floats


def _models(pair: Pair, context: Context) -> _Models:
    if pair.source == "imagenet-testbed":
        table = imagenet_accuracies(context.data)
        context.note_data(pair.source, CHECKSUMS[pair.source])
        date, _, kind = pair.models.partition(" ")
        table = table[table["first_snapshot"] <= date]
        table = table[table["model_type"] == kind] if kind else table
        inside, outside = (table[name].to_numpy(dtype=float) for name in (pair.original, pair.shifted))
        more_data = np.asarray(table["model_type"] == "more_data", dtype=np.float64)
    else:
        answers = _answers(pair.source, context)
        kept = [model not in BROKEN for model in answers.models]
        inside, outside = (answers.correct[name][kept].mean(1) for name in (pair.original, pair.shifted))
        more_data = np.zeros(len(inside))
    both = np.isfinite(inside) & np.isfinite(outside)
    order = np.flatnonzero(both)[np.argsort(inside[both], kind="stable")]
    return _Models(inside[order], outside[order], len(both), more_data[order])


def _fit(job: Job, context: Context) -> Metrics:
    from scipy.stats import t as student

    settings: dict[str, Any] = {name: value for name, value in job.recipe.items() if name != "scaling"}
    models = _models(Pair(**settings), context)
    line = fit_line(models.inside, models.outside, str(job.recipe["scaling"]))
    residuals = effective_robustness(models.inside, models.outside, line)
    metrics: Metrics = {
        "r_squared": float(line.r_squared or 0),
        "model_count": float(line.models or 0),
        "left_out": float(line.left_out),
        "residual": float(np.sqrt((residuals**2).mean())),
        "id_lowest": float(models.inside[0]),
        "id_highest": float(models.inside[-1]),
    }
    quantile = float(student.ppf(0.975, (line.models or 3) - 2))  # two degrees of freedom less than models
    for name, value, error in (
        ("slope", line.slope, float(line.slope_error or 0)),
        ("intercept", line.intercept, float(line.intercept_error or 0)),
    ):
        metrics |= {name: value, f"{name}_error": error}
        metrics |= {f"{name}_low": value - quantile * error, f"{name}_high": value + quantile * error}
    printed = PRINTED_LINES.get("cifar10" if job.dataset.startswith("cifar10") else job.dataset)
    if printed is not None:
        places = np.linspace(models.inside[0], models.inside[-1], 1001)
        metrics["printed_line_distance"] = float(np.abs(line.predict(places) - printed.predict(places)).max())
    return metrics


def _testbed(job: Job, context: Context) -> Metrics:
    pair = PAIRS[job.dataset]
    models = _models(pair, context)
    robustness = effective_robustness(models.inside, models.outside, PRINTED_LINES[job.dataset])
    high = robustness > HIGH
    return {
        "model_count": float(models.count),
        "compared_count": float(len(models.inside)),
        "id_accuracy": [round(float(value), 5) for value in models.inside],
        "ood_accuracy": [round(float(value), 5) for value in models.outside],
        "id_images": float(pair.original_images),
        "ood_images": float(pair.shifted_images),
        "more_data": models.more_data.tolist(),
        "effective_robustness": float(robustness.max()),
        "high_count": float(high.sum()),
        "high_more_data": float((high & (models.more_data > 0)).sum()),
    }


def _image_by_image(job: Job, context: Context) -> Metrics:
    answers = _answers(str(job.recipe["source"]), context)
    correct, labels = answers.correct[job.dataset], answers.labels[job.dataset]
    correct = correct[np.argsort(correct.mean(1), kind="stable")]
    accuracy, hard = correct.mean(1), hard_examples(correct)
    upper = np.triu_indices(len(correct), 1)
    pairs = dominance_matrix(correct)[upper]
    independent = accuracy[upper[0]] * (1 - accuracy[upper[1]])
    by_class = np.bincount(labels[hard])
    return {
        "model_count": float(len(correct)),
        "image_count": float(len(labels)),
        "accuracy": [round(float(value), 5) for value in accuracy],
        "dominance": [round(float(value), 4) for value in pairs],
        "dominance_mean": float(pairs.mean()),
        "dominance_lowest": float(pairs.min()),
        "dominance_highest": float(pairs.max()),
        "dominance_independent": float(independent.mean()),
        "hard_count": float(hard.sum()),
        "hard_share": float(hard.mean()),
        "hard_class_count": float((by_class > 0).sum()),
        "hard_class_maximum": float(by_class.max(initial=0)),
        "hard_share_correct": [round(float(value), 5) for value in np.nan_to_num(hard_share_correct(correct))],
    }


def _mixed(job: Job, context: Context) -> Metrics:
    models = _models(PAIRS[job.dataset], context)
    low, high = ((float(models.inside[end]), float(models.outside[end])) for end in (0, -1))
    inside, outside = mixed_classifier(low, high, SHARES)
    robustness = effective_robustness(inside, outside, PRINTED_LINES[job.dataset])
    return {
        "share": list(SHARES),
        "id_accuracy": [round(float(value), 5) for value in inside],
        "ood_accuracy": [round(float(value), 5) for value in outside],
        "effective_robustness": [round(float(value), 5) for value in robustness],
        "maximum_effective_robustness": float(robustness.max()),
    }
