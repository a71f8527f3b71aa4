"""Every number that the papers print, as one long table a section.

The data files ``published/<section>.csv`` hold one number a row:

* ``section``: one of :data:`SECTIONS`
* ``quantity``: what it is, in words
* ``locator``: where it is printed: "P1 Table 5", "P1v1 Figure 4", "P2 Table 3"; "P1 log" are the training logs that
  P1's authors released, "Outlier Exposure log" those of their next paper, whose baselines are P1's networks with
  another input normalisation
* ``dataset``: our name of the target image set ("none": the number belongs to no set)
* ``arm``: "scratch", "pre-trained", or "none" where the number compares both or belongs to neither
* ``method``: our name of the method, the one that records carry
* ``level``: corruption strength, imbalance exponent, ...; NaN where there is none
* ``metric``: our name of the metric, the one that records carry
* ``axis``: what ``position`` counts: "epoch" (from 1: the number of epochs trained) or "class" (from 1)
* ``position``: place on a curve; NaN for a single number
* ``value``: the number in our unit: percentages as fractions, everything else as printed
* ``printed``: the number as printed (percentages in percent), or its words ("cut in half")
* ``precision``: "rounded", "truncated", "read from figure" (to about 0.02 of the plotted unit), "about",
  "bound", "exact"

Methods have the names that records have. Besides: P1's row "Pre-Training" of Table 3 is ``normal`` in the pre-trained
arm; ``full`` and ``excluded`` are WRN-40-2 with and without the class-excluded corpus; ``longer`` is P1's Figure 1;
``clean-pretraining`` and ``targeted-pretraining`` (P1 §3.1) have no numbers. Metrics of OOD detection name the set
(``auroc_svhn``), ``auroc_mean`` is the mean over the eight sets.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from robustness_lib.errors import UserError, choose

DATA = Path(__file__).parent / "published"
"""The data files."""

SECTIONS = {
    "adversarial": "Adversarial robustness",
    "label_noise": "Label noise",
    "imbalance": "Class imbalance",
    "ood": "Out-of-distribution detection",
    "calibration": "Calibration",
    "effective_robustness": "Effective robustness",
}
"""The title of each section that has a page and claims, in the papers' order."""

_NETWORKS = {"allconv": "AllConv", "allconv-64": "AllConv (64 pixels)"}

