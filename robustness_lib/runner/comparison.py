"""Your records and the book's: what each says in numbers, and how far they agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from robustness_lib.metrics import Metrics
from robustness_lib.runner.records import SETTING, Record, distinctions, frame, result_of, short_hash

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = [*SETTING, "differs"]


def summary(yours: Sequence[Record], book: Sequence[Record]) -> pd.DataFrame:
    """The scalar metrics of one section: on each side one row a setting, what tells its records apart, and metric.

    Returns:
        Text: ``whose``, ``profile`` to ``level``, ``differs`` (:func:`robustness_lib.runner.records.distinctions`),
        ``metric``, ``mean`` and ``sd`` (over seeds; empty for one); and ``n``.
    """
    import pandas as pd

    sides = [
        _long(side, lambda record: record.metrics).assign(whose=whose)
        for whose, side in (("yours", yours), ("book's", book))
    ]
    groups = pd.concat(sides).groupby(["whose", *_SHOWN[1:], "metric"])["value"]
    table = (
        groups.agg(mean="mean", sd="std", n="count").reset_index().sort_values("whose", ascending=False, kind="stable")
    )
    return table.assign(
        mean=table["mean"].map("{:.4f}".format), sd=table["sd"].map(lambda sd: "" if sd != sd else f"{sd:.4f}")
    )


def compare(yours: Sequence[Record], book: Sequence[Record]) -> pd.DataFrame:
    """Your numbers beside the book's, of everything that both measured.

    Returns:
        For each setting and scalar metric (times and speeds left out) one row a seed that both have, and one whose
        ``seed`` is "mean": over these seeds, or over all that each has where there are none. ``section`` to ``level``,
        ``differs``, ``metric``, ``seed``, ``yours``, ``book``, ``difference`` (yours less the book's) and ``sd``: of
        the book's value over its seeds, which is about what another seed changes; NaN of a single one.
    """
    import pandas as pd

    own, published = (dict(list(_long(side, result_of).groupby(["job", "metric"]))) for side in (yours, book))
    rows: list[list[Any]] = []
    for name in own.keys() & published.keys():
        here, there = (side[name].set_index("seed")["value"].sort_index() for side in (own, published))
        shared = here.index.intersection(there.index)
        means = [side[shared if len(shared) else side.index].mean() for side in (here, there)]
        for seed, value, other in [*((seed, here[seed], there[seed]) for seed in shared), ("mean", *means)]:
            rows.append([*own[name].iloc[0][_SHOWN], name[1], seed, value, other, value - other, there.std()])
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

    def place(record: Record) -> str:
        return ", ".join(str(record.provenance.get(name, f"unknown {name}")) for name in ("device", "precision"))

    published = {record.job.key: place(record) for record in book}
    pairs = [(place(record), published[record.job.key]) for record in yours if record.job.key in published]
    return [f"{pairs.count(pair)} jobs: yours on {pair[0]}; the book's on {pair[1]}" for pair in dict.fromkeys(pairs)]


def _long(records: Sequence[Record], metrics: Callable[[Record], Metrics]) -> pd.DataFrame:
    """A row a record and scalar metric: the setting as text, the job without its seed, and the value."""
    import pandas as pd

    table = frame(records)
    level = ["" if level is None or level != level else f"{level:g}" for level in table["level"]]
    settings = table.assign(level=level, differs=distinctions(table))[_SHOWN].astype(str).to_dict("records")
    rows = [
        setting
        | {"job": short_hash(record.job.as_dict() | {"seed": None}), "seed": record.job.seed}
        | {"metric": name, "value": value}
        for record, setting in zip(records, settings, strict=True)
        for name, value in metrics(record).items()
        if isinstance(value, float)
    ]
    return pd.DataFrame(rows, columns=[*_SHOWN, "job", "seed", "metric", "value"])
