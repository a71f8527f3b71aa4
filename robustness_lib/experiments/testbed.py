"""What published predictions say about accuracy under shift: lines, dominance, hard examples (P2 §3, §5.4).

The testbeds are other people's networks, whose answers and accuracies are public
(:mod:`robustness_lib.data.published_predictions`). What is computed from them has no randomness and does not depend on
the machine, so all jobs belong to the profile ``cpu`` and seed 0. Data sets are the pairs of test sets of
``testbeds.toml``.

The methods are:

* ``fit-linear``, ``fit-probit``, ``fit-logit``: the line on that scale (P2 Tables 2 and 3). With a suffix, as
  ``fit-logit-2021-09``, the same through other models of the same testbed, the variants of ``testbeds.toml``;
* ``testbed``: the accuracies themselves, and effective robustness against the line that P2 prints;
* ``image-by-image``: dominance probabilities of all pairs, and the images that no model gets right (P2 §5.4, C.10);
* ``triplets``: how often a model is right where two others are wrong, on both test sets (our reading of P2 Figure 20);
* ``mixed``: the classifier that asks the weakest or the strongest model of the testbed at random (P2 D.1).

The ImageNet models are those of the table of 2020-08-31, with ImageNetV2's images in the format of the validation set:
with these alone slope, intercept and R² come out as P2 prints them. It does not say which it took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from robustness_lib.data import published_predictions as published
from robustness_lib.experiments.grid import Filters
from robustness_lib.experiments.presets import read_toml
from robustness_lib.metrics import Metrics, rounded
from robustness_lib.metrics import effective_robustness as measures
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import SCRATCH, Job

if TYPE_CHECKING:
    import pandas as pd

SECTION = "effective_robustness"
PROFILE = "cpu"

HIGH = 0.01  # effective robustness above this counts as high (P2)
BROKEN = ("fv_16k",)  # published answers on ImageNetV2 that are broken: 2.5 % right, against 28 % on ImageNet
SHARES = tuple(twentieths / 20 for twentieths in range(21))  # how often the mixed classifier asks the weaker model

_TABLES = read_toml("testbeds.toml")
PAIRS: dict[str, dict[str, Any]] = _TABLES["pairs"]
VARIANTS: dict[str, dict[str, Any]] = _TABLES["variants"]
PAIRS_ALONE = set(PAIRS) - {"cifar10"}  # those that are no data set of the section's trainings

_FITS = tuple(f"fit-{scaling}" for scaling in measures.SCALINGS)
METHODS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_FITS, tuple(PAIRS)),
    **{f"{fit}-{variant}": ("imagenet",) for variant in VARIANTS for fit in _FITS},
    **dict.fromkeys(("testbed", "image-by-image", "mixed"), tuple(measures.PRINTED_LINES)),
    "triplets": ("imagenet",),
}
"""The methods, which train nothing, each with the pairs that have it."""


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """A job for each selected pair and method that it has; what else is selected is the rest of the section's."""
    datasets, methods = filters.get("datasets") or PAIRS, filters.get("methods") or METHODS
    return [
        _job(dataset, method)
        for dataset in PAIRS
        for method in METHODS
        if profile_name == PROFILE and dataset in datasets and method in methods and dataset in METHODS[method]
    ]


def _job(dataset: str, method: str) -> Job:
    kind, scaling, variant = [*method.split("-", 2), "", ""][:3]
    recipe = VARIANTS[variant] if kind == "fit" and variant else PAIRS[dataset]
    if method == "image-by-image":
        recipe = {"source": "imagenet-answers" if dataset == "imagenet" else "cifar10-testbed", "images": dataset}
    elif method == "triplets":
        recipe = VARIANTS["answers"]
    elif kind == "fit":
        recipe = recipe | {"scaling": scaling}
    same: dict[str, Any] = {"section": SECTION, "profile": PROFILE, "init": SCRATCH, "level": None, "seed": 0}
    return Job(dataset=dataset, method=method, recipe=recipe, **same)


def run(job: Job, context: Context) -> Metrics:
    """Compute one measurement from the published tables; accuracies, shares and probabilities are fractions."""

    def digits(value: float) -> float:  # ten significant ones: what libraries of linear algebra agree on
        return float(f"{value:.10g}")

    return {
        name: [digits(number) for number in value] if isinstance(value, list) else digits(value)
        for name, value in _MEASURES.get(job.method, fit)(job, context).items()
    }


def _answers(job: Job, context: Context) -> published.Correctness:
    source = str(job.recipe["source"])
    context.note_data(source, published.CHECKSUMS[source])
    read = published.cifar10_correctness if source == "cifar10-testbed" else published.imagenet_correctness
    return read(context.data)


def _models(job: Job, context: Context) -> tuple[pd.DataFrame, int]:
    """The models with both accuracies, ``inside`` (rising) and ``outside``; and how many there are with the others.

    ``more_data`` is 1 where a model was trained on more than ImageNet.
    """
    import pandas as pd

    source, *tests = (str(job.recipe[name]) for name in ("source", "original", "shifted"))
    if source == "imagenet-testbed":
        table = published.imagenet_accuracies(context.data)
        context.note_data(source, published.CHECKSUMS[source])
        date, _, kind = str(job.recipe["models"]).partition(" ")
        table = table[table["first_snapshot"] <= date]
        table = table[table["model_type"] == kind] if kind else table
        models = table[tests].set_axis(["inside", "outside"], axis=1)
        models["more_data"] = (table["model_type"] == "more_data").astype(float)
    else:
        answers = _answers(job, context)
        whole = [model not in BROKEN for model in answers.models]
        inside, outside = (answers.correct[name][whole].mean(1) for name in tests)
        models = pd.DataFrame({"inside": inside, "outside": outside, "more_data": 0.0})
    return models.dropna().sort_values("inside", kind="stable"), len(models)


