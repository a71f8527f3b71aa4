"""Sweeps: what is recorded stays, whatever happens to the processes that work on it."""

import dataclasses
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Timer

import pytest
import torch
import toys
from toys import context, die, ran, stored, sweep_child, toy_job, toy_run, wait_for

from robustness_lib.errors import UserError
from robustness_lib.metrics import Metrics
from robustness_lib.runner.model_cache import Context, Training, trained
from robustness_lib.runner.records import Job, Record, Store
from robustness_lib.runner.sweep import default_workers, perform, sweep
from robustness_lib.training.device import Runtime, out_of_gpu_memory

QUICK = [toy_job(seed, method="nothing") for seed in range(4)]
TRAININGS = [toy_job(seed) for seed in range(8)]


def test_recorded_jobs_are_skipped(tmp_path: Path) -> None:
    first = sweep(QUICK[:2], toy_run, context(tmp_path))
    assert (first.recorded, first.skipped) == (QUICK[:2], [])
    second = sweep([*QUICK, QUICK[3]], toy_run, context(tmp_path))
    assert (second.recorded, second.skipped) == (QUICK[2:], QUICK[:2])
    assert [seed for seed, _ in ran(tmp_path)] == [0, 1, 2, 3]
    assert stored(tmp_path) == {job.key: {"seed": float(job.seed)} for job in QUICK}
    assert second.summary() == "2 recorded, 2 recorded before and not measured again"


def run_badly(job: Job, context: Context) -> Metrics:
    if job.seed == 0:
        raise UserError("the data are missing; fetch them")
    if job.seed == 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if job.seed == 4:
        raise ZeroDivisionError
    return {"loss": float("nan") if job.seed == 2 else 0.5}


def test_failing_jobs_do_not_stop_the_others_but_a_mistake_of_the_code_does(tmp_path: Path) -> None:
    recipe = {**TRAININGS[0].recipe, "learning_rate": 1e30}
    outcome = sweep([toy_job(1, recipe=recipe), QUICK[2]], toy_run, context(tmp_path / "a"))
    assert outcome.recorded == [QUICK[2]]
    assert "1 failed" in outcome.summary()
    with pytest.raises(UserError, match="the training diverged"):
        outcome.check()
    outcome = sweep(QUICK, run_badly, context(tmp_path / "b"))
    assert outcome.recorded == [QUICK[3]]
    assert [error.split(";")[0] for _, error in outcome.failed] == [
        "the data are missing",
        "the job ran out of GPU memory",
        "the metric loss is not finite but nan, so nothing was measured",
    ]
    assert list(stored(tmp_path / "b").values()) == [{"loss": 0.5}]
    with pytest.raises(ZeroDivisionError):
        sweep([toy_job(4), *QUICK], run_badly, context(tmp_path / "c"))
    assert stored(tmp_path / "c") == {}


def test_lack_of_gpu_memory_is_recognised() -> None:
    """Of the allocator, of CUDA graphs, of cuBLAS and of cuDNN."""
    alloc = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    others = ("CUDA error: out of memory\n…", alloc, "GET was unable to find an engine to execute this computation")
    assert all(map(out_of_gpu_memory, [torch.OutOfMemoryError("CUDA out of memory"), *map(RuntimeError, others)]))
    assert not out_of_gpu_memory(RuntimeError("another one"))


def test_a_record_says_in_which_way_it_could_not_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = dataclasses.replace(context(tmp_path).runtime, graphs=True, compile=True)
    asked = dataclasses.replace(context(tmp_path), runtime=fast)
    monkeypatch.setattr("robustness_lib.training.train_step.unavailable", {"graphs"})
    found = perform(toy_run, QUICK[0], asked).provenance
    assert (found["graphs"], found["compile"]) == (False, True)


