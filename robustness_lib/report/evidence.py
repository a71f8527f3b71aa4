"""Recorded results as one tidy frame, a row a record and metric; what the book shows are filters of it.

Seeds are paired: both sides of a comparison share every random draw that is not compared, so an effect is taken at each
seed, and its interval is the 95 % interval of Student's t distribution over seeds.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from scipy import stats

from robustness_lib.metrics.effective_robustness import LinearFit, accuracy_gap_share
from robustness_lib.paper.claims import Floats, Kind, effect
from robustness_lib.paper.numbers import SECTIONS, select
from robustness_lib.runner.records import EVIDENCE, PUBLISHED, SCRATCH, Record, canonical_json, load_published

Reduce: TypeAlias = Literal["area", "excess", "mean"] | None

ARMS = ("scratch", "pre-trained")
SETTING = ["section", "profile", "dataset", "arm", "method", "level"]
"""What the records of one setting share; they differ by seed, or by checkpoint and recipe."""

STRENGTHS = tuple(tenths / 10 for tenths in range(11))
"""The corruption strengths that the paper's printed areas are over (P1 §3.2)."""

STAND_INS = {"tiny_imagenet": "tiny_imagenet32"}
"""Image sets that stand in for another where it has no records: Tiny ImageNet at 32 pixels."""

OOD_SETS = {
    "photographs": ("textures", "svhn", "places365", "lsun", "cifar10", "cifar100", "miniplaces", "imagenet21k"),
    "synthetic": ("gaussian", "rademacher", "blobs"),
}
"""The two kinds of OOD sets, over which there are means beside the one over all."""


def load(folder: Path | str = PUBLISHED, section: str | None = None) -> pd.DataFrame:
    """The published records (of one section), as :func:`tidy` has them."""
    return tidy(load_published(section, Path(folder)))


