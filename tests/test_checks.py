"""What enters as an array: every type gives the right value or one sentence, never another number."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import toys

from robustness_lib.data.corruptions import corrupt
from robustness_lib.errors import UserError
from robustness_lib.experiments import imbalance
from robustness_lib.experiments.evaluations import right_among
from robustness_lib.methods import loss_correction
from robustness_lib.methods.baseline_models import fit_pixel_model
from robustness_lib.methods.class_mapping import mapped_scores
from robustness_lib.methods.example_difficulty import chosen_by_difficulty
from robustness_lib.methods.fine_tuning import with_replay
from robustness_lib.methods.label_noise import check_matrix, corrupt_labels, observed_matrix
from robustness_lib.methods.ood_images import make_noise_images, nearest_images, sample_ood_images
from robustness_lib.methods.ood_scores import knn_score, mahalanobis_score, outputs
from robustness_lib.methods.resampling import minority_classes
from robustness_lib.metrics import calibration, effective_robustness
from robustness_lib.metrics.ood_detection import detection_metrics, roc_curve

LOGITS = np.array([[2.0, 0.5, -1.0], [0.25, 1.0, 0.5], [0.0, 0.5, 4.0], [1.0, 0.75, 0.5]])  # exact in bfloat16
CLASSES = [0, 1, 2, 1]
MATRIX = np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5], [0.25, 0.25, 0.5]])
CHANCES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)

VALUES: dict[str, tuple[Callable[[Any, Any], Any], float]] = {
    "negative_log_likelihood": (calibration.negative_log_likelihood, -np.log(CHANCES[range(4), CLASSES]).mean()),
    "forward_loss": (  # bytes are labels, not a mask
        lambda *given: float(loss_correction.forward_loss(*map(torch.as_tensor, (*given, MATRIX)))),
        -np.log((CHANCES @ MATRIX)[range(4), CLASSES]).mean(),
    ),
    "error": (lambda logits, labels: calibration.evaluate(logits, labels)["error"], 0.25),
    "observed_matrix": (lambda _, labels: observed_matrix(labels, labels, 3).trace(), 3.0),
    "corrupt_labels": (lambda _, labels: corrupt_labels(labels, np.eye(3), 1).sum(), 4.0),
    "dominance": (lambda _, labels: effective_robustness.dominance_matrix([np.asarray(labels) == 1] * 2).sum(), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint64", "int64", "list", "uint8 tensor", "int32 tensor"])
def test_labels_of_every_integer_type_give_one_number(name: str, kind: str) -> None:
    function, expected = VALUES[name]
    labels = CLASSES if kind == "list" else np.array(CLASSES, kind.split()[0])
    assert function(LOGITS, torch.tensor(labels) if "tensor" in kind else labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_numbers_of_every_precision_are_read(precision: torch.dtype) -> None:
    function, expected = VALUES["negative_log_likelihood"]
    assert function(torch.tensor(LOGITS, dtype=precision, requires_grad=True), CLASSES) == pytest.approx(expected)
    scores = torch.tensor([0.5, 0.25], dtype=precision)
    assert detection_metrics(scores, scores)["auroc"] == 0.5
    assert check_matrix(torch.tensor(MATRIX, dtype=precision)).tolist() == MATRIX.tolist()


FEATURES = torch.eye(3)
REFUSED: dict[str, Callable[[], object]] = {
    "an unknown trusted class": lambda: loss_correction.estimate_glc_matrix(np.eye(2), [0, 2]),
    "a negative label": lambda: loss_correction.forward_loss(torch.zeros(1, 2), torch.tensor([-1]), torch.eye(2)),
    "another matrix": lambda: loss_correction.forward_loss(torch.zeros(1, 2), torch.tensor([1]), torch.ones(1, 1)),
    "a matrix of NaN": lambda: check_matrix([[math.nan, 1.0], [0.0, 1.0]]),
    "no images to trust": lambda: loss_correction.trusted_split(torch.arange(0), 0.5, "balanced", 0),
    "a seed of 33 bits": lambda: corrupt_labels([0], np.eye(2), 2**32),
    "one prediction for all": lambda: imbalance.evaluate([0], [0, 1], [2, 1]),
    "texts": lambda: calibration.brier_score([["a", "b"]], [0]),
    "a ragged list": lambda: calibration.brier_score([[1.0], [1.0, 2.0]], [0, 0]),
    "complex numbers": lambda: effective_robustness.to_scale([0.5 + 1j], "linear"),
    "a rate below 0": lambda: roc_curve([0.0], [1.0], [-0.1]),
    "features of two widths": lambda: knn_score(FEATURES, FEATURES[:, :2], 1),
    "a feature of NaN": lambda: mahalanobis_score(FEATURES * math.nan, FEATURES, torch.arange(3)),
    "one label for a bank": lambda: mahalanobis_score(FEATURES, FEATURES, torch.tensor([0])),
    "no draw": lambda: sample_ood_images("x", torch.zeros(3, 1), 1, 0, 0),
    "two sizes": lambda: nearest_images(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16)),
    "one score for all": lambda: chosen_by_difficulty(torch.tensor([0, 1]), [0.5], 2, "easy"),
    "a class map of bytes": lambda: mapped_scores(torch.zeros(1, 2), torch.ones(2, 2, dtype=torch.uint8)),
    "images in [0, 1]": lambda: corrupt(torch.rand(1, 3, 8, 8), "contrast", 1),
    "no images": lambda: corrupt(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "contrast", 1),
    "long integers": lambda: outputs(torch.nn.Linear(1, 1), torch.ones(1, 3, 8, 8).long(), "half", toys.PLAIN),
    "scores of other images": lambda: right_among(np.zeros((3, 2)), np.array([0, 1]), np.array([0, 1])),
    "a score that is not a number": lambda: right_among([[math.nan, 1.0]], np.array([0]), np.array([0, 1])),
    "a class without a score": lambda: right_among(np.zeros((1, 2)), np.array([0]), np.array([0, 2])),
    "replayed images of another size": lambda: with_replay(toys.images(4), toys.images(4, size=8), toys.RECIPE, 1),
    "an unknown noise": lambda: make_noise_images("perlin", 1, 8, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_right_value_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(UserError) as caught:
        REFUSED[name]()
    assert "\n" not in str(caught.value)


def test_values_at_the_edge_of_a_bin_belong_to_it() -> None:
    """Multiples of a bin's width, at which a product of floating-point numbers may end up beyond the edge."""
    for bins in (10, 15, 25, 100):
        exact = [k / bins for k in range(1, bins + 1)]
        average = effective_robustness.binned_average(exact, exact, bins)  # [(k - 1)/bins, k/bins), and 1 in the last
        assert average.points.tolist() == [1] * (bins - 2) + [2]
        right = [1] * (bins - 1) + [0]  # ((k - 1)/bins, k/bins]: each value alone in its bin
        expected = sum(1 - value for value in exact[:-1]) + exact[-1]
        assert calibration.expected_calibration_error(exact, right, bins) == pytest.approx(expected / bins, abs=1e-12)


def test_nearly_constant_accuracies() -> None:
    inside, outside = [0.1, 0.2, 0.3, 0.5], [0.4 - 1e-15, 0.4, 0.4, 0.4]
    line = effective_robustness.fit_line(inside, outside)
    assert (line.slope, line.r_squared, line.slope_error) == (0, None, 0)
    np.testing.assert_allclose(line.predict(inside), 0.4)
    with pytest.raises(UserError, match="same ID accuracy"):
        effective_robustness.fit_line(outside, inside)
    with pytest.raises(UserError, match="none is a minority"):
        minority_classes([0.1] * 7)


def test_scores_of_a_model_of_two_classes() -> None:
    """scikit-learn gives one score an image there, whatever their number."""
    data = toys.images(2, 2, size=4)
    for name in ("ridge", "forest"):
        assert fit_pixel_model(name, data, 0)(data).argmax(1).tolist() == [0, 1]
    with pytest.raises(UserError, match="images of 1 classes"):
        fit_pixel_model("ridge", data.subset(torch.tensor([0])), 0)
