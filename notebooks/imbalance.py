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
# Where some classes have far fewer training images than others, a network errs most on the rare ones. The paper's claim:
# pre-training lowers this error, and the error over all classes, by more than the usual remedies do: weighting the loss,
# repeating images of rare classes, or making new ones between existing ones {cite:p}`hendrycks2019using`.

# %% tags=["parameters"]
profile = "smoke"  # scale of the live run: smoke, cpu or paper
dataset = "all"  # data sets of the section, separated by commas, or all
method = "all"  # normal, cost-sensitive, oversampling, smote, or all
levels = "all"  # exponents, such as 0.2,1, or all
seeds = "default"  # such as 0,1,2 or 0-4, or default for the profile's
overrides = ""  # settings to change, as for --set, separated by commas
data_root = ""  # folder of the image sets; empty for $ROBUSTNESS_DATA or ./data
store = "runs"  # folder for records, networks and checkpoints
results = "book/results"  # folder of the recorded results

# %% tags=["hide-input", "remove-stderr"]
from pathlib import Path

import numpy as np

from robustness_lib import imbalance, notebook, paper, records, report, sections

notebook.check_parameters(globals())
report.use_style()
published = records.frame(records.load_published("imbalance", Path(results)))
remedies = ["normal", "cost-sensitive", "oversampling", "smote"]
panels = report.panels_by_arm(["error", "minority_error"])
as_in_the_paper = [*((name, "scratch") for name in remedies), ("normal", "pre-trained")]

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
report.in_short("imbalance", published)

# %% [markdown]
# ## Method
#
# **Sizes.** Class $c = 1,\dots,K$ keeps
#
# $$
# n_c = \operatorname{round}\!\left(\frac{a}{b + c^{\gamma}}\right)
# \qquad\text{or}\qquad
# n_c = \operatorname{round}\!\left(\frac{a}{b + (c-1)^{\gamma}}\right)
# $$ (eq-sizes)
#
# images. The first form is that of the paper's first version, the second that of its last; the paper's numbers fit the
# first ({numref}`tab-imbalance-law`), which is the default here. $a$ and $b$ are such that the largest and the smallest
# class have 5,000 and 250 images (CIFAR-10) or 500 and 25 (CIFAR-100). The smaller $\gamma$, the stronger the imbalance.
#
# By {eq}`eq-sizes`, $1/n_c$ is a linear function of $c^{\gamma}$, which the two ends determine. In code:

# %%
c, largest, smallest = np.arange(1, 11), 5000, 250
for gamma in (0.2, 1.0, 2.0):
    way = (c**gamma - 1) / (10**gamma - 1)
    sizes = np.rint(1 / ((1 - way) / largest + way / smallest)).astype(int)
    few = (sizes < sizes.mean()).sum()
    print(f"{gamma}:", *sizes, f"({few} minority classes)")

# %% [markdown]
# **Errors.** The test set stays whole and balanced. The *total error* is the mean of the class-wise errors. The *minority
# error* is their mean over the minority classes, those that have fewer images than the average class.
#
# **Methods.** *Normal*: plain cross-entropy on the imbalanced set. *Cost sensitive*: the loss of an example is weighted in
# proportion to $1/n_c$. *Oversampling*: images of smaller classes are repeated at random until all classes have as many as
# the largest. *SMOTE* {cite:p}`chawla2002smote`: instead of repeating, new images are placed between an image $x$ and one
# of its five nearest neighbours $x'$ of the same class,
#
# $$
# \tilde x = x + u\,(x' - x), \qquad u\sim\mathcal{U}(0,1).
# $$ (eq-smote)
#
# {eq}`eq-smote` is applied to the pixels, once, before training.
#
# **Arms in the paper.** *From scratch*: 100 epochs. *Pre-trained*: the network
# after Downsampled ImageNet, with a new last layer, tuned for 50 epochs at a small learning rate. The paper's row
# "Pre-Training" is the pre-trained arm with normal training. Here each method has both arms, so that one sees whether a
# remedy still helps a network that was pre-trained. {numref}`tab-imbalance-recipes` has our recipes.
#
# At one seed, both arms and all methods keep the same images, and a class that keeps more images at another $\gamma$ keeps
# these too. Where two methods have sets of one size, they also share the order of the images and their crops.

