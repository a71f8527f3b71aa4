"""Tables of what networks were pre-trained on, beside the authors' own pre-trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from robustness_lib.checkpoint_ids import corpus_name
from robustness_lib.paper import network_label, select
from robustness_lib.report.provenance import corpus_label
from robustness_lib.report.tables import Markdown, myst_table, number

_AUTHORS = ["the authors", "ImageNet (32 px)", "1,281,167 of 1,000 classes"]
_HEADER = ["By", "Corpus", "Images", "Network", "Adversary", "Epochs", "Test error (%)"]


def pretrainings_table(records: pd.DataFrame, *, caption: str, name: str) -> Markdown:
    """Every recorded pre-training beside the two of which the authors published a log.

    Args:
        records: Records of :mod:`robustness_lib.pretraining`; others are ignored.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table; the error is on clean validation images of the classes that were trained on, a dash where
        the corpus has none of them.
    """
    rows = [_authors("calibration", "WRN-40-2", "none"), _authors("adversarial", "WRN-28-10", "untargeted")]
    mine = records[records["section"] == "pretraining"]
    rows += [_ours(row) for row in _in_order(mine)]
    return myst_table(_HEADER, rows, caption=caption, name=name)


def _authors(section: str, network: str, adversary: str) -> list[str]:
    method = "pretraining" if adversary == "none" else "adversarial-pretraining"
    log = select(section, dataset="imagenet32", method=method, metric="error").iloc[0]
    return [*_AUTHORS, network, adversary, f"{log['position']:g}", str(log["printed"])]


def _in_order(records: pd.DataFrame) -> list[dict[Any, Any]]:
    def place(row: Mapping[Any, Any]) -> tuple[str, float, str, int]:
        return row["profile"], -row["images"], str(row["recipe"].get("adversary", "none")), row["recipe"]["epochs"]

    return sorted(records.to_dict("records"), key=place)


def _ours(row: Mapping[Any, Any]) -> list[str]:
    recipe, error = row["recipe"], float(row.get("error", np.nan))
    return [
        f"here, `{row['profile']}`",
        corpus_label(corpus_name(str(row["dataset"]))),
        f"{row['images']:,.0f} of {row['classes']:,.0f} classes",
        network_label(str(recipe["architecture"])),
        str(recipe.get("adversary", "none")),
        str(recipe["epochs"]),
        number(error, "error"),
    ]
