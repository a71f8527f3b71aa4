"""The calibration section: whether confidence says how often a network is right (P1 §4.2, Table 5, Figure 4).

Methods: ``standard`` trains on all training images; ``temperature`` trains on 90 % of them and tunes a softmax
temperature on the rest. On request, and pre-trained only: ``places365`` is ``standard`` from a checkpoint of another
corpus; ``low-rate`` and ``high-rate`` are ``standard`` tuned at a tenth of its learning rate and at ten times it. In
both arms, ``standard-1000`` and so on are ``standard`` with so many training images. ``standard-1000-longer`` and so on
are the same, pre-trained only and tuned in other ways (``TUNINGS`` of :mod:`robustness_lib.experiments.grid`), and
``standard-5000-shorter``, from scratch only and for 30 epochs.
"""

from dataclasses import dataclass
from typing import Unpack

from robustness_lib.experiments.grid import SIZED, Filters, Method, expand
from robustness_lib.methods.checks import check_whole
from robustness_lib.metrics import Metrics, calibration, rounded
from robustness_lib.runner.model_cache import Context, Training, held_out_split, keep_outputs, target_images, trained
from robustness_lib.runner.records import Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.trainer import predict

SECTION = "calibration"
METHODS = {
    **dict.fromkeys(("standard", "temperature"), Method()),
    "places365": Method(arms=["tuned"], profiles=(), corpus="places365"),
    **dict.fromkeys(("low-rate", "high-rate"), Method(arms=["tuned"], profiles=())),
    **SIZED,
}


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(TrainingConfig):
    """A training config, and how its network is evaluated."""

    bin_size: int = 100  # test examples in an adaptive bin (P1: 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self.bin_size, "bin_size", 1, "the paper uses 100")


def jobs(profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
    """The measurements of the section at one profile (:func:`robustness_lib.experiments.grid.expand`)."""
    return expand(SECTION, profile_name, METHODS, CalibrationConfig, **filters)


def run(job: Job, context: Context) -> Metrics:
    """Train (or find) the job's network and measure its calibration on the whole test set.

    The metrics are those of :func:`robustness_lib.metrics.calibration.evaluate`, with bins and history; for method
    ``temperature`` the ``temperature`` too, and every one again with it, as ``…_tempered``.
    """
    config = CalibrationConfig.of(job.recipe)
    held_out = job.method == "temperature"
    training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=config, held_out=held_out)
    result = trained(training, context, progress=job.label)
    test = context.images(job.dataset, "test")
    logits = predict(result.network, test, config.normalisation, context.runtime).numpy()
    labels = test.labels.numpy()
    outputs = {"logits": logits, "labels": labels}
    metrics = calibration.evaluate(logits, labels, config.bin_size)
    sure, right, _ = calibration.adaptive_bins(*calibration.confidence_and_correctness(logits, labels), config.bin_size)
    history = zip(result.confidence, result.correct, strict=True)
    rms = [calibration.rms_calibration_error(confidence, correct, config.bin_size) for confidence, correct in history]
    metrics |= {
        "reliability_confidence": rounded(sure, 4),
        "reliability_accuracy": rounded(right, 4),
        "history_epoch": [float(epoch) for epoch in result.epochs],
        "history_error": rounded((1 - correct.mean() for correct in result.correct), 4),
        "history_rms_calibration_error": rounded(rms),
    }
    if held_out:
        tuning_set = held_out_split(target_images(training, context))[1]
        tuning_logits = predict(result.network, tuning_set, config.normalisation, context.runtime).numpy()
        tuning_labels = tuning_set.labels.numpy()
        temperature = calibration.tune_temperature(tuning_logits, tuning_labels)
        tempered = calibration.evaluate(logits / temperature, labels, config.bin_size)
        metrics |= {"temperature": temperature} | {f"{name}_tempered": value for name, value in tempered.items()}
        outputs |= {"tuning_logits": tuning_logits, "tuning_labels": tuning_labels}
    keep_outputs(job, context, outputs)
    return metrics
