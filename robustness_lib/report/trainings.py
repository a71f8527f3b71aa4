"""How the recorded networks were trained, what was tried before, and what a live run measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from robustness_lib.errors import UserError
from robustness_lib.models.corpora import corpus_label
from robustness_lib.paper.numbers import Metric, label, metric, network_label
from robustness_lib.report.evidence import where
from robustness_lib.report.markdown import Markdown, number, table
from robustness_lib.runner.records import EVIDENCE, SCRATCH, SETTING, Job, Record, distinctions


def trainings_table(
    recorded: Iterable[Record],
    pretrainings: Sequence[Record],
    *,
    name: str,
    caption: str = "",
    methods: Iterable[str] | None = None,
) -> Markdown:
    """One row a recipe: network, images, schedule, dropout, and what was trained so; the corpora are in the caption.

    Of the records of one section those of ``smoke`` do not count; ``pretrainings`` say by their checksums what the
    corpora are.
    """
    kept = None if methods is None else set(methods)
    found: dict[tuple[str, ...], dict[str, dict[str, None]]] = {}
    starts: dict[str, None] = {}
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
        starts |= {} if job.init == SCRATCH else {job.init: None}
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
    corpora = sorted({corpus_label(pretrainings, start) for start in starts})
    words = f"How the networks were trained. Pre-training corpora: {'; '.join(corpora)}. {caption}"
    return table(rows, caption=words.strip(), name=name)


def _images(recipe: Mapping[str, Any]) -> str:
    if "largest" in recipe:
        return f"{recipe['largest']:,} to {recipe['smallest']:,} a class"
    return f"{recipe['train_images']:,}" if recipe.get("train_images") else "all"


_SETTINGS = {"batch_size": "Batch", "epochs": "Epochs", "learning_rate": "Learning rate"}
_JUDGED = {
    "error": "Error (%)",
    "rms_calibration_error": "RMS (%)",
    "negative_log_likelihood": "Negative log-likelihood (nats)",
    "adversarial_accuracy": "Adversarial accuracy (%)",
}


def candidates_table(
    records: pd.DataFrame,
    *,
    method: str,
    measures: Sequence[str],
    train_images: int | None = None,
    symbol: str | None = None,
    caption: str,
    name: str,
) -> Markdown:
    """What was tried before recipes were fixed, a row a candidate, the best of each arm (at each level) in bold.

    Args:
        records: Records of :mod:`robustness_lib.experiments.hyperparameter_search`, as a frame.
        method: Method of that section.
        measures: What is shown; the last decides.
        train_images: Only candidates that were trained on so many images; None: all.
        symbol: Symbol of the level, where the method has levels.
        caption: Caption of the table.
        name: Its label for references.
    """
    some = records[records["method"] == method]
    if train_images is not None:
        some = some[some["recipe"].map(lambda recipe: recipe["train_images"] == train_images).astype(bool)]
    varied = [each for each in _SETTINGS if some["recipe"].map(lambda recipe, each=each: recipe[each]).nunique() > 1]
    rows = []
    decisive = measures[-1]
    for (arm, level), group in some.groupby(["arm", "level"], sort=True, dropna=False):
        best = (group[decisive].astype(float) * metric(decisive).better).idxmax()
        order = group["recipe"].map(lambda recipe: tuple(recipe[setting] for setting in _SETTINGS)).sort_values().index
        for index in order:
            row = group.loc[index]
            cells = {"Arm": label(str(arm))} | ({symbol: f"{level:g}"} if symbol else {})
            cells |= {_SETTINGS[setting]: f"{row['recipe'][setting]:g}" for setting in varied}
            cells |= {_JUDGED[measure]: number(row[measure], measure) for measure in measures}
            rows.append({title: f"**{cell}**" if index == best else cell for title, cell in cells.items()})
    return table(rows, caption=caption, name=name)


_MOST = 4
"""How many metrics of its own a row shows that has none of those asked for."""


def live_table(
    jobs: Sequence[Job],
    live: pd.DataFrame,
    values: pd.DataFrame,
    *,
    metrics: Sequence[str],
    caption: str,
    name: str,
) -> Markdown:
    """What was just measured, a row a data set, method, level and arm: mean and standard deviation over seeds.

    The recorded values of the same setting and scale stand below. A job without a record is "not run". What else tells
    records of one setting apart (:func:`robustness_lib.runner.records.distinctions`) gives rows of their own.

    Args:
        jobs: The planned jobs, in whose order the rows are.
        live: Their records, as by :func:`robustness_lib.experiments.registry.measure_as_asked`.
        values: The recorded results, of :func:`robustness_lib.report.evidence.tidy`.
        metrics: What is shown. A row that has none of them shows the first few of its own instead.
        caption: Caption of the table.
        name: Its label for references.
    """
    by_key = live.assign(differs=distinctions(live)).set_index("key")
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        level = "" if job.level is None else f" at {job.level:g}"
        what = f"{label(job.dataset)}, {label(job.method)}{level}, {label(_arm(job))}"
        groups.setdefault((what, str(by_key["differs"].get(job.key, ""))), []).append(job)
    shown, rows = [one for one in metrics if one in live and live[one].notna().any()], []
    for (what, differs), group in groups.items():
        some = by_key.loc[[job.key for job in group if job.key in by_key.index]]
        own = {one: _numbers(some[one]) for one in live.columns if one not in _DESCRIBES and one in some}
        own = {one: numbers for one, numbers in own.items() if numbers}
        others = [] if any(one in own for one in shown) else list(own)[:_MOST]
        rest = "; ".join(f"{_shown(one).axis} {_spread(own[one], _shown(one))}" for one in others)
        cells = {"What": what, "Differs in": differs, "Seeds": str(len(some))}
        for one in shown:
            cell = _spread(own[one], _shown(one)) + _recorded(values, group[0], one) if one in own else ""
            cells[_shown(one).axis] = cell
        rows.append({**cells, "Measured": rest or ("" if len(some) else "not run")})
    filled = pd.DataFrame(rows)
    return table(filled[[title for title in filled if (filled[title] != "").any()]], caption=caption, name=name)


def _arm(job: Job) -> str:
    return SCRATCH if job.init == SCRATCH else "pre-trained"


def _recorded(values: pd.DataFrame, job: Job, name: str) -> str:
    """The recorded value of a job's setting, as a second line of its cell; "" without one."""
    setting = {"profile": job.profile, "dataset": job.dataset, "method": job.method, "arm": _arm(job)}
    level = None if job.level is None else round(job.level, 9)
    rows = where(values, main=True, section=job.section, metric=name, level=level, **setting)
    return f"<br>*recorded {_spread(rows['value'].tolist(), _shown(name))}*" if len(rows) else ""


_DESCRIBES = {*SETTING, "key", "init", "seed", "recipe", "provenance", "differs"}


def _shown(name: str) -> Metric:
    """How a metric is shown; one of a method that the papers do not have, by its name and as recorded."""
    try:
        return metric(name)
    except UserError:
        return Metric(name.replace("_", " "), unit="", better=0)


def _numbers(values: pd.Series) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float) and value == value]


def _spread(values: Sequence[float], shown: Metric) -> str:
    """Mean and, of several values, standard deviation in the metric's unit, with a true minus sign."""
    table = pd.Series(values) * shown.scale
    counts = not shown.is_fraction and all(value.is_integer() for value in values)
    digits = 0 if counts else 1 if shown.is_fraction else shown.digits
    deviation = f" ± {table.std():.{max(digits, 1)}f}" if len(table) > 1 else ""
    return f"{table.mean():z,.{digits}f}{deviation}".replace("-", "−")