# %% [markdown]
# ## Recorded results
#
# {numref}`tab-imbalance-cifar10` to {numref}`tab-imbalance-minority-cifar100` put the paper's Table 3 beside what was
# recorded, at the highest profile that has records; a dash is an exponent that was not run. The paper has one pre-trained
# row, that with normal training. {numref}`tab-imbalance-recipes` says how the networks were trained.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.levels_table(
    "imbalance",
    published,
    measure="error",
    dataset="cifar10",
    methods=remedies,
    symbol="γ",
    caption="Total test error on CIFAR-10 (%), the paper's and ours (mean ± s.d. over n seeds).",
    name="tab-imbalance-cifar10",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.levels_table(
    "imbalance",
    published,
    measure="minority_error",
    dataset="cifar10",
    methods=remedies,
    symbol="γ",
    caption="Minority test error on CIFAR-10 (%), the paper's and ours.",
    name="tab-imbalance-minority-cifar10",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.levels_table(
    "imbalance",
    published,
    measure="error",
    dataset="cifar100",
    methods=remedies,
    symbol="γ",
    caption="Total test error on CIFAR-100 (%), the paper's and ours.",
    name="tab-imbalance-cifar100",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.levels_table(
    "imbalance",
    published,
    measure="minority_error",
    dataset="cifar100",
    methods=remedies,
    symbol="γ",
    caption="Minority test error on CIFAR-100 (%), the paper's and ours.",
    name="tab-imbalance-minority-cifar100",
)

# %% [markdown]
# At `cpu`, epochs are fewer at weak imbalance and with oversampling and SMOTE, whose sets are larger: all trainings of an
# arm process about equally many images. At `paper`, they are the paper's, whatever the set.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.recipes_table("imbalance", published, name="tab-imbalance-recipes")

# %% [markdown]
# {numref}`fig-imbalance-cifar10` and {numref}`fig-imbalance-cifar100` draw these tables: the paper's values dashed, with
# open markers.

# %% mystnb={"figure": {"caption": "CIFAR-10: total and minority error against the exponent. Ours with a band of one standard deviation over seeds.", "name": "fig-imbalance-cifar10"}, "image": {"alt": "Four panels for CIFAR-10: total error above, minority error below; from scratch on the left, pre-trained on the right. In the paper, the errors from scratch fall on the whole as the exponent grows, and the pre-trained error is nearly flat and less than half as large.", "width": "100%"}} tags=["hide-input"]
figure = report.curve_grid(
    "imbalance",
    published,
    panels,
    dataset="cifar10",
    method=remedies,
    x_label="exponent γ",
)

# %% mystnb={"figure": {"caption": "CIFAR-100: total and minority error against the exponent. Ours with a band of one standard deviation over seeds.", "name": "fig-imbalance-cifar100"}, "image": {"alt": "Four panels for CIFAR-100, as for CIFAR-10. In the paper, SMOTE is the best method from scratch at strong imbalance, and the pre-trained error lies well below it.", "width": "100%"}} tags=["hide-input"]
figure = report.curve_grid(
    "imbalance",
    published,
    panels,
    dataset="cifar100",
    method=remedies,
    x_label="exponent γ",
)

# %% [markdown]
# ### Class by class
#
# {numref}`fig-imbalance-classes` is the paper's Figure 3, with ours: the error of each class at the strongest imbalance.
# {numref}`fig-imbalance-classes-cifar100` has the same for CIFAR-100, which the paper does not show.

# %% mystnb={"figure": {"caption": "Class-wise error on CIFAR-10 at γ = 0.2, the paper's and ours (mean over seeds).", "name": "fig-imbalance-classes"}, "image": {"alt": "Line charts of the error of the ten classes. In the paper, the first two classes have errors below six percent with every method; on the others the errors of the pre-trained network are about half of those from scratch or less.", "width": "100%"}} tags=["hide-input"]
figure = report.curves_by_class("imbalance", published, dataset="cifar10", level=0.2, settings=as_in_the_paper)

# %% mystnb={"figure": {"caption": "Class-wise error on CIFAR-100 at γ = 0.2: a point is the mean over ten classes of similar size, and over seeds.", "name": "fig-imbalance-classes-cifar100"}, "image": {"alt": "Line chart of the error of the hundred classes in tens, from the classes with the most images to those with the fewest, one line a method.", "width": "100%"}} tags=["hide-input"]
figure = report.curves_by_class(
    "imbalance", published, dataset="cifar100", level=0.2, settings=as_in_the_paper, merge=10
)

# %% [markdown]
# ### On which classes pre-training gains
#
# The paper says that most of the gain is on minority classes. The total error is the mean of the class-wise errors, so it
# has two parts, that of the minority classes and that of the others. {numref}`tab-imbalance-gain` has the first part's
# share of what the pre-trained arm gains over the one from scratch, both with normal training. Most classes are minority
# classes, so a large share alone says little; it stands beside the share that a gain equal in all classes would have. By
# the paper's own numbers, minority classes gain more than their share on CIFAR-10, and about their share on CIFAR-100.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
classes = imbalance.SCALES["paper"].sizes


def minority(dataset, gamma, law="v1"):
    number, largest, smallest = classes[dataset]
    return imbalance.minority_classes(imbalance.class_sizes(number, gamma, largest, smallest, law)).mean()


report.minority_gain_table(
    published,
    datasets=list(classes),
    minority=minority,
    caption="Share of the minority classes in the gain in total error (in brackets: in the classes); the paper's is computed from its Table 3. A negative share: pre-training does harm on minority classes, and gains on the others.",
    name="tab-imbalance-gain",
)

# %% [markdown]
# ### Remedies on top of pre-training
#
# {numref}`tab-imbalance-remedies` has what each remedy changes in each arm, compared with normal training at the same seed:
# a negative number is a gain. The paper combines none of them with pre-training.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.method_effects_table(
    "imbalance",
    published,
    measures=["error", "minority_error"],
    datasets=list(classes),
    methods=remedies,
    reference="normal",
    caption="Difference from normal training in points, mean over the exponents [95 % interval over seeds].",
    name="tab-imbalance-remedies",
)

# %% [markdown]
# Making SMOTE's images costs little beside a training: {numref}`tab-imbalance-smote` has the seconds that it took, once for
# each. Records also hold the *balanced accuracy*; on a balanced test set such as CIFAR's it is one minus the total error.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.levels_table(
    "imbalance",
    published,
    measure="smote_seconds",
    dataset="cifar10",
    methods=["smote"],
    arms=["scratch"],
    symbol="γ",
    caption="Time to make SMOTE's images on CIFAR-10 (s).",
    name="tab-imbalance-smote",
)

