"""Figures and tables of effective robustness: accuracy on shifted data against accuracy on the original data.

Accuracies are drawn on the scale of the line (:data:`robustness_lib.accuracy_lines.SCALINGS`) and ticked in per cent.
The first functions take arrays, the others records of :mod:`robustness_lib.testbeds`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from robustness_lib.accuracy_lines import (
    PRINTED_LINES,
    SCALINGS,
    Line,
    accuracy_gap_share,
    clopper_pearson,
    effective_robustness,
    equal_accuracy_curve,
    to_scale,
)
from robustness_lib.paper import label, runs, select
from robustness_lib.paper.verdicts import PROFILES
from robustness_lib.report.figures import panel_of
from robustness_lib.report.style import EQUAL, OKABE_ITO, STYLE, legend_outside, new_figure, series_style
from robustness_lib.report.tables import NOT_RUN, Markdown, myst_table, number

Floats = npt.NDArray[np.float64]

SECTION = "effective_robustness"

_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
_PRINTED: dict[str, Any] = {"color": OKABE_ITO["black"], "lw": 1.5, "ls": (0, (4, 2))}
_FITTED: dict[str, Any] = {"color": OKABE_ITO["vermilion"], "lw": 1.8, "ls": "-"}

# --------------------------------------------------------------------------------------------- arrays


@dataclass(frozen=True, eq=False)
class Models:
    """Models that are drawn alike.

    Attributes:
        label: What they are, for the legend.
        id_accuracy: [M], fractions.
        ood_accuracy: [M].
        id_images: Images that the ID accuracy was measured on; 0 for no interval.
        ood_images: Those of the OOD accuracy.
        place: Which of the styles of :func:`~robustness_lib.report.style.series_style`.
    """

    label: str
    id_accuracy: Floats
    ood_accuracy: Floats
    id_images: int = 0
    ood_images: int = 0
    place: int = 0


def accuracy_scatter(
    models: Sequence[Models],
    lines: Mapping[str, Line],
    *,
    scaling: str = "logit",
    x_label: str = "accuracy (%)",
    y_label: str = "accuracy on shifted data (%)",
    axes: Axes | None = None,
) -> Figure:
    """OOD accuracy against ID accuracy on a scale, with lines and y = x.

    Args:
        models: Groups of models; each point has the 95 % intervals of Clopper and Pearson, where its group says on how
            many images it was measured. Models with an accuracy of 0 or 1 have no place on the probit and logit scales
            and are not drawn there.
        lines: Baselines by the text in the legend; the first is drawn solid, others dashed. A line fitted on another
            scale is a curve.
        scaling: One of :data:`robustness_lib.accuracy_lines.SCALINGS`.
        x_label: Name of the ID accuracy, with its unit.
        y_label: Name of the OOD accuracy.
        axes: Where to draw; None: a new figure with a legend.

    Returns:
        The figure.
    """
    if axes is None:
        figure, (panel,) = new_figure(height=4.4)
    else:
        figure, panel = panel_of(axes)
    inside = np.concatenate([group.id_accuracy for group in models]) if models else np.array([])
    outside = np.concatenate([group.ood_accuracy for group in models]) if models else np.array([])
    panel.set_xlabel(x_label)
    panel.set_ylabel(y_label)
    shown = np.isfinite(to_scale(inside, scaling)) & np.isfinite(to_scale(outside, scaling))
    if not shown.any():
        return _nothing(figure, panel)
    places = np.linspace(inside[shown].min(), inside[shown].max(), 400)
    for style, (text, line) in zip([_FITTED, _PRINTED, _PRINTED], lines.items(), strict=False):
        panel.plot(
            to_scale(places, scaling), to_scale(np.clip(line.predict(places), 0, 1), scaling), label=text, **style
        )
    panel.plot(to_scale(places, scaling), to_scale(places, scaling), label="y = x, no loss", **EQUAL)
    for group in models:
        _draw_models(panel, group, scaling)
    _percent_ticks(panel, "x", inside[shown], scaling)
    _percent_ticks(panel, "y", np.concatenate([outside[shown], inside[shown]]), scaling)
    if axes is None:
        legend_outside(figure, columns=2)
    return figure


def _draw_models(panel: Axes, group: Models, scaling: str) -> None:
    style = series_style(group.place)
    x, y = to_scale(group.id_accuracy, scaling), to_scale(group.ood_accuracy, scaling)
    kept = np.isfinite(x) & np.isfinite(y)
    bars: dict[str, Any] = {}
    for name, accuracy, images, place in (
        ("xerr", group.id_accuracy[kept], group.id_images, x[kept]),
        ("yerr", group.ood_accuracy[kept], group.ood_images, y[kept]),
    ):
        if images:
            low, high = clopper_pearson(np.round(accuracy * images), images)
            bars[name] = np.stack([place - to_scale(low, scaling), to_scale(high, scaling) - place])
    panel.errorbar(
        x[kept], y[kept], **bars, label=group.label, color=style["color"], marker=style["marker"], ms=4, ls="none",
        elinewidth=0.7, mec="white", mew=0.4, ecolor=style["color"],
    )  # fmt: skip


def _percent_ticks(panel: Axes, which: str, accuracy: Floats, scaling: str) -> None:
    """Ticks at round percentages, wherever the scale puts them, and limits just beyond the accuracies."""
    axis = panel.xaxis if which == "x" else panel.yaxis
    low, high = float(accuracy.min()), float(accuracy.max())
    places = to_scale(np.array([low, high]), scaling)
    margin = 0.05 * float(np.ptp(places)) or 0.1
    limits = (float(places[0]) - margin, float(places[1]) + margin)
    (panel.set_xlim if which == "x" else panel.set_ylim)(limits)
    axis.set_minor_locator(NullLocator())
    if scaling == "linear":
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        return
    ticks: list[float] = []
    for tick in _TICKS:
        place = float(to_scale(np.array(tick), scaling))
        near = ticks and place - float(to_scale(np.array(ticks[-1]), scaling)) < 0.09 * (limits[1] - limits[0])
        if limits[0] <= place <= limits[1] and not near:
            ticks.append(tick)
    axis.set_major_locator(FixedLocator([float(to_scale(np.array(tick), scaling)) for tick in ticks]))
    names = {round(float(to_scale(np.array(tick), scaling)), 9): f"{100 * tick:g}" for tick in ticks}
    axis.set_major_formatter(FuncFormatter(lambda value, _: names.get(round(value, 9), "")))


def robustness_curves(
    models: Sequence[Models],
    line: Line,
    *,
    curves: Mapping[str, tuple[Floats, Floats]] | None = None,
    x_label: str = "accuracy (%)",
) -> Figure:
    """Effective robustness against ID accuracy, in points and as a share of the accuracy gap.

    Args:
        models: Groups of models.
        line: The baseline.
        curves: Further ID and OOD accuracies by the text in the legend, drawn as lines.
        x_label: Name of the ID accuracy, with its unit.

    Returns:
        Two panels, one above the other: points beyond the line, with the curve y = x (a model that loses nothing); and
        the same as a share of that curve, where 100 % is no loss.
    """
    figure, (upper, lower) = new_figure(rows=2, height=2.8)
    inside = np.concatenate([group.id_accuracy for group in models]) if models else np.array([])
    if not len(inside):
        for panel in (upper, lower):
            _nothing(figure, panel)
        return figure
    low = min([float(inside.min()), *(float(x.min()) for x, _ in (curves or {}).values())])
    places = np.linspace(low, float(inside.max()), 400)
    upper.plot(places * 100, equal_accuracy_curve(places, line) * 100, label="y = x, no loss", **EQUAL)
    lower.axhline(100, **EQUAL)
    for panel in (upper, lower):
        panel.axhline(0, color=OKABE_ITO["black"], lw=1)
    for number_of_curve, (text, (x, y)) in enumerate((curves or {}).items()):
        style: dict[str, Any] = {"color": series_style(2 + number_of_curve)["color"], "ls": "-.", "lw": 1.6}
        upper.plot(x * 100, effective_robustness(x, y, line) * 100, label=text, **style)
        lower.plot(x * 100, accuracy_gap_share(x, y, line) * 100, label=text, **style)
    for group in models:
        mark = series_style(group.place)
        dots: dict[str, Any] = {"color": mark["color"], "marker": mark["marker"], "ls": "none", "ms": 4, "alpha": 0.8}
        x, y = group.id_accuracy, group.ood_accuracy
        upper.plot(x * 100, effective_robustness(x, y, line) * 100, label=group.label, **dots)
        lower.plot(x * 100, accuracy_gap_share(x, y, line) * 100, label=group.label, **dots)
    upper.set_ylabel("effective\nrobustness (points)")
    lower.set_ylabel("share of the\naccuracy gap (%)")
    lower.set_xlabel(x_label)
    lower.set_xlim(upper.get_xlim())
    legend_outside(figure, columns=2)
    return figure


def dominance_map(accuracy: Floats, dominance: Floats, *, highest: float | None = None) -> Figure:
    """Dominance probabilities of all pairs of models as a heat map, sorted by accuracy and mirrored (P2 C.10).

    Args:
        accuracy: [M], of the models, rising.
        dominance: [M, M], symmetric.
        highest: End of the colour scale, a fraction; None: the largest value.

    Returns:
        The figure; every model's own field is empty.
    """
    figure, (panel,) = new_figure(height=5.0)
    count = len(accuracy)
    shown = np.where(np.eye(count, dtype=bool), np.nan, dominance) * 100
    panel.grid(visible=False)
    image = panel.imshow(
        shown, cmap="cividis", vmin=0, vmax=(highest or float(np.nanmax(shown)) / 100) * 100, interpolation="nearest"
    )
    ticks = np.unique(np.linspace(0, count - 1, min(count, 7)).round().astype(int))
    names = [f"{100 * accuracy[tick]:.0f}" for tick in ticks]
    panel.set_xticks(ticks, names)
    panel.set_yticks(ticks, names)
    panel.set_xlabel("model, by its accuracy (%)")
    panel.set_ylabel("model, by its accuracy (%)")
    figure.colorbar(image, ax=panel, label="dominance probability (%)", shrink=0.8)
    return figure


# --------------------------------------------------------------------------------------------- records


def record_of(records: pd.DataFrame, dataset: str, method: str) -> dict[str, Any] | None:
    """The one record of a pair of test sets and a method, or None (:mod:`robustness_lib.testbeds` has no seeds)."""
    for profile in PROFILES:
        rows = runs(records, section=SECTION, profile=profile, dataset=dataset, arm="none", method=method)
        if len(rows):
            return {str(name): value for name, value in rows.iloc[0].items()}
    return None


def fitted_line(row: Mapping[str, Any], scaling: str) -> Line:
    """The line of a record of a fit."""
    chosen = SCALINGS[SCALINGS.index(scaling)]
    return Line(float(row["slope"]), float(row["intercept"]), chosen)


def published_models(row: Mapping[str, Any]) -> list[Models]:
    """The models of a ``testbed`` record, those that were trained on more data as a group of their own."""
    inside, outside, more = (
        np.asarray(row[name], dtype=float) for name in ("id_accuracy", "ood_accuracy", "more_data")
    )
    images = int(row["id_images"]), int(row["ood_images"])
    groups = []
    for place, (text, kept) in enumerate((("models of the testbed", more == 0), ("trained on more data", more > 0))):
        if kept.any():
            groups.append(Models(text, inside[kept], outside[kept], *images, place=place))
    return groups


def published_scatter(
    records: pd.DataFrame, dataset: str, *, scaling: str = "logit", axes: Axes | None = None, **words: str
) -> Figure:
    """The models of a testbed with the line fitted to them, the printed line and y = x.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        dataset: ``"cifar10"`` or ``"imagenet"``.
        scaling: The scale of the axes and of the fit.
        axes: Where to draw; None: a new figure with a legend.
        **words: ``x_label`` and ``y_label`` of :func:`accuracy_scatter`.

    Returns:
        The figure; "not run" without records.
    """
    row, fit = (record_of(records, dataset, method) for method in ("testbed", f"fit-{scaling}"))
    lines = {}
    if fit is not None:
        lines[f"line through {int(fit['model_count'])} models"] = fitted_line(fit, scaling)
    lines["line that the paper prints"] = PRINTED_LINES[dataset]
    return accuracy_scatter(published_models(row) if row else [], lines, scaling=scaling, axes=axes, **words)


def scatter_by_scale(records: pd.DataFrame, dataset: str, **words: str) -> Figure:
    """:func:`published_scatter` on each scale, one below another, with one legend."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(rows=len(SCALINGS), height=2.9)
    for panel, scaling in zip(axes, SCALINGS, strict=True):
        published_scatter(records, dataset, scaling=scaling, axes=panel, **words)
        panel.set_title(f"{scaling} scale", loc="left", fontsize=11)
        panel.label_outer()
        panel.set_xlabel(words.get("x_label", "accuracy (%)") if panel is axes[-1] else "")
        panel.tick_params(labelbottom=True)
    legend_outside(figure, columns=2)
    return figure


