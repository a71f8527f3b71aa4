"""Figures and tables of effective robustness during our own trainings (P2 Figures 1-5 and 7-23, as far as they go).

Points of all seeds are averaged in bins of the accuracy on the original images, as P2 does (B.5). Where the accuracy is
one that the testbed does not reach, its line is extended; such parts of a panel are shaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustness_lib.accuracy_lines import (
    SCALINGS,
    Line,
    MaximumEffectiveRobustness,
    binned_average,
    equal_accuracy_curve,
    maximum_effective_robustness,
)
from robustness_lib.paper import label, metric, per_seed, profile_of, runs
from robustness_lib.report.lines import Models, accuracy_scatter
from robustness_lib.report.style import EQUAL, OKABE_ITO, ArmStyle, arm_style, legend_outside, new_figure, series_style
from robustness_lib.report.tables import NOT_RUN, Markdown, myst_table, number

Floats = npt.NDArray[np.float64]

SECTION = "effective_robustness"
WHOLE_TESTBED = "own-testbed"

SHIFTS = {
    "excluded": "ImageNet images of classes left out of pre-training",
    "included": "ImageNet images of classes kept in pre-training",
    "corrupted": "common corruptions",
    "shifted": "synthetic images under other conditions",
    "cifar10.1": "CIFAR-10.1",
}
"""Shifts in words."""

_OUTSIDE: dict[str, Any] = {"color": "#EEEEEE", "zorder": 0, "lw": 0}


@dataclass(frozen=True)
class Series:
    """Trainings that are drawn alike.

    Attributes:
        text: What they are, for the legend.
        arm: ``"scratch"`` or ``"pre-trained"``.
        method: Their method.
        style: Colour, marker and line.
        level: Their level, or None.
    """

    text: str
    arm: str
    method: str
    style: ArmStyle
    level: float | None = None


STANDARD = (
    Series("from scratch", "scratch", "standard", arm_style("scratch")),
    Series("pre-trained, related classes excluded", "pre-trained", "standard", arm_style("pre-trained")),
    Series("pre-trained on all classes", "pre-trained", "seen", series_style(2)),
)
"""The arms, and the contrast of a network that was pre-trained on the classes too."""


_FACTORS = (*(series_style(place) for place in range(4)), ArmStyle(color=OKABE_ITO["black"], marker="X", linestyle="-"))
"""Styles beside the arms': none of their colours."""


def factor_series(methods: Sequence[str], levels: Sequence[float | None] = (None,)) -> list[Series]:
    """The pre-trained arm of methods, each (and each level) in a style of its own; ``standard`` as the arm is drawn.

    There are five styles beside the arm's own, which repeat.
    """
    found: list[Series] = []
    for method in methods:
        for level in levels if method != "standard" else (None,):
            style = arm_style("pre-trained") if method == "standard" else _FACTORS[len(found) % len(_FACTORS)].copy()
            text = label(method) if level is None else f"{label(method)}, {level:g}"
            found.append(Series(text, "pre-trained", method, style, level))
    return found


@dataclass(frozen=True, eq=False)
class Points:
    """All observations of some trainings, of all seeds.

    Attributes:
        accuracy: [P], on the original images of the shift's classes, fractions.
        robustness: [P], effective robustness.
        bins: How many bins the accuracies are averaged in.
        seeds: How many trainings.
        line: The baseline.
        lowest: The testbed's lowest accuracy.
        highest: Its highest.
    """

    accuracy: Floats
    robustness: Floats
    bins: int
    seeds: int
    line: Line
    lowest: float
    highest: float


def points_of(
    records: pd.DataFrame, series: Series, shift: str, *, dataset: str, profile: str | None = None
) -> Points | None:
    """The observations of a series, or None where it was not measured.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        series: Which trainings.
        shift: Which shift.
        dataset: The target.
        profile: The records' profile; None: the highest with records, "paper" or "cpu".
    """
    rows = rows_of(records, series.arm, series.method, series.level, dataset, profile)
    names = [f"history_{what}_{shift}" for what in ("accuracy", "effective_robustness")]
    if not len(rows) or any(name not in rows for name in names):
        return None
    rows = rows[[isinstance(cell, Sequence) for cell in rows[names[0]]]]
    if not len(rows):
        return None
    first = rows.iloc[0]
    accuracy, robustness = (np.concatenate([np.asarray(cell, dtype=float) for cell in rows[name]]) for name in names)
    return Points(
        accuracy,
        robustness,
        int(first["recipe"].get("bins", 100)),
        len(rows),
        Line(float(first[f"slope_{shift}"]), float(first[f"intercept_{shift}"])),
        float(first[f"lowest_{shift}"]),
        float(first[f"highest_{shift}"]),
    )