# %% [markdown]
# ## Do the claims hold?
#
# {numref}`tab-verdicts-imbalance` judges each claim by [the rule of the scoreboard](claims.ipynb). A claim about every
# imbalance stands by the exponent that bears it out least.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(published, sections=["imbalance"], name="tab-verdicts")

# %% [markdown]
# ## What differs, and why
#
# *CIFAR-100 at weak imbalance.* Where the pre-trained network errs more on minority classes than the one from scratch, but
# less over all ({numref}`tab-imbalance-minority-cifar100` and {numref}`tab-imbalance-cifar100`), the minority's share of the
# gain in {numref}`tab-imbalance-gain` is negative. The features of pre-training are not at fault: with SMOTE the same
# checkpoint does far better on minority classes. What is at fault is that tuning at `cpu` has so few epochs at weak
# imbalance: it leaves the new head leaning to the frequent classes. {numref}`tab-imbalance-longer` has tunings that took
# longer (`--set tuned.epochs=40`), which err far less, on minority classes too. The claims are judged by the planned ones.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.setting_table(
    "imbalance",
    published,
    setting="epochs",
    words="Epochs",
    measure="minority_error",
    dataset="cifar100",
    methods=["normal"],
    level=2.0,
    caption="Minority test error on CIFAR-100 at γ = 2, by the number of epochs.",
    name="tab-imbalance-longer",
)

# %% [markdown]
# *The size law.* The paper's last version prints the second form of {eq}`eq-sizes`, its first version the first, and no code
# was released. The numbers tell which was used. Since the test set is balanced, total and minority error together give the
# error on the remaining classes. {numref}`tab-imbalance-law` has it for normal training: by the second form it would be
# negative at two exponents. So the first form is the default here, and `--set law=v5` runs the second. At $\gamma = 1$ they
# agree.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
errors = paper.select("imbalance", dataset="cifar10", arm="scratch", method="normal")
rows = []
for gamma, row in errors.pivot(index="level", columns="metric", values="value").iterrows():
    few = {law: minority("cifar10", gamma, law) for law in imbalance.LAWS}
    left = {law: (row["error"] - few[law] * row["minority_error"]) / (1 - few[law]) for law in few}
    rows.append([f"{gamma:g}", *(f"{10 * few[law]:.0f}: {100 * left[law]:.1f} %".replace("-", "−") for law in few)])
report.myst_table(
    ["γ", "First form, $c^{\\gamma}$", "Second form, $(c-1)^{\\gamma}$"],
    rows,
    caption="Number of minority classes by each form of the size law, and the error on the other classes that the paper's total and minority error (CIFAR-10, normal training) then imply.",
    name="tab-imbalance-law",
)

