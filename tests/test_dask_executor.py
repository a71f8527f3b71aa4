"""Sweeps on a Dask cluster: a real scheduler, and worker processes that come, go and are killed."""

import asyncio
import contextlib
import io
import multiprocessing.process
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from toys import context, die, ran, stored, toy_job, toy_run, wait_for, write_bundle

from robustness_lib.errors import UserError
from robustness_lib.experiments import registry
from robustness_lib.runner import dask_executor
from robustness_lib.runner.dask_executor import connect
from robustness_lib.runner.records import Job, Store
from robustness_lib.runner.sweep import Outcome, Run, sweep

PLAIN = {"precision": "float32", "threads": 1}


def scheduler_child(folder: Path) -> None:
    import dask
    import distributed  # here and below, as only one process of the tests needs it

    async def serve() -> None:
        async with distributed.Scheduler(port=0, host="127.0.0.1", dashboard=False) as scheduler:
            (folder / "address.new").write_text(scheduler.address)
            (folder / "address.new").rename(folder / "address")
            await scheduler.finished()

    _quietly(folder, "scheduler")
    # a job has two lives, and no worker is given a second job that would lose one of its own with the first
    dask.config.set({f"distributed.scheduler.{k}": v for k, v in (("allowed-failures", 1), ("worker-saturation", 1.0))})
    asyncio.run(serve())


def worker_child(address: str, folder: Path, change: Callable[[], None] | None, threads: int) -> None:
    import distributed

    async def serve() -> None:
        async with distributed.Worker(
            address, nthreads=threads, local_directory=str(folder), dashboard=False
        ) as worker:
            await worker.finished()

    torch.set_num_threads(1)
    _quietly(folder, "worker")
    if change is not None:
        change()
    asyncio.run(serve())


def _quietly(folder: Path, name: str) -> None:
    """In a folder of its own, and with its log there."""
    os.chdir(folder)
    for stream in (1, 2):
        os.dup2(os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)


