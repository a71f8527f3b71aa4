"""The papers' published numbers and claims.

Two papers are reproduced here: **P1**, *Using Pre-Training Can Improve Model Robustness and Uncertainty*
(Hendrycks, Lee, Mazeika, ICML 2019; BibTeX key ``hendrycks2019using``; "P1v1" is the first arXiv version,
where it differs), and **P2**, *The Evolution of Out-of-Distribution Robustness Throughout Fine-Tuning* (2021;
``andreassen2022evolution``).

Nothing here trains, draws or reads a record; :mod:`robustness_lib.report.verdicts` judges the claims.
"""

from robustness_lib.paper.claims import CLAIMS, Claim, Side, claims_of, paper_effect, paper_text
from robustness_lib.paper.numbers import SECTIONS, Metric, label, metric, network_label, published, select, tolerance

__all__ = [
    "CLAIMS",
    "SECTIONS",
    "Claim",
    "Metric",
    "Side",
    "claims_of",
    "label",
    "metric",
    "network_label",
    "paper_effect",
    "paper_text",
    "published",
    "select",
    "tolerance",
]
