"""What is measured of a network's predictions."""

from collections.abc import Iterable
from typing import SupportsFloat

Metrics = dict[str, float | list[float]]
"""Measured values by name, as fractions (never percent), nats, or as the name says; lists for curves."""


def rounded(values: Iterable[SupportsFloat], digits: int = 5) -> list[float]:
    """A curve as it is recorded."""
    return [round(float(value), digits) for value in values]
