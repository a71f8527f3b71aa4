"""What the two papers claim, each claim as a comparison of two sides that records can decide.

The claims are the rows of ``published/claims.csv``, one column per attribute of :class:`Claim`; the papers' numbers are
looked up in :func:`robustness_lib.paper.numbers.select`. :mod:`robustness_lib.report.verdicts` judges them.
"""

import functools
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from robustness_lib.errors import choose
from robustness_lib.paper.numbers import SECTIONS, label, metric, rows_of, select, tolerance

Kind: TypeAlias = Literal["difference", "ratio", "reduction"]
At: TypeAlias = Literal["last", "half"] | None
Over: TypeAlias = Literal["area", "excess", "mean", "level", "class", "set"] | None
Test: TypeAlias = Literal["beyond", "similar", "within", "equal"]
Floats: TypeAlias = npt.NDArray[np.float64]

ZERO, PRINTED = "zero", "printed"
"""Methods of a reference that is no measurement, the number 0, and the paper's number for the treated side."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison: which records ("none": of either arm), and of a value per epoch, which one."""

    arm: str
    method: str
    metric: str
    at: At = None


@dataclass(frozen=True)
class Claim:
    """A claim.

    The effect is treated - reference ("difference"), reference / treated ("ratio") or 1 - treated / reference
    ("reduction"). The test: "beyond" (the effect has the claimed sign), "similar" (it lies within the margin on both
    sides), "within" (in ``direction`` it is at most the margin), or "equal" (the treated value is the printed one).
    Several levels are compared by "area", "excess" (area without the value at level 0) or "mean", or the claim is about
    every "level", every "class" or every OOD "set".
    """

    id: str  # starts with a short form of the section's name
    section: str
    statement: str  # in one sentence
    locator: str  # where it is made: "P1 Table 5", "P1 log" (the authors' training logs), or "own"
    dataset: str
    treated: Side  # which the claim is about
    reference: Side  # of the method ZERO or PRINTED where it is a number
    direction: int = -1  # sign of the claimed difference
    kind: Kind = "difference"
    test: Test = "beyond"
    magnitude: str | None = None  # metric of the published number that states the size
    level: float | None = None
    over: Over = None
    exact: bool = False  # whether the measurement has no randomness (published predictions), so that one record decides
    than: str | None = None  # an image set; the claim is that the difference is larger on ``dataset`` than there
    margin: float | None = None  # in the unit of the effect; None for the stated size, or the precision of the print
    margin_reason: str = ""
    untestable: str = ""  # why the claim cannot be tested here
    untestable_if: str = ""  # "Forward fails": only where Forward correction from scratch does no better than none
    caveat: str = ""  # what has to be known beside the verdict
    needs: str = ""  # what it takes to measure the claim, where it is not
    beside: tuple[str, ...] = ()  # shown with it: metrics, "excess", "uncorrected", "scratch:METRIC"

    @property
    def source(self) -> str:
        """Whose claim it is, "papers", "authors' logs" or "our own"."""
        return "our own" if self.locator == "own" else "authors' logs" if self.locator.endswith(" log") else "papers"

    @property
    def stated(self) -> float | None:
        """The stated size, positive, in the unit of the effect; None if the paper states none."""
        row = stated_row(self)
        return None if row is None else float(row["value"])

    @property
    def sign(self) -> int:
        """The sign of an effect that is as claimed."""
        return self.direction if self.kind == "difference" else 1

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which the effect has to lie, of the tests "similar", "within" and "equal"."""
        if self.test == "equal":
            below, above = tolerance(printed_row(self))
            return -below, above
        margin, row = self.margin, stated_row(self)
        if margin is None and row is not None:
            margin = float(row["value"]) + tolerance(row)[1]
        if margin is None:
            raise LookupError(f"{self.id}: has no margin")
        if self.test == "similar":
            return -margin, margin
        return (-np.inf, margin) if self.direction > 0 else (-margin, np.inf)

    @functools.cached_property
    def paper(self) -> str:
        """The paper's numbers of the claim, as printed, and the stated size, as in "13.3 → 3.6 %; a factor of 4.1"."""
        if self.source == "our own":
            return "in no paper"
        if self.than is not None:
            sets = (replace(self, dataset=name, than=None) for name in (self.than, self.dataset))
            return ", ".join(f"{one.paper} on {label(one.dataset)}" for one in sets)
        if self.test == "equal":
            return f"{printed_row(self)['printed']} {metric(self.treated.metric).unit}".strip().replace("-", "−")
        if self.over in EVERY:
            single = _at_papers_least(self)
            if single is None:
                return "stated without numbers"
            place = f"at {single.level:g}" if self.over == "level" else label(single.treated.metric.split("_", 1)[1])
            place = place.replace("error_", "class ")
            return f"{single.paper}, least effect, {place}"
        shown = metric(self.treated.metric)
        parts = []
        sides = [paper_rows(self, side) for side in (self.reference, self.treated)]
        if not any(rows.empty for rows in sides):
            numbers = [
                str(rows["printed"].iloc[0]) if len(rows) == 1 else f"{value * shown.scale:.1f}"
                for rows, side in zip(sides, (self.reference, self.treated), strict=True)
                if (value := _paper_value(self, side)) is not None
            ]
            found = paper_effect(self)
            none = 1.0 if self.kind == "ratio" else 0.0
            against = self.test == "beyond" and found is not None and self.sign * found <= none
            parts.append(f"{' → '.join(numbers)} {shown.unit}".strip() + (", against the claim" if against else ""))
        return "; ".join(filter(None, [*parts, stated_text(self)])) or "stated without numbers"


