"""Your records and the book's: what each says in numbers, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from robustness_lib.runner.records import SETTING, Record, distinctions, frame, result_of, short_hash

if TYPE_CHECKING:
    import pandas as pd


YOURS, BOOK = "yours", "book's"
"""Whose a record is: in the working store, or published."""

_SHOWN = (*SETTING, "differs")
_Where = tuple[str, ...]


def summary(yours: Sequence[Record], book: Sequence[Record]) -> pd.DataFrame:
    """The scalar metrics of one section: on each side one row a setting, what tells its records apart, and metric.

    Returns:
        ``whose``, ``profile``, ``dataset``, ``arm``, ``method``, ``level``, ``differs``
        (:func:`robustness_lib.runner.records.distinctions`), ``metric``, ``mean``, ``sd`` (over seeds; empty for one)
        and ``n``.
    """
    import pandas as pd

    rows = []
    for whose, side in ((YOURS, yours), (BOOK, book)):
        groups: dict[_Where, list[float]] = {}
        for record, where in zip(side, _settings(side), strict=True):
            for name, value in sorted(record.metrics.items()):
                if isinstance(value, float):
                    groups.setdefault((whose, *where[1:], name), []).append(value)
        for where, values in sorted(groups.items()):
            rows.append(
                [*where, f"{fmean(values):.4f}", f"{stdev(values):.4f}" if len(values) > 1 else "", len(values)]
            )
    return pd.DataFrame(rows, columns=["whose", *_SHOWN[1:], "metric", "mean", "sd", "n"])


def compare(yours: Sequence[Record], book: Sequence[Record]) -> pd.DataFrame:
    """Your numbers beside the book's, of everything that both measured.

    Returns:
        For each setting and scalar metric (times and speeds left out) one row a seed that both have, and one whose
        ``seed`` is "mean": over these seeds, or over all that each has where there are none. ``section`` to ``level``,
        ``differs``, ``metric``, ``seed``, ``yours``, ``book``, ``difference`` (yours less the book's) and ``sd``: of
        the book's value over its seeds, which is about what another seed changes; NaN of a single one.
    """
    import pandas as pd

    published = _by_seed(book)
    settings = {_job_without_seed(record): where for record, where in zip(yours, _settings(yours), strict=True)}
    rows: list[list[Any]] = []
    for (setting, metric), your_values in _by_seed(yours).items():
        if (values := published.get((setting, metric))) is None:
            continue
        shared = sorted(your_values.keys() & values.keys())
        pairs: list[tuple[Any, float, float]] = [(seed, your_values[seed], values[seed]) for seed in shared]
        your_mean, mean = (fmean(side[seed] for seed in shared or side) for side in (your_values, values))
        sd = stdev(values.values()) if len(values) > 1 else math.nan
        for seed, your_value, value in [*pairs, ("mean", your_mean, mean)]:
            rows.append([*settings[setting], metric, seed, your_value, value, your_value - value, sd])
    rows.sort(key=lambda row: row[: len(_SHOWN) + 1])  # stable: seeds stay in their order, the mean last
    return pd.DataFrame(rows, columns=[*_SHOWN, "metric", "seed", "yours", "book", "difference", "sd"])


def agreement(table: pd.DataFrame) -> str:
    """How far the single jobs of :func:`compare` agree, in one line."""
    jobs = table[table["seed"] != "mean"]
    far = jobs["difference"].abs() / jobs["sd"]
    equal = jobs["difference"] == 0
    counts = {
        "equal": equal.sum(),
        "differ by at most one sd": (~equal & (far <= 1)).sum(),
        "by at most two": (~equal & (far > 1) & (far <= 2)).sum(),
        "by more": (~equal & (far > 2)).sum(),
        "differ where the book has one seed": (~equal & far.isna()).sum(),
    }
    return f"of {len(jobs)} numbers " + ", ".join(f"{count} {words}" for words, count in counts.items() if count)


def places(yours: Sequence[Record], book: Sequence[Record]) -> list[str]:
    """Device and precision of both, a line for each pair of them among the jobs that both have."""
    theirs = {record.job.key: _place(record) for record in book}
    pairs = [(_place(record), theirs[record.job.key]) for record in yours if record.job.key in theirs]
    return [f"{pairs.count(pair)} jobs: yours on {pair[0]}; the book's on {pair[1]}" for pair in dict.fromkeys(pairs)]


def _place(record: Record) -> str:
    return ", ".join(str(record.provenance.get(name, f"unknown {name}")) for name in ("device", "precision"))


def _settings(records: Sequence[Record]) -> list[_Where]:
    """Of each record :data:`SETTING` as text, and what tells it from the others of its setting."""
    table = frame(records)
    level = ["" if level is None or level != level else f"{level:g}" for level in table["level"]]
    table = table.assign(level=level, differs=distinctions(table))
    return [tuple(map(str, row)) for row in table[list(_SHOWN)].itertuples(index=False)]


def _job_without_seed(record: Record) -> str:
    return short_hash(record.job.as_dict() | {"seed": None})


def _by_seed(records: Sequence[Record]) -> dict[tuple[str, str], dict[int, float]]:
    """Values by seed, for each job without its seed and each scalar metric."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for record in records:
        for name, value in result_of(record).items():
            if isinstance(value, float):
                values.setdefault((_job_without_seed(record), name), {})[record.job.seed] = value
    return values
