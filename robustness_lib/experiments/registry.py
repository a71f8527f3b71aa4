"""The sections that can be measured, and what each offers.

A section is one module with ``SECTION``, ``METHODS``, ``jobs`` and ``run``; adding one is one entry here.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, cast

from robustness_lib.errors import UserError, choose
from robustness_lib.experiments.presets import PROFILES
from robustness_lib.files import as_path
from robustness_lib.metrics import Metrics
from robustness_lib.models.checkpoint_ids import OWN
from robustness_lib.runner.records import SCRATCH, Job, Record, Store, checkpoint_id, load_published

if TYPE_CHECKING:
    from robustness_lib.experiments.grid import Filters
    from robustness_lib.runner.model_cache import Context
    from robustness_lib.runner.sweep import Outcome


T = TypeVar("T")


class Section(Protocol):
    """What a section's module offers."""

    SECTION: str
    METHODS: Mapping[str, Any]

    def jobs(self, profile_name: str, **filters: Unpack[Filters]) -> list[Job]:
        """The measurements of the section at one scale."""

    def run(self, job: Job, context: Context) -> Metrics:
        """Measure one of them."""


SECTIONS = {
    "adversarial": "robustness_lib.experiments.adversarial",
    "label_noise": "robustness_lib.experiments.label_noise",
    "imbalance": "robustness_lib.experiments.imbalance",
    "ood": "robustness_lib.experiments.ood",
    "calibration": "robustness_lib.experiments.calibration",
    "effective_robustness": "robustness_lib.experiments.effective_robustness",
    "recipe_choice": "robustness_lib.experiments.hyperparameter_search",
}
"""Where each is, in the papers' order; imported when it is asked for."""


def section(name: str) -> Section:
    """The section called ``name``."""
    return cast(Section, importlib.import_module(SECTIONS[choose(name, SECTIONS, "section")]))


def measure_section(
    name: str,
    profile_name: str,
    context: Context,
    *,
    workers: int | None = None,
    time_budget: float | None = None,
    executor: Executor | None = None,
    out: Path | None = None,
    **filters: Unpack[Filters],
) -> tuple[list[Job], Outcome]:
    """Plan a section and measure what is not recorded, pre-training first where a checkpoint is missing.

    Args:
        workers: Processes; None for one a GPU or CPU thread, and for this one at ``smoke``, whose jobs are short.
        out: A folder that mirrors what the store has of the jobs (:func:`robustness_lib.runner.sync.mirrored`).
    """
    from robustness_lib.experiments import pretraining
    from robustness_lib.runner import sync
    from robustness_lib.runner.model_cache import check_size
    from robustness_lib.runner.sweep import default_workers, sweep

    if executor is not None and workers is not None:
        raise UserError("workers are this machine's processes and a cluster has its own; leave one of the two out")
    chosen = section(name)
    planned = chosen.jobs(profile_name, **filters)
    store = Store(context.store)
    with sync.mirrored(planned, context.store, out) as keep:
        todo = [job for job in planned if store.get(job) is None]
        if todo and executor is None:
            _warn_of_precision({job.profile for job in todo}, load_published(name), context)
        needed = pretraining.missing(todo, filters.get("overrides"), context.store)  # refuses what cannot be made
        for dataset in {job.dataset for job in planned if _needs_images(job)}:
            context.images(dataset, "test")
        for job in filter(_needs_images, todo):
            check_size(context.images(job.dataset, "train"), int(job.recipe.get("train_images") or 0))
            getattr(chosen, "check_images", lambda job, context: None)(job, context)
        started = time.monotonic()
        how: dict[str, Any] = {"executor": executor, "on_record": keep}
        for job in needed:
            pretraining.forget(job, context.store)
        unrecorded = pretraining.unrecorded(planned, context.store)  # their records are made again where they can be
        made = sweep(needed + unrecorded, pretraining.run, context, time_budget=time_budget, **how)
        late = {checkpoint_id(job) for job in made.left if job in needed}
        left, made.left = [job for job in todo if job.init in late], []
        made.failed = [(job, error) for job, error in made.failed if job in needed]
        made.check()
        outcome = sweep(
            [job for job in planned if job not in left],
            chosen.run,
            context,
            workers=workers or (1 if profile_name == "smoke" else default_workers(context.runtime)),
            time_budget=None if time_budget is None else time_budget - (time.monotonic() - started),
            **how,
        )
    outcome.left += left
    return planned, outcome


def _warn_of_precision(profiles: Container[str], published: Sequence[Record], context: Context) -> None:
    """Say, once and before anything is trained, where this machine's arithmetic differs from the book's."""
    sources = [record.provenance for record in published if record.job.profile in profiles]
    precisions = {str(source["precision"]) for source in sources if "precision" in source}
    if precisions and context.runtime.precision not in precisions:
        here, there = context.runtime.precision, ", ".join(sorted(precisions))
        print(
            f"this machine computes in {here}, the book's did in {there}: the third digit may differ", file=sys.stderr
        )


def _needs_images(job: Job) -> bool:
    """Whether a job trains a network: one on published predictions has a recipe without."""
    return "architecture" in job.recipe


def _asked(parameters: Mapping[str, Any]) -> Filters:
    """What a notebook's parameters select, each written as on the command line."""
    return {
        "datasets": parse_names(parameters["dataset"]),
        "methods": parse_names(parameters["method"]),
        "seeds": parse_seeds(parameters["seeds"]),
        "chosen_levels": parse_levels(parameters.get("levels", "all")),
        "overrides": parse_overrides(parameters["overrides"].replace(",", " ").split()),
    }


