"""What is measured, in a sensible order: what matters most comes first, since time may run out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustness_lib.runner.records import SCRATCH, Job
from robustness_lib.training.config import TrainingConfig
from robustness_lib.training.device import Runtime

SECTION = "cost"
TRAINING, ADVERSARIAL, EVALUATION = "training", "adversarial training", "evaluation"
AT_ONCE, WORKERS, CEILINGS = "networks at once", "loader workers", "ceilings"
DETECTION = "detection"


@dataclass(frozen=True, kw_only=True)
class Setting(TrainingConfig):
    """A training that is timed: the recipe (``train_images`` is an epoch) and all else that its speed depends on.

    Attributes:
        device: Name of the device.
        threads: CPU threads.
        precision: ``"bfloat16"`` or ``"float32"``; of the library's loop, the textbook's is float32.
        compile: Whether the library compiles the network.
        graphs: Whether the library records steps as CUDA graphs.
        networks: Networks that are trained.
        way: ``"alone"``, or several networks in ``"processes"`` that share the device.
        work: What the loader's workers feed, where their number is what is measured.
        workers: Numbers of workers tried, separated by commas.
        rounds: How often each side is measured.
    """

    device: str
    threads: int
    precision: str
    compile: bool
    graphs: bool
    networks: int = 1
    way: str = "alone"
    work: str = ""
    workers: str = ""
    rounds: int


IMAGES = {
    "cpu": {
        TRAINING: {"wrn-16-1": 2560, "wrn-40-2": 512, "wrn-28-10": 128},
        ADVERSARIAL: {"wrn-16-1": 256, "wrn-40-2": 128},
        EVALUATION: {"wrn-16-1": 5120, "wrn-40-2": 1024, "wrn-28-10": 128},
        AT_ONCE: {"wrn-16-1": 640},
    },
    "cuda": {
        TRAINING: {"wrn-40-2": 50_000, "wrn-28-10": 12_800, "wrn-16-1": 50_000},
        ADVERSARIAL: {"wrn-40-2": 6_400, "wrn-28-10": 2_560},
        EVALUATION: {"wrn-40-2": 50_000, "wrn-28-10": 25_600},
        AT_ONCE: {"wrn-40-2": 12_800},
    },
}
"""Images of one epoch, by kind of device: one round takes seconds."""

ROUNDS = {"cpu": 3, "cuda": 5}
CEILING_SIZES = {"cpu": (2048, 2**28), "cuda": (8192, 2**32)}
"""Rows of a matrix, and bytes copied."""

DETECTED = {
    "id_images": 10_000,
    "ood_images": 2000,
    "sets": 8,
    "draws": 5,
    "reference": 5000,
    "features": 128,
    "classes": 100,
}
"""What out-of-distribution detection scores at the ``paper`` profile, on CIFAR-100 with WRN-40-2."""


def jobs(runtime: Runtime, *, rounds: int | None = None) -> list[Job]:
    """All measurements for one device, in order.

    Args:
        runtime: The best that the device has; variants of it are measured too.
        rounds: How often each side is measured; None for the device's own number.

    Returns:
        The jobs; their recipes say everything, the device's name included.
    """
    found: dict[str, Job] = {}
    for job in _in_order(runtime, rounds or ROUNDS[_kind(runtime)]):
        found.setdefault(job.key, job)
    return list(found.values())


def name(job: Job) -> str:
    """A measurement in a few words, for example ``training wrn-40-2 bfloat16 compiled``."""
    recipe = job.recipe
    words = [job.method, recipe.get("architecture"), recipe.get("work")]
    if job.method == AT_ONCE:
        words += [f"{recipe['networks']} {recipe['way']}"]
    if job.method != WORKERS:
        words += [
            recipe["precision"],
            "compiled" if recipe.get("compile") else "",
            "graphs" if recipe.get("graphs") else "",
        ]
    return " ".join(str(word) for word in words if word)


def runtime_of(job: Job, runtime: Runtime) -> Runtime:
    """The runtime that a job is measured with."""
    recipe = job.recipe
    compiled, graphs = bool(recipe.get("compile")), bool(recipe.get("graphs"))
    return replace(runtime, precision=str(recipe["precision"]), compile=compiled, graphs=graphs)


def plain(runtime: Runtime) -> Runtime:
    """What the textbook runs with: float32, op by op."""
    return replace(runtime, precision="float32", compile=False, graphs=False)


def worker_counts() -> list[int]:
    """0 and the powers of 2 up to the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [0, *(2**k for k in range(cores.bit_length()))]


