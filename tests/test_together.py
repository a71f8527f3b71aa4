"""Works side by side: whose turn it is, what is done together, locks, failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robustness_lib import together
from robustness_lib.files import locked

Done = list[list[str]]


def doing(done: Done) -> Callable[[list[str]], list[str]]:
    def do(items: list[str]) -> list[str]:
        done.append(items)
        return [item.upper() for item in items]

    return do


def test_outside_it_is_done_at_once() -> None:
    done: Done = []
    assert together.request("shape", "a", doing(done)) == "A"
    assert done == [["a"]]


def test_equal_shapes_are_done_together_the_largest_set_first() -> None:
    done: Done = []

    def work(name: str, shape: int) -> Callable[[], str]:
        return lambda: together.request(shape, name, doing(done)) + together.request(9, name + name, doing(done))

    found = together.run([work("a", 1), work("b", 2), work("c", 2)])
    assert found == ["AAA", "BBB", "CCC"]
    assert done == [["b", "c"], ["bb", "cc"], ["a"], ["aa"]]


def test_only_one_work_runs_at_a_time_with_the_callers_cpu_threads() -> None:
    running = threading.Lock()
    seen = []

    def work() -> None:
        for _ in range(3):
            assert running.acquire(blocking=False)
            seen.append(torch.get_num_threads())
            running.release()
            together.request("shape", "x", doing([]))

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert together.run([work] * 4) == [None] * 4
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 12


def test_a_failing_work_or_request_fails_alone() -> None:
    def bad() -> str:
        raise ValueError("mine")

    def refused() -> str:
        return together.request("other", "x", lambda items: [RuntimeError("not this one")] * len(items))  # type: ignore

    def good() -> str:
        return together.request("shape", "x", doing([]))

    first, second, third = together.run([bad, refused, good])
    assert isinstance(first, ValueError)
    assert isinstance(second, RuntimeError)
    assert third == "X"


def test_a_request_that_raises_fails_all_that_asked_for_it() -> None:
    def broken(items: list[str]) -> list[str]:
        raise MemoryError("too many")

    found = together.run([lambda: together.request("shape", "x", broken)] * 2)
    assert [type(one) for one in found] == [MemoryError] * 2


def test_who_waits_for_a_lock_lets_the_others_go_on(tmp_path: Path) -> None:
    order: list[str] = []

    def work(name: str) -> Callable[[], None]:
        def body() -> None:
            with together.hold(tmp_path / "lock"):
                order.append(f"{name} has it")
                together.request("shape", name, doing([]))
                order.append(f"{name} leaves it")

        return body

    together.run([work("a"), work("b")])
    assert order == ["a has it", "a leaves it", "b has it", "b leaves it"]


def test_a_lock_of_another_process_is_waited_for(tmp_path: Path) -> None:
    order: list[str] = []
    begun = threading.Event()

    def another() -> None:
        with locked(tmp_path / "lock"):  # a file that is opened anew, as by another process
            begun.set()
            time.sleep(0.3)
            order.append("released")

    def body() -> None:
        with together.hold(tmp_path / "lock"):
            order.append("held")

    other = threading.Thread(target=another)
    other.start()
    begun.wait()
    together.run([body])
    other.join()
    assert order == ["released", "held"]


def test_an_interrupt_ends_the_works(tmp_path: Path) -> None:
    ended = []

    def interrupt(items: list[str]) -> list[str]:
        raise KeyboardInterrupt

    def body() -> None:
        try:
            together.request("shape", "x", interrupt)
        finally:
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        together.run([body, body])
    assert ended == [True, True]
