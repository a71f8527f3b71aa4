"""How the recorded networks were trained, what was tried before, and what a live run measured."""

from collections.abc import Iterable, Sequence

import pandas as pd

from robustness_lib.errors import UserError
from robustness_lib.models.checkpoint_ids import origin
from robustness_lib.models.corpora import STAND_IN, description
from robustness_lib.paper.numbers import Metric, label, metric, network_label
from robustness_lib.report.comparison import distinctions
from robustness_lib.report.evidence import where
from robustness_lib.report.markdown import Markdown, number, table
from robustness_lib.runner.records import EVIDENCE, PRETRAINING, SCRATCH, SETTING, Job, Record, checkpoint_id


def corpus_label(pretrainings: Iterable[Record], checkpoint: str) -> str:
    """What a checkpoint was pre-trained on, in words: its corpus, whose checksum the record of its pre-training has."""
    made = origin(checkpoint)
    if made is None:
        return checkpoint
    some = (record for record in pretrainings if record.job.section == PRETRAINING)
    sources = (record.provenance for record in some if checkpoint_id(record.job) == checkpoint)
    sums = {source.get("data", {}).get(f"{made.corpus}/train") for source in sources}
    return description(made.holds, min(filter(None, sums), default=None))


def trainings_table(
    recorded: Sequence[Record], *, name: str, caption: str = "", methods: Sequence[str] = ()
) -> Markdown:
    """One row per recipe: network, images, schedule, dropout, and what was trained so; the corpora are in the caption.

    ``recorded`` is of :func:`robustness_lib.report.evidence.records_of`; records of ``smoke`` do not count.
    """
    rows, starts = [], set()
    for job in (record.job for record in recorded if record.job.section != PRETRAINING):
        recipe = job.recipe
        if job.profile not in EVIDENCE or not recipe.get("epochs") or (methods and job.method not in methods):
            continue
        starts |= {job.init} - {SCRATCH}
        stands_in = job.method == "places365" and "_miniplaces_" in job.init
        images = f"{recipe['train_images']:,}" if recipe.get("train_images") else "all"
        if "largest" in recipe:
            images = f"{recipe['largest']:,} to {recipe['smallest']:,} a class"
        rows.append(
            {
                "profile": job.profile,
                "Training": f"{'From scratch' if job.init == SCRATCH else 'Pre-trained'}, `{job.profile}`",
                "Network": network_label(str(recipe["architecture"])),
                "Images": images,
                "Schedule": f"batch {recipe['batch_size']}, rate {float(str(recipe['learning_rate'])):g}",
                "Dropout": f"{float(str(recipe.get('dropout', 0))):g}",
                "epochs": int(str(recipe["epochs"])),
                "method": label("miniplaces" if stands_in else job.method),
                "dataset": label(job.dataset),
            }
        )
    shared = ["profile", "Training", "Network", "Images", "Schedule", "Dropout"]
    lines = []
    for values, uses in pd.DataFrame(rows, columns=[*shared, "epochs", "method", "dataset"]).groupby(shared):
        span = " to ".join(f"{epochs}" for epochs in sorted({uses["epochs"].min(), uses["epochs"].max()}))
        names, sets = sorted(set(uses["method"])), ", ".join(sorted(set(uses["dataset"])))
        first = "standard" if "standard" in names else names[0]
        what = "; ".join(names) if len(names) < 9 else f"{first} and {len(names) - 1} other methods"
        line = dict(zip(shared[1:], values[1:], strict=True))
        line["Schedule"] = f"{span} epochs, {line['Schedule']}"
        lines.append(line | {"For": sets if what == label("standard") else f"{what} ({sets})"})
    before, whole, after = "; ".join(sorted({corpus_label(recorded, start) for start in starts})).partition(STAND_IN)
    corpora = before + whole + after.replace(STAND_IN, "the same")
    words = f"How the networks were trained. Pre-training corpora: {corpora}. {caption}"
    return table(lines, caption=words.strip(), name=name)


_SETTINGS = {"batch_size": "Batch", "epochs": "Epochs", "learning_rate": "Learning rate"}
_JUDGED = {
    "error": "Error (%)",
    "rms_calibration_error": "RMS (%)",
    "negative_log_likelihood": "Negative log-likelihood (nats)",
    "adversarial_accuracy": "Adversarial accuracy (%)",
}


