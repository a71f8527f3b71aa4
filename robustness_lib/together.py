"""Works that wait for each other, so that what they ask for is done for many of them at once.

A section's ``run`` measures one job: it prepares, trains, evaluates, perhaps trains again. Where one training does not
fill a GPU, several such works are begun; each goes on until it asks for a training and then waits, and when none can
go on, the trainings of one shape are done together. The works are threads of which only one runs at a time, so nothing
in them needs to know of the others, and they run in the same order every time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from robustness_lib.files import locked

T = TypeVar("T")
A = TypeVar("A")


@dataclass(eq=False)
class _Request:
    shape: Hashable
    item: Any
    do: Callable[[list[Any]], list[Any]]
    result: Any = None


@dataclass(eq=False)
class _Work:
    """One work, its thread, and what it waits for (``"turn"``, ``"lock"``, ``"end"`` or a request)."""

    body: Callable[[], Any]
    waits_for: str | _Request = "turn"
    result: Any = None
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    back: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: threading.Thread | None = None
    abandoned: bool = False

    def pause(self, waits_for: str | _Request) -> None:
        """Called by the work: let the others run until it is resumed."""
        self.waits_for = waits_for
        self.back.release()
        self.go.acquire()
        if self.abandoned:
            raise SystemExit

    def resume(self) -> None:
        """Called by :func:`run`: let the work run until it pauses or ends."""
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, args=(torch.get_num_threads(),), daemon=True)
            self.thread.start()
        self.go.release()
        self.back.acquire()

    def _run(self, cpu_threads: int) -> None:
        self.go.acquire()
        torch.set_num_threads(cpu_threads)  # a thread does not take it over from the one that started it
        _here.work = self
        try:
            self.result = self.body()
        except BaseException as error:
            self.result = error
        self.waits_for = "end"
        self.back.release()


_here = threading.local()


def request(shape: Hashable, item: A, do: Callable[[list[A]], list[T]]) -> T:
    """Have something done, at the same time as others ask for the same shape of it.

    Args:
        shape: Only items of equal shapes are done together.
        item: What is to be done.
        do: Does several items at once and returns a result for each.

    Returns:
        The item's result. Outside :func:`run` it is done at once.
    """
    work: _Work | None = getattr(_here, "work", None)
    if work is None:
        return do([item])[0]
    asked = _Request(shape, item, do)
    work.pause(asked)
    if isinstance(asked.result, BaseException):
        raise asked.result
    result: T = asked.result
    return result


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock of a file (:func:`robustness_lib.files.locked`) that other works may hold.

    Within :func:`run` the others go on while this one waits.
    """
    work: _Work | None = getattr(_here, "work", None)
    while True:
        with locked(path, wait=work is None) as mine:
            if mine:
                yield
                return
        if work is not None:
            work.pause("lock")


def run(bodies: Sequence[Callable[[], T]]) -> list[T | BaseException]:
    """Run works side by side.

    Args:
        bodies: The works.

    Returns:
        For each its result, or the exception that it ended with.

    Raises:
        KeyboardInterrupt: The user stopped it; the works end where they are.
    """
    works = [_Work(body) for body in bodies]
    try:
        while any(work.waits_for != "end" for work in works):
            _go_on(works)
    except BaseException:
        for work in works:
            if work.thread is not None and work.waits_for != "end":
                work.abandoned = True
                work.resume()
        raise
    return [work.result for work in works]


def _go_on(works: Sequence[_Work]) -> None:
    """Let one work run, or do the largest set of requests."""
    for work in works:
        if work.waits_for == "turn":
            work.resume()
            return
    asking = [(work, work.waits_for) for work in works if isinstance(work.waits_for, _Request)]
    if asking:
        shapes = [asked.shape for _, asked in asking]
        shape = max(dict.fromkeys(shapes), key=shapes.count)
        chosen = [(work, asked) for work, asked in asking if asked.shape == shape]
        try:
            results: Sequence[Any] = chosen[0][1].do([asked.item for _, asked in chosen])
        except Exception as error:
            results = [error] * len(chosen)
        for (work, asked), result in zip(chosen, results, strict=True):
            asked.result, work.waits_for = result, "turn"
    else:
        time.sleep(0.1)  # only another process can hold the locks
    for work in works:
        if work.waits_for == "lock":
            work.waits_for = "turn"
