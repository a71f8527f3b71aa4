"""The rule that turns records into a verdict. It was fixed before our trainings were measured.

(The test "equal" came later, with the numbers that it is for, which have no randomness.)

**Pairs.** The two sides of a claim are compared at the same seed, since they share every random draw that is
not compared. Each seed gives one effect (difference, ratio or relative reduction, see
:mod:`robustness_lib.paper.claims`). For a claim over all levels the area (trapezoid) or the mean is taken
first, over the levels that both sides have; a seed that lacks one of them is left out, and so is a seed whose
effect is not finite. Where a sweep is unfinished, those levels count that keep the most pairs (seeds times levels), of
two seeds where there are two.

**Interval.** The mean effect over the n seeds, with the two-sided 95 % interval of Student's t distribution
with n - 1 degrees of freedom. Where the seeds share one pre-trained checkpoint, the interval covers the
fine-tuning's randomness (and that of training from scratch), not that of the pre-training.

**Verdict.** Turn the effect so that the claimed side is positive, measured from the point of no effect (0;
for a ratio 1). For a claim that an effect goes *beyond* that point:

* "holds": the interval lies wholly above it and, if the paper states a size, the interval's upper end reaches
  that size (the size lies in the interval, or the whole interval exceeds it);
* "holds in direction": the mean is above it, but the interval includes it or stays wholly below the stated
  size;
* "does not hold": the mean is not above it.

For a claim that a difference is larger on one image set than on another, the two sides are the differences on the two
sets, and the effect is that of these, at the same seed.

A claim about every level is judged at each level that both sides have, and the weakest of those verdicts stands: at
equal words, the one whose interval begins nearest to the point of no effect. It names the level, and how many there
were.

For a claim that a harm stays *within* a stated bound: "holds" if the whole interval is at most the bound, "holds in
direction" if only the mean is, otherwise "does not hold". For a claim that a number *equals* the printed one:
"holds" if it does to the last printed digit, "holds in direction" if it differs but the interval of the fit that it
comes from includes the printed number, otherwise "does not hold". A verdict on a claim *beyond* no effect is *open*
where the interval over seeds includes no effect: "holds in direction" or "does not hold", further seeds may turn
it. A stated size counts with the precision of its print: "4.1" is reached from 4.05 on. With fewer than two paired
seeds: "not yet measured"; the values of a single seed are shown. Only a measurement without randomness (a fit to
published predictions) is decided by one record; its interval is a point.

**Scale.** The highest profile that has two paired seeds decides: "paper", else "cpu"; "smoke" never counts. A
data set may be replaced by its stand-in (:data:`STAND_INS`) where it has no records at that profile; the
verdict names the set that was used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from robustness_lib.paper.claims import (
    At,
    Claim,
    Floats,
    Levels,
    Side,
    at_level,
    effect,
    printed_row,
    stated_row,
)
from robustness_lib.paper.numbers import tolerance
from robustness_lib.records import EVIDENCE

HOLDS = "holds"
IN_DIRECTION = "holds in direction"
FAILS = "does not hold"
UNMEASURED = "not yet measured"
VERDICTS = (HOLDS, IN_DIRECTION, FAILS, UNMEASURED)

PROFILES = EVIDENCE
"""Profiles that count as evidence, the highest first."""

STAND_INS = {"tiny_imagenet": "tiny_imagenet32"}
"""Data sets that may take another's place: Tiny ImageNet at 32 pixels."""

AREA_RANGE = (0.0, 1.0)
"""First and last corruption strength of the area under an error curve (P1 §3.2); both must be recorded."""


