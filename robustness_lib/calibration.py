"""The calibration section: whether confidence says how often a network is right (P1 §4.2, Table 5, Figure 4).

:func:`jobs` and :func:`run` measure a network trained from scratch and one that was pre-trained and tuned; the
functions at the end draw the section's tables and figures. The metrics themselves are functions of arrays
(:mod:`robustness_lib.metrics`).

Methods: ``standard`` trains on all training images; ``temperature`` trains on 90 % of them and tunes a softmax
temperature on the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from robustness_lib.errors import UserError, choose
from robustness_lib.metrics import (
    adaptive_bins,
    brier_score,
    confidence_and_correctness,
    evaluate,
    expected_calibration_error,
    mad_calibration_error,
    negative_log_likelihood,
    rms_calibration_error,
    tune_temperature,
)
from robustness_lib.networks import (
    Context,
    Trained,
    Training,
    held_out_split,
    keep_outputs,
    target_images,
    trained,
)
from robustness_lib.pretraining import arms
from robustness_lib.profiles import profile
from robustness_lib.recipes import Recipe
from robustness_lib.records import Job, Metrics
from robustness_lib.training import predict

__all__ = [
    "METHODS",
    "SECTION",
    "CalibrationRecipe",
    "adaptive_bins",
    "brier_score",
    "evaluate",
    "expected_calibration_error",
    "jobs",
    "mad_calibration_error",
    "negative_log_likelihood",
    "rms_calibration_error",
    "run",
    "tune_temperature",
]

SECTION = "calibration"
METHODS = ("standard", "temperature")

# --------------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True, kw_only=True)
class CalibrationRecipe(Recipe):
    """A training recipe and how its network is judged.

    Attributes:
        bin_size: Test examples in an adaptive bin (P1: 100).
    """

    bin_size: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bin_size < 1:
            raise UserError(f"bin_size is {self.bin_size} but must be at least 1; the paper uses 100")


def jobs(
    profile_name: str,
    *,
    datasets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Mapping[str, str] | None = None,
    init: str | None = None,
) -> list[Job]:
    """The measurements of the section.

    Args:
        profile_name: The scale.
        datasets: Target data sets; None for the profile's.
        methods: Of :data:`METHODS`; None for all.
        seeds: Seeds; None for the profile's.
        overrides: Settings to change, as text by name (:func:`robustness_lib.pretraining.arms`).
        init: A checkpoint id to tune instead of the profile's.

    Returns:
        The jobs: by method and seed, the data sets in turn, each from scratch and tuned.

    Raises:
        UserError: An unknown name or an unsuitable value.
    """
    scale = profile(profile_name)
    planned = []
    for method in methods or METHODS:
        choose(method, METHODS, f"method of the {SECTION} section")
        for seed in scale.seeds if seeds is None else seeds:
            for dataset in datasets or scale.datasets:
                for arm in arms(scale, dataset, CalibrationRecipe, overrides, init):
                    planned.append(
                        Job(
                            section=SECTION,
                            profile=scale.name,
                            dataset=dataset,
                            init=arm.init,
                            method=method,
                            level=None,
                            seed=seed,
                            recipe=arm.recipe.as_dict(),
                        )
                    )
    return planned


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's network and measure its calibration on the whole test set.

    Args:
        job: From :func:`jobs`.
        context: Data, store and runtime.

    Returns:
        The metrics of :func:`evaluate`; ``reliability_confidence`` and ``reliability_accuracy`` by bin;
        ``history_epoch``, ``history_error`` and ``history_rms_calibration_error`` along the training; and for
        method ``temperature`` the ``temperature`` and every metric again, ``_tempered``.
    """
    recipe = CalibrationRecipe(**job.recipe)  # type: ignore[arg-type]
    held_out = job.method == "temperature"
    training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=recipe, held_out=held_out)
    result = trained(training, context, progress=job.label)
    test = context.images(job.dataset, "test")
    logits = predict(result.network, test, recipe.normalisation, context.runtime).numpy()
    labels = test.labels.numpy()
    outputs = {"logits": logits, "labels": labels}
    metrics = evaluate(logits, labels, recipe.bin_size) | _curves(result, logits, labels, recipe.bin_size)
    if held_out:
        tuning_set = held_out_split(target_images(training, context))[1]
        tuning_logits = predict(result.network, tuning_set, recipe.normalisation, context.runtime).numpy()
        temperature = tune_temperature(tuning_logits, tuning_set.labels.numpy())
        tempered = evaluate(logits / temperature, labels, recipe.bin_size)
        metrics |= {"temperature": temperature} | {f"{name}_tempered": value for name, value in tempered.items()}
        outputs |= {"tuning_logits": tuning_logits, "tuning_labels": tuning_set.labels.numpy()}
    keep_outputs(job, context, outputs)
    return metrics


def _curves(result: Trained, logits: ArrayLike, labels: ArrayLike, bin_size: int) -> Metrics:
    """The reliability diagram, and error and calibration at the observed epochs."""
    sure, right, _ = adaptive_bins(*confidence_and_correctness(logits, labels), bin_size)
    history = zip(result.confidence, result.correct, strict=True)
    rms = [rms_calibration_error(confidence, correct, bin_size) for confidence, correct in history]
    return {
        "reliability_confidence": [round(float(value), 4) for value in sure],
        "reliability_accuracy": [round(float(value), 4) for value in right],
        "history_epoch": [float(epoch) for epoch in result.epochs],
        "history_error": [round(float(1 - correct.mean()), 4) for correct in result.correct],
        "history_rms_calibration_error": [round(value, 5) for value in rms],
    }
