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
# The paper's claim: a pre-trained network, while it is fine-tuned, loses less accuracy under a natural shift of the data
# than networks of the same accuracy usually do. This *effective robustness* rises, peaks in the middle of fine-tuning and
# is gone at convergence on CIFAR-10.1 and ImageNetV2, though not wholly on ImageNet-R and ObjectNet. Larger networks and
# larger, more diverse pre-training data give more of it; the learning rate, the loss and which part is trained matter
# little; a network from random weights has none {cite:p}`andreassen2022evolution`.

# %% tags=["parameters"]
profile = "smoke"  # scale of the live run: smoke, cpu or paper
dataset = "all"  # data sets, such as cifar10, or all of the profile
method = "all"  # standard, seen, last-layer, easy, hard, wise-ft and so on, separated by commas, or all
seeds = "default"  # such as 0,1,2 or 0-4, or default for the profile's
levels = "all"  # numbers of testbed models, or strengths of head-penalty; or all
overrides = ""  # settings to change, as for --set, separated by commas
data_root = ""  # folder of the image sets; empty for $ROBUSTNESS_DATA or ./data
store = "runs"  # folder for records, networks and checkpoints
results = "book/results"  # folder of the recorded results

# %% tags=["hide-input", "remove-stderr"]
from pathlib import Path

import numpy as np

from robustness_lib import effective_robustness, notebook, paper, records, report, sections
from robustness_lib.accuracy_lines import fit_line

notebook.check_parameters(globals())
report.use_style()
published = records.frame(records.load_published("effective_robustness", Path(results)))
scale = paper.profile_of(published, "effective_robustness") or "cpu"

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
shifts = effective_robustness.recorded_shifts(published, scale)
ours = {"dataset": "cifar10", "profile": scale}
report.in_short("effective_robustness", published, report.hump_note(published, shifts, **ours))

# %% [markdown]
# ## Method
#
# **Baseline.** Over a testbed of ordinary networks, accuracy on shifted data follows accuracy on the original data along
# a line, once both are put on the logit scale $\operatorname{logit}(a) = \ln\frac{a}{1-a}$
# {cite:p}`recht2019imagenet,taori2020measuring`:
#
# $$
# \begin{aligned}
# \operatorname{logit}(a_\text{out}) &\approx A\,\operatorname{logit}(a_\text{in}) + B, \\
# \beta(a) &= \operatorname{logit}^{-1}\bigl(A\,\operatorname{logit}(a) + B\bigr).
# \end{aligned}
# $$ (eq-baseline)
#
# **Effective robustness** of a network $f$ is what it has beyond the baseline {eq}`eq-baseline` at its own accuracy,
#
# $$
# \rho(f) = a_\text{out}(f) - \beta\bigl(a_\text{in}(f)\bigr).
# $$ (eq-effective-robustness)
#
# **During fine-tuning** both accuracies are measured again and again, on CIFAR-10 and CIFAR-10.1, or on ImageNet and its
# variants. {eq}`eq-effective-robustness` is averaged over runs in bins of $a_\text{in}$; the largest bin average is the
# *maximum effective robustness*, the maximum of the pooled curve. It is one number for all runs and has no interval. So
# the claims on this page are judged by the mean of the seeds' maxima, each over the bins of one run; tables show both.
#
# Both definitions are a few lines. Five weak and strong models make a line; a sixth, which the line does not know, is as
# accurate as the third on the original images and better on the shifted ones:

# %%
original, shifted = np.array([0.35, 0.5, 0.65, 0.8, 0.9]), np.array([0.28, 0.39, 0.52, 0.66, 0.79])
line = fit_line(original, shifted)
print(f"logit(out) = {line.slope:.2f} logit(in) {line.intercept:+.2f}, R² {line.r_squared:.3f}")
above = 100 * (0.56 - float(line.predict(0.65)))
print(f"a model with 65 % and 56 % is {above:.1f} points above the line")