class Dask:
    """A scheduler, and the workers that a test asks for."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        import distributed

        self.folder, self.stack = folder, stack
        self.workers: list[multiprocessing.process.BaseProcess] = []
        folder.mkdir()
        self.scheduler = stack.enter_context(toys.child(scheduler_child, folder))
        wait_for((folder / "address").exists, 60)
        self.address = (folder / "address").read_text()
        self.client = stack.enter_context(distributed.Client(self.address, set_as_default=False))

    def start(self, count: int = 1, change: Callable[[], None] | None = None, threads: int = 1) -> None:
        """Start workers and wait for them."""
        folders = [self.folder / f"worker-{len(self.workers) + number}" for number in range(count)]
        for folder in folders:
            folder.mkdir()
            self.workers.append(
                self.stack.enter_context(toys.child(worker_child, self.address, folder, change, threads))
            )
        self.client.wait_for_workers(len(self.alive()), timeout=60)

    def alive(self) -> list[multiprocessing.process.BaseProcess]:
        return [worker for worker in self.workers if worker.is_alive()]

    def reduce(self, count: int = 0) -> None:
        """End workers until no more than so many are left."""
        for worker in self.alive()[count:]:
            worker.kill()
            worker.join()
        wait_for(lambda: len(self.client.scheduler_info(n_workers=-1)["workers"]) == len(self.alive()), 60)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with contextlib.ExitStack() as stack:
        yield Dask(tmp_path_factory.mktemp("cluster") / "dask", stack)


@pytest.fixture
def dask(shared: Dask) -> Dask:
    """Two workers."""
    shared.reduce(2)
    shared.start(2 - len(shared.alive()))
    return shared


@pytest.fixture
def empty(shared: Dask) -> Iterator[Dask]:
    """No workers before and after."""
    shared.reduce()
    yield shared
    shared.reduce()


def on(dask: Dask, jobs: Sequence[Job], run: Run, store: Path, **options: object) -> Outcome:
    with connect(dask.client, **PLAIN) as executor:
        return sweep(jobs, run, context(store), executor=executor, **options)


def test_a_job_gives_the_numbers_of_a_local_run(dask: Dask, tmp_path: Path) -> None:
    jobs = [toy_job(0), toy_job(1, recipe={**toy_job().recipe, "learning_rate": 1e30})]
    local, store = tmp_path / "local", tmp_path / "runs"
    sweep(jobs, toy_run, context(local))
    outcome = on(dask, jobs, toy_run, store)
    assert outcome.recorded == jobs[:1]
    [(job, error)] = outcome.failed
    assert job == jobs[1]
    assert "diverged" in error
    assert stored(store) == stored(local)
    [here], [record] = Store(local).records(), Store(store).records()
    kept = {name: record.provenance[name] for name in ("device", "precision", "threads", "revision", "versions")}
    assert kept == {name: here.provenance[name] for name in kept}


def test_the_command_on_a_cluster(dask: Dask, tmp_path: Path) -> None:
    """Pre-training included; paths of the command are those of the folder that it was given in."""
    write_bundle(tmp_path / "data", "own", 40, 4)
    short = {"epochs": 1, "batch_size": 20, "observations": 1, "train_images": 20, "pretraining.epochs": 1}
    short["pretraining.train_images"] = 40
    settings = [part for name, value in short.items() for part in ("--set", f"{name}={value}")]
    place = ("--data-root", "data", "--precision", "float32", "--device", "cpu", "--threads", "1")
    chosen = ("--dataset", "own", "--seeds", "0", "--method", "standard", *settings, *place)
    run = ("run", "calibration", *chosen, "--scheduler", dask.address)
    assert toys.exit_code(toys.command_child, run, tmp_path) == 0
    assert (tmp_path / "stdout").read_text() == (
        "calibration: 2 recorded; 'robustness show calibration --profile smoke' has the numbers\n"
    )
    assert len(list((tmp_path / "runs" / "outputs" / "calibration").iterdir())) == 2
    assert len(Store(tmp_path / "runs").records("pretraining")) == 1


def test_workers_of_this_machine_and_of_a_cluster_are_not_asked_for_together(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match="leave one of the two out"):
        registry.measure_section("calibration", "smoke", context(tmp_path), executor=pool, workers=2)


def test_a_killed_worker_costs_its_job_alone_which_dask_runs_again(dask: Dask, tmp_path: Path) -> None:
    dask.start(6)  # eight, so that no job waits on a worker that another kills, which would cost it a life
    outcome = on(dask, [toy_job(seed, method="nothing") for seed in range(6)], die, tmp_path)
    assert sorted(job.seed for job in outcome.recorded) == [0, 2, 3, 4, 5]
    [(job, error)] = outcome.failed
    assert job.seed == 1
    assert "was killed" in error
    times = Counter(seed for seed, _ in ran(tmp_path))
    assert times[2] == 2  # the scheduler of these tests gives a job two lives
    assert 1 <= times[1] <= 2  # Dask also counts the death of a worker on which a job only waits
    wait_for(lambda: len(dask.alive()) == 8 - 1 - times[1], 60)


def test_a_worker_that_joins_is_used(empty: Dask, tmp_path: Path) -> None:
    jobs = [toy_job(seed, method="nothing") for seed in range(2)]
    # capsys would lose what is printed while it is read
    with ThreadPoolExecutor(1) as thread, contextlib.redirect_stderr(io.StringIO()) as said:
        outcome = thread.submit(on, empty, jobs, toy_run, tmp_path)
        wait_for(lambda: "waiting" in said.getvalue(), 60)
        empty.start()
        assert sorted(job.seed for job in outcome.result(120).recorded) == [0, 1]
    assert f"{empty.address} has no workers yet; waiting for one" in said.getvalue()


def be_another_version() -> None:
    dask_executor.REVISION = "0" * 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"change": be_another_version}, "it runs the code 000000000000, not"),
        ({"threads": 4}, "would have 4 jobs at once; start workers with --nthreads 1"),
    ],
)
def test_an_unfit_worker_is_refused(empty: Dask, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    empty.start(**options)
    with pytest.raises(UserError, match=words):
        on(empty, [toy_job()], toy_run, tmp_path)
    assert stored(tmp_path) == {}


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nothing://127.0.0.1:8786"])
def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(dask_executor, "CONNECT_SECONDS", 0.5)
    with pytest.raises(UserError, match=f"no Dask scheduler answers at {address!r}.* 'dask scheduler'"):
        connect(address).__enter__()


def test_a_scheduler_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_executor, "CONNECT_SECONDS", 1.0)  # for as long the client tries again when it is closed
    with contextlib.ExitStack() as stack:
        dask = Dask(tmp_path / "dask", stack)
        dask.start()
        with ThreadPoolExecutor(1) as thread, connect(dask.address, **PLAIN) as executor:
            jobs = [toy_job(0, method="nothing"), toy_job(1, method="sleep")]
            outcome = thread.submit(sweep, jobs, toy_run, context(tmp_path / "runs"), executor=executor)
            wait_for(lambda: len(ran(tmp_path / "runs")) == 2, 60)
            dask.scheduler.kill()
            with pytest.raises(UserError, match="has the Dask scheduler ended"):
                outcome.result(60)
    assert stored(tmp_path / "runs") == {jobs[0].key: {"seed": 0.0}}


def test_dask_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'robustness-lib\[dask\]'"), connect("tcp://127.0.0.1:1"):
        pass