def candidates_table(
    records: Iterable[Record],
    *,
    method: str,
    measures: Sequence[str],
    train_images: int | None = None,
    symbol: str | None = None,
    caption: str,
    name: str,
) -> Markdown:
    """What was tried before recipes were fixed, a row per candidate, the best of each arm (at each level) in bold.

    The records are of :mod:`robustness_lib.experiments.hyperparameter_search`. The last of the ``measures`` decides.
    ``train_images``: only candidates that were trained on so many; ``symbol``: of the level, where there are levels.
    """
    some = [one for one in records if one.job.method == method]
    some = [one for one in some if train_images in (None, one.job.recipe["train_images"])]
    tried = pd.DataFrame(
        [{**one.metrics, **one.job.recipe, "arm": one.job.arm, "level": one.job.level} for one in some],
        columns=["arm", "level", *_SETTINGS, *measures],
    )
    varied = [setting for setting in _SETTINGS if tried[setting].nunique() > 1]
    rows = []
    for (arm, level), group in tried.groupby(["arm", "level"], dropna=False):
        best = (group[measures[-1]] * metric(measures[-1]).better).idxmax()
        for index, row in group.sort_values(list(_SETTINGS)).iterrows():
            cells = {"Arm": label(str(arm))} | ({symbol: f"{level:g}"} if symbol else {})
            cells |= {_SETTINGS[setting]: f"{row[setting]:g}" for setting in varied}
            cells |= {_JUDGED[measure]: number(row[measure], measure) for measure in measures}
            rows.append({title: f"**{cell}**" if index == best else cell for title, cell in cells.items()})
    return table(rows, caption=caption, name=name)


def live_table(
    jobs: Sequence[Job],
    live: Sequence[Record],
    values: pd.DataFrame,
    *,
    metrics: Sequence[str],
    caption: str,
    name: str,
) -> Markdown:
    """What was just measured, a row per data set, method, level and arm: mean and standard deviation over seeds.

    The recorded values of the same setting and scale stand below. A job without a record is "not run". What else tells
    records of one setting apart (:func:`robustness_lib.report.comparison.distinctions`) gives rows of their own.
    A row that has none of the ``metrics`` shows the first four of its own instead. ``live`` are the jobs' records,
    ``values`` the recorded results, of :func:`robustness_lib.report.evidence.tidy`.
    """
    differs, by_key = distinctions(live), {record.job.key: record.metrics for record in live}
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        level = "" if job.level is None else f" at {job.level:g}"
        what = f"{label(job.dataset)}, {label(job.method)}{level}, {label(job.arm)}"
        groups.setdefault((what, differs.get(job.key, "")), []).append(job)
    measured = dict.fromkeys(one for found in by_key.values() for one in found)
    shown, rows = [one for one in metrics if one in measured], []
    for (what, differing), group in groups.items():
        some = [by_key[job.key] for job in group if job.key in by_key]
        scalars = ({one: value for one, value in found.items() if isinstance(value, float)} for found in some)
        numbers = pd.DataFrame(list(scalars))
        others = [] if set(shown) & set(numbers) else [one for one in measured if one in numbers][:4]
        rest = "; ".join(f"{_shown(one).axis} {_spread(numbers[one], one)}" for one in others)
        row = {"What": what, "Differs in": differing, "Seeds": str(len(some))}
        for one in shown:
            cell = _spread(numbers[one], one) + _recorded(values, group[0], one) if one in numbers else ""
            row[_shown(one).axis] = cell
        rows.append({**row, "Measured": rest or ("" if len(some) else "not run")})
    filled = pd.DataFrame(rows)
    return table(filled.loc[:, (filled != "").any()], caption=caption, name=name)


def _recorded(values: pd.DataFrame, job: Job, name: str) -> str:
    """The recorded value of a job's setting, as a second line of its cell; "" without one."""
    setting = {name: getattr(job, name) for name in SETTING if name != "level"}
    level = None if job.level is None else round(job.level, 9)
    rows = where(values, main=True, metric=name, level=level, **setting)
    return f"<br>*recorded {_spread(rows['value'], name)}*" if len(rows) else ""


def _shown(name: str) -> Metric:
    """How a metric is shown; one of a method that the papers do not have, by its name and as recorded."""
    try:
        return metric(name)
    except UserError:
        return Metric(name.replace("_", " "), unit="", better=0)


def _spread(values: pd.Series, name: str) -> str:
    """Mean and, of several values, standard deviation in the metric's unit, with a true minus sign."""
    shown, numbers = _shown(name), values.dropna().astype(float)
    counts = not shown.is_fraction and (numbers % 1 == 0).all()
    digits = 0 if counts else 1 if shown.is_fraction else shown.digits
    numbers = numbers * shown.scale
    deviation = f" ± {numbers.std():.{max(digits, 1)}f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():z,.{digits}f}{deviation}".replace("-", "−")
