"""What a result is, where it came from, how it is stored, and how it becomes a table.

A :class:`Job` describes one measurement completely; its key is a hash of that description, so equal jobs have
equal keys on any machine. A :class:`Record` is a job with the metrics that were measured and where they come
from. A :class:`Store` keeps one file a record while work goes on; :func:`publish` merges them into one JSON Lines
file a section, which git tracks and the book reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from robustness_lib.errors import UserError
from robustness_lib.files import locked, write_atomically

Value: TypeAlias = str | int | float | bool | None
"""One setting of a recipe."""

Metrics: TypeAlias = dict[str, float | list[float]]
"""Measured values by name: fractions (never percent), nats, or as the name says; lists for curves."""

SCRATCH = "scratch"
"""The initialisation of a network that saw no other data before; every other initialisation is a checkpoint id."""

PUBLISHED = Path("book/results")
"""Where the published records lie, relative to the root of the repository."""

_RECORD_KEYS = {"key", "job", "metrics", "provenance"}


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
        section: The section of the papers, for example ``"calibration"``.
        profile: The scale: ``"smoke"``, ``"cpu"`` or ``"paper"``.
        dataset: Name of the target image set.
        init: ``"scratch"`` or the id of the pre-trained checkpoint that training starts from.
        method: What is done, in the section's own terms.
        level: Its strength (corruption strength, imbalance ratio, ...), or None where there is none.
        seed: From which every random stream of the job is derived.
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
        if self.level is not None:  # 1 and 1.0 are one level, so they must give one key
            object.__setattr__(self, "level", float(self.level))

    def as_dict(self) -> dict[str, Any]:
        """The job as plain JSON values, with exactly the eight attributes as keys."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "recipe": dict(self.recipe),
        }

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits, equal for equal jobs on every machine."""
        return short_hash(self.as_dict())

    @property
    def label(self) -> str:
        """One short line for progress bars and messages."""
        arm = SCRATCH if self.init == SCRATCH else "pre-trained"
        level = "" if self.level is None else f" at {self.level:g}"
        return f"{self.section} {self.dataset} {arm} {self.method}{level} seed {self.seed}"


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
        """Read one line.

        Raises:
            ValueError: The line is not a whole record, or its key does not belong to its job.
        """
        data = json.loads(line)
        if not isinstance(data, dict) or set(data) != _RECORD_KEYS:
            raise ValueError(f"a record has the keys {sorted(_RECORD_KEYS)}")
        if not isinstance(data["job"], dict) or set(data["job"]) != set(Job.__dataclass_fields__):
            raise ValueError(f"a job has the keys {sorted(Job.__dataclass_fields__)}")
        if not isinstance(data["metrics"], dict) or not isinstance(data["provenance"], dict):
            raise ValueError("metrics and provenance are JSON objects")
        record = cls(Job(**data["job"]), data["metrics"], data["provenance"])
        if record.job.key != data["key"]:
            raise ValueError(f"its key is {data['key']} but its job's key is {record.job.key}")
        return record


def check_metrics(metrics: Metrics) -> Metrics:
    """Return ``metrics`` with every number a plain float.

    Raises:
        UserError: A value is NaN or infinite: such a run has not measured anything.
    """
    plain: Metrics = {}
    for name, value in metrics.items():
        numbers = [float(v) for v in value] if isinstance(value, list) else float(value)
        if not all(math.isfinite(v) for v in (numbers if isinstance(numbers, list) else [numbers])):
            raise UserError(
                f"the metric {name} is not finite ({value}), so nothing was measured; did the training diverge? "
                "Try a lower learning rate"
            )
        plain[name] = numbers
    return plain


# --------------------------------------------------------------------------------------------- stores


class Store:
    """The working store: one file a record under ``<folder>/records/<section>/<key>.json``.

    A file that is damaged (cut short by a full disk, edited by hand) counts as not recorded: its job runs again.
    """

    def __init__(self, folder: Path | str = "runs") -> None:
        self.folder = Path(folder)

    def path(self, job: Job) -> Path:
        """The file of one job's record."""
        return self.folder / "records" / job.section / f"{job.key}.json"

    def add(self, record: Record) -> None:
        """Write one record, whole or not at all.

        Raises:
            UserError: It cannot be written.
        """
        write_atomically(self.path(record.job), (record.to_json() + "\n").encode())

    def get(self, job: Job) -> Record | None:
        """The record of ``job``, or None where there is none or it is damaged."""
        return _read_record(self.path(job))

    def lock(self, job: Job, *, wait: bool) -> contextlib.AbstractContextManager[bool]:
        """The lock of one job (see :func:`locked`)."""
        return locked(self.folder / "locks" / f"{job.key}.lock", wait=wait)

    def records(self, section: str | None = None) -> list[Record]:
        """All whole records (of one section), sorted by key."""
        files = (self.folder / "records").glob(f"{section or '*'}/*.json")
        found = [record for path in files if (record := _read_record(path)) is not None]
        return sorted(found, key=lambda record: record.job.key)

    def damaged(self) -> list[Path]:
        """The files in the store that are not whole records."""
        files = sorted((self.folder / "records").glob("*/*.json"))
        return [path for path in files if _read_record(path) is None]


