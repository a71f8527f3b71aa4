"""Measures again what two papers found about pre-training and robustness.

From data to page: an image set (:mod:`robustness_lib.data`) and a job (:mod:`robustness_lib.records`) become a
trained network (:mod:`robustness_lib.networks`, :mod:`robustness_lib.training`), its metrics a record, records a
table, a figure and a verdict (:mod:`robustness_lib.report`, :mod:`robustness_lib.paper`). A section of the papers
is one module with ``jobs`` and ``run``.
"""

__version__ = "0.1.0"