_LABELS = {
    "random": "random images",
    "scratch": "from scratch",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny ImageNet",
    "tiny_imagenet32": "Tiny ImageNet (32 px)",
    "imagenet32": "ImageNet (32 px)",
    "imagenet": "ImageNet",
    "cifar10n-clean": "CIFAR-10N, true labels",
    "cifar10n-aggre": "CIFAR-10N, aggregated",
    "cifar10n-random1": "CIFAR-10N, random 1",
    "cifar10n-random2": "CIFAR-10N, random 2",
    "cifar10n-random3": "CIFAR-10N, random 3",
    "cifar10n-worse": "CIFAR-10N, worst",
    "imagenet-r": "ImageNet-R",
    "objectnet": "ObjectNet",
    "gaussian": "Gaussian noise",
    "rademacher": "Rademacher noise",
    "svhn": "SVHN",
    "places365": "Places365",
    "lsun": "LSUN",
    "imagenet21k": "ImageNet-21K",
    "imagenet32-no-cifar10": "other ImageNet",
    "synthetic-source": "synthetic, pre-training",
    "cifar10.1-v4": "CIFAR-10.1 v4",
    "imagenetv2-threshold": "ImageNetV2 Threshold0.7",
    "imagenetv2-top-images": "ImageNetV2 TopImages",
    "fit-linear": "linear scale",
    "fit-probit": "probit scale",
    "fit-logit": "logit scale",
    "max-logit": "max logit",
    "nearest-neighbours": "nearest neighbours",
    "mahalanobis": "Mahalanobis distance",
    "temperature": "temperature scaling",
    "normal": "normal training",
    "adversarial": "adversarial training",
    "last-layer": "last layer only",
    "clean-pretraining": "pre-training without an adversary",
    "targeted-pretraining": "pre-training against a targeted adversary",
    "checks": "checks of the attack",
    "independent": "independent attacks",
    "full": "whole corpus",
    "excluded": "related classes excluded",
    "none": "no correction",
    "forward": "Forward correction",
    "glc-5": "GLC, 5 % trusted",
    "glc-10": "GLC, 10 % trusted",
    "none-excluded": "no correction, related classes excluded",
    "none-allconv": "no correction, AllConv",
    "none-places365": "no correction, pre-trained on scenes",
    "longer": "longer training",
    "cost-sensitive": "cost sensitive",
    "oversampling": "oversampling",
    "smote": "SMOTE",
    "seen": "pre-trained on all classes",
    "low-rate": "lower learning rate",
    "high-rate": "higher learning rate",
    "mse": "squared error",
    "easy": "easiest images",
    "hard": "hardest images",
    "hardening": "hard-example curriculum",
    "class-map": "pre-trained head",
    "class-map-replay": "pre-trained head, replay",
    "head-penalty": "pre-trained head, penalty",
    "wise-ft": "weight interpolation",
    "replay-10": "replay, 10 an image",
    "testbed-model": "testbed model",
    "own-testbed": "own testbed",
    "replay-100": "replay, 100 an image",
    "zero-shot": "zero-shot, max",
    "zero-shot-mean": "zero-shot, mean",
    "zero-shot-sum": "zero-shot, sum",
    "smaller-corpus": "smaller corpus",
    "corpus-25": "a quarter of the corpus",
    "corpus-50": "half of the corpus",
    "fewer-classes": "smaller corpus, fewer classes",
    "larger-network": "larger network",
}


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        label: Its name in words, without the unit.
        unit: "%" or "points" (records hold fractions of both), "nats", "s", or "" for a pure number.
        better: -1 if lower is better, +1 if higher is better, 0 if neither.
        digits: Digits after the point of a number that is no fraction.
    """

    label: str
    unit: str = "%"
    better: int = -1
    digits: int = 3

    @property
    def axis(self) -> str:
        """Label of an axis, with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def scale(self) -> float:
        """Factor from the recorded value to the shown one: 100 for fractions, else 1."""
        return 100.0 if self.is_fraction else 1.0

    @property
    def is_fraction(self) -> bool:
        """Whether records hold a fraction of one."""
        return self.unit in ("%", "points")


