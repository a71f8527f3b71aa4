"""Tables and figures of out-of-distribution detection: by foreign set, by draw and seed, and what sets share.

As everywhere, ours are means over seeds with their standard deviation, at the highest profile that has records, and
the paper's values stand beside them. Where the records lack a foreign set of the paper's, it says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustness_lib.paper import common_profile, label, metric, per_seed, profile_of, runs, select
from robustness_lib.paper.claims import Floats
from robustness_lib.paper.verdicts import STAND_INS, mean_interval
from robustness_lib.records import EVIDENCE
from robustness_lib.report.style import OKABE_ITO, PAPER, arm_style, legend_outside, new_figure
from robustness_lib.report.tables import ARMS, NOT_RUN, Markdown, counted, listed, myst_table, number, spread

SECTION = "ood"
MEASURES = ("auroc", "aupr")
"""What the paper prints."""

SYNTHETIC = ("gaussian", "rademacher", "blobs")
"""The foreign sets that are no photographs."""

_TABLE = "P1 Table 6"
_DASH = "–"
_DIFFERENCE = "Difference [95 % interval]"

# --------------------------------------------------------------------------------------------- values by foreign set


def paper_values(dataset: str, measure: str, arm: str) -> dict[str, float]:
    """The paper's values by foreign set, in the order of its Table 6."""
    rows = select(SECTION, dataset=dataset, arm=arm, method="standard", locator=_TABLE)
    values = {str(row["metric"]): float(row["value"]) for row in rows.to_dict("records")}
    names = {name.partition("_")[2]: value for name, value in values.items() if name.startswith(f"{measure}_")}
    return {name: value for name, value in names.items() if name != "mean"}


def _printed_mean(dataset: str, measure: str) -> str:
    """The paper's two means, as printed."""
    cells = [select(SECTION, dataset=dataset, arm=arm, metric=f"{measure}_mean", locator=_TABLE) for arm in ARMS]
    return _DASH if any(rows.empty for rows in cells) else " → ".join(str(rows["printed"].iloc[0]) for rows in cells)


def _words(measure: str) -> str:
    """A measure's name alone: "AUROC"."""
    return metric(f"{measure}_mean").label.partition(",")[0]


class _Ours:
    """The records of one known set and method at the highest profile that has any."""

    def __init__(self, records: pd.DataFrame, dataset: str, profile: str | None, method: str = "standard") -> None:
        self.records, self.method = records[records["method"] == method], method
        places = [name for name in (dataset, STAND_INS.get(dataset)) if name is not None]
        found = [(name, profile or profile_of(self.records, SECTION, name)) for name in places]
        mine = [(name, scale) for name, scale in found if scale and self._has(name, scale)]
        self.dataset, self.profile = mine[0] if mine else (dataset, "")
        self.averaged, self.further = self._sets()

    def _has(self, dataset: str, profile: str) -> bool:
        return bool(((self.records["dataset"] == dataset) & (self.records["profile"] == profile)).any())

    def runs(self, arm: str) -> pd.DataFrame:
        return runs(
            self.records, section=SECTION, profile=self.profile, dataset=self.dataset, arm=arm, method=self.method
        )

    def _sets(self) -> tuple[list[str], list[str]]:
        """The foreign sets of the means, and the further ones."""
        recipes = [recipe for arm in ARMS for recipe in self.runs(arm)["recipe"]] if self.profile else []
        texts = [str(recipes[0].get(name, "")) if recipes else "" for name in ("ood_sets", "further_sets")]
        averaged, further = ([part for part in text.split(":") if part] for text in texts)
        return averaged, further

    def values(self, name: str, arm: str) -> pd.Series:
        """One value a seed of a metric."""
        if not self.profile:
            return pd.Series(dtype=float)
        setting: dict[str, Any] = {"profile": self.profile, "dataset": self.dataset, "method": self.method}
        return per_seed(self.records, section=SECTION, arm=arm, metric=name, **setting)

    def sides(self, name: str) -> tuple[pd.Series, pd.Series]:
        """Both arms' values of a metric."""
        return self.values(name, ARMS[0]), self.values(name, ARMS[1])

    def mean_over(self, measure: str, sets: Sequence[str]) -> tuple[pd.Series, pd.Series]:
        """Both arms' means over some sets."""
        if not sets:
            return pd.Series(dtype=float), pd.Series(dtype=float)
        by_set = [[self.values(f"{measure}_{name}", arm) for name in sets] for arm in ARMS]
        scratch, tuned = (pd.concat(parts, axis=1).dropna().mean(axis=1) for parts in by_set)
        return scratch, tuned


