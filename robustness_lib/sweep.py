"""Running many jobs: skip what is recorded, show progress, survive being killed, share one store.

A sweep is a list of independent jobs. Its only state is the store: done means that a whole record exists. Each job
is locked while it runs, so two sweeps on one store divide the work between them.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from robustness_lib.cluster import Cluster, Scheduler, connect
from robustness_lib.errors import UserError
from robustness_lib.networks import Context
from robustness_lib.processes import rank_and_count
from robustness_lib.records import SCRATCH, Job, Metrics, Record, Store, check_metrics, provenance
from robustness_lib.runtime import Runtime, out_of_gpu_memory
from robustness_lib.steps import gone_without
from robustness_lib.training import progress_bar

Run = Callable[[Job, Context], Metrics]
"""What a section offers to measure one job."""

OnRecord = Callable[[Record], None]
"""What is called with each record as soon as it is in the store."""

Perform = Callable[[Run, Job, Context], Record]
"""What measures one job, here or elsewhere."""


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


def perform(run: Run, job: Job, context: Context) -> Record:
    """Measure one job in this process, and keep nothing of it but its record, which is returned.

    Raises:
        UserError: The job failed, or the GPU's memory did not suffice for it.
    """
    own = replace(context, _used={}, _trained_on=[])  # another job may use the same images at the same time
    started = time.monotonic()
    metrics = None
    try:
        metrics = check_metrics(run(job, own))
    except RuntimeError as error:
        if not out_of_gpu_memory(error):
            raise
    if metrics is None:  # raised here, as an error's context would keep its tensors
        gc.collect()
        torch.cuda.empty_cache()
        raise UserError("the job ran out of GPU memory; give a lower --workers")
    seconds = time.monotonic() - started
    _, processes = rank_and_count()
    several = {"processes": processes} if processes > 1 else {}
    where = context.runtime.describe() | several | dict.fromkeys(gone_without(), False) | own.trained_elsewhere()
    return Record(job, metrics, provenance(seconds=seconds, data=own.take_used_data(), runtime=where))


def measure(
    run: Run, job: Job, context: Context, *, wait_for_lock: bool = True, perform: Perform = perform
) -> Record | None:
    """Measure one job and put its record into the store.

    Args:
        run: The section's ``run``.
        job: What to measure.
        context: Data, store and runtime.
        wait_for_lock: Whether to wait while another process measures the same job.
        perform: What measures it, perhaps on another machine.

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
        record = perform(run, job, context)
        store.add(record)
        return record


Result = Record | UserError | None
"""What came of a job; None where another process is measuring it."""


def measure_or_fail(run: Run, job: Job, context: Context, perform: Perform = perform) -> Result:
    """As :func:`measure` without waiting; an error that the user can mend is returned."""
    try:
        return measure(run, job, context, wait_for_lock=False, perform=perform)
    except UserError as error:
        return error