_METRICS = {
    "error": Metric("test error"),
    "error_area": Metric("area under the error curve"),
    "minority_error": Metric("minority test error"),
    "train_error": Metric("train error"),
    "train_error_clean": Metric("train error against the true labels"),
    "changed_labels": Metric("share of wrong labels", better=0),
    "matrix_error": Metric("error of the estimated matrix"),
    "majority_error": Metric("test error on the other classes"),
    "minority_excess": Metric("minority test error less that on the other classes, as parts of the total"),
    "class_error": Metric("class-wise test error"),
    "class_sizes": Metric("training images", "", 0),
    "balanced_accuracy": Metric("balanced accuracy", better=1),
    "smote_seconds": Metric("time to make SMOTE's images", "s", digits=1),
    "accuracy": Metric("accuracy", better=1),
    "clean_accuracy": Metric("clean accuracy", better=1),
    "adversarial_accuracy": Metric("adversarial accuracy", better=1),
    "adversarial_accuracy_loss": Metric("loss of adversarial accuracy"),
    "adversarial_accuracy_noised": Metric("adversarial accuracy, ball around the noised image", better=1),
    "adversarial_accuracy_targeted": Metric("adversarial accuracy, random wrong class aimed at", better=1),
    "adversarial_accuracy_as_trained": Metric("adversarial accuracy, gradients as precise as in training", better=1),
    "adversarial_accuracy_by_steps": Metric("adversarial accuracy", better=1),
    "adversarial_accuracy_by_epsilon": Metric("adversarial accuracy", better=1),
    "adversarial_accuracy_torchattacks": Metric("adversarial accuracy, torchattacks' PGD", better=1),
    "adversarial_accuracy_apgd_ce": Metric("adversarial accuracy, APGD on the cross-entropy", better=1),
    "adversarial_accuracy_apgd": Metric("adversarial accuracy, APGD on the cross-entropy and targeted", better=1),
    "adversarial_train_accuracy": Metric("adversarial accuracy on the training images", better=1),
    "transfer_accuracy": Metric("accuracy on another network's adversarial images", better=1),
    "zero_gradient": Metric("images without a gradient"),
    "attacked_images": Metric("attacked images", "", 0),
    "curve_steps": Metric("steps of the attack", "", 0),
    "curve_epsilon": Metric("radius of the attack in 255ths", "", 0),
    "rms_calibration_error": Metric("RMS calibration error"),
    "mad_calibration_error": Metric("MAD calibration error"),
    "expected_calibration_error": Metric("expected calibration error"),
    "negative_log_likelihood": Metric("negative log-likelihood", "nats"),
    "brier_score": Metric("Brier score", ""),
    "temperature": Metric("temperature", "", 0),
    "loss": Metric("test loss", "nats"),
    "train_loss": Metric("train loss", "nats"),
    "seconds_per_epoch": Metric("time an epoch", "s"),
    "slope": Metric("slope", "", 0, digits=4),
    "intercept": Metric("intercept", "", 0, digits=4),
    "r_squared": Metric("R²", "", 1),
    "model_count": Metric("models", "", 0, digits=0),
    "hard_share": Metric("share of images that no model gets right", better=0),
    "source_accuracy": Metric("accuracy on the pre-training task", better=1),
    "source_accuracy_before": Metric("accuracy on the pre-training task before fine-tuning", better=1),
    "maximum_effective_robustness": Metric("maximum effective robustness", "points", 1),
    "final_effective_robustness": Metric("effective robustness at the end", "points", 1),
    "lost_effective_robustness": Metric("effective robustness lost by the end", "points", 0),
    "auroc": Metric("AUROC", better=1),
    "adversarial_ratio": Metric("adversarial ÷ clean accuracy", "", 1),
    "high_share": Metric("share of models with more than 1 point of effective robustness", better=0),
    "mixed_gain": Metric("effective robustness beyond both models", "points", 0),
    "gap_share_early": Metric("share of the accuracy gap closed, first half", better=1),
    "gap_share_late": Metric("share of the accuracy gap closed, second half", better=1),
    "dominance_excess_at_maximum": Metric("dominance probability beyond ordinary pairs, at the maximum", "points", 0),
    "dominance_excess_at_end": Metric("dominance probability beyond ordinary pairs, at the end", "points", 0),
    "corpus_images": Metric("images of the corpus", "", 0),
    "corpus_classes": Metric("classes of the corpus", "", 0),
    "corpus_related_classes": Metric("classes of the corpus that are related to CIFAR-10", "", 0),
    "hard_share_correct": Metric("share right of the images that all others get wrong", better=1),
}
_PREFIXES = {"auroc_": ("AUROC", 1), "aupr_": ("AUPR", 1), "fpr95_": ("FPR95", -1)}
_CLASS = re.compile(r"class_error_(\d+)")
_EFFORT = re.compile(r"adversarial_accuracy_(\d+)_(steps|restarts)")
_COUNTS = {
    "images_": "images",
    "classes_": "classes",
    "shared_classes_": "classes whose name the corpus has",
    "kindred_classes_": "classes of which the corpus has the last word",
    "shared_images_": "images nearly equal to one of the corpus",
}
_SUFFIXES = {
    "_tempered": "temperature scaling",
    "_dropped_bin": "last bin dropped",
    "_excluded": "ImageNet images of excluded classes",
    "_included": "ImageNet images of pre-training classes",
    "_corrupted": "common corruptions",
    "_shifted": "synthetic shift",
    "_cifar10.1": "CIFAR-10.1",
}


