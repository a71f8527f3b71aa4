"""What the two papers claim, each claim as a comparison of two sides that records can decide.

A claim names two sides, the treated one and the reference, and how they are compared:

* ``kind`` is the effect: "difference" = treated - reference, "ratio" = reference / treated (the factor by
  which the treatment lowers the metric), "reduction" = 1 - treated / reference (relative reduction);
* ``direction`` is the sign of a difference that the paper claims (-1: the treated side is lower); a ratio and
  a reduction are claimed to be large, +1;
* ``magnitude`` names the published number that states a size, if the paper states one;
* ``test`` is "beyond" (the effect has the claimed sign and, if a size is stated, reaches it), "within" (a
  harm, the effect in ``direction``, is at most the stated size) or "equal" (what is measured is the number that the
  paper prints for the treated side; such a claim has no other side, and its reference is called ``printed``).

A claim about several levels compares the two sides' areas or means, or holds at "every" level: then the level
that bears it out least stands for it.

A claim may say that a difference is larger on one image set than on another (``than``): then its effect is that of
the two differences.

A claim of no paper, for a section of one's own, has the locator ``own``.

The claims are the rows of the data file ``published/claims.csv``, one column an attribute of :class:`Claim`.
The papers' numbers are not in it: they are looked up in :func:`robustness_lib.paper.numbers.published`.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from robustness_lib.paper.numbers import DATA, known, label, metric, select

Kind: TypeAlias = Literal["difference", "ratio", "reduction"]
At: TypeAlias = Literal["last", "half"] | None
Levels: TypeAlias = Literal["area", "mean"] | None
OverLevels: TypeAlias = Literal["area", "mean", "every"] | None
Test: TypeAlias = Literal["beyond", "within", "equal"]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        arm: "scratch", "pre-trained", or "none" (a testbed: records of either arm).
        method: Method of the records.
        metric: Their metric.
        at: Which value of a list metric (one value an epoch): "last" or "half" (after half of the epochs);
            None for a number.
    """

    arm: str
    method: str
    metric: str
    at: At = None


@dataclass(frozen=True)
class Claim:
    """A claim of one of the papers; the module's text explains how it is compared.

    Attributes:
        id: Unique; starts with a short form of the section's name.
        section: One of :data:`robustness_lib.paper.numbers.SECTIONS`.
        statement: The claim in one sentence.
        locator: Where the paper makes it.
        dataset: Target image set.
        treated: The side whose merit is claimed.
        reference: What it is compared with.
        direction: -1 or +1.
        kind: The effect.
        test: "beyond", "within" or "equal".
        magnitude: Metric name of the published number that states the size, or None.
        level: The records' level, or None for records without one.
        over_levels: "area" (trapezoid over the levels), "mean" (over the levels) or "every" (the level
            that bears the claim out least) instead of one level.
        exact: Whether the measurement has no randomness (a fixed set of published predictions), so that one
            record decides.
    """

    id: str
    section: str
    statement: str
    locator: str
    dataset: str
    treated: Side
    reference: Side
    direction: int = -1
    kind: Kind = "difference"
    test: Test = "beyond"
    magnitude: str | None = None
    level: float | None = None
    over_levels: OverLevels = None
    exact: bool = False
    than: str | None = None

    @property
    def own(self) -> bool:
        """Whether no paper makes the claim."""
        return self.locator == "own"

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
    def paper(self) -> str:
        """The paper's numbers as text (see :func:`paper_text`)."""
        return paper_text(self)


def _read() -> tuple[Claim, ...]:
    with (DATA / "claims.csv").open(encoding="utf-8", newline="") as stream:
        return tuple(_claim(row) for row in csv.DictReader(stream))


def _claim(row: dict[str, str]) -> Claim:
    treated, reference = (
        Side(
            row[f"{side}_arm"],
            row[f"{side}_method"],
            row[f"{side}_metric"],
            cast("At", row[f"{side}_at"] or None),
        )
        for side in ("treated", "reference")
    )
    return Claim(
        id=row["id"],
        section=row["section"],
        statement=row["statement"],
        locator=row["locator"],
        dataset=row["dataset"],
        treated=treated,
        reference=reference,
        direction=int(row["direction"]),
        kind=cast("Kind", row["kind"]),
        test=cast("Test", row["test"]),
        magnitude=row["magnitude"] or None,
        level=float(row["level"]) if row["level"] else None,
        over_levels=cast("OverLevels", row["over_levels"] or None),
        exact=row["exact"] == "yes",
        than=row["than"] or None,
    )


CLAIMS: tuple[Claim, ...] = _read()
"""All claims of both papers, in the sections' order."""


def claims_of(section: str) -> list[Claim]:
    """The claims of one section.

    Raises:
        UserError: No such section.
    """
    known(section)
    return [claim for claim in CLAIMS if claim.section == section]


