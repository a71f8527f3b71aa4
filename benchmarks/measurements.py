"""How each thing is measured: one function a method, from a job to its metrics.

Both sides of a comparison work in one process and in turn (:func:`benchmarks.clock.compare`), from fresh weights, on
the same images at the same batch size, with the same number of updates.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.synchronize import Barrier

import torch
from torch import nn

from benchmarks import ceilings, detection, plan, textbook
from benchmarks.clock import Clock, Side, Timing, compare, peak_bytes
from benchmarks.counting import count_step
from benchmarks.plan import Setting
from robustness_lib.data import ImageDataset
from robustness_lib.errors import UserError
from robustness_lib.methods.pgd import Adversary
from robustness_lib.metrics import Metrics
from robustness_lib.models.architectures import build
from robustness_lib.randomness import generator
from robustness_lib.runner.model_cache import Context
from robustness_lib.runner.records import Job, Store
from robustness_lib.runner.sweep import sweep
from robustness_lib.training.device import Runtime
from robustness_lib.training.trainer import cpu_threads, predict, train

CLASSES = 10

FRESH = multiprocessing.get_context("spawn")
"""Makes processes that have done nothing yet; a forked one may not use CUDA where loading PyTorch has asked for it."""


def run(job: Job, context: Context) -> Metrics:
    """Measure one job.

    Args:
        job: From :func:`benchmarks.plan.jobs`.
        context: Its runtime is the job's; its store has, or receives, what other measurements need.

    Returns:
        Of a comparison the metrics of :func:`benchmarks.clock.compare`, ``flops_per_image`` and ``bytes_per_image``,
        and the textbook loop's ``workers``; of ceilings those of :func:`benchmarks.ceilings.measure`;
        of detection those of :func:`benchmarks.detection.measure`; of the loader's
        workers the best number, ``workers``, with ``workers_tried`` and ``images_per_second_by_workers``.

    Raises:
        UserError: The library could not run in the way that is to be measured.
    """
    with cpu_threads(context.runtime.threads), _as_asked(), _own_compiler_cache(job):
        if job.method == plan.CEILINGS:
            matrix, copied, rounds = (int(str(job.recipe[name])) for name in ("matrix", "copied", "rounds"))
            return ceilings.measure(context.runtime, matrix=matrix, copied=copied, rounds=rounds)
        if job.method == plan.DETECTION:
            sizes = {name: int(str(job.recipe[name])) for name in (*plan.DETECTED, "rounds")}
            return detection.measure(**sizes)
        setting = Setting.of(job.recipe)
        if job.method == plan.WORKERS:
            return loader_workers(setting, context.runtime)
        if job.method == plan.AT_ONCE:
            with side_of_many(setting, context.runtime) as ours:
                measured = _compare(setting, context.runtime, ours, library(plan.TRAINING, setting, context.runtime))
        else:
            workers = best_workers(job.method, setting, context)
            theirs = by_textbook(job.method, setting, context.runtime.device, workers)
            measured = _compare(setting, context.runtime, library(job.method, setting, context.runtime), theirs)
            measured["workers"] = workers
        return measured | needs(job.method, setting)


def needs(method: str, setting: Setting) -> Metrics:
    """Floating-point operations and bytes of memory traffic, for one image."""
    work = plan.TRAINING if method == plan.AT_ONCE else method
    flops, traffic = count_step(work, setting.training_part(), setting.precision, classes=CLASSES)
    return {"flops_per_image": flops / setting.batch_size, "bytes_per_image": traffic / setting.batch_size}


def random_images(count: int) -> ImageDataset:
    """Noise, 32x32 pixels in ten classes: what images show does not change how fast they are processed."""
    stream = generator(0, "benchmark")
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=stream, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (count,), generator=stream)
    return ImageDataset("random", pixels, labels, tuple(map(str, range(CLASSES))))


def fresh(setting: Setting, seed: int = 0) -> nn.Module:
    """A network that has not been trained."""
    return build(setting.architecture, CLASSES, seed=seed)


# ------------------------------------------------------------------------------------------ two sides


def library(method: str, setting: Setting, runtime: Runtime) -> Side:
    """The library's way to train, to train adversarially or to evaluate, one network."""
    images = random_images(setting.train_images)
    if method == plan.EVALUATION:
        network = fresh(setting)

        def evaluate(clock: Clock, epochs: int) -> None:
            for _ in range(epochs):
                predict(network, images, setting.normalisation, runtime)
                clock.tick()

        return evaluate

    def trained(clock: Clock, epochs: int) -> None:
        perturb = Adversary() if method == plan.ADVERSARIAL else None
        recipe, observe = _recipe(setting, epochs), clock.observer()
        train(fresh(setting), images, recipe, seed=0, runtime=runtime, perturb=perturb, observe=observe)

    return trained


