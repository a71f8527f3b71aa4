"""The benchmarks compare like with like, count rightly, and record what they measured once."""

import importlib
import itertools
import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from robustness_lib.errors import UserError
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import WideResNet, build
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import Job, Record, Store, load_published, publish
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.device import Runtime
from robustness_lib.training.trainer import predict

sys.path.insert(0, str(Path(__file__).parents[1]))  # the benchmarks are no part of the installed package
NAMES = ("clock", "__main__", "counting", "detection", "measurements", "plan", "textbook")
clock, command, counting, detection, measurements, plan, textbook = (
    importlib.import_module(f"benchmarks.{name}") for name in NAMES
)

CPU = Runtime(threads=1)


def setting(**changes: object) -> Any:
    where = {"device": "a CPU", "threads": 1, "precision": "float32", "compile": False, "graphs": False}
    tiny = {"architecture": "wrn-10-1", "batch_size": 4, "train_images": 8, "epochs": 2, "observations": 2, "rounds": 2}
    return plan.Setting(**(where | tiny | changes))


def job(method: str, **changes: object) -> Job:
    fields = {"section": "cost", "profile": "cpu", "dataset": "random", "init": "scratch", "level": None, "seed": 0}
    return Job(method=method, recipe=setting(**changes).as_dict(), **fields)


def context(store: Path, runtime: Runtime = CPU) -> Context:
    return Context(store=store, runtime=runtime, progress=False)


def in_this_process() -> Executor:
    return ThreadPoolExecutor(1)


