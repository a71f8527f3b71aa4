"""Recorded results as one tidy frame, a row per record and metric; what the book shows are filters of it.

Seeds are paired: an effect is taken at each seed, as both sides share every random draw that is not compared, and its
interval is the 95 % interval of Student's t distribution over seeds.
"""

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from robustness_lib.metrics.effective_robustness import LinearFit, accuracy_gap_share
from robustness_lib.models.checkpoint_ids import PUBLIC
from robustness_lib.paper.claims import Floats, Kind, effect
from robustness_lib.paper.numbers import SECTIONS, select
from robustness_lib.runner.records import (
    EVIDENCE,
    PRETRAINING,
    PUBLISHED,
    SETTING,
    Job,
    Record,
    canonical_json,
    checkpoint_id,
    load_published,
    short_hash,
)

Reduce: TypeAlias = Literal["area", "excess", "mean"] | None

ARMS = ("scratch", "pre-trained")
STRENGTHS = tuple(tenths / 10 for tenths in range(11))
"""The corruption strengths that the paper's printed areas are over (P1 §3.2)."""

STAND_INS = {"tiny_imagenet": "tiny_imagenet32"}
"""Image sets that stand in for another without records."""

OOD_SETS = {
    "photographs": ("textures", "svhn", "places365", "lsun", "cifar10", "cifar100", "miniplaces", "imagenet21k"),
    "synthetic": ("gaussian", "rademacher", "blobs"),
}
"""The two kinds of OOD sets, each with a mean of its own."""


def load(folder: Path | str = PUBLISHED) -> pd.DataFrame:
    """All published records, as :func:`tidy` has them."""
    return tidy(load_published(folder=Path(folder)))


def records_of(section: str, folder: Path | str = PUBLISHED) -> list[Record]:
    """The published records of a section and of the pre-trainings, which say what its checkpoints are."""
    return [record for name in (section, PRETRAINING) for record in load_published(name, Path(folder))]


def tidy(records: Iterable[Record]) -> pd.DataFrame:
    """Records of any sections as a long frame; those of pre-trainings say which checkpoints differ by their seed alone.

    Returns:
        One row per record and metric, recorded or derived, with ``section`` to ``level`` (NaN without one), ``seed``,
        ``init``, ``checkpoint`` (equal where only its seed differs), ``recipe`` (canonical JSON), ``precision``,
        ``key``, ``metric``, ``value`` (in the unit of the record), and ``main``: whether the record counts where its
        setting was also measured with another checkpoint or recipe (:func:`_main`).
    """
    records = list(records)
    made = {checkpoint_id(record.job): record.job for record in records if record.job.section == PRETRAINING}
    testbeds = {_test_set(record.job): record.metrics for record in records if record.job.method == "own-testbed"}
    rows: list[dict[str, Any]] = []
    for record in records:
        job, start = record.job, made.get(record.job.init)
        base = {
            **{name: getattr(job, name) for name in (*SETTING, "init", "seed")},
            "level": np.nan if job.level is None else round(job.level, 9),
            "checkpoint": job.init if start is None else short_hash([start.dataset, dict(start.recipe)]),
            "recipe": canonical_json(dict(job.recipe)),
            "precision": record.provenance.get("precision", ""),
            "key": job.key,
            "date": str(record.provenance.get("date", "")),
            "own_start": start is not None and start.seed == job.seed,
        }
        scalars = {name: value for name, value in record.metrics.items() if not isinstance(value, list)}
        derived = _derived(record.metrics) | _dominance(record, testbeds.get(_test_set(job)))
        rows += [{**base, "metric": name, "value": float(value)} for name, value in (scalars | derived).items()]
    columns = [*SETTING, "seed", "init", "checkpoint", "recipe", "precision", "key", "metric", "value"]
    frame = pd.DataFrame(rows, columns=[*columns, "date", "own_start"])
    frame["main"] = frame["key"].isin(_main(frame.drop_duplicates("key")))
    frame = frame.drop(columns=["date", "own_start"])
    kinds = ("section", "profile", "dataset", "arm", "method", "init", "checkpoint", "metric")
    return frame.astype(dict.fromkeys(kinds, "category") | {"level": float, "value": float})


def _main(rows: pd.DataFrame) -> set[str]:
    """The keys of the records that count: one checkpoint and recipe a setting, by the most seeds, then the latest.

    Records whose seeds each start from the pre-training of that seed, with equal settings, are one group. It is
    preferred from three seeds on, and a checkpoint of someone else (:data:`PUBLIC`) never to ours.
    """
    own = rows[rows["own_start"].astype(bool)].drop(columns="init").rename(columns={"checkpoint": "init"})
    groups = pd.concat([rows.assign(own_start=False), own], ignore_index=True)
    same = groups.groupby([*SETTING, "own_start", "init", "recipe"], dropna=False)
    groups["group"], groups["seeds"] = same.ngroup(), same["seed"].transform("nunique")
    groups["latest"] = groups["date"].rank().groupby(groups["group"]).transform("max")
    groups["ours"] = ~groups["init"].str.startswith(PUBLIC)
    groups["preferred"] = groups["own_start"] & (groups["seeds"] >= 3)
    groups = groups.sort_values(["ours", "preferred", "seeds", "own_start", "latest"])
    best = groups.groupby(list(SETTING), dropna=False)["group"].transform("last")
    return set(groups["key"][groups["group"] == best])


