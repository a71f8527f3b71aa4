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
# A network should be less sure of an image that belongs to none of its classes. The paper's claim: pre-training makes it
# so; the confidence of a pre-trained network tells foreign images from test images better than that of a network trained from
# scratch, on CIFAR-10, CIFAR-100 and Tiny ImageNet, as a mean over eight kinds of foreign images
# {cite:p}`hendrycks2019using`.

# %% tags=["parameters"]
profile = "smoke"  # scale of the live run: smoke, cpu or paper
dataset = "all"  # data sets of the profile, separated by commas, or all
method = "all"  # standard, max-logit, energy, nearest-neighbours, mahalanobis, overlap, or all
seeds = "default"  # such as 0,1,2 or 0-4, or default for the profile's
overrides = ""  # settings to change, as for --set, separated by commas
data_root = ""  # folder of the image sets; empty for $ROBUSTNESS_DATA or ./data
store = "runs"  # folder for records, networks and checkpoints
results = "book/results"  # folder of the recorded results

# %% tags=["hide-input", "remove-stderr"]
from pathlib import Path

import numpy as np

from robustness_lib import detection, notebook, ood, records, report, sections

notebook.check_parameters(globals())
report.use_style()
published = records.frame(records.load_published("ood", Path(results)))
known_sets = ["cifar10", "cifar100", "tiny_imagenet"]

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
report.in_short("ood", published, report.photographs_note(published, datasets=known_sets))

# %% [markdown]
# ## Method
#
# **Score.** An image is the more suspect, the less confident the network is {cite:p}`hendrycks2017baseline`:
#
# $$
# s(x) = -\max_{k}\; p_\theta(k\mid x).
# $$ (eq-ood-score)
#
# **Foreign images.** Three sets are synthetic: Gaussian noise, Rademacher noise (every value the least or the greatest), and
# blobs (blurred noise, cut off). Five are photographs: textures {cite:p}`cimpoi2014describing`, SVHN, Places365, LSUN, and
# the CIFAR set that was not trained on; for Tiny ImageNet, ImageNet-21K. There is one foreign image to five known ones, the
# test images.
#
# **Measures**, with foreign images as the positive class. AUROC is the probability that a foreign image has the larger
# score of {eq}`eq-ood-score`,
#
# $$
# \mathrm{AUROC} = P\bigl(s(x_\text{out}) > s(x_\text{in})\bigr) + \tfrac12 P\bigl(s(x_\text{out}) = s(x_\text{in})\bigr),
# $$ (eq-auroc)
#
# and a coin scores 50 %. AUPR is the average precision: over the thresholds $t_1 > t_2 > \dots$ at the distinct scores, with
# precision $P_n$ and recall $R_n$,
#
# $$
# \mathrm{AUPR} = \sum_n (R_n - R_{n-1})\,P_n ,
# $$ (eq-aupr)
#
# where a coin scores the share of foreign images, one in six. Unlike {eq}`eq-auroc`, {eq}`eq-aupr` depends on that share. So
# that sets of any size can be compared, each foreign image is weighted here to make it one to five. FPR95 is the share of
# known images that are flagged at the threshold that finds 95 % of the foreign ones, or comes closest to that.
#
# AUROC and AUPR need no threshold, FPR95 a fixed recall. None of them changes if the scores are stretched, so long as their
# order stays.
# Where both scores are normal and one standard deviation apart, {eq}`eq-auroc` is 76.0 %:

# %%
draw = np.random.default_rng(0)
known, foreign = draw.normal(0, 1, 10_000), draw.normal(1, 1, 2_000)
changes = {"as they are": np.positive, "stretched": np.exp, "turned round": np.negative}
for name, change in changes.items():
    found = detection.detection_metrics(change(known), change(foreign), out_per_in=1 / 5)
    words = (f"{measure.upper()} {value:.1%}" for measure, value in found.items())
    print(f"{name:>12}: {', '.join(words)}")

# %% [markdown]
# **Draws and seeds.** The paper's average of five runs is an average over five draws of the foreign images for one trained
# network. Here too a value is a mean over five draws, the same for both arms; and there are several seeds, each with networks
# and draws of its own. The two spreads are kept apart.
#
# **Arms in the paper.** The networks are those of the [calibration](calibration.ipynb) page, here too trained once and used
# twice. *From scratch*: 100 epochs on the target. *Pre-trained*: the same network after Downsampled ImageNet, with a new
# last layer, tuned for 10 epochs (Tiny ImageNet: 20) at a small learning rate. {numref}`tab-ood-recipes` has ours.