@pytest.fixture(autouse=True)
def _keep_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting it before every run takes seconds in a process that has tested much."""
    monkeypatch.setattr(clock, "forget_peak", lambda device: None)


def test_operations_and_bytes_of_a_linear_layer_are_those_counted_by_hand() -> None:
    weight, inputs = torch.ones(5, 7, requires_grad=True), torch.ones(3, 7)
    product = 2 * 3 * 5 * 7
    moved = 4 * (3 * 7 + 7 * 5 + 3 * 5)
    assert counting.count(lambda: inputs @ weight.t()) == (product, moved)

    def backwards() -> None:
        torch.autograd.backward(inputs @ weight.t(), torch.ones(3, 5))

    ones = 4 * 3 * 5
    flops, traffic = counting.count(backwards)
    assert flops == 2 * product  # the inputs need no gradient
    assert traffic == moved + ones + moved  # the gradient from outside; then read it and the inputs, write the weight's


def test_operations_of_wide_resnets_are_the_known_ones() -> None:
    """By hand for one block; WRN-40-2 has 0.33, WRN-28-10 5.2 thousand million multiply-adds (Zagoruyko, Komodakis)."""

    def of(architecture: str, work: str) -> float:
        recipe = TrainingConfig(architecture=architecture, batch_size=2, attack_steps=3)
        return float(counting.count_step(work, recipe, "float32", classes=10)[0] / 2)

    def convolution(kernel: int, ins: int, outs: int, side: int) -> int:
        return 2 * kernel**2 * ins * outs * side**2

    first = convolution(3, 3, 16, 32)
    rest = convolution(3, 16, 16, 32) * 2 + convolution(3, 16, 32, 16) + convolution(3, 32, 32, 16)
    rest += convolution(3, 32, 64, 8) + convolution(3, 64, 64, 8)
    rest += convolution(1, 16, 32, 16) + convolution(1, 32, 64, 8) + 2 * 64 * 10
    assert of("wrn-10-1", "evaluation") == first + rest
    assert of("wrn-10-1", "training") == 2 * first + 3 * rest  # images need no gradient
    assert of("wrn-10-1", "adversarial training") == 3 * (2 * first + 2 * rest) + 2 * first + 3 * rest
    assert of("wrn-40-2", "evaluation") / 2e9 == pytest.approx(0.33, abs=0.005)
    assert of("wrn-28-10", "evaluation") / 2e9 == pytest.approx(5.2, abs=0.05)


@pytest.fixture
def updates() -> Iterator[list[dict[str, Any]]]:
    """What every update of any optimiser and any Wide ResNet is made with, in order."""
    seen: list[dict[str, Any]] = []
    batches: list[torch.Tensor] = []

    def before_forward(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, WideResNet):
            batches.append(inputs[0].detach().clone())

    def before_step(optimiser: torch.optim.Optimizer, *_: object) -> None:
        group = optimiser.param_groups[0]
        settings = {name: float(group[name]) for name in ("lr", "momentum", "weight_decay", "nesterov")}
        seen.append(settings | {"batches": list(batches), "parameters": sum(p.numel() for p in group["params"])})
        batches.clear()

    hooks = [
        nn.modules.module.register_module_forward_pre_hook(before_forward),
        register_optimizer_step_pre_hook(before_step),
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def both_sides(method: str, updates: list[dict[str, Any]], **changes: object) -> list[list[dict[str, Any]]]:
    """The updates of two epochs of the textbook, then of the library; the clock of both ticks after each."""
    chosen, found = setting(crop_padding=0, train_images=10, **changes), []
    for side in (measurements.by_textbook(method, chosen, "cpu", 0), measurements.library(method, chosen, CPU)):
        updates.clear()
        watch = clock.Clock("cpu")
        side(watch, 2)
        assert [len(ticks) for ticks in watch.ends.values()] == [2]
        found.append(list(updates))
    return found


def test_both_loops_do_the_same_updates_on_the_same_images(updates: list[dict[str, Any]]) -> None:
    theirs, ours = both_sides("training", updates)
    for name in ("momentum", "weight_decay", "nesterov", "parameters"):
        assert len({step[name] for step in (*theirs, *ours)}) == 1
    rates = [[step["lr"] for step in steps] for steps in (theirs, ours)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)
    assert rates[0][-1] == pytest.approx(1e-6, rel=1e-9)
    up_to_a_flip = []
    for steps in (theirs, ours):
        assert [len(batch) for step in steps for batch in step["batches"]] == [4, 4, 2] * 2
        seen = torch.cat([batch for step in steps for batch in step["batches"]])
        up_to_a_flip.append((seen + seen.flip(3)).sum((2, 3)).sort(0).values)
    torch.testing.assert_close(*up_to_a_flip)
    pixels = measurements.random_images(10).images.double().sum((2, 3))
    expected = (2 * pixels / 127.5 - 2 * 32 * 32).sort(0).values.repeat_interleave(2, 0)
    torch.testing.assert_close(up_to_a_flip[0].double(), expected, rtol=1e-4, atol=1e-2)


def test_both_loops_attack_the_same_images_equally_often(updates: list[dict[str, Any]]) -> None:
    theirs, ours = both_sides("adversarial training", updates)
    whole = []
    for steps in (theirs, ours):
        assert [len(step["batches"]) for step in steps] == [10 + 1] * 6
        assert all(batch.min() >= -1 and batch.max() <= 1 for step in steps for batch in step["batches"])
        # the images move by at most 16/255 of the network's range during an attack, from one to another
        moved = max(float((b - step["batches"][0]).abs().max()) for step in steps for b in step["batches"])
        assert 2 * 8 / 255 < moved <= 4 * 8 / 255 + 1e-5
        whole.append(torch.cat([step["batches"][0] for step in steps]).sum((1, 2, 3)).sort().values)
    assert [step["lr"] for step in theirs] == pytest.approx([step["lr"] for step in ours], rel=1e-9)
    torch.testing.assert_close(whole[0], whole[1], rtol=0.02, atol=10.0)  # up to the random start


def test_both_evaluations_give_the_same_accuracy() -> None:
    images, recipe = measurements.random_images(40), TrainingConfig(batch_size=16)
    network = build("wrn-10-1", 10, seed=0)
    batches = textbook.loader(images, recipe, "cpu", 0, augmented=False)
    logits = predict(network, images, "half", CPU)
    assert textbook.evaluate(network, batches, "cpu") == float((logits.argmax(1) == images.labels).double().mean())


def test_several_networks_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "FRESH", toys.CHILDREN)
    watch = clock.Clock("cpu")
    with measurements.side_of_many(setting(networks=2, way="processes"), CPU) as side:
        side(watch, 2)
    assert {number: len(ticks) for number, ticks in watch.ends.items()} == {0: 2, 1: 2}
    assert all(a < b for ticks in watch.ends.values() for a, b in itertools.pairwise(ticks))


def test_time_in_which_any_network_works_is_counted_once() -> None:
    assert clock.covered([(0, 2), (1, 3), (1.5, 2), (5, 6)]) == 4
    watch = clock.Clock("cpu")
    watch.ends = {0: [1.0, 2.0, 3.0], 1: [11.0, 12.0, 13.0]}  # one after the other, with a pause
    assert watch.busy() == 4
    watch.ends = {0: [1.0, 3.0], 1: [1.5, 3.5]}  # at the same time
    assert watch.busy() == 2.5


def test_sides_run_in_turn_and_the_ratio_is_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up clock: our epochs take 1, 1 and 2 seconds, the others' 4, 5 and 6; ours starts in 7, then in half."""
    now, order = [0.0], []
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    paces = {"ours": iter([1.0, 1.0, 1.0, 2.0]), "theirs": iter([4.0, 4.0, 5.0, 6.0])}

    def side(name: str) -> Any:
        def work(watch: Any, epochs: int) -> None:
            order.append((name, epochs))
            pace = next(paces[name])
            if name == "ours":
                now[0] += 7 if len(order) == 1 else 0.5
            for _ in range(epochs):
                now[0] += pace
                watch.tick()

        return work

    measured = clock.compare(side("ours"), side("theirs"), images=60, epochs=3, rounds=3, device="cpu")
    assert order == [("ours", 1), ("theirs", 1), *[("theirs", 3), ("ours", 3)] * 3]
    assert measured["images_per_second_by_round"] == [60, 60, 30]
    assert measured["baseline_images_per_second_by_round"] == [15, 12, 10]
    assert (measured["images_per_second"], measured["baseline_images_per_second"]) == (60, 12)
    assert measured["ratio_by_round"] == [4, 5, 3]
    assert [measured[name] for name in ("ratio", "ratio_min", "ratio_max")] == [4, 3, 5]
    assert (measured["start_seconds"], measured["restart_seconds"]) == (7, 0.5)
    assert "peak_bytes" not in measured  # this process has done other things before


