"""Carrying results between machines, in a folder of few files.

While a command works, :func:`kept` puts into the folder what its jobs have in the store: their records in
``<section>.jsonl``, the pre-trained checkpoints that they start from in ``checkpoints/<id>.safetensors``, and the
records of these in ``pretraining.jsonl``. Every file is whole at any moment, so nothing is lost with the machine but
what was running. :func:`merge` takes such a folder into a store elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from robustness_lib import networks, pretraining, records
from robustness_lib.errors import UserError
from robustness_lib.files import remove_leftovers
from robustness_lib.records import SCRATCH, Job, Merged, Record, Store


@contextlib.contextmanager
def kept(jobs: Iterable[Job], store: Path, folder: Path | None) -> Iterator[Callable[[Record], None]]:
    """Keep in a folder what jobs have in the store, at the beginning, after every record, and at the end.

    What the folder holds from before is first merged into the store, and so counts as recorded. It is added to.

    Args:
        jobs: The jobs of a command, recorded or not.
        store: The working store.
        folder: The folder, made if missing; None to keep nothing.

    Yields:
        What to call with every record that is made, of a job or of a pre-training on the way.

    Raises:
        UserError: The folder lies inside the store, cannot be written, or holds something damaged.
    """
    remove_leftovers(store)
    if folder is None:
        yield lambda record: None
        return
    jobs = list(jobs)
    _prepare(folder, store)
    _keep(jobs, store, folder)
    try:
        yield lambda record: _keep([record.job], store, folder)
    finally:
        _keep(jobs, store, folder)


def _prepare(folder: Path, store: Path) -> None:
    if folder.resolve().is_relative_to(store.resolve()):
        raise UserError(f"{folder} lies inside the store {store}; choose a folder outside it to keep results in")
    records.make_folder(folder)
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f"no results can be kept in {folder} ({error.strerror or error}); choose a folder that can be written"
        ) from error
    remove_leftovers(folder)
    found = _merge(folder, store)
    if damaged := [line for merged in found for line in merged.damaged]:
        raise UserError(damaged[0])
    if any(merged.found > merged.same for merged in found):
        print("\n".join(report(folder, store, *found)), file=sys.stderr)


def _keep(jobs: list[Job], store: Path, folder: Path) -> None:
    """The checkpoints first: a record of a pre-training counts only with its checkpoint."""
    there = Store(store)
    checkpoints = {job.init for job in jobs} - {SCRATCH}
    checkpoints |= {pretraining.checkpoint_id(job) for job in jobs if job.section == pretraining.SECTION}
    for checkpoint in sorted(checkpoints):
        networks.keep_checkpoint(checkpoint, store, folder)
    made = [r for r in there.records(pretraining.SECTION) if pretraining.checkpoint_id(r.job) in checkpoints]
    records.keep([*made, *(record for job in jobs if (record := there.get(job)) is not None)], folder)


def merge(source: Path, store: Path) -> tuple[Merged, Merged]:
    """Take the records and checkpoints of a folder into a store.

    Args:
        source: A folder that :func:`kept` filled, or another store.
        store: The store, made if missing.

    Returns:
        What :func:`robustness_lib.records.merge` did, and :func:`robustness_lib.networks.merge_checkpoints`.

    Raises:
        UserError: There is no such folder, it holds nothing to merge, or the store cannot be written.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}; give a folder that --out filled, or another store")
    found = _merge(source, store)
    if not any(merged.found for merged in found):
        raise UserError(
            f"{source} holds nothing to merge, neither records (<section>.jsonl, or records/<section>/<key>.json as in "
            "a store) nor checkpoints (checkpoints/<id>.safetensors); give a folder that --out filled, or another store"
        )
    return found


def _merge(source: Path, store: Path) -> tuple[Merged, Merged]:
    return records.merge(source, Store(store)), networks.merge_checkpoints(source, store)


def report(source: Path, store: Path, in_records: Merged, in_checkpoints: Merged) -> list[str]:
    """What a merge did, in lines for a person; what is damaged is not repeated.

    Args:
        source: What was merged.
        store: Into what.
        in_records: What was done with records.
        in_checkpoints: What was done with checkpoints.
    """
    lines = []
    for what, merged in (("records", in_records), ("checkpoints", in_checkpoints)):
        if merged.found:
            line = f"{source}: {merged.added} {what} added to {store}, {merged.same} were there already"
            more = f", {merged.again} were measured twice with equal metrics (the earlier of each is kept)"
            lines.append(line + (more if merged.again else ""))
    if differing := in_records.differing:
        most = "no scalar metric differs"
        if in_records.largest is not None:
            most = "the largest relative difference is {:.2g}, in {}".format(*in_records.largest)
        lines.append(f"{source}: {len(differing)} records were there with other metrics; {most}; the earlier are kept")
    if differing := in_checkpoints.differing:
        lines.append(
            f"{source}: {len(differing)} checkpoints were there with other weights ({', '.join(differing)}); of each, "
            "the repository's own is kept, else the one with the lower SHA-256 sum"
        )
    return lines