# %% [markdown]
# ## Recorded results
#
# In the paper every mean rises, most of all on CIFAR-100. {numref}`tab-ood` puts its Table 4 beside what was recorded, at the
# highest profile that has records. Here a mean is over the foreign sets that were at hand; beside the paper's mean over all
# eight sets stands its mean over those alone, from its Table 6, so that like is compared with like. The two lower rows of
# each block say where a gain comes from.
#
# The intervals are Student's, from a few seeds. They take the effects to be normal; where the seeds differ much, an interval
# may reach beyond what a difference of two shares can be.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.kinds_table(
    published,
    datasets=known_sets,
    caption="AUROC and AUPR, means over foreign sets, from scratch → pre-trained, the paper's and ours.",
    name="tab-ood",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.recipes_table("ood", published, name="tab-ood-recipes", methods=["standard"])

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.chance_note(published, datasets=known_sets)

# %% [markdown]
# The tables that follow are the paper's Table 6, set by set: {numref}`tab-ood-cifar10`, {numref}`tab-ood-cifar100` and
# {numref}`tab-ood-tiny` for AUROC, each with one for AUPR after it. A set that says "not at hand" was in no mean of ours.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.foreign_sets_table(
    published,
    dataset="cifar10",
    caption="CIFAR-10 as the known set, by foreign set, from scratch → pre-trained.",
    name="tab-ood-cifar10",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.foreign_sets_table(
    published,
    dataset="cifar100",
    caption="CIFAR-100 as the known set, by foreign set, from scratch → pre-trained.",
    name="tab-ood-cifar100",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.foreign_sets_table(
    published,
    dataset="tiny_imagenet",
    caption="Tiny ImageNet as the known set, by foreign set, from scratch → pre-trained.",
    name="tab-ood-tiny",
)

# %% [markdown]
# ### Where pre-training helps
#
# In the paper the largest gains are against noise, on CIFAR-100. {numref}`fig-ood-gain` shows the gain in AUROC by foreign
# set, the paper's and ours.

# %% mystnb={"figure": {"caption": "What pre-training adds to AUROC, by foreign set, a panel a known set: ours a point a seed, the paper's as diamonds. Left of the dotted line it does harm. Each panel has its own scale.", "name": "fig-ood-gain"}, "image": {"alt": "Three panels, one a known set, with foreign sets as rows and the gain in AUROC to the right. In the paper's diamonds CIFAR-100 gains nearly fifty points on the two kinds of noise and little elsewhere; on CIFAR-10 gains are small; Tiny ImageNet gains eighteen points on Gaussian noise and loses on four of its eight sets. Tables before have the numbers.", "width": "100%"}} tags=["hide-input"]
figure = report.gain_by_set(published, datasets=known_sets)

# %% [markdown]
# The paper's numbers are means; its text says that they improve consistently. By single sets, pre-training does not always
# help, in the paper's Table 6 either:

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.losses_note(published, datasets=known_sets)

# %% [markdown]
# Synthetic sets weigh much in these means, in ours still more than in the paper's, and they are far from any photograph:
# how sure a network is of noise depends on how it extrapolates, so a gain or a loss there says little about photographs.
# On CIFAR-100 most of the paper's gain comes from such sets, and {numref}`tab-ood` shows what ours comes from.
#
# ### What the networks say
#
# {numref}`fig-ood-confidence-cifar10` and {numref}`fig-ood-confidence-cifar100` show the confidence behind the numbers, and
# {numref}`fig-ood-roc-cifar10` and {numref}`fig-ood-roc-cifar100` the trade-off of {eq}`eq-auroc`: AUROC is the area under
# such a curve.

# %% mystnb={"figure": {"caption": "Confidence on CIFAR-10 (grey) and on foreign sets (lines), mean over seeds; synthetic sets above, photographs below. The vertical axis is logarithmic above 1 %.", "name": "fig-ood-confidence-cifar10"}, "image": {"alt": "Four histograms of the confidence with CIFAR-10 as the known set: from scratch left, pre-trained right; noise and blobs above, photographs below. Known images are a grey area that rises to full confidence; foreign sets are coloured outlines over it. The tables of CIFAR-10 say how far they overlap.", "width": "100%"}} tags=["hide-input"]
figure = report.score_histograms(published, dataset="cifar10")

# %% mystnb={"figure": {"caption": "Confidence on CIFAR-100 (grey) and on foreign sets (lines), mean over seeds; synthetic sets above, photographs below. The vertical axis is logarithmic above 1 %.", "name": "fig-ood-confidence-cifar100"}, "image": {"alt": "Four histograms of the confidence with CIFAR-100 as the known set: from scratch left, pre-trained right; noise and blobs above, photographs below. Known images are a grey area; foreign sets are coloured outlines over it. The tables of CIFAR-100 say how far they overlap.", "width": "100%"}} tags=["hide-input"]
figure = report.score_histograms(published, dataset="cifar100")

# %% mystnb={"figure": {"caption": "Receiver operating characteristics with CIFAR-10 as the known set, by foreign set: mean over seeds with a band of one standard deviation.", "name": "fig-ood-roc-cifar10"}, "image": {"alt": "One panel a foreign set with the share of foreign images flagged against the share of CIFAR-10's test images flagged, from scratch and pre-trained, beside a dotted diagonal of chance. The table of CIFAR-10 has the areas.", "width": "100%"}} tags=["hide-input"]
figure = report.roc_curves(published, dataset="cifar10", rates=ood.RATES)

# %% mystnb={"figure": {"caption": "Receiver operating characteristics with CIFAR-100 as the known set, by foreign set: mean over seeds with a band of one standard deviation.", "name": "fig-ood-roc-cifar100"}, "image": {"alt": "One panel a foreign set with the share of foreign images flagged against the share of CIFAR-100's test images flagged, from scratch and pre-trained, beside a dotted diagonal of chance. The table of CIFAR-100 has the areas.", "width": "100%"}} tags=["hide-input"]
figure = report.roc_curves(published, dataset="cifar100", rates=ood.RATES)

# %% [markdown]
# ### Does it help a better score, too?
#
# The largest softmax probability is the simplest score. Four later ones use the same pass: the largest logit
# {cite:p}`hendrycks2022scaling`; the free energy $-\log\sum_k e^{f_k(x)}$ of the logits $f_k$ {cite:p}`liu2020energy`; the
# distance of the features before the last layer to the nearest training images {cite:p}`sun2022neighbors`; and their
# Mahalanobis distance to the nearest class {cite:p}`lee2018simple`. The last two look at features, which is what pre-training
# gives. {numref}`tab-ood-scores` and {numref}`tab-ood-scores-aupr` compare the arms under each score,
# {numref}`fig-ood-scores-cifar10` and {numref}`fig-ood-scores-cifar100` the scores.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scores_table(
    published,
    datasets=known_sets,
    methods=list(detection.SCORES),
    caption="means over the foreign sets at hand by score, from scratch → pre-trained, over the n seeds that both arms have; of each known set at the profile that has most scores. *Standard* is the paper's score.",
    name="tab-ood-scores",
)

