"""Tables and figures that put the papers' numbers beside ours.

Everything here is a pure function of records (a frame as by :func:`robustness_lib.records.frame`) and of the
published numbers (:mod:`robustness_lib.paper`); nothing trains, and no number is typed.

* :mod:`~robustness_lib.report.style`: the one look of all figures;
* :mod:`~robustness_lib.report.figures`: curves with the papers' values;
* :mod:`~robustness_lib.report.grids`: several panels of curves, and matrices as heat maps;
* :mod:`~robustness_lib.report.levels`: tables and figures of several methods at several levels;
* :mod:`~robustness_lib.report.tables`: comparison tables and the scoreboard of claims, as MyST Markdown;
* :mod:`~robustness_lib.report.headlines`: the one number that stands for each section;
* :mod:`~robustness_lib.report.live`: the table of a live run, every job of it;
* :mod:`~robustness_lib.report.pretrainings`: what networks were pre-trained on, beside the authors' logs;
* :mod:`~robustness_lib.report.provenance`: where each number was measured, and the command that measures it
  again.
"""

from robustness_lib.report.figures import curves_with_paper
from robustness_lib.report.grids import curve_grid, matrix_grid, panels_by_arm
from robustness_lib.report.headlines import in_short, recipes_table, verdict_summary
from robustness_lib.report.levels import (
    area_note,
    curves_by_class,
    levels_table,
    method_effects_table,
    minority_gain_table,
    setting_table,
)
from robustness_lib.report.live import live_table
from robustness_lib.report.pretrainings import pretrainings_table
from robustness_lib.report.provenance import contents_note, made_by, provenance_table, rerun_command, rerun_commands
from robustness_lib.report.style import arm_style, legend_outside, new_figure, series_style, use_style
from robustness_lib.report.tables import (
    arms_table,
    candidates_table,
    comparison_rows,
    comparison_table,
    myst_table,
    scoreboard,
)

__all__ = [
    "area_note",
    "arm_style",
    "arms_table",
    "candidates_table",
    "comparison_rows",
    "comparison_table",
    "contents_note",
    "curve_grid",
    "curves_by_class",
    "curves_with_paper",
    "in_short",
    "legend_outside",
    "levels_table",
    "live_table",
    "made_by",
    "matrix_grid",
    "method_effects_table",
    "minority_gain_table",
    "myst_table",
    "new_figure",
    "panels_by_arm",
    "pretrainings_table",
    "provenance_table",
    "recipes_table",
    "rerun_command",
    "rerun_commands",
    "scoreboard",
    "series_style",
    "setting_table",
    "use_style",
    "verdict_summary",
]
