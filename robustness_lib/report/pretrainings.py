"""Tables of what networks were pre-trained on, beside the authors' own pre-trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from robustness_lib.checkpoint_ids import corpus_name, origin
from robustness_lib.paper import label, network_label, select
from robustness_lib.report.provenance import corpus_label
from robustness_lib.report.tables import ARMS, NOT_RUN, Markdown, myst_table, number

_AUTHORS = ["the authors", "ImageNet (32 px)", "1,281,167 of 1,000 classes"]
_TUNED_WHOLE = ("adversarial", "excluded", "targeted-pretraining")
_MEASURE = "adversarial_accuracy"
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


def adversarial_pretraining_table(
    records: pd.DataFrame, tuned: pd.DataFrame, *, dataset: str, caption: str, name: str
) -> Markdown:
    """The adversarial pre-trainings beside the authors': how long, on what, how well it was learned, and its use.

    Args:
        records: Records of :mod:`robustness_lib.pretraining`.
        tuned: Records of the section.
        dataset: The target on whose adversarial accuracy the use is shown.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table; the error is on clean validation images of the classes that were trained on, the
        adversarial accuracy that of the networks tuned whole against an adversary, mean and standard deviation over
        seeds.
    """
    of_paper = select("adversarial", dataset=dataset, arm=ARMS[1], method="adversarial", metric=_MEASURE).iloc[0]
    rows = [[*_authors("adversarial", "WRN-28-10", "untargeted"), str(of_paper["printed"])]]
    tuned = tuned[
        (tuned["section"] == "adversarial") & (tuned["dataset"] == dataset) & tuned["method"].isin(_TUNED_WHOLE)
    ]
    for row in _in_order(records[records["method"] == "adversarial"]):
        recipe = row["recipe"]
        made = [recipe[name] for name in ("architecture", "train_images", "adversary", "epochs")]
        same = [_made(init) == (row["dataset"], row["seed"], *made) for init in tuned["init"]]
        after = tuned[np.array(same, dtype=bool) & (tuned["profile"] == row["profile"])]
        found = [float(value) for value in after[_MEASURE]] if len(after) else []
        use = f"{number(float(np.mean(found)), _MEASURE)}" if found else NOT_RUN
        use += f" ± {number(float(np.std(found, ddof=1)), _MEASURE)}, n = {len(found)}" if len(found) > 1 else ""
        rows.append([*_ours(row), use])
    header = [*_HEADER, f"Tuned on {label(dataset)}: adversarial accuracy (%)"]
    return myst_table(header, rows, caption=caption, name=name)


def _made(checkpoint: str) -> tuple[object, ...] | None:
    found = origin(checkpoint)
    if found is None:
        return None
    return found.holds, found.seed, found.architecture, found.images, found.adversary, found.epochs


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
