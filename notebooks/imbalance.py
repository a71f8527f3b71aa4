# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Class imbalance
#
# When some classes have far fewer training images than others, pre-training lowers the error on the rare classes, and
# over all classes, by more than the usual remedies do: weighting the loss, repeating images of rare classes, or making
# new ones between existing ones {cite:p}`hendrycks2019using`.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell"]
from pathlib import Path

from robustness_lib import notebook, records, report

notebook.check_parameters(globals())
recorded = records.frame(records.load_published(folder=Path(results)))

# %% [markdown]
# ## Method
#
# **Sizes.** Class $c = 1,\dots,K$ keeps
#
# $$
# n_c = \operatorname{round}\!\left(\frac{a}{b + (c-1)^{\gamma}}\right)
# \qquad\text{or}\qquad
# n_c = \operatorname{round}\!\left(\frac{a}{b + c^{\gamma}}\right)
# $$ (eq-sizes)
#
# images, with $a$ and $b$ such that the largest and the smallest class have 5,000 and 250 images (CIFAR-10) or 500 and
# 25 (CIFAR-100). The smaller $\gamma$, the stronger the imbalance.
#
# **Errors.** The test set stays balanced. The *total error* is the mean of the class-wise errors. The *minority error* is
# their mean over the classes that have fewer images than the average class.
#
# **Methods.** *Normal*: WRN-40-2 from scratch, 100 epochs. *Cost sensitive*: the loss of an example is weighted in
# proportion to $1/n_c$. *Oversampling*: images of smaller classes are repeated until all classes have the same size. *SMOTE*
# {cite:p}`chawla2002smote`: instead of repeating, new images are placed between an image and one of its five nearest
# neighbours of the same class,
#
# $$
# \tilde x = x + u\,(x' - x), \qquad u\sim\mathcal{U}(0,1).
# $$ (eq-smote)
#
# {eq}`eq-smote` is applied to the pixels, once, before training. *Pre-training*: the network pre-trained on Downsampled
# ImageNet, a new last layer, 50 epochs of plain cross-entropy on the imbalanced set.

# %% [markdown]
# ## What is claimed
#
# {numref}`tab-verdicts-imbalance` lists the claims with the papers' numbers. What this companion has not measured says so.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(recorded, sections=["imbalance"], name="tab-verdicts")

# %% [markdown]
# ## The paper's numbers
#
# {numref}`tab-imbalance` has the paper's main table, with a place for ours. The paper prints the errors of each imbalance; the means over the seven are computed from them here.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "imbalance",
    recorded,
    metrics=["error", "minority_error"],
    datasets=["cifar10", "cifar100"],
    methods=["normal", "cost-sensitive", "oversampling", "smote"],
    over_levels="mean",
    caption="Total and minority test error, mean over the seven imbalances.",
    name="tab-imbalance",
)

# %% [markdown]
# ## What is known to differ
#
# The final version of the paper prints the first form of {eq}`eq-sizes`, its first version the second. The published
# errors fit only the second: with the first, the error on the frequent classes that total and minority error imply would
# be negative at some exponents.

# %% [markdown]
# ## Not measured here yet
#
# :::{admonition} No result on this page is ours
# :class: note
# The code of this section is still to come. Every number above is the paper's; the [scoreboard](claims.ipynb) counts its
# claims as not yet measured.
# :::
#
# This page is made by {download}`imbalance.py </notebooks/imbalance.py>`.
