"""Tables and figures of sections that measure several methods at several levels, such as imbalances.

As everywhere, ours are means over seeds with their standard deviation, at the highest profile that has records, and
the paper's values stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustness_lib.paper import label, metric, per_seed, profile_of, runs, select
from robustness_lib.paper.claims import Floats
from robustness_lib.paper.verdicts import mean_interval
from robustness_lib.report.style import legend_outside, merged, new_figure, series_style
from robustness_lib.report.tables import ARMS, NOT_RUN, Markdown, myst_table, number, spread

_DASH = "–"

# --------------------------------------------------------------------------------------------- tables


def setting_table(
    section: str,
    records: pd.DataFrame,
    *,
    setting: str,
    words: str,
    measure: str,
    dataset: str,
    methods: Sequence[str],
    level: float,
    caption: str,
    name: str,
) -> Markdown:
    """One metric where one setting of the recipe was varied: a row a value of the setting and method, a column an arm.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`; all recipes count.
        setting: The setting, such as ``"train_images"``.
        words: The setting in words.
        measure: Metric.
        dataset: Image set.
        methods: Methods.
        level: Level.
        caption: Caption of the table, Markdown.
        name: Its label for references.

    Returns:
        A numbered MyST table: means with their standard deviation over seeds, and the number of seeds.
    """
    mine = records[(records["section"] == section) & (records["dataset"] == dataset)]
    mine = mine[(mine["profile"] == profile_of(records, section, dataset)) & mine["method"].isin(methods)]
    mine = mine[np.isclose(mine["level"].astype(float), level)]
    values = mine["recipe"].map(lambda recipe: recipe.get(setting))
    rows = []
    for value, method in product(sorted(values.unique()), methods):
        some = mine[(values == value) & (mine["method"] == method)]
        if some.empty:
            continue
        cells = []
        for arm in ARMS:
            found = some.loc[some["arm"] == arm, measure].astype(float)
            spread = f" ± {number(float(found.std(ddof=1)), measure)}" if len(found) > 1 else ""
            cells.append(f"{number(float(found.mean()), measure)}{spread}, n = {len(found)}" if len(found) else NOT_RUN)
        rows.append([f"{value:,}" if isinstance(value, int | np.integer) else f"{value}", label(method), *cells])
    shown = metric(measure)
    header = [words, "Method", *(f"{label(arm)[0].upper()}{label(arm)[1:]} ({shown.unit})" for arm in ARMS)]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 3]], caption=caption, name=name)


def paper_area(dataset: str, arm: str, method: str, strengths: Sequence[float] | Floats) -> float:
    """The area under the paper's error curve over some of its strengths alone, by trapezia; NaN where it has no curve.

    Args:
        dataset: Image set.
        arm: Arm.
        method: Method.
        strengths: Corruption strengths, rising; each takes the nearest one of the paper's.
    """
    curve = select("label_noise", dataset=dataset, arm=arm, method=method, metric="error").set_index("level")
    if curve.empty or len(strengths) < 2:
        return math.nan
    errors = [float(curve["value"].iloc[np.abs(curve.index - strength).argmin()]) for strength in strengths]
    return float(np.trapezoid(errors, strengths))


def area_note(records: pd.DataFrame, *, datasets: Sequence[str]) -> Markdown:
    """Where fewer strengths than the paper's are recorded: the paper's areas without correction over just these.

    Args:
        records: Records of the section ``label_noise``.
        datasets: Image sets.

    Returns:
        A sentence a data set, as Markdown; nothing where all strengths are recorded, or none.
    """
    lines = []
    for dataset in datasets:
        profile = profile_of(records, "label_noise", dataset) or ""
        mine = runs(records, section="label_noise", profile=profile, dataset=dataset, arm="scratch", method="none")
        strengths = np.unique(mine["level"].dropna().astype(float).round(9)) if len(mine) else np.array([])
        areas, printed = [], []
        for arm in ARMS:
            curve = select("label_noise", dataset=dataset, arm=arm, method="none", metric="error").set_index("level")
            areas.append(number(paper_area(dataset, arm, "none", strengths), "error"))
            printed.append(select("label_noise", dataset=dataset, arm=arm, method="none", metric="error_area"))
        if 1 < len(strengths) < len(curve):
            whole = " → ".join(str(rows["printed"].iloc[0]) for rows in printed)
            lines.append(
                f"Over the {len(strengths)} strengths recorded of {label(dataset)}, the paper's areas without "
                f"correction would be {' → '.join(areas)} % instead of {whole} %."
            )
    return Markdown("\n".join(lines))


def levels_table(
    section: str,
    records: pd.DataFrame,
    *,
    measure: str,
    dataset: str,
    methods: Sequence[str],
    caption: str,
    name: str,
    arms: Sequence[str] = ARMS,
    symbol: str = "level",
    profile: str | None = None,
) -> Markdown:
    """One metric by level: a column a level, and for each method and arm a row of the paper's values and one of ours.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`.
        measure: Metric.
        dataset: Image set.
        methods: Methods.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        arms: Arms.
        symbol: What the levels are, for the header: "γ".
        profile: The records' profile; None: the highest with records of the data set.

    Returns:
        A numbered MyST table; rows that neither the paper nor the records have are left out.
    """
    profile = profile or profile_of(records, section, dataset) or ""
    tables = []
    for method, arm in product(methods, arms):
        printed = select(section, dataset=dataset, arm=arm, method=method, metric=measure)
        theirs = {float(row["level"]): str(row["printed"]) for row in printed.to_dict("records")}
        ours = _by_level(section, records, measure, profile, dataset, method, arm)
        setting = f"{label(method)}, {label(arm)}"
        if theirs:
            tables.append((setting, "paper", theirs))
        if ours:
            source = f"`{profile}`, n = {min(map(len, ours.values()))}"
            tables.append((setting, source, {level: spread(values, measure) for level, values in ours.items()}))
    levels = sorted({level for _, _, row in tables for level in row})
    header = [f"Setting, by {symbol}", "Source", *(f"{level:g}" for level in levels)]
    rows = [[setting, source, *(row.get(level, _DASH) for level in levels)] for setting, source, row in tables]
    return myst_table(header, rows or [[NOT_RUN, _DASH]], caption=caption, name=name)


def method_effects_table(
    section: str,
    records: pd.DataFrame,
    *,
    measures: Sequence[str],
    datasets: Sequence[str],
    methods: Sequence[str],
    reference: str,
    caption: str,
    name: str,
    profile: str | None = None,
) -> Markdown:
    """What each method changes within each arm, compared with one of them at the same seed, as a mean over the levels.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`.
        measures: Metrics.
        datasets: Image sets.
        methods: Methods; the reference is left out.
        reference: The method that the others are compared with.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records of the data set.

    Returns:
        A numbered MyST table: mean difference over seeds with its 95 % interval of Student's t distribution.
    """
    rows = []
    for dataset, measure, method in product(datasets, measures, methods):
        scale = profile or profile_of(records, section, dataset) or ""
        setting: dict[str, Any] = {"section": section, "profile": scale, "dataset": dataset, "metric": measure}
        cells = []
        for arm in ARMS:
            here, there = (
                per_seed(records, arm=arm, method=which, over_levels="mean", **setting) for which in (method, reference)
            )
            cells.append(_interval(list((here - there).dropna()), measure))
        if method != reference and set(cells) != {_DASH}:
            shown = metric(measure)
            words = [*([label(dataset)] if len(datasets) > 1 else []), f"{shown.label} ({shown.unit})", label(method)]
            rows.append([", ".join(words), *cells, f"`{scale}`"])
    header = ["Method", *(f"{label(arm)[0].upper()}{label(arm)[1:]}" for arm in ARMS), "Profile"]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 3]], caption=caption, name=name)


def minority_gain_table(
    records: pd.DataFrame,
    *,
    datasets: Sequence[str],
    minority: Callable[[str, float], float],
    caption: str,
    name: str,
    section: str = "imbalance",
    method: str = "normal",
    profile: str | None = None,
) -> Markdown:
    """How much of what pre-training gains in total error it gains on the minority classes.

    The total error of a balanced test set is the mean of the class-wise errors, so it is the sum of two parts, that of
    the minority classes and that of the others. The table has the first part's share of the gain, and how many of the
    classes are minority classes: the share that a gain which is equal in all classes would have.

    Args:
        records: Records with the metrics ``error``, ``minority_excess`` and ``class_sizes``.
        datasets: Image sets.
        minority: The share of minority classes in the paper's training sets, by image set and level.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        section: Section.
        method: The method of both arms.
        profile: The records' profile; None: the highest with records of the data set.

    Returns:
        A numbered MyST table, one row an image set and level: the share of the gain and, in brackets, of the classes.
    """
    rows = []
    for dataset in datasets:
        scale = profile or profile_of(records, section, dataset) or ""
        setting = {"section": section, "profile": scale, "dataset": dataset, "method": method}
        recorded = pd.concat([runs(records, arm=arm, **setting) for arm in ARMS])
        printed = _printed_gain(section, dataset, method)
        for level in sorted({*printed.index, *recorded["level"].dropna().astype(float)}):
            paper = here = source = _DASH
            if level in printed.index:
                classes = minority(dataset, level)
                gain = printed.loc[level]
                paper = _share([classes * gain["minority_error"] / gain["error"]], classes)
            at_level = recorded[np.isclose(recorded["level"].astype(float), level)]
            shares = _measured_shares(at_level)
            if len(shares):
                sizes = np.asarray(at_level["class_sizes"].iloc[0], dtype=float)
                here = _share(shares, float((sizes < sizes.mean()).mean()))
                source = f"`{scale}`, n = {len(shares)}"
            rows.append([label(dataset), f"{level:g}", paper, here, source])
    header = ["Data", "Level", "Paper", "Here", "Profile"]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 4]], caption=caption, name=name)


def _interval(effects: Sequence[float], measure: str) -> str:
    """Mean with its 95 % interval; without it for a single value."""
    if not effects:
        return _DASH
    mean, low, high = (number(value, measure, signed=True) for value in mean_interval(effects))
    return f"{mean} [{low}, {high}]" if len(effects) > 1 else mean


def _printed_gain(section: str, dataset: str, method: str) -> pd.DataFrame:
    """What pre-training gains by the paper's numbers: a row a level, columns ``error`` and ``minority_error``."""
    rows = select(section, dataset=dataset, method=method)
    rows = rows[rows["metric"].isin(("error", "minority_error"))]
    scratch, tuned = (rows[rows["arm"] == arm].pivot(index="level", columns="metric", values="value") for arm in ARMS)
    return scratch - tuned


def _measured_shares(rows: pd.DataFrame) -> list[float]:
    """The minority's share of the gain at each seed that has both arms and a gain, from records of one level."""
    shares = []
    for _, pair in rows.groupby("seed"):
        scratch, tuned = (pair.loc[pair["arm"] == arm, ["error", "minority_excess"]].astype(float) for arm in ARMS)
        total, excess = (scratch.mean() - tuned.mean()).to_numpy(dtype=float)
        if total > 0:  # and not NaN, as where an arm is missing
            shares.append(float((total + excess) / 2 / total))
    return shares


def _share(shares: Sequence[float], classes: float) -> str:
    spread = f" ± {100 * np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
    return f"{100 * np.mean(shares):z.1f}{spread} % ({100 * classes:.0f} %)".replace("-", "−")


# --------------------------------------------------------------------------------------------- figures


def curves_by_class(
    section: str,
    records: pd.DataFrame,
    *,
    dataset: str,
    level: float,
    settings: Sequence[tuple[str, str]],
    measure: str = "class_error",
    merge: int = 1,
    profile: str | None = None,
) -> Figure:
    """A list metric with a value a class, one line a setting: a panel of the paper's values, if any, and one of ours.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`.
        dataset: Image set.
        level: The level.
        settings: Methods and arms, one line each.
        measure: Metric.
        merge: How many neighbouring classes are drawn as one point, their mean.
        profile: The records' profile; None: the highest with records of the data set.

    Returns:
        The figure; ours are means over seeds. A setting that neither the paper nor the records have is left out.
    """
    profile = profile or profile_of(records, section, dataset) or ""
    printed, ours = {}, {}
    for method, arm in settings:
        rows = select(section, dataset=dataset, arm=arm, method=method, metric=measure, level=level, curve=True)
        printed[method, arm] = rows.sort_values("position")["value"].to_numpy(dtype=float)
        ours[method, arm] = _mean_list(records, section, profile, dataset, method, arm, measure, level)
    sources = [("paper", printed)] if any(map(len, printed.values())) else []
    sources.append(("here" if any(map(len, ours.values())) else NOT_RUN, ours))
    known = [one for one in settings if any(len(lists[one]) for _, lists in sources)] or settings
    figure, panels = new_figure(rows=len(sources), height=2.6 if len(sources) > 1 else 3.6)
    shown = metric(measure)
    for panel, (source, lists) in zip(panels, sources, strict=True):
        for place, ((method, arm), values) in enumerate(lists.items()):
            if (method, arm) not in known:
                continue
            x, y = (merged(some, merge) for some in (np.arange(1.0, len(values) + 1), values * shown.scale))
            panel.plot(x, y, label=f"{label(method)}, {label(arm)}", **series_style(place))
        _note(panel, source)
        panel.set_ylabel(_axis(measure))
    panels[-1].set_xlabel("class, from the most images to the fewest")
    panels[-1].set_xlim(panels[0].get_xlim())
    _from_zero(panels)
    legend_outside(figure, columns=2)
    return figure


def _by_level(
    section: str, records: pd.DataFrame, measure: str, profile: str, dataset: str, method: str, arm: str
) -> dict[float, Floats]:
    """The values of each seed, by level."""
    setting = {"section": section, "profile": profile, "dataset": dataset, "arm": arm, "method": method}
    levels = sorted(runs(records, **setting)["level"].dropna().astype(float).unique())
    found = {
        level: per_seed(records, metric=measure, level=level, over_levels=None, at=None, **setting) for level in levels
    }
    return {level: values.to_numpy(dtype=float) for level, values in found.items() if len(values)}


def _mean_list(
    records: pd.DataFrame, section: str, profile: str, dataset: str, method: str, arm: str, measure: str, level: float
) -> Floats:
    """The mean over the seeds of a list metric at one level; empty where nothing is recorded."""
    rows = runs(records, section=section, profile=profile, dataset=dataset, arm=arm, method=method)
    rows = rows[np.isclose(rows["level"].astype(float), level)]
    lists = [cell for cell in rows.get(measure, ()) if isinstance(cell, Sequence)]
    return np.mean(lists, axis=0) if lists else np.array([])


def _axis(measure: str) -> str:
    """Label of an axis of a low panel: the unit on a line of its own."""
    shown = metric(measure)
    return f"{shown.label}\n({shown.unit})" if shown.unit else shown.label


def _from_zero(panels: Sequence[Axes]) -> None:
    """One range of values for all panels, from zero, with room for the notes; no ticks where there is nothing."""
    highest = max(panel.dataLim.y1 for panel in panels)
    for panel in panels:
        if math.isfinite(highest):
            panel.set_ylim(0, 1.2 * highest)
        else:
            panel.set(xticks=[], yticks=[])


def _note(panel: Axes, text: str) -> None:
    """What a panel shows, in its upper right corner."""
    panel.annotate(text, (0.98, 0.98), xycoords="axes fraction", ha="right", va="top", fontweight="bold")