def paper_mean(records: pd.DataFrame, *, dataset: str, measure: str, arm: str) -> float:
    """The paper's mean over the foreign sets that ours is over; NaN where nothing is recorded or it lacks one of them.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        dataset: The known set.
        measure: ``"auroc"`` or ``"aupr"``.
        arm: Arm.
    """
    sets, side = _Ours(records, dataset, None).averaged, paper_values(dataset, measure, arm)
    return math.fsum(side.get(one, math.nan) for one in sets) / len(sets) if sets else math.nan


def _compared(sides: tuple[pd.Series, pd.Series], measure: str) -> tuple[str, str]:
    """Both arms over the seeds that both have, and their paired difference with its 95 % interval."""
    (scratch, tuned), name = sides, f"{measure}_mean"
    if scratch.empty and tuned.empty:
        return _DASH, _DASH
    if len(scratch.index.intersection(tuned.index)):
        sides = scratch, tuned = scratch.align(tuned, join="inner")
    effects = (tuned - scratch).dropna().to_numpy(dtype=float)
    cells = " → ".join(spread(side.to_numpy(dtype=float), name) if len(side) else NOT_RUN for side in sides)
    if not len(effects):
        return cells, _DASH
    mean, low, high = (number(value, name, signed=True) for value in mean_interval(effects))
    return cells, f"{mean} [{low}, {high}]" if len(effects) > 1 else mean


def _papers(sides: Sequence[Mapping[str, float]], sets: Sequence[str], measure: str) -> str:
    """The paper's two arms as means over some of its sets; a dash where it lacks one of them."""
    if not sets or not all(one in side for side in sides for one in sets):
        return _DASH
    means = [math.fsum(side[one] for one in sets) / len(sets) for side in sides]
    return " → ".join(number(mean, f"{measure}_mean") for mean in means)


# --------------------------------------------------------------------------------------------- tables


def foreign_sets_table(
    records: pd.DataFrame, *, dataset: str, caption: str, name: str, profile: str | None = None
) -> Markdown:
    """The paper's Table 6 for one known set, with ours: a row a foreign set, and the means.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        dataset: The known set.
        caption: Caption of the tables after the measure's name, Markdown.
        name: Label of the first table, AUROC, for references; that of the second has ``-aupr`` after it.
        profile: The records' profile; None: the highest with records, "paper" or "cpu".

    Returns:
        Two numbered MyST tables; cells read "from scratch → pre-trained". A set of the paper's that was not measured is
        "not at hand" and in no mean; the paper's mean stands there over all its sets and over those measured here.
    """
    ours = _Ours(records, dataset, profile)
    tables = []
    for measure in MEASURES:
        words = _words(measure)
        header = ["Foreign images", f"{words} (%), paper", f"{words} (%), here", _DIFFERENCE]
        rows = _rows_by_set(ours, dataset, measure) or [[NOT_RUN, *[_DASH] * 3]]
        label_of = name if measure == MEASURES[0] else f"{name}-{measure}"
        tables.append(myst_table(header, rows, caption=f"{words}, {caption}", name=label_of))
    return Markdown("\n".join(tables))


