"""Tables and sentences of the calibration page: temperature, noise of the bins, the last bin, course of a training.

As everywhere, ours are means over seeds with their standard deviation, at the highest profile that has records. Every
sentence is computed from the records, and says "not run" where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from robustness_lib.paper import label, per_seed, profile_of, runs, select
from robustness_lib.paper.claims import Floats
from robustness_lib.records import EVIDENCE
from robustness_lib.report.tables import (
    ARMS,
    NOT_RUN,
    Markdown,
    comparison_rows,
    counted,
    listed,
    myst_table,
    number,
    spread,
)

SECTION = "calibration"
RMS = "rms_calibration_error"
TUNED = "temperature"
"""The method whose networks are trained on nine tenths of the images."""

_DASH = "–"
_LOG = "Outlier Exposure log"


def falls_note(records: pd.DataFrame, *, datasets: Sequence[str]) -> str:
    """By which share the RMS calibration error falls with pre-training, the paper's and ours.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.

    Returns:
        Two sentences; "" where nothing is recorded.
    """
    rows = comparison_rows(SECTION, records, metrics=[RMS], datasets=datasets, locator="P1 Table 5")
    told: dict[str, list[str]] = {"paper": [], "mean": []}
    for dataset in datasets:
        arms = rows[rows["dataset"] == dataset].set_index("arm")
        for column, found in told.items():
            scratch, tuned = (float(arms[column].get(arm, math.nan)) for arm in ARMS)
            if math.isfinite(scratch + tuned):
                used = dataset if column == "paper" else str(arms["measured_on"].iloc[0])
                share = 100 * (1 - tuned / scratch)
                where = "" if column == "paper" else f" (`{arms['profile'].iloc[0]}`)"
                found.append(f"{abs(share):.0f} % {'less' if share >= 0 else 'more'} on {label(used)}{where}")
    if not told["mean"]:
        return ""
    return (
        f"RMS error with pre-training, in the paper: {listed(told['paper']) or 'no number'}; here: "
        f"{listed(told['mean'])}. "
        "The claims about it ask only whether it falls."
    )


def bin_noise(accuracy: Sequence[float] | Floats, bin_size: int = 100) -> float:
    """The RMS calibration error that bins would show by chance if the confidence were exactly right in each.

    In a bin whose images are right with probability a, the share of right ones among s scatters with the variance
    a (1 - a) / s. The observed share p gives a (1 - a) without bias as p (1 - p) s / (s - 1).

    Args:
        accuracy: [B], the share of right predictions in each bin of equally many images.
        bin_size: Images in a bin, two or more.

    Returns:
        The root mean square of the scatter.
    """
    share = np.asarray(accuracy, dtype=float)
    return float(np.sqrt(np.mean(share * (1 - share)) / (bin_size - 1)))


def temperature_table(
    records: pd.DataFrame, *, datasets: Sequence[str], caption: str, name: str, profile: str | None = None
) -> Markdown:
    """Calibration before and after temperature tuning, ours and what the authors published, each with its source.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        A numbered MyST table; cells read "before → after". What the authors' code computed lacks the last bin and
        stands in the column that ours have without it, too.
    """
    names = [RMS, f"{RMS}_tempered", f"{RMS}_dropped_bin", f"{RMS}_dropped_bin_tempered", "temperature"]
    table = comparison_rows(SECTION, records, metrics=names, datasets=datasets, methods=[TUNED], profile=profile)
    rows = []
    for dataset in datasets:
        for arm in ARMS:
            mine = (
                table[(table["dataset"] == dataset) & (table["arm"] == arm) & (table["n"] > 0)] if len(table) else table
            )
            if len(mine):
                found = {row["metric"]: row for row in mine.to_dict("records")}
                values = {
                    each: number(row["mean"], each) + (f" ± {number(row['sd'], each)}" if row["n"] > 1 else "")
                    for each, row in found.items()
                }
                first = next(iter(found.values()))
                source = f"here, `{first['profile']}`, n = {first['n']}"
                rows.append(
                    [f"{label(first['measured_on'])}, {label(arm)}", source, *_before_and_after(values, values)]
                )
            printed = select(SECTION, dataset=dataset, arm=arm, method=TUNED)
            for locator, group in printed.groupby("locator", sort=False):
                theirs = dict(zip(group["metric"], group["printed"], strict=True))
                without = {f"{RMS}_dropped_bin": theirs.get(RMS), f"{RMS}_dropped_bin_tempered": _without(theirs)}
                told = {**without, "temperature": theirs.get("temperature")}
                shown = {each: str(value) for each, value in told.items() if value is not None}
                named = "OE log" if locator == _LOG else str(locator)
                rows.append([f"{label(dataset)}, {label(arm)}", named, *_before_and_after({}, shown)])
    header = ["Setting", "Source", "RMS, all bins (%)", "RMS, last bin dropped (%)", "Temperature"]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 4]], caption=caption, name=name)


def _without(theirs: dict[str, str]) -> str | None:
    """The tuned RMS error that the authors' code computed."""
    return theirs.get(f"{RMS}_dropped_bin_tempered", theirs.get(f"{RMS}_tempered"))