# %% [markdown]
# **Arms in the paper.** It fine-tunes networks that were pre-trained on ImageNet-1k, ImageNet-21k or JFT, as a whole or in the
# last layer only, and compares them with the same networks from random weights. {numref}`tab-er-recipes` has our recipes.
#
# **Our own trainings.** CIFAR-10.1 is a download that not every machine has, and the public part of its testbed holds
# strong networks alone. So this section measures further shifts, with a testbed of its own:
#
# * *ImageNet images of classes left out of pre-training.* A test set for CIFAR-10 made of ImageNet's images at 32 pixels,
#   by CINIC-10's map of classes {cite:p}`darlow2018cinic`. Its classes are those that belong to the list of
#   CIFAR-10-related classes {cite:p}`hendrycks2019using`, and the network in question was pre-trained without that list. It
#   has seen the style of these images, but none of their classes. Birds, cats, dogs, frogs and trucks occur.
# * *ImageNet images of classes kept in pre-training.* The same with the classes of the map that are not on the list:
#   automobiles, birds, cats, deer, dogs, ships and trucks. The network has seen not only these classes but these very
#   images. What it is better at here than on the first set is no robustness; it is having been there before.
# * *Common corruptions* {cite:p}`hendrycks2019benchmarking`: noise, blur, contrast, pixelation and JPEG at five severities,
#   one of the twenty-five an image. A synthetic shift, made on the fly.
#
# Where a set has a part of the classes only, the accuracy on the original images is that on images of these classes, and
# on both sides the network chooses among them alone. The images looked at are the same for every network and seed.
# {func}`robustness_lib.against_testbed.metrics_against` puts it together.

# %% [markdown]
# ## The paper's numbers
#
# {eq}`eq-baseline` needs a scale on which accuracies lie on a line. {numref}`tab-effective-robustness` compares three.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "effective_robustness",
    published,
    metrics=["r_squared"],
    datasets=["cifar10", "imagenet"],
    arms=["none"],
    methods=["fit-linear", "fit-probit", "fit-logit"],
    caption="Share of variance that a line explains, by the scale of the accuracies.",
    name="tab-effective-robustness",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scales_note(published, ["cifar10", "imagenet"])

# %% [markdown]
# The public networks of CIFAR-10 [cannot decide it](#er-line-cifar10).

# %% [markdown]
# ## From published predictions
#
# The line {eq}`eq-baseline` is a statement about other people's networks, and their answers are public. So this part needs
# no training. Nothing in it is random; the same tables give the same numbers on every machine. There are three sources:
#
# * *CIFAR-10's answers*: what 30 networks answered on CIFAR-10 and CIFAR-10.1 {cite:p}`recht2018cifar`;
# * *ImageNet's answers*: what 67 networks answered on ImageNet and ImageNetV2 {cite:p}`recht2019imagenet`. The file of one,
#   `fv_16k`, is broken on ImageNetV2, so a line goes through the other 66;
# * *ImageNet's table*: accuracies alone, of some hundreds of networks on ImageNet and its variants
#   {cite:p}`taori2020measuring`. Of the 204 that the paper names, 201 were evaluated on both ImageNet and ImageNetV2.
#
# The line of ImageNet and the networks above it are from ImageNet's table; the images that all networks get wrong, in the
# paper too, from ImageNet's answers.
#
# {func}`robustness_lib.accuracy_lines.fit_line` fits a line by least squares, and
# {func}`robustness_lib.accuracy_lines.effective_robustness` is what a network has beyond it. A network with an accuracy of
# 0 or 1 has no place on the logit scale and is left out of the fit; none in these testbeds has one.

# %% tags=["hide-input", "remove-stderr"]
from robustness_lib import accuracy_lines, testbeds

report.use_style()
predictions = published[published["section"] == "effective_robustness"]

# %% [markdown]
# Where the tables are at hand, the next cell fits the line of CIFAR-10 live.

# %%
if testbeds.at_hand(["cifar10"]):
    print("Not at hand; to download it: robustness data fetch cifar10-testbed")
else:
    correct = testbeds.cifar10_answers().correct  # networks x images
    original, shifted = (correct[name].mean(1) for name in ("cifar10", "cifar10.1-v6"))
    line = accuracy_lines.fit_line(original, shifted)
    print(f"{line.models} networks, R² {line.r_squared:.3f}")
    print(f"logit(out) = {line.slope:.4f} logit(in) {line.intercept:+.4f}")

