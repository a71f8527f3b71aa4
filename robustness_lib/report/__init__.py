"""What the book shows, from records and the papers' numbers; nothing here trains, and nothing loads torch.

* :mod:`~robustness_lib.report.evidence`: the records as one tidy frame, and paired comparisons;
* :mod:`~robustness_lib.report.verdicts`: what the records say about each claim;
* :mod:`~robustness_lib.report.markdown`: numbers, tables and findings as Markdown;
* :mod:`~robustness_lib.report.style`: the one look of all figures;
* :mod:`~robustness_lib.report.trainings`: how networks were trained, what was tried, and what a live run measured;
* :mod:`~robustness_lib.report.comparison`: a store's records beside the book's;
* :mod:`~robustness_lib.report.provenance`: commands, revisions and checksums behind a page.
"""
