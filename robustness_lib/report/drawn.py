"""The numbers that a figure draws, read from the figure itself, so that a page can offer them as a file.

Whatever is drawn is read back from the axes: lines, points, bars, error bars, bands and heat maps. So no figure
function has to keep its numbers, and the file cannot differ from the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.ticker import FixedFormatter, FuncFormatter

from robustness_lib.notebook import CSV

COLUMNS = ("panel", "series", "drawn_as", "x", "y", "low", "high", "x_label", "y_label")

Row = dict[str, Any]
Names = dict[tuple[Any, ...], str]

DASHES = "#555555"
"""The grey of a legend's entry that says what a dashed line means."""


def drawn(figure: Figure) -> pd.DataFrame:
    """The numbers of a figure, in the units of its axes.

    Args:
        figure: Any figure.

    Returns:
        One row a mark: ``panel`` (its title, or the first words in it, else its number), ``series`` (the words of the
        legend, or the group of bars, where there are any), ``drawn_as`` (line, bar, bin, point, interval, band or
        cell),
        ``x`` and ``y`` (a number, or the words at the axis), ``low`` and ``high`` of intervals and bands, and the
        labels of both axes. Of a heat map ``x`` and ``y`` are column and row, and ``low`` is the value.
    """
    names = _names(figure)
    rows: list[Row] = []
    for number, axes in enumerate((a for a in figure.axes if _has_data(a)), start=1):
        about = {"panel": _title(axes) or str(number), "x_label": axes.get_xlabel(), "y_label": axes.get_ylabel()}
        for row in (
            *_lines(axes, names),
            *_bars(axes, names),
            *_histograms(axes, names),
            *_collections(axes, names),
            *_images(axes),
        ):
            rows.append({**about, **row, "x": _at(axes.xaxis, row["x"]), "y": _at(axes.yaxis, row.get("y"))})
    return pd.DataFrame(rows, columns=list(COLUMNS)).replace({r"\s*\n\s*": " "}, regex=True).drop_duplicates()


def as_csv(figure: Figure) -> str:
    """The same as text, six significant digits, empty columns left out."""
    table = drawn(figure).dropna(axis=1, how="all")
    return str(table.to_csv(index=False, float_format="%.6g"))


def offer_csv(shell: Any) -> None:
    """Make a notebook keep the numbers of every figure that it shows, beside the picture, as text/csv."""
    from IPython.core.formatters import BaseFormatter
    from traitlets import ObjectName, Unicode

    class Formatter(BaseFormatter):
        format_type = Unicode(CSV)
        print_method = ObjectName("_repr_csv_")

        def __call__(self, shown: Any) -> str | None:
            # not registered for the type: the inline backend clears what is, when it shows its first figure
            return as_csv(shown) if isinstance(shown, Figure) else None

    shell.display_formatter.formatters[CSV] = Formatter(parent=shell.display_formatter)


def _has_data(axes: Axes) -> bool:
    colour_bar = axes.get_label() == "<colorbar>"
    return axes.axison and not colour_bar and bool(axes.lines or axes.patches or axes.collections or axes.images)


def _title(axes: Axes) -> str:
    titles = [axes.get_title(loc=place) for place in ("left", "center", "right")]
    return next((words for words in (*titles, *(text.get_text() for text in axes.texts)) if words), "")


def _looks(artist: Any) -> list[tuple[Any, ...]]:
    """What tells an artist's series from others, the most telling first."""
    if isinstance(artist, Line2D):
        colour, marker, dashes = to_hex(artist.get_color()), artist.get_marker(), artist.get_linestyle()
        return [(colour, marker, dashes), (colour, marker)]
    colours = np.atleast_2d(artist.get_facecolor())
    return [(to_hex(colours[0]) if colours.size else None,)]


def _names(figure: Figure) -> Names:
    """The legend's words by look: a series often has its words in one panel only."""
    found: Names = {}
    for axes in figure.axes:
        for handle, words in zip(*axes.get_legend_handles_labels(), strict=True):
            artist = handle[0] if isinstance(handle, tuple) and len(handle) else handle
            if hasattr(artist, "axes"):
                for look in _looks(artist):
                    found.setdefault(look, words)
    return found


