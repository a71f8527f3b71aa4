"""Comparison tables and the scoreboard of claims, as MyST Markdown.

A notebook cell that returns one of these tables needs the cell metadata ``mystnb={"markdown_format":
"myst"}``: the book then shows a numbered table with a caption. Every measured value has its spread (standard
deviation over seeds) and the profile it was measured at; what has no record says "not run".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from robustness_lib.errors import UserError
from robustness_lib.paper import (
    SECTIONS,
    claims_of,
    label,
    levels_counted,
    metric,
    per_seed,
    runs,
    select,
)
from robustness_lib.paper.claims import CLAIMS, Claim, Floats, at_place
from robustness_lib.paper.verdicts import PROFILES, STAND_INS, Levels, mean_interval
from robustness_lib.records import Job, Record
from robustness_lib.report import evidence, verdicts
from robustness_lib.report.verdicts import Verdict, effect_text, here_text

NOT_RUN = "not run"
TITLES = SECTIONS | {"pretraining": "Pre-training", "recipe_choice": "Choice of recipes", "cost": "Cost"}
"""What records are about, in words: the sections, and what is recorded beside them."""

ARMS = ("scratch", "pre-trained")
_DASH = "–"


class Markdown(str):
    """Markdown text that a notebook shows as Markdown, numbers with their units and spreads unbroken."""

    def _repr_markdown_(self) -> str:
        return unbroken(self)


def unbroken(text: str) -> str:
    """The text with spaces at which no line ends between a number and its unit or spread, and after an arrow."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\d) (?=±)|(?<=±) |(?<=→) |(?<=\bn) (?== )|(?<=\bn =) ", "\u00a0", text)


def myst_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, name: str) -> Markdown:
    """A numbered table with a caption.

    Args:
        header: Column titles.
        rows: Cells, Markdown; each row as long as the header.
        caption: Caption, Markdown.
        name: Label for references, such as ``"tab-calibration"``.

    Returns:
        The table as a MyST ``table`` directive.

    Raises:
        ValueError: A row has another length than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of table {name!r} has {len(row)} cells instead of {len(header)}: {list(row)}")
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows)]
    lines.insert(1, "|" + " --- |" * len(header))
    return Markdown("\n".join([f":::{{table}} {caption}", f":name: {name}", "", *lines, ":::", ""]))


def listed(parts: Sequence[str]) -> str:
    """The parts as words of a sentence: "a", "a and b", "a, b and c"; "" for none."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def counted(count: int, word: str) -> str:
    """A number of things: "1 seed", "3 seeds"."""
    return f"{count} {word}{'s' * (count != 1)}"


def spread(values: Sequence[float] | Floats, name: str) -> str:
    """Mean and, of several values, standard deviation of a metric over seeds, without the unit; a dash for none."""
    if not len(values):
        return _DASH
    deviation = f" ± {number(float(np.std(values, ddof=1)), name)}" if len(values) > 1 else ""
    return number(float(np.mean(values)), name) + deviation


def number(value: float, name: str, decimals: int = 1, signed: bool = False) -> str:
    """A value of a metric in its unit, without the unit: percentages in percent, a true minus sign (zero has none).

    Args:
        value: The value as recorded.
        name: The metric.
        decimals: Digits after the point of a percentage; other units have their own.
        signed: Whether a positive value gets a plus sign.

    Returns:
        For example ``"13.3"`` or ``"−0.4"``; a dash for NaN.
    """
    if not math.isfinite(value):
        return _DASH
    shown = metric(name)
    digits = decimals if shown.is_fraction else shown.digits
    return f"{value * shown.scale:{'+' if signed else ''}z.{digits}f}".replace("-", "−")