def pooled_maximum(points: Points) -> MaximumEffectiveRobustness:
    """The paper's maximum: the largest mean of a bin, over the observations of all seeds (P2 B.5).

    Only accuracies count that the testbed reaches from below, unless there are no others.
    """
    counted = points.accuracy >= points.lowest
    counted = counted if counted.any() else np.ones_like(counted)
    return maximum_effective_robustness(points.accuracy[counted], points.robustness[counted], points.bins)


def rows_of(
    records: pd.DataFrame, arm: str, method: str, level: float | None, dataset: str, profile: str | None
) -> pd.DataFrame:
    """Records of one series of networks: arm, method, level (None: those without one) and data set.

    ``profile`` None takes the highest with records.
    """
    profile = profile or profile_of(records, SECTION, dataset)
    rows = runs(records, section=SECTION, profile=profile or "", dataset=dataset, arm=arm, method=method)
    levels = rows["level"].astype(float)
    return rows[levels.isna() if level is None else np.isclose(levels, level)]


# --------------------------------------------------------------------------------------------- figures


def own_testbed_scatter(
    records: pd.DataFrame, shifts: Sequence[str], *, dataset: str, profile: str | None = None, scaling: str = "logit"
) -> Figure:
    """Accuracy on shifted images against that on original ones for our own testbed, with its line (P2 Figure 1).

    Args:
        records: Records.
        shifts: Shifts, a panel each.
        dataset: The target.
        profile: The records' profile; None: the highest with records.
        scaling: The scale of axes and line.

    Returns:
        The figure: each model with the 95 % intervals of Clopper and Pearson.
    """
    figure, panels = new_figure(rows=len(shifts), height=2.9)
    rows = rows_of(records, "scratch", WHOLE_TESTBED, None, dataset, profile)
    for panel, shift in zip(panels, shifts, strict=True):
        models, lines = [], {}
        if len(rows) and f"accuracy_{shift}" in rows:
            row = rows.iloc[0]
            inside, outside = (np.asarray(row[f"{name}_{shift}"], dtype=float) for name in _ACCURACIES)
            counts = int(row[f"images_{shift}"]), int(row[f"shifted_images_{shift}"])
            models = [Models("models of our testbed", inside, outside, *counts)]
            slope, intercept = (float(row[f"{name}_{shift}_{scaling}"]) for name in ("slope", "intercept"))
            chosen = SCALINGS[SCALINGS.index(scaling)]
            lines = {"line through them": Line(slope, intercept, chosen)}
        accuracy_scatter(models, lines, scaling=scaling, axes=panel, y_label="shifted images (%)")
        panel.set_title(SHIFTS[shift], loc="left", fontsize=11)
        panel.set_xlabel("accuracy on original images of these classes (%)" if panel is panels[-1] else "")
    legend_outside(figure)
    return figure


_ACCURACIES = ("accuracy", "shifted_accuracy")


def robustness_during_tuning(
    records: pd.DataFrame,
    shifts: Sequence[str],
    series: Sequence[Series] = STANDARD,
    *,
    dataset: str,
    profile: str | None = None,
) -> Figure:
    """Effective robustness against accuracy, observation by observation (P2 Figures 2, 3, 10-13, 19, 22, 23).

    Args:
        records: Records.
        shifts: Shifts, a panel each, one above another.
        series: What is drawn.
        dataset: The target.
        profile: The records' profile; None: the highest with records.

    Returns:
        The figure: every observation as a small point, the mean of each bin as a line, with a band of one standard
        deviation; dotted, a network that loses nothing under the shift.
    """
    figure, panels = new_figure(rows=len(shifts), height=2.7)
    for panel, shift in zip(panels, shifts, strict=True):
        measured = []
        for one in series:
            points = points_of(records, one, shift, dataset=dataset, profile=profile)
            if points is not None:
                _draw_points(panel, one, points)
                measured.append(points)
        if measured:
            _frame(panel, measured)
        else:
            panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center")
        panel.axhline(0, color="#555555", lw=0.8)
        if len(shifts) > 1:
            panel.set_title(SHIFTS[shift], loc="left", fontsize=11)
        panel.set_ylabel("effective\nrobustness (points)")
    panels[-1].set_xlabel("accuracy on original images of these classes (%)")
    legend_outside(figure, columns=2)
    return figure


