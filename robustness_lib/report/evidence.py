"""Recorded results as one tidy frame, a row a record and metric; what the book shows are filters of it.

Seeds are paired: both sides of a comparison share every random draw that is not compared, so an effect is taken at each
seed, and its interval is the 95 % interval of Student's t distribution over seeds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from robustness_lib.paper.numbers import SECTIONS, select
from robustness_lib.records import EVIDENCE, PUBLISHED, SCRATCH, Record, canonical_json, load_published

Floats: TypeAlias = npt.NDArray[np.float64]
Reduce: TypeAlias = Literal["area", "excess", "mean"] | None
Kind: TypeAlias = Literal["difference", "ratio", "reduction"]

ARMS = ("scratch", "pre-trained")
SETTING = ["section", "profile", "dataset", "arm", "method", "level"]
"""What the records of one setting share; they differ by seed, or by checkpoint and recipe."""

STRENGTHS = tuple(tenths / 10 for tenths in range(11))
"""The corruption strengths that the paper's printed areas are over (P1 §3.2)."""

STAND_INS = {"tiny_imagenet": "tiny_imagenet32"}
"""Image sets that stand in for another where it has no records: Tiny ImageNet at 32 pixels."""

PHOTOGRAPHS = ("textures", "svhn", "places365", "lsun", "cifar10", "cifar100", "miniplaces", "imagenet21k")
"""OOD sets that are photographs; the others are synthetic noise."""


def load(folder: Path | str = PUBLISHED, section: str | None = None) -> pd.DataFrame:
    """The published records (of one section), as :func:`tidy` has them."""
    return tidy(load_published(section, Path(folder)))