def effect(kind: Kind, treated: Floats, reference: Floats) -> Floats:
    """The effect of each pair of values.

    Args:
        kind: How the two are compared.
        treated: Values of the treated side, any shape.
        reference: Values of the reference, the same shape.

    Returns:
        The effects, the same shape; not finite where one is not defined (division by zero, a NaN).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "difference":
            return treated - reference
        return reference / treated if kind == "ratio" else 1 - treated / reference


def stated_row(claim: Claim) -> pd.Series | None:
    """The published number that states the claim's size, or None if the claim has no size.

    Raises:
        LookupError: The claim names a size of which there is not exactly one published number.
    """
    if claim.magnitude is None:
        return None
    rows = select(claim.section, dataset=claim.dataset, metric=claim.magnitude)
    if len(rows) != 1:
        raise LookupError(f"{claim.id}: {len(rows)} published numbers are named {claim.magnitude!r}, not one")
    return rows.iloc[0]


def printed_row(claim: Claim) -> pd.Series:
    """The published number that a claim of the test "equal" is about.

    Raises:
        LookupError: There is not exactly one.
    """
    rows = paper_rows(claim, claim.treated)
    if len(rows) != 1:
        raise LookupError(f"{claim.id}: {len(rows)} published numbers are those of its treated side, not one")
    return rows.iloc[0]


def paper_rows(claim: Claim, side: Side) -> pd.DataFrame:
    """The published numbers of one side, those printed at the claim's locator first.

    A claim over all levels is looked up as the printed area (metric ``<metric>_area``), or as all levels'
    numbers.

    Returns:
        Rows of :func:`robustness_lib.paper.numbers.published`: one, several for a claim about a mean over levels or
        about every level, or none.
    """
    rows = select(
        claim.section,
        dataset=claim.dataset,
        arm=side.arm,
        method=side.method,
        metric=f"{side.metric}_area" if claim.over_levels == "area" else side.metric,
        level=claim.level,
        locator=claim.locator,
        curve=side.at is not None,
    )
    if side.at is not None and not rows.empty:
        epochs = rows.set_index("position", drop=False).sort_index()
        wanted = epochs.index[-1] / (1 if side.at == "last" else 2)
        return epochs.iloc[[int(np.abs(epochs.index - wanted).argmin())]]
    return rows if claim.over_levels in ("mean", "every") else rows.iloc[:1]


def at_level(claim: Claim, level: float) -> Claim:
    """A claim about every level, at one of them."""
    return replace(claim, level=level, over_levels=None)


def at_papers_least(claim: Claim) -> Claim:
    """A claim about every level, at the one where the paper's numbers have the least effect; others as they are."""
    if claim.over_levels != "every":
        return claim
    treated, reference = (set(paper_rows(claim, side)["level"]) for side in (claim.treated, claim.reference))
    effects = {single: paper_effect(single) for level in treated & reference if (single := at_level(claim, level))}
    return min(effects, key=lambda single: claim.sign * (effects[single] or 0.0), default=claim)


def _elsewhere(claim: Claim) -> Claim:
    """The same comparison on the image set that a claim about a larger difference names."""
    return replace(claim, dataset=claim.than or claim.dataset, than=None)


def paper_effect(claim: Claim) -> float | None:
    """The effect computed from the paper's own numbers; None where it prints none for one of the sides."""
    claim = at_papers_least(claim)
    treated, reference = (paper_rows(claim, side)["value"] for side in (claim.treated, claim.reference))
    if treated.empty or reference.empty:
        return None
    if claim.than is not None:
        own, other = paper_effect(replace(claim, than=None)), paper_effect(_elsewhere(claim))
        return None if own is None or other is None else own - other
    return float(effect(claim.kind, np.array([treated.mean()]), np.array([reference.mean()]))[0])


@functools.cache
def paper_text(claim: Claim) -> str:
    """The paper's numbers of a claim, as printed: "reference → treated", and the stated size.

    Means over several printed numbers have one decimal.

    Returns:
        For example ``"13.3 → 3.6 %"``; "stated without numbers" where the paper prints none, "in no paper" for a claim
        of one's own.
    """
    if claim.own:
        return "in no paper"
    if claim.than is not None:
        sets = (_elsewhere(claim), replace(claim, than=None))
        return ", ".join(f"{paper_text(one)} on {label(one.dataset)}" for one in sets)
    parts = []
    shown = metric(claim.treated.metric)
    if claim.test == "equal":
        return f"{printed_row(claim)['printed']} {shown.unit}".strip().replace("-", "−")
    single = at_papers_least(claim)
    sides = [paper_rows(single, side) for side in (claim.reference, claim.treated)]
    if not any(rows.empty for rows in sides):
        numbers = [
            str(rows["printed"].iloc[0]) if len(rows) == 1 else f"{rows['value'].mean() * shown.scale:.1f}"
            for rows in sides
        ]
        which = " (mean over levels)" if claim.over_levels == "mean" else ""
        if claim.over_levels == "every" and single.level is not None:
            which = f" (least effect, at {single.level:g})"
        found = paper_effect(single)
        none = 1.0 if claim.kind == "ratio" else 0.0
        against = claim.test == "beyond" and found is not None and claim.sign * found <= none
        which += " (against the claim)" if against else ""
        parts.append(f"{' → '.join(numbers)} {shown.unit}".strip() + which)
    row = stated_row(claim)
    if row is not None:
        parts.append(f"stated: {_size_text(claim, str(row['printed']))}")
    return "; ".join(parts) or "stated without numbers"


def _size_text(claim: Claim, number: str) -> str:
    """A stated size with its unit: "a factor of 4.1", "45 %", "11.6 points"."""
    if claim.kind == "ratio":
        return f"a factor of {number}"
    if claim.kind == "reduction":
        return f"{number} %"
    return f"{'at most ' if claim.test == 'within' else ''}{number} point{'' if number == '1' else 's'}"