def _series(artist: Any, names: Names) -> str | None:
    words = str(artist.get_label())
    if words and not words.startswith("_"):
        return words
    name = next((names[look] for look in _looks(artist) if look in names), None)
    if isinstance(artist, Line2D):  # a legend may say what dashes mean by a line of its own in grey
        dashes = names.get((DASHES, "None", artist.get_linestyle()))
        name = ", ".join(part for part in (name, dashes) if part) or None
    return name


def _lines(axes: Axes, names: Names) -> Iterator[Row]:
    for line in axes.lines:
        kind = "point" if line.get_linestyle() in ("None", "none", " ", "") else "line"
        if line.get_marker() in ("_", "|") or line.get_transform() != axes.transData:
            continue  # the caps of an error bar, or a line that marks the axes and not the data
        for x, y in zip(np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata()), strict=True):
            yield {"series": _series(line, names), "drawn_as": kind, "x": x, "y": y}


def _bars(axes: Axes, names: Names) -> Iterator[Row]:
    for group in axes.containers:
        if not isinstance(group, BarContainer):
            continue
        for bar in group.patches:
            words = str(group.get_label())
            about = {"series": _series(bar, names) if words.startswith("_") else words, "drawn_as": "bar"}
            middle = bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2
            flat = group.orientation == "horizontal"
            yield {**about, "x": bar.get_width() if flat else middle[0], "y": middle[1] if flat else bar.get_height()}


def _histograms(axes: Axes, names: Names) -> Iterator[Row]:
    for patch in axes.patches:
        if isinstance(patch, StepPatch):
            values, edges, _ = patch.get_data()
            for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
                yield {"series": _series(patch, names), "drawn_as": "bin", "x": (left + right) / 2, "y": value}


def _collections(axes: Axes, names: Names) -> Iterator[Row]:
    for collection in axes.collections:
        series = _series(collection, names)
        if isinstance(collection, LineCollection):
            for segment in collection.get_segments():
                yield from _interval(np.asarray(segment), series)
        elif isinstance(collection, PathCollection):
            for x, y in np.asarray(collection.get_offsets()):
                yield {"series": series, "drawn_as": "point", "x": x, "y": y}
        elif isinstance(collection, QuadMesh):
            yield from _cells(np.asarray(collection.get_array()))
        elif isinstance(collection, PolyCollection):
            yield from _band(collection, series)


def _interval(ends: np.ndarray, series: str | None) -> Iterator[Row]:
    if len(ends) != 2 or not np.isfinite(ends).all():
        return  # of a spread that is not known, nothing is drawn
    (x, y), low, high = ends[0], ends.min(axis=0), ends.max(axis=0)
    if x == ends[1][0]:
        yield {"series": series, "drawn_as": "interval", "x": x, "low": low[1], "high": high[1]}
    elif y == ends[1][1]:
        yield {"series": series, "drawn_as": "interval", "x": None, "y": y, "low": low[0], "high": high[0]}


def _band(band: Collection, series: str | None) -> Iterator[Row]:
    for path in band.get_paths():
        edge = pd.DataFrame(np.asarray(path.vertices), columns=["x", "y"]).groupby("x")["y"].agg(["min", "max"])
        for x, low, high in edge.itertuples():
            yield {"series": series, "drawn_as": "band", "x": x, "low": low, "high": high}


def _images(axes: Axes) -> Iterator[Row]:
    for image in axes.images:
        values = np.ma.filled(np.ma.asarray(image.get_array()).astype(float), np.nan)
        if values.ndim == 2:  # pictures, which have channels, are no numbers
            yield from _cells(values)


def _cells(values: np.ndarray) -> Iterator[Row]:
    for (row, column), value in np.ndenumerate(values):
        yield {"series": None, "drawn_as": "cell", "x": column, "y": row, "low": value}


def _at(axis: Any, place: Any) -> Any:
    """The words that an axis has at a place, where it has words instead of numbers."""
    formatter = axis.get_major_formatter()
    if place is None or not isinstance(formatter, FixedFormatter | FuncFormatter):
        return place
    ticks = list(axis.get_majorticklocs())
    words = [formatter(tick, number) for number, tick in enumerate(ticks)]
    if not words or not all(words):
        return place
    nearest = int(np.argmin([abs(tick - float(place)) for tick in ticks]))
    within = math.inf if len(ticks) == 1 else min(np.diff(sorted(ticks))) / 2
    return words[nearest] if abs(ticks[nearest] - float(place)) <= within else place
