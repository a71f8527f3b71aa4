"""Tables and figures about attacks: accuracies with the interval of their images, checks, and attacked images.

An accuracy under attack is measured on a part of the test set. Where a single network was attacked, its interval is
the 95 % interval of Wilson for a share of so many images; it says nothing about other seeds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import stats

from robustness_lib.paper import label, metric, profile_of, runs
from robustness_lib.report.style import new_figure
from robustness_lib.report.tables import ARMS, NOT_RUN, Markdown, comparison_rows, myst_table, number

_DASH = "–"
_SECTION = "adversarial"
_MEASURE = "adversarial_accuracy"
_MORE = 0.05  # the paper's thousand starts found 4.3 points more than one


def share_interval(share: float, images: float) -> tuple[float, float]:
    """The 95 % interval of Wilson for a share of images.

    Args:
        share: In [0, 1].
        images: How many it is a share of, at least 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    found = stats.binomtest(round(share * images), round(images)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def attacks_table(
    records: pd.DataFrame,
    *,
    method: str,
    metrics: Sequence[str],
    datasets: Sequence[str],
    caption: str,
    name: str,
    profile: str | None = None,
) -> Markdown:
    """Accuracies of one network an arm under several attacks, with the interval of the attacked images.

    Args:
        records: Records with the metrics and ``attacked_images``, as by :func:`robustness_lib.records.frame`.
        method: Method whose networks were attacked.
        metrics: Metrics, a row each.
        datasets: Image sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records.

    Returns:
        A numbered MyST table; of several seeds the first counts.
    """
    rows = []
    for dataset in datasets:
        ours = _first_seed(records, dataset, method, profile)
        for measure in metrics:
            cells = [_with_interval(ours.get(arm), measure) for arm in ARMS]
            if set(cells) != {_DASH}:
                words = [*([label(dataset)] if len(datasets) > 1 else []), metric(measure).label]
                record = next(iter(ours.values()))
                rows.append([", ".join(words), *cells, _source(record)])
    header = ["Attack", *(f"{label(arm)[0].upper()}{label(arm)[1:]} (%)" for arm in ARMS), "Profile, images"]
    return myst_table(header, rows or [[NOT_RUN, *[_DASH] * 3]], caption=caption, name=name)


def checks_table(
    records: pd.DataFrame, *, datasets: Sequence[str], caption: str, name: str, profile: str | None = None
) -> Markdown:
    """What would show that gradients mislead the attack, what was found, and whether it is as it should be.

    Args:
        records: Records of the methods ``checks`` and ``adversarial``.
        datasets: Image sets.
        caption: Caption of the table, Markdown.
        name: Its label for references.
        profile: The records' profile; None: the highest with records.

    Returns:
        A numbered MyST table, one row a check, data set and arm. A difference of at most the images' standard error
        counts as none.
    """
    rows = []
    for dataset in datasets:
        checked, attacked = (_first_seed(records, dataset, which, profile) for which in ("checks", "adversarial"))
        for arm in ARMS:
            where = f"{label(dataset)}, {label(arm)}" if len(datasets) > 1 else label(arm)
            found = [*_checks(checked.get(arm)), *_longer(attacked.get(arm))]
            rows += [[words, where, value, "yes" if good else "**no**"] for words, value, good in found]
    header = ["What should be", "Network", "Found (%)", "Is it so?"]
    return myst_table(header, sorted(rows) or [[NOT_RUN, *[_DASH] * 3]], caption=caption, name=name)


def _checks(record: dict[Any, Any] | None) -> list[tuple[str, str, bool]]:
    if record is None:
        return []
    white, transfer, blind = (float(record[name]) for name in (_MEASURE, "transfer_accuracy", "zero_gradient"))
    curve = record["adversarial_accuracy_by_epsilon"]
    slack = _slack(white, record)
    falls = all(later <= earlier + slack for earlier, later in pairwise(curve))
    largest = f"{record['curve_epsilon'][-1]:g}/255"
    restarts = next(str(name) for name in record if str(name).endswith("_restarts") and _present(record[name]))
    one = next(
        (str(n) for n in record if re.fullmatch(rf"{_MEASURE}_\d+_steps", str(n)) and _present(record[n])), _MEASURE
    )
    return [
        (
            "Another network's adversarial images do less harm than the network's own",
            f"{_percent(transfer)} against {_percent(white)}",
            transfer >= white - slack,
        ),
        ("Every image has a gradient", f"{_percent(1 - blind)}", blind == 0),
        (
            f"Accuracy falls with the radius (in 255ths), to at most 1 % at ε = {largest}",
            "; ".join(
                f"{_percent(value)} at {radius:g}" for value, radius in zip(curve, record["curve_epsilon"], strict=True)
            ),
            falls and curve[-1] <= 0.01,
        ),
        (
            f"Further random starts find at most {100 * _MORE:g} points that the first did not",
            f"{_percent(float(record[restarts]))} against {_percent(float(record[one]))}",
            float(record[one]) - float(record[restarts]) <= _MORE,
        ),
    ]


def _longer(record: dict[Any, Any] | None) -> list[tuple[str, str, bool]]:
    name = next((str(key) for key in record or () if str(key).endswith("_steps") and "accuracy_" in str(key)), None)
    if record is None or name is None or not _present(record.get("adversarial_accuracy_by_steps")):
        return []
    curve = record["adversarial_accuracy_by_steps"]
    short, long = float(record[_MEASURE]), float(curve[-1])
    slack = _slack(short, record)
    return [
        (
            f"{record['curve_steps'][-1]:g} steps leave no more accuracy than fewer, but for a standard error",
            f"{_percent(long)} against {_percent(short)}",
            all(long <= value + slack for value in curve),
        )
    ]


def _slack(share: float, record: dict[Any, Any]) -> float:
    """The standard error of a share of the attacked images."""
    return float(np.sqrt(share * (1 - share) / float(record["attacked_images"])))


def _percent(share: float) -> str:
    return number(share, "accuracy")


def _present(value: Any) -> bool:
    return isinstance(value, Sequence) or (value is not None and np.isfinite(value))


def _first_seed(records: pd.DataFrame, dataset: str, method: str, profile: str | None) -> dict[str, dict[Any, Any]]:
    """By arm the record of the lowest seed."""
    scale = profile or profile_of(records, _SECTION, dataset) or ""
    found = {}
    for arm in ARMS:
        rows = runs(records, section=_SECTION, profile=scale, dataset=dataset, arm=arm, method=method)
        if len(rows):
            found[arm] = rows.sort_values("seed").iloc[0].to_dict()
    return found


def clean_note(records: pd.DataFrame, *, datasets: Sequence[str]) -> str:
    """The accuracy of the adversarially trained networks on clean images, the paper's and ours.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        datasets: Image sets.

    Returns:
        A sentence; "" where nothing is recorded.
    """
    rows = comparison_rows(
        _SECTION,
        records,
        metrics=["clean_accuracy"],
        datasets=datasets,
        methods=["adversarial"],
        locator="P1 Table 1",
    )
    told = []
    for dataset in datasets:
        arms = rows[(rows["dataset"] == dataset) & (rows["n"] > 0)].set_index("arm")
        if set(ARMS) <= set(arms.index):
            theirs = " → ".join(str(arms.loc[arm, "printed"]) for arm in ARMS)
            ours = " → ".join(number(float(arms["mean"][arm]), "clean_accuracy") for arm in ARMS)
            told.append(f"{label(dataset)} {theirs} % in the paper, {ours} % here")
    return f"Accuracy on clean images: {'; '.join(told)}." if told else ""


def stronger_note(records: pd.DataFrame, *, dataset: str, profile: str | None = None) -> Markdown:
    """What becomes of the lead of the pre-trained network under the stronger attacks that others wrote.

    Args:
        records: Records of the methods ``independent`` and ``adversarial``.
        dataset: Image set.
        profile: The records' profile; None: the highest with records.
    """
    names = {_MEASURE: "independent", "adversarial_accuracy_apgd": "independent", "clean_accuracy": "adversarial"}
    sides = {name: _first_seed(records, dataset, method, profile) for name, method in names.items()}
    if not all(arm in found and _present(found[arm].get(name)) for name, found in sides.items() for arm in ARMS):
        return Markdown(f"What becomes of the pre-trained network's lead under stronger attacks: {NOT_RUN}.")
    lead, left, clean = (float(found[ARMS[1]][name]) - float(found[ARMS[0]][name]) for name, found in sides.items())
    images = float(sides[_MEASURE][ARMS[0]]["attacked_images"])
    shown = [number(value, _MEASURE, signed=True) for value in (lead, left, clean)]
    text = (
        f"On {label(dataset)} the pre-trained network's accuracy differs from that of the network from scratch by "
        f"{shown[0]} points under our attack and by {shown[1]} under the strongest of these (one seed, {images:g} "
        f"images); on clean test images by {shown[2]}"
    )
    if 0 < left < min(lead, clean):
        text += ". So stronger attacks take more from it, and a part of its lead may be plain accuracy"
    return Markdown(f"{text}.")


def _with_interval(record: dict[Any, Any] | None, measure: str) -> str:
    if record is None or measure not in record or not _present(record[measure]):
        return _DASH
    share = float(record[measure])
    low, high = share_interval(share, float(record["attacked_images"]))
    return f"{number(share, measure)} [{number(low, measure)}, {number(high, measure)}]"


def _source(record: dict[Any, Any]) -> str:
    return f"`{record['profile']}`, {record['attacked_images']:g}"


def attacked_images(
    clean: ArrayLike,
    adversarial: ArrayLike,
    before: Sequence[str],
    after: Sequence[str],
    *,
    epsilon: float,
) -> Figure:
    """Images in a row, below them what an attack made of them, and the change, amplified.

    Args:
        clean: Floats [N, 3, H, W] in [0, 1].
        adversarial: The same images after the attack.
        before: Predicted classes of the clean images, N names.
        after: Predicted classes of the adversarial images.
        epsilon: Radius of the attack, which is drawn as the darkest and brightest change.

    Returns:
        The figure: three rows of N images. The change is grey where there is none.
    """
    original, changed = (np.asarray(part, dtype=float) for part in (clean, adversarial))
    difference = np.clip(0.5 + (changed - original) / (2 * max(epsilon, 1e-9)), 0, 1)
    count = len(original)
    figure, axes = new_figure(columns=count, rows=3, height=1.25)
    lines = [("clean", original, before), ("adversarial", changed, after), ("change", difference, [""] * count)]
    for line, (words, pictures, predictions) in enumerate(lines):
        for place, (picture, prediction) in enumerate(zip(pictures, predictions, strict=True)):
            panel = axes[line * count + place]
            panel.imshow(np.moveaxis(picture, 0, -1), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.grid(visible=False)
            wrong = line == 1 and prediction != before[place]
            panel.set_xlabel(prediction, fontsize=9, fontweight="bold" if wrong else "normal")
            if place == 0:
                panel.set_ylabel(words)
    return figure