def _rows_by_set(ours: _Ours, dataset: str, measure: str) -> list[list[str]]:
    """A row a foreign set, then the means: over the sets measured here, and over all of the paper's."""
    papers = [paper_values(dataset, measure, arm) for arm in ARMS]
    printed, measured = list(papers[0]), [*ours.averaged, *ours.further]
    rows = []
    for one in dict.fromkeys([*printed, *measured]):
        here = ("not at hand" if ours.profile else NOT_RUN, _DASH)
        if one in measured:
            here = _compared(ours.sides(f"{measure}_{one}"), measure)
        words = label(one) + (" (in no mean)" if one in ours.further else "")
        rows.append([words, _papers(papers, [one], measure), *here])
    complete = set(ours.averaged) == set(printed)
    if ours.averaged and not complete:
        here = _compared(ours.sides(f"{measure}_mean"), measure)
        rows.append([f"**mean of {len(ours.averaged)} measured**", _papers(papers, ours.averaged, measure), *here])
    if printed:
        here = _compared(ours.sides(f"{measure}_mean"), measure) if complete else (_DASH, _DASH)
        rows.append([f"**mean of all {len(printed)}**", _printed_mean(dataset, measure), *here])
    return rows


def kinds_table(
    records: pd.DataFrame, *, datasets: Sequence[str], caption: str, name: str, profile: str | None = None
) -> Markdown:
    """The paper's Table 4 with ours, all foreign sets together and by kind: synthetic ones, and photographs.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records of each set, "paper" or "cpu".

    Returns:
        A numbered MyST table; cells read "from scratch → pre-trained". The paper's means are over all its sets of the
        kind, and over those of them that were measured here.
    """
    rows = []
    for dataset, measure in product(datasets, MEASURES):
        ours = _Ours(records, dataset, profile)
        papers = [paper_values(dataset, measure, arm) for arm in ARMS]
        kinds: dict[str, Callable[[str], bool]] = {
            "all": lambda one: True,
            "synthetic": lambda one: one in SYNTHETIC,
            "photographs": lambda one: one not in SYNTHETIC,
        }
        for kind, belongs in kinds.items():
            printed, measured = (list(filter(belongs, sets)) for sets in (papers[0], ours.averaged))
            here, difference = _compared(ours.mean_over(measure, measured), measure)
            count = len(ours.runs(ARMS[1])) if ours.profile else 0
            used = "" if ours.dataset == dataset else f", {label(ours.dataset)}"
            rows.append(
                [
                    f"{label(dataset)}, {_words(measure)}, {kind}",
                    (_printed_mean(dataset, measure) if kind == "all" else _papers(papers, printed, measure))
                    + _how_many(printed),
                    _papers(papers, measured, measure) + _how_many(measured),
                    here if ours.profile else NOT_RUN,
                    difference,
                    f"`{ours.profile}`{used}, n = {count}" if ours.profile else _DASH,
                ]
            )
    header = ["Known set, measure, foreign images", "Paper (%)", "Paper, sets measured here (%)", "Here (%)"]
    header += [_DIFFERENCE, "Profile, seeds"]
    return myst_table(header, rows, caption=caption, name=name)


def scores_table(
    records: pd.DataFrame,
    *,
    datasets: Sequence[str],
    methods: Sequence[str],
    caption: str,
    name: str,
    profile: str | None = None,
) -> Markdown:
    """The two arms under several scores: a row a known set and score.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
        methods: The scores.
        caption: Caption of the tables after the measure's name, Markdown.
        name: Label of the first table, AUROC, for references; that of the second has ``-aupr`` after it.
        profile: The records' profile; None: of each set the one that has most of the scores, the highest at a tie.

    Returns:
        Two numbered MyST tables; cells read "from scratch → pre-trained". Means are over all foreign sets of the
        records' means, and over the photographs among them.
    """
    found = []
    for dataset in datasets:
        scale = profile or common_profile(records, SECTION, dataset, methods)
        found += [(method, _Ours(records, dataset, scale, method)) for method in methods]
    tables = []
    for measure in MEASURES:
        words, rows = _words(measure), []
        for method, ours in ((method, ours) for method, ours in found if ours.profile):
            photographs = [one for one in ours.averaged if one not in SYNTHETIC]
            cells = [*_compared(ours.sides(f"{measure}_mean"), measure)]
            cells += _compared(ours.mean_over(measure, photographs), measure)
            scratch, tuned = ours.sides(f"{measure}_mean")
            seeds = len(scratch.index.intersection(tuned.index))
            rows.append([f"{label(ours.dataset)}, {label(method)}", *cells, f"`{ours.profile}`, {seeds}"])
        header = ["Known set, score", f"{words} (%)", _DIFFERENCE, f"{words} (%), photographs", _DIFFERENCE]
        header += ["Profile, n"]
        label_of = name if measure == MEASURES[0] else f"{name}-{measure}"
        rows = rows or [[NOT_RUN, *[_DASH] * 5]]
        tables.append(myst_table(header, rows, caption=f"{words}, {caption}", name=label_of))
    return Markdown("\n".join(tables))


