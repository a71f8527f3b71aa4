"""The papers' published numbers and claims.

**P1** is *Using Pre-Training Can Improve Model Robustness and Uncertainty* (Hendrycks, Lee, Mazeika, ICML 2019; "P1v1"
its first arXiv version, where it differs), **P2** *The Evolution of Out-of-Distribution Robustness Throughout
Fine-Tuning* (2021). Nothing here trains or reads a record; :mod:`robustness_lib.report.verdicts` judges the claims.
"""

from robustness_lib.paper.claims import CLAIMS, Claim, claims_of
from robustness_lib.paper.numbers import SECTIONS, label, metric, network_label, select, tolerance

__all__ = ["CLAIMS", "SECTIONS", "Claim", "claims_of", "label", "metric", "network_label", "select", "tolerance"]
