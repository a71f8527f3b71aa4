"""The results in README.md: a picture and a table, made from the published records.

``python -m robustness_lib.readme`` (``make readme``) writes them between two marks in the file, and the picture beside
the book's other static files. A test compares the file with the records.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from robustness_lib.files import write_atomically
from robustness_lib.paper import SECTIONS, label, metric, per_seed
from robustness_lib.paper.claims import Floats
from robustness_lib.paper.verdicts import levels_counted, mean_interval
from robustness_lib.records import frame, load_published, short_hash
from robustness_lib.report import arm_style, legend_outside, new_figure, rerun_commands, use_style
from robustness_lib.report.detection import paper_mean
from robustness_lib.report.headlines import HEADLINES, Headline, so_far
from robustness_lib.report.levels import paper_area
from robustness_lib.report.style import PAPER
from robustness_lib.report.tables import ARMS, NOT_RUN, shared_levels, unbroken

START, END = "<!-- results: made by `make readme`, not by hand -->", "<!-- end of the results -->"
PICTURE = Path("book/_static/results.svg")


def results(records: pd.DataFrame) -> str:
    """What stands between the marks.

    Args:
        records: The published records, as by :func:`robustness_lib.records.frame`.

    Returns:
        Markdown: the picture, where a section has records, and the table with a row a section and data set.
    """
    lines = [
        "| result, from scratch → pre-trained | paper | here | made by |",
        "| --- | --- | --- | --- |",
    ]
    for section, headline in HEADLINES.items():
        rows = headline.rows(section, records)
        for dataset in headline.datasets:
            mine = rows[rows["dataset"] == dataset] if len(rows) else rows
            lines.append(_line(section, headline, dataset, mine.to_dict("records"), records))
    sections = _measured(records)
    if sections:
        words = ", ".join(SECTIONS[name].lower() for name in sections)
        alt = (
            "How much of each error pre-training takes away, a row for each section and data set: the paper as "
            f"diamonds, what is measured here as squares with intervals ({words}). The table has the numbers behind it."
        )
        note = "*Share of the error from scratch that pre-training takes away. Left of zero it adds to it.*"
        lines = [so_far(records), "", f"![{alt}]({PICTURE})", "", note, "", *lines]
    return "\n".join(lines)


def _line(section: str, headline: Headline, dataset: str, rows: list[dict[Any, Any]], records: pd.DataFrame) -> str:
    name = f"{SECTIONS[section]}, {label(dataset)}: {headline.words}"
    found = headline.cells(rows)
    if not found.seeds:
        return f"| {name} | {found.paper} | {found.here} | |"
    same = (records["section"] == section) & (records["profile"] == found.profile)
    same &= records["method"] == headline.method
    group = records[same & (records["dataset"] == found.dataset)]
    [command] = rerun_commands(section, found.profile, found.dataset, group)
    return f"| {name} | {unbroken(found.paper)} | {unbroken(found.here)} | `{command}` |"


def _measured(records: pd.DataFrame) -> list[str]:
    """The sections that have a recorded headline."""
    found = {name: headline.rows(name, records) for name, headline in HEADLINES.items()}
    return [name for name, rows in found.items() if len(rows) and bool(rows["n"].any())]


def relief(name: str, treated: Floats, reference: Floats) -> Floats:
    """Which share of what is bad in the reference is gone on the treated side: one measure for all sections.

    Bad is the value of a metric that should be low, and what is missing to 1 of one that should be high.

    Args:
        name: Metric, a fraction in [0, 1].
        treated: Its values on the treated side, any shape.
        reference: Those of the reference, the same shape.

    Returns:
        1 where nothing bad is left, 0 where nothing changed, below 0 where it became worse.
    """
    bad = [values if metric(name).better < 0 else 1 - values for values in (treated, reference)]
    shares: Floats = 1 - bad[0] / bad[1]
    return shares


def reliefs(records: pd.DataFrame) -> pd.DataFrame:
    """What pre-training takes away of each section's headline number, by the paper and here.

    Args:
        records: The published records.

    Returns:
        One row a section and data set where either is known: ``words``; ``paper``, as a fraction (:func:`relief`), over
        the same levels and foreign sets as ours, where it has numbers for each of them; and
        ``mean``, ``low``, ``high`` over the ``n`` paired seeds here with the 95 % interval of Student's t distribution,
        at ``profile``. Sections whose headline is no share of anything are left out.
    """
    rows = []
    for section, headline in HEADLINES.items():
        found = headline.rows(section, records)
        for dataset in headline.datasets if len(found) and headline.share else ():
            both = found[found["dataset"] == dataset].set_index("arm").reindex(["pre-trained", "scratch"])
            if not (both["paper"].notna().all() or (both["n"].fillna(0) > 0).all()):
                continue
            treated, reference = _paper_like_ours(section, headline, dataset, both, records)
            row: dict[str, Any] = {"words": f"{SECTIONS[section]}\n{label(dataset)}", "n": 0, "profile": ""}
            row["paper"] = float(relief(headline.metric, np.array(treated), np.array(reference)))
            if (both["n"].fillna(0) > 0).all():
                row |= _measured_relief(section, headline, dataset, str(both["profile"].iloc[0]), records)
            rows.append(row)
    return pd.DataFrame(rows, columns=["words", "paper", "mean", "low", "high", "n", "profile"])


def _paper_like_ours(
    section: str, headline: Headline, dataset: str, both: pd.DataFrame, records: pd.DataFrame
) -> tuple[float, float]:
    """The paper's two values over the levels or foreign sets that ours are over, else as printed."""
    found = []
    for arm, row in both.iterrows():
        value = math.nan
        if headline.over_levels == "area" and row["n"] > 0:
            setting = {"profile": row["profile"], "dataset": row["measured_on"], "method": headline.method}
            levels = levels_counted(
                shared_levels(records, section, ARMS),
                section=section,
                arm=str(arm),
                metric=headline.metric,
                over_levels=headline.over_levels,
                **setting,
            )
            value = paper_area(dataset, str(arm), headline.method, levels)
        elif section == "ood":
            value = paper_mean(records, dataset=dataset, measure=headline.metric.partition("_")[0], arm=str(arm))
        found.append(value)
    treated, reference = found if np.isfinite(found).all() else both["paper"].to_numpy(float)
    return float(treated), float(reference)