# %% mystnb={"figure": {"caption": "Mean AUROC on CIFAR-10 by score, at the profile that has most scores: bars are means over seeds with their standard deviation, points are seeds, diamonds the paper's values (over its eight sets).", "name": "fig-ood-scores-cifar10"}, "image": {"alt": "Bar chart of the mean AUROC on CIFAR-10 under five scores, two bars each, from scratch and pre-trained. The table before it has the numbers.", "width": "100%"}} tags=["hide-input"]
figure = report.bars_with_paper(
    "ood", published, "auroc_mean", datasets=["cifar10"], methods=list(detection.SCORES), locator="P1 Table 4"
)

# %% mystnb={"figure": {"caption": "Mean AUROC on CIFAR-100 by score, at the profile that has most scores: bars are means over seeds with their standard deviation, points are seeds, diamonds the paper's values (over its eight sets).", "name": "fig-ood-scores-cifar100"}, "image": {"alt": "Bar chart of the mean AUROC on CIFAR-100 under five scores, two bars each, from scratch and pre-trained. The table before it has the numbers.", "width": "100%"}} tags=["hide-input"]
figure = report.bars_with_paper(
    "ood", published, "auroc_mean", datasets=["cifar100"], methods=list(detection.SCORES), locator="P1 Table 4"
)

# %% [markdown]
# ### Are the foreign images foreign?
#
# A pre-trained network may have met the foreign classes, or even the images, in pre-training. The paper says that no foreign
# set shares samples with Downsampled ImageNet. {numref}`tab-ood-overlap` counts it: classes by name, images whose
# edges agree with those of an image of the corpus, and how many of the corpus's classes are among those that the paper calls
# related to CIFAR-10. The class names are compared as words, so "tabby" is no cat, and a "mouse" may belong to a computer.
# Copies that are cropped or mirrored are not found, so the images are a lower bound; looked at by eye, nearly all pairs of
# CIFAR's are one photograph.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.overlap_table(
    published,
    datasets=known_sets,
    caption="What the known and the foreign sets share with the corpus of pre-training.",
    name="tab-ood-overlap",
)

# %% [markdown]
# The shared images are too few to move a mean visibly. Shared classes are another matter: for the network that was tuned on
# CIFAR-10, many of CIFAR-100's classes are foreign and yet known from pre-training. The set *other ImageNet* goes
# to that extreme: images of ImageNet's validation set, all of whose classes the pre-trained network was taught, without those
# that the paper calls related to CIFAR-10. It is in no mean.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.further_sets_note(published, datasets=known_sets)

# %% [markdown]
# For Tiny ImageNet, the authors' released code uses the other 800 ImageNet classes as foreign images. These are the very
# classes of its pre-training; the paper names ImageNet-21K instead. Here that row stays empty unless ImageNet-21K's images are
# given as a bundle of one's own.