def test_detection_measures_every_score_set_and_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []
    monkeypatch.setattr(detection, "detection_metrics", lambda inside, outside, **_: sides.append((inside, outside)))
    sizes = {"id_images": 30, "ood_images": 7, "sets": 3, "draws": 2, "reference": 10, "features": 4, "classes": 5}
    wanted = replace(job(plan.DETECTION), recipe={**sizes, "rounds": 2, "precision": "float32"})
    measured = measurements.run(wanted, context(tmp_path))
    assert len(sides) == 2 * len(detection.SCORES) * 3 * 2
    assert {(len(inside), len(outside)) for inside, outside in sides} == {(30, 7)}
    assert len(measured["seconds_by_round"]) == 2
    assert 0 < min(measured["seconds_by_round"]) <= measured["seconds"] <= max(measured["seconds_by_round"])
    record = Record(wanted, measured, {})
    assert command.line(record) == f"all scores and measures in {measured['seconds']:.2f} s"


def test_a_way_that_the_library_fell_back_from_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall_back(*_: object) -> None:
        warnings.warn("training runs without CUDA graphs, more slowly but to the same result: no", stacklevel=1)

    monkeypatch.setattr(measurements.ceilings, "measure", lambda *_, **__: fall_back())
    wanted = replace(job("ceilings"), recipe={"matrix": 1, "copied": 4, "rounds": 1, "precision": "float32"})
    with pytest.raises(UserError, match="not possible here: training runs without CUDA graphs"):
        measurements.run(wanted, context(tmp_path))