def _draw_points(panel: Axes, series: Series, points: Points) -> None:
    color, marker = series.style["color"], series.style["marker"]
    panel.plot(points.accuracy * 100, points.robustness * 100, ls="none", marker=marker, ms=2.5, color=color, alpha=0.4)
    average = binned_average(points.accuracy, points.robustness, points.bins)
    x, mean, spread = (values * 100 for values in (average.id_accuracy, average.mean, average.spread))
    panel.plot(x, mean, color=color, ls=series.style["linestyle"], marker=marker, ms=4.5, lw=1.6, label=series.text)
    panel.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.18, lw=0)


def _frame(panel: Axes, measured: Sequence[Points]) -> None:
    """Limits around the points, the curve y = x, and shade where the line is extended."""
    lowest, highest, line = measured[0].lowest, measured[0].highest, measured[0].line
    accuracy = np.concatenate([points.accuracy for points in measured])
    robustness = np.concatenate([points.robustness for points in measured]) * 100
    left, right = 100 * min(accuracy.min(), lowest) - 2, 100 * max(accuracy.max(), highest) + 2
    margin = 0.1 * float(np.ptp(robustness)) or 1.0
    limits = (float(robustness.min()) - margin, float(robustness.max()) + margin)
    grid = np.linspace(max(left, 1) / 100, min(right, 99) / 100, 200)
    panel.plot(grid * 100, equal_accuracy_curve(grid, line) * 100, label="no loss under the shift", **EQUAL)
    panel.axvspan(left, 100 * lowest, **_OUTSIDE)
    panel.axvspan(100 * highest, right, **_OUTSIDE)
    panel.set(xlim=(left, right), ylim=limits)


def maximum_bars(
    records: pd.DataFrame,
    series: Sequence[Series],
    shift: str,
    *,
    dataset: str,
    profile: str | None = None,
) -> Figure:
    """Maximum effective robustness over the trainings of all seeds (P2 Figures 4 and 7).

    Args:
        records: Records.
        series: A bar each, but for those that were not measured.
        shift: Which shift.
        dataset: The target.
        profile: The records' profile; None: the highest with records.

    Returns:
        The figure: the largest mean of a bin, with the largest standard deviation of all bins as the error bar (P2's
        cautious choice), and each seed's own maximum as a point.
    """
    found = {
        place: points
        for place, one in enumerate(series)
        if (points := points_of(records, one, shift, dataset=dataset, profile=profile)) is not None
    }
    figure, (panel,) = new_figure(height=max(2.4, 0.36 * len(found) + 1.0))
    if not found:
        panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center")
    for place, (number_of_series, points) in enumerate(found.items()):
        one = series[number_of_series]
        best, color = pooled_maximum(points), one.style["color"]
        panel.barh(place, best.value * 100, height=0.62, color=color, alpha=0.45, edgecolor=color)
        panel.errorbar(best.value * 100, place, xerr=best.largest_spread * 100, color="#333333", capsize=5, lw=1.3)
        scale = profile or profile_of(records, SECTION, dataset) or ""
        name = f"maximum_effective_robustness_{shift}"
        setting: dict[str, Any] = {
            "section": SECTION,
            "profile": scale,
            "dataset": dataset,
            "arm": one.arm,
            "method": one.method,
        }
        own = per_seed(records, **setting, metric=name, level=one.level).to_numpy(dtype=float) * 100
        panel.plot(own, [place] * len(own), ls="none", marker=one.style["marker"], ms=6, color=color, mec="#222222",
                   mew=0.8, zorder=4)  # fmt: skip
    panel.set_yticks(range(len(found)), [series[which].text for which in found])
    panel.set_ylim(max(len(found), 1) - 0.4, -0.6)
    panel.axvline(0, color="#555555", lw=0.8)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("maximum effective\nrobustness (points)")
    return figure