@dataclass(frozen=True)
class Verdict:
    """What the records say about a claim.

    Attributes:
        claim: The claim.
        effect: Mean effect over the seeds, in the unit of the claim's ``kind``; NaN if not measured.
        low: Lower end of its 95 % interval; NaN if not measured.
        high: Upper end.
        n: Number of paired seeds.
        profile: The profile whose records decided, or "" if not measured.
        dataset: The image set that was used (the claim's, or its stand-in).
        verdict: One of :data:`VERDICTS`.
        treated: The treated side's value at each seed.
        reference: The reference's value at each seed, in the same order.
        level: For a claim about every level: the level with the weakest verdict.
        levels: For such a claim: how many levels were judged.
    """

    claim: Claim
    effect: float
    low: float
    high: float
    n: int
    profile: str
    dataset: str
    verdict: str
    treated: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()
    level: float | None = None
    levels: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the interval includes no effect at all, so that further seeds may turn the verdict.

        Only of a claim that there is an effect (``beyond``), judged by seeds.
        """
        none = 1.0 if self.claim.kind == "ratio" else 0.0
        judged_by_seeds = self.verdict != UNMEASURED and self.claim.test == "beyond" and not self.claim.exact
        return judged_by_seeds and self.low <= none <= self.high

    @property
    def words(self) -> str:
        """The verdict as it is shown: one of :data:`VERDICTS`, with ", open" after it where it is (:attr:`is_open`)."""
        return f"{self.verdict}, open" if self.is_open else self.verdict


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


def verdict_of(claim: Claim, mean: float, low: float, high: float) -> str:
    """The rule above, for one mean effect and its interval.

    Args:
        claim: The claim.
        mean: Mean effect, finite; of a claim of the test "equal" the difference from the printed number.
        low: Lower end of the interval.
        high: Upper end.

    Returns:
        "holds", "holds in direction" or "does not hold".
    """
    if claim.test == "equal":
        below, above = tolerance(printed_row(claim))
        touches = low <= above and high >= -below
        return HOLDS if -below <= mean <= above else IN_DIRECTION if touches else FAILS
    low, mean, high = sorted((claim.sign * low, claim.sign * mean, claim.sign * high))
    none = 1.0 if claim.kind == "ratio" else 0.0
    row = stated_row(claim)
    size = none if row is None else float(row["value"])
    below, above = (0.0, 0.0) if row is None else tolerance(row)
    if claim.test == "within":
        return HOLDS if high <= size + above else IN_DIRECTION if mean <= size + above else FAILS
    if low > none and high >= size - below:
        return HOLDS
    return IN_DIRECTION if mean > none else FAILS


def evaluate(claim: Claim, frame: pd.DataFrame) -> Verdict:
    """Judge one claim by the records.

    Args:
        claim: The claim.
        frame: Records as by :func:`robustness_lib.records.frame`; other sections' rows are ignored.

    Returns:
        The verdict, by the rule in this module's text.
    """
    frame = frame[frame["section"] == claim.section]
    present = set(zip(frame["profile"], frame["dataset"], strict=True))
    for profile in PROFILES:
        for dataset in (claim.dataset, STAND_INS.get(claim.dataset)):
            if dataset is not None and (profile, dataset) in present:
                judge = _at_every_level if claim.over_levels == "every" else _judged
                if (verdict := judge(claim, frame, profile, dataset)) is not None:
                    return verdict
    return _one_seed(claim, frame) or Verdict(claim, np.nan, np.nan, np.nan, 0, "", claim.dataset, UNMEASURED)


def _one_seed(claim: Claim, frame: pd.DataFrame) -> Verdict | None:
    """The values of the only seed that both sides have, which is too few for a verdict."""
    for profile in PROFILES if claim.over_levels != "every" else ():
        treated, reference = _pairs(claim, frame, profile, claim.dataset)
        if len(treated) == 1:
            sides = tuple(treated), tuple(reference)
            return Verdict(claim, np.nan, np.nan, np.nan, 1, profile, claim.dataset, UNMEASURED, *sides)
    return None


def _judged(claim: Claim, frame: pd.DataFrame, profile: str, dataset: str) -> Verdict | None:
    """The verdict at one profile and image set; None where there are too few pairs."""
    if claim.test == "equal":
        return _compared_with_print(claim, frame, profile, dataset)
    treated, reference = _pairs(claim, frame, profile, dataset)
    if len(treated) < (1 if claim.exact else 2):
        return None
    effects = effect(claim.kind, treated, reference)
    mean, low, high = mean_interval(effects)
    if len(effects) == 1:
        low = high = mean
    word = verdict_of(claim, mean, low, high)
    return Verdict(claim, mean, low, high, len(effects), profile, dataset, word, tuple(treated), tuple(reference))


def _compared_with_print(claim: Claim, frame: pd.DataFrame, profile: str, dataset: str) -> Verdict | None:
    """The verdict on a claim of the test "equal"; its interval is what the records have as ``…_low`` and ``…_high``."""
    ends = []
    for suffix in ("", "_low", "_high"):
        side = replace(claim.treated, metric=claim.treated.metric + suffix)
        ends.append(_by_level(frame, claim.section, profile, dataset, side, claim.level, None).to_numpy().ravel())
    values, low, high = ends
    if not len(values):
        return None
    printed = float(printed_row(claim)["value"])
    mean = float(values.mean()) - printed
    interval = (float(low.mean()) - printed, float(high.mean()) - printed) if len(low) and len(high) else (mean, mean)
    word = verdict_of(claim, mean, *interval)
    return Verdict(claim, mean, *interval, len(values), profile, dataset, word, tuple(values), (printed,) * len(values))


def _at_every_level(claim: Claim, frame: pd.DataFrame, profile: str, dataset: str) -> Verdict | None:
    """The weakest of the verdicts at single levels."""
    rows = frame[(frame["profile"] == profile) & (frame["dataset"] == dataset)]
    levels = sorted(rows["level"].dropna().astype(float).round(9).unique())
    found = [v for level in levels if (v := _judged(at_level(claim, level), frame, profile, dataset)) is not None]
    if not found:
        return None

    def strength(verdict: Verdict) -> tuple[int, float]:
        return -VERDICTS.index(verdict.verdict), min(claim.sign * verdict.low, claim.sign * verdict.high)

    weakest = min(found, key=strength)
    return replace(weakest, claim=claim, level=weakest.claim.level, levels=len(found))


def profile_of(frame: pd.DataFrame, section: str, dataset: str | None = None) -> str | None:
    """The highest profile that has records of a section (and a data set), or None; "smoke" never counts."""
    rows = frame[frame["section"] == section]
    if dataset is not None:
        rows = rows[rows["dataset"] == dataset]
    present = set(rows["profile"])
    return next((profile for profile in PROFILES if profile in present), None)


def common_profile(frame: pd.DataFrame, section: str, dataset: str, methods: Sequence[str]) -> str | None:
    """The profile at which methods can be compared: that with most of them in both arms, the highest at a tie.

    Args:
        frame: Records, as by :func:`robustness_lib.records.frame`.
        section: Section.
        dataset: Image set; its stand-in counts too.
        methods: Methods of the section.

    Returns:
        The profile, or None where there is no record of any; "smoke" never counts.
    """
    places = (dataset, STAND_INS.get(dataset))
    rows = frame[(frame["section"] == section) & frame["dataset"].isin(places) & frame["method"].isin(methods)]
    arms = {profile: rows[rows["profile"] == profile].groupby("method")["arm"].nunique() for profile in PROFILES}
    best = max(PROFILES, key=lambda profile: (int((arms[profile] > 1).sum()), len(arms[profile]) > 0))
    return best if len(arms[best]) else None


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


def _pairs(claim: Claim, frame: pd.DataFrame, profile: str, dataset: str) -> tuple[Floats, Floats]:
    """Values of both sides at the paired seeds with a finite effect; of a claim about gains, the two gains."""
    treated, reference = _by_seed(claim, frame, profile, dataset)
    if claim.than is not None:
        other = _by_seed(claim, frame, profile, claim.than)
        if other[0].empty and claim.than in STAND_INS:
            other = _by_seed(claim, frame, profile, STAND_INS[claim.than])
        treated, reference = (treated - reference).align(other[0] - other[1], join="inner")
    return treated.to_numpy(dtype=np.float64), reference.to_numpy(dtype=np.float64)


def _by_seed(claim: Claim, frame: pd.DataFrame, profile: str, dataset: str) -> tuple[pd.Series, pd.Series]:
    """Values of both sides on one image set, by seed, where both have one and the effect is finite."""
    over_levels: Levels = None if claim.over_levels == "every" else claim.over_levels
    treated, reference = (
        _by_level(frame, claim.section, profile, dataset, side, claim.level, over_levels)
        for side in (claim.treated, claim.reference)
    )
    treated, reference = treated.align(reference, join="inner")
    seeds, levels = _complete(treated.notna() & reference.notna(), over_levels)
    left, right = (_over_levels(side.loc[seeds, levels], over_levels) for side in (treated, reference))
    finite = np.isfinite(effect(claim.kind, left.to_numpy(dtype=np.float64), right.to_numpy(dtype=np.float64)))
    return left[finite], right[finite]


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