def tidy(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a long frame.

    Args:
        records: Records of any sections.

    Returns:
        One row a record and scalar metric: ``section``, ``profile``, ``dataset``, ``arm``, ``method``, ``level`` (NaN
        without one), ``seed``, ``init``, ``recipe`` (canonical JSON), ``precision``, ``key``, ``metric``, ``value`` (in
        the unit of the record), and ``main``: whether the record counts where its setting was also measured with
        another checkpoint or recipe (:func:`_main`). Metrics that follow from others are added (:func:`_derived`).
    """
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    for record in records:
        job = record.job
        base = {
            **{name: getattr(job, name) for name in ("section", "profile", "dataset", "init", "method", "seed")},
            "arm": SCRATCH if job.init == SCRATCH else "pre-trained",
            "level": np.nan if job.level is None else round(job.level, 9),
            "recipe": canonical_json(dict(job.recipe)),
            "precision": record.provenance.get("precision", ""),
            "date": str(record.provenance.get("date", "")),
            "key": job.key,
        }
        scalars = {name: value for name, value in record.metrics.items() if not isinstance(value, list)}
        settings.append(base)
        rows += [
            {**base, "metric": name, "value": float(value)} for name, value in (scalars | _derived(scalars)).items()
        ]
    columns = [*SETTING, "seed", "init", "recipe", "precision", "date", "key", "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["main"] = frame["key"].isin(_main(settings))
    for name in ("section", "profile", "dataset", "arm", "method", "init", "metric"):
        frame[name] = frame[name].astype("category")
    return frame.drop(columns="date")


def _derived(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics that follow from recorded ones.

    ``adversarial_ratio``: adversarial over clean accuracy; ``auroc_photographs`` and so on: the mean over the OOD sets
    that are photographs.
    """
    found: dict[str, float] = {}
    if metrics.get("clean_accuracy") and "adversarial_accuracy" in metrics:
        found["adversarial_ratio"] = metrics["adversarial_accuracy"] / metrics["clean_accuracy"]
    for score in ("auroc", "aupr", "fpr95"):
        values = [metrics[name] for ood in PHOTOGRAPHS if (name := f"{score}_{ood}") in metrics]
        if values and f"{score}_mean" in metrics:
            found[f"{score}_photographs"] = float(np.mean(values))
    return found


def pretraining_seed(init: str) -> int | None:
    """The seed of a checkpoint of ours, from its id; None of other ones."""
    found = re.search(r"_s(\d+)_[0-9a-f]{6}$", init)
    return None if found is None else int(found[1])


def family(init: str) -> str:
    """A checkpoint's id without its seed and hash, which its pre-trainings with other seeds share."""
    return re.sub(r"_s\d+_[0-9a-f]{6}$", "", init)


def _main(rows: Iterable[dict[str, Any]]) -> set[str]:
    """The keys of the records that count: one checkpoint and recipe a setting, never a mixture.

    The most seeds decide, then the latest record. Records whose seeds each start from the pre-training of that seed
    count as one group, which covers the randomness of pre-training too; it is preferred at equal numbers.
    """
    settings: dict[tuple[Any, ...], dict[tuple[Any, ...], list[dict[str, Any]]]] = {}
    for row in rows:
        groups = settings.setdefault(tuple(str(row[name]) for name in SETTING), {})
        groups.setdefault((False, row["init"], row["recipe"]), []).append(row)
        if pretraining_seed(row["init"]) == row["seed"]:
            groups.setdefault((True, family(row["init"]), row["recipe"]), []).append(row)
    kept: set[str] = set()
    for groups in settings.values():
        order = {
            name: (len({row["seed"] for row in group}), name[0], max(row["date"] for row in group))
            for name, group in groups.items()
        }
        kept |= {row["key"] for row in groups[max(order, key=lambda name: order[name])]}
    return kept


def curves(records: Iterable[Record], y: str, x: str | None = None) -> pd.DataFrame:
    """A list metric as a long frame.

    Args:
        records: Records of any sections.
        y: The list metric.
        x: The list metric with its places, such as ``"history_epoch"``; None: 1, 2, 3, ...

    Returns:
        The columns of :func:`tidy` but ``metric``, with ``x`` and ``value``: a row a place of each
        record that counts.
    """
    some = [record for record in records if isinstance(record.metrics.get(y), list)]
    frame = tidy(some).drop_duplicates("key").set_index("key")
    rows = []
    for record in some:
        values = record.metrics[y]
        places = record.metrics.get(x) if x else None
        for place, value in zip(places or range(1, len(values) + 1), values, strict=True):  # type: ignore[arg-type]
            rows.append({"key": record.job.key, "x": float(place), "value": float(value)})
    joined = pd.DataFrame(rows, columns=["key", "x", "value"]).join(frame.drop(columns=["metric", "value"]), on="key")
    return joined[joined["main"].astype(bool)]


def where(values: pd.DataFrame, **conditions: Any) -> pd.DataFrame:
    """The rows whose columns have the given values; a list: one of them; None: no condition."""
    keep = np.ones(len(values), dtype=bool)
    for column, wanted in conditions.items():
        if wanted is not None:
            several = isinstance(wanted, list | tuple)
            keep &= (values[column].isin(wanted) if several else values[column] == wanted).to_numpy()
    return values[keep]


def mean_interval(values: Sequence[float] | Floats) -> tuple[float, float, float]:
    """Mean and two-sided 95 % t-interval; a single value has the interval (-inf, inf)."""
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return mean, mean - half, mean + half


def effects(kind: Kind, treated: Floats, reference: Floats) -> Floats:
    """The effect of each pair: ``treated - reference``, ``reference / treated`` or ``1 - treated / reference``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "difference":
            return treated - reference
        return reference / treated if kind == "ratio" else 1 - treated / reference


@dataclass(frozen=True)
class Comparison:
    """Two sides at the seeds that both have.

    Attributes:
        seeds: The paired seeds, ascending.
        treated: One value a seed.
        reference: The same of the reference.
        effect: Mean effect over seeds.
        low: Lower end of its 95 % interval; -inf of one seed.
        high: Upper end.
        levels: The levels that were reduced to one value, or the only one; empty without levels.
        pretraining_seeds: How many pre-trainings the pre-trained sides start from, the least of both sides; 0 where
            no side is pre-trained.
        precision: Arithmetic of the trainings, such as ``"bfloat16"``, several joined by " and ".
        profile: The scale.
        dataset: The image set of the treated side.
    """

    seeds: tuple[int, ...]
    treated: Floats
    reference: Floats
    effect: float
    low: float
    high: float
    levels: tuple[float, ...] = ()
    pretraining_seeds: int = 0
    precision: str = ""
    profile: str = ""
    dataset: str = ""

    @property
    def n(self) -> int:
        """How many seeds are paired."""
        return len(self.seeds)


def compare(
    values: pd.DataFrame,
    treated: dict[str, Any],
    reference: dict[str, Any],
    *,
    level: float | None = None,
    reduce: Reduce = None,
    kind: Kind = "difference",
) -> Comparison | None:
    """Compare two sides, seed by seed.

    Args:
        values: Of :func:`tidy`.
        treated: Conditions on its columns (:func:`where`): at least section, profile, dataset, method and metric.
        reference: The same of the other side.
        level: The level of both; None: records without a level, or all of them with ``reduce``.
        reduce: Reduce the levels that both sides have to the trapezoid ``"area"``, to the area without the value at
            level 0 (``"excess"``), or to the ``"mean"``. Of an unfinished sweep those levels and seeds count that keep
            the most values.
        kind: The effect.

    Returns:
        The comparison; None where no seed has both sides and a finite effect.
    """
    sides = []
    for conditions in (treated, reference):
        rows = where(values, main=True, **conditions)
        if reduce is None:
            rows = rows[rows["level"].isna() if level is None else np.isclose(rows["level"], level)]
        sides.append(rows)
    left, right = (
        rows.assign(level=rows["level"].fillna(0.0)).pivot_table(index="seed", columns="level", values="value")
        for rows in sides
    )
    left, right = left.align(right, join="inner")
    both = left.notna() & right.notna()
    seeds, levels = _complete(both, reduce)
    if not len(seeds) or not len(levels):
        return None
    one, other = (reduced(side.loc[seeds, levels], reduce) for side in (left, right))
    found = effects(kind, one, other)
    fine = np.isfinite(found)
    if not fine.any():
        return None
    kept = [int(seed) for seed in seeds[fine]]
    sides = [side[side["seed"].isin(kept)] for side in sides]
    starts = [side.loc[side["arm"] == "pre-trained", "init"].astype(str).unique() for side in sides]
    return Comparison(
        tuple(kept),
        one[fine],
        other[fine],
        *mean_interval(found[fine]),
        levels=tuple(float(x) for x in levels) if reduce or level is not None else (),
        pretraining_seeds=min((len(start) for start in starts if len(start)), default=0),
        precision=" and ".join(sorted(set(pd.concat(sides)["precision"]) - {""})),
        profile=str(treated["profile"]),
        dataset=str(treated["dataset"]),
    )


def _complete(there: pd.DataFrame, reduce: Reduce) -> tuple[pd.Index, pd.Index]:
    """The seeds and levels without a gap that hold the most values, of two seeds at least where there are two.

    An area needs the levels 0 and 1, which bound it.
    """
    counts = there.sum()
    found = []
    for least in sorted(set(counts[counts > 0])):
        levels = there.columns[counts >= least]
        if reduce not in ("area", "excess") or {0.0, 1.0} <= set(levels):
            found.append((there.index[there[levels].all(axis=1)], levels))
    none = there.index[:0], there.columns[:0]
    return max(found, key=lambda one: (min(len(one[0]), 2), len(one[0]) * len(one[1])), default=none)


def reduced(table: pd.DataFrame, reduce: Reduce) -> Floats:
    """One number a row of a table without gaps whose columns are levels."""
    numbers = table.to_numpy(dtype=float)
    if reduce is None or reduce == "mean":
        means: Floats = numbers.mean(axis=1)
        return means
    areas: Floats = np.trapezoid(numbers, table.columns.to_numpy(dtype=float), axis=1)
    return areas - numbers[:, 0] if reduce == "excess" else areas


def gain(
    values: pd.DataFrame,
    metric: str,
    *,
    section: str,
    dataset: str,
    method: str = "standard",
    level: float | None = None,
    reduce: Reduce = None,
    profile: str | None = None,
    kind: Kind = "difference",
) -> Comparison | None:
    """The pre-trained arm compared with the one from scratch.

    Args:
        values: Of :func:`tidy`.
        metric: Metric.
        section: Section.
        dataset: Image set; its stand-in (:data:`STAND_INS`) where it has no records.
        method: Method of both arms.
        level: Level.
        reduce: How levels are reduced (:func:`compare`).
        profile: The scale; None: the highest of ``paper`` and ``cpu`` at which both arms share two seeds, else one.
        kind: The effect.

    Returns:
        The comparison, or None.
    """
    found: Comparison | None = None
    for scale in [profile] if profile else EVIDENCE:
        for place in (dataset, STAND_INS.get(dataset)):
            side = {"section": section, "profile": scale, "dataset": place, "method": method, "metric": metric}
            one = (
                compare(values, side | {"arm": ARMS[1]}, side | {"arm": ARMS[0]}, level=level, reduce=reduce, kind=kind)
                if place
                else None
            )
            if one is not None and (found is None or found.n < 2 <= one.n):
                found = one
    return found


def arms(
    values: pd.DataFrame,
    metrics: Sequence[str],
    *,
    section: str,
    datasets: Sequence[str],
    methods: Sequence[str] = ("standard",),
    levels: Sequence[float | None] = (None,),
    reduce: Reduce = None,
    profile: str | None = None,
    locator: str | None = None,
) -> pd.DataFrame:
    """Both arms, their paired difference and the paper's values: a row a data set, method, level and metric.

    Args:
        values: Of :func:`tidy`.
        metrics: Metrics.
        section: Section.
        datasets: Image sets; one without records is replaced by its stand-in (:data:`STAND_INS`).
        methods: Methods.
        levels: Levels; ignored with ``reduce``.
        reduce: How the levels are reduced (:func:`compare`).
        profile: The scale; None: the highest of ``paper`` and ``cpu`` at which both arms share two seeds, else one.
        locator: The place in the paper that is preferred where it prints a number more than once.

    Returns:
        ``dataset`` (as asked for), ``measured_on``, ``method``, ``level``, ``metric``, ``profile``, for each arm
        ``scratch``, ``scratch_sd``, ``tuned``, ``tuned_sd``; ``difference`` (tuned less scratch), ``low``, ``high``
        (95 %), ``n``, ``levels`` (how many), ``pretraining_seeds``, and ``paper_scratch``, ``paper_tuned`` (NaN where
        the paper prints none; of an area or mean over the levels that were measured). A setting that only the paper
        has keeps NaN in place of ours.
    """
    rows = []
    for dataset in datasets:
        for method in methods:
            for level in levels if reduce is None else [None]:
                for metric in metrics:
                    row: dict[str, Any] = {"dataset": dataset, "method": method, "level": level, "metric": metric}
                    found = gain(
                        values,
                        metric,
                        section=section,
                        dataset=dataset,
                        method=method,
                        level=level,
                        reduce=reduce,
                        profile=profile,
                    )
                    if found is not None:
                        row |= {
                            "profile": found.profile,
                            "measured_on": found.dataset,
                            "scratch": found.reference.mean(),
                            "scratch_sd": _sd(found.reference),
                            "tuned": found.treated.mean(),
                            "tuned_sd": _sd(found.treated),
                            "difference": found.effect,
                            "low": found.low,
                            "high": found.high,
                            "n": found.n,
                            "levels": len(found.levels),
                            "pretraining_seeds": found.pretraining_seeds,
                        }
                    for name, arm in (("paper_scratch", ARMS[0]), ("paper_tuned", ARMS[1])):
                        row[name] = paper_value(
                            section,
                            dataset=dataset,
                            arm=arm,
                            method=method,
                            metric=metric,
                            level=level,
                            reduce=reduce,
                            levels=found.levels if found is not None else (),
                            locator=locator,
                        )
                    if found is not None or not np.isnan([row["paper_scratch"], row["paper_tuned"]]).all():
                        rows.append(row)
    columns = ["dataset", "measured_on", "method", "level", "metric", "profile", "scratch", "scratch_sd", "tuned"]
    columns += ["tuned_sd", "difference", "low", "high", "n", "levels", "pretraining_seeds"]
    frame = pd.DataFrame(rows, columns=[*columns, "paper_scratch", "paper_tuned"])
    return frame.assign(n=frame["n"].fillna(0).astype(int))


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


@functools.cache
def paper_value(
    section: str,
    *,
    dataset: str,
    arm: str,
    method: str,
    metric: str,
    level: float | None = None,
    reduce: Reduce = None,
    levels: tuple[float, ...] = (),
    locator: str | None = None,
) -> float:
    """The paper's value of a setting, in the unit of our records; NaN where it prints none.

    Args:
        section: Section, like the next four what is looked up.
        dataset: Image set.
        arm: Arm.
        method: Method.
        metric: Metric.
        level: Level.
        reduce: Reduce the levels as ours are; a whole area is the printed one.
        levels: The levels that are reduced; none for all of the paper's.
        locator: The place in the paper that is preferred.
    """
    if section not in SECTIONS:
        return float("nan")
    setting: dict[str, Any] = {"dataset": dataset, "arm": arm, "method": method, "locator": locator}
    if reduce is None:
        rows = select(section, metric=metric, level=level, **setting)
        return float("nan") if rows.empty else float(rows["value"].iloc[0])
    curve = select(section, metric=metric, **setting).dropna(subset="level").drop_duplicates("level")
    table = curve.set_index("level")["value"].sort_index()
    wanted = [place for place in table.index if not levels or np.isclose(place, levels).any()]
    if reduce == "area" and (not levels or np.array_equal(levels, STRENGTHS)):
        printed = select(section, metric=f"{metric}_area", **setting)
        if not printed.empty:
            return float(printed["value"].iloc[0])
    if not wanted or (levels and len(wanted) < len(levels)):
        return float("nan")
    return float(reduced(table[wanted].to_frame().T, reduce)[0])