def published_robustness(records: pd.DataFrame, dataset: str, *, x_label: str = "accuracy (%)") -> Figure:
    """Effective robustness of a testbed's models against the printed line, and of the mixed classifier.

    Args:
        records: Records.
        dataset: ``"cifar10"`` or ``"imagenet"``.
        x_label: Name of the ID accuracy, with its unit.
    """
    row, mixed = (record_of(records, dataset, method) for method in ("testbed", "mixed"))
    curves = {}
    if mixed is not None:
        inside, outside = (np.asarray(mixed[name], dtype=float) for name in ("id_accuracy", "ood_accuracy"))
        curves["weakest and strongest mixed"] = (inside, outside)
    models = published_models(row) if row else []
    return robustness_curves(models, PRINTED_LINES[dataset], curves=curves, x_label=x_label)


def dominance_of(row: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Accuracies [M], rising, and dominance probabilities [M, M] of an ``image-by-image`` record."""
    accuracy = np.asarray(row["accuracy"], dtype=float)
    upper = np.triu_indices(len(accuracy), 1)
    matrix = np.zeros((len(accuracy),) * 2)
    matrix[upper] = np.asarray(row["dominance"], dtype=float)
    return accuracy, matrix + matrix.T


def dominance_heat_map(records: pd.DataFrame, dataset: str) -> Figure:
    """:func:`dominance_map` of a recorded testbed; "not run" without records."""
    row = record_of(records, dataset, "image-by-image")
    if row is None:
        figure, (panel,) = new_figure()
        return _nothing(figure, panel)
    return dominance_map(*dominance_of(row))


def dominance_scatter(records: pd.DataFrame, datasets: Sequence[str]) -> Figure:
    """Dominance probability of every pair of models against the difference of their accuracies (P2 §5.4).

    Args:
        records: Records.
        datasets: Testbeds, one panel each.

    Returns:
        The figure: measured pairs, and where the same pairs would lie if models erred independently.
    """
    figure, axes = new_figure(columns=len(datasets), height=3.4)
    for panel, dataset in zip(axes, datasets, strict=True):
        panel.set_title(label(dataset), loc="left", fontsize=11)
        panel.set_xlabel("difference of\naccuracies (points)")
        row = record_of(records, dataset, "image-by-image")
        if row is None:
            _nothing(figure, panel)
            continue
        accuracy, matrix = dominance_of(row)
        low, high = np.triu_indices(len(accuracy), 1)
        difference = (accuracy[high] - accuracy[low]) * 100
        for place, text, values in (
            (3, "if models erred independently", accuracy[low] * (1 - accuracy[high])),
            (0, "measured", matrix[low, high]),
        ):
            style = series_style(place)
            marks: dict[str, Any] = {"ls": "none", "marker": style["marker"], "color": style["color"], "mew": 0}
            panel.plot(difference, values * 100, alpha=0.35, ms=3, rasterized=True, **marks)
            panel.plot([], [], label=text, **marks)
    axes[0].set_ylabel("dominance\nprobability (%)")
    axes[0].set_ylim(bottom=0)
    legend_outside(figure, columns=2)
    return figure


def hard_share_scatter(records: pd.DataFrame, dataset: str) -> Figure:
    """For each model the share it gets right of the images that all others get wrong (P2 §5.4).

    Args:
        records: Records.
        dataset: A testbed.
    """
    figure, (panel,) = new_figure(height=3.2)
    panel.set_xlabel("accuracy (%)")
    panel.set_ylabel("share right of the images that\nall others get wrong (%)")
    row = record_of(records, dataset, "image-by-image")
    if row is None:
        return _nothing(figure, panel)
    style = series_style(0)
    panel.plot(
        np.asarray(row["accuracy"], dtype=float) * 100, np.asarray(row["hard_share_correct"], dtype=float) * 100,
        ls="none", marker=style["marker"], color=style["color"], ms=5,
    )  # fmt: skip
    panel.set_ylim(bottom=0)
    return figure


LINES: tuple[tuple[str, str, str], ...] = (
    ("table of August 2020, values of then", "imagenet", ""),
    ("the same networks, today's values", "imagenet", "2020-08-today"),
    ("table of November 2020", "imagenet", "2020-11"),
    ("table of September 2021", "imagenet", "2021-09"),
    ("August 2020, standard training only", "imagenet", "standard"),
    ("ImageNet's answers, without `fv_16k`", "imagenet", "answers"),
    ("30 public networks, CIFAR-10.1 v6", "cifar10", ""),
    ("the same, CIFAR-10.1 v4", "cifar10.1-v4", ""),
    ("ImageNetV2 Threshold0.7", "imagenetv2-threshold", ""),
    ("ImageNetV2 TopImages", "imagenetv2-top-images", ""),
    ("ObjectNet", "objectnet", ""),
    ("ImageNet-R", "imagenet-r", ""),
)
"""Every line of the published testbeds: words, data set, and variant ("" for none), as
:mod:`robustness_lib.testbeds` has them."""


def lines_table(
    records: pd.DataFrame, *, caption: str, name: str, rows: Sequence[tuple[str, str, str]] = LINES
) -> Markdown:
    """Lines through several sets of models, one a row.

    Args:
        records: Records.
        caption: Caption, Markdown.
        name: Label for references.
        rows: Words, data set and variant of each row, as :data:`LINES`.

    Returns:
        Models, slope and intercept on the logit scale with their standard errors, R² on the three scales, and how far
        the line is from the printed one at most, in points of accuracy. Where the paper prints a line for a data set,
        that comes first.
    """
    header = ["Models", "n", "Slope", "Intercept", "R² linear", "R² probit", "R² logit", "From the printed line"]
    cells = []
    for dataset in dict.fromkeys(dataset for _, dataset, _ in rows):
        chosen = select(SECTION, dataset=dataset, arm="none")
        columns = (chosen[name] for name in ("method", "metric", "printed"))
        printed = {(method, metric): value for method, metric, value in zip(*columns, strict=True)}
        if ("fit-logit", "slope") in printed:
            numbers = [str(printed["fit-logit", key]).replace("-", "−") for key in ("slope", "intercept")]
            shares = [str(printed[f"fit-{scaling}", "r_squared"]) for scaling in SCALINGS]
            cells.append([f"**the paper**, {label(dataset)}", "–", *numbers, *shares, "–"])
        for words, _, variant in (row for row in rows if row[1] == dataset):
            cells.append(_line_cells(records, words, dataset, variant))
    return myst_table(header, cells, caption=caption, name=name)


def _line_cells(records: pd.DataFrame, words: str, dataset: str, variant: str) -> list[str]:
    suffix = f"-{variant}" if variant else ""
    fits = {scaling: record_of(records, dataset, f"fit-{scaling}{suffix}") for scaling in SCALINGS}
    fit = fits["logit"]
    if fit is None:
        return [words, NOT_RUN, *["–"] * 6]
    both = [f"{number(fit[key], key)} ± {number(fit[f'{key}_error'], key)}" for key in ("slope", "intercept")]
    shares = [number(row["r_squared"], "r_squared") if row else "–" for row in fits.values()]
    distance = fit.get("printed_line_distance", math.nan)
    away = f"{distance * 100:.2f} points" if isinstance(distance, float) and math.isfinite(distance) else "–"
    return [words, f"{fit['model_count']:.0f}", *both, *shares, away]


def high_table(records: pd.DataFrame, datasets: Sequence[str], *, caption: str, name: str) -> Markdown:
    """How many networks of testbeds have high effective robustness against the printed line, a testbed a row.

    Args:
        records: Records.
        datasets: ``"cifar10"`` and ``"imagenet"``, or one of them.
        caption: Caption, Markdown.
        name: Label for references.
    """
    header = ["Testbed", "Networks", "Accuracies (%)", "More than 1 point", "Of these, more data", "Largest (points)"]
    rows = []
    for dataset in datasets:
        row = record_of(records, dataset, "testbed")
        if row is None:
            rows.append([label(dataset), NOT_RUN, *["–"] * 4])
            continue
        accuracy = np.asarray(row["id_accuracy"], dtype=float) * 100
        counts = [f"{row[key]:.0f}" for key in ("compared_count", "high_count", "high_more_data")]
        span = f"{accuracy.min():.1f} to {accuracy.max():.1f}"
        largest = f"{float(row['effective_robustness']) * 100:.1f}"
        rows.append([label(dataset), counts[0], span, *counts[1:], largest])
    return myst_table(header, rows, caption=caption, name=name)


_FACTS = (
    ("networks", "model_count", "{:,.0f}"),
    ("test images", "image_count", "{:,.0f}"),
    ("images that none gets right", "hard_count", "{:,.0f}"),
    ("the same, share (%)", "hard_share", "{:.2%}"),
    ("classes that these fall in", "hard_class_count", "{:,.0f}"),
    ("most of them in one class", "hard_class_maximum", "{:.0f}"),
    ("dominance probability, mean (%)", "dominance_mean", "{:.1%}"),
    ("lowest (%)", "dominance_lowest", "{:.1%}"),
    ("highest (%)", "dominance_highest", "{:.1%}"),
    ("mean if models erred independently (%)", "dominance_independent", "{:.1%}"),
)


def answers_table(records: pd.DataFrame, datasets: Sequence[str], *, caption: str, name: str) -> Markdown:
    """What the answers of testbeds image by image come to, a testbed a column, with the paper's numbers.

    Args:
        records: Records.
        datasets: Testbeds.
        caption: Caption, Markdown.
        name: Label for references.
    """
    rows = []
    found = {dataset: record_of(records, dataset, "image-by-image") for dataset in datasets}
    for words, key, form in _FACTS:
        cells = [form.format(row[key]).rstrip("%") if row else NOT_RUN for row in found.values()]
        printed = select(SECTION, dataset=datasets[-1], method="image-by-image", metric=key)["printed"]
        rows.append([words, *cells, str(printed.iloc[0]) if len(printed) else "–"])
    header = ["What is counted", *(label(dataset) for dataset in datasets), f"The paper, {label(datasets[-1])}"]
    return myst_table(header, rows, caption=caption, name=name)


def _nothing(figure: Figure, panel: Axes) -> Figure:
    """A panel that says that there is nothing to show."""
    panel.annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
    panel.set(xticks=[], yticks=[])
    return figure
