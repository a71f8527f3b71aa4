# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Effective robustness
#
# A pre-trained network, while it is fine-tuned, loses less accuracy under a natural shift of the data than networks of
# the same accuracy usually do. This *effective robustness* rises, peaks in the middle of fine-tuning and is mostly gone
# when the network has converged. Larger and more diverse pre-training data gives more of it; a network from random
# weights has none {cite:p}`andreassen2022evolution`.

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
# **Baseline.** Over a testbed of ordinary networks, accuracy on shifted data follows accuracy on the original data along
# a line, once both are put on the logit scale $\operatorname{logit}(a) = \ln\frac{a}{1-a}$
# {cite:p}`recht2019imagenet,taori2020measuring`:
#
# $$
# \operatorname{logit}(a_\text{out}) \approx A\,\operatorname{logit}(a_\text{in}) + B,
# \qquad
# \beta(a) = \operatorname{logit}^{-1}\bigl(A\,\operatorname{logit}(a) + B\bigr).
# $$ (eq-baseline)
#
# **Effective robustness** of a network $f$ is what it has beyond the baseline {eq}`eq-baseline` at its own accuracy,
#
# $$
# \rho(f) = a_\text{out}(f) - \beta\bigl(a_\text{in}(f)\bigr).
# $$ (eq-effective-robustness)
#
# **During fine-tuning** both accuracies are measured after every epoch, on CIFAR-10 and CIFAR-10.1, or on ImageNet and
# its variants. {eq}`eq-effective-robustness` is averaged over runs in bins of $a_\text{in}$, one per cent wide; the
# largest bin average is the *maximum effective robustness*.
#
# **Arms.** Networks pre-trained on ImageNet-1k, ImageNet-21k or JFT, tuned as a whole or in the last layer only, against
# the same networks from random weights.

# %% [markdown]
# ## What is claimed
#
# {numref}`tab-verdicts-effective-robustness` lists the claims with the papers' numbers. What this companion has not measured says so.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(recorded, sections=["effective_robustness"], name="tab-verdicts")

# %% [markdown]
# ## The paper's numbers
#
# {numref}`tab-effective-robustness` has the paper's main table, with a place for ours. The logit scale fits best, so {eq}`eq-baseline` uses it.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "effective_robustness",
    recorded,
    metrics=["r_squared"],
    datasets=["cifar10", "imagenet"],
    arms=["none"],
    methods=["fit-linear", "fit-probit", "fit-logit"],
    caption="Share of variance that a line explains, by the scale of the accuracies.",
    name="tab-effective-robustness",
)

# %% [markdown]
# ## What is known to differ
#
# Networks pre-trained on JFT are not public. The coefficients of {eq}`eq-baseline` that the paper prints were fitted with
# some very weak networks that are not public either, so a refit on the public part of the testbed will stand beside them.

# %% [markdown]
# ## Not measured here yet
#
# :::{admonition} No result on this page is ours
# :class: note
# The code of this section is still to come. Every number above is the paper's; the [scoreboard](claims.ipynb) counts its
# claims as not yet measured.
# :::
#
# This page is made by {download}`effective_robustness.py </notebooks/effective_robustness.py>`.
