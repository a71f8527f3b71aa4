"""Tables and figures that put the papers' numbers beside ours.

Everything here is a pure function of records (a frame as by :func:`robustness_lib.records.frame`) and of the
published numbers (:mod:`robustness_lib.paper`); nothing trains, and no number is typed.

* :mod:`~robustness_lib.report.style`: the one look of all figures;
* :mod:`~robustness_lib.report.figures`: bars and curves with the papers' values;
* :mod:`~robustness_lib.report.grids`: several panels of curves, and matrices as heat maps;
* :mod:`~robustness_lib.report.levels`: tables and figures of several methods at several levels;
* :mod:`~robustness_lib.report.detection`: tables and figures of out-of-distribution detection;
* :mod:`~robustness_lib.report.lines`: accuracy under shift, effective robustness and dominance;
* :mod:`~robustness_lib.report.robustness`: the same while networks are fine-tuned;
* :mod:`~robustness_lib.report.robustness_notes`: what both come to, in sentences;
* :mod:`~robustness_lib.report.tables`: comparison tables and the scoreboard of claims, as MyST Markdown;
* :mod:`~robustness_lib.report.headlines`: the one number that stands for each section;
* :mod:`~robustness_lib.report.live`: the table of a live run, every job of it;
* :mod:`~robustness_lib.report.pretrainings`: what networks were pre-trained on, beside the authors' logs;
* :mod:`~robustness_lib.report.provenance`: where each number was measured, and the command that measures it
  again.
"""

from robustness_lib.report.detection import (
    chance_note,
    foreign_sets_table,
    further_sets_note,
    gain_by_set,
    kinds_table,
    losses_note,
    overlap_table,
    photographs_note,
    roc_curves,
    score_histograms,
    scores_table,
    spreads_table,
)
from robustness_lib.report.figures import bars_with_paper, curves_with_paper
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
from robustness_lib.report.lines import (
    Models,
    accuracy_scatter,
    answers_table,
    dominance_heat_map,
    dominance_map,
    dominance_scatter,
    hard_share_scatter,
    high_table,
    lines_table,
    published_robustness,
    published_scatter,
    robustness_curves,
    scatter_by_scale,
)
from robustness_lib.report.live import live_table
from robustness_lib.report.pretrainings import pretrainings_table
from robustness_lib.report.provenance import contents_note, made_by, provenance_table, rerun_command, rerun_commands
from robustness_lib.report.robustness import (
    STANDARD,
    factor_series,
    factors_table,
    maximum_bars,
    own_dominance_scatter,
    own_hard_shares,
    own_lines_table,
    own_testbed_scatter,
    robustness_during_tuning,
    weight_space_path,
)
from robustness_lib.report.robustness_notes import (
    dominance_note,
    during_note,
    hard_note,
    high_note,
    hump_note,
    path_note,
    scales_note,
    testbed_hard_note,
)
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
    "STANDARD",
    "Models",
    "accuracy_scatter",
    "answers_table",
    "area_note",
    "arm_style",
    "arms_table",
    "bars_with_paper",
    "candidates_table",
    "chance_note",
    "comparison_rows",
    "comparison_table",
    "contents_note",
    "curve_grid",
    "curves_by_class",
    "curves_with_paper",
    "dominance_heat_map",
    "dominance_map",
    "dominance_note",
    "dominance_scatter",
    "during_note",
    "factor_series",
    "factors_table",
    "foreign_sets_table",
    "further_sets_note",
    "gain_by_set",
    "hard_note",
    "hard_share_scatter",
    "high_note",
    "high_table",
    "hump_note",
    "in_short",
    "kinds_table",
    "legend_outside",
    "levels_table",
    "lines_table",
    "live_table",
    "losses_note",
    "made_by",
    "matrix_grid",
    "maximum_bars",
    "method_effects_table",
    "minority_gain_table",
    "myst_table",
    "new_figure",
    "overlap_table",
    "own_dominance_scatter",
    "own_hard_shares",
    "own_lines_table",
    "own_testbed_scatter",
    "panels_by_arm",
    "path_note",
    "photographs_note",
    "pretrainings_table",
    "provenance_table",
    "published_robustness",
    "published_scatter",
    "recipes_table",
    "rerun_command",
    "rerun_commands",
    "robustness_curves",
    "robustness_during_tuning",
    "roc_curves",
    "scales_note",
    "scatter_by_scale",
    "score_histograms",
    "scoreboard",
    "scores_table",
    "series_style",
    "setting_table",
    "spreads_table",
    "testbed_hard_note",
    "use_style",
    "verdict_summary",
    "weight_space_path",
]