def _how_many(sets: Sequence[str]) -> str:
    return f" ({len(sets)} set{'s' * (len(sets) > 1)})" if sets else ""


def spreads_table(
    records: pd.DataFrame, *, datasets: Sequence[str], caption: str, name: str, profile: str | None = None
) -> Markdown:
    """How much the means vary from draw to draw of the foreign images, and from seed to seed.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        A numbered MyST table: the standard deviation over the draws for one network (root mean square over the
        networks), and that over seeds of the mean over draws; both in percentage points.
    """
    rows = []
    for dataset, measure in product(datasets, (*MEASURES, "fpr95")):
        ours, which = _Ours(records, dataset, profile), f"{measure}_mean"
        cells = []
        for arm in ARMS:
            values, spreads = ours.values(which, arm).to_numpy(float), ours.values(f"spread_{which}", arm)
            if len(values):
                draws = float(np.sqrt(np.mean(spreads.to_numpy(float) ** 2))) if len(spreads) else math.nan
                seeds = float(values.std(ddof=1)) if len(values) > 1 else math.nan
                cells += [number(value, which, 2) for value in (values.mean(), draws, seeds)]
            else:
                cells += [NOT_RUN, _DASH, _DASH]
        if set(cells) != {NOT_RUN, _DASH}:
            rows.append([f"{label(ours.dataset)}, {metric(which).label} (%)", *cells, f"`{ours.profile}`"])
    header = ["Measure"]
    for arm in ARMS:
        header += [f"{label(arm)[0].upper()}{label(arm)[1:]}", "s.d. over draws", "s.d. over seeds"]
    return myst_table([*header, "Profile"], rows or [[NOT_RUN, *[_DASH] * 7]], caption=caption, name=name)


def overlap_table(
    records: pd.DataFrame, *, datasets: Sequence[str], caption: str, name: str, profile: str | None = None
) -> Markdown:
    """What the known and foreign sets share with the corpus of pre-training, as counted.

    Args:
        records: Records of method ``overlap``.
        datasets: The known sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        A numbered MyST table, one row a set.
    """
    rows = {}
    for dataset in datasets:
        ours = _Ours(records, dataset, profile, "overlap")
        found = ours.runs(ARMS[1]).to_dict("records") if ours.profile else []
        for row in found[:1]:
            counted = [str(key) for key in row if str(key).startswith("images_") and pd.notna(row[key])]
            for one in (key.removeprefix("images_") for key in counted):
                cells = [_count(row, f"{what}_{one}") for what in _COUNTED]
                corpus = f"{_count(row, 'corpus_images')} images, {_count(row, 'corpus_classes')} classes, "
                corpus += f"{_count(row, 'corpus_related_classes')} of them related to CIFAR-10"
                rows[one, corpus] = [label(one), *cells, f"{corpus} (`{ours.profile}`)"]
    header = ["Set", "Images", "Classes", "Classes of the same name", "Classes of a kindred name"]
    header += ["Images nearly equal to one of the corpus", "Corpus"]
    return myst_table(header, list(rows.values()) or [[NOT_RUN, *[_DASH] * 6]], caption=caption, name=name)


_COUNTED = ("images", "classes", "shared_classes", "kindred_classes", "shared_images")


