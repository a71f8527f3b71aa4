"""Timing: what counts as one measurement, and two sides measured in turn."""

from __future__ import annotations

import gc
import math
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from time import monotonic

import torch
from torch import Tensor, nn

from robustness_lib.metrics import Metrics
from robustness_lib.training.trainer import Observe


class Clock:
    """When each of several networks ended each of its epochs, in seconds of the system's monotonic clock.

    Args:
        device: What is waited for before a time is read.

    Attributes:
        ends: Times by network.
        bytes_elsewhere: The most memory that other processes had in use, which only they can tell.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: dict[int, list[float]] = {}
        self.bytes_elsewhere = 0.0

    def tick(self, network: int = 0) -> None:
        """Note that network number ``network`` has ended an epoch."""
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        self.ends.setdefault(network, []).append(monotonic())

    def observer(self, network: int = 0) -> Observe:
        """A hook for the library's training that ticks, and sees nothing."""

        def observe(_: nn.Module) -> dict[str, Tensor]:
            self.tick(network)
            return {}

        return observe

    def busy(self) -> float:
        """Seconds in which any network was between its first tick and its last.

        What comes before the first tick is left out: setting up, compiling, recording, and the first epoch.
        """
        return covered((ticks[0], ticks[-1]) for ticks in self.ends.values())


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


Side = Callable[[Clock, int], object]
"""``side(clock, epochs)`` does the work, so many epochs of it, and ticks at the end of each."""


@dataclass(frozen=True)
class Timing:
    """One run of a side.

    Attributes:
        seconds: All of it.
        epochs: Epochs of all networks together.
        speed: Images/s from every network's first tick to its last; NaN where there is but one.
        peak_bytes: The most memory in use; None where it cannot be told (:func:`peak_bytes`).
    """

    seconds: float
    epochs: int
    speed: float
    peak_bytes: float | None

    @classmethod
    def of(cls, side: Side, epochs: int, images: int, device: str) -> Timing:
        """Run a side and time it; ``images`` is what an epoch of one network has."""
        forget_peak(device)
        clock = Clock(device)
        started = monotonic()
        side(clock, epochs)
        seconds = monotonic() - started
        ticks = sum(map(len, clock.ends.values()))
        timed = ticks - len(clock.ends)
        speed = images * timed / clock.busy() if timed else math.nan
        peak = peak_bytes(device)
        return cls(seconds, ticks, speed, None if peak is None else peak + clock.bytes_elsewhere)

    def beside(self, images: int, speed: float) -> float:
        """Seconds that were spent on anything but epochs, where those go at ``speed``."""
        return max(0.0, self.seconds - self.epochs * images / speed)


def compare(ours: Side, baseline: Side, *, images: int, epochs: int, rounds: int, device: str) -> Metrics:
    """Measure two sides in turn, A B A B, so that whatever else the machine does meets both.

    Args:
        ours: What is measured.
        baseline: What it is compared with.
        images: Images in an epoch of one network.
        epochs: Epochs of a run, at least 2; the first is not timed.
        rounds: How often each side is measured, after a first run of one epoch that is not.
        device: Where both run.

    Returns:
        ``images_per_second`` and ``baseline_images_per_second`` (medians over rounds), each with ``_by_round``; the
        ``ratio`` of a round's two speeds (median, ``_min``, ``_max``, ``_by_round``); ``start_seconds``, what the
        first run of a process takes beside its epochs (compiling and recording, mostly), ``restart_seconds``, what
        every further run takes; and, where it can be told, ``peak_bytes`` and ``baseline_peak_bytes``: the most
        memory in use.
    """
    metrics: Metrics = {}
    first: dict[str, Timing] = {}
    sides = {"": ours, "baseline_": baseline}
    for name, side in sides.items():
        first[name] = Timing.of(side, 1, images, device)
        peak = first[name].peak_bytes
        if peak is not None and (device != "cpu" or side is ours):  # a CPU's process has the first side's for good
            metrics[f"{name}peak_bytes"] = peak
    runs: dict[str, list[Timing]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in reversed(sides.items()):
            runs[name].append(Timing.of(side, epochs, images, device))
    speeds = {name: [run.speed for run in timings] for name, timings in runs.items()}
    for name, values in speeds.items():
        metrics |= {f"{name}images_per_second": median(values), f"{name}images_per_second_by_round": values}
    ratios = [mine / other for mine, other in zip(speeds[""], speeds["baseline_"], strict=True)]
    metrics |= {"ratio": median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios), "ratio_by_round": ratios}
    metrics["start_seconds"] = first[""].beside(images, median(speeds[""]))
    metrics["restart_seconds"] = median(run.beside(images, run.speed) for run in runs[""])
    return metrics


def forget_peak(device: str) -> None:
    """Begin to watch the device's memory anew, without what is no longer used."""
    gc.collect()
    if device != "cpu":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: str) -> float | None:
    """The most memory that was in use: on a GPU what PyTorch had reserved for this process, on a CPU the whole process.

    A recorded CUDA graph keeps its memory without a tensor in it, so what is allocated to tensors would be too little.
    On a CPU it is only known of a process that has done nothing else: None in the main process.
    """
    if device != "cpu":
        return float(torch.cuda.max_memory_reserved(device))
    if multiprocessing.parent_process() is None:
        return None
    kibibyte = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kibibyte)
