"""What a page shows as text: numbers with their spread, tables, and findings tied to the records that support them.

A cell that returns one of these has the metadata ``mystnb={"markdown_format": "myst"}``, so that the book numbers its
tables; plain Jupyter shows the same as HTML.
"""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from robustness_lib.paper.claims import Floats
from robustness_lib.paper.numbers import label, metric
from robustness_lib.report.evidence import ARMS, Comparison, paper_value

DASH = "–"


class Markdown(str):
    """Markdown that a notebook shows, with the same as HTML where it is a table; no line ends inside a number."""

    as_html: str = ""

    def _repr_markdown_(self) -> str:
        return unbroken(self)

    def _repr_html_(self) -> str | None:
        return self.as_html or None


def unbroken(text: str) -> str:
    """The text with no-break spaces between a number and its unit or spread, after an arrow, and within an interval."""
    text = re.sub(r"(\[[−+]?\d[\d.]*,) (?=[−+]?\d[\d.]*\])", "\\1\u00a0", text)
    return re.sub(r"(?<=\d) (?=%)|(?<=\d) (?=±)|(?<=±) |(?<=→) |(?<=\bn) (?== )|(?<=\bn =) ", "\u00a0", text)


def number(value: float, name: str, *, digits: int | None = None, signed: bool = False) -> str:
    """A recorded value in its metric's unit, without the unit: ``"13.3"``, ``"−0.4"``; a dash where there is none."""
    if not math.isfinite(value):
        return DASH
    shown = metric(name)
    digits = digits if digits is not None else 1 if shown.is_fraction else shown.digits
    text = f"{value * shown.scale:{'+' if signed else ''}z.{digits}f}".replace("-", "−")
    return text if float(text.strip("+−")) else text.strip("+")


def spread(values: Sequence[float] | Floats, name: str) -> str:
    """Mean ± standard deviation over seeds, without the unit; the value alone of one seed."""
    series = pd.Series(values, dtype=float)
    deviation = f" ± {number(float(series.std()), name)}" if len(series) > 1 else ""
    return number(float(series.mean()), name) + deviation if len(series) else DASH


def interval(effect: float, low: float, high: float, name: str) -> str:
    """A difference with its interval, without the unit: ``"−2.3 [−3.1, −1.5]"``; no interval of one seed."""
    if not math.isfinite(effect):
        return DASH
    ends = [number(end, name, signed=True) for end in (low, high)]
    return number(effect, name, signed=True) + (f" [{ends[0]}, {ends[1]}]" if DASH not in ends else "")


def unit(name: str, difference: bool = False) -> str:
    """The unit of a metric, or of a difference of its values, with the space before it: ``" %"``, ``" points"``."""
    found = metric(name).unit
    return {"": "", "%": " points" if difference else " %"}.get(found, f" {found}")


def sides(found: Comparison, name: str) -> str:
    """Both sides of a comparison in words: ``"64.5 ± 1.2 → 45.1 ± 1.1 %"``, reference first."""
    if not found.n:
        return "not measured"
    return f"{spread(found.reference, name)} → {spread(found.treated, name)}{unit(name)}"


def effect(found: Comparison, name: str) -> str:
    """The paired difference in words: ``"−19.4 points [−20.6, −18.3]"``."""
    if not found.n:
        return "not measured"
    mean, _, ends = interval(found.effect, found.low, found.high, name).partition(" [")
    return f"{mean}{unit(name, difference=True)}" + (f" [{ends}" if ends else "")


def arrow(values: Iterable[float], name: str) -> str:
    """Values from scratch and pre-trained with their unit: ``"28.7 → 15.9 %"``; a dash without any."""
    shown = [number(value, name) for value in values]
    return DASH if set(shown) == {DASH} else " → ".join(shown) + unit(name)


def printed(name: str, **setting: Any) -> str:
    """The paper's values of both arms of a metric, by :func:`robustness_lib.report.evidence.paper_value`."""
    return arrow((paper_value(metric=name, arm=arm, **setting) for arm in ARMS), name)


def table(frame: pd.DataFrame | Sequence[Mapping[str, Any]], *, caption: str, name: str, classes: str = "") -> Markdown:
    """A numbered table, as a MyST directive, of Markdown cells by column title; its label is like ``"tab-ood"``."""
    rows = pd.DataFrame(frame)
    rows = pd.DataFrame({"": ["none recorded"]}) if rows.empty else rows
    cells = [list(map(str, row)) for row in (rows.columns, *rows.to_numpy())]
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells]
    lines.insert(1, "|" + " --- |" * len(cells[0]))
    kind = [f":class: {classes}"] if classes else []
    text = Markdown("\n".join([f":::{{table}} {caption}", f":name: {name}", *kind, "", *lines, ":::", ""]))
    shown = rows.to_html(index=False, border=0).replace("&lt;br&gt;", "<br>")
    text.as_html = f"<p>{html.escape(caption)}</p>{shown}"
    return text


def arms_table(rows: pd.DataFrame, *, caption: str, name: str, setting: str = "", paper: bool = True) -> Markdown:
    """The rows of :func:`robustness_lib.report.evidence.arms`, with the paper's values if it has such numbers at all.

    ``setting`` is the title of the first column, which names what differs between rows.
    """
    varied = [column for column in ("dataset", "method", "level", "metric") if rows[column].astype(str).nunique() > 1]
    cells = []
    for row in rows.to_dict("records"):
        measured = row["n"] > 0
        names = {
            "dataset": label(row["measured_on"] if measured else row["dataset"]),
            "method": label(row["method"]),
            "level": f"at {row['level']:g}" if row["level"] is not None else "",
            "metric": metric(row["metric"]).axis,
        }
        first = ", ".join(names[column] for column in varied) or names["metric"]
        cell = {setting or "Setting": first[:1].upper() + first[1:]}
        if paper:
            paper_values = (row["paper_scratch"], row["paper_tuned"])
            cell["Paper"] = arrow(paper_values, row["metric"]).removesuffix(unit(row["metric"]))
        for title, key in (("From scratch", "scratch"), ("Pre-trained", "tuned")):
            deviation = number(row[f"{key}_sd"], row["metric"])
            cell[title] = number(row[key], row["metric"]) + (f" ± {deviation}" if deviation != DASH else "")
        difference = interval(row["difference"], row["low"], row["high"], row["metric"])
        cells.append(cell | {"Difference [95 %]": difference if measured else "not measured"})
    return table(cells, caption=caption, name=name)


EMPTY = "The recorded results support none of the sentences that were written here: there are none yet, or other ones."
STALE = "*This sentence was written for other results than those recorded here, which do not support it.*"


def conclusion(condition: bool, text: str) -> str:
    """A sentence that a person wrote, as long as the records support it; else a visible note that it is out of date."""
    return text if condition else STALE


def findings(*sentences: tuple[bool, str]) -> Markdown:
    """What a page found, first thing on it: each sentence with the condition under which it is true."""
    lines = [f"- {conclusion(bool(condition), text)}" for condition, text in sentences]
    lines = lines if any(condition for condition, _ in sentences) else [EMPTY]
    return Markdown("\n".join([":::{admonition} What we found", ":class: findings", "", *lines, ":::", ""]))
