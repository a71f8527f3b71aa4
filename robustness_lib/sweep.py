"""Running many jobs: skip what is recorded, show progress, survive being killed, share one store.

A sweep is a list of independent jobs. Its only state is the store: done means that a whole record exists. Each job
is locked while it runs, so two sweeps on one store divide the work between them.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tqdm import tqdm

from robustness_lib.errors import UserError
from robustness_lib.networks import Context
from robustness_lib.records import Job, Metrics, Record, Store, check_metrics, provenance
from robustness_lib.runtime import Runtime

Run = Callable[[Job, Context], Metrics]
"""What a section offers to measure one job."""


@dataclass
class Outcome:
    """What a sweep did.

    Attributes:
        recorded: Jobs measured now.
        skipped: Jobs whose record was there already.
        failed: Jobs that ended in an error, with one sentence each.
        left: Jobs not started for lack of time.
    """

    recorded: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)

    def check(self) -> None:
        """Raise the first failure, for callers that cannot go on without all records.

        Raises:
            UserError: A job failed or was not started.
        """
        if self.failed:
            job, error = self.failed[0]
            raise UserError(f"{job.label}: {error}")
        if self.left:
            raise UserError(f"{self.summary()}; run the same command again")

    def summary(self) -> str:
        """One line for a person."""
        parts = [f"{len(self.recorded)} recorded", f"{len(self.skipped)} were recorded before"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.left:
            parts.append(f"{len(self.left)} not started for lack of time")
        return ", ".join(parts)


def measure(run: Run, job: Job, context: Context, *, wait_for_lock: bool = True) -> Record | None:
    """Measure one job and put its record into the store.

    Args:
        run: The section's ``run``.
        job: What to measure.
        context: Data, store and runtime.
        wait_for_lock: Whether to wait while another process measures the same job.

    Returns:
        The record, which may be one that another process made meanwhile; None where another process is measuring
        the job and ``wait_for_lock`` is False.
    """
    store = Store(context.store)
    with store.lock(job, wait=wait_for_lock) as mine:
        if not mine:
            return None
        if (record := store.get(job)) is not None:
            return record
        context.take_used_data()
        started = time.monotonic()
        metrics = check_metrics(run(job, context))
        seconds = time.monotonic() - started
        source = provenance(seconds=seconds, data=context.take_used_data(), runtime=context.runtime.describe())
        record = Record(job, metrics, source)
        store.add(record)
        return record


def sweep(
    jobs: Sequence[Job],
    run: Run,
    context: Context,
    *,
    workers: int = 1,
    time_budget: float | None = None,
    executor: Executor | None = None,
    known: Iterable[Record] = (),
) -> Outcome:
    """Measure all jobs that are not recorded yet.

    Args:
        jobs: What to measure; jobs without an error are recorded whatever happens to others.
        run: The section's ``run``, a function of a module.
        context: Data, store and runtime of every job.
        workers: Processes on this machine, which share the runtime's threads; 1 to work in this process. However few
            jobs are left, each has its share of the threads and no more: their number changes a result's last bits.
        time_budget: Seconds; no job is started that is not expected to end within them. None for no limit.
        executor: Any ``concurrent.futures.Executor`` to run on instead of processes of this machine.
        known: Further records (the published ones) from which run times are estimated.

    Returns:
        What was done. A job that fails (a diverging training, missing data) does not stop the others.
    """
    store = Store(context.store)
    outcome = Outcome()
    todo: list[Job] = []
    for job in {job.key: job for job in jobs}.values():
        (todo if store.get(job) is None else outcome.skipped).append(job)
    clock = _Clock(time_budget, [*store.records(), *known])
    with tqdm(total=len(todo), desc="jobs", unit="job", disable=len(todo) < 2, dynamic_ncols=True) as bar:
        share = replace(context.runtime, threads=max(1, context.runtime.threads // workers))
        context = replace(context, runtime=share)
        workers = min(workers, len(todo))
        if executor is not None:
            with executor as pool:
                _run_in(pool, todo, run, context, workers, clock, outcome, bar)
        elif workers > 1:
            with _processes(workers, context) as pool:
                try:
                    _run_in(pool, todo, run, context, workers, clock, outcome, bar)
                except KeyboardInterrupt:
                    for process in multiprocessing.active_children():  # else leaving the pool waits for their jobs
                        process.terminate()
                    raise
        else:
            _run_here(todo, run, context, clock, outcome, bar)
    return outcome


def _run_here(todo: list[Job], run: Run, context: Context, clock: _Clock, outcome: Outcome, bar: tqdm[None]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(context.runtime.threads)
    try:
        waiting = list(todo)
        for wait_for_lock in (False, True):
            queue, waiting = waiting, []
            for job in queue:
                if not clock.allows(job):
                    outcome.left.append(job)
                    continue
                bar.set_postfix_str(job.label)
                try:
                    record = measure(run, job, context, wait_for_lock=wait_for_lock)
                except UserError as error:
                    _note(outcome, bar, job, str(error))
                    continue
                if record is None:
                    waiting.append(job)
                else:
                    clock.learn(record)
                    _note(outcome, bar, job)
    finally:
        torch.set_num_threads(before)


def _run_in(
    pool: Executor,
    todo: list[Job],
    run: Run,
    context: Context,
    workers: int,
    clock: _Clock,
    outcome: Outcome,
    bar: tqdm[None],
) -> None:
    quiet = replace(context, progress=False, _images={}, _used={})
    waiting = list(todo)
    for wait_for_lock in (False, True):
        queue, waiting = waiting, []
        running: dict[Future[Record | None], Job] = {}
        while queue or running:
            while queue and len(running) < workers:
                job = queue.pop(0)
                if clock.allows(job):
                    running[pool.submit(_measure_in_worker, run, job, quiet, wait_for_lock)] = job
                else:
                    outcome.left.append(job)
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                try:
                    record = future.result()
                except UserError as error:
                    _note(outcome, bar, job, str(error))
                except BrokenProcessPool:
                    raise UserError(
                        f"a worker process was killed while it measured {job.label} (out of memory?); what was "
                        "recorded is kept: run the same command again, perhaps with fewer --workers"
                    ) from None
                else:
                    if record is None:
                        waiting.append(job)
                    else:
                        clock.learn(record)
                        _note(outcome, bar, job)


def _note(outcome: Outcome, bar: tqdm[None], job: Job, error: str | None = None) -> None:
    if error is None:
        outcome.recorded.append(job)
    else:
        outcome.failed.append((job, error))
        if not bar.disable:  # of a single job the caller tells
            bar.write(f"{job.label}: {error}", file=sys.stderr)
    bar.update()


# --------------------------------------------------------------------------------------------- time


class _Clock:
    """Expects how long jobs take, from those that are recorded, and says whether one still fits."""

    def __init__(self, budget: float | None, records: Iterable[Record]) -> None:
        self.deadline = None if budget is None else time.monotonic() + budget
        self.pace: dict[tuple[object, ...], float] = {}
        for record in records:
            self.learn(record)

    @staticmethod
    def _kind(job: Job) -> tuple[object, ...]:
        return job.section, job.profile, job.recipe.get("architecture")

    @staticmethod
    def _work(job: Job) -> float:
        images = job.recipe.get("train_images") or 50_000
        return float(job.recipe.get("epochs") or 1) * float(images)

    def learn(self, record: Record) -> None:
        kind = self._kind(record.job)
        pace = float(record.provenance["seconds"]) / self._work(record.job)
        self.pace[kind] = max(pace, self.pace.get(kind, 0.0))

    def allows(self, job: Job) -> bool:
        """Whether ``job`` is expected to end in time, by the slowest pace seen of its kind; a new kind may start."""
        if self.deadline is None:
            return True
        left = self.deadline - time.monotonic()
        return left > 0 and self.pace.get(self._kind(job), 0.0) * self._work(job) <= left


# --------------------------------------------------------------------------------------------- processes

_WORKER: dict[tuple[str, str], Context] = {}


def default_workers(runtime: Runtime) -> int:
    """One process a GPU, or one a CPU thread."""
    return torch.cuda.device_count() if runtime.device == "cuda" else runtime.threads


def _processes(workers: int, context: Context) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    devices = spawn.SimpleQueue()
    for number in range(workers):
        devices.put(
            f"cuda:{number % torch.cuda.device_count()}" if context.runtime.device == "cuda" else context.runtime.device
        )
    return ProcessPoolExecutor(
        workers, mp_context=spawn, initializer=_start_worker, initargs=(devices, context.runtime.threads)
    )


def _start_worker(devices: multiprocessing.SimpleQueue[str], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    tqdm.set_lock(threading.RLock())  # the default is shared between processes, and left behind by a killed one
    torch.set_num_threads(threads)
    os.environ["ROBUSTNESS_WORKER_DEVICE"] = devices.get()
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _measure_in_worker(run: Run, job: Job, context: Context, wait_for_lock: bool) -> Record | None:
    """Measure in a worker process; image sets stay in its memory from one job to the next."""
    places = str(Path(context.store).resolve()), str(context.data)
    kept = _WORKER.setdefault(places, context)
    device = os.environ.get("ROBUSTNESS_WORKER_DEVICE", context.runtime.device)
    kept.runtime = replace(context.runtime, device=device, threads=torch.get_num_threads())
    return measure(run, job, kept, wait_for_lock=wait_for_lock)
