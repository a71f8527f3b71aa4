"""Sweeps on a Dask cluster: a real scheduler, and worker processes that come, go and are killed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing.process
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import distributed
import pytest
import torch
import toys
from toys import context, stored, toy_job, toy_run, wait_for, write_bundle

from robustness_lib import cluster, sections
from robustness_lib.cluster import Cluster, connect
from robustness_lib.data import load
from robustness_lib.errors import UserError
from robustness_lib.networks import Context
from robustness_lib.profiles import PROFILES
from robustness_lib.records import Job, Metrics, Record, Store, code_revision
from robustness_lib.sweep import sweep

toys.CHILDREN.set_forkserver_preload(["robustness_lib.cli", "distributed"])

PLAIN = {"precision": "float32", "threads": 1}


# ---------------------------------------------------------------------------------------- processes


def scheduler_child(folder: Path) -> None:
    async def serve() -> None:
        async with distributed.Scheduler(port=0, host="127.0.0.1", dashboard=False) as scheduler:
            (folder / "address.new").write_text(scheduler.address)
            (folder / "address.new").rename(folder / "address")
            await scheduler.finished()

    _quietly(folder, "scheduler")
    asyncio.run(serve())


def worker_child(address: str, folder: Path, change: Callable[[], None] | None) -> None:
    async def serve() -> None:
        async with distributed.Worker(address, nthreads=4, local_directory=str(folder), dashboard=False) as worker:
            await worker.finished()

    torch.set_num_threads(1)
    _quietly(folder, "worker")
    os.environ["ROBUSTNESS_DATA"] = str(folder / "data")  # where there is nothing, unless a test puts it there
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
        self.folder, self.stack = folder, stack
        self.workers: list[multiprocessing.process.BaseProcess] = []
        folder.mkdir()
        self.scheduler = stack.enter_context(toys.child(scheduler_child, folder))
        wait_for((folder / "address").exists, 60)
        self.address = (folder / "address").read_text()
        self.client = stack.enter_context(distributed.Client(self.address, set_as_default=False))

    def start(self, count: int = 1, change: Callable[[], None] | None = None) -> list[Path]:
        """Start workers and wait for them; gives their folders."""
        folders = [self.folder / f"worker-{len(self.workers) + number}" for number in range(count)]
        for folder in folders:
            folder.mkdir()
            self.workers.append(self.stack.enter_context(toys.child(worker_child, self.address, folder, change)))
        self.client.wait_for_workers(len(self.alive()), timeout=60)
        return folders

    def alive(self) -> list[multiprocessing.process.BaseProcess]:
        return [worker for worker in self.workers if worker.is_alive()]

    def processes(self) -> set[float]:
        """The process ids of the workers, as jobs give them."""
        return {float(worker.pid or 0) for worker in self.alive()}

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
    """Two workers that run this library and have no data."""
    shared.reduce(2)
    shared.start(2 - len(shared.alive()))
    return shared


@pytest.fixture
def empty(shared: Dask) -> Iterator[Dask]:
    """No workers before and after."""
    shared.reduce()
    yield shared
    shared.reduce()


# ---------------------------------------------------------------------------------------- where jobs run


def look_around(job: Job, context: Context) -> Metrics:
    """Say where and when it ran."""
    began = time.monotonic()
    time.sleep(0.1)
    where = {"process": float(os.getpid()), "threads": float(torch.get_num_threads())}
    return where | {"began": began, "ended": time.monotonic()}


def test_every_worker_has_one_job_at_a_time(dask: Dask, tmp_path: Path) -> None:
    jobs = [toy_job(seed) for seed in range(8)]
    outcome = sweep(jobs, look_around, context(tmp_path), scheduler=dask.client)
    assert sorted(job.seed for job in outcome.recorded) == list(range(8))
    found = list(stored(tmp_path).values())
    assert {m["process"] for m in found} == dask.processes()
    assert {m["threads"] for m in found} == {4.0}  # those of the worker, which has one job only
    pairs = [(a, b) for a in found for b in found if a is not b and a["began"] <= b["began"] < a["ended"]]
    assert pairs  # some ran at the same time,
    assert all(a["process"] != b["process"] for a, b in pairs)  # but not in one worker
    assert sweep(jobs, look_around, context(tmp_path), scheduler=dask.client).skipped == jobs


def test_a_job_gives_the_numbers_of_a_local_run(dask: Dask, tmp_path: Path) -> None:
    jobs = [toy_job(0), toy_job(1), toy_job(2, method="diverge")]
    local, store = tmp_path / "local", tmp_path / "runs"
    sweep(jobs, toy_run, context(local))
    with connect(dask.client, context(store), **PLAIN) as cluster:
        outcome = sweep(jobs, toy_run, context(store), scheduler=cluster)
    assert {job.seed for job in outcome.recorded} == {0, 1}
    [(job, error)] = outcome.failed
    assert job.seed == 2
    assert "diverged" in error
    assert stored(store) == stored(local)
    [here, _], [record, _] = Store(local).records(), Store(store).records()
    kept = {name: record.provenance[name] for name in ("device", "precision", "threads", "revision", "versions")}
    assert kept == {name: here.provenance[name] for name in kept}
    assert kept["revision"] == code_revision()


# ---------------------------------------------------------------------------------------- what is sent

SHORT = {"epochs": 1, "batch_size": 20, "observations": 1, "train_images": 20}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, ...]]:
    """How often what was sent, instead of its checksum alone."""
    counts: Counter[tuple[str, ...]] = Counter()
    look_up = Cluster._look_up

    def counted(self: Cluster, wants: list[str], has: str | None) -> object:
        answer = look_up(self, wants, has)
        counts[tuple(wants)] += answer.content is not None
        return answer

    monkeypatch.setattr(Cluster, "_look_up", counted)
    return counts


def test_a_section_where_workers_have_neither_data_nor_checkpoint(
    dask: Dask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: Counter[tuple[str, ...]]
) -> None:
    smoke = PROFILES["smoke"]
    target = dataclasses.replace(smoke.targets["synthetic"], corpus="corpus", corpus_holds="corpus_60x5")
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(smoke, targets={"own": target}))
    write_bundle(tmp_path / "data", "own", 40, 4)
    write_bundle(tmp_path / "data", "corpus", 60, 5)
    local, there = (context(tmp_path / name, data=tmp_path / "data") for name in ("local", "runs"))
    overrides = {name: str(value) for name, value in SHORT.items()} | {"pretraining.epochs": "1"}
    selection = {"seeds": [0, 1], "overrides": overrides}
    planned, outcome = sections.measure_section("calibration", "smoke", local, **selection)
    assert len(outcome.recorded) == 8
    for name in ("own", "corpus"):
        for split in ("train", "test"):
            there.images(name, split)
    shutil.rmtree(tmp_path / "data")  # so that workers on this machine do not find it
    with connect(dask.client, there, **PLAIN) as cluster:
        _, outcome = sections.measure_section("calibration", "smoke", there, scheduler=cluster, **selection)
    assert (len(outcome.recorded), outcome.failed) == (8, [])

    results = stored(local.store), stored(there.store)
    for metrics in (metrics for result in results for metrics in result.values()):
        metrics.pop("training_seconds", None)
    assert results[0] == results[1]  # the pre-training, which was done on one worker, among them
    used = [[record.provenance["data"] for record in Store(place.store).records()] for place in (local, there)]
    assert used[0] == used[1]
    for folder in ("outputs/calibration", "checkpoints", "records/pretraining", "records/calibration"):
        names = [sorted(path.name for path in (place.store / folder).iterdir()) for place in (local, there)]
        assert names[0] == names[1]
        assert names[0]
    workers, checkpoint = 2, ("checkpoint", planned[1].init)
    assert sent[("images", "own", "train")] == sent[("images", "own", "test")] == workers  # for eight jobs
    assert 1 <= sent[checkpoint] <= workers  # for four
    assert sent[("images", "corpus", "train")] == 1
    assert not list(dask.folder.glob("worker-*/robustness-*"))  # nothing of it is left on the workers


def count_images(job: Job, context: Context) -> Metrics:
    data = context.images(job.dataset, "test")
    return {"images": float(len(data)), "process": float(os.getpid())}


def test_a_worker_uses_the_images_that_it_has(empty: Dask, tmp_path: Path, sent: Counter[tuple[str, ...]]) -> None:
    [folder] = empty.start()
    for root, name, classes in ((folder, "cifar10", 10), (folder, "own", 4), (tmp_path, "own", 4)):
        write_bundle(root / "data", name, 40, classes)
    jobs = [toy_job(dataset="cifar10"), toy_job(dataset="own")]  # the first only it has
    outcome = sweep(jobs, count_images, context(tmp_path, data=tmp_path / "data"), scheduler=empty.client)
    assert outcome.recorded == jobs
    for record in Store(tmp_path).records():
        name = record.job.dataset
        assert record.metrics["images"] == 40.0
        assert record.provenance["data"] == {f"{name}/test": load(name, "test", folder / "data").checksum}
    assert sent == {("images", name, "test"): 0 for name in ("cifar10", "own")}


def test_images_that_differ_are_an_error_and_images_that_nobody_has_are_another(empty: Dask, tmp_path: Path) -> None:
    [folder] = empty.start()
    write_bundle(folder / "data", "own", 40, 5)
    write_bundle(tmp_path / "data", "own", 40, 4)
    jobs = [toy_job(0, dataset="own"), toy_job(1, dataset="svhn")]
    outcome = sweep(jobs, count_images, context(tmp_path / "runs", data=tmp_path / "data"), scheduler=empty.client)
    assert [job for job, _ in outcome.failed] == jobs
    differing, missing = (error for _, error in outcome.failed)
    for root in (folder / "data", tmp_path / "data"):
        assert load("own", "test", root).checksum in differing
    assert "own/test on the worker tcp://" in differing
    assert f"{tmp_path / 'data' / 'svhn'} is missing" in missing
    assert "robustness data fetch svhn" in missing


# ---------------------------------------------------------------------------------------- workers come and go


def die_once(job: Job, context: Context) -> Metrics:
    """Kill the worker in the midst of job 0, the first time; leave a line in the folder that the data set names."""
    with open(Path(str(job.recipe["folder"])) / str(job.seed), "a") as file:
        file.write(f"{os.getpid()}\n")
    if job.seed == 0 and len((Path(str(job.recipe["folder"])) / "0").read_text().split()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return toy_run(job, context)


def test_a_killed_worker_costs_one_job_which_runs_elsewhere(dask: Dask, tmp_path: Path) -> None:
    jobs = [toy_job(seed, recipe={"folder": str(tmp_path)}) for seed in range(4)]
    sweep(jobs, toy_run, context(tmp_path / "local"))
    with connect(dask.client, context(tmp_path / "runs"), **PLAIN) as cluster:
        outcome = sweep(jobs, die_once, context(tmp_path / "runs"), scheduler=cluster)
    assert (len(outcome.recorded), outcome.failed) == (4, [])
    assert stored(tmp_path / "runs") == stored(tmp_path / "local")
    first, second = (tmp_path / "0").read_text().split()
    assert not toys.alive(int(first))
    assert toys.alive(int(second))
    assert [len((tmp_path / str(seed)).read_text().split()) for seed in (1, 2, 3)] == [1, 1, 1]


def die(job: Job, context: Context) -> Metrics:
    if job.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return toy_run(job, context)


def test_a_job_that_kills_its_workers_is_given_up(dask: Dask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LIVES", 2)
    dask.start()
    jobs = [toy_job(seed, method="nothing") for seed in range(6)]
    outcome = sweep(jobs, die, context(tmp_path), scheduler=dask.client)
    assert sorted(job.seed for job in outcome.recorded) == [0, 2, 3, 4, 5]
    [(job, error)] = outcome.failed
    assert job.seed == 1
    assert error.startswith("2 workers were lost while they measured it")
    assert len(dask.alive()) == 1


def test_a_worker_that_joins_is_used(
    empty: Dask, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 0.0)
    jobs = [toy_job(seed, method="nothing") for seed in range(2)]
    with ThreadPoolExecutor(1) as thread:
        outcome = thread.submit(sweep, jobs, toy_run, context(tmp_path), scheduler=empty.client)
        said = ""
        while "waiting" not in said:
            said += capsys.readouterr().err
        empty.start()
        assert outcome.result(60).recorded == jobs
    assert f"none of the 0 workers of {empty.address} is ready for a job yet; waiting" in said


def test_the_version_of_a_library_is_that_of_its_files(tmp_path: Path) -> None:
    sums = set()
    for name, content in (("a.py", "x = 1"), ("a.py", "x = 2"), ("b.py", ""), ("part/c.csv", "1,2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        sums.add(cluster.source_checksum(tmp_path))
    (tmp_path / "b.py").rename(tmp_path / "d.py")
    sums.add(cluster.source_checksum(tmp_path))
    assert len(sums) == 5
    (tmp_path / "a.pyc").write_text("made from a.py")
    assert cluster.source_checksum(tmp_path) in sums


def be_another_version() -> None:
    cluster.VERSION = "0" * 64


def be_older() -> None:
    del cluster.introduction


@pytest.mark.parametrize(
    ("change", "words"), [(be_another_version, "runs another (000000000000)"), (be_older, "has no")]
)
def test_a_worker_of_another_version_is_left_out(
    empty: Dask, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[], None], words: str
) -> None:
    empty.start(change=change)
    jobs = [toy_job(seed) for seed in range(4)]
    with pytest.raises(UserError, match="is left out") as refused:
        sweep(jobs, look_around, context(tmp_path), scheduler=empty.client)
    assert words in str(refused.value)
    assert "install the same version there" in str(refused.value)
    assert stored(tmp_path) == {}
    if change is be_older:
        return
    empty.start()
    sweep(jobs, look_around, context(tmp_path), scheduler=empty.client)
    assert {m["process"] for m in stored(tmp_path).values()} == {float(empty.alive()[1].pid or 0)}
    assert capsys.readouterr().err.count("is left out") == 1


# ---------------------------------------------------------------------------------------- the submitting side ends


def beat(job: Job, context: Context) -> Metrics:
    """Train without end, and show at every epoch that it still goes on."""

    def sampler(epoch: int, generator: torch.Generator) -> torch.Tensor:
        (Path(str(job.recipe["folder"])) / "beat").touch()
        return torch.arange(8)

    toys.run_training(dataclasses.replace(toys.RECIPE, epochs=10**6), sampler=sampler)
    return {}


def beat_child(address: str, folder: Path) -> None:
    sweep([toy_job(recipe={"folder": str(folder)})], beat, context(folder / "runs"), scheduler=address)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_what_runs_ends_with_the_submitting_process(dask: Dask, tmp_path: Path, end: signal.Signals) -> None:
    with toys.child(beat_child, dask.address, tmp_path) as child:
        wait_for((tmp_path / "beat").exists, 60)
        os.kill(child.pid or 0, end)
        child.join(30)
        assert child.exitcode not in (None, 0)
    quiet = [toy_job(seed) for seed in range(4)]
    sweep(quiet, look_around, context(tmp_path / "next"), scheduler=dask.client)  # on both, so what ran is over
    assert {m["process"] for m in stored(tmp_path / "next").values()} == dask.processes()
    (tmp_path / "beat").unlink()
    time.sleep(0.2)
    assert not (tmp_path / "beat").exists()
    assert list((tmp_path / "runs").rglob("*.json")) == []


def test_a_job_of_another_process_is_left_to_it(dask: Dask, tmp_path: Path) -> None:
    jobs = [toy_job(seed, method="nothing") for seed in range(2)]
    store = Store(tmp_path)
    with ThreadPoolExecutor(1) as thread:
        with store.lock(jobs[0], wait=True):
            outcome = thread.submit(sweep, jobs, look_around, context(tmp_path), scheduler=dask.client)
            wait_for(lambda: store.get(jobs[1]) is not None, 30)
            store.add(Record(jobs[0], {"theirs": 1.0}, {"seconds": 1.0}))
        assert outcome.result(30).recorded == jobs[::-1]
    assert stored(tmp_path)[jobs[0].key] == {"theirs": 1.0}


def test_without_time_nothing_starts_whether_there_are_workers_or_not(empty: Dask, tmp_path: Path) -> None:
    jobs = [toy_job(seed) for seed in range(2)]
    assert sweep(jobs, toy_run, context(tmp_path), scheduler=empty.client, time_budget=0.0).left == jobs
    began = time.monotonic()
    assert sweep(jobs, toy_run, context(tmp_path), scheduler=empty.client, time_budget=1.0).left == jobs
    assert time.monotonic() - began < 30


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "127.0.0.1:1", "nothing://127.0.0.1:8786", "tcp://no.such.host.invalid:8786"]
)
def test_a_scheduler_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(UserError, match="no Dask scheduler answers at") as error:
        sweep([toy_job()], toy_run, context(tmp_path), scheduler=address)
    assert time.monotonic() - began < 20
    assert repr(address) in str(error.value)
    assert "dask scheduler" in str(error.value)


def test_a_scheduler_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1.0)  # for as long the client tries again when it is closed
    with contextlib.ExitStack() as stack:
        dask = Dask(tmp_path / "dask", stack)
        dask.start()
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(
                sweep,
                [toy_job(recipe={"folder": str(tmp_path)})],
                beat,
                context(tmp_path / "runs"),
                scheduler=dask.address,
            )
            wait_for((tmp_path / "beat").exists, 60)
            dask.scheduler.kill()
            with pytest.raises(UserError, match="connection to the Dask scheduler was lost"):
                outcome.result(60)


def test_the_command_on_a_cluster(dask: Dask, tmp_path: Path) -> None:
    write_bundle(tmp_path / "data", "own", 40, 4)
    write_bundle(tmp_path / "data", "corpus", 60, 5)
    settings = [part for name, value in SHORT.items() for part in ("--set", f"{name}={value}")]
    place = ("--data-root", "data", "--precision", "float32", "--device", "cpu")
    made = toys.exit_code(toys.command_child, ("pretrain", "--corpus", "corpus", "--set", "epochs=1", *place), tmp_path)
    assert made == 0
    checkpoint = (tmp_path / "stdout").read_text().split()[0]
    chosen = ("--dataset", "own", "--seeds", "0", "--method", "standard", "--init", checkpoint, *settings, *place)
    run = ("run", "calibration", *chosen, "--scheduler")
    assert toys.exit_code(toys.command_child, (*run, dask.address), tmp_path) == 0
    assert (tmp_path / "stdout").read_text() == (
        "calibration: 2 recorded, 0 were recorded before; 'robustness show calibration' has the numbers\n"
    )
    assert {record.provenance["precision"] for record in Store(tmp_path / "runs").records("calibration")} == {"float32"}

    assert toys.exit_code(toys.command_child, (*run, "nothing://127.0.0.1:1", "--store", "other"), tmp_path) == 2
    [line] = (tmp_path / "stderr").read_text().splitlines()
    assert line.startswith("error: no Dask scheduler answers at 'nothing://127.0.0.1:1'")
    assert toys.exit_code(toys.command_child, (*run, dask.address, "--workers", "2"), tmp_path) == 2

    endless = ("--set", "tuned.epochs=1000000", "--set", "tuned.observations=0", "--store", "endless")
    with toys.child(toys.command_child, (*run, dask.address, *endless), tmp_path) as child:
        shutil.copytree(tmp_path / "runs" / "checkpoints", tmp_path / "endless" / "checkpoints", dirs_exist_ok=True)
        wait_for(lambda: len(Store(tmp_path / "endless").records()) == 1)
        os.kill(child.pid or 0, signal.SIGINT)
        child.join(60)
        assert child.exitcode == 130
    *_, last = (tmp_path / "stderr").read_text().splitlines()
    assert last == "interrupted: what was recorded is kept; run the same command again to go on"
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_dask_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'robustness-lib\[dask\]'"):
        sweep([toy_job()], toy_run, context(tmp_path), scheduler="tcp://127.0.0.1:1")