# %% [markdown]
# ## Do the claims hold?
#
# {numref}`tab-verdicts-ood` judges each claim by [the rule of the scoreboard](claims.ipynb). Ours are means over the sets at
# hand, which {numref}`tab-ood` compares with the paper's over the same sets. Where a mean falls, the rows by kind in that
# table say whether photographs are the cause, or synthetic sets.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(published, sections=["ood"], name="tab-verdicts")

# %% [markdown]
# ## What differs, and why
#
# *Foreign sets.* There are fewer than the paper's eight here, and of the textures only a part, whose numbers
# {numref}`tab-ood-overlap` gives. So a draw has 1,000 images rather than 2,000, and the draws of textures have most images
# in common: their spread is smaller than that of independent ones.
#
# *Corpus.* At the `paper` profile recipe, network and target are the paper's, but pre-training had only a part of Downsampled
# ImageNet ({numref}`tab-ood-recipes`). Their accuracy is on the page of [calibration](calibration.ipynb#what-differs-and-why).
#
# *Scale.* At the `cpu` profile the network is smaller, it was pre-trained on a part of Downsampled ImageNet, and it is tuned
# on a part of CIFAR, at a larger learning rate. Such a network is less accurate, and its confidence tells
# less; how it extrapolates to noise need not be how the paper's does. For Tiny ImageNet, here at 32 pixels instead of 64,
# pre-training leaves out its classes, as in the paper; few are then left of our part of the corpus
# ([provenance](provenance.ipynb) has their number), and both arms err on most test images: its rows say little either way.
#
# *Spread.* {numref}`tab-ood-spread` keeps the two kinds apart: how much one network's value varies with the draw of the
# foreign images, which is what the paper averages over, and how much it varies with the training, which is what the
# intervals here are about. The `cpu` profile plans three seeds; two more were measured after a look at these, because most
# intervals were wide. All of them count, whatever they showed.
#
# *FPR95.* The paper's code computes it and does not report it. It takes the threshold whose recall is closest to 95 %; so do
# we.
#
# *Ties.* In single precision the confidence of a sure network is exactly one for many images, and their order is lost. Here
# scores are computed in double precision.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.spreads_table(
    published,
    datasets=known_sets,
    caption="Means over the foreign sets, and their standard deviations over draws and over seeds, in points.",
    name="tab-ood-spread",
)

# %% [markdown]
# ## Run it now
#
# The next cell measures the section at the profile that the parameters name. The default, `smoke`, takes seconds: a tiny
# network, and made-up images as the known set: a check of the machinery, no evidence.

# %% tags=["remove-stderr"]
jobs, live = sections.measure_as_asked("ood", globals())

# %% [markdown]
# {numref}`fig-ood-live` shows how sure the networks are of what they see, {numref}`tab-ood-live` how well that tells OOD
# images from in-distribution ones. The set of classes that pre-training has seen is in no mean.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.live_table(
    jobs,
    live,
    metrics=[name for name in live if name.startswith(("auroc_", "aupr_mean", "fpr95_mean"))],
    caption="The live run: AUROC of each set, and the means of all three measures.",
    name="tab-ood-live",
)

# %% mystnb={"figure": {"caption": "Confidence of the live run's networks, mean over seeds: known images grey, foreign images as lines. It is a run of the machinery, not evidence.", "name": "fig-ood-live"}, "image": {"alt": "Four histograms of the confidence, from scratch and pre-trained, with synthetic sets above and others below. Known images are a grey area that rises to the right; foreign sets are coloured outlines over it.", "width": "100%"}} tags=["hide-input"]
figure = report.score_histograms(live, dataset=jobs[0].dataset, profile=profile)

# %% [markdown]
# ## How to run it again
#
# The live part above, at the scale of your choice; what it measures goes to `runs/`, and `robustness publish`
# puts it into this book:
#
# ```bash
# papermill notebooks/ood.ipynb runs/ood-cifar100.ipynb \
#     -p profile cpu -p dataset cifar100
# ```
#
# A set that is not at hand is left out by naming the others, separated by colons; it is then left out of the means of that
# run, whose records say so. A set of your own, `mine/test.npz` in the data root, is measured beside the means, or in them:
#
# ```bash
# robustness run ood --profile paper --dataset cifar10 \
#     --set ood_sets=gaussian:rademacher:blobs:textures:svhn:cifar100
# robustness run ood --profile cpu --dataset cifar10 --set further_sets=mine
# robustness run ood --profile cpu --dataset cifar10 \
#     --set ood_sets=textures:cifar100:mine --set draw_images=500
# ```

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.made_by(published, "ood")

# %% [markdown]
# This page is made by {download}`ood.py </notebooks/ood.py>`.
