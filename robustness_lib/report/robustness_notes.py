"""What the tables and figures of effective robustness come to, in sentences that are computed from the records.

Each says "not run" where there is no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from robustness_lib.accuracy_lines import SCALINGS
from robustness_lib.paper import label, mean_interval, per_seed, profile_of, select
from robustness_lib.paper.claims import Floats
from robustness_lib.report.lines import record_of
from robustness_lib.report.robustness import (
    SECTION,
    SHIFTS,
    STANDARD,
    WHOLE_TESTBED,
    Series,
    accuracy_at,
    against_testbed,
    rows_of,
)
from robustness_lib.report.tables import NOT_RUN, Markdown, counted

SEEN_STYLE = ("excluded", "included")
"""Shifts whose images are in the style of the pre-training: an advantage of the pre-trained network, no robustness."""

NEAR = 0.1
"""Models whose accuracies differ by less are compared by their dominance probability."""

# --------------------------------------------------------------------------------------------- published testbeds


def scales_note(records: pd.DataFrame, datasets: Sequence[str]) -> Markdown:
    """On which scale a line fits best, in the paper and with the public networks.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: ``"cifar10"`` and ``"imagenet"``, or one of them.
    """
    lines = []
    for dataset in datasets:
        printed = select(SECTION, dataset=dataset, metric="r_squared").set_index("method")["value"]
        theirs = max(SCALINGS, key=lambda scaling: float(printed[f"fit-{scaling}"]))
        fits = {scaling: record_of(records, dataset, f"fit-{scaling}") for scaling in SCALINGS}
        found = {scaling: float(row["r_squared"]) for scaling, row in fits.items() if row is not None}
        ours = f"the {max(found, key=lambda one: found[one])} scale" if len(found) == len(SCALINGS) else NOT_RUN
        lines.append(
            f"On {label(dataset)} the {theirs} scale fits best in the paper; with the public networks: {ours}."
        )
    return Markdown(" ".join(lines))


def high_note(records: pd.DataFrame, datasets: Sequence[str]) -> Markdown:
    """Whether networks with more than one point of effective robustness are rare, and what of that may be noise.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: ``"cifar10"`` and ``"imagenet"``, or one of them.
    """
    lines = []
    for dataset in datasets:
        row = record_of(records, dataset, "testbed")
        if row is None:
            lines.append(f"{label(dataset)}: {NOT_RUN}.")
            continue
        high, count, more = (int(row[key]) for key in ("high_count", "compared_count", "high_more_data"))
        share, accuracy = high / count, float(np.mean(np.asarray(row["ood_accuracy"], dtype=float)))
        error = 100 * float(np.sqrt(accuracy * (1 - accuracy) / int(row["ood_images"])))
        word = "rare" if share < 0.02 else "uncommon rather than exceedingly rare" if share < 0.25 else "common"
        text = f"{label(dataset)}: {high} of {count} networks ({share:.0%}), so they are {word}"
        text += f"; {more} of the {high} were trained on more data" if more else ""
        text += f". The standard error of an accuracy on the {int(row['ood_images']):,} shifted images is about "
        text += f"{error:.1f} points" + (", so some of these may be chance." if error > 0.4 and high else ".")
        lines.append(text.replace("%)", " %)"))
    return Markdown("\n".join(f"- {line}" for line in lines))


def testbed_hard_note(records: pd.DataFrame, dataset: str) -> Markdown:
    """What the networks of a testbed get right of the images that all others get wrong, beside the paper's networks.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        dataset: A testbed.
    """
    words = {
        "standard": "its effectively robust network, pre-trained on JFT,",
        "clip-zero-shot": "CLIP without training",
    }
    printed = select(SECTION, dataset=dataset, arm="pre-trained", metric="hard_share_correct").set_index("method")
    told = [
        f"{text} gets about {printed['printed'][one]} % right" for one, text in words.items() if one in printed.index
    ]
    paper = f" In the paper {' and '.join(told)}." if told else ""
    row = record_of(records, dataset, "image-by-image")
    if row is None:
        return Markdown(f"Networks of the testbed: {NOT_RUN}.{paper}")
    most = 100 * float(np.max(np.asarray(row["hard_share_correct"], dtype=float)))
    return Markdown(f"No network of the testbed gets more than {most:.1f} % of such images right.{paper}")


# --------------------------------------------------------------------------------------------- our own trainings


def during_note(records: pd.DataFrame, shifts: Sequence[str], *, dataset: str, profile: str | None = None) -> Markdown:
    """Whether the pre-trained network shows the paper's hump, shift by shift, and whether remembering does.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        shifts: Shifts.
        dataset: The target.
        profile: The records' profile; None: the highest with records.
    """
    scratch, tuned, seen = (_maxima(records, one, shifts, dataset, profile) for one in STANDARD)
    lines, above = [], {}
    for shift in shifts:
        found = _difference(tuned[shift], scratch[shift])
        if found is None:
            lines.append(f"- {_capital(SHIFTS[shift])}: {NOT_RUN}.")
            continue
        mean, low, high, count = found
        above[shift] = low > 0
        kind = ", within the spread of the seeds" if low <= 0 <= high else ""
        text = f"- {_capital(SHIFTS[shift])}: the pre-trained network's maximum lies {_away(mean)} that from scratch"
        lines.append(f"{text}{kind} ({_interval(low, high)}, {counted(count, 'seed')}).")
    if not above:
        return Markdown("\n".join(lines))
    end = f"So {_hump(above)}."
    first = shifts[0]
    found = _difference(seen[first], tuned[first])
    if found is not None:
        mean, low, high, count = found
        end += (
            f" On the first shift the network that was pre-trained on the left-out classes, too, reaches {_away(mean)} "
            f"the one without them ({_interval(low, high)}, {counted(count, 'seed')})"
        )
        if low > 0 or high < 0:
            end += f": remembering {'shows' if low > 0 else 'does not show'}."
        else:
            end += f", so {counted(count, 'seed')} cannot tell whether it remembers."
    return Markdown("\n".join([*lines, "", end]))


def hump_note(records: pd.DataFrame, shifts: Sequence[str], *, dataset: str, profile: str | None = None) -> str:
    """Under which shift the headline was measured, and whether the pre-trained network shows the paper's hump.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        shifts: Shifts, that of the headline first.
        dataset: The target.
        profile: The records' profile; None: the highest with records.

    Returns:
        A sentence or two; "" where nothing is recorded.
    """
    scratch, tuned = (_maxima(records, one, shifts, dataset, profile) for one in STANDARD[:2])
    found = {shift: _difference(tuned[shift], scratch[shift]) for shift in shifts}
    above = {shift: one[1] > 0 for shift, one in found.items() if one is not None}
    if not above:
        return ""
    instead = "" if shifts[0] == "cifar10.1" else f", where the paper has {SHIFTS['cifar10.1']}"
    return f"The shift is {SHIFTS[shifts[0]]}{instead}. Over all shifts measured: {_hump(above)}."


def _hump(above: Mapping[str, bool]) -> str:
    """What it says of the paper's hump under which shifts the pre-trained network is clearly above."""
    sure, fair = [one for one, clear in above.items() if clear], [one for one in above if one not in SEEN_STYLE]
    if not sure:
        return "at this scale there is no clear sign of the paper's hump"
    if set(sure) & set(fair):
        return "the pre-trained network has a hump like the paper's where the style of its pre-training is no help"
    where = (
        "on images that it was pre-trained on"
        if sure == ["included"]
        else "where the images are in the style of its pre-training"
    )
    return (
        f"the pre-trained network is clearly above the one from scratch only {where}, an advantage that is no "
        "robustness: no clear sign of the paper's hump"
    )


