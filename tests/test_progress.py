"""Progress bars: in place on a terminal, few whole lines in a file or pipe."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest

from robustness_lib import progress
from robustness_lib.progress import SECONDS, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def written(monkeypatch: pytest.MonkeyPatch, file: io.StringIO, clock: Clock, *, brief: bool, steps: int) -> str:
    """What a bar of 100 updates writes of which ``steps`` are made, one a second."""
    with monkeypatch.context() as change, contextlib.suppress(KeyboardInterrupt):
        change.setattr(sys, "stderr", file)
        with progress_bar(brief=brief, total=100, desc="jobs", mininterval=0) as bar:
            for number in range(steps):
                clock.now += 1
                bar.update()
                bar.set_postfix(loss=number)  # which draws at once
            if steps < 100:
                raise KeyboardInterrupt
    return file.getvalue()


def test_a_file_has_few_whole_lines(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    text = written(monkeypatch, io.StringIO(), clock, brief=False, steps=100)
    assert not set(text) & {"\r", "\x1b"}
    assert text.endswith("\n")
    lines = text.splitlines()
    assert [line.split("%")[0] for line in lines] == [f"jobs: {n:3}" for n in (0, 30, 60, 90, 100)]
    assert "loss=99" in lines[-1]


def test_a_bar_that_is_broken_off_ends_where_it_was(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    lines = written(monkeypatch, io.StringIO(), clock, brief=False, steps=42).splitlines()
    assert [line.split("%")[0] for line in lines] == ["jobs:   0", "jobs:  30", "jobs:  42"]
    lines = written(monkeypatch, io.StringIO(), clock, brief=False, steps=30).splitlines()
    assert [line.split("%")[0] for line in lines] == ["jobs:   0", "jobs:  30"]


def test_a_brief_bar_has_no_line_of_its_own(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    assert written(monkeypatch, io.StringIO(), clock, brief=True, steps=int(SECONDS) - 1) == ""
    lines = written(monkeypatch, io.StringIO(), clock, brief=True, steps=100).splitlines()
    assert [line.split("%")[0] for line in lines] == [f"jobs: {n:3}" for n in (30, 60, 90, 100)]


@pytest.mark.parametrize("module", [None, "ipykernel.iostream"], ids=["terminal", "notebook"])
def test_where_somebody_watches_it_is_drawn_in_place(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, module: str | None
) -> None:
    file = Terminal() if module is None else type("OutStream", (io.StringIO,), {"__module__": module})()
    text = written(monkeypatch, file, clock, brief=True, steps=100)
    assert text.count("\r") > 50
    assert text.count("\n") == 1


def test_a_disabled_bar_is_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=1, disable=True) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