def by_textbook(method: str, setting: Setting, device: str, workers: int) -> Side:
    """The textbook's way to do the same."""
    of_method = {
        plan.TRAINING: {"augmented": True, "normalised": True},
        plan.ADVERSARIAL: {"augmented": True, "normalised": False},
        plan.EVALUATION: {"augmented": False, "normalised": True},
    }
    images = random_images(setting.train_images)
    batches = textbook.loader(images, setting, device, workers, **of_method[method])

    def side(clock: Clock, epochs: int) -> None:
        network, perturb = fresh(setting), Adversary() if method == plan.ADVERSARIAL else None
        with textbook.cudnn_benchmark():
            if method == plan.EVALUATION:
                for _ in range(epochs):
                    textbook.evaluate(network, batches, device)
                    clock.tick()
            else:
                recipe = _recipe(setting, epochs)
                textbook.train(network, batches, recipe, device, perturb=perturb, after_epoch=clock.tick)

    return side


def _compare(setting: Setting, runtime: Runtime, ours: Side, theirs: Side) -> Metrics:
    return compare(
        ours,
        theirs,
        images=setting.train_images,
        epochs=setting.epochs,
        rounds=setting.rounds,
        device=runtime.device,
    )


def _recipe(setting: Setting, epochs: int) -> Setting:
    return replace(setting, epochs=epochs, observations=epochs)


# ------------------------------------------------------------------------------------------ the textbook's workers


def best_workers(method: str, setting: Setting, context: Context) -> int:
    """The number of workers that makes the textbook loop fastest, measured if it is not recorded yet."""
    wanted = plan.workers_job(method, setting.architecture, context.runtime)
    sweep([wanted], run, replace(context, runtime=plan.plain(context.runtime))).check()
    record = Store(context.store).get(wanted)
    assert record is not None
    return int(float(str(record.metrics["workers"])))


def loader_workers(setting: Setting, runtime: Runtime) -> Metrics:
    """Time the textbook loop with every number of workers."""
    counts = [int(count) for count in setting.workers.split(",")]
    little = replace(setting, train_images=min(2 * setting.batch_size, setting.train_images))
    Timing.of(by_textbook(setting.work, little, runtime.device, 0), 1, little.train_images, runtime.device)
    speeds = []
    for count in counts:
        side = by_textbook(setting.work, setting, runtime.device, count)
        speeds.append(setting.train_images / Timing.of(side, 1, setting.train_images, runtime.device).seconds)
    return {
        "workers": counts[speeds.index(max(speeds))],
        "workers_tried": [float(count) for count in counts],
        "images_per_second_by_workers": speeds,
    }


# ------------------------------------------------------------------------------------------ several networks at once


@contextlib.contextmanager
def side_of_many(setting: Setting, runtime: Runtime) -> Iterator[Side]:
    """One network a process; all of them share the device, and the CPU's threads."""
    many = setting.networks
    share = replace(runtime, threads=max(1, runtime.threads // many))
    with ProcessPoolExecutor(many, FRESH, initializer=_meet_at, initargs=(FRESH.Barrier(many),)) as pool:

        def side(clock: Clock, epochs: int) -> None:
            begun = [pool.submit(_train_in_process, k, setting, share, epochs) for k in range(many)]
            for k, future in enumerate(begun):
                clock.ends[k], peak = future.result()
                clock.bytes_elsewhere += peak

        yield side


_meeting: list[Barrier] = []


def _meet_at(barrier: Barrier) -> None:
    _meeting.append(barrier)


def _train_in_process(seed: int, setting: Setting, runtime: Runtime, epochs: int) -> tuple[list[float], float]:
    """Train one network once all processes are there; the ticks of its clock, which is the system's, and its memory."""
    images, clock = random_images(setting.train_images), Clock(runtime.device)
    _meeting[0].wait(600)
    with cpu_threads(runtime.threads), _as_asked():
        recipe, observe = _recipe(setting, epochs), clock.observer()
        train(fresh(setting, seed), images, recipe, seed=seed, runtime=runtime, observe=observe)
    return clock.ends[0], peak_bytes(runtime.device) or 0.0


# ------------------------------------------------------------------------------------------ honest conditions


@contextlib.contextmanager
def _as_asked() -> Iterator[None]:
    """Refuse a measurement for which the library fell back to a slower way than was to be measured."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = str(warning.message)
        if "training runs without" in text:
            raise UserError(f"this way is not measured, since it is not possible here: {text}")


@contextlib.contextmanager
def _own_compiler_cache(job: Job) -> Iterator[None]:
    """Where one network's training is measured, compile as if for the first time, so that its time is told."""
    if job.method != plan.TRAINING or not job.recipe["compile"]:
        yield
        return
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
