"""What a result is, and how it is stored.

A :class:`Job` describes one measurement completely; its key is a hash of that. A :class:`Record` is a job with its
metrics and where they come from. A :class:`Store` keeps one file per record; :func:`publish` merges them into one JSON
Lines file a section, which git tracks and the book reads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from robustness_lib.errors import UserError, shortened
from robustness_lib.files import locked, write_atomically
from robustness_lib.metrics import Metrics
from robustness_lib.runner.record_checks import check_job, check_record

Value: TypeAlias = str | int | float | bool | None

SCRATCH = "scratch"
"""The initialisation of a network that saw no other data before; every other initialisation is a checkpoint id."""

PRETRAINING = "pretraining"
"""The section of the jobs that make checkpoints."""

EVIDENCE = ("paper", "cpu")
"""The profiles whose records say something about the papers, the highest first."""

PUBLISHED = Path("book/results")
"""Where the published records lie, relative to the root of the repository."""

SETTING = ("section", "profile", "dataset", "arm", "method", "level")
"""The attributes of a job that say what was measured; records of one setting may differ in more than their seed."""


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def short_hash(value: object, length: int = 16) -> str:
    """The first ``length`` hexadecimal digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A frozen, complete description of one measurement.

    Attributes:
        init: ``"scratch"`` or the id of the pre-trained checkpoint that training starts from.
        level: The method's strength (corruption strength, imbalance ratio, ...), or None where there is none.
        recipe: The fully resolved settings, by name.
    """

    section: str
    profile: str
    dataset: str
    init: str
    method: str
    level: float | None
    seed: int
    recipe: Mapping[str, Value]

    def __post_init__(self) -> None:
        check_job(vars(self))
        if self.level is not None:  # 1 and 1.0 are one level, so they must give one key
            object.__setattr__(self, "level", float(self.level))

    def as_dict(self) -> dict[str, Any]:
        """The job as plain JSON values."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"recipe": dict(self.recipe)}

    @functools.cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits, equal for equal jobs on every machine."""
        return short_hash(self.as_dict())

    @property
    def arm(self) -> str:
        """``"scratch"`` or ``"pre-trained"``."""
        return SCRATCH if self.init == SCRATCH else "pre-trained"

    @property
    def label(self) -> str:
        """One short line for progress bars and messages."""
        level = "" if self.level is None else f" at {self.level:g}"
        return f"{self.section} {self.dataset} {self.arm} {self.method}{level} seed {self.seed}"


def checkpoint_id(job: Job) -> str:
    """The id of the checkpoint that ``job`` makes, for example ``wrn-16-1_imagenet32_160000x275_e10_s1_ab12cd``.

    It does not depend on the profile. Before the epochs stand the number of images, where only some of the corpus are
    used (``_n14000``), and the adversary of an adversarial pre-training (``_untargeted``).
    """
    description = {"dataset": job.dataset, "seed": job.seed, "recipe": dict(job.recipe)}
    recipe, name = job.recipe, f"{job.recipe['architecture']}_{job.dataset}"
    name += f"_n{recipe['train_images']}" if recipe["train_images"] else ""
    name += f"_{recipe['adversary']}" if "adversary" in recipe else ""
    return f"{name}_e{recipe['epochs']}_s{job.seed}_{short_hash(description, 6)}"


@dataclass(frozen=True)
class Record:
    """A job, what was measured, and where the numbers come from."""

    job: Job
    metrics: Metrics
    provenance: dict[str, Any]

    def to_json(self) -> str:
        """One line of JSON (without the line end) with the keys ``key``, ``job``, ``metrics``, ``provenance``."""
        parts = {"key": self.job.key, "job": self.job.as_dict()}
        return canonical_json({**parts, "metrics": self.metrics, "provenance": self.provenance})

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Read one line; a ValueError says why it is not a whole record."""
        try:
            data = json.loads(line)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        check_record(data)
        record = cls(Job(**data["job"]), check_metrics(data["metrics"]), data["provenance"])
        if record.job.key != data["key"]:
            raise ValueError(f"its key is {shortened(data['key'])} but its job's key is {record.job.key}")
        return record


_TIMING = re.compile(r"(.*_)?seconds(_.*)?|.*_per_second")


def result_of(record: Record) -> Metrics:
    """The metrics in which two measurements of a job should agree: not times and speeds, which is all that cost has."""
    timed = record.job.section == "cost"
    return {name: value for name, value in record.metrics.items() if not timed and not _TIMING.fullmatch(name)}


