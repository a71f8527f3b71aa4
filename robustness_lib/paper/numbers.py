"""Every number that the papers print, as one long table a section.

The data files ``published/<section>.csv`` hold one number per row:

* ``section``, and ``quantity``: what it is, in words
* ``locator``: where it is printed: "P1 Table 5", "P1v1 Figure 4", "P2 Table 3"; "P1 log" are the training logs that
  P1's authors released, "Outlier Exposure log" those of their next paper, whose baselines are P1's networks with
  another input normalisation
* ``dataset``: our name of the target image set ("none": the number belongs to no set)
* ``arm``: "scratch", "pre-trained", or "none" where the number compares both or belongs to neither
* ``method``, ``metric``: named as in records
* ``level``: corruption strength, imbalance exponent, ...; NaN where there is none
* ``axis``, ``position``: the place on a curve, an "epoch" or "class" from 1; NaN for a single number
* ``value``: percentages as fractions, everything else as printed
* ``printed``: the number as printed (percentages in percent), or its words ("cut in half")
* ``precision``: "rounded", "truncated", "read from figure" (to about 0.02 of the plotted unit), "about",
  "bound", "exact"

P1's row "Pre-Training" of Table 3 is ``normal`` in the pre-trained arm; ``full`` and ``excluded`` are WRN-40-2 with and
without the class-excluded corpus; ``longer`` is P1's Figure 1. Metrics of OOD detection name the set (``auroc_svhn``),
``auroc_mean`` is the mean over the eight sets.
"""

import csv
import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustness_lib.errors import choose

DATA = Path(__file__).parent / "published"

SECTIONS = {
    "adversarial": "Adversarial robustness",
    "label_noise": "Label noise",
    "imbalance": "Class imbalance",
    "ood": "Out-of-distribution detection",
    "calibration": "Calibration",
    "effective_robustness": "Effective robustness",
}
"""The title of each section that has a page and claims, in the papers' order."""


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    label: str  # its name in words, without the unit
    unit: str = "%"  # or "points" (records hold fractions of both), "nats", "s", or "" for a pure number
    better: int = -1  # if lower is better, +1 if higher is better, 0 if neither
    digits: int = 3  # after the point of a number that is no fraction

    @property
    def axis(self) -> str:
        """Label of an axis, with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def scale(self) -> float:
        """Factor from the recorded value to the shown one, 100 for fractions, else 1."""
        return 100.0 if self.is_fraction else 1.0

    @property
    def is_fraction(self) -> bool:
        """Whether records hold a fraction of one."""
        return self.unit in ("%", "points")


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of one of the data files, by column."""
    with (DATA / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, restval=""))


_LABELS = {row["name"]: row["label"] for row in rows_of("labels.csv")}
_METRICS = {
    row["name"]: Metric(row["label"], row["unit"], int(row["better"]), int(row["digits"]))
    for row in rows_of("metrics.csv")
}
_AFFIXES = {
    "_tempered": ", temperature scaling",
    "_dropped_bin": ", last bin dropped",
    "_excluded": ", ImageNet images of excluded classes",
    "_included": ", ImageNet images of pre-training classes",
    "_corrupted": ", common corruptions",
    "_shifted": ", synthetic shift",
    "_cifar10.1": ", CIFAR-10.1",
    "spread_": ", standard deviation over draws",
    "history_": "",
}  # what may stand before or after the name of any metric, and the words that its label ends in then


def metric(name: str) -> Metric:
    """How the metric ``name`` is shown; a UserError where no metric has this name.

    Besides those of ``metrics.csv``, where a star stands for an image set, a class or a number, it may be the standard
    deviation over draws of one (``spread_…``), its values by epoch (``history_…``), or one after temperature scaling or
    on shifted images (``…_tempered``, ``…_corrupted``).
    """
    if name in _METRICS:
        return _METRICS[name]
    for affix, words in _AFFIXES.items():
        rest = name.removeprefix(affix) if affix.endswith("_") else name.removesuffix(affix)
        if rest != name:
            base = metric(rest)
            return replace(base, label=base.label + words, better=0 if affix == "spread_" else base.better)
    for pattern, family in _METRICS.items():
        if "*" in pattern and (match := re.fullmatch(pattern.replace("*", "(.+)"), name)):
            return replace(family, label=family.label.replace("*", label(match[1])))
    return _METRICS[choose(name, _METRICS, "metric")]


def label(name: str) -> str:
    """A data set, arm, method or OOD set in words, as the papers print it; an unknown name as it is."""
    return _LABELS.get(name, name)


def network_label(architecture: str) -> str:
    """A network as it is usually written: "WRN-40-2", "ResNet-18", "AllConv", "AllConv-24"."""
    usual = {"^wrn-": "WRN-", "^allconv": "AllConv", r"^resnet(?=\d)": "ResNet-"}
    return functools.reduce(lambda name, pattern: re.sub(pattern, usual[pattern], name), usual, architecture)


@functools.cache
def _table(section: str) -> pd.DataFrame:
    path = DATA / f"{section}.csv"
    path = path if path.exists() else DATA / "calibration.csv"  # of which no row is about a section without numbers
    text = dict.fromkeys(("section", "printed", "axis", "dataset", "arm", "method", "metric", "locator"), object)
    rows = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"level": "", "position": ""})
    return rows[rows["section"] == section]


@functools.cache
def _is_curve(section: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return _table(section)["metric"].str.match("history_|class_error$").to_numpy()


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
    """The published numbers of a section that match, with the columns listed above, tables first; None: no condition.

    Where any of them is printed at ``locator``, only those are returned. ``curve`` asks for points of curves (with a
    position) instead of single numbers.
    """
    table = _table(choose(section, SECTIONS, "section"))
    keep = _is_curve(section) == curve
    for column, wanted in (("dataset", dataset), ("arm", arm), ("method", method), ("metric", metric)):
        if wanted is not None:
            keep = keep & (table[column].to_numpy() == wanted)
    if level is not None:
        keep = keep & np.isclose(table["level"], level)
    there = keep & (table["locator"].to_numpy() == locator)
    rows: pd.DataFrame = table[there if there.any() else keep]
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
