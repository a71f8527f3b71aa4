"""Your records and the book's: what each says in numbers, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robustness_lib.runner.records import SETTING, Record, result_of, short_hash

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = [*SETTING, "differs"]


def distinctions(records: Sequence[Record]) -> dict[str, str]:
    """By key, in what a record differs from others of its setting, beside the seed; a mean may pool only equal ones."""
    words: dict[str, str] = {}
    groups: dict[tuple[Any, ...], dict[str, dict[str, str]]] = {}
    for record in records:
        setting = tuple(getattr(record.job, name) for name in SETTING)
        groups.setdefault(setting, {})[record.job.key] = _facts(record)
    for group in groups.values():
        values = {name: {facts.get(name) for facts in group.values()} for facts in group.values() for name in facts}
        # that some of the records did not use an image set tells none apart
        differing = [name for name, some in values.items() if len(some - ({None} if ":" in name else set())) > 1]
        for key, facts in group.items():
            words[key] = " ".join(f"{name}={facts[name]}" for name in differing if name in facts)
    return words


def _facts(record: Record) -> dict[str, str]:
    """What may tell a record from others of its setting; names of image sets begin with ``sha256:``."""
    source = record.provenance
    facts = {"init": record.job.init} | {name: str(value) for name, value in record.job.recipe.items()}
    if "precision" in source:
        facts["precision"] = f"{source['precision']}{'-tf32' if source.get('tf32') else ''}"
    return facts | {f"sha256:{name}": checksum[:8] for name, checksum in source.get("data", {}).items()}


def summary(yours: Sequence[Record], book: Sequence[Record]) -> pd.DataFrame:
    """The scalar metrics of one section, as text: on each side a row per setting, distinction and metric."""
    import pandas as pd

    sides = pd.concat([_long(yours, timed=True).assign(whose="yours"), _long(book, timed=True).assign(whose="book's")])
    values = sides.groupby(["whose", *_SHOWN[1:], "metric"])["value"].agg(["mean", "std", "count"]).reset_index()
    table = values.sort_values("whose", ascending=False, kind="stable").rename(columns={"std": "sd", "count": "n"})
    return table.assign(**{name: table[name].map("{:.4f}".format).replace("nan", "") for name in ("mean", "sd")})


def compare(yours: Sequence[Record], book: Sequence[Record]) -> pd.DataFrame:
    """Your numbers beside the book's, of everything that both measured.

    For each setting and scalar metric (times and speeds left out) there is a row per seed that both have, and one whose
    ``seed`` is "mean": over these seeds, or over all that each has where there are none. ``difference`` is yours less
    the book's, ``sd`` that of the book's value over its seeds; NaN of a single one.
    """
    import pandas as pd

    own, published = (dict(list(_long(side).groupby(["job", "metric"]))) for side in (yours, book))
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
    far = (jobs["difference"].abs() / jobs["sd"]).where(jobs["difference"] != 0, -1)
    kinds = {
        "equal": far == -1,
        "differ by at most one sd": (far >= 0) & (far <= 1),
        "by at most two": (far > 1) & (far <= 2),
        "by more": far > 2,
        "differ where the book has one seed": far.isna(),
    }
    counts = [f"{rows.sum()} {words}" for words, rows in kinds.items() if rows.any()]
    return f"of {len(jobs)} numbers " + ", ".join(counts)


def _long(records: Sequence[Record], timed: bool = False) -> pd.DataFrame:
    """A row per record and scalar metric: the setting as text, the job without its seed, and the value."""
    import pandas as pd

    differs, rows = distinctions(records), []
    for record in records:
        job = record.job
        level = "" if job.level is None else f"{job.level:g}"
        setting = (job.section, job.profile, job.dataset, job.arm, job.method, level, differs[job.key])
        which = short_hash(job.as_dict() | {"seed": None}), job.seed
        metrics = record.metrics if timed else result_of(record)
        rows += [[*setting, *which, name, value] for name, value in metrics.items() if isinstance(value, float)]
    return pd.DataFrame(rows, columns=[*_SHOWN, "job", "seed", "metric", "value"])