# %% [markdown]
# *Printed digits.* The entries of the paper's Table 3 are cut off after the first decimal, not rounded: only so do the
# class-wise errors of its Figure 3 give all of its entries at $\gamma = 0.2$. Its values may be too low by up to one unit of their last digit.
#
# *A margin that the table does not have.* Beside a number for CIFAR-10, the text gives a difference of 12.6 points between
# pre-training and SMOTE. On CIFAR-10, the total errors of the table differ by less at every exponent; the claim is judged
# against the number of the text.
#
# *What the paper leaves open.* Which images a class keeps: here drawn at random. How far oversampling and SMOTE go: up to
# the largest class, with epochs of the enlarged set. SMOTE's neighbours: five, by Euclidean distance of the pixels, new pixels rounded. The weights: the
# loss of a batch is divided by the sum of its weights. How often each network was trained: probably once.
#
# *Scale.* At the `cpu` profile the network is smaller, it was pre-trained on a part of Downsampled ImageNet, and classes have
# a fifth of the paper's images (the smallest class of CIFAR-100 has six instead of five, since SMOTE needs a neighbour more
# than it draws from). All trainings of an arm process about equally many images, whatever the method and exponent, where
# in the paper oversampling and SMOTE train several times as long as the others.
#
# *Length.* {numref}`tab-imbalance-candidates` has what was tried on CIFAR-10 with seed 0, judged on a balanced set of
# training images that no exponent keeps. Length matters far more than on balanced sets: with 40,000 images, a network from
# scratch hardly learns the rare classes. Taken were batches of 32, and the longest training of each arm that was tried:
# 200,000 images from scratch, 40,000 for tuning. From scratch the error still falls with length at that point, so a part
# of the difference between the arms is training that has not ended.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.candidates_table(
    records.frame(records.load_published("recipe_choice", Path(results))),
    method="imbalanced",
    measures=["rms_calibration_error", "negative_log_likelihood", "error"],
    symbol="γ",
    caption="Candidates of the `cpu` profile on imbalanced sets, judged on held-out training images; the least error of each arm and exponent in bold.",
    name="tab-imbalance-candidates",
)

# %% [markdown]
# *Related classes.* The network that was pre-trained without the classes related to CIFAR-10 needs a pre-training of its
# own, which is not part of a plain run:
#
# ```bash
# robustness pretrain --profile paper --corpus imagenet32-no-cifar10
# robustness run imbalance --profile paper --dataset cifar10 \
#     --method excluded --init ID
# ```
#
# where `ID` is what the first command prints.

# %% [markdown]
# ## Run it now
#
# The next cell measures the section at the profile that the parameters name. The default, `smoke`, takes seconds: a tiny
# network on made-up images of ten classes, the largest with 60 images and the smallest with 6, at two exponents;
# it proves nothing about the paper.

# %% tags=["remove-stderr"]
jobs, live = sections.measure_as_asked("imbalance", globals())

# %% [markdown]
# {numref}`tab-imbalance-live` has total and minority error of each method and arm, {numref}`fig-imbalance-live` their curves.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.live_table(
    jobs,
    live,
    metrics=["error", "minority_error"],
    caption="The live run: total and minority test error.",
    name="tab-imbalance-live",
)

# %% mystnb={"figure": {"caption": "Total and minority error of the live run against the exponent; the smaller the exponent, the stronger the imbalance. It is a run of the machinery, not evidence.", "name": "fig-imbalance-live"}, "image": {"alt": "Four panels: total error above, minority error below; from scratch on the left, pre-trained on the right. Each has one line a method over the exponents. The table before it has the numbers of the lower panels.", "width": "100%"}} tags=["hide-input"]
figure = report.curve_grid(
    "imbalance",
    live,
    panels,
    dataset=jobs[0].dataset,
    method=remedies,
    x_label="exponent γ",
    profile=profile,
)

# %% [markdown]
# ## How to run it again
#
# The live part above, at the scale of your choice; what it measures goes to `runs/`, and `robustness publish`
# puts it into this book:
#
# ```bash
# papermill notebooks/imbalance.ipynb runs/imbalance-cifar10.ipynb \
#     -p profile cpu -p dataset cifar10 -p levels 0.2,1
# ```

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.made_by(published, "imbalance")

# %% [markdown]
# This page is made by {download}`imbalance.py </notebooks/imbalance.py>`.