# %% [markdown]
# Against the line that the paper prints, two networks of the same accuracy, an ordinary one and one that loses nothing:

# %%
printed = accuracy_lines.PRINTED_LINES["cifar10"]
for accuracy in (float(printed.predict(0.9)), 0.9):
    above = 100 * float(accuracy_lines.effective_robustness(0.9, accuracy, printed))
    print(f"from 90.0 % to {100 * accuracy:.1f} %: {above:.1f} points of effective robustness")

# %% [markdown]
# ### The line of ImageNet
#
# {numref}`fig-er-scales` shows ImageNet's table on the three scales that the paper compares. On the linear scale the
# networks lie on a curve, which a line misses at both ends; on the probit and logit scales they lie on a line.

# %% mystnb={"figure": {"caption": "Accuracy on ImageNetV2 against accuracy on ImageNet on three scales: every network of ImageNet's table with its 95 % Clopper-Pearson intervals, the line fitted on that scale, the line that the paper prints (fitted on the logit scale), and y = x.", "name": "fig-er-scales"}, "image": {"alt": "Three panels. In each, some two hundred points lie along a line well below the diagonal. On the linear scale the fitted line passes below the weakest and the strongest networks; on the probit scale it nearly, and on the logit scale it wholly, covers the dashed line that the paper prints.", "width": "100%"}} tags=["hide-input"]
figure = report.scatter_by_scale(
    predictions, "imagenet", x_label="accuracy on ImageNet (%)", y_label="accuracy on\nImageNetV2 (%)"
)

# %% [markdown]
# {numref}`tab-er-fits` compares the fits with the paper's Tables 2 and 3, and {numref}`tab-er-lines` shows how the line
# moves with the networks it goes through.
#
# *Which networks?* The paper names 204 ImageNet networks. The testbed's table had as many on 31 August 2020. With the
# values of that day, and ImageNetV2's images in the format of ImageNet's validation set, the line through those of them
# that were evaluated on both comes out as printed, and so do all three R². The same networks with today's values give a
# line that differs in the last digit. Three months later the table had more networks and the line still had the same
# digits: the number of networks tells the two states apart, the line does not.
#
# *Later networks.* Most of what was added in 2021 are very weak networks, trained for this purpose. They reach down to
# accuracies hardly better than guessing, which makes the line long and its R² high, and they turn it a little. The last
# column of {numref}`tab-er-lines` says how much that changes an effective robustness at most: less than the one point that
# the paper calls high.
#
# *Other shifts.* For ObjectNet and ImageNet-R the paper prints no line. Through the same networks one explains less of the
# variance the further the shifted images are from ImageNet's, so effective robustness on them depends more on which
# networks the line goes through.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.comparison_table(
    "effective_robustness",
    predictions,
    metrics=["slope", "intercept"],
    datasets=["cifar10", "imagenet"],
    arms=["none"],
    methods=["fit-logit"],
    caption="The lines that the paper prints, and ours through the public networks.",
    name="tab-er-fits",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.lines_table(
    predictions,
    caption=(
        "Lines on the logit scale (± standard error), R² on each scale, and the largest difference of the baseline from "
        "the printed one over the networks' accuracies."
    ),
    name="tab-er-lines",
)

# %% [markdown]
# (er-line-cifar10)=
# ### The line of CIFAR-10
#
# {numref}`fig-er-cifar` has the 30 public networks. Their line lies close to the printed one, which falls within the
# uncertainty of their fit ({numref}`tab-er-lines`). But all of them are good ({numref}`tab-er-high`): over the small range
# of their accuracies every scale is nearly straight, so which one fits best cannot be seen with them. The paper's
# ordering of the R² needs the weak networks that its authors had and that are not public. Where this page says that a
# claim about these R² does not hold, it says so of the public networks.

# %% mystnb={"figure": {"caption": "Accuracy on CIFAR-10.1 v6 against accuracy on CIFAR-10, logit scale, with 95 % Clopper-Pearson intervals.", "name": "fig-er-cifar"}, "image": {"alt": "Thirty points with wide error bars along a rising line far below the diagonal. The fitted line and the dashed line that the paper prints almost coincide. Most points lie at the upper right, a few at the lower left.", "width": "100%"}} tags=["hide-input"]
figure = report.published_scatter(
    predictions, "cifar10", x_label="accuracy on CIFAR-10 (%)", y_label="accuracy on CIFAR-10.1 (%)"
)

