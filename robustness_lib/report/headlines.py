"""The one number that stands for each section: on the first page, in README.md, and at the top of its own page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from robustness_lib.paper import VERDICTS, claims_of, evaluate, label, metric
from robustness_lib.paper.claims import Levels
from robustness_lib.paper.verdicts import FAILS, HOLDS, IN_DIRECTION
from robustness_lib.report.tables import NOT_RUN, Markdown, comparison_rows, number

_PLURAL = {HOLDS: "hold", IN_DIRECTION: "hold in direction", FAILS: "do not hold"}


@dataclass(frozen=True)
class Cells:
    """A headline in words.

    Attributes:
        paper: The paper's values, from scratch and pre-trained.
        here: Ours, with their spread, profile and number of seeds.
        seeds: The number of seeds, 0 where it was not run.
        profile: Where it was measured.
        dataset: On which image set, which may be a stand-in for the paper's.
    """

    paper: str
    here: str
    seeds: int = 0
    profile: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class Headline:
    """The one number that stands for a section.

    Attributes:
        metric: Metric.
        method: Method of both arms.
        over_levels: How the levels are reduced, where the section has levels.
        datasets: Image sets.
        share: Whether the metric lies between 0 and 1, one of which is perfect, so that arms compare by a share.
    """

    metric: str
    method: str = "standard"
    over_levels: Levels = None
    datasets: tuple[str, ...] = ("cifar10", "cifar100")
    share: bool = True

    def rows(self, section: str, records: pd.DataFrame) -> pd.DataFrame:
        """The paper's and our values (:func:`robustness_lib.report.tables.comparison_rows`)."""
        return comparison_rows(section, records, metrics=[self.metric], **self.settings)

    @property
    def words(self) -> str:
        """What it is, such as "area under the curve of the test error"."""
        reduced = {"area": "area under the curve of the ", "mean": "mean "}.get(self.over_levels or "", "")
        return f"{reduced}{metric(self.metric).label}"

    def cells(self, rows: list[dict[Any, Any]]) -> Cells:
        """The paper's and our values of one data set in words.

        Args:
            rows: Of :meth:`rows`, from scratch and pre-trained.
        """
        unit = metric(self.metric).unit
        printed = " → ".join(row["printed"] for row in rows if row["printed"])
        paper = f"{printed} {unit}".strip() if printed else "no number"
        measured = [row for row in rows if row["n"]]
        if not measured:
            return Cells(paper=paper, here=NOT_RUN)
        here = " → ".join(
            number(row["mean"], self.metric) + (f" ± {number(row['sd'], self.metric)}" if row["n"] > 1 else "")
            for row in measured
        )
        profile, count = measured[0]["profile"], min(row["n"] for row in measured)
        here += f" {unit} (`{profile}`, {count} seed{'s' * (count > 1)})"
        return Cells(paper, here, count, profile, measured[0]["measured_on"])

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
    "effective_robustness": Headline("maximum_effective_robustness", datasets=("cifar10",), share=False),
}
"""By section."""


def in_short(section: str, records: pd.DataFrame) -> Markdown:
    """The answer before the page: the paper's headline and ours, and how many of the claims hold.

    Args:
        section: Section.
        records: Records of any sections.

    Returns:
        An admonition as MyST Markdown.
    """
    headline = HEADLINES[section]
    rows = headline.rows(section, records)
    lines = [":::{admonition} In short", ":class: in-short", ""]
    for dataset in headline.datasets:
        found = headline.cells(rows[rows["dataset"] == dataset].to_dict("records") if len(rows) else [])
        lines.append(
            f"- {label(dataset)}, {headline.words}, from scratch → pre-trained: the paper **{found.paper}**; "
            f"here **{found.here}**."
        )
    verdicts = [evaluate(claim, records).verdict for claim in claims_of(section)]
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    words = [f"{count} {_PLURAL.get(verdict, verdict) if count != 1 else verdict}" for verdict, count in counts.items()]
    listed = ", ".join(word for word, count in zip(words, counts.values(), strict=True) if count)
    lines += [f"- Of {len(verdicts)} claims, [judged below](#do-the-claims-hold): {listed}.", ":::", ""]
    return Markdown("\n".join(lines))
