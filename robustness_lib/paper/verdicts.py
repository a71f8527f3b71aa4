"""Values by seed from the wide frame of :func:`robustness_lib.records.frame`, for pages without the evidence frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

from robustness_lib.paper.claims import At, Floats, Side
from robustness_lib.records import EVIDENCE

Levels: TypeAlias = Literal["area", "mean"] | None

PROFILES = EVIDENCE
"""Profiles that count as evidence, the highest first."""

STAND_INS = {"tiny_imagenet": "tiny_imagenet32"}
"""Data sets that may take another's place: Tiny ImageNet at 32 pixels."""

AREA_RANGE = (0.0, 1.0)
"""First and last corruption strength of the area under an error curve (P1 §3.2); both must be recorded."""


def mean_interval(values: Sequence[float] | Floats) -> tuple[float, float, float]:
    """Mean and two-sided 95 % t-interval.

    Args:
        values: At least one value; one value has the interval (-inf, inf).

    Returns:
        Mean, lower end, upper end.
    """
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return mean, mean - half, mean + half


def profile_of(frame: pd.DataFrame, section: str, dataset: str | None = None) -> str | None:
    """The highest profile that has records of a section (and a data set), or None; "smoke" never counts."""
    rows = frame[frame["section"] == section]
    if dataset is not None:
        rows = rows[rows["dataset"] == dataset]
    present = set(rows["profile"])
    return next((profile for profile in PROFILES if profile in present), None)


def per_seed(
    frame: pd.DataFrame,
    *,
    section: str,
    profile: str,
    dataset: str,
    arm: str,
    method: str,
    metric: str,
    level: float | None = None,
    over_levels: Levels = None,
    at: At = None,
) -> pd.Series:
    """The measured values of one setting, one a seed.

    Only the records of :func:`runs` count.

    Args:
        frame: Records, as by :func:`robustness_lib.records.frame`.
        section: Section, like the next four a condition on the records.
        profile: Profile.
        dataset: Image set.
        arm: "scratch", "pre-trained", or "none" for either.
        method: Method.
        metric: Column to read.
        level: The level; None: records without a level. Ignored with ``over_levels``.
        over_levels: Reduce all levels to their "area" or "mean"; only seeds with all levels count, and of an
            unfinished sweep the levels that keep the most values.
        at: For list metrics: the "last" value, or that at "half" of the list.

    Returns:
        Floats, indexed by seed in ascending order; empty where nothing is recorded.
    """
    table = _by_level(frame, section, profile, dataset, Side(arm, method, metric, at), level, over_levels)
    seeds, levels = _complete(table.notna(), over_levels)
    return _over_levels(table.loc[seeds, levels], over_levels)


def levels_counted(
    frame: pd.DataFrame,
    *,
    section: str,
    profile: str,
    dataset: str,
    arm: str,
    method: str,
    metric: str,
    over_levels: Levels,
) -> list[float]:
    """The levels that :func:`per_seed` reduces to one number, in ascending order."""
    table = _by_level(frame, section, profile, dataset, Side(arm, method, metric), None, over_levels)
    return sorted(float(level) for level in _complete(table.notna(), over_levels)[1])


def _by_level(
    frame: pd.DataFrame,
    section: str,
    profile: str,
    dataset: str,
    side: Side,
    level: float | None,
    over_levels: Levels,
) -> pd.DataFrame:
    """Values of one side: a row a seed, a column a level (one column where a single level is asked for)."""
    if side.metric not in frame:
        return pd.DataFrame(dtype=float)
    rows = runs(frame, section=section, profile=profile, dataset=dataset, arm=side.arm, method=side.method)
    levels = rows["level"].astype(float).round(9)
    if over_levels is None:
        rows = rows[levels.isna() if level is None else np.isclose(levels, level)]
        levels = pd.Series(0.0, index=rows.index)
    epochs = rows["history_epoch"] if "history_epoch" in rows else [None] * len(rows)
    values = [_number(cell, side.at, places) for cell, places in zip(rows[side.metric], epochs, strict=True)]
    table = pd.DataFrame({"seed": rows["seed"], "level": levels, "value": values})
    table = table[np.isfinite(table["value"]) & table["level"].notna()]
    if table.empty:
        return pd.DataFrame(dtype=float)
    pivot: pd.DataFrame = table.pivot_table(index="seed", columns="level", values="value", aggfunc="mean")
    return pivot