def _before_and_after(all_bins: dict[str, str], others: dict[str, str]) -> list[str]:
    pairs = [(all_bins, RMS, f"{RMS}_tempered"), (others, f"{RMS}_dropped_bin", f"{RMS}_dropped_bin_tempered")]
    cells = [
        f"{values.get(before, _DASH)} → {values.get(after, _DASH)}" if before in values or after in values else _DASH
        for values, before, after in pairs
    ]
    return [*cells, others.get("temperature", _DASH)]


def temperature_note(records: pd.DataFrame, *, datasets: Sequence[str], profile: str | None = None) -> Markdown:
    """How far a tuned temperature brings both arms, beside the noise of the bins and what pre-training brings.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.
        profile: The records' profile; None: the highest with records of each set.
    """
    lines: list[str] = []
    gaps: list[tuple[str, str, int, float, float]] = []
    for dataset in datasets:
        scale = profile or profile_of(records[records["method"] == TUNED], SECTION, dataset)
        sides = {arm: _values(records, dataset, arm, scale) for arm in ARMS} if scale else {}
        told = []
        for arm, found in sides.items():
            if len(found.after):
                means = f"{_percent(found.before.mean())} → {_percent(found.after.mean())} %"
                seeds = counted(len(found.after), "seed")
                told.append(f"{means} {label(arm)} (noise {_percent(found.noise)} %, {seeds})")
        if told:
            lines.append(f"{label(dataset)}, `{scale}`: {'; '.join(told)}.")
        if sides:
            gap_before, gap_after = sides["scratch"].above(sides["pre-trained"])
            if len(gap_before) and len(gap_after):
                gaps.append((dataset, str(scale), len(gap_after), float(gap_before.mean()), float(gap_after.mean())))
    if not lines:
        return Markdown(f"RMS calibration error with a tuned temperature here: {NOT_RUN}.")
    text = "RMS calibration error before and after tuning, and what the bins would show by chance alone:\n"
    lines = ["\n".join([text, *(f"- {line}" for line in lines)])]
    for dataset, scale, count, before, after in gaps:
        gap = f"On {label(dataset)} at `{scale}` the gap between the arms is {_points(before)} before tuning and "
        gap += f"{_points(after)} after ({counted(count, 'seed')})."
        if before > 0 and after < before / 2:
            gap += (
                " So at this scale most of what pre-training gains in calibration there can also be had by one number "
                "that is fitted on held-out images" + ("." if count > 1 else ", as far as one seed tells.")
            )
        lines.append(gap)
    return Markdown("\n\n".join(lines))