# %% [markdown]
# ### Effective robustness of the testbed
#
# {numref}`fig-er-imagenet` shows what the networks of ImageNet's table have beyond the printed line. The paper calls more
# than one point high, and networks with so much exceedingly rare; {numref}`tab-er-high` counts them.
#
# Two curves put the points into proportion. A network that loses nothing, $y = x$, has the effective robustness
# $x - \beta(x)$: most in the middle, little at the ends. Hence the lower panel, which divides by it. And a *mixed
# classifier*, which asks the testbed's weakest or its strongest network at random, has more effective robustness than any
# of its networks, although it is no more robust than they are: its accuracies lie on a straight segment, and the line is
# bent. Effective robustness means something only for single networks.

# %% mystnb={"figure": {"caption": "Effective robustness of the networks of ImageNet's table against the printed line, in points (top) and as a share of an ordinary network's accuracy gap (bottom).", "name": "fig-er-imagenet"}, "image": {"alt": "Top: points scatter closely about zero over the accuracy; many of those trained on more data lie a little above it. A dotted arch, no loss, and a lower dash-dotted arch, the mixed classifier, stand far above the points. Bottom: the same as a share, with no loss at a hundred per cent.", "width": "100%"}} tags=["hide-input"]
figure = report.published_robustness(predictions, "imagenet", x_label="accuracy on ImageNet (%)")

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.high_table(
    predictions,
    ["cifar10", "imagenet"],
    caption=(
        "Networks with more than one point of effective robustness against the printed line, among CIFAR-10's answers "
        "and in ImageNet's table."
    ),
    name="tab-er-high",
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.high_note(predictions, ["cifar10", "imagenet"])

# %% [markdown]
# ### Which images
#
# The *dominance probability* of two networks is how often the less accurate one is right where the other is wrong
# {cite:p}`mania2020classifier`. If networks erred independently it would be large; {numref}`fig-er-dominance` and
# {numref}`fig-er-dominance-difference` show, for the answers on both data sets, that it is small for all pairs: networks of
# a testbed differ in how far they come, hardly in what they find hard. The images that none of them gets right
# ({numref}`tab-er-answers`) are a test for a network that comes with another training. {numref}`fig-er-hard` puts each
# network of ImageNet's answers to that test, on the images that all others get wrong.

# %% mystnb={"figure": {"caption": "Dominance probability of every pair of networks of ImageNet's answers, sorted by accuracy and mirrored.", "name": "fig-er-dominance"}, "image": {"alt": "A square heat map, symmetric about its empty diagonal. It is brightest near the upper left part of the diagonal, where networks of low and similar accuracy meet, and dark along the first rows and columns, the weakest networks. A few dark fields at the diagonal are pairs of nearly the same network.", "width": "100%"}} tags=["hide-input"]
figure = report.dominance_heat_map(predictions, "imagenet")

# %% mystnb={"figure": {"caption": "Dominance probability against the difference of the two accuracies, every pair of networks a point, and where the pairs would lie if networks erred independently.", "name": "fig-er-dominance-difference"}, "image": {"alt": "Two panels, CIFAR-10 and ImageNet. Measured points lie in a low band that falls slowly with the difference of the accuracies; the points for independent errors lie above it, on ImageNet far above.", "width": "100%"}} tags=["hide-input"]
figure = report.dominance_scatter(predictions, ["cifar10", "imagenet"])

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.answers_table(
    predictions,
    ["cifar10", "imagenet"],
    caption="What the networks' answers on each data set have in common.",
    name="tab-er-answers",
)

# %% mystnb={"figure": {"caption": "For each network of ImageNet's answers, the share it gets right of the images that all others get wrong.", "name": "fig-er-hard"}, "image": {"alt": "Points of share against accuracy; all shares are small, and larger for the few weakest and the strongest networks than for those in between.", "width": "100%"}} tags=["hide-input"]
figure = report.hard_share_scatter(predictions, "imagenet")

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.testbed_hard_note(predictions, "imagenet")

# %% [markdown]
# The tables come from their authors' repositories, each at a fixed commit, and are checked against pinned sums; the records
# take a second:
#
# ```bash
# robustness data fetch cifar10-testbed imagenet-testbed imagenet-answers
# robustness run effective_robustness --profile cpu \
#     --dataset cifar10,imagenet \
#     --method fit-logit,testbed,image-by-image
# ```

# %% [markdown]
# ## From our own trainings
#
# What follows was recorded at the highest profile that has records. At `cpu` the target is a part of CIFAR-10, the network
# a small Wide ResNet, and pre-training took a part of Downsampled ImageNet. None of the paper's own networks is here: its
# JFT networks are not public, and its torchvision and Big Transfer networks want 224 pixels and a GPU
# ([how to run them](#er-rerun)).

# %% [markdown]
# ### A line for each shift
#
# A line needs a testbed. Ours has networks of several widths and depths, on more or fewer images, for longer or shorter,
# and, for low accuracies, models that are none: nearest neighbours, linear models, forests and kernels on pixels. All of
# them were trained on CIFAR-10 alone. {numref}`fig-er-own-testbed` corresponds to the paper's Figure 1, whose testbed has
# other people's networks; {numref}`tab-er-own-lines` says how well the lines fit.

# %% mystnb={"figure": {"caption": "Accuracy on shifted against accuracy on original images for every model of our testbed, with 95 % Clopper-Pearson intervals, on the logit scale.", "name": "fig-er-own-testbed"}, "image": {"alt": "One panel a shift: points with error bars and the line fitted to them, below a dotted diagonal of no loss.", "width": "100%"}} tags=["hide-input"]
figure = report.own_testbed_scatter(published, shifts, **ours)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.own_lines_table(
    published,
    shifts,
    caption="Lines through our own testbed: the range of its accuracies, the line on the logit scale, R² on each scale.",
    name="tab-er-own-lines",
    **ours,
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.recipes_table(
    "effective_robustness",
    published,
    name="tab-er-recipes",
    methods=[*effective_robustness.FACTORS, "standard", "seen"],
)

# %% [markdown]
# ### While networks are trained
#
# {numref}`fig-er-during` is the paper's Figures 2 and 3 with our networks. The paper's finding would be a hump for the
# pre-trained network, gone at the right end, and nothing for the one from scratch. The third curve is a network that was
# pre-trained on the left-out classes too: on the first set, if it had more than the second curve, that would be what it
# remembers. Common corruptions are the one shift on which having seen ImageNet's style is no advantage.

# %% mystnb={"figure": {"caption": "Effective robustness against accuracy while networks are trained: all seeds' observations as small points, means of bins with a band of one standard deviation; shaded, where the testbed has no model.", "name": "fig-er-during"}, "image": {"alt": "One panel a shift: effective robustness against accuracy, a line each for the network from scratch, the one pre-trained without the related classes, and the one pre-trained on all classes, and a dotted curve for no loss. The table after it has the maxima.", "width": "100%"}} tags=["hide-input"]
figure = report.robustness_during_tuning(published, shifts, **ours)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.factors_table(
    published,
    report.STANDARD,
    shifts=shifts,
    metrics=["maximum_effective_robustness", "final_effective_robustness"],
    caption="Effective robustness at its maximum and at the end, mean and standard deviation over seeds.",
    name="tab-er-during",
    **ours,
)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.during_note(published, shifts, **ours)

# %% [markdown]
# ### What changes it
#
# The paper varies how the network is tuned, what it was pre-trained on and what it is tuned on.
# {numref}`fig-er-factors` draws the maxima of the pooled curves, as the paper's Figures 4 and 7; {numref}`tab-er-factors` has
# them beside the means of the seeds' maxima, which need not have the same order. {numref}`fig-er-rates` and
# {numref}`fig-er-examples` show the whole course for what the paper finds to matter little (learning rate, loss, last
# layer) and much (difficulty of the images; replay does not help).
#
# *Difficulty.* The paper ranks images by their C-score; the ranking here is the probability that a network trained on the
# other half of the training set gives to an image's label. *Replay* lets images of pre-training come again under their old
# head, one an image. The *old head* is fine-tuned by the class map in place of a new one, where classes without a
# counterpart get a fresh row; the penalty is on its distance from the pre-trained head.

# %% mystnb={"figure": {"caption": "Maximum effective robustness on the first shift (at `cpu` ImageNet images of classes left out of pre-training). Bars: maximum of the pooled curve, the largest mean of a bin over all seeds, with the largest standard deviation of all bins. Points: each seed's own maximum.", "name": "fig-er-factors"}, "image": {"alt": "Horizontal bars, one a way of training, with error bars and a point a seed; ways without records are left out. The table after it has the bars' values beside the means of the points.", "width": "100%"}} tags=["hide-input"]
factors = [*report.STANDARD, *report.factor_series(effective_robustness.FACTORS)]
figure = report.maximum_bars(published, factors, shifts[0], **ours)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.factors_table(
    published,
    [*factors, *report.factor_series(["head-penalty"], effective_robustness.PENALTIES)],
    caption="What each change comes to on the first shift, mean and standard deviation over seeds.",
    name="tab-er-factors",
    **ours,
)

# %% mystnb={"figure": {"caption": "Learning rate, loss and last layer: effective robustness on the first shift against accuracy (the paper's Figures 11 to 13).", "name": "fig-er-rates"}, "image": {"alt": "Effective robustness against accuracy for standard fine-tuning, a lower and a higher learning rate, squared error and the last layer alone, with a dotted curve for no loss.", "width": "100%"}} tags=["hide-input"]
rates = report.factor_series(["standard", "low-rate", "high-rate", "mse", "last-layer"])
figure = report.robustness_during_tuning(published, shifts[:1], rates, **ours)

# %% mystnb={"figure": {"caption": "Training images and replay: effective robustness on the first shift against accuracy (the paper's Figures 19, 22 and 23).", "name": "fig-er-examples"}, "image": {"alt": "Effective robustness against accuracy for standard fine-tuning, the easiest and the hardest images, replay and the old head, with a dotted curve for no loss.", "width": "100%"}} tags=["hide-input"]
examples = report.factor_series(["standard", "easy", "hard", "replay", "class-map"])
figure = report.robustness_during_tuning(published, shifts[:1], examples, **ours)

# %% [markdown]
# The paper's fine-tuned networks forget what they were pre-trained on, unless it is replayed. {numref}`tab-er-replay` tells
# whether ours do, by the accuracy on the corpus's own test images under the old head.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.factors_table(
    published,
    report.factor_series(["standard", "replay", "replay-10", "replay-100"]),
    metrics=["source_accuracy_before", "source_accuracy", "accuracy"],
    caption="Accuracy on the pre-training task before and after fine-tuning, and on the target.",
    name="tab-er-replay",
    **ours,
)

# %% [markdown]
# ### Beyond the paper: between both networks
#
# Later work proposes a remedy that the paper did not try: take the weights between the pre-trained network, which answers
# through the class map, and the fine-tuned one {cite:p}`wortsman2022robust`. {numref}`fig-er-wise` walks from the one to
# the other in tenths, with batch statistics measured anew in between. If it kept robustness at high accuracy, the path would
# run above the points of fine-tuning at its right end. Only classes with a counterpart in the corpus count here, and
# the shift is a synthetic one: on ImageNet's images the pre-trained end has an advantage that is no robustness.

# %% mystnb={"figure": {"caption": "Common corruptions: effective robustness of networks on the line from the pre-trained (0) to the fine-tuned one (1), mean over seeds, and of the network while it is fine-tuned.", "name": "fig-er-wise"}, "image": {"alt": "A path of connected points, labelled with the fine-tuned network's share, in the plane of effective robustness and accuracy, and the observations of fine-tuning as separate points.", "width": "100%"}} tags=["hide-input"]
figure = report.weight_space_path(published, ["corrupted"], **ours)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.path_note(published, "corrupted", **ours)

# %% [markdown]
# ### At maximum effective robustness
#
# Does a network at its maximum get other images right than ordinary models do? {numref}`fig-er-own-dominance` has its
# dominance probability with each model of the testbed, as the paper's Figure 5, and {numref}`fig-er-own-hard` the share
# that it gets right of the images that all testbed models get wrong. Both are about the original images.

# %% mystnb={"figure": {"caption": "Dominance probability against the difference of accuracies: pairs of testbed models in grey, networks with each testbed model in colour, at maximum effective robustness and at the end.", "name": "fig-er-own-dominance"}, "image": {"alt": "Two panels of points that fall with the difference of the accuracies: grey for pairs of the testbed, coloured for the networks from scratch and pre-trained.", "width": "100%"}} tags=["hide-input"]
figure = report.own_dominance_scatter(published, report.STANDARD, **ours)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.dominance_note(published, report.STANDARD, **ours)

# %% mystnb={"figure": {"caption": "Share right of the original images that all (other) testbed models get wrong, against accuracy: testbed models in grey, networks at maximum effective robustness (filled) and at the end (open), a point a seed.", "name": "fig-er-own-hard"}, "image": {"alt": "Points of share against accuracy, grey for models of the testbed, coloured and filled or open for networks from scratch and pre-trained.", "width": "100%"}} tags=["hide-input"]
figure = report.own_hard_shares(published, report.STANDARD, **ours)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.hard_note(published, report.STANDARD, **ours)

# %% [markdown]
# ## Do the claims hold?
#
# {numref}`tab-verdicts-effective-robustness` judges each claim by [the rule of the scoreboard](claims.ipynb). Claims about
# fine-tuning are judged on the first shift that was measured: CIFAR-10.1 at the profile `paper`, ImageNet's images of
# left-out classes at `cpu`. The maximum is there the mean of the seeds' maxima.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.scoreboard(published, sections=["effective_robustness"], name="tab-verdicts")

# %% [markdown]
# ## What differs, and why
#
# *Corpus.* The paper pre-trains on all of ImageNet, related classes included. Claims are judged here by the network without
# them (the curve "pre-trained on all classes" has them), under every shift, so that no advantage can be memory.
#
# *Networks.* JFT networks are not public, so neither are the paper's largest effects. The `paper` profile here fine-tunes
# the Wide ResNet of the other sections at 32 pixels, with the normalisation of its pre-training; the paper's torchvision
# networks and Big Transfer, with the paper's normalisation, are a command away on a GPU. CLIP's answers without training,
# and triplets of models, which the paper also looks at, are not measured here; nor is fine-tuning on ImageNet.
#
# *Shifts.* CIFAR-10.1 is a new draw by the procedure that made CIFAR-10, and a small shift. ImageNet's images at 32 pixels
# are a larger one, and nearer to what the network was pre-trained on. A network that has seen ImageNet's style has an
# advantage on them even if it has not seen the classes; that advantage is part of what {numref}`fig-er-during` shows, and
# the third shift has none of it. Not every class of CIFAR-10 occurs in each of the sets.
#
# *Lines.* The paper's line goes through published networks that were trained on the whole of CIFAR-10; under CIFAR-10.1,
# at `paper`, it is the baseline here too. That of the other shifts goes through small models, many of them trained on few
# images. Where a fine-tuned network is more accurate than all of them, the line is extended, and the figures are shaded.
# Below the weakest of them no maximum is looked for. The testbed's networks end at a learning rate near zero, as such
# networks usually do; those that are looked at on the way have a constant one. So a network from scratch need not lie at
# zero, and the fair comparison of a pre-trained one is with it.
#
# *A maximum is picked.* The largest of several noisy values lies above the last one even where nothing is there. So that a
# network loses robustness by the end is judged by how far it falls from its maximum, beside the fall of one from scratch.
#
# *Training.* As the paper's: a constant learning rate, batches of 64, momentum without Nesterov's change, and a weight
# decay of 0.0001 (the paper's appendix has 0.0005 in places). Rate and length are ours at `cpu`. All weights are tuned with
# the squared error, the class map and the penalty, too, where the paper tunes the last layer of Big Transfer; replay has
# the batches of every other training, not the paper's of 256, and the losses of both heads are added. Within the first epoch one
# looks after a half of it, a quarter, an eighth and so on, since that is where accuracy rises fastest.
#
# *Difficulty.* The easiest and the hardest images are a tenth of CIFAR-10. At `cpu` every training has as many images, so
# the standard one is their random counterpart; at `paper` it has all images, and `--method standard --set
# train_images=5000` measures the counterpart. The paper's switches from one kind to another in the midst of a training
# are not measured.
#
# *Bins.* The paper looks once an epoch in five runs and averages in 100 bins, of one per cent if they span 0 to 100 %; the
# bins at `cpu` are four per cent wide, as there are fewer looks, and a maximum over narrow bins would be one over single
# looks. Where it still is, {numref}`tab-er-during` and {numref}`tab-er-factors` say so. At `paper` one looks once an epoch
# too, but for the last layer alone, whose epochs are short: there after every tenth.
#
# *Pre-training size, diversity and larger networks* need further pre-trainings; they run when asked for by name.

# %% [markdown]
# ## Run it now
#
# The next cell measures the section at the profile that the parameters name. The default, `smoke`, takes seconds: a tiny
# network, made-up images, five models for a testbed: a check of the machinery, no evidence.

# %% tags=["remove-stderr"]
jobs, live = sections.measure_as_asked("effective_robustness", globals())

# %% [markdown]
# The two arms while they are trained are in {numref}`fig-er-live`; {numref}`tab-er-live` has every job.

# %% tags=["remove-cell"]
live_shifts = effective_robustness.shifts_of(jobs)
here = {"dataset": next((job.dataset for job in jobs if job.method == "standard"), jobs[0].dataset), "profile": profile}

# %% mystnb={"figure": {"caption": "Effective robustness of the live run against accuracy. It is a run of the machinery, not evidence.", "name": "fig-er-live"}, "image": {"alt": "One panel a shift: effective robustness against accuracy, with a line from scratch, one pre-trained, and a dotted curve for no loss; where no testbed model is as weak or as strong, the panel is shaded.", "width": "100%"}} tags=["hide-input"]
figure = report.robustness_during_tuning(live, live_shifts, report.STANDARD[:2], **here)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.live_table(
    jobs,
    live,
    metrics=["accuracy", *(name for name in live if name.startswith("final_effective_robustness"))],
    caption="The live run: accuracy and effective robustness at the end.",
    name="tab-er-live",
)

# %% [markdown]
# (er-rerun)=
# ## How to run it again
#
# The live part above, at the scale of your choice; what it measures goes to `runs/`, and `robustness publish`
# puts it into this book:
#
# ```bash
# papermill notebooks/effective_robustness.ipynb runs/effective_robustness.ipynb \
#     -p profile cpu -p method standard
# ```
#
# The network without the related classes comes with the repository at `cpu`; at other scales it is pre-trained first. The
# testbed, the arms, and some of the factors:
#
# ```bash
# robustness run effective_robustness --profile cpu \
#     --method testbed-model,own-testbed
# robustness run effective_robustness --profile cpu --method standard,seen \
#     --seeds 0-4
# robustness run effective_robustness --profile cpu \
#     --method smaller-corpus,fewer-classes
# robustness run effective_robustness --profile cpu \
#     --method hardening,class-map-replay
# robustness run effective_robustness --profile paper --method easy,hard \
#     --set difficulty=c-score
# ```
#
# The paper's torchvision networks, with the weights that torchvision publishes in `data/torchvision` (`import` prints the
# id), and Big Transfer through `timm` (its last layer alone, as in the paper):
#
# ```bash
# robustness import resnet18
# robustness run effective_robustness --profile paper --method standard \
#     --init ID \
#     --set architecture=resnet18 --set image_size=224 \
#     --set normalisation=cifar-p2 --set weight_decay=0.0005
# robustness run effective_robustness --profile paper --method last-layer \
#     --init timm/resnetv2_101x3_bit.goog_in21k --set image_size=224 \
#     --set normalisation=cifar-p2 --set learning_rate=0.001
# ```

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.made_by(published, "effective_robustness")

# %% [markdown]
# This page is made by {download}`effective_robustness.py </notebooks/effective_robustness.py>`.
