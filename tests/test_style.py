"""The look of figures."""

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from robustness_lib.errors import UserError
from robustness_lib.report import style


def test_arms_differ_in_colour_and_marker() -> None:
    scratch, tuned = style.arm_style("scratch"), style.arm_style("pre-trained")
    assert all(scratch[key] != tuned[key] for key in ("color", "marker"))
    with pytest.raises(UserError, match="scratch"):
        style.arm_style("tuned")


def test_a_band_is_the_mean_and_one_standard_deviation() -> None:
    rows = pd.DataFrame({"arm": "scratch", "level": [0.0, 0.0, 1.0, 1.0], "value": [0.1, 0.3, 0.4, 0.6]})
    figure, [panel] = style.new_figure()
    style.band(panel, rows, "scratch")
    [line] = panel.get_lines()
    assert list(line.get_ydata()) == pytest.approx([20, 50])
    [band] = panel.collections
    assert band.get_paths()[0].get_extents().ymax == pytest.approx(50 + 100 * np.std([0.4, 0.6], ddof=1))
    style.legend_outside(figure, paper=True)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["from scratch", "paper"]
    plt.close(figure)