def _measured_relief(
    section: str, headline: Headline, dataset: str, profile: str, records: pd.DataFrame
) -> dict[str, Any]:
    setting: dict[str, Any] = {"section": section, "profile": profile, "dataset": dataset, "method": headline.method}
    setting |= {"metric": headline.metric, "over_levels": headline.over_levels}
    records = shared_levels(records, section, ARMS) if headline.over_levels else records
    sides = [per_seed(records, arm=arm, **setting) for arm in reversed(ARMS)]
    treated, reference = (side.to_numpy(float) for side in sides[0].align(sides[1], join="inner"))
    if not len(treated):
        return {}
    mean, low, high = mean_interval(relief(headline.metric, treated, reference))
    return {"mean": mean, "low": low, "high": high, "n": len(treated), "profile": profile}


def picture(records: pd.DataFrame) -> bytes:
    """The main result of the whole as one picture (:func:`reliefs`), as SVG.

    It holds a hash of the numbers that it draws, by which :func:`is_current` knows it.
    """
    rows = reliefs(records)
    figure, [panel] = new_figure(height=0.8 + 0.5 * len(rows))
    places = np.arange(len(rows))[::-1]
    style, measured = arm_style("pre-trained"), rows["n"].to_numpy(int) > 0
    wide = np.isfinite(rows["low"].to_numpy(float))
    shown: dict[str, Any] = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
    panel.axvline(0, color="#333333", lw=1)
    for place, row in zip(places[wide], rows[wide].to_dict("records"), strict=True):
        panel.plot([100 * row["low"], 100 * row["high"]], [place, place], color=style["color"], lw=2.5, alpha=0.6)
    panel.plot(100 * rows["mean"][measured], places[measured], label="here, with 95 % interval", **shown)
    panel.plot(100 * rows["paper"], places, label="paper", **PAPER)
    for place, row in zip(places[~measured], rows[~measured].to_dict("records"), strict=True):
        panel.annotate(
            NOT_RUN, (100 * row["paper"], place), (8, 0), textcoords="offset points", va="center", fontsize=11
        )
    panel.set_yticks(places, list(rows["words"]))
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.margins(x=0.16)
    panel.set_xlabel("error that pre-training takes away (%)")
    legend_outside(figure)
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Description": _fingerprint(records)})
    plt.close(figure)
    return content.getvalue()


def _fingerprint(records: pd.DataFrame) -> str:
    return short_hash({"rows": reliefs(records).round(6).to_json()})


def is_current(text: str, image: bytes | None, records: pd.DataFrame) -> bool:
    """Whether README and picture show the records.

    Args:
        text: Content of README.md.
        image: Content of the picture; None where there is none.
        records: The published records.
    """
    if not _measured(records):
        return text == written(text, records)
    return text == written(text, records) and image is not None and _fingerprint(records).encode() in image


def written(text: str, records: pd.DataFrame) -> str:
    """``text`` with the results between the marks.

    Raises:
        ValueError: The marks are not there once each, in order.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in after:
        raise ValueError(f"README.md needs the lines {START} and {END}, once each")
    return f"{before}{START}\n\n{results(records)}\n\n{END}{after}"


def main() -> None:
    """Write README.md and the picture, in the working directory."""
    use_style()
    records, path = frame(load_published()), Path("README.md")
    write_atomically(path, written(path.read_text(), records).encode())
    if _measured(records):
        write_atomically(PICTURE, picture(records))


if __name__ == "__main__":
    main()
