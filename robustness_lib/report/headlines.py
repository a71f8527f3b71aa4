"""The one number that stands for each section: on the first page, in README.md, and at the top of its own page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from robustness_lib.checkpoint_ids import corpus_counts, origin
from robustness_lib.paper import SECTIONS, claims_of, label, metric, network_label
from robustness_lib.paper.claims import CLAIMS, Claim
from robustness_lib.paper.verdicts import Levels
from robustness_lib.profiles import PROFILES
from robustness_lib.records import EVIDENCE
from robustness_lib.report.provenance import corpus_in_words, other_start
from robustness_lib.report.tables import (
    NOT_RUN,
    Markdown,
    comparison_rows,
    counted,
    evaluate,
    listed,
    myst_table,
    number,
)
from robustness_lib.report.verdicts import CONTRADICTED, DIRECTIONS, UNMEASURED, Verdict, effect_text

_SCALES = {
    "paper": "the papers' scale",
    "cpu": "`cpu`, with small networks and parts of the data",
}


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

    def is_about(self, claim: Claim, dataset: str) -> bool:
        """Whether a claim compares the two arms by this number."""
        sides = [(side.arm, side.method, side.metric) for side in (claim.treated, claim.reference)]
        arms = [(arm, self.method, self.metric) for arm in ("pre-trained", "scratch")]
        return sides == arms and claim.dataset == dataset and claim.over == self.over_levels and not claim.than

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
        profile, counts = measured[0]["profile"], [int(row["n"]) for row in measured]
        seeds = counted(counts[0], "seed") if len(set(counts)) == 1 else f"{' and '.join(map(str, counts))} seeds"
        levels = f", {counted(measured[0]['levels'], 'level')}" if self.over_levels else ""
        here += f" {unit} (`{profile}`, {seeds}{levels})"
        return Cells(paper, here, min(counts), profile, measured[0]["measured_on"])

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


def in_short(section: str, records: pd.DataFrame, *notes: str) -> Markdown:
    """The answer before the page: the paper's headline and ours with the verdict, and how many of the claims hold.

    Args:
        section: Section.
        records: Records of any sections.
        *notes: Further lines, what the headline does not say; an empty one is left out.

    Returns:
        An admonition as MyST Markdown.
    """
    headline = HEADLINES[section]
    rows = headline.rows(section, records)
    verdicts = [evaluate(claim, records) for claim in claims_of(section)]
    lines = [":::{admonition} In short", ":class: in-short", ""]
    for dataset in headline.datasets:
        found = headline.cells(rows[rows["dataset"] == dataset].to_dict("records") if len(rows) else [])
        line = f"- {label(dataset)}, {headline.words}, from scratch → pre-trained: the paper **{found.paper}**; "
        line += f"here **{found.here}**"
        judged = [one for one in verdicts if headline.is_about(one.claim, dataset) and one.direction != UNMEASURED]
        lines.append(line + (f": {effect_text(judged[0])}, {judged[0].words}." if judged else "."))
    lines += [f"- {note}" for note in notes if note]
    lines += [f"- Of {len(verdicts)} claims, [judged below](#do-the-claims-hold): {tally(verdicts)}.", ":::", ""]
    return Markdown("\n".join(lines))


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many claims have each verdict: "3 supported, 1 contradicted, 8 not measured"."""
    counts = Counter(one.direction for one in verdicts)
    return ", ".join(f"{counts[word]} {word}" for word in DIRECTIONS if counts[word])


def _judged(records: pd.DataFrame) -> list[Verdict]:
    return [found for claim in CLAIMS if (found := evaluate(claim, records)).direction != UNMEASURED]


def so_far(records: pd.DataFrame) -> str:
    """How many claims are measured, with which verdicts, at which scale and how surely, in a few sentences."""
    judged = _judged(records)
    text = f"{len(judged)} of {len(CLAIMS)} claims are measured: {tally(judged) or 'none yet'}."
    exact = sum(one.claim.exact for one in judged)
    trained = {profile: sum(one.profile == profile and not one.claim.exact for one in judged) for profile in EVIDENCE}
    parts = [f"{exact} {_be(exact)} computed from published predictions"] if exact else []
    parts += [f"{count} {_be(count)} judged at {_SCALES[profile]}" for profile, count in trained.items() if count]
    text += f" Of these, {'; '.join(parts)}." if parts else ""
    text += _lesser_corpora(judged, records)
    text += " None is measured at the papers' scale yet." if judged and not trained["paper"] else ""
    return text


def _lesser(verdict: Verdict, records: pd.DataFrame) -> str:
    """On how much less than the whole corpus a claim's networks of the `paper` profile were pre-trained; else ""."""
    sides = (verdict.claim.treated, verdict.claim.reference)
    if verdict.profile != "paper" or all(side.arm == "scratch" for side in sides):
        return ""
    rows = records[(records["section"] == verdict.claim.section) & (records["profile"] == "paper")]
    other = other_start("paper", verdict.dataset, rows.loc[rows["dataset"] == verdict.dataset, "init"])
    start = origin(other) if other is not None else None
    had = corpus_counts(start.holds) if start is not None else None
    whole = corpus_counts(PROFILES["paper"].targets[verdict.dataset].corpus_holds) if had is not None else None
    if had is None or whole is None:
        return ""
    return f"{had[0]:,} images of {had[1]} classes instead of {whole[0]:,} of {whole[1]:,}"


