"""How fast the library is: beside a textbook loop, several networks at once, and against the device's limits.

``python -m benchmarks`` measures what is not recorded yet; the book's page about cost shows it.
"""