def _count(row: Mapping[Any, Any], key: str) -> str:
    return f"{int(row[key]):,}"


def chance_note(records: pd.DataFrame, *, datasets: Sequence[str], profile: str | None = None) -> Markdown:
    """Where a mean AUROC is below that of a coin, what that means, and on which sets it is so.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        Markdown, a paragraph a known set with such a mean; one sentence where there is none, or no record.
    """
    lines, measured = [], False
    for dataset in datasets:
        ours = _Ours(records, dataset, profile)
        means = {arm: ours.values("auroc_mean", arm) for arm in ARMS}
        measured = measured or any(len(values) for values in means.values())
        worse = {arm: values.mean() for arm, values in means.items() if len(values) and values.mean() < 0.5}
        if not worse:
            continue
        told = listed([f"{number(mean, 'auroc_mean')} % {label(arm)}" for arm, mean in worse.items()])
        text = (
            f"With {label(ours.dataset)} as the known set the mean AUROC is {told}, less than a coin's: on average the "
        )
        text += "network is surer of foreign images than of those it knows."
        if ARMS[0] in worse:
            by_set = {one: ours.values(f"auroc_{one}", ARMS[0]) for one in ours.averaged}
            below = [label(one) for one, values in by_set.items() if len(values) and values.mean() < 0.5]
            tuned = means[ARMS[1]]
            text += f" So it is on {len(below)} of {len(by_set)} sets ({', '.join(below)})." if below else ""
            if len(tuned):
                mean = number(tuned.mean(), "auroc_mean")
                text += f" A gain there, to {mean} % pre-trained, is first a step towards chance."
        lines.append(text)
    if not measured:
        return Markdown(f"Mean AUROC here: {NOT_RUN}.")
    return Markdown("\n\n".join(lines) or "No mean AUROC here is below that of a coin.")


def photographs_note(records: pd.DataFrame, *, datasets: Sequence[str], profile: str | None = None) -> str:
    """What pre-training does to the mean AUROC over photographs alone, a clause a known set.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        A sentence, Markdown; "" where nothing is recorded.
    """
    told = []
    for ours in (_Ours(records, dataset, profile) for dataset in datasets):
        photographs = [one for one in ours.averaged if one not in SYNTHETIC]
        here, difference = _compared(ours.mean_over(MEASURES[0], photographs), MEASURES[0])
        if difference != _DASH:
            told.append(f"{label(ours.dataset)} {here} %, {difference} points{_how_many(photographs)}")
    if not told:
        return ""
    words = f"the mean {_words(MEASURES[0])}, from scratch → pre-trained, is"
    return f"On photographs alone, without noise and blobs, {words}: {'; '.join(told)}."


def further_sets_note(records: pd.DataFrame, *, datasets: Sequence[str]) -> Markdown:
    """AUROC against the foreign sets that are in no mean, a line a known set, foreign set and profile.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
    """
    lines = []
    for dataset, profile in product(datasets, EVIDENCE):
        ours = _Ours(records, dataset, profile)
        for one in ours.further if ours.profile else ():
            cell, difference = _compared(ours.sides(f"auroc_{one}"), "auroc")
            lines.append(
                f"- {label(ours.dataset)} against {label(one)}: AUROC {cell} %, difference {difference} points "
                f"(`{profile}`, {counted(len(ours.runs(ARMS[1])), 'seed')})."
            )
    return Markdown("\n".join(lines) or f"Sets in no mean: {NOT_RUN}.")


def losses_note(records: pd.DataFrame, *, datasets: Sequence[str], profile: str | None = None) -> Markdown:
    """In which rows pre-training does not help, in the paper and here, as a sentence each.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        Markdown. Here a row is one where the mean difference over the seeds is negative.
    """
    lines = []
    for measure in MEASURES:
        words = _words(measure)
        printed: dict[tuple[str, str], float] = {}
        here: dict[tuple[str, str], float] = {}
        for dataset in datasets:
            scratch, tuned = (paper_values(dataset, measure, arm) for arm in ARMS)
            printed |= {(dataset, one): tuned[one] - scratch[one] for one in scratch}
            ours = _Ours(records, dataset, profile)
            here |= {(ours.dataset, one): gain.mean() for one, gain in _gains(ours, measure).items() if len(gain)}
        lines.append(f"*{words}*, the paper: {_lost(printed)}. Here: {_lost(here)}.")
    return Markdown("\n\n".join(lines))


