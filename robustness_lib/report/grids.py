"""Figures of several panels: curves with the paper's, and matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robustness_lib.paper import label, profile_of, runs
from robustness_lib.paper.claims import Floats
from robustness_lib.report.figures import curves_with_paper
from robustness_lib.report.style import legend_outside, new_figure
from robustness_lib.report.tables import ARMS, NOT_RUN


def curve_grid(
    section: str,
    records: pd.DataFrame,
    panels: Sequence[Mapping[str, Any]],
    *,
    y_label: str | None = None,
    columns: int = 2,
    height: float = 2.6,
    **common: Any,
) -> Figure:
    """Panels of :func:`~robustness_lib.report.figures.curves_with_paper` with one legend.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`.
        panels: For each panel, row by row, arguments of ``curves_with_paper`` such as ``name``, ``dataset`` and
            ``method``, and ``words`` to be written above it (else data set and method). Panels share the y axis, which
            begins at 0.
        y_label: Label of the y axis with its unit; None: the metric's.
        columns: Panels side by side.
        height: Height of a row in inches.
        **common: Arguments of ``curves_with_paper`` for all panels.

    Returns:
        The figure. Only the outer panels name their axes. Where lines are methods, the legend says once what is dashed.
    """
    figure, axes = new_figure(columns=columns, rows=math.ceil(len(panels) / columns), height=height)
    several = False
    for panel, settings in zip(axes, panels, strict=False):
        wanted = {**common, **settings}
        words = wanted.pop("words", None) or f"{label(wanted['dataset'])}, {label(wanted.get('method', 'standard'))}"
        curves_with_paper(section, records, **wanted, axes=panel)
        _name(panel, words)
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panel.set_ylabel(y_label or panel.get_ylabel())
        panel.label_outer()
        if not any(np.size(line.get_xdata()) for line in panel.lines):
            panel.set_xticks([])
            panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
        several = not isinstance(wanted.get("method", ""), str)
    axes[0].set_ylim(bottom=0)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    dashed = any(line.get_linestyle() == "--" and np.size(line.get_xdata()) for panel in axes for line in panel.lines)
    for told, dashes in (("here", "-"), ("paper", "--")) if several and dashed else ():
        axes[0].plot([], [], color="#555555", linestyle=dashes, label=told)
    legend_outside(figure, columns=3 if several else 2)
    return figure


def panels_by_arm(names: Sequence[str], arms: Sequence[str] = ARMS) -> list[dict[str, Any]]:
    """Panels for :func:`curve_grid`: a row a metric and a column an arm, whose name stands above it.

    Args:
        names: Metrics.
        arms: Arms.
    """
    return [{"name": name, "arms": [arm], "words": label(arm)} for name in names for arm in arms]


def matrix_grid(
    section: str,
    records: pd.DataFrame,
    *,
    dataset: str,
    methods: Sequence[str],
    level: float | None = None,
    profile: str | None = None,
    arms: Sequence[str] = ARMS,
) -> Figure:
    """The true matrix and the estimates of methods beside it, an arm a row, as heat maps.

    Args:
        section: Section.
        records: Records with the list metrics ``estimated_matrix`` and ``true_matrix``: K * K probabilities row by row.
        dataset: Image set.
        methods: Methods, one column each.
        level: Level, or None.
        profile: The records' profile; None: the highest with records of any of the methods, "paper" or "cpu".
        arms: Arms.

    Returns:
        The figure; estimates are means over seeds.
    """
    mine = records[records["method"].isin(methods)]
    profile = profile or profile_of(mine, section, dataset) or ""
    figure, axes = new_figure(columns=1 + len(methods), rows=len(arms), height=2.4)
    shown = None
    for row, arm in enumerate(arms):
        rows = {
            method: _at_level(
                runs(mine, section=section, profile=profile, dataset=dataset, arm=arm, method=method), level
            )
            for method in methods
        }
        true = [_mean_matrix(found, "true_matrix") for found in rows.values()]
        estimated = [_mean_matrix(found, "estimated_matrix") for found in rows.values()]
        matrices = [next((matrix for matrix in true if matrix is not None), None), *estimated]
        line = axes[row * len(matrices) : (row + 1) * len(matrices)]
        for column, (panel, matrix) in enumerate(zip(line, matrices, strict=True)):
            shown = _heat_map(panel, matrix) or shown
            if row == 0:
                _name(panel, ["true", *(label(method).replace(" ", "\n", 1) for method in methods)][column])
            panel.set_xlabel("label")
            panel.set_ylabel(f"{label(arm)}\nclass" if column == 0 else "class")
            panel.label_outer()
    if shown is not None:
        figure.colorbar(shown, ax=axes, label="probability", location="bottom", shrink=0.6, aspect=30)
    return figure


def _at_level(rows: pd.DataFrame, level: float | None) -> pd.DataFrame:
    levels = rows["level"].astype(float)
    kept: pd.DataFrame = rows[levels.isna() if level is None else np.isclose(levels, level)]
    return kept


def _mean_matrix(rows: pd.DataFrame, name: str) -> Floats | None:
    """The mean over records of a matrix that is recorded row by row."""
    found = [cell for cell in rows.get(name, ()) if isinstance(cell, Sequence)]
    if not found:
        return None
    side = math.isqrt(len(found[0]))
    mean: Floats = np.mean(found, axis=0).reshape(side, side)
    return mean


def _heat_map(panel: Axes, matrix: Floats | None) -> Any:
    """One matrix, black for a probability of 1; nothing but a remark where there is none."""
    panel.grid(visible=False)
    panel.set_box_aspect(1)
    if matrix is None:
        panel.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(1, 0))
        panel.annotate(NOT_RUN, (0.5, 0.5), ha="center", va="center")
        return None
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return panel.imshow(matrix, cmap="Greys", vmin=0, vmax=1, interpolation="nearest", aspect="auto")


def _name(panel: Axes, words: str) -> None:
    """What a panel shows, in words above it."""
    panel.set_title(words, loc="left", fontsize=11)
