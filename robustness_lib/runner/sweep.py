"""Running many jobs: skip what is recorded, survive being killed, share one store.

Jobs are independent, run in this process, in processes of this machine, or by another ``concurrent.futures`` executor
such as Dask's. The only state is the store: done means that a whole record exists. Each job is locked while it runs.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tqdm import tqdm

from robustness_lib.errors import UserError
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import build, count_parameters
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.provenance import provenance
from robustness_lib.runner.records import SCRATCH, Job, Record, Store, check_metrics
from robustness_lib.training import train_step
from robustness_lib.training.device import Runtime, out_of_gpu_memory
from robustness_lib.training.distributed import rank_and_count
from robustness_lib.training.trainer import cpu_threads, progress_bar

Run = Callable[[Job, Context], Metrics]
"""What a section offers to measure one job."""


@dataclass
class Outcome:
    """Jobs measured now, skipped as recorded before or meanwhile, failed with a sentence, and left for lack of time."""

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
        others: dict[str, Sequence[object]] = {
            "recorded before and not measured again": self.skipped,
            "failed": self.failed,
            "not started for lack of time": self.left,
        }
        parts = [f"{len(jobs)} {words}" for words, jobs in others.items() if jobs]
        return ", ".join([f"{len(self.recorded)} recorded", *parts])


def perform(run: Run, job: Job, context: Context) -> Record:
    """Measure one job in this process, and keep nothing of it but its record, which is returned."""
    architecture = job.recipe.get("architecture")
    is_small = architecture is not None and _is_small(str(architecture))
    runtime = replace(context.runtime, threads=1) if is_small else context.runtime
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
    where = runtime.describe() | several | dict.fromkeys(train_step.unavailable, False) | own.trained_elsewhere()
    return Record(job, metrics, provenance(seconds=seconds, data=own.take_used_data(), runtime=where))


@functools.cache
def _is_small(architecture: str) -> bool:
    """Whether a network computes with one CPU thread, as more would wait for each other."""
    with contextlib.suppress(UserError), torch.device("meta"):
        return count_parameters(build(architecture, 10)) < 100_000
    return False


BUSY, THEIRS = "another process is measuring it", "another process has measured it"
LATE = "there is no time for it"
KILLED = "the process that measured it was killed (out of memory?); run the same command again, with fewer --workers"

Result = Record | UserError | str
"""What came of a job, its record, an error that the user can mend, or one of the sentences above."""


def attempt(run: Run, job: Job, context: Context, deadline: float | None = None, patient: bool = False) -> Result:
    """Measure one job and put its record into the store, unless another process does or it would end too late.

    It is to end before the ``deadline`` (of ``time.time``), by what the longest recorded one like it took. A
    ``patient`` call waits, until then at most, while another process measures the job.
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
                    store.add(record := perform(run, job, context))
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


def sweep(
    jobs: Sequence[Job],
    run: Run,
    context: Context,
    *,
    workers: int = 1,
    time_budget: float | None = None,
    executor: Executor | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> Outcome:
    """Measure all jobs that are not recorded yet.

    Args:
        run: The section's ``run``, a function of a module.
        workers: Processes on this machine, which share the runtime's threads; 1 to work in this process. Each job has
            its share, however few are left: the number of threads changes a result's last bits.
        time_budget: Seconds; no job is started when less time is left than the longest recorded one like it took.
        executor: What to run on instead, whose workers share the store; it stays open.
        on_record: Called in this process with each record as soon as it is in the store.

    A job that ends in a UserError does not stop the others; any other exception, a mistake in the code, does.
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
        if executor is None and workers == 1:
            yield from ((job, attempt(run, job, context, deadline, patient)) for job in todo)
            return
        sent = replace(context, progress=False, _images={}, _used={}, _trained_on=[])
        with contextlib.nullcontext(executor) if executor is not None else _processes(workers, context.runtime) as pool:
            yield from _completed(pool, todo, lambda job: (_attempt_in_worker, run, job, sent, deadline, patient))

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


def _completed(
    pool: Executor, todo: Sequence[Job], call: Callable[[Job], tuple[Any, ...]]
) -> Iterator[tuple[Job, Result]]:
    """Jobs with what came of the call that each is done by, as they are done."""
    submitted: dict[Future[Result], Job] = {}
    try:
        for job in todo:
            submitted[pool.submit(*call(job))] = job
        for future in futures.as_completed(submitted):
            try:
                result = future.result()
            except futures.CancelledError:
                raise UserError(
                    "the jobs were cancelled (has the Dask scheduler ended?); what was recorded is kept: run the same "
                    "command again"
                ) from None
            except Exception as error:  # of concurrent.futures, or of distributed, which need not be installed
                if type(error).__name__ not in ("BrokenProcessPool", "KilledWorker"):
                    raise
                result = KILLED
            yield submitted[future], result
    except BaseException:
        for future in submitted:
            future.cancel()
        raise


_WORKER: dict[tuple[str, str], Context] = {}


def default_workers(runtime: Runtime) -> int:
    """One process a GPU (of ``"cuda"`` all, of ``"cuda:<n>"`` that one), or one a CPU thread."""
    if runtime.device == "cuda":
        return torch.cuda.device_count()
    return runtime.threads if runtime.device == "cpu" else 1


class _Processes(Executor):
    """Processes of this machine, each a pool of its own, so that one that is killed costs its job alone.

    Such a job has a second try, as it may have been another's victim where memory was short.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.threads, self.ended = futures.ThreadPoolExecutor(len(devices)), False
        self.idle: queue.LifoQueue[tuple[str, Executor]] = queue.LifoQueue()
        for device in devices:
            self.idle.put((device, _start_process(device)))

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:  # type: ignore[override]
        """Start a job as soon as a process is idle."""
        return self.threads.submit(self._run, function, *arguments)

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        device, pool = self.idle.get()
        try:
            for is_last in (False, True):
                try:
                    return pool.submit(function, *arguments).result()
                except futures.BrokenExecutor:
                    if self.ended:
                        raise
                    pool = _start_process(device)
                    if is_last:
                        raise
        finally:
            self.idle.put((device, pool))

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # else this would wait for the jobs that are running
            self.ended = True
            for process in multiprocessing.active_children():
                process.terminate()
        self.threads.shutdown(cancel_futures=True)
        while not self.idle.empty():
            self.idle.get()[1].shutdown()


def _processes(workers: int, runtime: Runtime) -> Executor:
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if runtime.device == "cuda" else []
    return _Processes(list(itertools.islice(itertools.cycle(gpus or [runtime.device]), workers)))


def _start_process(device: str) -> Executor:
    spawn = multiprocessing.get_context("spawn")  # a fork server would keep the code and environment of its start
    return futures.ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_worker, initargs=(device,))


def _start_worker(device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    tqdm.set_lock(threading.RLock())  # the default is shared between processes, and left behind by a killed one
    os.environ["ROBUSTNESS_WORKER_DEVICE"] = device
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
    own = replace(kept, store=context.store, runtime=replace(context.runtime, device=device))
    return attempt(run, job, own, deadline, patient)