def gpu(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    return Runtime(device="cuda", precision="bfloat16", threads=16, compile=True, graphs=True)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_plan_has_every_measurement_once_with_all_it_depends_on(on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = gpu(monkeypatch) if on_gpu else Runtime(precision="bfloat16", threads=2)
    jobs = plan.jobs(runtime, rounds=4)
    assert len({plan.name(one) for one in jobs}) == len(jobs) == len({one.key for one in jobs})
    assert {one.profile for one in jobs} == {"paper" if on_gpu else "cpu"}
    assert {one.recipe["device"] for one in jobs} == {runtime.describe()["device"]}
    trainings = [one.recipe for one in jobs if one.method == "training"]
    assert {r["precision"] for r in trainings} == {"bfloat16", "float32"}
    assert {"wrn-40-2", "wrn-28-10"} <= {r["architecture"] for r in trainings}
    assert {"ceilings", "detection", "training", "adversarial training", "evaluation"} < {one.method for one in jobs}
    for one in jobs:
        assert plan.runtime_of(one, runtime).describe()["precision"] == one.recipe["precision"]
        if one.method in plan.IMAGES["cpu"] and one.method != "networks at once":
            workers = plan.workers_job(one.method, one.recipe["architecture"], runtime)
            assert jobs.index(workers) < jobs.index(one)  # the workers' best number is measured first


ARGUMENTS = ("--device", "cpu", "--threads", "1")


def test_a_measurement_is_recorded_once_and_can_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "IMAGES", {"cpu": {method: {"wrn-10-1": 8} for method in plan.IMAGES["cpu"]}})
    wanted = [job("training")]
    monkeypatch.setattr(plan, "jobs", lambda runtime, *, rounds: wanted)
    monkeypatch.setattr(plan, "worker_counts", lambda: [0])
    arguments = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"), *ARGUMENTS]
    assert command.command(arguments, in_this_process) == 0
    printed = capsys.readouterr().out
    assert "1 recorded, 0 were recorded before" in printed
    store = Store(tmp_path / "store")
    for one in wanted:
        record = store.get(one)
        assert record is not None
        metrics = record.metrics
        assert len(metrics["images_per_second_by_round"]) == len(metrics["ratio_by_round"]) == 2
        assert metrics["ratio_min"] <= metrics["ratio"] <= metrics["ratio_max"]
        assert metrics["workers"] == 0
        assert metrics["flops_per_image"] > metrics["bytes_per_image"] > 1e6
        assert (
            f"{plan.name(one)}: {metrics['images_per_second']:,.0f} images/s, {metrics['ratio']:.2f} times" in printed
        )
    assert {r.job.method for r in store.records("cost") if r.job not in wanted} == {"loader workers"}

    assert command.command(arguments, in_this_process) == 0
    assert "0 recorded, 1 were recorded before" in capsys.readouterr().out
    assert {record.job.key for record in Store(tmp_path / "out").records("cost")} >= {one.key for one in wanted}
    publish(store.records(), tmp_path / "book")
    assert {record.job.key for record in load_published("cost", tmp_path / "book")} >= {one.key for one in wanted}


def quick(job: Job, context: Context) -> Metrics:
    """Instead of measuring."""
    if job.recipe["networks"] == 13:
        os._exit(9)
    if job.recipe["networks"] == 3:
        raise UserError("this network is not to be had; choose another")
    if job.recipe["networks"] == 4:
        raise RuntimeError("CUDA error:\n  something")
    return {"images_per_second": 1.0, "ratio": 1.0, "ratio_min": 1.0, "ratio_max": 1.0}


def test_a_failing_measurement_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "run", quick)
    jobs = [job("networks at once", networks=number, way="processes") for number in (3, 4, 13, 2)]
    monkeypatch.setattr(plan, "jobs", lambda runtime, *, rounds: jobs)
    arguments = ["--store", str(tmp_path), *ARGUMENTS]
    assert command.command(arguments, lambda: ProcessPoolExecutor(1, toys.CHILDREN)) == 1
    assert [record.job for record in Store(tmp_path).records()] == jobs[3:]
    printed = capsys.readouterr().out
    assert "3 processes float32: failed: this network is not to be had; choose another" in printed
    assert "4 processes float32: failed: RuntimeError: CUDA error: something" in printed
    assert "13 processes float32: failed: the process that measured it was killed (out of memory?)" in printed