@dataclass(frozen=True, eq=False)
class _Tuned:
    """RMS errors by seed before and after tuning, and the mean noise of the bins."""

    before: pd.Series
    after: pd.Series
    noise: float

    def above(self, other: _Tuned) -> tuple[pd.Series, pd.Series]:
        """How far they are above another's at the seeds that both have, before and after."""
        return (self.before - other.before).dropna(), (self.after - other.after).dropna()


def _values(records: pd.DataFrame, dataset: str, arm: str, profile: str) -> _Tuned:
    setting: dict[str, Any] = {"section": SECTION, "profile": profile, "dataset": dataset, "arm": arm, "method": TUNED}
    before, after = (per_seed(records, **setting, metric=name) for name in (RMS, f"{RMS}_tempered"))
    noise = [
        bin_noise(row["reliability_accuracy"], int(row["recipe"].get("bin_size", 100)))
        for row in runs(records, **setting).to_dict("records")
        if isinstance(row.get("reliability_accuracy"), Sequence)
    ]
    return _Tuned(before, after, float(np.mean(noise)) if noise else math.nan)


def accuracy_note(records: pd.DataFrame, *, datasets: Sequence[str]) -> Markdown:
    """Where pre-training raises the test error here though it lowers it in the paper's logs, and what comes with that.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets; each is looked at by its highest profile that has both arms, over the seeds of both.

    Returns:
        Markdown; empty where it lowers the error on every set.
    """
    raised: list[str] = []
    changes: dict[str, list[tuple[float, float]]] = {RMS: [], _LIKELIHOOD: []}
    lowered: list[str] = []
    for dataset in datasets:
        found = [(profile, both) for profile in EVIDENCE if (both := _means(records, profile, dataset, "error"))]
        if not found or found[0][1][1] <= found[0][1][0]:
            continue
        (profile, error), others = found[0], found[1:]
        printed = [select(SECTION, dataset=dataset, arm=arm, method="standard", metric="error") for arm in ARMS]
        theirs = " → ".join(str(one["printed"].iloc[0]) for one in printed if len(one)) or NOT_RUN
        raised.append(f"on {label(dataset)}, {_arrow(error, 'error')} % (`{profile}`; theirs {theirs} %)")
        for each, pairs in changes.items():
            if both := _means(records, profile, dataset, each):
                pairs.append(both)
        for other, both in others:
            rows = runs(records, section=SECTION, profile=other, dataset=dataset, arm=ARMS[1], method="standard")
            images = int(rows["recipe"].iloc[0].get("train_images") or 0)
            if both[1] < both[0] and images:
                lowered.append(
                    f"on {label(dataset)}, {_arrow(both, 'error')} % (`{other}`, {images:,} images of the target)"
                )
    if not raised:
        return Markdown("")
    text = f"Pre-training lowers the test error in the authors' logs, but raises it here {listed(raised)}."
    if changes[RMS] and all(after < before for before, after in changes[RMS]):
        text += " The confidence is nearer to the accuracy all the same"
        if changes[_LIKELIHOOD] and all(after > before for before, after in changes[_LIKELIHOOD]):
            told = listed([_arrow(pair, _LIKELIHOOD) for pair in changes[_LIKELIHOOD]])
            text += f", but the negative log-likelihood, which rewards both, gets worse with the error ({told} nats)"
        text += "."
    if lowered:
        text += f" Where fewer images of the target stand against the same corpus, it lowers it: {listed(lowered)}."
    return Markdown(text)


_LIKELIHOOD = "negative_log_likelihood"


def _means(records: pd.DataFrame, profile: str, dataset: str, name: str) -> tuple[float, float] | None:
    """Means of a metric from scratch and pre-trained over the seeds that both have; None where there are none."""
    setting: dict[str, Any] = {"section": SECTION, "profile": profile, "dataset": dataset, "method": "standard"}
    sides = [per_seed(records, **setting, arm=arm, metric=name) for arm in ARMS]
    both = pd.concat(sides, axis=1, join="inner").dropna().to_numpy(dtype=float)
    return (float(both[:, 0].mean()), float(both[:, 1].mean())) if len(both) else None


