"""The numbers that a figure draws, read back from it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from robustness_lib.notebook import CSV, write_page
from robustness_lib.report import legend_outside, new_figure
from robustness_lib.report.drawn import as_csv, drawn


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def marks(figure: Figure, kind: str) -> list[list[Any]]:
    table = drawn(figure)
    kept = table[table["drawn_as"] == kind].dropna(axis=1, how="all")
    return kept.drop(columns=["panel", "drawn_as", "x_label", "y_label"], errors="ignore").to_numpy().tolist()


def test_lines_have_their_legends_words_in_every_panel() -> None:
    figure, (left, right) = new_figure(columns=2)
    left.set_title("first", loc="left")
    left.plot([0, 1], [2, 3], color="C0", marker="o", label="a method")
    left.plot([], [], color="#555555", linestyle="--", label="paper")
    right.plot([0, 1], [4, 5], color="C0", marker="o", linestyle="--", markerfacecolor="white")
    right.set_ylabel("error\n(%)")
    legend_outside(figure)
    table = drawn(figure)
    assert table["panel"].tolist() == ["first", "first", "2", "2"]
    assert table["series"].tolist() == ["a method"] * 2 + ["a method, paper"] * 2
    assert table["y"].tolist() == [2, 3, 4, 5]
    assert set(table["y_label"]) == {"", "error (%)"}


def test_bars_have_the_words_at_the_axis_and_their_intervals() -> None:
    figure, [panel] = new_figure()
    panel.bar([0, 1], [5.0, 6.0], label="here")
    panel.errorbar([0, 1], [5.0, 6.0], yerr=[0.5, 1.0], linestyle="none", capsize=3)
    panel.set_xticks([0, 1], ["CIFAR-10", "CIFAR-100"])
    assert marks(figure, "bar") == [["here", "CIFAR-10", 5.0], ["here", "CIFAR-100", 6.0]]
    assert marks(figure, "interval") == [["CIFAR-10", 4.5, 5.5], ["CIFAR-100", 5.0, 7.0]]


def test_a_spread_that_is_not_known_is_no_interval() -> None:
    figure, [panel] = new_figure()
    panel.errorbar([0, 1], [5.0, 6.0], yerr=[np.nan, 1.0], linestyle="none")
    panel.errorbar(0, 5.0, yerr=np.nan)
    figure.canvas.draw()
    assert marks(figure, "interval") == [[1.0, 5.0, 7.0]]


def test_a_band_has_both_edges_and_a_heat_map_its_cells() -> None:
    figure, (left, right) = new_figure(columns=2)
    left.fill_between([0, 1], [1, 2], [3, 5])
    right.imshow(np.arange(4.0).reshape(2, 2))
    assert marks(figure, "band") == [[0, 1, 3], [1, 2, 5]]
    assert marks(figure, "cell") == [[0, 0, 0], [1, 0, 1], [0, 1, 2], [1, 1, 3]]


def test_a_histogram_has_the_middles_of_its_bins() -> None:
    figure, [panel] = new_figure()
    panel.stairs([5.0, 7.0], [0.0, 0.5, 1.0], fill=True, label="known images")
    assert marks(figure, "bin") == [["known images", 0.25, 5.0], ["known images", 0.75, 7.0]]


def test_points_flat_intervals_and_guides() -> None:
    figure, [panel] = new_figure()
    panel.scatter([1, 2], [3, 4], label="seed")
    panel.errorbar([5], [0], xerr=[1], fmt="D")
    panel.axhline(0)  # marks the axis, and is no number of the figure
    assert [row[1:3] for row in marks(figure, "point")] == [[5, 0], [1, 3], [2, 4]]
    assert marks(figure, "interval") == [[0.0, 4.0, 6.0]]
    assert "line" not in drawn(figure)["drawn_as"].tolist()


def test_csv_reads_back() -> None:
    figure, [panel] = new_figure()
    panel.plot([0.1, 0.2], [1 / 3, 2 / 3], label="x, y")
    back = pd.read_csv(io.StringIO(as_csv(figure)))
    assert back["series"].tolist() == ["x, y"] * 2
    assert back["y"].to_numpy() == pytest.approx([1 / 3, 2 / 3], rel=1e-5)


def test_page_links_the_numbers_of_its_figures(tmp_path: Path) -> None:
    picture = {"image/svg+xml": "<svg/>", CSV: "x,y\n1,2\n"}
    cells = [
        {
            "cell_type": "code",
            "source": "figure",
            "metadata": {"mystnb": {"figure": {"caption": "What it is.", "name": "fig-it"}}} if named else {},
            "outputs": [{"output_type": "display_data", "data": dict(picture), "metadata": {}}],
        }
        for named in (True, False)
    ]
    (tmp_path / "run.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}}))
    write_page(tmp_path / "run.ipynb", tmp_path / "page.ipynb")
    first, second = json.loads((tmp_path / "page.ipynb").read_text())["cells"]
    assert list(first["outputs"][0]["data"]) == list(second["outputs"][0]["data"]) == ["image/svg+xml"]
    assert (tmp_path / "data/fig-it.csv").read_text() == "x,y\n1,2\n"
    caption = first["metadata"]["mystnb"]["figure"]["caption"]
    assert caption == "What it is. {download}`The numbers (CSV) <data/fig-it.csv>`"
