"""Figures that show the paper's values with ours, as curves.

Ours are means over seeds with their standard deviation as a band; the paper's are dashed lines. The legend stands
above the data, axes have units, captions belong to the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustness_lib.errors import UserError
from robustness_lib.paper import label, metric, profile_of, runs, select
from robustness_lib.paper.claims import Floats
from robustness_lib.report.style import ArmStyle, arm_style, legend_outside, new_figure, series_style
from robustness_lib.report.tables import ARMS


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