def weight_space_path(
    records: pd.DataFrame, shifts: Sequence[str], *, dataset: str, profile: str | None = None
) -> Figure:
    """Effective robustness of networks between the pre-trained and the fine-tuned one, and during fine-tuning.

    Args:
        records: Records of ``wise-ft`` and ``class-map``.
        shifts: Shifts, a panel each.
        dataset: The target.
        profile: The records' profile; None: the highest with records.

    Returns:
        The figure: the path through weight space with its share of the fine-tuned network at every other point, the
        mean over seeds.
    """
    figure, panels = new_figure(rows=len(shifts), height=2.9)
    for panel, shift in zip(panels, shifts, strict=True):
        rows = rows_of(records, "pre-trained", "wise-ft", None, dataset, profile)
        name = f"history_accuracy_{shift}"
        rows = rows[[isinstance(cell, Sequence) for cell in rows[name]]] if name in rows else rows.iloc[:0]
        if not len(rows):
            panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center")
        else:
            style = series_style(1)
            x, y = (
                100 * np.mean([np.asarray(cell, dtype=float) for cell in rows[f"history_{what}_{shift}"]], axis=0)
                for what in ("accuracy", "effective_robustness")
            )
            panel.plot(x, y, color=style["color"], marker=style["marker"], ms=5, label="between both networks")
            places = list(zip(rows.iloc[0]["history_epoch"], x, y, strict=True))
            for share, across, up in places[::2]:
                offset = (0, -14) if (share, across, up) == places[-1] else (0, 8)
                panel.annotate(f"{share:g}", (across, up), offset, textcoords="offset points", fontsize=9, ha="center")
            panel.margins(y=0.2)
        during = Series("during fine-tuning", "pre-trained", "class-map", arm_style("pre-trained"))
        points = points_of(records, during, shift, dataset=dataset, profile=profile)
        if points is not None:
            panel.plot(
                points.accuracy * 100, points.robustness * 100, ls="none", label=during.text,
                marker=during.style["marker"], ms=3.5, color=during.style["color"], alpha=0.6,
            )  # fmt: skip
        panel.axhline(0, color="#555555", lw=0.8)
        panel.set_ylabel("effective\nrobustness (points)")
        if len(shifts) > 1:
            panel.set_title(SHIFTS[shift], loc="left", fontsize=11)
    panels[-1].set_xlabel("accuracy on original images (%)")
    legend_outside(figure)
    return figure


def own_dominance_scatter(
    records: pd.DataFrame, series: Sequence[Series], *, dataset: str, profile: str | None = None
) -> Figure:
    """Dominance probability against the difference of accuracies: pairs of our testbed, and networks (P2 Figure 5).

    Args:
        records: Records.
        series: Networks, at their maximum effective robustness (left) and at the end (right).
        dataset: The target.
        profile: The records' profile; None: the highest with records.
    """
    figure, panels = new_figure(columns=2, height=3.6)
    rows = rows_of(records, "scratch", WHOLE_TESTBED, None, dataset, profile)
    for panel, (when, title) in zip(panels, _WHEN.items(), strict=True):
        panel.set_title(title, loc="left", fontsize=11)
        panel.set_xlabel("difference of\naccuracies (points)")
        if not len(rows):
            panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center")
            continue
        models = np.asarray(rows.iloc[0]["model_accuracy"], dtype=float)
        low, high = np.triu_indices(len(models), 1)
        pairs = np.asarray(rows.iloc[0]["dominance"], dtype=float)
        panel.plot(np.abs(models[high] - models[low]) * 100, pairs * 100, ls="none", marker=".", ms=3, color="#999999",
                   label="pairs of the testbed")  # fmt: skip
        for one in series:
            x, y = against_testbed(rows_of(records, one.arm, one.method, one.level, dataset, profile), models, when)
            if len(x):
                panel.plot(x * 100, y * 100, ls="none", marker=one.style["marker"], ms=3.5, color=one.style["color"],
                           alpha=0.7, label=one.text)  # fmt: skip
    panels[0].set_ylabel("dominance probability (%)")
    legend_outside(figure, columns=2)
    return figure