def workers_job(method: str, architecture: str, runtime: Runtime) -> Job:
    """How many workers of its loader make the textbook loop fastest.

    Args:
        method: What the textbook loop does; adversarial training takes what is best for training.
        architecture: The network.
        runtime: The device.
    """
    work = EVALUATION if method == EVALUATION else TRAINING
    images = IMAGES[_kind(runtime)][work].get(architecture, 128)
    counts = ",".join(map(str, worker_counts()))
    changes = {"train_images": max(128, images // 8), "work": work, "workers": counts}
    return _job(WORKERS, architecture, plain(runtime), 1, **changes)


def ceilings_job(runtime: Runtime, rounds: int) -> Job:
    """The device's ceilings in the runtime's precision."""
    matrix, copied = CEILING_SIZES[_kind(runtime)]
    where = runtime.describe()
    recipe = {name: where[name] for name in ("device", "threads", "precision")}
    return _of(runtime, CEILINGS, {**recipe, "matrix": matrix, "copied": copied, "rounds": rounds})


def detection_job(runtime: Runtime, rounds: int) -> Job:
    """All scores and measures of out-of-distribution detection, which are computed on the CPU."""
    where = runtime.describe()
    recipe = {name: where[name] for name in ("device", "threads", "precision")}
    return _of(runtime, DETECTION, {**recipe, **DETECTED, "rounds": rounds})


def _in_order(runtime: Runtime, rounds: int) -> Iterator[Job]:
    on_gpu = _kind(runtime) == "cuda"
    main, large = ("wrn-40-2", "wrn-28-10") if on_gpu else ("wrn-16-1", "wrn-40-2")
    best, others = _variants(runtime)
    evaluated = plain(runtime)

    def compared(method: str, architecture: str, variants: Sequence[Runtime]) -> Iterator[Job]:
        yield workers_job(method, architecture, runtime)
        for variant in variants:
            yield _job(method, architecture, variant, rounds)

    for precision in dict.fromkeys((runtime.precision, "float32")):
        yield ceilings_job(replace(runtime, precision=precision), rounds)
    yield from compared(TRAINING, main, [best])
    yield from compared(ADVERSARIAL, large, [best])
    yield from compared(TRAINING, main, others)
    yield from compared(TRAINING, large, [best, *others])
    for many in (2, 4, 8) if on_gpu else (max(2, runtime.threads),):
        yield _job(AT_ONCE, main, best, rounds, networks=many, way="processes")
    yield from compared(ADVERSARIAL, main, [best])
    for architecture in (main, large):
        yield from compared(EVALUATION, architecture, [evaluated])
    yield detection_job(evaluated, rounds)
    for architecture in (large, main):
        yield from compared(ADVERSARIAL, architecture, others[-1:])
    if on_gpu:
        yield from compared(TRAINING, "wrn-16-1", [best])
    else:
        yield from compared(TRAINING, "wrn-28-10", [best, *others[-1:]])
        yield from compared(EVALUATION, "wrn-28-10", [evaluated])


def _variants(runtime: Runtime) -> tuple[Runtime, list[Runtime]]:
    """The runtime as it is, and the others that it is compared with; the plainest comes last."""
    ways = [(True, True), (False, True), (True, False), (False, False)]
    if _kind(runtime) == "cpu":
        ways = [(True, False), (False, False)]
    others = [replace(runtime, compile=compiled, graphs=graphs) for compiled, graphs in ways]
    others += [replace(other, precision="float32") for other in (others[0], others[-1])]
    return runtime, [other for other in dict.fromkeys(others) if other != runtime]


def _job(method: str, architecture: str, runtime: Runtime, rounds: int, **changes: Any) -> Job:
    described = runtime.describe()
    setting = {
        "architecture": architecture,
        "train_images": IMAGES[_kind(runtime)].get(method, {}).get(architecture, 0),
        "epochs": 2,
        "observations": 2,
        "rounds": rounds,
        **{name: described[name] for name in ("device", "threads", "precision", "compile", "graphs")},
    }
    return _of(runtime, method, Setting(**(setting | changes)).as_dict())


def _of(runtime: Runtime, method: str, recipe: dict[str, Any]) -> Job:
    return Job(
        section=SECTION,
        profile="cpu" if _kind(runtime) == "cpu" else "paper",
        dataset="random",
        init=SCRATCH,
        method=method,
        level=None,
        seed=0,
        recipe=recipe,
    )


def _kind(runtime: Runtime) -> str:
    return runtime.device.split(":")[0]