def _arrow(pair: tuple[float, float], name: str) -> str:
    return " → ".join(number(value, name) for value in pair)


_RATES = {"scratch": ("standard",), "pre-trained": ("low-rate", "standard", "high-rate")}
"""Methods that are compared by their learning rate, by arm."""

_Rated = tuple[str, str, dict[tuple[str, str], pd.DataFrame]]
"""An image set, a profile, and records by arm and method."""


def _by_rate(records: pd.DataFrame, datasets: Sequence[str]) -> list[_Rated]:
    """Where another rate than the standard one is recorded."""
    found: list[_Rated] = []
    for dataset in datasets:
        for profile in EVIDENCE:
            setting = {"section": SECTION, "profile": profile, "dataset": dataset}
            rows = {
                (arm, method): group
                for arm, methods in _RATES.items()
                for method in methods
                if len(group := runs(records, **setting, arm=arm, method=method))
            }
            if {method for _, method in rows} - {"standard"}:
                found.append((dataset, profile, rows))
    return found


def rates_table(records: pd.DataFrame, *, datasets: Sequence[str], caption: str, name: str) -> Markdown:
    """Error and calibration of pre-trained networks that were tuned at several learning rates.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.

    Returns:
        A numbered MyST table: a row for each set, profile and rate that is recorded, those from scratch beside them.
    """
    rows = []
    for dataset, profile, found in _by_rate(records, datasets):
        for (arm, _), group in found.items():
            rates = " and ".join(sorted({f"{recipe['learning_rate']:g}" for recipe in group["recipe"]}))
            cells = [spread(group[each].to_numpy(dtype=float), each) for each in ("error", RMS, _LIKELIHOOD)]
            rows.append([f"{label(dataset)}, `{profile}`", label(arm), rates, *cells, f"{len(group)}"])
    header = ["Setting", "Arm", "Learning rate", "Test error (%)", "RMS (%)", "Negative log-likelihood (nats)", "Seeds"]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 6]], caption=caption, name=name)


def rates_note(records: pd.DataFrame, *, datasets: Sequence[str]) -> Markdown:
    """What another rate of tuning does to error and calibration, over the seeds that have both rates and scratch.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.
    """
    lines = []
    for dataset, profile, found in _by_rate(records, datasets):
        for method in ("low-rate", "high-rate"):
            wanted = (("scratch", "standard"), ("pre-trained", "standard"), ("pre-trained", method))
            if not found.keys() >= set(wanted):
                continue
            sides = [found[one].set_index("seed") for one in wanted]
            seeds = sorted(set.intersection(*(set(side.index) for side in sides)))
            if not seeds:
                continue
            told = []
            for each, words in (("error", "test error"), (RMS, "RMS calibration error")):
                scratch, before, after = (float(side.loc[seeds, each].astype(float).mean()) for side in sides)
                change = "falls" if after < before else "rises"
                values = f"from {number(before, each)} to {number(after, each)} %"
                told.append(f"the {words} {change} {values} (from scratch it is {number(scratch, each)} %)")
            usual, other = (f"{side['recipe'].iloc[0]['learning_rate']:g}" for side in sides[1:])
            where = f"On {label(dataset)} at `{profile}` ({counted(len(seeds), 'seed')}), tuned at {other} instead of"
            lines.append(f"- {where} {usual}, {', '.join(told)}.")
    return Markdown("\n".join(lines) or f"Another rate of tuning: {NOT_RUN}.")