def _maxima(
    records: pd.DataFrame, one: Series, shifts: Sequence[str], dataset: str, profile: str | None
) -> dict[str, pd.Series]:
    scale = profile or profile_of(records, SECTION, dataset) or ""
    setting: dict[str, Any] = {"section": SECTION, "profile": scale, "dataset": dataset}
    setting |= {"arm": one.arm, "method": one.method, "level": one.level}
    return {shift: per_seed(records, **setting, metric=f"maximum_effective_robustness_{shift}") for shift in shifts}


def _difference(treated: pd.Series, reference: pd.Series) -> tuple[float, float, float, int] | None:
    effects = (treated - reference).dropna().to_numpy(dtype=float) * 100
    return (*mean_interval(effects), len(effects)) if len(effects) else None


def path_note(records: pd.DataFrame, shift: str, *, dataset: str, profile: str | None = None) -> Markdown:
    """Where the path between the pre-trained and the fine-tuned network runs.

    Args:
        records: Records of ``wise-ft``.
        shift: A shift.
        dataset: The target.
        profile: The records' profile; None: the highest with records.
    """
    rows = rows_of(records, "pre-trained", "wise-ft", None, dataset, profile)
    names = [f"history_{what}_{shift}" for what in ("accuracy", "effective_robustness")]
    if not len(rows) or any(name not in rows for name in names):
        return Markdown(f"The path: {NOT_RUN}.")
    rows = rows[[isinstance(cell, Sequence) for cell in rows[names[0]]]]
    if not len(rows):
        return Markdown(f"The path: {NOT_RUN}.")
    accuracy, robustness = (100 * np.mean(np.stack(list(rows[name])).astype(float), axis=0) for name in names)
    shares = list(rows.iloc[0]["history_epoch"])
    above, best = int((robustness > 0).sum()), int(robustness.argmax())
    runs = {0: "entirely below", len(shares): "entirely above"}.get(above, "partly above")
    text = (
        f"The path runs {runs} the line, from {_signed(robustness.min())} to {_signed(robustness.max())} points (means "
        f"over {counted(len(rows), 'seed')}). It is highest at a share of {shares[best]:g}, with an accuracy of "
        f"{accuracy[best]:.1f} %; the fine-tuned network itself has {_signed(robustness[-1])} points at "
        f"{accuracy[-1]:.1f} %."
    )
    if above == 0:
        text += (
            " So there is no robustness here for the path to keep; at best it lies "
            f"{robustness[best] - robustness[-1]:.1f} points less below the line than the fine-tuned network."
        )
    return Markdown(text)


