"""Running many jobs: skip what is recorded, survive being killed, share one store.

A sweep is a list of independent jobs, run in this process, in processes of this machine, or by another
``concurrent.futures`` executor such as Dask's (:mod:`robustness_lib.runner.dask_executor`). Its only state is the
store, which all processes share: done means that a whole record exists. Each job is locked while it runs, so several
sweeps on one store divide the work between them.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace

import torch
from tqdm import tqdm

from robustness_lib.errors import UserError
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import build, count_parameters
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import SCRATCH, Job, Record, Store, check_metrics, provenance
from robustness_lib.training.device import Runtime, out_of_gpu_memory
from robustness_lib.training.distributed import rank_and_count
from robustness_lib.training.train_step import gone_without
from robustness_lib.training.trainer import cpu_threads, progress_bar

Run = Callable[[Job, Context], Metrics]
"""What a section offers to measure one job."""

OnRecord = Callable[[Record], None]
"""What is called with each record as soon as it is in the store."""


@dataclass
class Outcome:
    """What a sweep did.

    Attributes:
        recorded: Jobs measured now.
        skipped: Jobs whose record was there already, or that another process measured meanwhile.
        failed: Jobs that ended in an error, with one sentence each.
        left: Jobs not started for lack of time.
    """

    recorded: list[Job] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)

    def check(self) -> None:
        """Raise the first failure, for callers that cannot go on without all records."""
        if self.failed:
            job, error = self.failed[0]
            raise UserError(f"{job.label}: {error}")
        if self.left:
            raise UserError(f"{self.summary()}; run the same command again")

    def summary(self) -> str:
        """One line for a person."""
        parts = [f"{len(self.recorded)} recorded"]
        if self.skipped:
            parts.append(f"{len(self.skipped)} recorded before and not measured again")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        if self.left:
            parts.append(f"{len(self.left)} not started for lack of time")
        return ", ".join(parts)


# --------------------------------------------------------------------------------------------- one job


def perform(run: Run, job: Job, context: Context) -> Record:
    """Measure one job in this process, and keep nothing of it but its record, which is returned."""
    runtime = replace(context.runtime, threads=threads_for(job, context.runtime))
    own = replace(context, runtime=runtime, _used={}, _trained_on=[])  # other jobs may share the context's images
    started = time.monotonic()
    metrics = None
    try:
        with cpu_threads(runtime.threads):
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
    where = runtime.describe() | several | dict.fromkeys(gone_without(), False) | own.trained_elsewhere()
    return Record(job, metrics, provenance(seconds=seconds, data=own.take_used_data(), runtime=where))


SMALL_NETWORK = 100_000
"""Parameters below which a network computes with one CPU thread."""


def threads_for(job: Job, runtime: Runtime) -> int:
    """The CPU threads of a job: the runtime's, or one where its network is small, as threads would wait for each other.

    Measured with a ``wrn-10-1`` on two cores, one of them busy: two threads took 60 times as long as one.
    """
    architecture = job.recipe.get("architecture")
    return 1 if architecture is not None and _is_small(str(architecture)) else runtime.threads


@functools.cache
def _is_small(architecture: str) -> bool:
    with contextlib.suppress(UserError), torch.device("meta"):
        return count_parameters(build(architecture, 10)) < SMALL_NETWORK
    return False


def measure(run: Run, job: Job, context: Context) -> Record:
    """Measure one job and put its record into the store, unless it is there; wait while another process measures it."""
    store = Store(context.store)
    with store.lock(job, wait=True):
        record = store.get(job)
        if record is None:
            record = perform(run, job, context)
            store.add(record)
        return record


BUSY, THEIRS = "another process is measuring it", "another process has measured it"
LATE = "there is no time for it"
KILLED = "the process that measured it was killed (out of memory?); run the same command again, with fewer --workers"

Result = Record | UserError | str
"""What came of a job: its record, an error that the user can mend, or one of the sentences above."""


def attempt(run: Run, job: Job, context: Context, deadline: float | None = None, patient: bool = False) -> Result:
    """As :func:`measure`, with regard to the time and to other processes.

    Args:
        run: The section's ``run``.
        job: What to measure.
        context: Data, store and runtime.
        deadline: The time (of ``time.time``) before which it is to end, if it takes no longer than the longest recorded
            job of its kind; None for none.
        patient: Whether to wait, until the deadline at most, while another process measures the job.
    """
    store = Store(context.store)
    while True:
        with store.lock(job, wait=False) as locked:
            if store.get(job) is not None:
                return THEIRS
            if deadline is not None and time.time() + (_longest(job, store) if locked else 0) >= deadline:
                return LATE
            if locked:
                try:
                    record = perform(run, job, context)
                    store.add(record)
                except UserError as error:
                    return error
                return record
        if not patient:
            return BUSY
        time.sleep(0.5)


def _longest(job: Job, store: Store) -> float:
    """Seconds that the longest recorded job took of the same method, arm, network and length of training."""

    def kind(other: Job) -> tuple[object, ...]:
        settings = (other.recipe.get(name) for name in ("architecture", "train_images", "epochs"))
        return other.profile, other.method, other.init == SCRATCH, *settings

    alike = [record for record in store.records(job.section) if kind(record.job) == kind(job)]
    return max((float(record.provenance["seconds"]) for record in alike), default=0.0)


# --------------------------------------------------------------------------------------------- many jobs


def sweep(
    jobs: Sequence[Job],
    run: Run,
    context: Context,
    *,
    workers: int = 1,
    time_budget: float | None = None,
    executor: Executor | None = None,
    on_record: OnRecord | None = None,
) -> Outcome:
    """Measure all jobs that are not recorded yet.

    Args:
        jobs: What to measure.
        run: The section's ``run``, a function of a module.
        context: Data, store and runtime of every job.
        workers: Processes on this machine, which share the runtime's threads; 1 to work in this process. However few
            jobs are left, each has its share of the threads and no more: their number changes a result's last bits.
        time_budget: Seconds; no job is started when the time left is less than the longest recorded job of its method
            took, and none that another process is measuring is waited for after them. None for no limit.
        executor: What to run on instead, whose workers share the store; it stays open.
        on_record: Called in this process with each record as soon as it is in the store.

    Returns:
        What was done. A job that fails in a way that a user can mend (a diverging training, missing data, too little
        memory) does not stop the others; any other exception, a mistake in the code, ends the sweep.
    """
    store, outcome = Store(context.store), Outcome()
    todo: list[Job] = []
    for job in {job.key: job for job in jobs}.values():
        (todo if store.get(job) is None else outcome.skipped).append(job)
    deadline = None if time_budget is None else time.time() + time_budget
    if executor is None:
        share = max(1, context.runtime.threads // workers)
        context = replace(context, runtime=replace(context.runtime, threads=share))

    def results(patient: bool) -> Iterator[tuple[Job, Result]]:
        def submit(pool: Executor, job: Job) -> Future[Result]:
            return pool.submit(_attempt_in_worker, run, job, sent, deadline, patient)

        sent = replace(context, progress=False, _images={}, _used={}, _trained_on=[])
        if executor is not None:
            yield from _completed(executor, todo, submit)
        elif workers > 1:
            yield from _in_processes(workers, todo, submit, context)
        else:
            for job in todo:
                yield job, attempt(run, job, context, deadline, patient)

    with progress_bar(total=len(todo), desc="jobs", unit="job", disable=len(todo) < 2) as bar:
        for patient in (False, True):
            busy: list[Job] = []
            for job, result in results(patient):
                if result == BUSY:
                    busy.append(job)
                    continue
                if isinstance(result, Record) or result == THEIRS:
                    (outcome.skipped if result == THEIRS else outcome.recorded).append(job)
                    if on_record is not None and (record := store.get(job)) is not None:
                        on_record(record)
                elif result == LATE:
                    outcome.left.append(job)
                else:
                    outcome.failed.append((job, str(result)))
                    if not bar.disable:  # of a single job the caller tells
                        bar.write(f"{job.label}: {result}", file=sys.stderr)
                bar.update()
            todo = busy
            if busy and not patient:
                bar.write(f"another process is measuring {len(busy)} jobs; this one waits for it", file=sys.stderr)
    return outcome


Submit = Callable[[Executor, Job], "Future[Result]"]


def _completed(pool: Executor, todo: Sequence[Job], submit: Submit) -> Iterator[tuple[Job, Result]]:
    """Jobs with what came of them, as they are done."""
    futures: dict[Future[Result], Job] = {}
    try:
        for number, job in enumerate(todo):
            try:
                futures[submit(pool, job)] = job
            except BrokenExecutor:
                yield from ((job, KILLED) for job in todo[number:])
                break
        for future in as_completed(futures):
            try:
                result = future.result()
            except CancelledError:
                raise UserError(
                    "the jobs were cancelled (has the Dask scheduler ended?); what was recorded is kept: run the same "
                    "command again"
                ) from None
            except Exception as error:  # of concurrent.futures, or of distributed, which need not be installed
                if type(error).__name__ not in ("BrokenProcessPool", "KilledWorker"):
                    raise
                result = KILLED
            yield futures[future], result
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _in_processes(workers: int, todo: Sequence[Job], submit: Submit, context: Context) -> Iterator[tuple[Job, Result]]:
    """Jobs done by processes of this machine.

    A pool ends with the first of its processes that is killed. The jobs that were running begin again, one by one, so
    that the one which cannot be done is known; then the others go on.
    """
    alone: list[Job] = []
    left = list(todo)
    while alone or left:
        batch, count = ([alone.pop(0)], 1) if alone else (left, workers)
        killed = set()
        with _processes(count, context) as pool:
            try:
                for job, result in _completed(pool, batch, submit):
                    if result == KILLED and count > 1:
                        killed.add(job.key)
                    else:
                        yield job, result
            except BaseException:  # else leaving the pool waits for their jobs
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        if count > 1:
            lost = [job for job in batch if job.key in killed]
            alone, left = lost[:workers], lost[workers:]  # jobs start in order


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
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(devices,))


def _start_worker(devices: multiprocessing.SimpleQueue[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    tqdm.set_lock(threading.RLock())  # the default is shared between processes, and left behind by a killed one
    os.environ["ROBUSTNESS_WORKER_DEVICE"] = devices.get()
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _attempt_in_worker(run: Run, job: Job, context: Context, deadline: float | None, patient: bool) -> Result:
    """As :func:`attempt`; image sets stay in the worker's memory from one job to the next."""
    kept = _WORKER.setdefault((str(context.store.resolve()), str(context.data)), context)
    device = os.environ.get("ROBUSTNESS_WORKER_DEVICE", context.runtime.device)
    own = replace(kept, runtime=replace(context.runtime, device=device))
    return attempt(run, job, own, deadline, patient)