def bins_table(
    records: pd.DataFrame, *, datasets: Sequence[str], caption: str, name: str, profile: str | None = None
) -> Markdown:
    """The RMS calibration error with all bins and without the last, with the paper's beside the one like it.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        A numbered MyST table, one row a set and arm.
    """
    table = _with_and_without(records, datasets, profile)
    rows = []
    for (_, arm), group in table.groupby(["dataset", "arm"], sort=False):
        found = {row["metric"]: row for row in group.to_dict("records")}
        whole, without = (found.get(each) for each in (RMS, f"{RMS}_dropped_bin"))
        cells = [
            f"{number(row['mean'], RMS)}" + (f" ± {number(row['sd'], RMS)}" if row["n"] > 1 else "")
            if row is not None and row["n"]
            else NOT_RUN
            for row in (whole, without)
        ]
        paper = str(whole["printed"]) if whole is not None and whole["printed"] else _DASH
        away = number(without["mean"] - whole["paper"], RMS, signed=True) if without and whole else _DASH
        where = next(row for row in (without, whole) if row is not None)
        origin = f"`{where['profile']}`, {where['n']}" if where["n"] else _DASH
        rows.append([f"{label(where['measured_on'])}, {label(str(arm))}", *cells, paper, away, origin])
    header = ["Setting", "Here, all bins (%)", "Here, last bin dropped (%)", "Paper, probably dropped (%)"]
    header += ["Difference without the bin", "Profile, seeds"]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 5]], caption=caption, name=name)


def bins_note(records: pd.DataFrame, *, datasets: Sequence[str], profile: str | None = None) -> Markdown:
    """How much leaving the last bin out changes our RMS calibration errors at most, as a sentence.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.
        profile: The records' profile; None: the highest with records of each set.
    """
    table = _with_and_without(records, datasets, profile)
    table = table[table["n"] > 0] if len(table) else table
    if not len(table):
        return Markdown(f"What the last bin changes here: {NOT_RUN}.")
    means = table.pivot(index=["dataset", "arm"], columns="metric", values="mean").dropna()
    change = float((means[RMS] - means[f"{RMS}_dropped_bin"]).abs().max()) * 100
    words = f"at most {change:.2f} points" if change >= 0.005 else "less than a hundredth of a point"
    return Markdown(
        f"Here the last bin changes the RMS calibration error by {words}, so none of our results rests on it."
    )


def _with_and_without(records: pd.DataFrame, datasets: Sequence[str], profile: str | None) -> pd.DataFrame:
    names = [RMS, f"{RMS}_dropped_bin"]
    columns = ["dataset", "arm", "metric", "mean", "n"]
    found = comparison_rows(SECTION, records, metrics=names, datasets=datasets, locator="P1 Table 5", profile=profile)
    return found if len(found) else pd.DataFrame(columns=columns)


