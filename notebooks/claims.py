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

import pandas as pd

from robustness_lib import notebook, records, report
from robustness_lib.paper import SECTIONS, VERDICTS

notebook.check_parameters(globals())
recorded = records.frame(records.load_published(folder=Path(results)))

# %% [markdown]
# ## In short
#

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.verdict_summary(recorded, {name: f"{name}.ipynb" for name in SECTIONS})

# %% [markdown]
# {numref}`tab-summary` has the verdicts by section. Claims overlap, so their number is no measure of a paper.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
rows = report.scoreboard_rows(recorded)
counts = pd.crosstab(rows["section"], rows["verdict"]).reindex(index=SECTIONS, columns=VERDICTS, fill_value=0)
counts.insert(len(VERDICTS) - 1, "open, of the last two", rows.groupby("section")["open"].sum())
cells = [[f"[{title}]({name}.ipynb)", *counts.loc[name].map(str)] for name, title in SECTIONS.items()]
report.myst_table(
    ["Section", *counts],
    [*cells, ["**all**", *counts.sum().map(str)]],
    caption="Number of claims by section and verdict.",
    name="tab-summary",
)

# %% [markdown]
# ## How a verdict is reached
#
# The rule was fixed before our trainings were measured; the part on printed numbers came later, with them.
#
# Two arms of a claim are compared at the same seed, since they share every random draw but what is compared. Each seed
# gives one effect: a difference, a ratio or a relative reduction, as the claim has it. The interval is the 95 % interval
# of Student's t distribution over the seeds. All seeds of a pre-trained arm start from one checkpoint, so the interval
# covers the randomness of tuning and of training from scratch, not that of pre-training.
#
# holds
# : The whole interval lies on the claimed side. Where the paper states a size, the interval also contains it or lies
#   beyond it.
#
# holds in direction
# : The mean lies on the claimed side, but the interval includes no effect at all, or stays below the stated size.
#
# does not hold
# : The mean does not lie on the claimed side.
#
# open
# : Of a claim that there is an effect: stands beside "holds in direction" or "does not hold" where the interval includes no
#   effect at all. The mean leans to one side, and further seeds may turn it. Without this word, such a claim that "holds in
#   direction" has a sure effect that is smaller than the stated one.
#
# not yet measured
# : Fewer than two seeds have both arms. Numbers that are computed from published predictions have no seeds: one is enough.
#
# Where a claim says that some harm is at most a certain size, the whole interval has to stay within it. A claim about
# every level, such as every imbalance, is judged at each level that both arms have, and the weakest verdict stands.
#
# Where a claim is that a number is the printed one, it holds if it is the same to the last printed digit; it holds in
# direction if it differs, but the 95 % interval of the fit that gives it includes the printed number.
#
# The highest profile with two seeds decides: `paper` before `cpu`. A verdict at `cpu` says that the effect is there, or is
# not, in a small network and a part of the data; it does not say how large it is at the papers' scale. A verdict at `paper`
# about pre-trained networks is about the corpus that they had: a part of the papers' corpus can turn it. `smoke` never
# counts. In the sections' tables, *reference* is the arm that a claim compares with, and *no claim* a number about which the
# paper claims nothing.

# %% [markdown]
# ## All claims
#
# P1 is {cite:t}`hendrycks2019using` in its last version and P1v1 its first; *P1 log* are the training logs that its authors
# published. P2 is {cite:t}`andreassen2022evolution`.
#
# An arrow leads from the reference to the arm whose merit is claimed. *Here* gives mean and standard deviation over n
# seeds, and the profile. The n seeds are those that both arms have, so a mean may differ a little from that of a section's
# table, which has all seeds of an arm. Each row leads to its section's page and to the command that measures it.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(recorded, {section: f"{section}.ipynb" for section in SECTIONS})

# %% [markdown]
# This page is made by {download}`claims.py </notebooks/claims.py>`.
