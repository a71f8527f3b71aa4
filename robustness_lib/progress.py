"""Progress bars: drawn where somebody watches, a line now and then where the output is kept."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
"""The least time between two lines of one bar in a file or pipe."""


def progress_bar(*, brief: bool = False, **options: Any) -> tqdm[None]:
    """A progress bar on stderr.

    On a terminal and in a notebook it is drawn in place. Elsewhere it writes whole lines: one when it begins, one each
    :data:`SECONDS` at most, and one when it ends.

    Args:
        brief: Whether there are many such bars, one after the other. In a file or pipe they have their first line after
            :data:`SECONDS`, and those that end sooner have none.
        **options: Of ``tqdm``: ``total``, ``desc``, ``unit``, ``disable`` and others.

    Returns:
        The bar, to be used in a ``with`` statement.
    """
    if _watched():
        return tqdm(dynamic_ncols=True, **options)
    return _Lines(brief, **options)


def _watched() -> bool:
    """Whether stderr is drawn on a screen: a terminal, or a notebook's output."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


class _Lines(tqdm):  # type: ignore[type-arg]  # generic in its type stubs only
    """A bar that writes whole lines, and few of them."""

    def __init__(self, brief: bool, **options: Any) -> None:
        self._due = time.monotonic() + SECONDS if brief else 0.0
        self._shown: float | None = None
        super().__init__(file=io.StringIO(), **options)  # what tqdm itself writes is for terminals

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line where one is due; tqdm calls this whenever it would draw."""
        if time.monotonic() >= self._due:
            self._write()

    def close(self) -> None:
        """Write the last line, unless the bar has none or nothing came since."""
        if not self.disable and self._shown not in (None, self.n):
            self._write()
        self._due = float("inf")  # for tqdm would draw the bar once more
        super().close()

    def _write(self) -> None:
        self._shown, self._due = self.n, time.monotonic() + SECONDS
        print(self, file=sys.stderr, flush=True)