def metric(name: str) -> Metric:
    """How the metric ``name`` is shown; a UserError where no metric has this name.

    OOD metrics are named ``auroc_<set>`` and so on, after ``spread_`` their standard deviation over draws; accuracies
    under longer attacks ``adversarial_accuracy_<number>_steps`` and ``…_restarts``; an epoch's values ``history_…``.
    Suffixes such as ``_tempered``, and names of shifts, are understood after any name.
    """
    for suffix, words in _SUFFIXES.items():
        if name.endswith(suffix):
            base = metric(name.removesuffix(suffix))
            return replace(base, label=f"{base.label}, {words}")
    if match := _EFFORT.fullmatch(name):
        return Metric(f"adversarial accuracy, {match[1]} {match[2]}", "%", 1)
    if name.startswith("spread_"):
        base = metric(name.removeprefix("spread_"))
        return replace(base, label=f"{base.label}, standard deviation over draws", better=0)
    if match := _CLASS.fullmatch(name):
        return Metric(f"test error of class {match[1]}")
    if name.startswith("history_"):
        return metric(name.removeprefix("history_"))
    for prefix, words in _COUNTS.items():
        if name.startswith(prefix):
            return Metric(f"{words}, {label(name.removeprefix(prefix))}", "", 0)
    for prefix, (words, better) in _PREFIXES.items():
        if name.startswith(prefix):
            return Metric(f"{words}, {label(name.removeprefix(prefix))}", "%", better)
    return _METRICS[choose(name, _METRICS, "metric")]


def label(name: str) -> str:
    """A data set, arm, method or OOD set in words, as the papers print it; an unknown name as it is."""
    return _LABELS.get(name, name)


def network_label(architecture: str) -> str:
    """A network as it is usually written: "WRN-40-2", "ResNet-18", "AllConv"."""
    return _NETWORKS.get(architecture) or re.sub(r"^resnet(?=\d)", "ResNet-", re.sub("^wrn-", "WRN-", architecture))


@functools.cache
def _table(section: str) -> pd.DataFrame:
    path = DATA / f"{section}.csv"
    rows = None if path.exists() else 0  # of a section of which no paper has numbers
    text = {"printed": str, "axis": str, "dataset": str, "arm": str, "method": str}
    blank = {"level": "", "position": ""}
    path = path if rows is None else DATA / "calibration.csv"
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blank, nrows=rows)


def known(section: str) -> str:
    """The section's name, where it has pages and claims; else a UserError."""
    try:
        return choose(section, SECTIONS, "section")
    except UserError as error:
        raise UserError(f"{error}; a new one is added to SECTIONS in robustness_lib/paper/numbers.py") from None


def published(section: str) -> pd.DataFrame:
    """All published numbers of one section: a copy, with the columns listed above, tables first."""
    return _table(known(section)).copy()


def select(
    section: str,
    *,
    dataset: str | None = None,
    arm: str | None = None,
    method: str | None = None,
    metric: str | None = None,
    level: float | None = None,
    locator: str | None = None,
    curve: bool = False,
) -> pd.DataFrame:
    """The published numbers that match: rows of :func:`published`, in its order; None is no condition.

    Where any of them is printed at ``locator``, only those are returned. ``curve`` asks for points of curves (with a
    position) instead of single numbers.
    """
    table = _table(known(section))
    on_curve = table["metric"].str.startswith("history_") | (table["metric"] == "class_error")
    keep = (on_curve == curve).to_numpy()
    for column, wanted in (("dataset", dataset), ("arm", arm), ("method", method), ("metric", metric)):
        if wanted is not None:
            keep = keep & (table[column] == wanted).to_numpy()
    if level is not None:
        keep = keep & np.isclose(table["level"], level)
    rows = table[keep]
    if locator is not None and (rows["locator"] == locator).any():
        rows = rows[rows["locator"] == locator]
    return rows


def tolerance(row: pd.Series) -> tuple[float, float]:
    """How far below and above the printed value of a row the true one may lie, in the unit of ``value``.

    A number in words is meant to the nearest tenth, a bound exactly. Else half of the last printed digit to either side
    if rounded, one whole unit of it upwards if truncated, and the reading precision of 0.02 plotted units (or half of
    the last digit, if that is more) for a figure.
    """
    printed = str(row["printed"])
    if not printed.lstrip("-")[:1].isdigit():  # in words, such as "cut in half"
        return (0.0, 0.0) if row["precision"] == "bound" else (0.05, 0.05)
    digit = 10.0 ** -len(printed.partition(".")[2])
    number = float(printed)
    unit = float(row["value"]) / number if number else 0.01
    if row["precision"] == "truncated":
        return 0.0, digit * unit
    half = digit / 2 if row["precision"] != "read from figure" else max(0.02, digit / 2)
    return half * unit, half * unit