def runs(frame: pd.DataFrame, *, section: str, profile: str, dataset: str, arm: str, method: str) -> pd.DataFrame:
    """The records of one setting that count, at all levels.

    Where records with several recipes or checkpoints share a setting and level (they were changed on the command
    line), those that have the most seeds count, those with the latest record at a tie.

    Args:
        frame: Records, as by :func:`robustness_lib.records.frame`.
        section: Section, like the others a condition on the records.
        profile: Profile.
        dataset: Image set.
        arm: "scratch", "pre-trained", or "none" for either.
        method: Method.

    Returns:
        Rows of ``frame``.
    """
    wanted = {"section": section, "profile": profile, "dataset": dataset, "method": method}
    if arm != "none":
        wanted["arm"] = arm
    keep = pd.Series(True, index=frame.index)
    for column, value in wanted.items():
        keep &= frame[column] == value
    rows: pd.DataFrame = frame[keep]
    parts = [_main_training(part) for _, part in rows.groupby(rows["level"].astype(float), dropna=False)]
    return pd.concat(parts) if parts else rows


def _main_training(rows: pd.DataFrame) -> pd.DataFrame:
    """The records of the recipe and checkpoint with the most seeds; at a tie, those with the latest record."""
    recipe = rows["recipe"].map(lambda value: json.dumps(value, sort_keys=True, default=str))
    training = rows["init"].astype(str) + recipe

    def weight(name: Any) -> tuple[int, str]:
        mine = rows[training == name]
        return mine["seed"].nunique(), max(str(_date(value)) for value in mine["provenance"])

    chosen: pd.DataFrame = rows[training == max(training.unique(), key=weight)]
    return chosen


def _date(provenance: Any) -> Any:
    return provenance.get("date", "") if isinstance(provenance, Mapping) else ""


def _complete(there: pd.DataFrame, over_levels: Levels) -> tuple[pd.Index, pd.Index]:
    """Of a table of seeds and levels the seeds and levels without a gap that hold the most values.

    Of two seeds at least, where there are two; an area keeps the ends of its range.
    """
    counts = there.sum()
    found = []
    for least in sorted(set(counts[counts > 0])):
        levels = there.columns[counts >= least]
        if over_levels != "area" or np.isin(AREA_RANGE, levels).all():
            found.append((there.index[there[levels].all(axis=1)], levels))
    none = there.index[:0], there.columns[:0]
    return max(found, key=lambda one: (min(len(one[0]), 2), len(one[0]) * len(one[1])), default=none)


def _over_levels(table: pd.DataFrame, over_levels: Levels) -> pd.Series:
    """One number a seed from its levels; none where an area lacks an end of its range."""
    levels = table.columns.to_numpy(dtype=float)
    if table.empty or (over_levels == "area" and not np.allclose([levels.min(), levels.max()], AREA_RANGE)):
        return pd.Series(dtype=float)
    if over_levels == "area":
        return pd.Series(np.trapezoid(table.to_numpy(dtype=float), levels, axis=1), index=table.index)
    return table.mean(axis=1)


def _number(cell: Any, at: At, epochs: Any) -> float:
    """A record's cell as a float; NaN where it holds none. ``epochs`` says to which epochs a list belongs."""
    if at is not None:
        if not isinstance(cell, Sequence) or not cell:
            return float("nan")
        if not isinstance(epochs, Sequence) or len(epochs) != len(cell):
            epochs = range(1, len(cell) + 1)
        end = epochs[-1] / (1 if at == "last" else 2)
        reached = [value for value, epoch in zip(cell, epochs, strict=True) if epoch <= end]
        cell = reached[-1] if reached else None
    return float(cell) if isinstance(cell, int | float) else float("nan")