def sweep(
    jobs: Sequence[Job],
    run: Run,
    context: Context,
    *,
    workers: int = 1,
    time_budget: float | None = None,
    executor: Executor | None = None,
    scheduler: Scheduler | None = None,
    known: Iterable[Record] = (),
    on_record: OnRecord | None = None,
) -> Outcome:
    """Measure all jobs that are not recorded yet.

    Args:
        jobs: What to measure; jobs without an error are recorded whatever happens to others.
        run: The section's ``run``, a function of a module.
        context: Data, store and runtime of every job.
        workers: Processes on this machine, which share the runtime's threads; 1 to work in this process. However few
            jobs are left, each has its share of the threads and no more: their number changes a result's last bits.
        time_budget: Seconds; no job is started that is not expected to end within them, and none that another process
            is measuring is waited for after them. None for no limit.
        executor: Any ``concurrent.futures.Executor`` that shares the store, to run on instead of processes of this
            machine. It has as many jobs as it says it has workers (those of the standard library do), else
            ``workers``; CPU threads are whatever its workers are set to.
        scheduler: A Dask cluster to run on instead, with one job a worker (:func:`robustness_lib.cluster.connect`).
        known: Further records (the published ones) from which run times are estimated.
        on_record: Called in this process with each record as soon as it is in the store.

    Returns:
        What was done. A job that fails in a way that a user can mend (a diverging training, missing data, too little
        GPU memory) does not stop the others.

    Raises:
        UserError: A worker process was killed, or the cluster cannot be used.
        Exception: Any other exception of a job, a mistake in the code: it ends the sweep, and what is recorded is kept.
    """
    store = Store(context.store)
    outcome = Outcome()
    todo: list[Job] = []
    for job in {job.key: job for job in jobs}.values():
        (todo if store.get(job) is None else outcome.skipped).append(job)
    device = context.runtime.device.partition(":")[0] if scheduler is None else None
    clock = _Clock(time_budget, [*store.records(), *known], device)
    with (
        connect(scheduler, context) as cluster,
        progress_bar(total=len(todo), desc="jobs", unit="job", disable=len(todo) < 2) as bar,
    ):
        course = _Course(outcome, clock, bar, on_record, store)
        if cluster is not None:
            _run_on(cluster, todo, run, context, course)
            return outcome
        share = replace(context.runtime, threads=max(1, context.runtime.threads // workers))
        context = replace(context, runtime=share)
        workers = min(workers, len(todo))
        if executor is not None:
            with executor as pool:
                room = int(getattr(pool, "_max_workers", workers))
                _run_in(_submit_to(pool, run, context), lambda: room, todo, course)
        elif workers > 1:
            with _processes(workers, context) as pool:
                try:
                    _run_in(_submit_to(pool, run, context), lambda: workers, todo, course)
                except KeyboardInterrupt:
                    for process in multiprocessing.active_children():  # else leaving the pool waits for their jobs
                        process.terminate()
                    raise
        else:
            _run_here(todo, run, context, course)
    return outcome


@dataclass(frozen=True)
class _Course:
    """How a sweep goes: what has come of it, the time that is left, and who is told."""

    outcome: Outcome
    clock: _Clock
    bar: tqdm[None]
    on_record: OnRecord | None
    store: Store

    def note(self, job: Job, result: Result) -> list[Job]:
        """Take down what came of a job; return it where another process is measuring it."""
        if result is None:
            return [job]
        if isinstance(result, Record):
            self.clock.learn(result)
            self.outcome.recorded.append(job)
            if self.on_record is not None:
                self.on_record(result)
        else:
            self.outcome.failed.append((job, str(result)))
            if not self.bar.disable:  # of a single job the caller tells
                self.bar.write(f"{job.label}: {result}", file=sys.stderr)
        self.bar.update()
        return []

    def look(self, waiting: list[Job]) -> tuple[list[Job], list[Job]]:
        """Look once after jobs that other processes were measuring, and take down those that are recorded now.

        Returns:
            Those that nobody measures any more, and those that are still waited for: none once the time is over.
        """
        free: list[Job] = []
        busy: list[Job] = []
        for job in waiting:
            with self.store.lock(job, wait=False) as mine:
                record = self.store.get(job)
            if record is None:
                (free if mine else busy).append(job)
            else:
                self.note(job, record)
        if self.clock.over:
            self.outcome.left += busy
            return free, []
        return free, busy

    def tell_of(self, waiting: Sequence[Job]) -> bool:
        """Say that nothing is left to do here but to wait; True."""
        until = "" if self.clock.deadline is None else ", until the time budget is over at the latest"
        jobs = "1 job" if len(waiting) == 1 else f"{len(waiting)} jobs"
        self.bar.write(f"another process is measuring {jobs}; this one waits for it{until}", file=sys.stderr)
        return True

    def in_time(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that may start; there is no time for the others, now or later."""
        judged = [(job, self.clock.allows(job)) for job in jobs]
        self.outcome.left += [job for job, allowed in judged if not allowed]
        return [job for job, allowed in judged if allowed]


def _run_here(todo: list[Job], run: Run, context: Context, course: _Course) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(context.runtime.threads)
    try:
        queue, told = list(todo), False
        waiting: list[Job] = []
        while (queue := course.in_time(queue)) or waiting:
            if queue:
                job = queue.pop(0)
                waiting += course.note(job, measure_or_fail(run, job, context))
                continue
            queue, waiting = course.look(waiting)
            if waiting and not queue:
                told = told or course.tell_of(waiting)
                time.sleep(_LOOK_AGAIN)
    finally:
        torch.set_num_threads(before)


Submit = Callable[[Job], Future[Result]]
"""``submit(job)``: begin :func:`measure_or_fail` somewhere."""


def _run_in(submit: Submit, room: Callable[[], int], todo: list[Job], course: _Course) -> None:
    """Keep as many jobs in flight as there is room for, which may change."""
    queue, told = list(todo), False
    waiting: list[Job] = []
    running: dict[Future[Result], Job] = {}
    while (queue := course.in_time(queue)) or running or waiting:
        for _ in range(room() - len(running)):
            if queue:
                job = queue.pop(0)
                with _telling_of_a_killed_worker([*running.values(), job]):
                    running[submit(job)] = job
        if not running:
            time.sleep(_LOOK_AGAIN)
        done, _ = wait(running, timeout=_LOOK_AGAIN, return_when=FIRST_COMPLETED)
        for future in done:
            job = running.pop(future)
            with _telling_of_a_killed_worker([job]):
                waiting += course.note(job, future.result())
        if waiting and not queue:
            queue, waiting = course.look(waiting)
            told = told or (not queue and not running and bool(waiting) and course.tell_of(waiting))


@contextlib.contextmanager
def _telling_of_a_killed_worker(measured: list[Job]) -> Iterator[None]:
    """Say in a sentence that a process of the pool was killed, which the pool notices whenever it is used."""
    try:
        yield
    except BrokenProcessPool:
        raise UserError(
            f"a worker process was killed while it measured {measured[0].label} (out of memory?); what was "
            "recorded is kept: run the same command again, perhaps with fewer --workers"
        ) from None


_LOOK_AGAIN = 0.5
"""Seconds after which it is looked again whether there is room, and time, and whether other processes are done."""


def _submit_to(pool: Executor, run: Run, context: Context) -> Submit:
    quiet = replace(context, progress=False, _images={}, _used={})
    return lambda job: pool.submit(_measure_in_worker, run, job, quiet)


def _run_on(cluster: Cluster, todo: list[Job], run: Run, context: Context, course: _Course) -> None:
    """Run on a cluster: each job in flight has a thread here, which holds its lock and waits for its record."""
    with ThreadPoolExecutor(max(1, len(todo))) as threads:
        try:
            _run_in(
                lambda job: threads.submit(measure_or_fail, run, job, context, partial(cluster.measure, perform)),
                cluster.room,
                todo,
                course,
            )
        except BaseException:
            cluster.stop()
            raise


# --------------------------------------------------------------------------------------------- time


_EXTRAPOLATED = 10.0
"""A job is expected to take at most so many times as long as one that is recorded: fixed costs dominate small jobs."""


class _Clock:
    """Expects how long jobs take, from those that are recorded, and says whether one still fits.

    A job's time is that of the recorded jobs of its section, profile and architecture that are nearest in work (epochs
    times images), in proportion to the work, and at most :data:`_EXTRAPOLATED` times as long: the median over those of
    its method and arm; where there are none, that of the slowest method.

    Args:
        budget: Seconds; None for no limit.
        records: What is recorded.
        device: Only records of this kind of device (GPU or CPU) count, and those that do not say theirs; None for all.
    """

    def __init__(self, budget: float | None, records: Iterable[Record], device: str | None = None) -> None:
        self.deadline = None if budget is None else time.monotonic() + budget
        self.on_cpu = None if device is None else device == "cpu"
        self.taken: dict[tuple[object, ...], dict[tuple[object, ...], dict[float, list[float]]]] = {}
        for record in records:
            self.learn(record)

    @staticmethod
    def _kind(job: Job) -> tuple[object, ...]:
        return job.section, job.profile, job.recipe.get("architecture")

    @staticmethod
    def _way(job: Job) -> tuple[object, ...]:
        return job.method, job.init == SCRATCH

    @staticmethod
    def _work(job: Job) -> float:
        images = job.recipe.get("train_images") or 50_000
        return float(job.recipe.get("epochs") or 1) * float(images)

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def learn(self, record: Record) -> None:
        """Take a record's time into account."""
        device, job = record.provenance.get("device"), record.job
        if device is None or self.on_cpu in (None, str(device).startswith("CPU")):
            ways = self.taken.setdefault(self._kind(job), {})
            times = ways.setdefault(self._way(job), {}).setdefault(self._work(job), [])
            times.append(float(record.provenance["seconds"]))

    def expected(self, job: Job) -> float:
        """Seconds that a job is expected to take; 0 where nothing of its kind is recorded."""
        work, ways = self._work(job), self.taken.get(self._kind(job), {})

        def by(times: dict[float, list[float]]) -> float:
            nearest = min(times, key=lambda other: max(work / other, other / work))
            return median(times[nearest]) * min(work / nearest, _EXTRAPOLATED)

        alike = ways.get(self._way(job))
        return by(alike) if alike else max(map(by, ways.values()), default=0.0)

    def allows(self, job: Job) -> bool:
        """Whether a job is expected to end in time; one of a new kind may start."""
        if self.deadline is None:
            return True
        left = self.deadline - time.monotonic()
        return left > 0 and self.expected(job) <= left


# --------------------------------------------------------------------------------------------- processes

_WORKER: dict[tuple[str, str], Context] = {}


def default_workers(runtime: Runtime) -> int:
    """One process a GPU (of ``"cuda"`` all, of ``"cuda:<n>"`` that one), or one a CPU thread."""
    if runtime.device == "cuda":
        return torch.cuda.device_count()
    return runtime.threads if runtime.device == "cpu" else 1


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


def _measure_in_worker(run: Run, job: Job, context: Context) -> Result:
    """Measure in a worker process; image sets stay in its memory from one job to the next."""
    places = str(Path(context.store).resolve()), str(context.data)
    kept = _WORKER.setdefault(places, context)
    device = os.environ.get("ROBUSTNESS_WORKER_DEVICE", context.runtime.device)
    runtime = replace(context.runtime, device=device, threads=torch.get_num_threads())
    return measure_or_fail(run, job, replace(kept, runtime=runtime))