@pytest.fixture
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes that have imported the library already."""
    monkeypatch.setattr(
        "robustness_lib.runner.sweep._start_process", lambda device: ProcessPoolExecutor(1, toys.CHILDREN)
    )


@pytest.mark.usefixtures("_forked")
@pytest.mark.parametrize("workers", [1, 2])
def test_no_job_is_started_that_would_not_end_in_time(tmp_path: Path, workers: int) -> None:
    """By the longest recorded job of its kind: another method, network or length says nothing about it."""
    kinds = [QUICK[0], toy_job(method="train"), toy_job(recipe={**QUICK[0].recipe, "epochs": 100})]
    for job, seconds in zip(kinds, (5e3, 1.0, 1e9), strict=True):
        for seed, share in ((98, 1.0), (99, 0.1)):
            took = Record(dataclasses.replace(job, seed=seed), {"x": 1.0}, {"seconds": seconds * share})
            Store(tmp_path).add(took)
    outcome = sweep([*QUICK, TRAININGS[0]], toy_run, context(tmp_path), time_budget=4000, workers=workers)
    assert sorted(job.seed for job in outcome.left) == [0, 1, 2, 3]
    assert outcome.recorded == [TRAININGS[0]]
    assert len(ran(tmp_path)) == 1
    assert "4 not started for lack of time" in outcome.summary()
    assert sweep(QUICK, toy_run, context(tmp_path), time_budget=400_000).recorded == QUICK


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor], ids=["here", "executor"])
def test_a_job_of_another_process_is_waited_for_as_long_as_there_is_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], executor: Callable[[int], Executor] | None
) -> None:
    with Store(tmp_path).lock(QUICK[0], wait=True), Store(tmp_path).lock(QUICK[2], wait=True):
        pool = executor(2) if executor else None
        started = time.monotonic()
        outcome = sweep(QUICK, toy_run, context(tmp_path), time_budget=2, executor=pool)
        assert time.monotonic() - started < 30
    assert sorted(job.seed for job in outcome.recorded) == [1, 3]
    assert sorted(job.seed for job in outcome.left) == [0, 2]
    said = [line for line in capfd.readouterr().err.splitlines() if "another process" in line]
    assert said == ["another process is measuring 2 jobs; this one waits for it"]


@pytest.mark.parametrize("recorded", [True, False])
def test_what_another_process_recorded_counts_and_what_it_gave_up_is_measured(tmp_path: Path, recorded: bool) -> None:
    lock = Store(tmp_path).lock(QUICK[0], wait=True)
    lock.__enter__()

    def release() -> None:
        if recorded:
            Store(tmp_path).add(Record(QUICK[0], {"theirs": 1.0}, {"seconds": 1.0}))
        lock.__exit__(None, None, None)

    timer = Timer(1.5, release)
    timer.start()
    outcome = sweep(QUICK[:2], toy_run, context(tmp_path), time_budget=60)
    timer.join()
    assert outcome.recorded == ([QUICK[1]] if recorded else [QUICK[1], QUICK[0]])
    assert outcome.skipped == ([QUICK[0]] if recorded else [])
    assert stored(tmp_path)[QUICK[0].key] == ({"theirs": 1.0} if recorded else {"seed": 0.0})


def test_killed_by_sigkill_nothing_recorded_is_lost_and_the_rest_comes_out_the_same(tmp_path: Path) -> None:
    calm, store = tmp_path / "calm", tmp_path / "runs"
    sweep(TRAININGS, toy_run, context(calm))
    with toys.child(sweep_child, TRAININGS, store, 1) as child:
        wait_for(lambda: len(stored(store)) >= 2)
        child.kill()
        child.join()
    before = stored(store)
    assert 2 <= len(before) < len(TRAININGS)
    assert Store(store).damaged() == []
    Store(store).path(TRAININGS[0]).write_bytes(b"{")  # what a full disk left counts as not recorded
    assert sweep(TRAININGS, toy_run, context(store)).recorded[0] == TRAININGS[0]
    assert stored(store) == stored(calm)


@pytest.mark.usefixtures("_forked")
def test_workers_measure_the_same(tmp_path: Path) -> None:
    calm, store = tmp_path / "calm", tmp_path / "runs"
    sweep(TRAININGS[:2], toy_run, context(calm))
    assert len(sweep(TRAININGS[:2], toy_run, context(store), workers=2).recorded) == 2
    assert os.getpid() not in {pid for _, pid in ran(store)}
    assert stored(store) == stored(calm)


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """Spawned ones, as a user has them."""
    quick, *asleep = (toy_job(seed, method="sleep" if seed else "nothing", recipe={}) for seed in (0, 50, 51))
    with toys.child(sweep_child, [quick, *asleep], tmp_path, 2) as parent:
        wait_for(lambda: {50, 51} <= {seed for seed, _ in ran(tmp_path)})
        workers = {pid for _, pid in ran(tmp_path)} - {parent.pid}
        assert len(workers) == 2
        parent.kill()
    wait_for(lambda: not any(toys.alive(pid) for pid in workers), 60)
    assert stored(tmp_path) == {quick.key: {"seed": 0.0}}

    def is_free(job: Job) -> bool:
        with Store(tmp_path).lock(job, wait=False) as free:
            return free

    wait_for(lambda: all(is_free(job) for job in asleep), 60)  # nothing is left that holds a lock


def meet(job: Job, context: Context) -> Metrics:
    """Begin no work before two processes are at it."""
    toy_run(job, context)
    wait_for(lambda: len({pid for _, pid in ran(context.store)}) == 2)
    return {"seed": float(job.seed)}


def meeting_child(jobs: list[Job], store: Path) -> None:
    sweep(jobs, meet, context(store))


def test_two_sweeps_on_one_store_divide_the_work(tmp_path: Path) -> None:
    jobs = [toy_job(seed, method="nothing") for seed in range(12)]
    with toys.child(meeting_child, jobs, tmp_path) as one, toys.child(meeting_child, jobs, tmp_path) as other:
        for process in (one, other):
            process.join(240)
            assert process.exitcode == 0
    assert sorted(seed for seed, _ in ran(tmp_path)) == list(range(12))  # each once
    assert len({pid for _, pid in ran(tmp_path)}) == 2
    assert stored(tmp_path) == {job.key: {"seed": float(job.seed)} for job in jobs}


def test_an_executor_is_used_fully_and_its_jobs_note_their_own_images_only(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for classes, name in enumerate(names, start=2):
        toys.write_bundle(tmp_path / "data", name, 40, classes)
    arrived = Barrier(3)

    def look(job: Job, context: Context) -> Metrics:
        images = context.images(job.dataset, "test")
        arrived.wait(60)
        return {"images": float(len(images))}

    jobs = [toy_job(dataset=name) for name in names]
    sweep(jobs, look, context(tmp_path, data=tmp_path / "data"), executor=ThreadPoolExecutor(3))
    used = {record.job.dataset: list(record.provenance["data"]) for record in Store(tmp_path).records()}
    assert used == {name: [f"{name}/test"] for name in names}


@pytest.mark.usefixtures("_forked")
def test_a_killed_worker_costs_its_job_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    jobs = [toy_job(seed, method="nothing") for seed in range(8)]
    outcome = sweep(jobs, die, context(tmp_path), workers=2)
    assert sorted(job.seed for job in outcome.recorded) == [0, 2, 3, 4, 5, 6, 7]
    [(job, error)] = outcome.failed
    assert job == jobs[1]
    assert error.startswith("the process that measured it was killed (out of memory?)")
    assert stored(tmp_path).keys() == {job.key for job in jobs if job.seed != 1}
    assert sweep(jobs, toy_run, context(tmp_path)).recorded == [jobs[1]]


def fail_or_sleep(job: Job, context: Context) -> Metrics:
    return run_badly(job, context) if job.seed == 4 else toy_run(job, context)


@pytest.mark.usefixtures("_forked")
def test_a_mistake_of_the_code_in_a_worker_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        sweep([toy_job(4), toy_job(50, method="sleep")], fail_or_sleep, context(tmp_path), workers=2)


def test_one_worker_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert default_workers(Runtime(device="cuda", threads=16, graphs=True)) == 2
    assert default_workers(Runtime(device="cuda:1", threads=16, graphs=True)) == 1


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu:1", "'cpu:1' but must be auto, cpu, cuda, or cuda:N"),
        ("cuda:01", "'cuda:01' but must be"),
        ("cuda:2", "the last GPU here is cuda:1"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, device: str, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=expected):
        Runtime.detect(device)
    assert Runtime.detect("cuda:1", "float32").device == "cuda:1"


def threads_used(job: Job, context: Context) -> Metrics:
    return {"used": float(torch.get_num_threads()), "recorded": float(context.runtime.threads)}


@pytest.mark.parametrize(
    ("workers", "architecture", "expected"), [(1, "wrn-16-1", 4), (2, "wrn-16-1", 2), (2, "wrn-10-1", 1)]
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_threads_depend_on_the_network_and_the_workers_but_not_on_how_many_jobs_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, workers: int, architecture: str, expected: int
) -> None:
    """Their number changes a result's last bits, and after a kill fewer jobs are left."""
    monkeypatch.setattr("robustness_lib.runner.sweep._processes", lambda *_: ThreadPoolExecutor(1))
    todo = [toy_job(seed, recipe={"architecture": architecture}) for seed in range(jobs)]
    before = torch.get_num_threads()
    sweep(todo, threads_used, context(tmp_path, runtime=Runtime(threads=4)), workers=workers)
    assert torch.get_num_threads() == before
    assert list(stored(tmp_path).values()) == [{"used": expected, "recorded": expected}] * jobs
    assert {record.provenance["threads"] for record in Store(tmp_path).records()} == {expected}


def run_shared(job: Job, context: Context) -> Metrics:
    recipe = dataclasses.replace(toys.RECIPE, observations=1)
    result = trained(Training(dataset="bundle", init="scratch", seed=0, recipe=recipe), context)
    return {"error": float(1 - result.correct[-1].mean())}


@pytest.mark.usefixtures("_forked")
def test_jobs_that_need_the_same_network_wait_for_each_other(tmp_path: Path) -> None:
    toys.write_bundle(tmp_path / "data", "bundle", 40, 4)
    outcome = sweep(QUICK, run_shared, context(tmp_path, data=tmp_path / "data"), workers=2)
    assert len(outcome.recorded) == 4
    assert len(list((tmp_path / "networks").glob("*.safetensors"))) == 1
    assert len({record.metrics["error"] for record in Store(tmp_path).records()}) == 1
