"""Figures that show the paper's values with ours: bars and curves.

Ours are means over seeds with their standard deviation (a bar or a band) and every seed as a point; the
paper's are black diamonds or dashed lines. The legend stands above the data, axes carry units, captions
belong to the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustness_lib.errors import UserError
from robustness_lib.paper import common_profile, label, metric, per_seed, profile_of, runs, select
from robustness_lib.paper.claims import Floats
from robustness_lib.paper.verdicts import Levels
from robustness_lib.report.style import PAPER, ArmStyle, arm_style, legend_outside, new_figure, series_style
from robustness_lib.report.tables import ARMS, NOT_RUN, comparison_rows


def bars_with_paper(
    section: str,
    records: pd.DataFrame,
    name: str,
    *,
    datasets: Sequence[str],
    methods: Sequence[str] = ("standard",),
    level: float | None = None,
    over_levels: Levels = None,
    locator: str | None = None,
    profile: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """One metric as bars: mean and standard deviation, every seed a point, the paper's value a black diamond.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`; the highest profile of each setting
            counts.
        name: Metric.
        datasets: Image sets, one group of bars each (times methods).
        methods: Methods.
        level: Level, or None.
        over_levels: Reduce all levels to their "area" or "mean".
        locator: Place in the paper that is preferred.
        profile: The records' profile; None: the highest with records, "paper" or "cpu", and of several methods the
            one at which they can be compared (:func:`robustness_lib.paper.common_profile`).
        axes: Where to draw; None: a new figure with a legend. (With axes given, call
            :func:`~robustness_lib.report.style.legend_outside` when all panels are drawn.)

    Returns:
        The figure. A group without any record says "not run" in its label.
    """
    figure, panel = panel_of(axes)
    shown = metric(name)
    several = len(set(methods)) > 1
    tables = [
        comparison_rows(
            section,
            records,
            metrics=[name],
            datasets=[dataset],
            methods=methods,
            levels=[level],
            over_levels=over_levels,
            locator=locator,
            profile=profile or (common_profile(records, section, dataset, methods) if several else None),
        )
        for dataset in datasets
    ]
    table = pd.concat(tables)
    groups = list(product(datasets, methods))
    offsets = dict(zip(ARMS, (-0.2, 0.2), strict=True))
    for row in table.to_dict("records"):
        place = groups.index((row["dataset"], row["method"])) + offsets[row["arm"]]
        if row["n"]:
            values = per_seed(
                records,
                section=section,
                profile=row["profile"],
                dataset=row["measured_on"],
                arm=row["arm"],
                method=row["method"],
                metric=name,
                level=level,
                over_levels=over_levels,
            )
            _bar(panel, place, values.to_numpy(dtype=float) * shown.scale, row["arm"])
        if row["printed"]:
            panel.plot(place + 0.1, row["paper"] * shown.scale, label="paper", **PAPER)
    words = [label(m if several and len(datasets) == 1 else d) for d, m in groups]
    if several and len(datasets) > 1:
        words = [f"{label(d)},\n{label(m)}" for d, m in groups]
    run = {(row["dataset"], row["method"]) for row in table.to_dict("records") if row["n"]}
    notes = ["" if group in run else f"\n({NOT_RUN})" for group in groups]
    panel.set_xticks(range(len(groups)), [_broken(text) + note for text, note in zip(words, notes, strict=True)])
    panel.set_xlim(-0.5, len(groups) - 0.5)
    panel.set_xlabel("method" if several and len(datasets) == 1 else "data set")
    panel.set_ylabel(_wrapped(shown.axis))
    panel.grid(axis="x", visible=False)
    if shown.unit:
        panel.set_ylim(bottom=0)
    if axes is None:
        legend_outside(figure)
    return figure


def curves_with_paper(
    section: str,
    records: pd.DataFrame,
    name: str,
    *,
    dataset: str,
    method: str | Sequence[str] = "standard",
    arms: Sequence[str] = ARMS,
    x: str = "level",
    x_label: str | None = None,
    locator: str | None = None,
    profile: str | None = None,
    axes: Axes | None = None,
) -> Figure:
    """One metric against level or epoch: our mean with a band of one s.d., and the paper's curve dashed.

    Args:
        section: Section.
        records: Records; the highest profile that has the data set and method counts.
        name: Metric: a number a record for ``x="level"``, a list a record (one value an epoch) otherwise.
        dataset: Image set.
        method: A method, of which each arm is a line; or several, each of which is a line in one arm.
        arms: Arms; one alone with several methods.
        x: "level", or the list metric that holds the places of ``name``'s values, such as
            ``"history_epoch"``.
        x_label: Label of the x axis with its unit; None: "level" or "epoch".
        locator: Place in the paper that is preferred.
        profile: The records' profile; None: the highest with records, "paper" or "cpu".
        axes: Where to draw; None: a new figure with a legend.

    Returns:
        The figure.

    Raises:
        ValueError: Several methods and several arms.
    """
    figure, panel = panel_of(axes)
    shown = metric(name)
    methods = [method] if isinstance(method, str) else list(method)
    profile = profile or profile_of(records[records["method"].isin(methods)], section, dataset)
    for arm, method, style, words in _lines(methods, arms):
        paper = select(
            section, dataset=dataset, arm=arm, method=method, metric=name, locator=locator, curve=x != "level"
        )
        told = [f"{words}, {source}" if len(methods) == 1 else None for source in ("paper", "here")]
        if len(paper) > 1:
            place = paper["level" if x == "level" else "position"]
            mark = style["marker"] if len(paper) < 15 else ""
            panel.plot(place, paper["value"] * shown.scale, "--", color=style["color"], alpha=0.7, lw=1.5,
                       marker=mark, mfc="white", ms=5, label=told[0])  # fmt: skip
        curves = _curves(records, section, profile, dataset, arm, method, name, x) if profile else {}
        places, mean, spread = _mean_curve(curves)
        marks: dict[str, Any] = {**style, "marker": style["marker"] if len(places) < 15 else ""}
        if len(methods) > 1:
            panel.plot([], [], label=words, **marks)
        if len(places):
            panel.plot(places, mean * shown.scale, label=told[1], **marks)
            low, high = (mean - spread) * shown.scale, (mean + spread) * shown.scale
            panel.fill_between(places, low, high, color=style["color"], alpha=0.2, lw=0)
    panel.set_xlabel(x_label or ("level" if x == "level" else "epoch"))
    panel.set_ylabel(_wrapped(shown.axis))
    if axes is None:
        legend_outside(figure, columns=2)
    return figure


def _lines(methods: Sequence[str], arms: Sequence[str]) -> list[tuple[str, str, ArmStyle, str]]:
    """Arm, method, style and words of each line."""
    if len(methods) == 1:
        return [(arm, methods[0], arm_style(arm), label(arm)) for arm in arms]
    if len(arms) > 1:
        raise ValueError(f"a panel has one arm where it has several methods, but {', '.join(arms)} were given")
    return [(arms[0], method, series_style(place), label(method)) for place, method in enumerate(methods)]


def panel_of(axes: Axes | None) -> tuple[Figure, Axes]:
    """The given panel with its figure, or a new figure of one panel."""
    if axes is None:
        figure, panels = new_figure()
        return figure, panels[0]
    owner = axes.get_figure(root=True)
    if owner is None:
        raise UserError("the axes given belong to no figure; make them with new_figure()")
    return owner, axes


def _bar(panel: Axes, place: float, values: Floats, arm: str) -> None:
    """Mean as a bar, standard deviation as an error bar in its middle, seeds as points to the left."""
    style = arm_style(arm)
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    panel.bar(place, values.mean(), width=0.36, color=style["color"], alpha=0.45, label=f"{label(arm)}, here",
              hatch="" if arm == "scratch" else "//", edgecolor=style["color"])  # fmt: skip
    jitter = np.linspace(-0.14, -0.06, len(values)) if len(values) > 1 else np.array([-0.1])
    seeds: dict[str, Any] = {**style, "linestyle": "none", "markersize": 5, "markeredgecolor": "white"}
    panel.plot(place + jitter, values, **seeds)
    panel.errorbar(place, values.mean(), yerr=spread, color="#333333", capsize=6, lw=1.5, zorder=3)


def _curves(
    records: pd.DataFrame,
    section: str,
    profile: str,
    dataset: str,
    arm: str,
    method: str,
    name: str,
    x: str,
) -> dict[Any, pd.Series]:
    """One curve a run (a seed, or a record with lists): values indexed by place."""
    if name not in records:
        return {}
    rows = runs(records, section=section, profile=profile, dataset=dataset, arm=arm, method=method)
    if x == "level":
        rows = rows[rows["level"].notna() & rows[name].notna()]
        return {
            seed: group.astype({"level": float, name: float}).groupby("level")[name].mean()
            for seed, group in rows.groupby("seed")
        }
    return {
        row["key"]: pd.Series(row[name], index=row[x], dtype=float)
        for row in rows.to_dict("records")
        if isinstance(row[name], Sequence) and isinstance(row.get(x), Sequence) and len(row[name]) == len(row[x])
    }


def _mean_curve(
    curves: dict[Any, pd.Series],
) -> tuple[Floats, Floats, Floats]:
    """Places that all runs have, mean and standard deviation over the runs (0 with a single run)."""
    if not curves:
        return np.array([]), np.array([]), np.array([])
    table = pd.DataFrame(curves).dropna().sort_index()
    return (
        table.index.to_numpy(),
        table.mean(axis=1).to_numpy(),
        table.std(axis=1, ddof=1).fillna(0).to_numpy(),
    )


def _wrapped(text: str, width: int = 26) -> str:
    """A long axis label on two lines, so that it fits beside the axis."""
    if len(text) <= width:
        return text
    middle = min((abs(i - len(text) / 2), i) for i, letter in enumerate(text) if letter == " ")[1]
    return f"{text[:middle]}\n{text[middle + 1 :]}"


def _broken(text: str, width: int = 14) -> str:
    """A tick label of several words with a line break where it is too long."""
    return text if len(text) <= width or "\n" in text or " " not in text else _wrapped(text, width)