def comparison_rows(
    section: str,
    records: pd.DataFrame,
    *,
    metrics: Sequence[str],
    datasets: Sequence[str],
    arms: Sequence[str] = ARMS,
    methods: Sequence[str] = ("standard",),
    levels: Sequence[float | None] = (None,),
    over_levels: Levels = None,
    locator: str | None = None,
    profile: str | None = None,
) -> pd.DataFrame:
    """The paper's values beside ours, one setting a row, as numbers.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`.
        metrics: Metrics, as recorded.
        datasets: Image sets; a set without records is replaced by its stand-in, where it has one.
        arms: Arms.
        methods: Methods.
        levels: Levels; None: without a level.
        over_levels: Reduce all levels, that the arms share, to their "area" or "mean" (``levels`` is then ignored).
        locator: Place in the paper that is preferred where it prints a number more than once.
        profile: The records' profile; None: the highest with records, "paper" or "cpu", for each setting.

    Returns:
        Columns ``dataset``, ``measured_on`` (the set or its stand-in), ``method``, ``level``, ``metric``,
        ``arm``, ``printed`` (string, "" if the paper has none), ``paper``, ``mean``, ``sd`` (NaN with one
        seed), ``n``, ``levels`` (how many are reduced to one number), ``profile`` ("" if not run),
        ``difference`` (ours - paper), ``verdict`` (of the claim about this setting, and whether it is open),
        ``claim`` (its id), ``revision``. A setting that neither the paper nor the records have is left out.
    """
    rows = []
    records = shared_levels(records, section, arms) if over_levels else records
    for dataset, method, level, name, arm in product(
        datasets, methods, levels[:1] if over_levels else levels, metrics, arms
    ):
        setting: dict[str, Any] = {
            "section": section,
            "arm": arm,
            "method": method,
            "metric": name,
            "level": level,
            "over_levels": over_levels,
        }
        values, scale, measured_on = _measured(records, dataset, setting, profile)
        counted = {key: value for key, value in setting.items() if key != "level"}
        there = levels_counted(records, profile=scale, dataset=measured_on, **counted) if over_levels else []
        paper, printed = _paper_value(section, dataset, arm, method, name, level, over_levels, locator, there)
        if not printed and values.empty:
            continue
        claim = _claim_about(section, dataset, arm, method, name, level, over_levels)
        mine = runs(records, section=section, profile=scale, dataset=measured_on, arm=arm, method=method)
        mean = float(values.mean()) if len(values) else math.nan
        rows.append(
            {
                "dataset": dataset,
                "measured_on": measured_on,
                "method": method,
                "level": math.nan if level is None else level,
                "metric": name,
                "arm": arm,
                "printed": printed,
                "paper": paper,
                "mean": mean,
                "sd": float(values.std(ddof=1)) if len(values) > 1 else math.nan,
                "n": len(values),
                "levels": len(there),
                "profile": scale,
                "difference": mean - paper,
                "verdict": evaluate(claim, records).words if claim else "",
                "claim": claim.id if claim else "",
                "revision": _revisions(mine),
            }
        )
    return pd.DataFrame(rows)


def shared_levels(records: pd.DataFrame, section: str, arms: Sequence[str]) -> pd.DataFrame:
    """The records without those of a section at levels that only some of the arms have.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        section: The section.
        arms: The arms that are compared; one of which nothing is recorded takes no level away.
    """
    mine = records[(records["section"] == section) & records["arm"].isin(arms)]
    keep = pd.Series(True, index=records.index)
    for _, group in mine.groupby(["profile", "dataset", "method"]):
        by_arm = group.groupby("arm")["level"].agg(set)
        if len(by_arm) > 1:
            keep[group.index[~group["level"].isin(set.intersection(*by_arm))]] = False
    return records[keep]


def comparison_table(
    section: str,
    records: pd.DataFrame,
    *,
    caption: str,
    name: str,
    made_by: str = "",
    **settings: Any,
) -> Markdown:
    """The paper's values beside ours, as a numbered table.

    The columns are Setting, Verdict, Paper, Here (mean ± s.d., n seeds), Here less paper, and Made by. The verdict is
    that of the claim whose treated side the row is; "reference" marks the scratch arm, which claims compare with.

    Args:
        section: Section.
        records: Records.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        made_by: Markdown for the last column, such as a link to the page's provenance; profile and code
            revision are always given.
        **settings: What to compare: the keyword arguments of :func:`comparison_rows`.

    Returns:
        The table as MyST Markdown.
    """
    table = comparison_rows(section, records, **settings)
    rows = table.to_dict("records")
    computed = bool(rows) and all(row["arm"] == "none" for row in rows)
    header = ["Setting", "Verdict", "Paper", "Here" if computed else "Here (mean ± s.d., n seeds)"]
    header += ["Here less paper", "Made by"]
    asked = {"method": settings.get("methods", ()), "metric": settings["metrics"]}
    varied = {column for column, values in asked.items() if len(values) > 1}
    cells = [_comparison_cells(row, varied, made_by) for row in rows] or [[NOT_RUN, *[_DASH] * 5]]
    return myst_table(header, cells, caption=caption, name=name)


