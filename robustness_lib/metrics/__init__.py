"""What is measured of a network's predictions."""

Metrics = dict[str, float | list[float]]
"""Measured values by name: fractions (never percent), nats, or as the name says; lists for curves."""