def _derived(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that follow from recorded ones: ratios, means over the OOD sets of one kind, and values of lists.

    ``high_share``: of a testbed's models with effective robustness above 1 point, and so of those that were trained on
    more data and of the others. ``mixed_gain``: effective robustness of the best mix of two models beyond both.
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
        if 0 < (more := sum(metrics.get("more_data", []))) < metrics["compared_count"]:  # trained on more data
            found["high_share_more_data"] = metrics["high_more_data"] / more
            count = metrics["high_count"] - metrics["high_more_data"]
            found["high_share_standard"] = count / (metrics["compared_count"] - more)
    if "share" in metrics and "effective_robustness" in metrics:
        mixes = metrics["effective_robustness"]
        found["mixed_gain"] = max(mixes) - max(mixes[0], mixes[-1])
    return found | _gap_share(metrics)


def _gap_share(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Share of the accuracy gap that is closed (P2), in both halves of the epochs on the testbed's line."""
    shift = _natural_shift("slope", metrics)
    if f"history_accuracy_{shift}" not in metrics:
        return {}
    names = (f"history_{name}_{shift}" for name in ("accuracy", "effective_robustness"))
    accuracy, robustness = (np.asarray(metrics[name], dtype=float) for name in names)
    kept = (accuracy >= metrics[f"lowest_{shift}"]) & (accuracy < 1)
    if kept.sum() < 4:
        return {}
    line, accuracy = LinearFit(metrics[f"slope_{shift}"], metrics[f"intercept_{shift}"]), accuracy[kept]
    shares = accuracy_gap_share(accuracy, line.predict(accuracy) + robustness[kept], line)
    if np.isnan(shares).any():  # there is no gap
        return {}
    half = len(shares) // 2
    return {"gap_share_early": float(shares[:half].mean()), "gap_share_late": float(shares[half:].mean())}


def _natural_shift(prefix: str, metrics: Mapping[str, Any]) -> str:
    """The first shift that is none of corruptions, of which there is a metric with this prefix; "" without one."""
    names = (re.fullmatch(rf"{prefix}_((excluded|cifar10).*)", name) for name in metrics)
    return next((name[1] for name in names if name), "")


NEAR = 0.1  # models are compared by their dominance probability where their accuracies differ by less


def _test_set(job: Job) -> tuple[Any, ...]:
    """What decides on which images a network and its testbed are compared."""
    return job.profile, job.dataset, job.recipe.get("test_images")


def _dominance(record: Record, testbed: Mapping[str, Any] | None) -> dict[str, float]:
    """A network's mean dominance probability with testbed models near it, less that of pairs of them (P2 §5.4).

    Nothing for a network that knows some of the classes alone, as its testbed was not compared among these.
    """
    metrics: Mapping[str, Any] = record.metrics
    if testbed is None or "dominance_at_end" not in metrics or metrics["hard_images"] != testbed["hard_images"]:
        return {}
    models = np.asarray(testbed["model_accuracy"], dtype=float)
    low, high = np.triu_indices(len(models), 1)
    ordinary = np.asarray(testbed["dominance"], dtype=float)[np.abs(models[high] - models[low]) < NEAR].mean()
    shifts = re.split("[,:]", str(record.job.recipe["shifts"]))  # the maximum is that of the first
    first = next(metrics[name] for shift in shifts if (name := f"maximum_at_{shift.strip()}") in metrics)
    found = {}
    for when, place in (("maximum", int(first)), ("end", -1)):
        near = np.abs(models - metrics["history_accuracy"][place]) < NEAR
        if near.any():
            values = np.asarray(metrics[f"dominance_at_{when}"], dtype=float)[near]
            found[f"dominance_excess_at_{when}"] = float(values.mean() - ordinary)
    return found


def curves(records: Iterable[Record], y: str, x: str | None = None) -> pd.DataFrame:
    """The list metric ``y`` as a long frame, a row per place of each main record, with the columns of :func:`tidy`.

    The list metric ``x`` has the places, such as ``"history_epoch"``; None: 1, 2, 3, ...
    """
    kept = [one for one in records if one.job.section == PRETRAINING or isinstance(one.metrics.get(y), list)]
    some = [one for one in kept if one.job.section != PRETRAINING]
    frame = where(tidy(kept), main=True).drop_duplicates("key").drop(columns=["metric", "value"])
    places = [one.metrics.get(x or "") or list(range(1, len(one.metrics[y]) + 1)) for one in some]  # type: ignore[arg-type]
    lists = pd.DataFrame({"key": [one.job.key for one in some], "x": places, "value": [one.metrics[y] for one in some]})
    points = lists.explode(["x", "value"], ignore_index=True).astype({"key": str, "x": float, "value": float})
    return points.merge(frame, on="key")


def where(values: pd.DataFrame, **conditions: Any) -> pd.DataFrame:
    """The rows whose columns have the given values; a list: one of them; None: no condition."""
    keep = np.ones(len(values), dtype=bool)
    for column, wanted in conditions.items():
        if wanted is not None:
            several = isinstance(wanted, list | tuple)
            keep &= (values[column].isin(wanted) if several else values[column] == wanted).to_numpy()
    return values[keep]


def train_images(recipes: pd.Series) -> pd.Series:
    """On how many images networks were trained, by their recipes as :func:`tidy` has them; 0 for the whole set."""
    return recipes.str.extract(r'"train_images":(\d+)')[0].astype(int)


def mean_interval(values: Sequence[float] | Floats) -> tuple[float, float, float]:
    """Mean and two-sided 95 % t-interval; a single value has the interval (-inf, inf)."""
    numbers = np.asarray(values, dtype=float)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return mean, -np.inf, np.inf
    half = float(stdtrit(len(numbers) - 1, 0.975) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Comparison:
    """Two sides at the seeds that both have, ascending; where there are none, ``n`` is 0 and all numbers are NaN.

    Attributes:
        treated: One value per seed; ``reference`` likewise.
        effect: Mean over seeds, with its 95 % interval from ``low`` to ``high``, infinite of one seed.
        levels: Those that were reduced to one value, or the only one.
        pretraining_seeds: From how many pre-trainings pre-trained sides start, the least of both; 0 without such.
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


def compare(values: pd.DataFrame, treated: dict[str, Any], reference: dict[str, Any], **how: Any) -> Comparison:
    """Compare two sides of ``values`` (:func:`tidy`), as :func:`paired` does with the options ``how``.

    A side is given by conditions on the columns, at least section, profile, dataset, method and metric.
    """
    sides = (where(values, main=True, **conditions) for conditions in (treated, reference))
    return replace(paired(*sides, **how), profile=treated["profile"], dataset=treated["dataset"])


def paired(
    treated: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    level: float | None = None,
    reduce: Reduce = None,
    kind: Kind = "difference",
) -> Comparison:
    """Compare the rows of two sides, seed by seed, leaving out seeds where the effect is not finite.

    Args:
        treated: Rows of :func:`tidy`; so ``reference``.
        level: The level of both; None: records without a level, or all of them with ``reduce``.
        reduce: Reduce the levels that both sides have to the trapezoid ``"area"``, to that without the value at level 0
            (``"excess"``), or to the ``"mean"``; of an unfinished sweep the levels and seeds with the most values.
    """
    if treated.empty or reference.empty:
        return Comparison()
    tables = [_table(side, level, reduce) for side in (treated, reference)]
    seeds, levels = _complete(tables[0].keys() & tables[1].keys(), reduce)
    if not seeds or not levels:
        return Comparison()
    one, other = (
        _reduced(np.array([[table[seed, place] for place in levels] for seed in seeds]), levels, reduce)
        for table in tables
    )
    found = effect(kind, one, other)
    fine = np.isfinite(found)
    if not fine.any():
        return Comparison()
    kept = [seed for seed, is_fine in zip(seeds, fine, strict=True) if is_fine]
    origins = (zip(side["arm"], side["seed"], side["init"], strict=True) for side in (treated, reference))
    starts = (len({init for arm, seed, init in side if arm == ARMS[1] and seed in kept}) for side in origins)
    return Comparison(
        tuple(kept),
        one[fine],
        other[fine],
        *mean_interval(found[fine]),
        levels=tuple(levels) if reduce or level is not None else (),
        pretraining_seeds=min(filter(None, starts), default=0),
    )


def _table(side: pd.DataFrame, level: float | None, reduce: Reduce) -> dict[tuple[int, float], float]:
    """Finite values by seed and level, 0 where there is none; a ValueError where there are two: an open condition."""
    values, levels = side["value"].to_numpy(), side["level"].to_numpy()
    here = np.isnan(levels) if level is None else np.isclose(levels, level)
    keep = np.isfinite(values) & (here | bool(reduce))
    places = list(zip(side["seed"][keep].tolist(), np.nan_to_num(levels[keep]).tolist(), strict=True))
    if len(set(places)) < len(places):
        raise ValueError("there are two values for one seed and level; select one arm and method")
    return dict(zip(places, values[keep].tolist(), strict=True))


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


def _reduced(numbers: Floats, levels: Sequence[float], reduce: Reduce) -> Floats:
    """One number per row of values [seeds, levels]."""
    if reduce in ("area", "excess"):
        areas = np.asarray(np.trapezoid(numbers, levels, axis=1))
        return areas - numbers[:, 0] if reduce == "excess" else areas
    return np.asarray(numbers.mean(axis=1))


def gain(
    values: pd.DataFrame,
    metric: str,
    *,
    section: str,
    dataset: str,
    method: str = "standard",
    profile: str | None = None,
    **how: Any,
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
            found = compare(values, *sides, **how)
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
    """Both arms, their paired difference and the paper's values: a row per data set, method, level and metric.

    ``locator`` is the place in the paper that is preferred where it prints a number more than once. Means and standard
    deviations are over seeds; the paper's areas and means are over the levels that were measured; ``dataset`` is as
    asked for. What only one side has is NaN of the other.
    """
    rows: list[list[Any]] = []
    for dataset, method, level, metric in itertools.product(datasets, methods, levels, metrics):
        setting: dict[str, Any] = {"dataset": dataset, "method": method, "level": level, "reduce": reduce}
        found = gain(values, metric, section=section, profile=profile, **setting)
        setting |= {"metric": metric, "levels": found.levels, "locator": locator}
        paper = [paper_value(section, arm=arm, **setting) for arm in ARMS]
        if found.n or not np.isnan(paper).all():
            sides = [pd.Series(side, dtype=float) for side in (found.reference, found.treated)]
            numbers = [number for side in sides for number in (side.mean(), side.std())]
            numbers += [found.effect, found.low, found.high, found.n, found.pretraining_seeds]
            rows.append([dataset, found.dataset or dataset, method, level, metric, found.profile, *numbers, *paper])
    columns = ["dataset", "measured_on", "method", "level", "metric", "profile", "scratch", "scratch_sd", "tuned"]
    columns += ["tuned_sd", "difference", "low", "high", "n", "pretraining_seeds", "paper_scratch", "paper_tuned"]
    return pd.DataFrame(rows, columns=columns)


def basis(rows: pd.DataFrame) -> str:
    """On what rows of :func:`tidy` rest: "`cpu`, 3 seeds", or of :func:`arms`: "`cpu`, 3 seeds, one pre-training"."""
    if "n" in rows:
        counts = rows[rows["n"] > 0].rename(columns={"n": "seed", "pretraining_seeds": "pre-training"})
    else:
        same = [name for name in SETTING if name in rows]
        counts = rows.groupby(same, observed=True, dropna=False)["seed"].nunique().reset_index()
    texts = []
    for profile, some in counts.sort_values("profile", ascending=False).groupby("profile", observed=True, sort=False):
        parts = [f"`{profile}`"]
        for what in some.columns.intersection(["seed", "pre-training"]):
            least, most = int(some[what].min()), int(some[what].max())
            number = "one" if most == 1 and what != "seed" else f"{least} to {most}" if least < most else most
            parts.append(f"{number} {what}{'s' * (most > 1)}")
        texts.append(", ".join(parts))
    return "; ".join(texts)


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
    if reduce is None or (reduce == "area" and (not levels or np.array_equal(levels, STRENGTHS))):
        printed = select(section, metric=f"{metric}_area" if reduce else metric, level=level, **setting)
        if reduce is None or not printed.empty:
            return float("nan") if printed.empty else float(printed["value"].iloc[0])
    curve = select(section, metric=metric, **setting).dropna(subset="level").drop_duplicates("level")
    table = curve.set_index("level")["value"].sort_index()
    wanted = [place for place in table.index if not levels or np.isclose(place, levels).any()]
    if not wanted or (levels and len(wanted) < len(levels)):
        return float("nan")
    return float(_reduced(table[wanted].to_numpy()[None], wanted, reduce)[0])


def paper_ood_means(values: pd.DataFrame, metric: str, *, dataset: str, profile: str) -> list[float]:
    """The paper's means of, say, ``"auroc_mean"`` in both arms over the OOD sets that ours is over; NaN without one."""
    ours = where(values, section="ood", main=True, dataset=dataset, profile=profile, method="standard", metric=metric)
    score, kind = metric.split("_")
    if ours.empty or score == "fpr95":  # of which P1 prints nothing
        return [float("nan")] * 2
    sets = [s for s in json.loads(ours["recipe"].iloc[0])["ood_sets"].split(":") if s in OOD_SETS.get(kind, (s,))]
    setting = {"dataset": dataset, "method": "standard"}
    printed = [[paper_value("ood", metric=f"{score}_{name}", arm=arm, **setting) for name in sets] for arm in ARMS]
    return [float(np.mean(one)) for one in printed]
