"""What the records say about each claim, in two answers: the direction of its effect, and its size.

The scoreboard page (``notebooks/claims.py``) states the rule in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from robustness_lib.paper import CLAIMS, SECTIONS, Claim, claims_of, label, metric, tolerance
from robustness_lib.paper.claims import EVERY, PRINTED, ZERO, Side, at_place, printed_row, stated_row
from robustness_lib.report import evidence, markdown
from robustness_lib.report.evidence import STAND_INS, Comparison
from robustness_lib.report.markdown import DASH, Markdown, effect, spread, unit
from robustness_lib.runner.records import EVIDENCE

Direction: TypeAlias = Literal["supported", "contradicted", "undecided", "not testable here", "not measured"]
Size: TypeAlias = Literal["reached", "below", "undecided", "not judged", ""]

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTABLE, UNMEASURED = DIRECTIONS

NOTHING_LEARNED = 0.85  # both arms err on a larger share of the test images: nothing that could be compared


@dataclass(frozen=True)
class Verdict:
    """What the records say about a claim.

    Attributes:
        size: "" where the paper states none; "not judged" of a direction that is supported at another scale than its.
        comparison: What decides; of a claim with :attr:`~Claim.than` its sides are gains.
        level: Of a claim about every level, class or OOD set the one that bears it out least.
    """

    claim: Claim
    direction: Direction = UNMEASURED
    size: Size = ""
    comparison: Comparison = field(default_factory=Comparison)
    level: str | float | None = None
    note: str = ""

    @property
    def scale(self) -> str:
        """``paper``, ``cpu``, "published" of numbers from published predictions, or ""."""
        return "published" if self.claim.exact and self.comparison.profile else self.comparison.profile

    @property
    def words(self) -> str:
        """Direction and size, such as "supported, size below"."""
        return f"{self.direction}, size {self.size}" if self.size else self.direction


def direction(claim: Claim, low: float, high: float) -> Direction:
    """The direction of an effect by its interval: supported if that is on the claimed side, or within the margin."""
    if claim.test == "beyond":
        none = 1.0 if claim.kind == "ratio" else 0.0
        low, high = sorted((claim.sign * (low - none), claim.sign * (high - none)))
        return SUPPORTED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED
    least, most = claim.bounds
    if least <= low and high <= most:
        return SUPPORTED
    return CONTRADICTED if high < least or low > most else UNDECIDED


def size(claim: Claim, low: float, high: float) -> Size:
    """The size of an effect with the interval ``[low, high]``, against the stated one; "4.1" is reached from 4.05."""
    row = stated_row(claim)
    if row is None or claim.test != "beyond":
        return ""
    least = float(row["value"]) - tolerance(row)[0]
    low, high = sorted((claim.sign * low, claim.sign * high))
    return "reached" if low >= least else "below" if high < least else "undecided"


@dataclass(frozen=True, eq=False)
class _Records:
    """What a section has at one scale that counts, its rows by data set, method and metric, and the sides asked for."""

    profile: str
    table: pd.DataFrame
    rows: dict[Any, Any]
    sides: dict[Any, pd.DataFrame] = field(default_factory=dict)

    def side(self, dataset: str, side: Side) -> pd.DataFrame:
        if (dataset, side) not in self.sides:
            name = f"{side.metric}_{side.at}" if side.at else side.metric
            rows = self.table.take(self.rows.get((dataset, side.method, name), []))
            self.sides[dataset, side] = rows if side.arm == "none" else rows[rows["arm"].to_numpy() == side.arm]
        return self.sides[dataset, side]


def _scales(values: pd.DataFrame, section: str) -> list[_Records]:
    """The records of a section that count, the highest scale first."""
    rows = evidence.where(values, section=section, main=True)
    rows = rows.astype(dict.fromkeys(("dataset", "method", "metric", "arm", "init", "checkpoint"), object))
    needed = rows[["level", "seed", "value", "arm", "init", "checkpoint"]].copy()
    scales = ((profile, (rows["profile"] == profile).to_numpy()) for profile in EVIDENCE)
    groups = ((name, needed[here], rows[here].groupby(["dataset", "method", "metric"])) for name, here in scales)
    return [_Records(name, some, group.indices) for name, some, group in groups]


def all_verdicts(values: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """The verdict on each claim, in their order, by records of :func:`robustness_lib.report.evidence.tidy`."""
    scales = {section: _scales(values, section) for section in {claim.section for claim in claims}}
    return [_judge(claim, scales[claim.section]) for claim in claims]


def _judge(claim: Claim, scales: list[_Records]) -> Verdict:
    """The highest scale with two paired seeds decides, and the image set itself before its stand-in."""
    single = Verdict(claim, comparison=Comparison(dataset=claim.dataset))
    judged = _at_every_place if claim.over in EVERY else _judged
    for records in scales:
        for dataset in filter(None, (claim.dataset, STAND_INS.get(claim.dataset))):
            verdict = judged(claim, records, dataset)
            if verdict.comparison.n > 1 or (verdict.comparison.n and claim.exact):
                return _limited(verdict, records)
            if not single.comparison.n and verdict.comparison.n:
                single = verdict
    note = f"needs {claim.needs}" if claim.needs else "one seed" if single.comparison.n else ""
    return replace(single, direction=UNMEASURED, size="", note=note)


def _judged(claim: Claim, records: _Records, dataset: str) -> Verdict:
    """The verdict at one scale and image set by the interval alone."""
    found = replace(_compared(claim, records, dataset), profile=records.profile, dataset=dataset)
    found = replace(found, low=found.effect, high=found.effect) if claim.exact else found
    here, sized = direction(claim, found.low, found.high), size(claim, found.low, found.high)
    if not claim.exact and records.profile != EVIDENCE[0]:
        sized = "not judged" if sized and here == SUPPORTED else ""
    return Verdict(claim, here, sized, found)


def _compared(claim: Claim, records: _Records, dataset: str) -> Comparison:
    if claim.than is not None:
        return _gains_compared(claim, records, dataset)
    treated = records.side(dataset, claim.treated)
    reference = records.side(dataset, claim.reference)
    if claim.reference.method in (ZERO, PRINTED):
        number = float(printed_row(claim)["value"]) if claim.reference.method == PRINTED else 0.0
        reference = treated.assign(value=number, arm="none")
    over: Any = claim.over
    return evidence.paired(treated, reference, level=claim.level, reduce=over, kind=claim.kind)


def _gains_compared(claim: Claim, records: _Records, dataset: str) -> Comparison:
    """The difference of both sides on ``dataset`` against that on the other image set, at the seeds that all have."""
    places = filter(None, (dataset, claim.than, STAND_INS.get(str(claim.than))))
    own, *others = (_compared(replace(claim, than=None), records, place) for place in places)
    against = next((found for found in others if found.n), Comparison())
    gains = ({"seed": one.seeds, "value": one.treated - one.reference} for one in (own, against))
    found = evidence.paired(*(pd.DataFrame(one).assign(level=np.nan, arm="none", init="") for one in gains))
    return replace(found, pretraining_seeds=min(own.pretraining_seeds, against.pretraining_seeds))


def _at_every_place(claim: Claim, records: _Records, dataset: str) -> Verdict:
    """The weakest of the verdicts at single levels, classes or OOD sets."""
    places: list[Any] = sorted(records.side(dataset, claim.treated)["level"].unique())
    if claim.over != "level":
        prefix = f"{claim.treated.metric}_"
        names = dict.fromkeys(name for place, _, name in records.rows if place == dataset and name.startswith(prefix))
        places = [one for name in names if (one := name[len(prefix) :]) not in ("mean", *evidence.OOD_SETS)]
    judged = {place: _judged(at_place(claim, place), records, dataset) for place in places}
    most = max((min(one.comparison.n, 2) for one in judged.values()), default=0)
    judged = {place: one for place, one in judged.items() if one.comparison.n and min(one.comparison.n, 2) == most}
    if not judged:
        return Verdict(claim)

    def strength(place: Any) -> tuple[int, float]:
        one, sign = judged[place], claim.sign
        ends = sign * one.comparison.low, sign * one.comparison.high
        return (CONTRADICTED, UNDECIDED, SUPPORTED).index(one.direction), min(ends)

    weakest = min(judged, key=strength)
    supporting = sum(one.direction == SUPPORTED for one in judged.values())
    several = {"level": "levels", "class": "classes", "set": "OOD sets"}[str(claim.over)]
    note = f"{supporting} of {len(judged)} {several} support the claim; shown is the one that does least"
    return replace(judged[weakest], claim=claim, level=weakest, note=note)


def _limited(verdict: Verdict, records: _Records) -> Verdict:
    """The verdict with what limits it, and with what is shown beside it."""
    claim, found = verdict.claim, verdict.comparison
    is_constant = found.n > 1 and found.low == found.high
    is_single = found.pretraining_seeds == 1 and _two_pretrainings(verdict, records)
    reason = _untestable(verdict, records)
    if reason:
        verdict = replace(verdict, direction=UNTESTABLE, size="")
    elif (is_constant or is_single) and verdict.direction in (SUPPORTED, CONTRADICTED):
        verdict = replace(verdict, direction=UNDECIDED, size="")
    notes = [
        "all seeds give the same value: they sample no randomness" if is_constant else "",
        reason,
        verdict.note,
        "of the two pre-trainings compared one has a single seed" if is_single else "",
        f"margin{_margin(claim)}: {claim.margin_reason}" if claim.margin_reason and not reason else "",
        claim.caveat,
        *(_beside(claim, name, records, found.dataset) for name in claim.beside),
    ]
    return replace(verdict, note="; ".join(filter(None, notes)))


def _untestable(verdict: Verdict, records: _Records) -> str:
    """Why the claim cannot be tested on these records; "" if it can."""
    claim = verdict.claim
    if claim.untestable:
        both = (records.side(verdict.comparison.dataset, Side("scratch", x, "error")) for x in ("forward", "none"))
        if not claim.untestable_if or evidence.paired(*both, reduce="area").effect >= 0:  # Forward fails
            return claim.untestable
    if claim.exact:
        return ""
    for dataset in dict.fromkeys([verdict.comparison.dataset, claim.than, STAND_INS.get(str(claim.than))]):
        sides = [side for side in (claim.treated, claim.reference) if side.method not in (ZERO, PRINTED)]
        errors = [_clean_error(records, str(dataset), side) for side in sides]
        # where the rise of an error is measured, one side without room for it is enough
        if (max if claim.over == "excess" else min)(errors) > NOTHING_LEARNED:
            *own, limit = (f"{100 * x:.0f}" for x in (*dict.fromkeys(reversed(errors)), NOTHING_LEARNED))
            return f"too little was learned: test error {' and '.join(own)} % on {label(str(dataset))}, limit {limit} %"
    return ""


def _clean_error(records: _Records, dataset: str, side: Side) -> float:
    """The mean test error of a side, at the lowest level where there are several; 0 where none is recorded."""
    errors = records.side(dataset, Side(side.arm, side.method, "error"))
    levels = np.nan_to_num(errors["level"].to_numpy(), nan=-1.0)
    return float(errors["value"].to_numpy()[levels == levels.min()].mean()) if len(levels) else 0.0


def _two_pretrainings(verdict: Verdict, records: _Records) -> bool:
    """Whether the two sides, or gains, are pre-trained from different checkpoints, other than by their seeds."""
    claim = verdict.claim if verdict.level is None else at_place(verdict.claim, verdict.level)
    here = verdict.comparison.dataset
    sides = [records.side(here, side) for side in (claim.treated, claim.reference)]
    if claim.than is not None:
        others = [records.side(name, claim.treated) for name in (claim.than, STAND_INS.get(claim.than, claim.than))]
        sides[1] = others[1] if others[0].empty else others[0]
    starts = [set(rows["checkpoint"][rows["arm"] == "pre-trained"]) for rows in sides]
    return all(starts) and starts[0] != starts[1]


def _margin(claim: Claim) -> str:
    margin = (claim.margin or claim.stated or 0.0) * metric(claim.treated.metric).scale
    words = f" of {'±' if claim.test == 'similar' else ''}{margin:.4g} point{'s' * (margin != 1)}"
    return "" if claim.test == "equal" else words


def _beside(claim: Claim, name: str, records: _Records, dataset: str) -> str:
    """Another comparison in words: of another metric, of the excess area, without a correction, or against scratch."""
    if name == "excess":
        other, words = replace(claim, over="excess"), "excess area"
    elif name == "uncorrected":
        other = replace(claim, treated=replace(claim.treated, method="none"))
        words = "the same, pre-trained without a correction"
    elif name.startswith("scratch:"):
        treated = replace(claim.treated, metric=name.removeprefix("scratch:"))
        other = replace(claim, treated=treated, reference=Side("scratch", "standard", treated.metric))
        words = f"{metric(treated.metric).label}, less that from scratch"
    else:
        treated, reference = (replace(side, metric=name) for side in (claim.treated, claim.reference))
        other, words = replace(claim, treated=treated, reference=reference), metric(name).label
    found = _compared(replace(other, kind="difference"), records, dataset)
    if not found.n:
        return ""
    name = other.treated.metric
    if other.reference.method == ZERO:
        return f"{words}: {spread(found.treated, name)}{unit(name)}"
    return f"{words}: {effect(found, name)}" + ", undecided" * (found.low <= 0 <= found.high)


def effect_text(verdict: Verdict) -> str:
    """The effect with its interval: "−2.3 points [−3.1, −1.5]", "a factor of 4.1 [3.2, 5.0]", "48 % less [39, 58]"."""
    found, kind, name = verdict.comparison, verdict.claim.kind, verdict.claim.treated.metric
    if not found.n:
        return DASH
    if kind == "difference":
        return effect(found if found.low < found.high else replace(found, low=np.nan), name)
    scale, digits = (1, 1) if kind == "ratio" else (100, 0)
    numbers = (found.effect, found.low, found.high)
    mean, low, high = (f"{scale * value:z.{digits}f}".replace("-", "−") for value in numbers)
    words = f"a factor of {mean}" if kind == "ratio" else f"{mean} % less"
    return words + (f" [{low}, {high}]" if np.isfinite(found.low) and found.low < found.high else "")


def here_text(verdict: Verdict) -> str:
    """Both sides, reference first, with their spread over seeds: "64.5 ± 1.2 → 45.1 ± 1.1 %"."""
    found, claim, name = verdict.comparison, verdict.claim, verdict.claim.treated.metric
    if not found.n:
        return DASH
    treated, reference = spread(found.treated, name), spread(found.reference, claim.reference.metric)
    if claim.than is not None:
        points = unit(name, difference=True)
        words = f"{reference}{points} on {label(claim.than)}, {treated}{points} on {label(claim.dataset)}"
    elif claim.reference.method in (ZERO, PRINTED):
        words = f"{treated}{unit(name)}"
    else:
        words = f"{reference} → {treated}{unit(name)}"
    words += f" on {label(found.dataset)}" if found.dataset != claim.dataset else ""
    return words if verdict.level is None else f"{words}, {_place(verdict.level)}"


def _place(level: str | float) -> str:
    return f"at {level:g}" if isinstance(level, float) else f"class {level}" if level.isdigit() else label(level)


def frame(values: pd.DataFrame, section: str | None = None) -> pd.DataFrame:
    """The verdicts on the claims of one section, or on all; ``here`` and ``interval`` are words."""
    return pd.DataFrame(
        {
            **{name: getattr(one.claim, name) for name in ("id", "section", "source", "locator", "statement", "paper")},
            **{"here": here_text(one), "interval": effect_text(one), "n": one.comparison.n},
            **{name: getattr(one, name) for name in ("scale", "direction", "words", "note")},
        }
        for one in all_verdicts(values, claims_of(section) if section else CLAIMS)
    )


def counts(rows: pd.DataFrame) -> pd.DataFrame:
    """How many claims of a :func:`frame` have each direction: a row per section and "all", a column per direction."""
    table = pd.crosstab(rows["section"], rows["direction"])
    table = table.reindex(index=list(SECTIONS), columns=list(DIRECTIONS), fill_value=0)
    return pd.concat([table, table.sum().to_frame("all").T])


def claims_table(rows: pd.DataFrame, *, name: str) -> Markdown:
    """The claims of a :func:`frame` with the paper's numbers, ours and the verdict; of several sections with links."""
    sections, cells = list(rows["section"].unique()), []
    for row in rows.to_dict("records"):
        note, seeds = row["note"], f"`{row['scale']}`, {row['n']} seed{'s' * (row['n'] > 1)}"
        cell = {
            "Claim": row["statement"] + (f"<br>*{note[0].upper()}{note[1:]}.*" if note else ""),
            "Paper": row["paper"] + ("" if row["source"] == "our own" else f"<br>({row['locator']})"),
            "Here [95 %]": f"{row['here']}<br>{row['interval']}" if row["n"] else DASH,
            "Verdict": row["words"],
            "Scale": seeds if row["n"] and row["scale"] in EVIDENCE else row["scale"],
        }
        page = {"Page": f"[{SECTIONS[row['section']]}]({row['section']}.ipynb)"} if len(sections) > 1 else {}
        cells.append(cell | page)
    caption = "The claims." if len(sections) > 1 else f"{SECTIONS[sections[0]]}: the claims and what was measured here."
    return markdown.table(cells, caption=caption, name=name, classes="claims")