def epochs_note(records: pd.DataFrame, *, dataset: str, profile: str | None = None) -> Markdown:
    """The course of the error from scratch in words: how much it swings, and its lowest value beside its last.

    Args:
        records: Records with the list metrics ``history_epoch``, ``history_error`` and
            ``history_rms_calibration_error``.
        dataset: The target.
        profile: The records' profile; None: the highest with records.
    """
    name = f"history_{RMS}"
    paper = select(SECTION, dataset=dataset, arm="scratch", method="standard", metric=name, curve=True)
    lines = []
    if len(paper):
        lowest = paper.iloc[int(paper["value"].to_numpy().argmin())]
        last = paper["printed"].iloc[-1]
        lines.append(
            f"The paper's curve is lowest after epoch {lowest['position']:.0f}, with {lowest['printed']} %, and ends "
            f"with {last} %."
        )
    scale = profile or profile_of(records, SECTION, dataset)
    setting = {"section": SECTION, "profile": scale or "", "dataset": dataset, "arm": "scratch", "method": "standard"}
    rows = [
        row
        for row in runs(records, **setting).to_dict("records")
        if all(isinstance(row.get(each), Sequence) for each in (name, "history_epoch"))
    ]
    if not rows:
        return Markdown(" ".join([*lines, f"Ours: {NOT_RUN}."]))
    errors = [np.asarray(row[name], dtype=float) for row in rows]
    epochs = np.asarray(rows[0]["history_epoch"], dtype=float)
    places = [int(values.argmin()) for values in errors]
    steps = [np.abs(np.diff(values)) * 100 for values in errors]
    half = int(np.abs(epochs - epochs[-1] / 2).argmin())
    swing = max((float(step.max()) for step in steps if len(step)), default=0.0)
    amid = max((float(step[max(half - 1, 0) : half + 1].max()) for step in steps if len(step)), default=0.0)
    low, end = (float(np.mean(values)) for values in ([each.min() for each in errors], [each[-1] for each in errors]))
    at = sorted({epochs[place] for place in places})
    when = f"{at[0]:g}" if len(at) == 1 else f"{at[0]:g} to {at[-1]:g}"
    lines.append(
        f"Ours is observed only {len(epochs)} times in {epochs[-1]:g} epochs and swings while the learning rate is "
        f"high: from one observation to the next by up to {swing:.1f} points, "
        + ("most of all" if amid == swing else f"and by up to {amid:.1f} points")
        + " next to the half of the training, which the claim compares with the end."
    )
    found = f"The lowest value of each seed's curve, {_percent(low)} % in the mean (after epoch {when}), "
    found += f"rises to {_percent(end)} % at the end ({counted(len(rows), 'seed')})."
    wrong = [row["history_error"][place] for row, place in zip(rows, places, strict=True) if "history_error" in row]
    if len(wrong) == len(rows):
        found += (
            f" But a minimum lies below by construction, and the networks were then still wrong on "
            f"{_percent(float(np.mean(wrong)))} % of the test images."
        )
    return Markdown(" ".join([*lines, found]))


def recipe_by_rms_note(records: pd.DataFrame, *, method: str, train_images: int | None = None) -> Markdown:
    """Which recipes the RMS calibration error would have chosen in place of the likelihood, and the gap of the arms.

    Args:
        records: Records of :mod:`robustness_lib.recipe_choice`, as by :func:`robustness_lib.records.frame`.
        method: Method of that section.
        train_images: Only candidates that were trained on so many images; None: all.
    """
    some = records[records["method"] == method]
    if train_images is not None:
        some = some[some["recipe"].map(lambda recipe: recipe["train_images"] == train_images).astype(bool)]
    chosen: dict[str, list[tuple[float, str]]] = {}
    for arm in ARMS:
        group = some[some["arm"] == arm]
        for decisive in ("negative_log_likelihood", RMS) if len(group) else ():
            row = group.iloc[int(group[decisive].to_numpy(dtype=float).argmin())]
            words = f"{row['recipe']['epochs']:g} epochs at {row['recipe']['learning_rate']:g}"
            chosen.setdefault(arm, []).append((float(row[RMS]), words))
    if len(chosen) < len(ARMS):
        return Markdown(f"What the RMS error would have chosen: {NOT_RUN}.")
    if all(by_loss == by_rms for by_loss, by_rms in chosen.values()):
        return Markdown("The RMS calibration error would have chosen the same recipes.")
    told = [
        f"{label(arm)} {by_rms[1]} ({_percent(by_rms[0])} % rather than {_percent(by_loss[0])} %)"
        for arm, (by_loss, by_rms) in chosen.items()
    ]
    gaps = [(chosen["scratch"][place][0] - chosen["pre-trained"][place][0]) for place in (0, 1)]
    return Markdown(
        f"The choice matters to calibration. By the RMS calibration error it would have been {' and '.join(told)}. On "
        f"these images pre-training would then lower it by {_points(gaps[1])}, with the recipes taken by "
        f"{_points(gaps[0])}."
    )


def _percent(value: float) -> str:
    return number(value, RMS)


def _points(value: float) -> str:
    return f"{number(value, RMS)} points"