_WHEN = {"dominance_at_maximum": "at maximum robustness", "dominance_at_end": "at the end"}


def against_testbed(rows: pd.DataFrame, models: Floats, when: str) -> tuple[Floats, Floats]:
    """Absolute differences of accuracy, fractions, and dominance probabilities of networks with each model, all seeds.

    Args:
        rows: Records of the networks.
        models: The models' accuracies, fractions.
        when: ``"dominance_at_maximum"`` or ``"dominance_at_end"``.
    """
    x, y = [], []
    for row in rows.to_dict("records"):
        if not isinstance(row.get(when), Sequence):
            continue
        own = np.asarray(row["history_accuracy"], dtype=float)
        shift = str(row["recipe"]["shifts"]).split(",")[0]
        at = int(row[f"maximum_at_{shift}"]) if when == "dominance_at_maximum" else -1
        x.append(np.abs(models - own[at]))
        y.append(np.asarray(row[when], dtype=float))
    return (np.concatenate(x), np.concatenate(y)) if x else (np.array([]), np.array([]))


def own_hard_shares(
    records: pd.DataFrame, series: Sequence[Series], *, dataset: str, profile: str | None = None
) -> Figure:
    """Share of the images that all (other) testbed models get wrong, against accuracy (P2 §5.4).

    Args:
        records: Records.
        series: Networks, at their maximum effective robustness (filled) and at the end (open).
        dataset: The target.
        profile: The records' profile; None: the highest with records.
    """
    figure, (panel,) = new_figure(height=3.4)
    rows = rows_of(records, "scratch", WHOLE_TESTBED, None, dataset, profile)
    if len(rows) and "model_hard_share_correct" in rows:
        row = rows.iloc[0]
        panel.plot(np.asarray(row["model_accuracy"], dtype=float) * 100,
                   np.asarray(row["model_hard_share_correct"], dtype=float) * 100, ls="none", marker="o", ms=4,
                   color="#999999", label="models of the testbed")  # fmt: skip
    else:
        panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center")
    for one in series:
        for name, filled in _HARD:
            places = [
                (accuracy_at(found, name) * 100, float(found[name]) * 100)
                for found in rows_of(records, one.arm, one.method, one.level, dataset, profile).to_dict("records")
                if isinstance(found.get(name), float) and math.isfinite(found[name])
            ]
            if places:
                color = one.style["color"]
                panel.plot(*np.transpose(places), ls="none", marker=one.style["marker"], ms=6, color=color,
                           mfc=color if filled else "white", label=one.text if filled else None)  # fmt: skip
    panel.set(
        xlabel="accuracy on original images (%)", ylabel="share right of the images that\nall others get wrong (%)"
    )
    legend_outside(figure, columns=2)
    return figure


_HARD = (("hard_share_correct", True), ("final_hard_share_correct", False))


def accuracy_at(row: Mapping[Any, Any], name: str) -> float:
    """The accuracy (fraction) at which a record's ``hard_share_correct`` or ``final_hard_share_correct`` was taken."""
    shift = str(row["recipe"]["shifts"]).split(",")[0]
    at = int(row[f"maximum_at_{shift}"]) if name == "hard_share_correct" else -1
    return float(row["history_accuracy"][at])


# --------------------------------------------------------------------------------------------- tables


def own_lines_table(
    records: pd.DataFrame, shifts: Sequence[str], *, dataset: str, caption: str, name: str, profile: str | None = None
) -> Markdown:
    """Lines through our own testbed, a shift a row.

    Args:
        records: Records.
        shifts: Shifts.
        dataset: The target.
        caption: Caption, Markdown.
        name: Label for references.
        profile: The records' profile; None: the highest with records.
    """
    rows = rows_of(records, "scratch", WHOLE_TESTBED, None, dataset, profile)
    cells = []
    for shift in shifts:
        if not len(rows) or f"accuracy_{shift}" not in rows:
            cells.append([SHIFTS[shift], NOT_RUN, *["–"] * 7])
            continue
        row = rows.iloc[0]
        inside, outside = (np.asarray(row[f"{what}_{shift}"], dtype=float) * 100 for what in _ACCURACIES)
        spans = [f"{values.min():.0f} to {values.max():.0f}" for values in (inside, outside)]
        numbers = [number(float(row[f"{what}_{shift}_logit"]), what) for what in ("slope", "intercept")]
        shares = [number(float(row[f"r_squared_{shift}_{scaling}"]), "r_squared") for scaling in SCALINGS]
        cells.append([SHIFTS[shift], str(len(inside)), *spans, *numbers, *shares])
    header = ["Shifted images", "n", "Original (%)", "Shifted (%)", "Slope", "Intercept"]
    header += [f"R² {scaling}" for scaling in SCALINGS]
    return myst_table(header, cells, caption=caption, name=name)