def check_metrics(metrics: Metrics) -> Metrics:
    """Return ``metrics`` with every number a plain float; one that is not finite is refused."""
    plain: Metrics = {}
    for name, value in metrics.items():
        plain[name] = list(map(float, value)) if isinstance(value, list) else float(value)
        numbers = value if isinstance(value, list) else [value]
        if bad := [number for number in numbers if not math.isfinite(number)]:
            raise UserError(
                f"the metric {name} is not finite but {bad[0]}, so nothing was measured; if a network was trained, "
                "give a lower learning rate, else look for values that are missing or all equal"
            )
    return plain


class Store:
    """One file per record under ``<folder>/records/<section>/<key>.json``; a damaged one counts as not recorded."""

    def __init__(self, folder: Path | str = "runs") -> None:
        self.folder = Path(folder)

    def path(self, job: Job) -> Path:
        """The file of one job's record."""
        return self.folder / "records" / job.section / f"{job.key}.json"

    def add(self, record: Record) -> None:
        """Write one record, whole or not at all."""
        write_atomically(self.path(record.job), (record.to_json() + "\n").encode())

    def get(self, job: Job) -> Record | None:
        """The record of ``job``, or None where there is none or it is damaged."""
        return _read_record(self.path(job))

    def lock(self, job: Job, *, wait: bool) -> contextlib.AbstractContextManager[bool]:
        """The lock of one job."""
        return locked(self.folder / "locks" / f"{job.key}.lock", wait=wait)

    def records(self, section: str | None = None) -> list[Record]:
        """All whole records (of one section), sorted by key."""
        return sorted(filter(None, map(_read_record, self._files(section))), key=lambda record: record.job.key)

    def damaged(self) -> list[Path]:
        """The files in the store that are not whole records."""
        return [path for path in self._files() if _read_record(path) is None]

    def _files(self, section: str | None = None) -> list[Path]:
        """The files of records (of one section), sorted; a folder that cannot be read is not an empty one."""

        def refuse(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise UserError(
                    f"the store {self.folder} cannot be read ({error.strerror or error}); check its permissions"
                ) from error

        folders = os.walk(self.folder / "records" / (section or ""), onerror=refuse, followlinks=True)
        return sorted(Path(folder, name) for folder, _, names in folders for name in names if name.endswith(".json"))


def _read_record(path: Path) -> Record | None:
    try:
        record = Record.from_json(path.read_text())
    except (OSError, ValueError, TypeError):
        return None
    return record if (record.job.section, record.job.key) == (path.parent.name, path.stem) else None


def load_published(section: str | None = None, folder: Path = PUBLISHED) -> list[Record]:
    """The published records of one section, or of all; a damaged file is refused."""
    records: dict[str, Record] = {}
    for path in sorted(folder.glob(f"{section or '*'}.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                record = Record.from_json(line.decode())
                if record.job.section != path.stem:
                    raise ValueError(f"it is one of the section {record.job.section}")
                if record.job.key in records:
                    raise ValueError(f"the job {record.job.key} has a line already")
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"line {number} of {path} is not a whole record ({error}); "
                    "take the file back from git, or delete that line and publish again"
                ) from error
            records[record.job.key] = record
    return list(records.values())


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"could not make the folder {folder} ({error.strerror or error}); choose one that can be written"
        ) from error


def publish(
    records: Iterable[Record], folder: Path = PUBLISHED, *, replace: bool = False
) -> tuple[dict[str, tuple[int, int]], list[tuple[Record, Record]]]:
    """Merge records into the published files, one a section, sorted by key; a damaged file stays as it is.

    Returns by section how many records the file holds now, and how many lines are new or changed; and the pairs of a
    published and a new record of one job whose results differ. ``replace`` takes the new one of these, else it stays.
    """
    records = list(records)
    counts: dict[str, tuple[int, int]] = {}
    kept: list[tuple[Record, Record]] = []
    for section in sorted({record.job.section for record in records}):
        new = [record for record in records if record.job.section == section]
        make_folder(folder)
        with locked(folder):  # not the store: several stores may be published here
            before = {record.job.key: record for record in load_published(section, folder)}
            taken = {record.job.key: record for record in new if replace or record.job.key not in before}
            kept += [(before[r.job.key], r) for r in new if r.job.key not in taken]
            after = before | taken
            changed = sum(before.get(key) != record for key, record in taken.items())
            if changed:
                lines = [after[key].to_json() for key in sorted(after)]
                write_atomically(folder / f"{section}.jsonl", ("\n".join(lines) + "\n").encode())
        counts[section] = (len(after), changed)
    return counts, [pair for pair in kept if result_of(pair[0]) != result_of(pair[1])]