def dominance_note(
    records: pd.DataFrame, series: Sequence[Series], *, dataset: str, profile: str | None = None
) -> Markdown:
    """Whether networks get other images right than the models of our testbed do, at the maximum and at the end.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        series: Networks.
        dataset: The target.
        profile: The records' profile; None: the highest with records.
    """
    rows = rows_of(records, "scratch", WHOLE_TESTBED, None, dataset, profile)
    if not len(rows):
        return Markdown(f"Dominance probabilities here: {NOT_RUN}.")
    models = np.asarray(rows.iloc[0]["model_accuracy"], dtype=float)
    low, high = np.triu_indices(len(models), 1)
    pairs = _near(np.abs(models[high] - models[low]), np.asarray(rows.iloc[0]["dominance"], dtype=float))
    told, raised = [], {}
    for one in series:
        found = rows_of(records, one.arm, one.method, one.level, dataset, profile)
        at = [_near(*against_testbed(found, models, when)) for when in ("dominance_at_maximum", "dominance_at_end")]
        if all(np.isfinite(at)):
            told.append(f"{one.text} {at[0]:.1f} % at the maximum and {at[1]:.1f} % at the end")
            raised[one.text] = at[0] - pairs
    text = (
        "The paper finds the dominance probability of effectively robust networks clearly raised, and that of a "
        f"converged one like the testbed's. Here, between models less than {100 * NEAR:g} points apart, it is "
        f"{pairs:.1f} % in the mean for two models of the testbed; {'; '.join(told) or NOT_RUN}."
    )
    if raised and all(more > 0 for more in raised.values()):
        text += " It is raised at the maximum in every arm"
        if STANDARD[0].text in raised:
            most = max(raised, key=lambda one: raised[one])
            text += f", from scratch too; most for “{most}”. A few seeds, whose maxima lie at different accuracies, "
            text += "do not tell whether pre-training is the reason"
        text += "."
    return Markdown(text)


def _near(difference: Floats, values: Floats) -> float:
    kept = values[difference < NEAR]
    return 100 * float(kept.mean()) if len(kept) else float("nan")


def hard_note(records: pd.DataFrame, series: Sequence[Series], *, dataset: str, profile: str | None = None) -> Markdown:
    """What networks get right of the images that all models of our testbed get wrong, and whether that is accuracy.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        series: Networks.
        dataset: The target.
        profile: The records' profile; None: the highest with records.
    """
    rows = rows_of(records, "scratch", WHOLE_TESTBED, None, dataset, profile)
    if not len(rows) or "model_hard_share_correct" not in rows:
        return Markdown(f"The images that all models get wrong: {NOT_RUN}.")
    most, strongest = (float(np.max(rows.iloc[0][name])) for name in ("model_hard_share_correct", "model_accuracy"))
    told: list[str] = []
    better: list[float] = []
    standing: list[str] = []
    for one in series:
        found = rows_of(records, one.arm, one.method, one.level, dataset, profile).to_dict("records")
        shares = [
            np.array([float(row[name]) for row in found if isinstance(row.get(name), float)]) * 100
            for name in ("hard_share_correct", "final_hard_share_correct")
        ]
        if all(len(values) for values in shares):
            spans = [_span(values) for values in shares]
            told.append(f"{one.text} {spans[1]} % at the end, {spans[0]} % at the maximum")
            if shares[1].mean() > max(shares[0].mean(), 100 * most):
                standing.append(one.text)
                better += [accuracy_at(row, "final_hard_share_correct") for row in found]
    text = f"Models of the testbed get at most {100 * most:.1f} % of such images right; {'; '.join(told) or NOT_RUN}."
    if better and min(better) > strongest - 0.05:
        text += (
            " In the paper the effectively robust network stands out, and the converged one looks like the testbed. "
            "Here the converged ones stand out, which are about as accurate as the best model of the testbed or more "
            f"({100 * min(better):.1f} to {100 * max(better):.1f} % against {100 * strongest:.1f} %)"
        )
        text += ", those from scratch among them" if STANDARD[0].text in standing else ""
        text += ": here such a share is no sign of robustness."
    return Markdown(text)


def _span(values: Floats) -> str:
    low, high = f"{values.min():.0f}", f"{values.max():.0f}"
    return low if low == high else f"{low} to {high}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _away(mean: float) -> str:
    return f"{abs(mean):.1f} points {'above' if mean >= 0 else 'below'}"


def _interval(low: float, high: float) -> str:
    return f"95 % interval {_signed(low)} to {_signed(high)}" if np.isfinite(low) else "one pair"


def _signed(value: float) -> str:
    return f"{value:+z.1f}".replace("-", "−")