def fit(job: Job, context: Context) -> Metrics:
    """The line through the models of a pair, with standard errors and 95 % intervals (``…_low`` to ``…_high``)."""
    from scipy.stats import t as student

    models, _ = _models(job, context)
    inside, outside = models["inside"].to_numpy(), models["outside"].to_numpy()
    line = measures.fit_line(inside, outside, str(job.recipe["scaling"]))
    residuals = measures.effective_robustness(inside, outside, line)
    metrics: Metrics = {
        "slope": line.slope,
        "intercept": line.intercept,
        "r_squared": float(line.r_squared or 0),
        "model_count": float(line.models or 0),
        "left_out": float(line.left_out),  # with an accuracy of 0 or 1
        "residual": float(np.sqrt((residuals**2).mean())),
        "id_lowest": float(inside[0]),
        "id_highest": float(inside[-1]),
    }
    quantile = float(student.ppf(0.975, (line.models or 3) - 2))  # two degrees of freedom less than models
    for name in ("slope", "intercept"):
        value, error = getattr(line, name), float(getattr(line, f"{name}_error") or 0)
        metrics[f"{name}_error"] = error
        metrics |= {f"{name}_low": value - quantile * error, f"{name}_high": value + quantile * error}
    printed = measures.PRINTED_LINES.get("cifar10" if job.dataset.startswith("cifar10") else job.dataset)
    if printed is not None:
        places = np.linspace(inside[0], inside[-1], 1001)
        metrics["printed_line_distance"] = float(np.abs(line.predict(places) - printed.predict(places)).max())
    return metrics


def testbed(job: Job, context: Context) -> Metrics:
    """The accuracies of all models, by rising ID accuracy."""
    models, count = _models(job, context)
    robustness = measures.effective_robustness(models["inside"], models["outside"], measures.PRINTED_LINES[job.dataset])
    return {
        "model_count": float(count),
        "compared_count": float(len(models)),  # with both accuracies
        "id_accuracy": rounded(models["inside"]),
        "ood_accuracy": rounded(models["outside"]),
        "id_images": float(PAIRS[job.dataset]["original_images"]),
        "ood_images": float(PAIRS[job.dataset]["shifted_images"]),
        "more_data": models["more_data"].tolist(),
        "effective_robustness": float(robustness.max()),
        "high_count": float((robustness > HIGH).sum()),
        "high_more_data": float(models["more_data"][robustness > HIGH].sum()),
    }


def image_by_image(job: Job, context: Context) -> Metrics:
    """How the models, by rising accuracy, differ on single images."""
    answers = _answers(job, context)
    correct, labels = answers.correct[job.dataset], answers.labels[job.dataset]
    correct = correct[np.argsort(correct.mean(1), kind="stable")]
    accuracy, hard = correct.mean(1), measures.hard_examples(correct)
    upper = np.triu_indices(len(correct), 1)
    pairs = measures.dominance_matrix(correct)[upper]
    independent = accuracy[upper[0]] * (1 - accuracy[upper[1]])
    by_class = np.bincount(labels[hard])
    return {
        "model_count": float(len(correct)),
        "image_count": float(len(labels)),
        "accuracy": rounded(accuracy),
        "dominance": rounded(pairs, 4),  # the upper triangle without the diagonal, row by row
        "dominance_mean": float(pairs.mean()),
        "dominance_lowest": float(pairs.min()),
        "dominance_highest": float(pairs.max()),
        "dominance_independent": float(independent.mean()),  # if models erred independently
        "hard_count": float(hard.sum()),
        "hard_share": float(hard.mean()),
        "hard_class_count": float((by_class > 0).sum()),
        "hard_class_maximum": float(by_class.max(initial=0)),
        "hard_share_correct": rounded(np.nan_to_num(measures.hard_share_correct(correct))),
    }


def triplets(job: Job, context: Context) -> Metrics:
    """How often a model is right where two others are both wrong, ID and OOD, over all that are not broken."""
    answers = _answers(job, context)
    whole = [model not in BROKEN for model in answers.models]
    inside, outside = (
        measures.alone_of_three(answers.correct[str(job.recipe[name])][whole]) for name in ("original", "shifted")
    )
    ratio = outside[inside > 0] / inside[inside > 0]  # of what happens on ID images at all
    low, middle, high = np.percentile(ratio, (2.5, 50, 97.5))
    return {
        "model_count": float(sum(whole)),
        "event_count": float(len(inside)),
        "id_share": float(inside.mean()),
        "ood_share": float(outside.mean()),
        "ratio_low": float(low),  # to ratio_high are 95 % of OOD ÷ ID share, where the latter is not 0
        "ratio_median": float(middle),
        "ratio_high": float(high),
        "more_often": float((ratio > 1).mean()),  # OOD than ID
        "correlation": float(np.corrcoef(inside, outside)[0, 1]),
    }


def mixed(job: Job, context: Context) -> Metrics:
    """The classifier that asks the weaker of two models in a share of all cases."""
    models, _ = _models(job, context)
    low, high = (tuple(models[["inside", "outside"]].iloc[end]) for end in (0, -1))
    inside, outside = measures.mixed_classifier(low, high, SHARES)
    robustness = measures.effective_robustness(inside, outside, measures.PRINTED_LINES[job.dataset])
    return {
        "share": list(SHARES),
        "id_accuracy": rounded(inside),
        "ood_accuracy": rounded(outside),
        "effective_robustness": rounded(robustness),
        "maximum_effective_robustness": float(robustness.max()),
    }


_MEASURES = {"testbed": testbed, "image-by-image": image_by_image, "triplets": triplets, "mixed": mixed}
