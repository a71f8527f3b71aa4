"""The one look of all figures.

Colours are Okabe and Ito's, which colour-blind readers tell apart; an arm has a marker besides, for black and white.
The background is light, since pages have a dark mode; 12-point text is still readable at half the width, on a phone.
"""

import io
import sys
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustness_lib.errors import choose
from robustness_lib.paper.numbers import label
from robustness_lib.report.evidence import basis

VERMILION, BLUE, GREEN, ORANGE, SKY_BLUE, PURPLE = "#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"

EQUAL: dict[str, Any] = {"color": "#777777", "lw": 1.2, "ls": ":"}

STYLE: Any = {
    "figure.figsize": (6.0, 3.6),
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.1,  # inches, so that a legend is not close to a title
    "savefig.dpi": 200,
    "svg.hashsalt": "robustness_lib",
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=[VERMILION, BLUE, GREEN, ORANGE, SKY_BLUE, PURPLE]),
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}

_ARMS = {
    "scratch": {"color": VERMILION, "marker": "o", "linestyle": "-"},
    "pre-trained": {"color": BLUE, "marker": "s", "linestyle": "-"},
}
_SERIES = ((PURPLE, "o"), (ORANGE, "^"), (GREEN, "v"), (SKY_BLUE, "P"), (BLUE, "s"))
PAPER: dict[str, Any] = {"color": "black", "marker": "D", "linestyle": "none", "zorder": 4}


def arm_style(arm: str) -> dict[str, Any]:
    """Colour, marker and line style of the arm "scratch" or "pre-trained", for ``axes.plot(..., **arm_style(arm))``."""
    return dict(_ARMS[choose(arm, _ARMS, "arm")])


def paper_line(arm: str) -> dict[str, Any]:
    """How a curve of the paper is drawn: thin and dashed, in the colour of its arm."""
    return {"color": arm_style(arm)["color"], "linestyle": (0, (4, 2)), "linewidth": 1.2, "alpha": 0.8}


def band(panel: Axes, rows: pd.DataFrame, arm: str, *, x: str = "level") -> None:
    """Draw an arm's rows of one metric, a fraction, in per cent: mean and standard deviation over seeds along ``x``."""
    curve, style = _means(rows, arm, x), arm_style(arm)
    panel.plot(curve.index, curve["mean"], label=label(arm), **style)
    low, high = curve["mean"] - curve["std"], curve["mean"] + curve["std"]
    panel.fill_between(curve.index, low, high, color=style["color"], alpha=0.2, lw=0)


def recorded_line(panel: Axes, rows: pd.DataFrame, arm: str, *, x: str = "level") -> None:
    """Draw the recorded means of an arm as a thin dotted line beside those of a live run, where there are any."""
    curve = _means(rows, arm, x)
    if len(curve):
        look = {"color": arm_style(arm)["color"], "lw": 1.4, "ls": ":", "label": f"recorded, {label(arm)}"}
        panel.plot(curve.index, curve["mean"], **look)


def _means(rows: pd.DataFrame, arm: str, x: str) -> pd.DataFrame:
    curve = rows[rows["arm"] == arm].astype({x: float, "value": float}).groupby(x)["value"].agg(["mean", "std"])
    return 100 * curve.fillna({"std": 0.0})


def series_style(place: int) -> dict[str, Any]:
    """Colour and marker of one of several lines that are not arms, by its place among them; five styles repeat."""
    color, marker = _SERIES[place % len(_SERIES)]
    return {"color": color, "marker": marker, "linestyle": "-"}


def use_style() -> None:
    """Make the style the default, and figures in a notebook SVG that show at the end of their cell."""
    mpl.rcParams.update(STYLE)
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()) is not None:
        shell.run_line_magic("config", "InlineBackend.figure_formats = ['svg']")
        plt.ion()


def new_figure(columns: int = 1, rows: int = 1, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the text, and its ``rows * columns`` axes, row by row, each row ``height`` inches high."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(6.0, height * rows), sharey=columns > 1, squeeze=False)
    return figure, list(np.ravel(axes))


def as_svg(figure: Figure) -> str:
    """A figure as SVG, the same at every time; it is closed."""
    image = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(image, format="svg", metadata={"Date": None})
    plt.close(figure)
    return image.getvalue()


def show(figure: Figure, plotted: pd.DataFrame) -> None:
    """Show a figure with the frame that it plots, which the page offers as CSV; scale and seeds stand below it."""
    if "profile" in plotted and ("seed" in plotted or "n" in plotted):
        figure.supxlabel(basis(plotted).replace("`", ""), x=0.995, ha="right", fontsize=9.5, color="#555555")
    from IPython.display import display  # of the extra "book"; the library does without

    numbers = plotted.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    display({"image/svg+xml": as_svg(figure), "text/csv": numbers}, raw=True)  # type: ignore[no-untyped-call]


def legend_outside(figure: Figure, columns: int = 3, paper: bool = False) -> None:
    """Put one legend of all axes above them, with a dashed line for the paper's where ``paper`` says so."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    if paper:
        entries["paper"] = Line2D([], [], **paper_line("scratch") | {"color": "#555555"})
    if entries:
        with mpl.rc_context(STYLE):
            columns = min(2 if max(map(len, entries)) > 20 else columns, len(entries))
            figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns)