def arms_table(
    section: str,
    records: pd.DataFrame,
    *,
    metrics: Sequence[str],
    datasets: Sequence[str],
    caption: str,
    name: str,
    methods: Sequence[str] = ("standard",),
    level: float | None = None,
    over_levels: Levels = None,
    profile: str | None = None,
) -> Markdown:
    """Our two arms side by side, with their paired difference: for what the paper does not print.

    Args:
        section: Section.
        records: Records, as by :func:`robustness_lib.records.frame`.
        metrics: Metrics, as recorded.
        datasets: Image sets; a set without records is replaced by its stand-in, where it has one.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        methods: Methods.
        level: Level, or None.
        over_levels: Reduce all levels to their "area" or "mean" (``level`` is then ignored).
        profile: The records' profile; None: the highest with records, "paper" or "cpu", for each setting.

    Returns:
        A numbered MyST table, one row a setting: mean and standard deviation over seeds of each arm, and the mean
        difference over the seeds that both have, with its 95 % interval of Student's t distribution.

    Raises:
        UserError: Nothing is recorded without a level, but something is with one, and neither ``level`` nor
            ``over_levels`` is given.
    """
    rows = []
    for dataset, method, metric_name in product(datasets, methods, metrics):
        setting: dict[str, Any] = {"section": section, "method": method, "metric": metric_name}
        setting |= {"level": level, "over_levels": over_levels}
        arms = [_measured(records, dataset, {**setting, "arm": arm}, profile) for arm in ARMS]
        (scratch, *_), (tuned, *_) = arms
        if scratch.empty and tuned.empty:
            if level is None and over_levels is None:
                _check_levels(records, section, dataset, method)
            continue
        _, scale, used = next(arm for arm in arms if len(arm[0]))
        shown, effects = metric(metric_name), (tuned - scratch).dropna().to_numpy(dtype=float)
        where = [label(used)] if len(datasets) > 1 else []
        where += [label(method)] if len(methods) > 1 else []
        cells = [", ".join([*where, shown.label]) + (f" ({shown.unit})" if shown.unit else "")]
        cells += [spread(list(values), metric_name) for values in (scratch, tuned)]
        if len(effects) > 1:
            mean, low, high = (number(value, metric_name, signed=True) for value in mean_interval(effects))
            cells.append(f"{mean} [{low}, {high}]")
        else:
            cells.append(_DASH)
        rows.append([*cells, f"`{scale}`, {len(effects) or max(len(scratch), len(tuned))}"])
    header = ["Measure", "From scratch", "Pre-trained", "Difference [95 % interval]", "Profile, seeds"]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 4]], caption=caption, name=name)


def _check_levels(records: pd.DataFrame, section: str, dataset: str, method: str) -> None:
    mine = records[(records["section"] == section) & (records["dataset"] == dataset) & (records["method"] == method)]
    levels = sorted(mine["level"].dropna().astype(float).unique())
    if levels:
        raise UserError(
            f"{section} has records of {method} on {dataset} at levels "
            f"{', '.join(f'{level:g}' for level in levels)} only; give level= or over_levels="
        )


_SETTINGS = {"batch_size": "Batch", "epochs": "Epochs", "learning_rate": "Learning rate"}
_JUDGED = {
    "error": "Error (%)",
    "rms_calibration_error": "RMS (%)",
    "negative_log_likelihood": "Negative log-likelihood (nats)",
    "adversarial_accuracy": "Adversarial accuracy (%)",
}


