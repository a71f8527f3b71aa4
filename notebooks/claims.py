# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The scoreboard
#
# Every claim of the two papers, the numbers they give for it, ours, and a verdict. No number on this page is typed: it is
# computed from the papers' published numbers and from the recorded results whenever the book is built.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell"]
from pathlib import Path

from robustness_lib import notebook, records, report
from robustness_lib.paper import SECTIONS
from robustness_lib.report import evidence, markdown, verdicts

notebook.check_parameters(globals())
recorded = records.load_published(folder=Path(results))
values = evidence.tidy(recorded)

# %% [markdown]
# ## In short

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
table = verdicts.counts(values).rename(index=SECTIONS).rename_axis("Section").reset_index()
markdown.table(table, caption="Number of claims by section and verdict.", name="tab-summary")

# %% [markdown]
# Claims overlap, so their number is no measure of a paper.
#
# ## How a verdict is reached
#
# Two sides of a claim are compared at the same seed, since they share every random draw but what is compared. Each seed
# gives one effect; the interval is the 95 % interval of Student's t distribution over the seeds.
#
# supported
# : The interval lies wholly on the claimed side of no effect.
#
# contradicted
# : It lies wholly on the other side.
#
# undecided
# : It includes no effect, or two pre-trainings with one seed each are compared.
#
# size
# : Where the paper states a size and the scale is the paper's: *reached*, *below* or *undecided*, by the same interval.

# %% [markdown]
# ## All claims
#
# P1 is {cite:t}`hendrycks2019using` in its last version and P1v1 its first; *P1 log* are the training logs that its authors
# published. P2 is {cite:t}`andreassen2022evolution`.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(records.frame(recorded), {section: f"{section}.ipynb" for section in SECTIONS})

# %% [markdown]
# This page is made by {download}`claims.py </notebooks/claims.py>`.
