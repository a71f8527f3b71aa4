# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Out-of-distribution detection
#
# The confidence of a pre-trained network tells images of unknown kinds from test images better than the confidence of a
# network trained from scratch, averaged over eight kinds of foreign images, on CIFAR-10, CIFAR-100 and Tiny ImageNet
# {cite:p}`hendrycks2019using`.

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
# **Score.** An image is the more suspect, the less confident the network is {cite:p}`hendrycks2017baseline`:
#
# $$
# s(x) = -\max_{k}\; p_\theta(k\mid x).
# $$ (eq-ood-score)
#
# **Foreign images.** Three sets are made (Gaussian noise, Rademacher noise, blobs) and five are photographs (textures,
# SVHN, Places365, LSUN, and the CIFAR set that was not trained on; for Tiny ImageNet, ImageNet-21K). There is one foreign
# image to five test images.
#
# **Measures**, with foreign images as the positive class of {eq}`eq-ood-score`. AUROC is the probability that a foreign
# image has the larger score,
#
# $$
# \mathrm{AUROC} = P\bigl(s(x_\text{out}) > s(x_\text{in})\bigr) + \tfrac12 P\bigl(s(x_\text{out}) = s(x_\text{in})\bigr),
# $$ (eq-auroc)
#
# and a coin scores 50 %. AUPR is the average precision; there a coin scores the share of foreign images, one in six. Unlike
# {eq}`eq-auroc`, AUPR depends on that share.
#
# **Arms.** *From scratch*: WRN-40-2, 100 epochs. *Pre-trained*: pre-trained on Downsampled ImageNet, a new last layer,
# 10 epochs (CIFAR) or 20 (Tiny ImageNet).

# %% [markdown]
# ## What is claimed
#
# {numref}`tab-verdicts-ood` lists the claims with the papers' numbers. What this companion has not measured says so.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(recorded, sections=["ood"], name="tab-verdicts")

# %% [markdown]
# ## The paper's numbers
#
# {numref}`tab-ood` has the paper's main table, with a place for ours. The mean hides much: on CIFAR-100 most of the gain comes from the two kinds of noise, and some photographs are told apart no better after pre-training.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "ood",
    recorded,
    metrics=["auroc_mean", "aupr_mean"],
    datasets=["cifar10", "cifar100", "tiny_imagenet"],
    locator="P1 Table 4",
    caption="AUROC and AUPR, mean over the eight kinds of foreign images.",
    name="tab-ood",
)

# %% [markdown]
# ## What is known to differ
#
# The paper's average of five runs is an average over five draws of the foreign images for one trained network, not over
# five trained networks. Its spread says nothing about how much training itself varies; here it will be over seeds.

# %% [markdown]
# ## Not measured here yet
#
# :::{admonition} No result on this page is ours
# :class: note
# The code of this section is still to come. Every number above is the paper's; the [scoreboard](claims.ipynb) counts its
# claims as not yet measured.
# :::
#
# This page is made by {download}`ood.py </notebooks/ood.py>`.