def _read_record(path: Path) -> Record | None:
    try:
        record = Record.from_json(path.read_text())
    except (OSError, ValueError, TypeError):
        return None
    return record if record.job.key == path.stem else None


def load_published(section: str | None = None, folder: Path = PUBLISHED) -> list[Record]:
    """The published records of one section, or of all.

    Args:
        section: The section's name; None for all.
        folder: Where the ``<section>.jsonl`` files lie.

    Returns:
        The records in file order (sorted by key); an empty list where nothing is published.

    Raises:
        UserError: A line is not a whole record; the message names file and line.
    """
    found: list[Record] = []
    for path in sorted(folder.glob(f"{section or '*'}.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                found.append(Record.from_json(line.decode()))
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"line {number} of {path} is not a whole record ({error}); "
                    "take the file back from git, or delete that line and publish again"
                ) from error
    return found


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"could not make the folder {folder} ({error.strerror or error}); choose one that can be written"
        ) from error


def publish(
    store: Store, folder: Path = PUBLISHED, *, profiles: Iterable[str] = ("cpu", "paper")
) -> dict[str, tuple[int, int]]:
    """Merge the store's records into the published files, one a section, sorted by key.

    A record in the store replaces a published one with the same key. Records of other profiles (``smoke`` proves
    nothing about the papers) stay in the store.

    Args:
        store: The working store.
        folder: Where the published files lie.
        profiles: The profiles whose records are published.

    Returns:
        By section: how many records the file holds now, and how many lines are new or changed.

    Raises:
        UserError: A published file is damaged or cannot be written; it is left as it was.
    """
    chosen = [record for record in store.records() if record.job.profile in set(profiles)]
    result: dict[str, tuple[int, int]] = {}
    if chosen:
        _make_folder(folder)
    for section in sorted({record.job.section for record in chosen}):
        path = folder / f"{section}.jsonl"
        with locked(folder):  # not the store: several stores may publish here
            before = {record.job.key: record.to_json() for record in load_published(section, folder)}
            after = before | {r.job.key: r.to_json() for r in chosen if r.job.section == section}
            changed = sum(before.get(key) != line for key, line in after.items())
            if changed:
                write_atomically(path, ("\n".join(after[key] for key in sorted(after)) + "\n").encode())
        result[section] = (len(after), changed)
    return result


# --------------------------------------------------------------------------------------------- provenance


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a number can depend on."""
    found = {"python": platform.python_version()}
    for name in ("robustness-lib", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "imbalanced-learn"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def code_revision() -> str:
    """The git commit of the code that runs, with ``-dirty`` after it where library files differ from it.

    Returns:
        Twelve hexadecimal digits, or ``"unknown"`` outside a git checkout.
    """
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit}-dirty" if git("status", "--porcelain", "--untracked-files=no", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def provenance(*, seconds: float, data: Mapping[str, str], runtime: Mapping[str, Value]) -> dict[str, Any]:
    """Where a number comes from.

    Args:
        seconds: Wall time of the job.
        data: SHA-256 of the content of each image set used, by ``name/split``.
        runtime: Device, threads and precision.

    Returns:
        ``seconds``, ``data``, the runtime's entries, ``versions``, ``revision`` and ``date`` (UTC, ISO 8601).
    """
    return {
        "seconds": round(seconds, 1),
        "data": dict(data),
        **runtime,
        "versions": library_versions(),
        "revision": code_revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# --------------------------------------------------------------------------------------------- frames


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a table.

    Args:
        records: From :func:`load_published` or :meth:`Store.records`.

    Returns:
        One row a record: ``key``, the job's attributes, ``arm`` (``"scratch"`` or ``"pre-trained"``), one column a
        metric (NaN or None where a record lacks it), and ``provenance``. The job's and record's columns exist even
        without a record.
    """
    rows = [
        {
            "key": record.job.key,
            **record.job.as_dict(),
            "arm": SCRATCH if record.job.init == SCRATCH else "pre-trained",
            **record.metrics,
            "provenance": record.provenance,
        }
        for record in records
    ]
    table = pd.DataFrame(rows)
    for column in ("key", *Job.__dataclass_fields__, "arm", "provenance"):
        if column not in table:
            table[column] = pd.Series(dtype=object)
    return table