def tidy(records: Iterable[Record]) -> pd.DataFrame:
    """Records of any sections as a long frame.

    Returns:
        One row a record and scalar metric: ``section``, ``profile``, ``dataset``, ``arm``, ``method``, ``level`` (NaN
        without one), ``seed``, ``init``, ``recipe`` (canonical JSON), ``precision``, ``key``, ``metric``, ``value`` (in
        the unit of the record), and ``main``: whether the record counts where its setting was also measured with
        another checkpoint or recipe (:func:`_main`). Metrics that follow from others are added (:func:`_derived`).
    """
    records = list(records)
    rows: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    testbeds = {(r.job.profile, r.job.dataset): r.metrics for r in records if r.job.method == "own-testbed"}
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
        derived = _derived(record.metrics) | _dominance(record.metrics, testbeds.get((job.profile, job.dataset)))
        settings.append(base)
        rows += [{**base, "metric": name, "value": float(value)} for name, value in (scalars | derived).items()]
    columns = [*SETTING, "seed", "init", "recipe", "precision", "date", "key", "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["main"] = frame["key"].isin(_main(settings))
    for name in ("section", "profile", "dataset", "arm", "method", "init", "metric"):
        frame[name] = frame[name].astype("category")
    return frame.drop(columns="date")


def _derived(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that follow from recorded ones.

    ``adversarial_ratio``: adversarial over clean accuracy. ``auroc_photographs``, ``auroc_synthetic`` and so on: the
    mean over the OOD sets of that kind. ``class_error_1`` and so on, of ten classes. ``history_error_half`` and
    ``_last``: the value at half of the epochs and at the end. ``high_share``: share of a testbed's models with
    effective robustness above 1 point. ``mixed_gain``: effective robustness of the best mix of two models beyond both
    of them. ``gap_share_early`` and ``_late``: share of the accuracy gap that effective robustness closes (P2), in the
    first and the second half of those epochs whose accuracy the testbed reaches.
    """
    found: dict[str, float] = {}
    if metrics.get("clean_accuracy") and "adversarial_accuracy" in metrics:
        found["adversarial_ratio"] = metrics["adversarial_accuracy"] / metrics["clean_accuracy"]
    for score in ("auroc", "aupr", "fpr95"):
        for kind, sets in OOD_SETS.items():
            values = [metrics[name] for ood in sets if (name := f"{score}_{ood}") in metrics]
            if values and f"{score}_mean" in metrics:
                found[f"{score}_{kind}"] = float(np.mean(values))
    if len(errors := metrics.get("class_error", [])) == 10:
        found |= {f"class_error_{place}": error for place, error in enumerate(errors, 1)}
    for name in ("history_error", "history_train_error", "history_rms_calibration_error"):
        if course := metrics.get(name):
            epochs = metrics.get("history_epoch", range(1, len(course) + 1))
            found[f"{name}_last"] = course[-1]
            half = [value for value, epoch in zip(course, epochs, strict=True) if epoch <= epochs[-1] / 2]
            found |= {f"{name}_half": half[-1]} if half else {}
    if metrics.get("compared_count"):
        found["high_share"] = metrics["high_count"] / metrics["compared_count"]
    if "share" in metrics and "effective_robustness" in metrics:
        mixes = metrics["effective_robustness"]
        found["mixed_gain"] = max(mixes) - max(mixes[0], mixes[-1])
    return found | _gap_share(metrics)


def _gap_share(metrics: Mapping[str, Any]) -> dict[str, float]:
    shift = _natural_shift("slope", metrics)
    if f"history_accuracy_{shift}" not in metrics:
        return {}
    accuracy, robustness = (
        np.asarray(metrics[f"history_{name}_{shift}"], dtype=float) for name in ("accuracy", "effective_robustness")
    )
    kept = (accuracy >= metrics[f"lowest_{shift}"]) & (accuracy < 1)
    if kept.sum() < 4:
        return {}
    line = LinearFit(metrics[f"slope_{shift}"], metrics[f"intercept_{shift}"])
    accuracy = accuracy[kept]
    shares = accuracy_gap_share(accuracy, line.predict(accuracy) + robustness[kept], line)
    half = len(shares) // 2
    return {"gap_share_early": float(shares[:half].mean()), "gap_share_late": float(shares[half:].mean())}


def _natural_shift(prefix: str, metrics: Mapping[str, Any]) -> str:
    """The first shift that is none of corruptions, of which there is a metric with this prefix; "" without one."""
    names = (re.fullmatch(rf"{prefix}_((excluded|cifar10).*)", name) for name in metrics)
    return next((name[1] for name in names if name), "")


NEAR = 0.1
"""Models are compared by their dominance probability where their accuracies differ by less."""


def _dominance(metrics: Mapping[str, Any], testbed: Mapping[str, Any] | None) -> dict[str, float]:
    """A network's mean dominance probability with testbed models of nearly its accuracy, less that of pairs of them.

    ``dominance_excess_at_maximum`` and ``_at_end`` (P2 §5.4).
    """
    if testbed is None or "dominance_at_end" not in metrics:
        return {}
    models = np.asarray(testbed["model_accuracy"], dtype=float)
    low, high = np.triu_indices(len(models), 1)
    ordinary = np.asarray(testbed["dominance"], dtype=float)[np.abs(models[high] - models[low]) < NEAR].mean()
    shift = _natural_shift("maximum_at", metrics)
    found = {}
    for when, place in (("maximum", int(metrics[f"maximum_at_{shift}"])), ("end", -1)):
        near = np.abs(models - metrics["history_accuracy"][place]) < NEAR
        if near.any():
            values = np.asarray(metrics[f"dominance_at_{when}"], dtype=float)[near]
            found[f"dominance_excess_at_{when}"] = float(values.mean() - ordinary)
    return found


def pretraining_seed(init: str) -> int | None:
    """The seed of a checkpoint of ours, from its id; None of other ones."""
    found = re.search(r"_s(\d+)_[0-9a-f]{6}$", init)
    return None if found is None else int(found[1])


def family(init: str) -> str:
    """A checkpoint's id without its seed and hash, which its pre-trainings with other seeds share."""
    return re.sub(r"_s\d+_[0-9a-f]{6}$", "", init)


def _main(rows: Iterable[dict[str, Any]]) -> set[str]:
    """The keys of the records that count: one checkpoint and recipe a setting, by the most seeds, then the latest.

    Records whose seeds each start from the pre-training of that seed count as one group, preferred at equal numbers.
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
    """The list metric ``y`` as a long frame, a row a place of each main record, with the columns of :func:`tidy`.

    The list metric ``x`` has the places, such as ``"history_epoch"``; None: 1, 2, 3, ...
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


@dataclass(frozen=True)
class Comparison:
    """Two sides at the seeds that both have; where there are none, ``n`` is 0 and all numbers are NaN.

    Attributes:
        seeds: The paired seeds, ascending.
        treated: One value a seed; ``reference`` likewise.
        effect: Mean effect over seeds, with its 95 % interval from ``low`` to ``high``, infinite of one seed.
        levels: The levels that were reduced to one value, or the only one; empty without levels.
        pretraining_seeds: How many pre-trainings the pre-trained sides start from, the least of both; 0 without such.
        profile: The scale.
        dataset: The image set of the treated side.
    """

    seeds: tuple[int, ...] = ()
    treated: Floats = field(default_factory=lambda: np.array([]))
    reference: Floats = field(default_factory=lambda: np.array([]))
    effect: float = np.nan
    low: float = np.nan
    high: float = np.nan
    levels: tuple[float, ...] = ()
    pretraining_seeds: int = 0
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
) -> Comparison:
    """Compare two sides, seed by seed, leaving out seeds where the effect is not finite.

    Args:
        values: Of :func:`tidy`.
        treated: Conditions on its columns (:func:`where`): at least section, profile, dataset, method and metric.
        reference: The same of the other side.
        level: The level of both; None: records without a level, or all of them with ``reduce``.
        reduce: Reduce the levels that both sides have to the trapezoid ``"area"``, to that without the value at level 0
            (``"excess"``), or to the ``"mean"``; of an unfinished sweep the levels and seeds with the most values.
        kind: The effect.
    """
    sides = [measurements(where(values, main=True, **conditions)) for conditions in (treated, reference)]
    found = paired(*sides, level=level, reduce=reduce, kind=kind)
    return replace(found, profile=str(treated["profile"]), dataset=str(treated["dataset"]))


class Measurement(NamedTuple):
    """What a comparison needs of a row of :func:`tidy`."""

    seed: int
    level: float
    value: float
    arm: str
    init: str


def measurements(rows: pd.DataFrame) -> list[Measurement]:
    """The rows of a frame of :func:`tidy`."""
    return [Measurement(*row) for row in zip(*(rows[name].tolist() for name in Measurement._fields), strict=True)]


def paired(
    treated: Sequence[Measurement],
    reference: Sequence[Measurement],
    *,
    level: float | None = None,
    reduce: Reduce = None,
    kind: Kind = "difference",
) -> Comparison:
    """:func:`compare` of two sides that are selected already."""
    tables = [_table(side, level, reduce) for side in (treated, reference)]
    seeds, levels = _complete(tables[0].keys() & tables[1].keys(), reduce)
    if not seeds or not levels:
        return Comparison()
    one, other = (
        reduced(np.array([[table[seed, place] for place in levels] for seed in seeds]), levels, reduce)
        for table in tables
    )
    found = effect(kind, one, other)
    fine = np.isfinite(found)
    if not fine.any():
        return Comparison()
    kept = [seed for seed, is_fine in zip(seeds, fine, strict=True) if is_fine]
    starts = [{row.init for row in side if row.arm == ARMS[1] and row.seed in kept} for side in (treated, reference)]
    return Comparison(
        tuple(kept),
        one[fine],
        other[fine],
        *mean_interval(found[fine]),
        levels=tuple(levels) if reduce or level is not None else (),
        pretraining_seeds=min((len(start) for start in starts if start), default=0),
    )


def _table(side: Iterable[Measurement], level: float | None, reduce: Reduce) -> dict[tuple[int, float], float]:
    """Finite values by seed and level, 0 where there is none; a ValueError where there are two: an open condition."""
    found: dict[tuple[int, float], float] = {}
    for row in side:
        here = reduce or (math.isnan(row.level) if level is None else math.isclose(row.level, level, abs_tol=1e-9))
        if here and math.isfinite(row.value):
            place = row.seed, 0.0 if math.isnan(row.level) else row.level
            if place in found:
                raise ValueError(f"two values for seed {place[0]} at level {place[1]:g}; select one arm and method")
            found[place] = row.value
    return found


def _complete(pairs: Set[tuple[int, float]], reduce: Reduce) -> tuple[list[int], list[float]]:
    """The seeds and levels without a gap that hold the most values, of two seeds at least; an area needs 0 and 1."""
    counts = Counter(level for _, level in pairs)
    found: list[tuple[list[int], list[float]]] = []
    for least in sorted(set(counts.values())):
        levels = sorted(level for level, count in counts.items() if count >= least)
        if reduce not in ("area", "excess") or {0.0, 1.0} <= set(levels):
            seeds = {seed for seed, _ in pairs if all((seed, level) in pairs for level in levels)}
            found.append((sorted(seeds), levels))
    return max(found, key=lambda one: (min(len(one[0]), 2), len(one[0]) * len(one[1])), default=([], []))


def reduced(numbers: Floats, levels: Sequence[float], reduce: Reduce) -> Floats:
    """One number a row of values [seeds, levels]."""
    if reduce is None or reduce == "mean":
        means: Floats = numbers.mean(axis=1)
        return means
    areas = np.asarray(np.trapezoid(numbers, levels, axis=1))
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
) -> Comparison:
    """The pre-trained arm compared with the one from scratch, as by :func:`compare`.

    The image set's stand-in (:data:`STAND_INS`) counts where it has no records of its own. Without ``profile`` the
    highest of ``paper`` and ``cpu`` at which both arms share two seeds counts, else one seed.
    """
    best = Comparison()
    for scale in [profile] if profile else EVIDENCE:
        for place in filter(None, (dataset, STAND_INS.get(dataset))):
            side = {"section": section, "profile": scale, "dataset": place, "method": method, "metric": metric}
            sides = (side | {"arm": arm} for arm in reversed(ARMS))
            found = compare(values, *sides, level=level, reduce=reduce, kind=kind)
            if min(found.n, 2) > min(best.n, 2):
                best = found
    return best


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

    Args are those of :func:`gain`, several at a time; ``locator`` is the place in the paper that is preferred where it
    prints a number more than once.

    Returns:
        ``dataset`` (as asked for), ``measured_on``, ``method``, ``level``, ``metric``, ``profile``, for each arm
        ``scratch``, ``scratch_sd``, ``tuned``, ``tuned_sd``; ``difference`` (tuned less scratch), ``low``, ``high``
        (95 %), ``n``, ``levels`` (how many), ``pretraining_seeds``, and ``paper_scratch``, ``paper_tuned`` (NaN where
        the paper prints none; of an area or mean over the levels that were measured). A setting that only the paper
        has keeps NaN in place of ours.
    """
    rows: list[dict[str, Any]] = []
    places = levels if reduce is None else [None]
    for dataset, method, level, metric in itertools.product(datasets, methods, places, metrics):
        setting: dict[str, Any] = {"dataset": dataset, "method": method, "level": level, "reduce": reduce}
        found = gain(values, metric, section=section, profile=profile, **setting)
        setting |= {"metric": metric, "levels": found.levels, "locator": locator}
        paper = {
            f"paper_{name}": paper_value(section, arm=arm, **setting)
            for name, arm in zip(("scratch", "tuned"), ARMS, strict=True)
        }
        if found.n or not np.isnan(list(paper.values())).all():
            rows.append(
                {
                    "dataset": dataset,
                    "measured_on": found.dataset or dataset,
                    **{"method": method, "level": level, "metric": metric, "profile": found.profile},
                    **_side("scratch", found.reference),
                    **_side("tuned", found.treated),
                    **{"difference": found.effect, "low": found.low, "high": found.high, "n": found.n},
                    "levels": len(found.levels),
                    "pretraining_seeds": found.pretraining_seeds,
                    **paper,
                }
            )
    columns = ["dataset", "measured_on", "method", "level", "metric", "profile", "scratch", "scratch_sd", "tuned"]
    columns += ["tuned_sd", "difference", "low", "high", "n", "levels", "pretraining_seeds"]
    return pd.DataFrame(rows, columns=[*columns, "paper_scratch", "paper_tuned"])


def basis(rows: pd.DataFrame) -> str:
    """At which scales and over how many seeds rows of :func:`tidy` or :func:`arms` are: "`cpu`, 3 seeds"."""
    if "n" in rows:
        counts = rows[rows["n"] > 0].groupby("profile", observed=True)["n"].agg(["min", "max"])
    else:
        same = [name for name in SETTING if name in rows]
        seeds = rows.groupby(same, observed=True, dropna=False)["seed"].nunique()
        counts = seeds.groupby("profile", observed=True).agg(["min", "max"])
    return "; ".join(
        f"`{profile}`, {least}{f' to {most}' * (least < most)} seed{'s' * (most > 1)}"
        for profile, (least, most) in counts.sort_index(ascending=False).iterrows()
    )


def _side(name: str, values: Floats) -> dict[str, float]:
    """Mean and standard deviation of one side, NaN where there are too few values."""
    series = pd.Series(values, dtype=float)
    return {name: float(series.mean()), f"{name}_sd": float(series.std())}


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

    With ``reduce`` the ``levels`` (none: all of the paper's) are reduced as ours are; a whole area is the printed one.
    """
    if section not in SECTIONS:
        return float("nan")
    setting: dict[str, Any] = {"dataset": dataset, "arm": arm, "method": method, "locator": locator}
    if reduce is None:
        rows = select(section, metric=metric, level=level, **setting)
        return float("nan") if rows.empty else float(rows["value"].iloc[0])
    if reduce == "area" and (not levels or np.array_equal(levels, STRENGTHS)):
        printed = select(section, metric=f"{metric}_area", **setting)
        if not printed.empty:
            return float(printed["value"].iloc[0])
    curve = select(section, metric=metric, **setting).dropna(subset="level").drop_duplicates("level")
    table = curve.set_index("level")["value"].sort_index()
    wanted = [place for place in table.index if not levels or np.isclose(place, levels).any()]
    if not wanted or (levels and len(wanted) < len(levels)):
        return float("nan")
    return float(reduced(table[wanted].to_numpy()[None], wanted, reduce)[0])


def paper_ood_means(values: pd.DataFrame, metric: str, *, dataset: str, profile: str) -> list[float]:
    """The paper's means from scratch and pre-trained over the OOD sets that ours is over; NaN where it lacks one.

    Args:
        values: Of :func:`tidy`.
        metric: ``"auroc_mean"``, ``"aupr_synthetic"`` and so on.
        dataset: In-distribution set.
        profile: The scale of ours.
    """
    ours = where(values, section="ood", main=True, dataset=dataset, profile=profile, method="standard", metric=metric)
    score, kind = metric.split("_")
    if ours.empty or score == "fpr95":  # of which P1 prints nothing
        return [float("nan")] * 2
    sets = [
        name
        for name in json.loads(ours["recipe"].iloc[0])["ood_sets"].split(":")
        if name in OOD_SETS.get(kind, (name,))
    ]
    setting = {"dataset": dataset, "method": "standard"}
    printed = [[paper_value("ood", metric=f"{score}_{name}", arm=arm, **setting) for name in sets] for arm in ARMS]
    return [float(np.mean(one)) for one in printed]
