# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adversarial robustness
#
# A network that was trained on adversarial examples of Downsampled ImageNet, and then tuned on adversarial examples of
# CIFAR for a few epochs, withstands attacks better than one trained on CIFAR alone. Its accuracy on clean images stays
# the same. Robustness, it follows, can be carried from one task to another {cite:p}`hendrycks2019using`.

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
# **Threat model.** An attacker may change every pixel of an image $x\in[0,1]^d$ by at most $\varepsilon = 8/255$.
# Adversarial training {cite:p}`madry2018towards` minimises the loss on the worst such image,
#
# $$
# \min_\theta\; \mathbb{E}_{(x,y)}\; \max_{\|\delta\|_\infty\le\varepsilon}\; \ell\bigl(f_\theta(x+\delta),\,y\bigr),
# \qquad x+\delta\in[0,1]^d ,
# $$ (eq-adversarial-training)
#
# with $\ell$ the cross-entropy.
#
# **Attack.** The inner maximum is approached by projected gradient ascent (PGD) from a random start in the ball,
#
# $$
# x_{t+1} = \Pi_{\mathcal{B}_\varepsilon(x)}\Bigl(x_t + \alpha\,\operatorname{sign}\nabla_{x_t}\,\ell\bigl(f_\theta(x_t),\,y\bigr)\Bigr),
# $$ (eq-pgd)
#
# where $\Pi$ projects onto the ball around the clean image $x$ and then onto $[0,1]^d$. The step is $\alpha = 2/255$;
# training takes 10 steps, testing 20. In {eq}`eq-adversarial-training` and {eq}`eq-pgd` the network sees $2x-1$, so that
# $\varepsilon$ is measured in units of the image.
#
# **Arms.** *From scratch*: WRN-28-10 {cite:p}`zagoruyko2016wide`, 100 epochs of adversarial training on CIFAR. *Pre-trained*: 100 epochs of the same
# on Downsampled ImageNet with its 1,000 classes, then a new last layer and 5 epochs of adversarial tuning of the whole
# network on CIFAR at a learning rate of 0.001.

# %% [markdown]
# ## What is claimed
#
# {numref}`tab-verdicts-adversarial` lists the claims with the papers' numbers. What this companion has not measured says so.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(recorded, sections=["adversarial"], name="tab-verdicts")

# %% [markdown]
# ## The paper's numbers
#
# {numref}`tab-adversarial` has the paper's main table, with a place for ours. In the last row of each block the network was adversarially pre-trained; all others start from random weights.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "adversarial",
    recorded,
    metrics=["clean_accuracy", "adversarial_accuracy"],
    datasets=["cifar10", "cifar100"],
    methods=["normal", "adversarial"],
    caption="Accuracy on clean images and on adversarial ones (20 steps).",
    name="tab-adversarial",
)

# %% [markdown]
# ## What is known to differ
#
# The attack in the authors' released code overwrites the clean batch with its random start. Its ball is then centred on
# an already noised image, so that the final change can reach $2\varepsilon$. {eq}`eq-pgd` is the attack that the paper
# describes, and the one this companion will use; the literal one will be an option beside it.
#
# The paper's attack is not the strongest there is. {cite:t}`croce2021robustbench` list the authors' released networks with
# a lower accuracy under a set of stronger attacks.

# %% [markdown]
# ## Not measured here yet
#
# :::{admonition} No result on this page is ours
# :class: note
# The code of this section is still to come. Every number above is the paper's; the [scoreboard](claims.ipynb) counts its
# claims as not yet measured.
# :::
#
# This page is made by {download}`adversarial.py </notebooks/adversarial.py>`.