def _claim(row: dict[str, str]) -> Claim:
    values: dict[str, Any] = {
        side: Side(**{each.name: row.pop(f"{side}_{each.name}") or None for each in fields(Side)})  # type: ignore[arg-type]
        for side in ("treated", "reference")
    }
    values |= {name: row.pop(name) or None for name in ("magnitude", "over", "than")}
    values |= {name: float(text) if (text := row.pop(name)) else None for name in ("level", "margin")}
    values |= {"direction": int(row.pop("direction")), "exact": row.pop("exact") == "yes"}
    return Claim(**values, beside=tuple(row.pop("beside").split()), **row)  # type: ignore[arg-type]


CLAIMS = tuple(map(_claim, rows_of("claims.csv")))
"""All claims, in the sections' order."""


def claims_of(section: str) -> list[Claim]:
    """The claims of one section."""
    choose(section, SECTIONS, "section")
    return [claim for claim in CLAIMS if claim.section == section]


EVERY = ("level", "class", "set")  # values of Claim.over of a claim that has to hold at each of several places


def at_place(claim: Claim, place: str | float) -> Claim:
    """A claim about every level, class or OOD set, at one of them; others as they are."""
    if claim.over == "level":
        return replace(claim, level=float(place), over=None)
    if claim.over not in EVERY:
        return claim
    sides = (replace(side, metric=f"{side.metric}_{place}") for side in (claim.treated, claim.reference))
    return replace(claim, treated=next(sides), reference=next(sides), over=None)


def effect(kind: Kind, treated: Floats, reference: Floats) -> Floats:
    """The effect of each pair of values, not finite where it is not defined (division by zero, a NaN)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "difference":
            return treated - reference
        return reference / treated if kind == "ratio" else 1 - treated / reference


def stated_row(claim: Claim) -> pd.Series | None:
    """The published number that states the claim's size, or None if the claim has no size."""
    if claim.magnitude is None:
        return None
    rows = select(claim.section, dataset=claim.dataset, metric=claim.magnitude)
    if len(rows) != 1:
        raise LookupError(f"{claim.id}: {len(rows)} published numbers are named {claim.magnitude!r}, not one")
    return rows.iloc[0]