def candidates_table(
    records: pd.DataFrame,
    *,
    method: str,
    measures: Sequence[str],
    train_images: int | None = None,
    symbol: str | None = None,
    caption: str,
    name: str,
) -> Markdown:
    """What was tried before recipes were fixed, the best of each arm (at each level) in bold.

    Args:
        records: Records of :mod:`robustness_lib.recipe_choice`, as by :func:`robustness_lib.records.frame`.
        method: Method of that section.
        measures: What is shown; the last decides.
        train_images: Only candidates that were trained on so many images; None: all.
        symbol: Symbol of the level, where the method has levels.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table, one row a candidate; settings that all of them share are left out.
    """
    some = records[records["method"] == method]
    if train_images is not None:
        some = some[some["recipe"].map(lambda recipe: recipe["train_images"] == train_images).astype(bool)]
    varied = [each for each in _SETTINGS if some["recipe"].map(lambda recipe, each=each: recipe[each]).nunique() > 1]
    header = ["Arm", *([symbol] if symbol else []), *(_SETTINGS[each] for each in varied)]
    header += [_JUDGED[measure] for measure in measures]
    rows = []
    decisive = measures[-1]
    for (arm, level), group in some.groupby(["arm", "level"], sort=True, dropna=False):
        best = (group[decisive].astype(float) * metric(decisive).better).idxmax()
        order = group["recipe"].map(lambda recipe: tuple(recipe[setting] for setting in _SETTINGS)).sort_values().index
        for index in order:
            row = group.loc[index]
            cells = [label(str(arm)), *([f"{level:g}"] if symbol else [])]
            cells += [f"{row['recipe'][setting]:g}" for setting in varied]
            cells += [number(row[measure], measure) for measure in measures]
            rows.append([f"**{cell}**" for cell in cells] if index == best else cells)
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * (len(header) - 1)]], caption=caption, name=name)


_TIDY: list[tuple[pd.DataFrame, dict[str, pd.DataFrame]]] = []


def evaluate(claim: Claim, frame: pd.DataFrame) -> Verdict:
    """The verdict on a claim from the wide frame of the older pages."""
    if not _TIDY or _TIDY[0][0] is not frame:
        _TIDY[:] = [(frame, {})]
    values = _TIDY[0][1]
    if claim.section not in values:
        jobs = list(Job.__dataclass_fields__)
        records = []
        for row in frame[frame["section"] == claim.section].to_dict("records"):
            job = {name: row[name] for name in jobs}
            level = job["level"]
            job["level"] = None if level is None or math.isnan(level) else level
            metrics = {
                str(name): value
                for name, value in row.items()
                if name not in (*jobs, "key", "arm", "provenance")
                and (isinstance(value, list) or (isinstance(value, int | float) and math.isfinite(value)))
            }
            records.append(Record(Job(**job), metrics, row["provenance"]))
        values[claim.section] = evidence.tidy(records)
    return verdicts.judge(claim, values[claim.section])


def scoreboard(
    frame: pd.DataFrame,
    links: Mapping[str, str] | None = None,
    *,
    sections: Sequence[str] = tuple(SECTIONS),
    name: str = "tab-claims",
) -> Markdown:
    """Every claim with the paper's numbers, ours, the effect with its interval and the verdict.

    Args:
        frame: Records of any sections.
        links: Page of each section shown, relative to the page that shows the table; None: no such column.
        sections: The sections to show, in this order.
        name: Start of the tables' labels: ``tab-claims-calibration`` and so on.

    Returns:
        Numbered tables as MyST Markdown, one a section.
    """
    header = ["Claim", "Paper", "Here", "Effect [95 % interval]", "Verdict", *(["Page"] if links else [])]
    tables = []
    for section in sections:
        rows = [_claim_cells(evaluate(claim, frame), links or {}) for claim in claims_of(section)]
        caption = f"{SECTIONS[section]}: the claims and what was measured here."
        tables.append(myst_table(header, rows, caption=caption, name=f"{name}-{section.replace('_', '-')}"))
    return Markdown("\n".join(tables))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _claim_cells(verdict: Verdict, links: Mapping[str, str]) -> list[str]:
    claim = verdict.claim
    here = NOT_RUN
    if verdict.n:
        where = "published predictions" if claim.exact else f"`{verdict.profile}`, n = {verdict.n}"
        here = f"{here_text(verdict)} ({where})"
    source = claim.paper if claim.own else f"{claim.paper} ({claim.locator})"
    word = f"{verdict.words} ({verdict.note})" if verdict.note else verdict.words
    cells = [claim.statement, source, here, effect_text(verdict), word]
    if links:
        page, title = links.get(claim.section), SECTIONS[claim.section]
        cells.append(f"[{title}]({page}), [command]({page}#how-to-run-it-again)" if page else title)
    return cells


