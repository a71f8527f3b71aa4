"""How the recorded networks were trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from robustness_lib.paper.numbers import label, network_label
from robustness_lib.records import EVIDENCE, SCRATCH, Record
from robustness_lib.report.markdown import Markdown, table


def trainings_table(
    recorded: Iterable[Record], *, name: str, caption: str = "", methods: Iterable[str] | None = None
) -> Markdown:
    """One row a recipe: network, images, schedule, dropout, and what was trained so.

    Args:
        recorded: Records of one section; those of ``smoke`` do not count.
        name: Label for references.
        caption: What to say besides.
        methods: Only these; None: all that train.
    """
    kept = None if methods is None else set(methods)
    found: dict[tuple[str, ...], dict[str, dict[str, None]]] = {}
    for record in recorded:
        job, recipe = record.job, record.job.recipe
        if job.profile not in EVIDENCE or not recipe.get("epochs") or (kept is not None and job.method not in kept):
            continue
        key: tuple[str, ...] = (
            f"{'From scratch' if job.init == SCRATCH else 'Pre-trained'}, `{job.profile}`",
            network_label(str(recipe["architecture"])),
            _images(recipe),
            f"batch {recipe['batch_size']}, rate {float(str(recipe['learning_rate'])):g}",
            f"{float(str(recipe.get('dropout', 0))):g}",
        )
        uses = found.setdefault(key, {"epochs": {}, "methods": {}, "sets": {}})
        for kind, value in (("epochs", str(recipe["epochs"])), ("methods", job.method), ("sets", job.dataset)):
            uses[kind][value] = None
    rows = []
    for key, uses in sorted(found.items(), key=lambda item: (item[0][0].partition(", ")[2], item[0])):
        epochs = sorted(map(int, uses["epochs"]))
        span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
        what = "; ".join(sorted(label(method) for method in uses["methods"]))
        sets = ", ".join(sorted(label(dataset) for dataset in uses["sets"]))
        row = dict(zip(("Training", "Network", "Images", "Schedule", "Dropout"), key, strict=True))
        row["Schedule"] = f"{span} epochs, {key[3]}"
        rows.append(row | {"For": sets if set(uses["methods"]) == {"standard"} else f"{what} ({sets})"})
    return table(rows, caption=f"How the networks were trained. {caption}".strip(), name=name)


def _images(recipe: Mapping[str, Any]) -> str:
    if "largest" in recipe:
        return f"{recipe['largest']:,} to {recipe['smallest']:,} a class"
    return f"{recipe['train_images']:,}" if recipe.get("train_images") else "all"