def factors_table(
    records: pd.DataFrame,
    series: Sequence[Series],
    *,
    dataset: str,
    caption: str,
    name: str,
    metrics: Sequence[str] = ("maximum_effective_robustness", "final_effective_robustness", "accuracy"),
    shifts: Sequence[str] = ("",),
    profile: str | None = None,
) -> Markdown:
    """What each factor comes to: mean and standard deviation over seeds, a factor a row; what was not run is one line.

    Beside the mean of the seeds' maxima, which claims are judged by, stands the maximum of the pooled curve, which is
    the paper's and the one that :func:`maximum_bars` draws.

    Args:
        records: Records.
        series: The factors.
        dataset: The target.
        caption: Caption, Markdown.
        name: Label for references.
        metrics: Columns.
        shifts: Shifts whose metrics are shown, all factors for each; "" for the metrics' own names.
        profile: The records' profile; None: the highest with records.
    """
    scale = profile or profile_of(records, SECTION, dataset) or ""
    header = [*(["Shifted images"] if shifts[0] else []), "Training", "Seeds"]
    for each in metrics:
        header += ["Maximum of the pooled curve, as the paper's (points)"] if each == _MAXIMUM else []
        header.append(_COLUMNS.get(each, f"{metric(each).label} ({metric(each).unit})"))
    cells, missing = [], []
    for shift, one in product(shifts, series):
        setting: dict[str, Any] = {"section": SECTION, "profile": scale, "dataset": dataset}
        setting |= {"arm": one.arm, "method": one.method, "level": one.level}
        names = [f"{each}_{shift}" if shift else each for each in metrics]
        values = [per_seed(records, **setting, metric=each).to_numpy(dtype=float) for each in names]
        seeds = max(len(found) for found in values)
        if not seeds:
            missing.append(one.text + (f" on {SHIFTS[shift]}" if shift else ""))
            continue
        row = [*([SHIFTS[shift]] if shift else []), one.text, str(seeds)]
        for found, each in zip(values, metrics, strict=True):
            row += [_pooled(records, one, shift, dataset, scale)] if each == _MAXIMUM else []
            row.append(_mean_and_spread(found, each))
        cells.append(row)
    table = myst_table(header, cells or [[NOT_RUN, *["–"] * (len(header) - 1)]], caption=caption, name=name)
    return Markdown(f"{table}\nNot run: {'; '.join(missing)}.\n") if missing else table


_MAXIMUM = "maximum_effective_robustness"
_COLUMNS = {
    _MAXIMUM: "Mean of the seeds' maxima (points)",
    "final_effective_robustness": "At the end (points)",
    "accuracy": "Accuracy at the end (%)",
    "source_accuracy": "The same after fine-tuning (%)",
    "source_accuracy_before": "Accuracy on the pre-training task, before fine-tuning (%)",
}


def _pooled(records: pd.DataFrame, one: Series, shift: str, dataset: str, profile: str) -> str:
    """The maximum of the pooled curve, with the number of observations in its bin where that is small."""
    rows = rows_of(records, one.arm, one.method, one.level, dataset, profile)
    named = [str(recipe.get("shifts", "")).split(",")[0] for recipe in rows["recipe"]]
    points = points_of(records, one, shift or named[0], dataset=dataset, profile=profile) if named else None
    if points is None:
        return "–"
    best = pooled_maximum(points)
    few = f" (of {best.points} observation{'s' * (best.points > 1)})" if best.points < 3 else ""
    return number(best.value, _MAXIMUM) + few


def _mean_and_spread(values: Floats, name: str) -> str:
    if not len(values):
        return "–"
    spread = f" ± {number(float(values.std(ddof=1)), name)}" if len(values) > 1 else ""
    return number(float(values.mean()), name) + spread
