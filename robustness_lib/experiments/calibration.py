"""The calibration section: whether confidence says how often a network is right (P1 §4.2, Table 5, Figure 4).

A network trained from scratch is compared with one that was pre-trained and tuned. The metrics are functions of
arrays (:mod:`robustness_lib.metrics.calibration`); tables and figures are those of every section
(:mod:`robustness_lib.report`).

Methods: ``standard`` trains on all training images; ``temperature`` trains on 90 % of them and tunes a softmax
temperature on the rest. On request only, and pre-trained only: ``places365``, ``standard`` from a checkpoint of another
corpus, given by its id; ``low-rate`` and ``high-rate``, ``standard`` tuned at a tenth of the learning rate or at ten
times it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Unpack

from numpy.typing import ArrayLike

from robustness_lib.errors import UserError
from robustness_lib.experiments.grid import Filters, plan
from robustness_lib.experiments.pretraining import require_corpus
from robustness_lib.metrics import Metrics
from robustness_lib.metrics.calibration import (
    adaptive_bins,
    confidence_and_correctness,
    evaluate,
    rms_calibration_error,
    tune_temperature,
)
from robustness_lib.runner.model_cache import (
    Context,
    Trained,
    Training,
    held_out_split,
    keep_outputs,
    target_images,
    trained,
)
from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import predict

SECTION = "calibration"
METHODS = ("standard", "temperature")
RATES = {"low-rate": 0.1, "high-rate": 10.0}
"""Methods that tune at another learning rate, as a multiple of that of ``standard``."""
ON_REQUEST = ("places365", *RATES)

# --------------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(TrainingConfig):
    """A training recipe and how its network is judged.

    Attributes:
        bin_size: Test examples in an adaptive bin (P1: 100).
    """

    bin_size: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bin_size < 1:
            raise UserError(f"bin_size is {self.bin_size} but must be at least 1; the paper uses 100")


def jobs(profile_name: str, **selection: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one scale.

    Args:
        profile_name: The scale.
        **selection: What is selected (:class:`robustness_lib.experiments.grid.Filters`); :data:`METHODS` where it
            names none.

    Returns:
        The jobs (:func:`robustness_lib.experiments.grid.plan`); of :data:`ON_REQUEST` those that are pre-trained.

    Raises:
        UserError: An unknown name or an unsuitable value.
    """
    methods = selection["methods"] = selection.get("methods") or METHODS
    if "places365" in methods:
        require_corpus("places365", "places365", selection.get("init"), profile_name)
    planned = plan(SECTION, profile_name, (*METHODS, *ON_REQUEST), CalibrationConfig, **selection)
    return [_at_its_rate(job) for job in planned if job.method not in ON_REQUEST or job.init != SCRATCH]


def _at_its_rate(job: Job) -> Job:
    if job.method not in RATES:
        return job
    recipe = CalibrationConfig.of(job.recipe)
    return replace(job, recipe=replace(recipe, learning_rate=recipe.learning_rate * RATES[job.method]).as_dict())


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
    recipe = CalibrationConfig.of(job.recipe)
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