def _comparison_cells(row: Mapping[Any, Any], varied: set[str], made_by: str) -> list[str]:
    name, unit = str(row["metric"]), metric(str(row["metric"])).unit
    setting = [label(row["dataset"])]
    setting += [label(row["method"])] if "method" in varied else []
    setting += [f"level {row['level']:g}"] if math.isfinite(row["level"]) else []
    setting += [metric(name).label] if "metric" in varied else []
    setting += [label(row["arm"])] if row["arm"] != "none" else []
    decimals = min(max(len(str(row["printed"]).partition(".")[2]), 1), 2)
    here, origin = NOT_RUN, _DASH
    if row["n"]:
        spread = f" ± {number(row['sd'], name, decimals)}" if row["n"] > 1 else ""
        used = f", {label(row['measured_on'])}" if row["measured_on"] != row["dataset"] else ""
        here = f"{number(row['mean'], name, decimals)}{spread} {unit}".strip()
        here += f"{used}, n = {row['n']}" if row["arm"] != "none" else used
        here += f", {row['levels']} levels" if row["levels"] else ""
        origin = "published predictions" if row["arm"] == "none" else f"`{row['profile']}`"
        origin += f", {row['revision']}" + (f", {made_by}" if made_by else "")
    paper = f"{row['printed']} {unit}".strip().replace("-", "−") if row["printed"] else _DASH
    return [
        ", ".join(setting),
        _word(row),
        paper,
        here,
        number(row["difference"], name, decimals, signed=True),
        origin,
    ]


def _word(row: Mapping[Any, Any]) -> str:
    """The verdict on the claim about a row; a reference is what claims compare with."""
    if not row["verdict"]:
        return "reference" if row["arm"] == "scratch" else "no claim"
    [claim] = [one for one in CLAIMS if one.id == row["claim"]]
    other = claim.reference.method != row["method"] and claim.test != "equal"
    return str(row["verdict"]) + (f" (against {label(claim.reference.method)})" if other else "")


def _paper_value(
    section: str,
    dataset: str,
    arm: str,
    method: str,
    name: str,
    level: float | None,
    over_levels: Levels,
    locator: str | None,
    there: Sequence[float],
) -> tuple[float, str]:
    """The published value of a setting and how it is printed: NaN and "" if there is none.

    A mean over levels is over those that are recorded here, where any are; an area is the printed one, of all levels.
    """
    wanted = f"{name}_area" if over_levels == "area" else name
    rows = select(section, dataset=dataset, arm=arm, method=method, metric=wanted, level=level, locator=locator)
    if rows.empty:
        return math.nan, ""
    if over_levels == "mean":
        same = rows[[not there or bool(np.isclose(level, there).any()) for level in rows["level"]]]
        mean = float((rows if same.empty else same)["value"].mean())
        return mean, number(mean, name)
    return float(rows["value"].iloc[0]), str(rows["printed"].iloc[0])


def _measured(
    records: pd.DataFrame, dataset: str, setting: Mapping[str, Any], profile: str | None
) -> tuple[pd.Series, str, str]:
    """Values at the given profile, or the highest that has any; the profile; and the set or its stand-in."""
    for scale, name in product((profile,) if profile else PROFILES, (dataset, STAND_INS.get(dataset))):
        if name is not None:
            values = per_seed(records, profile=scale, dataset=name, **setting)
            if len(values):
                return values, scale, name
    return pd.Series(dtype=float), "", dataset


def _claim_about(
    section: str, dataset: str, arm: str, method: str, name: str, level: float | None, over_levels: Levels
) -> Claim | None:
    """The claim whose treated side is this setting; one about every level is then taken at this level."""
    for claim in claims_of(section):
        if claim.over == "level" and level is not None:
            claim = at_place(claim, level)
        treated = (claim.treated.arm, claim.treated.method, claim.treated.metric)
        where = (claim.dataset, claim.level, claim.over, claim.treated.at)
        same = claim.reference.metric == name or name == f"{claim.reference.metric}_tempered"
        if treated == (arm, method, name) and where == (dataset, level, over_levels, None) and same:
            return claim
    return None


def short_revision(revision: str) -> str:
    """A commit in seven digits, and whether the code was changed since: "0123456-dirty"."""
    return revision[:7] + ("-dirty" if revision.endswith("-dirty") else "")


def _revisions(rows: pd.DataFrame) -> str:
    found = {f"`{short_revision(str(r))}`" for source in rows["provenance"] if (r := source.get("revision"))}
    return ", ".join(sorted(found)) or "revision unknown"