def _lesser_corpora(judged: Sequence[Verdict], records: pd.DataFrame) -> str:
    counts = Counter(words for one in judged if (words := _lesser(one, records)))
    return "".join(
        f" In {count} of those at the papers' scale, networks were pre-trained on {words}."
        for words, count in sorted(counts.items())
    )


def verdict_summary(records: pd.DataFrame, links: Mapping[str, str]) -> Markdown:
    """The scoreboard in sentences: how many claims are judged, on what, and which are contradicted.

    Args:
        records: Records of any sections.
        links: Page of each section, relative to the page that shows the text.

    Returns:
        Markdown; the claims that are contradicted are a list, each with a link to its section.
    """
    ours = sum(claim.own for claim in CLAIMS)
    text = so_far(records) + (f" {ours} of all are our own, about what the papers did not try." if ours else "")
    failed = [one for one in _judged(records) if one.direction == CONTRADICTED]
    lines = [text, "", *(["These are contradicted here:", ""] if failed else [])]
    for one in failed:
        page = f"[{SECTIONS[one.claim.section]}]({links[one.claim.section]})"
        still = f"; pre-trained on {words}" if (words := _lesser(one, records)) else ""
        lines.append(f"- {one.claim.statement} ({one.claim.paper}; here {effect_text(one)}{still}; {page})")
    return Markdown("\n".join([*lines, ""]))


def recipes_table(section: str, records: pd.DataFrame, *, name: str, methods: Sequence[str] | None = None) -> Markdown:
    """How the recorded networks of a section were trained: a row for each recipe.

    Args:
        section: Section.
        records: Records of any sections; those of `smoke` do not count.
        name: Label of the table for references.
        methods: Only these; None: all that train.

    Returns:
        A numbered MyST table. Numbers of epochs are a range where they differ between levels; of the columns of the
        profile, the network and how it was trained, those in which all rows agree are in the caption instead. The
        caption also says on what the pre-trained networks were pre-trained.
    """
    mine = records[(records["section"] == section) & records["profile"].isin(EVIDENCE)]
    corpora: dict[str, set[str]] = {}
    found: dict[tuple[str, ...], dict[str, set[Any]]] = {}
    for row in mine.to_dict("records"):
        recipe = row["recipe"]
        if recipe.get("epochs") and "learning_rate" in recipe and row["method"] in (methods or [row["method"]]):
            if (start := origin(row["init"])) is not None:
                corpora.setdefault(start.holds, set()).add(f"`{row['profile']}`")
            key = (
                label(row["arm"]),
                f"`{row['profile']}`",
                network_label(str(recipe["architecture"])),
                _images(recipe),
                f"{recipe['batch_size']}",
            )
            uses = found.setdefault(
                (*key, f"{recipe['learning_rate']:g}", row["method"]), {"epochs": set(), "sets": set()}
            )
            uses["epochs"].add(int(recipe["epochs"]))
            uses["sets"].add(label(row["dataset"]))
    rows: dict[tuple[str, ...], list[str]] = {}
    for (*same, method), uses in found.items():
        least, most = min(uses["epochs"]), max(uses["epochs"])
        span = f"{least}" if least == most else f"{least} to {most}"
        rows.setdefault((*same, span, "; ".join(sorted(uses["sets"]))), []).append(label(method))
    cells = [[*key, "; ".join(sorted(used))] for key, used in sorted(rows.items(), key=lambda item: item[0])]
    header = ["Arm", "Profile", "Network", "Training images", "Batch"]
    header += ["Learning rate", "Epochs", "Data sets", "Methods"]
    caption = "How the recorded networks were trained."
    common = [place for place in range(1, 6) if len({row[place] for row in cells}) == 1 and len(cells) > 1]
    if common:
        caption += f" All: {', '.join(f'{header[place].lower()} {cells[0][place]}' for place in common)}."
    if corpora:
        held = [f"{corpus_in_words(holds)} ({listed(sorted(some))})" for holds, some in sorted(corpora.items())]
        caption += f" Pre-trained on {'; '.join(held)}."
    kept = [place for place in range(len(header)) if place not in common]
    shown = [[row[place] for place in kept] for row in cells] or [[NOT_RUN, *["–"] * 8]]
    return myst_table([header[place] for place in kept], shown, caption=caption, name=name)


def _images(recipe: Mapping[str, Any]) -> str:
    if "largest" in recipe:
        return f"{recipe['largest']:,} to {recipe['smallest']:,} a class"
    return f"{recipe['train_images']:,}" if recipe["train_images"] else "all"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
