# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Label noise
#
# When training labels are wrong, a pre-trained network keeps far more of its accuracy than one trained from scratch,
# over the whole range of corruption. It does so without any correction of the loss. Pre-training alone does better than
# Forward correction does without it; only Gold Loss Correction, which may use trusted labels, comes near or does better,
# and it gains from pre-training too {cite:p}`hendrycks2019using`.

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
# **Noise.** A label of class $i$ becomes class $j$ with probability $C_{ij}$. The noise is uniform with strength
# $s\in\{0,\,0.1,\,\dots,\,1\}$ over $K$ classes,
#
# $$
# C = (1-s)\,I + \frac{s}{K}\,\mathbf{1}\mathbf{1}^\top ,
# $$ (eq-noise)
#
# so the new label is drawn from all classes, the true one included, and the share of wrong labels is $s(K-1)/K$.
#
# **Forward correction** {cite:p}`patrini2017making` estimates $C$ from the predictions of a first network, which was
# trained on the noisy labels, and trains a second one through it:
#
# $$
# \ell(x,\tilde y) = -\log \sum_{k=1}^{K} p_\theta(k\mid x)\,\widehat{C}_{k\tilde y}.
# $$ (eq-forward)
#
# **Gold Loss Correction** (GLC) {cite:p}`hendrycks2018using` has a few trusted labels. It estimates each row of $C$ as
# the mean prediction of the first network over the trusted images of that class. The second network is then trained with
# {eq}`eq-forward` on the untrusted images and with ordinary cross-entropy on the trusted ones.
#
# **The reported quantity** is the area under the curve of the test error $e(s)$ over the strengths of {eq}`eq-noise`, by
# the trapezoidal rule,
#
# $$
# A = 0.1\,\Bigl(\tfrac12 e(0) + e(0.1) + \dots + e(0.9) + \tfrac12 e(1)\Bigr).
# $$ (eq-area)
#
# As the strengths span a range of one, $A$ in {eq}`eq-area` has the unit of an error.
#
# **Arms.** *From scratch*: WRN-40-2, 100 epochs (a stage). *Pre-trained*: the same network, pre-trained on Downsampled
# ImageNet with clean labels, a new last layer and 10 epochs (a stage).

# %% [markdown]
# ## What is claimed
#
# {numref}`tab-verdicts-label-noise` lists the claims with the papers' numbers. What this companion has not measured says so.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(recorded, sections=["label_noise"], name="tab-verdicts")

# %% [markdown]
# ## The paper's numbers
#
# {numref}`tab-label-noise` has the paper's main table, with a place for ours. Each area sums up eleven trainings, one a strength.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "label_noise",
    recorded,
    metrics=["error"],
    datasets=["cifar10", "cifar100"],
    methods=["none", "forward", "glc-5", "glc-10"],
    over_levels="area",
    caption="Area under the error curve.",
    name="tab-label-noise",
)

# %% [markdown]
# ## What is known to differ
#
# The paper's prose says that a wrong label is drawn from the other classes; its formula and its code draw from all
# classes, as in {eq}`eq-noise`. In the released code of GLC the trusted images are the first ones of the training file
# and not a random draw.

# %% [markdown]
# ## Not measured here yet
#
# :::{admonition} No result on this page is ours
# :class: note
# The code of this section is still to come. Every number above is the paper's; the [scoreboard](claims.ipynb) counts its
# claims as not yet measured.
# :::
#
# This page is made by {download}`label_noise.py </notebooks/label_noise.py>`.
