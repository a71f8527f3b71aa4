"""Results as files in a folder, to be taken to another machine: ``--out`` mirrors them there, ``merge`` takes them in.

The folder is laid out as a store, and every file in it is whole at any moment.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robustness_lib.errors import UserError
from robustness_lib.files import locked, remove_leftovers, write_atomically
from robustness_lib.models.checkpoint_ids import check_id
from robustness_lib.models.checkpoints import load_weights, weights_checksum
from robustness_lib.runner.model_cache import SHIPPED, find_checkpoint
from robustness_lib.runner.records import PRETRAINING, Job, Record, Store, checkpoint_id, make_folder, result_of


@contextlib.contextmanager
def mirrored(jobs: Iterable[Job], store: Path, folder: Path | None) -> Iterator[Callable[[Record], None]]:
    """Have in a folder what a store has of jobs: records, and the checkpoints that they start from or made.

    What the folder (None: none) holds from before is first merged into the store, and so counts as recorded. Yields
    what to call with every record that is made.
    """
    remove_leftovers(store)
    if folder is None:
        yield lambda record: None
        return
    if folder.resolve().is_relative_to(store.resolve()):
        raise UserError(f"{folder} lies inside the store {store}; choose a folder outside it")
    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise UserError(f"nothing can be written into {folder}; choose a folder that can be written")
    remove_leftovers(folder)
    merged = merge(folder, store)
    if merged.damaged:
        raise UserError(merged.damaged[0])
    if merged.added:
        print(merged.summary(folder, store), file=sys.stderr)
    for job in jobs:
        _mirror(job, store, folder)
    yield lambda record: _mirror(record.job, store, folder)


def _mirror(job: Job, store: Path, folder: Path) -> None:
    records = Store(store)
    checkpoint = checkpoint_id(job) if job.section == PRETRAINING else job.init
    made = [record.job for record in records.records(PRETRAINING) if checkpoint_id(record.job) == checkpoint]
    paths = [records.path(each) for each in (*made, job)]
    if not (SHIPPED / f"{checkpoint}.safetensors").is_file():  # before its record, which counts only with it
        paths.insert(0, store / "checkpoints" / f"{checkpoint}.safetensors")
    for path in filter(Path.is_file, paths):
        copy, content = folder / path.relative_to(store), path.read_bytes()
        if not copy.is_file() or copy.read_bytes() != content:
            write_atomically(copy, content)


@dataclass
class Merged:
    """How many records and checkpoints a merge added, and how many were there with the same result or weights.

    ``differing`` has the jobs and checkpoints that were there with another; ``damaged`` a sentence on each left out.
    """

    added: int = 0
    same: int = 0
    differing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def summary(self, source: Path, store: Path) -> str:
        """What was done, for a person; what is damaged is not repeated."""
        text = f"{source}: {self.added} records and checkpoints added to {store}, {self.same} were there already"
        if self.differing:
            names = "; ".join(self.differing[:10]) + ("; …" if len(self.differing) > 10 else "")
            text += (
                f"\n{source}: {len(self.differing)} were there with other results ({names}); the earlier record of "
                "each stays, and the checkpoint that was there"
            )
        return text


def merge(source: Path, store: Path) -> Merged:
    """Take the records and checkpoints of a mirror, another store or a folder of ``<section>.jsonl`` into a store.

    Of two records of one job the one with the earlier date stays, so the order of merges does not matter.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}; give a folder that --out filled, or another store")
    merged = Merged()
    for path in (*sorted(source.glob("*.jsonl")), *sorted((source / "records").glob("*/*.json"))):
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            merged.damaged.append(f"{path} cannot be read ({error.strerror or error}); check its permissions")
            continue
        for number, line in enumerate(lines or [b""], start=1):
            try:
                record = Record.from_json(line.decode())
            except (ValueError, TypeError) as error:
                where = f"line {number} of {path}" if path.suffix == ".jsonl" else str(path)
                merged.damaged.append(f"{where} is not a whole record ({error}); delete it, or copy it again")
            else:
                _merge_record(record, Store(store), merged)
    for path in sorted((source / "checkpoints").glob("*.safetensors")):
        if not path.stem.endswith(".partial"):  # of a training that did not end
            try:
                check_id(path.stem, str(path))
                weights = weights_checksum(load_weights(path)[0])
            except UserError as error:
                merged.damaged.append(str(error))
            else:
                _merge_checkpoint(path, weights, store, merged)
    return merged


def _merge_record(record: Record, store: Store, merged: Merged) -> None:
    with store.lock(record.job, wait=True):
        present = store.get(record.job)
        if present is None:
            merged.added += 1
        elif result_of(present) == result_of(record):
            merged.same += 1
        else:
            merged.differing.append(record.job.label)
        if present is None or _precedence(record) < _precedence(present):
            store.add(record)


def _precedence(record: Record) -> tuple[bool, str, str]:
    """What sorts the records of one job: the earlier date first, none last, then the canonical JSON."""
    date = record.provenance.get("date")
    return date is None, str(date), record.to_json()


def _merge_checkpoint(path: Path, weights: str, store: Path, merged: Merged) -> None:
    with locked(store / "locks" / f"{path.stem}.lock"):
        with contextlib.suppress(UserError):  # one that is damaged is as good as none
            if (present := find_checkpoint(path.stem, store)) is not None:
                if weights_checksum(load_weights(present)[0]) == weights:
                    merged.same += 1
                else:
                    merged.differing.append(path.stem)
                return
        write_atomically(store / "checkpoints" / path.name, path.read_bytes())
        merged.added += 1