def plan_as_asked(name: str, parameters: Mapping[str, Any]) -> list[Job]:
    """The jobs that a notebook's parameters, by name, ask for, without reading any image."""
    from robustness_lib import data

    chosen = _asked(parameters)
    for dataset in chosen["datasets"] or ():
        data.list_sets(parameters["data_root"] or None, [dataset])
    return section(name).jobs(parameters["profile"], **chosen)


def measure_as_asked(name: str, parameters: Mapping[str, Any]) -> tuple[list[Job], list[Record]]:
    """The same jobs, measured, and their records."""
    from robustness_lib.runner.model_cache import Context

    store, data_root = as_path(parameters["store"]), parameters["data_root"]
    context = Context(data=as_path(data_root) if data_root else None, store=store)
    jobs, outcome = measure_section(name, parameters["profile"], context, **_asked(parameters))
    outcome.check()
    return jobs, list(filter(None, map(Store(store).get, jobs)))


def status(store: Store, published: Sequence[Record]) -> list[dict[str, Any]]:
    """By section, profile and data set, how many of the planned measurements are yours, and how many the book's."""
    planned = {job.key: job for name in SECTIONS for scale in PROFILES for job in section(name).jobs(scale)}
    yours, book = ({record.job.key: record.job for record in side} for side in (store.records(), published))
    columns = ["planned", "yours", "book", "other yours", "other book"]
    rows: dict[tuple[str, str, str], dict[str, int]] = {}
    for key, job in (planned | yours | book).items():
        if job.section in SECTIONS and job.profile in PROFILES:
            row = rows.setdefault((job.section, job.profile, job.dataset), dict.fromkeys(columns, 0))
            other = "" if key in planned else "other "
            row["planned"] += key in planned
            row[f"{other}yours"] += key in yours
            row[f"{other}book"] += key in book
    order = sorted(rows, key=lambda row: (list(SECTIONS).index(row[0]), list(PROFILES).index(row[1])))
    return [dict(zip(("section", "profile", "dataset"), row, strict=True)) | rows[row] for row in order]


def is_planned(job: Job) -> bool:
    """Whether a section measures just this when no setting is changed but a checkpoint that its method demands."""
    if job.section not in SECTIONS:
        return True
    demanded = getattr(section(job.section).METHODS.get(job.method), "corpus", "")
    setting = job.section, job.profile, job.dataset, job.method, job.seed
    return any(job.key in _planned_keys(*setting, init) for init in ([job.init] if demanded else [None, OWN]))


@functools.cache
def _planned_keys(name: str, scale: str, dataset: str, method: str, seed: int, init: str | None) -> frozenset[str]:
    try:
        jobs = section(name).jobs(scale, datasets=[dataset], methods=[method], seeds=[seed], init=init)
    except UserError:  # an unknown method, of an older version or someone else's
        return frozenset()
    return frozenset(job.key for job in jobs)


def changed_settings(job: Job) -> dict[str, Any]:
    """The settings in which a job differs from the one that its section plans in its place, if there is one."""
    if is_planned(job):
        return {}
    chosen: Filters = {"datasets": [job.dataset], "methods": [job.method], "seeds": [job.seed]}
    chosen["init"] = None if job.init == SCRATCH else job.init
    chosen["chosen_levels"] = None if job.level is None else [job.level]
    try:
        [planned] = [other for other in section(job.section).jobs(job.profile, **chosen) if other.init == job.init]
    except (UserError, ValueError):  # none, or several
        return {}
    theirs = planned.recipe
    return {name: value for name, value in job.recipe.items() if name not in theirs or theirs[name] != value}


def _parse_values(
    text: str, option: str, default: str, read: Callable[[str], Iterable[T]], example: str
) -> list[T] | None:
    if text.strip() in ("", default):
        return None
    try:
        values = [value for part in text.split(",") for value in read(part)]
    except ValueError:
        raise UserError(f"{option}={text!r} cannot be read; write {example}") from None
    return _each_once(values, f"{option}={text!r}")


def _each_once(values: list[T], given: str) -> list[T]:
    """The values of an option, none of them twice: a mean would count its measurements twice."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise UserError(f"{given} has {value} twice; give each value once")
    return values


def parse_seeds(text: str) -> list[int] | None:
    """Seeds as a user writes them: ``"0,1,2"``, ``"0-4"``, or ``"default"`` for the profile's (None)."""

    def read(part: str) -> range:
        first, dash, last = part.strip().partition("-")
        seeds = range(int(first), int(last if dash else first) + 1)
        if not seeds:
            raise ValueError(part)
        return seeds

    return _parse_values(text, "seeds", "default", read, "whole numbers such as 0,1,2 or 0-4")


def parse_levels(text: str) -> list[float] | None:
    """Levels as a user writes them, such as ``"0,0.5,1"``, or ``"all"`` for the section's (None)."""

    def read(part: str) -> list[float]:
        if not math.isfinite(level := float(part)):
            raise ValueError(part)
        return [level]

    return _parse_values(text, "levels", "all", read, "numbers such as 0,0.5,1 or all")


def parse_names(text: str) -> list[str] | None:
    """Names separated by commas; None for an empty text or ``"all"``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return None if names in ([], ["all"]) else _each_once(names, repr(text))


def parse_overrides(pairs: Sequence[str]) -> dict[str, str]:
    """``name=value`` pairs as a dict."""
    overrides = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UserError(f"{pair!r} is not of the form NAME=VALUE; write for example epochs=5 or tuned.epochs=5")
        overrides[name.strip()] = value.strip()
    return overrides