def _lost(gains: Mapping[tuple[str, str], float]) -> str:
    if not gains:
        return NOT_RUN
    lost: dict[str, list[str]] = {}
    for (dataset, one), gain in gains.items():
        if gain < 0:
            lost.setdefault(dataset, []).append(label(one))
    where = "; ".join(f"{label(dataset)} against {', '.join(sets)}" for dataset, sets in lost.items())
    return f"lower after pre-training in {sum(map(len, lost.values()))} of {len(gains)} rows" + (
        f" ({where})" if where else ""
    )


def _gains(ours: _Ours, measure: str) -> dict[str, Floats]:
    """What pre-training adds at each seed, by foreign set."""
    found = {}
    for one in (*ours.averaged, *ours.further):
        scratch, tuned = (ours.values(f"{measure}_{one}", arm) for arm in ARMS)
        found[one] = (tuned - scratch).dropna().to_numpy(dtype=float)
    return found


# --------------------------------------------------------------------------------------------- figures


def gain_by_set(
    records: pd.DataFrame, *, datasets: Sequence[str], measure: str = "auroc", profile: str | None = None
) -> Figure:
    """What pre-training adds for each foreign set: a panel a known set, a point a seed, the paper's values diamonds.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: The known sets.
        measure: "auroc", "aupr" or "fpr95".
        profile: The records' profile; None: the highest with records of each set.

    Returns:
        The figure. A set without points was not measured.
    """
    figure, panels = new_figure(columns=len(datasets), height=5.0)
    names = {dataset: _Ours(records, dataset, profile) for dataset in datasets}
    papers = {dataset: [paper_values(dataset, measure, arm) for arm in ARMS] for dataset in datasets}
    shown = list(
        dict.fromkeys(
            [one for sides in papers.values() for one in sides[0]]
            + [one for ours in names.values() for one in (*ours.averaged, *ours.further)]
        )
    )
    places = {one: len(shown) - 1 - place for place, one in enumerate(shown)}
    scale = metric(f"{measure}_mean").scale
    for panel, dataset in zip(panels, datasets, strict=True):
        panel.axvline(0, color="#555555", lw=1.2, ls=":")
        for one, gains in _gains(names[dataset], measure).items():
            jitter = np.linspace(-0.12, 0.12, len(gains)) if len(gains) > 1 else np.zeros(len(gains))
            style: dict[str, Any] = {**arm_style("pre-trained"), "linestyle": "none", "markeredgecolor": "white"}
            panel.plot(gains * scale, places[one] + jitter, label="here, a point a seed", **style)
        scratch, tuned = papers[dataset]
        for one in scratch:
            panel.plot((tuned[one] - scratch[one]) * scale, places[one] + 0.25, label="paper", **{**PAPER, "ms": 5})
        panel.set_yticks(list(places.values()), [label(one) for one in places])
        panel.set_ylim(-0.6, len(shown) - 0.4)
        panel.set_title(label(names[dataset].dataset), loc="left", fontsize=11)
    words = _words(measure)
    figure.supxlabel(f"{words}, pre-trained less from scratch (percentage points)", fontsize=12)
    legend_outside(figure)
    return figure


_COLORS = tuple(
    OKABE_ITO[name] for name in ("purple", "orange", "green", "sky blue", "blue", "vermilion", "black", "yellow")
)
"""One for each foreign set; the paper has eight."""


