"""The live run of a notebook, every job of it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from robustness_lib.errors import UserError
from robustness_lib.paper import Metric, label, metric
from robustness_lib.records import SETTING, Job, distinctions
from robustness_lib.report.markdown import Markdown, table

_MOST = 4
"""How many metrics of its own a row shows that has none of those asked for."""


def live_table(jobs: Sequence[Job], live: pd.DataFrame, *, metrics: Sequence[str], caption: str, name: str) -> Markdown:
    """What was just measured: one row a data set, method, level and arm, of every job that was run.

    Args:
        jobs: The planned jobs, in whose order the rows are.
        live: Their records, as by :func:`robustness_lib.sections.measure_as_asked`.
        metrics: What is shown, as recorded. A row that has none of them shows the first few of its own instead.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered table: mean and standard deviation over seeds, and how many there are. Cells are empty where a method
        has no such metric; a job without a record is "not run". What else tells records of one setting apart
        (:func:`robustness_lib.records.distinctions`) gives rows of their own.
    """
    by_key = live.assign(differs=distinctions(live)).set_index("key")
    groups: dict[tuple[str, str, str], list[str]] = {}
    for job in jobs:
        level = "" if job.level is None else f" at {job.level:g}"
        arm = "scratch" if job.init == "scratch" else "pre-trained"
        what = f"{label(job.dataset)}, {label(job.method)}{level}"
        groups.setdefault((what, label(arm), str(by_key["differs"].get(job.key, ""))), []).append(job.key)
    shown, rows = [one for one in metrics if one in live and live[one].notna().any()], []
    for (what, arm, differs), keys in groups.items():
        some = by_key.loc[[key for key in keys if key in by_key.index]]
        values = {one: _numbers(some[one]) for one in live.columns if one not in _DESCRIBES and one in some}
        own = {one: numbers for one, numbers in values.items() if numbers}
        others = [] if any(one in own for one in shown) else list(own)[:_MOST]
        rest = "; ".join(f"{_shown(one).axis} {_spread(own[one], _shown(one))}" for one in others)
        cells = {"What": what, "Arm": arm, "Differs in": differs, "Seeds": str(len(some))}
        cells |= {_shown(one).axis: _spread(own[one], _shown(one)) if one in own else "" for one in shown}
        rows.append({**cells, "Measured": rest or ("" if len(some) else "not run")})
    filled = pd.DataFrame(rows)
    return table(filled[[title for title in filled if (filled[title] != "").any()]], caption=caption, name=name)


_DESCRIBES = {*SETTING, "key", "init", "seed", "recipe", "provenance", "differs"}


def _shown(name: str) -> Metric:
    """How a metric is shown; one of a method that the papers do not have, by its name and as recorded."""
    try:
        return metric(name)
    except UserError:
        return Metric(name.replace("_", " "), unit="", better=0)


def _numbers(values: pd.Series) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float) and value == value]


def _spread(values: Sequence[float], shown: Metric) -> str:
    """Mean and, of several values, standard deviation in the metric's unit, with a true minus sign."""
    table = pd.Series(values) * shown.scale
    counts = not shown.is_fraction and all(value.is_integer() for value in values)
    digits = 0 if counts else 1 if shown.is_fraction else shown.digits
    deviation = f" ± {table.std():.{max(digits, 1)}f}" if len(table) > 1 else ""
    return f"{table.mean():z,.{digits}f}{deviation}".replace("-", "−")