def printed_row(claim: Claim) -> pd.Series:
    """The published number that a claim of the test "equal" is about."""
    rows = paper_rows(claim, claim.treated)
    if len(rows) != 1:
        raise LookupError(f"{claim.id}: {len(rows)} published numbers are those of its treated side, not one")
    return rows.iloc[0]


@functools.cache
def paper_rows(claim: Claim, side: Side) -> pd.DataFrame:
    """The published numbers of one side, those printed at the claim's locator first: one, several levels, or none."""
    name, _, place = side.metric.partition("class_error_")
    rows = select(
        claim.section,
        dataset=claim.dataset,
        arm=side.arm,
        method=side.method,
        metric="class_error" if place else f"{name}_area" if claim.over == "area" else name,
        level=claim.level,
        locator=claim.locator,
        curve=bool(place) or side.at is not None,
    )
    if place:
        return rows[rows["position"] == int(place)]
    if side.at is not None and not rows.empty:
        epochs = rows.set_index("position", drop=False).sort_index()
        wanted = epochs.index[-1] / (1 if side.at == "last" else 2)
        return epochs.iloc[[int(np.abs(epochs.index - wanted).argmin())]]
    return rows if claim.over in ("excess", "mean", "level") else rows.iloc[:1]


def paper_places(claim: Claim) -> list[str | float]:
    """The levels, classes or OOD sets at which the paper prints both sides of a claim about every one of them."""
    found = []
    for side in (claim.treated, claim.reference):
        rows = select(
            claim.section, dataset=claim.dataset, arm=side.arm, method=side.method, curve=claim.over == "class"
        )
        if claim.over == "set":
            sets = rows["metric"][rows["metric"].str.startswith(f"{side.metric}_")].str.removeprefix(f"{side.metric}_")
            found.append(list(dict.fromkeys(sets.drop(sets.index[sets == "mean"]))))
        else:
            rows = rows[rows["metric"] == side.metric]
            found.append(list(rows["level"]) if claim.over == "level" else [f"{place:g}" for place in rows["position"]])
    return [place for place in found[0] if place in found[1]]


@functools.cache
def paper_effect(claim: Claim) -> float | None:
    """The effect computed from the paper's own numbers; None where it prints none for one of the sides.

    Of a claim about every level, class or OOD set it is that at the place that bears it out least.
    """
    if claim.over in EVERY:
        single = _at_papers_least(claim)
        return None if single is None else paper_effect(single)
    if claim.than is not None:
        own, other = (paper_effect(replace(claim, dataset=name, than=None)) for name in (claim.dataset, claim.than))
        return None if own is None or other is None else own - other
    values = [_paper_value(claim, side) for side in (claim.treated, claim.reference)]
    return None if None in values else float(effect(claim.kind, *(np.array([value]) for value in values))[0])


def _paper_value(claim: Claim, side: Side) -> float | None:
    rows = paper_rows(claim, side)
    if rows.empty:
        return None
    if claim.over == "excess":
        curve = rows.dropna(subset="level").drop_duplicates("level").sort_values("level")
        return float(np.trapezoid(curve["value"], curve["level"]) - curve["value"].iloc[0])
    return float(rows["value"].mean())


def _at_papers_least(claim: Claim) -> Claim | None:
    singles = [at_place(claim, place) for place in paper_places(claim)]
    return min(singles, key=lambda single: claim.sign * (paper_effect(single) or 0.0), default=None)


def stated_text(claim: Claim) -> str:
    """The stated size with its unit: "a factor of 4.1", "45 % less", "11.6 points", "at least halved"; "" without."""
    row = stated_row(claim)
    if row is None or not (number := str(row["printed"])):
        return ""
    if not number[0].isdigit():
        return f"“{number}”"
    if claim.kind == "ratio":
        return f"a factor of {number}"
    if claim.kind == "reduction":
        return f"{number} % less"
    return f"{'at most ' if claim.test == 'within' else ''}{number} point{'' if number == '1' else 's'}"
