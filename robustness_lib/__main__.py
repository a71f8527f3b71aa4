"""``python -m robustness_lib`` is the ``robustness`` command."""

from robustness_lib.cli import main

main()