def score_histograms(records: pd.DataFrame, *, dataset: str, profile: str | None = None) -> Figure:
    """How sure the networks are of known and foreign images: synthetic sets above, photographs below, a column an arm.

    Args:
        records: Records with the list metrics ``histogram_known`` and ``histogram_<set>``: shares of images by equal
            steps of the score from -1 to 0.
        dataset: The known set.
        profile: The records' profile; None: the highest with records.

    Returns:
        The figure; means over seeds.
    """
    ours = _Ours(records, dataset, profile)
    sets = [*ours.averaged, *ours.further]
    kinds = [
        part for part in ([s for s in sets if s in SYNTHETIC], [s for s in sets if s not in SYNTHETIC]) if part
    ] or [[]]
    figure, panels = new_figure(columns=2, rows=len(kinds), height=2.7)
    for panel, (kind, arm) in zip(panels, product(kinds, ARMS), strict=True):
        rows = ours.runs(arm) if ours.profile else records.iloc[:0]
        known = _mean_list(rows, "histogram_known")
        if len(known):
            edges = np.linspace(0, 100, len(known) + 1)
            panel.stairs(known[::-1] * 100, edges, fill=True, color="#BBBBBB", label="known images")
            for one in kind:
                round_of, place = divmod(sets.index(one), len(_COLORS))
                shares = _mean_list(rows, f"histogram_{one}")
                dashes = ("-", "--")[round_of % 2]
                panel.stairs(shares[::-1] * 100, edges, color=_COLORS[place], lw=1.8, ls=dashes, label=label(one))
        else:
            panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
        panel.set_yscale("symlog", linthresh=1)
        panel.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        panel.set_ylim(0, 100)
        panel.set_title(label(arm), loc="left", fontsize=11)
        panel.set(xlabel="confidence (%)", ylabel="images (%)", xlim=(0, 101))
        panel.label_outer()
    legend_outside(figure)
    return figure


def roc_curves(records: pd.DataFrame, *, dataset: str, rates: Sequence[float], profile: str | None = None) -> Figure:
    """Receiver operating characteristics of both arms, a panel a foreign set.

    Args:
        records: Records with the list metrics ``roc_<set>``.
        dataset: The known set.
        rates: The false-positive rates that the lists are for.
        profile: The records' profile; None: the highest with records.

    Returns:
        The figure: means over seeds with a band of one standard deviation.
    """
    ours = _Ours(records, dataset, profile)
    sets = [*ours.averaged, *ours.further]
    figure, panels = new_figure(columns=3, rows=max(1, math.ceil(len(sets) / 3)), height=2.3)
    for panel, one in zip(panels, sets, strict=False):
        panel.plot([0, 100], [0, 100], color="#555555", lw=1.0, ls=":", label="chance")
        for arm in ARMS:
            curves = [cell for cell in ours.runs(arm).get(f"roc_{one}", ()) if isinstance(cell, Sequence)]
            if curves:
                mean, spread = np.mean(curves, axis=0) * 100, np.std(curves, axis=0, ddof=min(1, len(curves) - 1)) * 100
                style: dict[str, Any] = {**arm_style(arm), "marker": ""}
                panel.plot(np.asarray(rates) * 100, mean, label=label(arm), **style)
                panel.fill_between(
                    np.asarray(rates) * 100, mean - spread, mean + spread, color=style["color"], alpha=0.2, lw=0
                )
        panel.set(xlim=(0, 100), ylim=(0, 100), box_aspect=1, xticks=[0, 50, 100], yticks=[0, 50, 100])
        panel.set_title(label(one), loc="left", fontsize=11)
        panel.label_outer()
    for panel in panels[len(sets) :]:
        panel.set_axis_off()
    if not sets:
        figure.text(0.5, 0.5, NOT_RUN, ha="center")
    figure.supxlabel("known images flagged (%)", fontsize=12)
    figure.supylabel("foreign images flagged (%)", fontsize=12)
    legend_outside(figure)
    return figure


def _mean_list(rows: pd.DataFrame, name: str) -> Floats:
    """The mean over records of a list metric; empty where there is none."""
    lists = [cell for cell in rows.get(name, ()) if isinstance(cell, Sequence)]
    return np.mean(lists, axis=0) if lists else np.array([])
