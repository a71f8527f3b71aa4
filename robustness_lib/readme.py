"""The results in README.md: a picture and a table, made from the published records.

``python -m robustness_lib.readme`` (``make readme``) writes them between two marks in the file, and the picture beside
the book's other static files. A test compares the file with the records.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from robustness_lib.files import write_atomically
from robustness_lib.paper import SECTIONS, label, metric
from robustness_lib.paper.claims import Levels
from robustness_lib.records import frame, load_published, short_hash
from robustness_lib.report import bars_with_paper, comparison_rows, legend_outside, new_figure, rerun_command
from robustness_lib.report.tables import NOT_RUN, number

START, END = "<!-- results: made by `make readme`, not by hand -->", "<!-- end of the results -->"
PICTURE = Path("book/_static/results.svg")


@dataclass(frozen=True)
class Headline:
    """The one number that stands for a section.

    Attributes:
        metric: Metric.
        method: Method of both arms.
        over_levels: How the levels are reduced, where the section has levels.
        datasets: Image sets.
    """

    metric: str
    method: str = "standard"
    over_levels: Levels = None
    datasets: tuple[str, ...] = ("cifar10", "cifar100")

    def rows(self, section: str, records: pd.DataFrame) -> pd.DataFrame:
        """The paper's and our values (:func:`robustness_lib.report.tables.comparison_rows`)."""
        return comparison_rows(section, records, metrics=[self.metric], **self.settings)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a table or figure."""
        return {"datasets": self.datasets, "methods": [self.method], "over_levels": self.over_levels}


HEADLINES = {
    "adversarial": Headline("adversarial_accuracy", "adversarial"),
    "label_noise": Headline("error", "none", "area"),
    "imbalance": Headline("error", "normal", "mean"),
    "ood": Headline("auroc_mean"),
    "calibration": Headline("rms_calibration_error"),
    "effective_robustness": Headline("maximum_effective_robustness", datasets=("cifar10",)),
}
"""By section."""


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
        alt = f"Bars from scratch and pre-trained beside the paper's values: {words}. The table has the numbers."
        lines = [f"![{alt}]({PICTURE})", "", *lines]
    return "\n".join(lines)


def _line(section: str, headline: Headline, dataset: str, rows: list[dict[Any, Any]], records: pd.DataFrame) -> str:
    shown = metric(headline.metric)
    reduced = {"area": "area under the curve of the ", "mean": "mean "}.get(headline.over_levels or "", "")
    name = f"{SECTIONS[section]}, {label(dataset)}: {reduced}{shown.label}"
    paper = " → ".join(row["printed"] for row in rows if row["printed"]) or "no number"
    measured = [row for row in rows if row["n"]]
    if not measured:
        return f"| {name} | {paper} {shown.unit if rows else ''} | {NOT_RUN} | |".replace("  ", " ")
    profile, used = measured[0]["profile"], measured[0]["measured_on"]
    here = " → ".join(
        number(row["mean"], headline.metric) + (f" ± {number(row['sd'], headline.metric)}" if row["n"] > 1 else "")
        for row in measured
    )
    chosen = records[(records["section"] == section) & (records["profile"] == profile)]
    seeds = [int(seed) for seed in chosen.loc[chosen["dataset"] == used, "seed"]]
    command = rerun_command(section, profile, used, seeds)
    count = min(row["n"] for row in measured)
    here += f" {shown.unit} (`{profile}`, {count} seed{'s' * (count > 1)})"
    return f"| {name} | {paper} {shown.unit} | {here} | `{command}` |"


def _measured(records: pd.DataFrame) -> list[str]:
    """The sections that have a recorded headline."""
    found = {name: headline.rows(name, records) for name, headline in HEADLINES.items()}
    return [name for name, rows in found.items() if len(rows) and bool(rows["n"].any())]


def picture(records: pd.DataFrame) -> bytes:
    """The picture: one panel a section that has records, as SVG.

    It holds a hash of the numbers that it draws, by which :func:`is_current` knows it.
    """
    sections = _measured(records)
    figure, panels = new_figure(rows=len(sections), height=2.8)
    for section, panel in zip(sections, panels, strict=True):
        headline = HEADLINES[section]
        bars_with_paper(section, records, headline.metric, axes=panel, **headline.settings)
    legend_outside(figure)
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None, "Description": _fingerprint(records)})
    plt.close(figure)
    return content.getvalue()


def _fingerprint(records: pd.DataFrame) -> str:
    values = {name: HEADLINES[name].rows(name, records) for name in _measured(records)}
    columns = ["dataset", "arm", "printed", "mean", "n", "profile"]
    return short_hash({name: rows[columns].round(6).to_json() for name, rows in values.items()})


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
    records, path = frame(load_published()), Path("README.md")
    write_atomically(path, written(path.read_text(), records).encode())
    if _measured(records):
        write_atomically(PICTURE, picture(records))


if __name__ == "__main__":
    main()
