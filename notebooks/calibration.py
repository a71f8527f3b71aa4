# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Calibration
#
# Of the answers that a network gives with a confidence of 0.8, eight in ten should be right; networks trained from scratch
# are usually surer than that {cite:p}`guo2017calibration`. The paper's claim: pre-training at least halves the calibration
# error on CIFAR-10, CIFAR-100 and Tiny ImageNet {cite:p}`hendrycks2019using`.

# %% tags=["parameters", "remove-cell"]
profile = "smoke"  # scale of the live run: smoke, cpu or paper
dataset = "all"  # data sets of the profile, separated by commas, or all
method = "all"  # standard, temperature, or all
seeds = "default"  # such as 0,1,2 or 0-4, or default for the profile's
overrides = ""  # settings to change, as for --set, separated by commas
data_root = ""  # folder of the image sets; empty for $ROBUSTNESS_DATA or ./data
store = "runs"  # folder for records, networks and checkpoints
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell", "remove-stderr"]
from pathlib import Path

import numpy as np
import pandas as pd

from robustness_lib import notebook
from robustness_lib.experiments import registry
from robustness_lib.metrics import calibration
from robustness_lib.paper import CLAIMS, label, select
from robustness_lib.report import evidence, markdown, provenance, style, trainings, verdicts
from robustness_lib.runner.records import load_published

notebook.check_parameters(globals(), "calibration")
style.use_style()
recorded = evidence.records_of("calibration", results)
values = evidence.tidy(recorded)
RMS, ERROR, LIKELIHOOD = "rms_calibration_error", "error", "negative_log_likelihood"
measures = [RMS, "mad_calibration_error", ERROR, LIKELIHOOD]
cifar = ["cifar10", "cifar100"]
both = {"section": "calibration", "datasets": cifar}
all_three = {"section": "calibration", "datasets": [*cifar, "tiny_imagenet"], "locator": "P1 Table 5"}
shares = evidence.curves(recorded, "reliability_accuracy")  # of correct predictions in bins of 100 images
chance = shares.assign(value=shares["value"] * (1 - shares["value"]) / 99).groupby("key")["value"].mean() ** 0.5
without_chance = evidence.where(values, metric=RMS, main=True)
squares = without_chance["value"] ** 2 - without_chance["key"].map(chance) ** 2
without_chance = without_chance.assign(value=squares.clip(lower=0) ** 0.5).dropna(subset="value")


def gain(dataset, metric=RMS, **settings):
    return evidence.gain(values, metric, section="calibration", dataset=dataset, **settings)


# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
rms, error, likelihood = ([gain(name, metric) for name in cifar] for metric in (RMS, ERROR, LIKELIHOOD))
share = [gain(name, kind="reduction") for name in cifar]
paper = [markdown.printed(RMS, section="calibration", dataset=name, method="standard") for name in cifar]
small = [gain(name, metric, profile="cpu") for metric in (ERROR, RMS, LIKELIHOOD) for name in cifar]
plain, scaled = (
    [gain(name, RMS + end, method="temperature", profile="cpu") for name in cifar] for end in ("", "_tempered")
)
tiny = gain("tiny_imagenet", ERROR)
net = [evidence.gain(without_chance, RMS, section="calibration", dataset=name) for name in cifar]
markdown.findings(
    (
        all(one.low < 0.5 < one.high for one in share)
        and all(less.effect < one.effect and one.high < 0 for one, less in zip(rms, net, strict=True)),
        f"On CIFAR at `{rms[0].profile}` scale pre-training lowers the RMS calibration error to about a half: "
        f"{markdown.sides(rms[0], RMS)} on CIFAR-10, {markdown.sides(rms[1], RMS)} on CIFAR-100 (the paper: {paper[0]}, "
        f"{paper[1]}). Whether it is *at least* halved, as the paper has it, is undecided: the error falls by "
        + " and ".join(f"{100 * one.effect:.0f} % [{100 * one.low:.0f}, {100 * one.high:.0f}]" for one in share)
        + ". Chance in small bins hides a part of the fall: without it the errors are "
        f"{markdown.sides(net[0], RMS)} and {markdown.sides(net[1], RMS)} ({{numref}}`tab-calibration-chance`).",
    ),
    (
        all(one.low > 0 for one in (*error, *likelihood)),
        "But the same networks are worse classifiers, where the paper's are better: their test error rises, "
        f"{markdown.sides(error[0], ERROR)} on CIFAR-10 and {markdown.sides(error[1], ERROR)} on CIFAR-100. They are wrong "
        "more often, and their confidence tells better how often. The negative log-likelihood, which counts both, gets worse "
        f"({markdown.sides(likelihood[0], LIKELIHOOD)}, {markdown.sides(likelihood[1], LIKELIHOOD)}): the better "
        "calibration does not make up for the lost accuracy.",
    ),
    (
        all(one.high < 0 for one in (*small[:2], *small[3:])) and small[2].effect < 0 < small[2].high,
        "With 5,000 training images and a small network (`cpu` scale), the standard corpus and the standard learning rate, no "
        "trade is seen (another rate or corpus: below). Pre-training lowers the test error "
        f"({markdown.sides(small[0], ERROR)} on CIFAR-10, {markdown.sides(small[1], ERROR)} on CIFAR-100), the negative "
        f"log-likelihood, and on CIFAR-100 the calibration error ({markdown.effect(small[3], RMS)}; on CIFAR-10 undecided, "
        f"{markdown.effect(small[2], RMS)}).",
    ),
    (
        all((after.reference < before.treated).all() for before, after in zip(plain, scaled, strict=True))
        and all(one.n > 1 and one.low < 0 < one.high for one in scaled),
        "At `cpu` scale temperature scaling, one number fitted on held-out images, does more for calibration than "
        "pre-training: on CIFAR-10 and CIFAR-100 networks from scratch have an RMS calibration error of "
        f"{' and '.join(markdown.spread(one.reference, RMS) for one in scaled)} % with it, pre-trained ones without it "
        f"{' and '.join(markdown.spread(one.treated, RMS) for one in plain)} %. With it the arms differ by "
        f"{' and '.join(markdown.effect(one, RMS) for one in scaled)}, both undecided ({scaled[0].n} seeds).",
    ),
    (
        min(tiny.reference.mean(), tiny.treated.mean()) > 0.8,
        f"Tiny ImageNet cannot be tested here: at `{tiny.profile}` scale both arms are wrong on nearly nine images in ten "
        f"({markdown.sides(tiny, ERROR)}), and calibration errors of such networks say nothing about the claim.",
    ),
)

# %% [markdown]
# {numref}`fig-calibration` shows both errors, {numref}`tab-calibration` the numbers. A low calibration error alone is easily
# had: a network that answers every image with the frequencies of the classes is perfectly calibrated, and useless. So the
# test error stands beside it throughout.

# %% mystnb={"figure": {"caption": "RMS calibration error against test error: down is better calibrated, left is more accurate. An arrow leads from the network trained from scratch to the pre-trained one; bars are one standard deviation over seeds. Diamonds and dashed arrows: the paper's Table 5, and the test errors in its authors' logs.", "name": "fig-calibration"}, "image": {"alt": "Three panels. On CIFAR-10 and CIFAR-100 the paper's arrows lead down and to the left, ours down and to the right: better calibrated but less accurate. On Tiny ImageNet ours lies far to the right of the paper's, and leads nearly straight down.", "width": "100%"}} tags=["hide-input"]
rows = evidence.arms(values, [RMS, ERROR], **all_three)
figure, panels = style.new_figure(columns=3, height=3.4)
for panel, target in zip(panels, all_three["datasets"], strict=True):
    x, y = (100 * evidence.where(rows, dataset=target, metric=name).select_dtypes("float") for name in (ERROR, RMS))
    for start, end, line in (("scratch", "tuned", "-"), ("paper_scratch", "paper_tuned", "--")):
        ends = [(x[side].item(), y[side].item()) for side in (start, end)]
        arrow = {"arrowstyle": "->", "linestyle": line, "color": "#555555", "shrinkA": 5, "shrinkB": 5}
        panel.annotate("", ends[1], ends[0], arrowprops=arrow)
        if line == "--":
            panel.plot(*zip(*ends, strict=True), **style.PAPER, markerfacecolor="none", label="paper")
    for arm, side in zip(evidence.ARMS, ("scratch", "tuned"), strict=True):
        look = style.arm_style(arm) | {"linestyle": "none", "capsize": 3, "label": label(arm)}
        panel.errorbar(x[side], y[side], xerr=x[f"{side}_sd"], yerr=y[f"{side}_sd"], **look)
    shown = evidence.where(rows, dataset=target).iloc[0]
    panel.set(title=f"{label(target)},\nours at {shown['profile']} scale", xlabel="test error (%)")
    panel.margins(x=0.25)
panels[0].set_ylabel("RMS calibration error (%)")
panels[0].set_ylim(bottom=0)
style.legend_outside(figure)
style.show(figure, rows)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
rows = evidence.arms(values, measures, **all_three)
markdown.arms_table(
    rows,
    caption=f"Calibration and accuracy, {evidence.basis(rows)}; only Tiny ImageNet is at `cpu`, with 32 pixels. Pre-training was on a 275-class ImageNet stand-in (Tiny ImageNet + mini-ImageNet) or, for Tiny ImageNet, its part "
    "without those classes. Mean ± standard deviation, and the paired difference with its 95 % interval. The paper's "
    "test errors and negative log-likelihoods are from its authors' logs.",
    name="tab-calibration",
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
rows = evidence.arms(values, measures, **both, profile="cpu")
markdown.arms_table(
    rows,
    caption=f"The same at small scale, WRN-16-1 and 5,000 training images: {evidence.basis(rows)}.",
    name="tab-calibration-cpu",
    paper=False,
)

# %% [markdown]
# ## The claims, one by one
#
# The rule is on the [scoreboard](claims.ipynb).

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
verdicts.claims_table(verdicts.frame(values, "calibration"), name="tab-calibration-claims")

# %% [markdown]
# ## How it was measured
#
# For an image with predicted class $\hat y$ let $c$ be the confidence, the largest softmax probability. A network is
# calibrated if $P(Y=\hat Y\mid C=c)=c$ for every $c$. The root-mean-square error (RMS) and the mean absolute difference
# (MAD) say how far it is from that {cite:p}`nguyen2015posterior,hendrycks2019deep`:
#
# $$
# \begin{aligned}
# \mathrm{RMS} &= \sqrt{\mathbb{E}_C\Bigl[\bigl(P(Y=\hat Y\mid C)-C\bigr)^2\Bigr]},\\
# \mathrm{MAD} &= \mathbb{E}_C\Bigl|P(Y=\hat Y\mid C)-C\Bigr| .
# \end{aligned}
# $$ (eq-calibration)
#
# The probability in {eq}`eq-calibration` is unknown. So the $n$ test images are sorted by confidence and cut into bins
# $B_1,\dots,B_b$ of 100 neighbours each; in a bin it is estimated by the share of correct predictions:
#
# $$
# \widehat{\mathrm{RMS}} = \sqrt{\sum_{k=1}^{b}\frac{|B_k|}{n}
# \Bigl(\tfrac{1}{|B_k|}\sum_{i\in B_k} \mathbb{1}[y_i=\hat y_i]-\tfrac{1}{|B_k|}\sum_{i\in B_k} c_i\Bigr)^2 },
# $$ (eq-rms)
#
# and likewise for MAD, without square and root. Bins of equally many images are called adaptive; bins of equal width, as in
# the expected calibration error, leave most images of a confident network in one bin.
#
# In code, {eq}`eq-rms` is two lines. Here they judge a made-up predictor whose confidence is exactly right, and one whose
# confidence is too high by a tenth:

# %%
draw = np.random.default_rng(0)
confidence = draw.uniform(0.5, 1, 10_000)
for excess in (0, 0.1):
    correct = draw.random(10_000) < confidence - excess
    sure, right, count = calibration.adaptive_bins(confidence, correct, bin_size=100)
    print(f"{excess:.0%} too confident: RMS error {np.sqrt(np.average((right - sure) ** 2, weights=count)):.1%}")

# %% [markdown]
# Even the first is not zero: in a bin of 100 images the share of correct predictions scatters by chance. So part of every
# RMS error is noise, most where about half of the answers are right. If the confidence were exactly right, the RMS error
# would be the root of the mean of $p(1-p)/99$, where $p$ is the share of correct predictions in a bin.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
lines, plain_rms = [], evidence.where(values, main=True, method="standard", metric=RMS)
for name, found in zip(cifar, net, strict=True):
    for arm, less in zip(evidence.ARMS, (found.reference, found.treated), strict=True):
        whole = evidence.where(plain_rms, profile=found.profile, dataset=name, arm=arm, seed=list(found.seeds))
        line = {"Setting": f"{label(name)}, {label(arm)}", "RMS (%)": markdown.spread(whole["value"], RMS)}
        line["By chance (%)"] = markdown.number(chance.reindex(whole["key"]).mean(), RMS)
        lines.append(line | {"Without chance (%)": markdown.spread(less, RMS)})
markdown.table(
    lines,
    caption=f"The part of chance in the RMS calibration error, `{net[0].profile}`, {net[0].n} seeds. Squares add up: without chance is the root of the "
    "RMS error's square less that of chance.",
    name="tab-calibration-chance",
)

# %% [markdown]
# **Temperature scaling** divides the logits by a temperature $T$. That changes the confidence and leaves the predictions as
# they are. $T$ is the one with the least negative log-likelihood on a tenth of the training images, which the network has
# not been trained on.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
trainings.trainings_table(
    recorded,
    name="tab-calibration-trainings",
    caption="The paper trains WRN-40-2 on all images as `paper` does here; on Tiny ImageNet the pre-trained network for 20 epochs.",
)

# %% [markdown]
# ## Where and why it differs from the paper
#
# **Corpus.** At `paper` scale the networks, the target images and their training are the paper's. Pre-training is not: it has
# 160,000 images of a 275-class ImageNet stand-in ([data](../data.md)) instead of the 1,281,167 images and 1,000 classes of
# Downsampled ImageNet, and so fewer updates too. The paper's fine-tuning, 10 epochs at a small learning rate, keeps the
# weights near those of pre-training, whatever these are worth: a likely reason for a higher test error. Images, classes and
# updates were not varied one by one.
#
# **Learning rate.** {numref}`tab-calibration-rates` has networks that were fine-tuned at a tenth of the
# usual rate and at ten times it.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
compared = ["low-rate", "standard", "high-rate"]
kept = evidence.where(values, main=True, method=compared, metric=[ERROR, RMS, LIKELIHOOD])
kept = kept.assign(rate=kept["recipe"].str.extract(r'"learning_rate":([\d.]+)')[0].astype(float))
varied = kept.groupby(["profile", "dataset"], observed=True)["method"].transform("nunique") > 1
settings = kept[varied].sort_values(["dataset", "profile", "arm", "rate"], ascending=[True, False, False, True])
markdown.table(
    [
        {
            "Setting": f"{label(dataset)}, `{scale}`",
            "Training": f"{label(arm)}, rate {rate:g}",
            "Test error (%)": markdown.spread(group.loc[group["metric"] == ERROR, "value"], ERROR),
            "RMS (%)": markdown.spread(group.loc[group["metric"] == RMS, "value"], RMS),
            "Negative log-likelihood": markdown.spread(group.loc[group["metric"] == LIKELIHOOD, "value"], LIKELIHOOD),
            "Seeds (pre-trainings)": f"{group['seed'].nunique()}"
            + f" ({group['init'].nunique()})" * (arm == evidence.ARMS[1]),
        }
        for (dataset, scale, arm, rate), group in settings.groupby(
            ["dataset", "profile", "arm", "rate"], sort=False, observed=True
        )
    ],
    caption="Test error and calibration by the learning rate of fine-tuning. Negative log-likelihood in nats.",
    name="tab-calibration-rates",
)


# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
def pretrained_with(metric, method, dataset="cifar10", arm="pre-trained", scale="paper"):
    shared = {"section": "calibration", "profile": scale, "dataset": dataset, "metric": metric}
    sides = ({"arm": "pre-trained", "method": method}, {"arm": arm, "method": "standard"})
    return evidence.compare(values, *(shared | side for side in sides))


faster = [pretrained_with(metric, "high-rate") for metric in (ERROR, RMS)]
ruined = [pretrained_with(metric, "high-rate", arm="scratch", scale="cpu") for metric in (ERROR, RMS)]
slower = [pretrained_with(metric, "low-rate", arm="scratch", scale="cpu") for metric in (ERROR, RMS)]
markdown.Markdown(
    markdown.conclusion(
        faster[0].effect < 0 < faster[1].effect and faster[0].n == 1,
        "With one seed, on CIFAR-10 at `paper` scale, ten times the rate makes the pre-trained network more accurate "
        f"({markdown.sides(faster[0], ERROR)}) and less calibrated ({markdown.sides(faster[1], RMS)}): it comes nearer to the one "
        "from scratch in both.",
    )
    + " "
    + markdown.conclusion(
        slower[0].low > 0 > slower[1].high and ruined[0].low > 0 > ruined[1].high,
        "On CIFAR-10 at `cpu` scale a tenth of the rate brings the same trade as at `paper` scale: over the "
        f"{slower[0].n} seeds that it and training from scratch both have, the test error rises "
        f"({markdown.sides(slower[0], ERROR)}) while the RMS falls ({markdown.sides(slower[1], RMS)}). There ten times the "
        f"rate is too much, and the network errs on {markdown.spread(ruined[0].treated, ERROR)} %; its RMS is low "
        f"({markdown.spread(ruined[1].treated, RMS)} %) all the same.",
    )
)

# %% [markdown]
# **Scale.** `cpu` has a smaller network, shorter pre-training and 5,000 images of each target, so both arms are less accurate
# than the paper's. Its networks from scratch have no dropout (the paper: 0.3). CIFAR-100 comes from a mirror with its images
# in another order ([data](../data.md)), which changes which 5,000 are taken.
#
# **Tiny ImageNet** is here at 32 pixels instead of 64, and at `cpu` scale only. As in the paper, pre-training leaves out its
# classes; that leaves 75 classes of mini-ImageNet.
#
# **The last bin.** The authors' released code leaves the most confident bin out of the sum in {eq}`eq-rms`, so their
# numbers probably lack it. Ours have it.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
bins = evidence.arms(values, [RMS, f"{RMS}_dropped_bin"], **all_three).pivot(index="dataset", columns="metric")
lost = [100 * (bins[side, RMS] - bins[side, f"{RMS}_dropped_bin"]).abs() for side in ("scratch", "tuned")]
lost = pd.concat(lost, axis=1).max(axis=1, skipna=False)
markdown.Markdown(
    markdown.conclusion(
        lost[cifar].max(skipna=False) < 0.005 and lost["tiny_imagenet"] < 0.5,
        "Without it the means of {numref}`tab-calibration` stay the same on CIFAR to a hundredth of a point, and on Tiny ImageNet "
        f"change by at most {lost['tiny_imagenet']:.2f} points.",
    )
)

# %% [markdown]
# **Temperature.** The authors' released code computes a temperature, prints it, and sets it back to one; the networks that it
# loads were trained on all images, so that none were held out. The paper's table is without temperature scaling, like ours;
# the paper used it for the pre-trained network on Tiny ImageNet only.
#
# **Spread.** The paper has one training each. Here intervals are over seeds; the captions say over how many
# pre-trainings, and over one no interval covers the randomness of pre-training. At `cpu` scale two seeds were added when the results of the
# first three were known, for the sake of the [OOD page](ood.ipynb). All five started from one pre-training; later, on CIFAR,
# there were three pre-trainings, and one seed of each is shown.
#
# **Choice of the trainings.** The paper's schedules are for whole data sets and a larger network. For `cpu` scale those in
# {numref}`tab-calibration-candidates` were tried with seed 0, on CIFAR-10 only, and evaluated on held-out training images.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
choice = load_published("recipe_choice", Path(results))
trainings.candidates_table(
    choice,
    method="held-out",
    measures=[ERROR, RMS, LIKELIHOOD],
    train_images=5000,
    caption="Trainings tried on 5,000 images of CIFAR-10, evaluated on held-out training images. In bold the least negative "
    "log-likelihood of each arm, which was taken. Batches of 128 images.",
    name="tab-calibration-candidates",
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
tried = evidence.where(evidence.tidy(choice), method="held-out", metric=[RMS, LIKELIHOOD])
tried = tried[tried["recipe"].str.contains('"train_images":5000,')]
tried = tried.pivot_table(index=["arm", "recipe"], columns="metric", values="value", observed=True)
least = {metric: tried.loc[tried.groupby("arm", observed=True)[metric].idxmin(), RMS].droplevel(1) for metric in tried}
gaps = {metric: one["scratch"] - one["pre-trained"] for metric, one in least.items()}
markdown.Markdown(
    markdown.conclusion(
        gaps[RMS] > gaps[LIKELIHOOD] > 0,
        "The choice matters: by RMS calibration error other trainings would have been taken. Pre-training would "
        f"then lower it by {markdown.number(gaps[RMS], RMS)} points on these images; with the trainings taken it does by "
        f"{markdown.number(gaps[LIKELIHOOD], RMS)}.",
    )
)

# %% [markdown]
# ## Beyond the main table
#
# **Where the error lies.** In {numref}`fig-calibration-reliability` points below the diagonal are confidence without accuracy.


# %% mystnb={"figure": {"caption": "Accuracy against confidence on the test set. A point is the mean over seeds of 500 neighbouring images, a thin line one seed.", "name": "fig-calibration-reliability"}, "image": {"alt": "Reliability diagrams of CIFAR-10 and CIFAR-100 with both arms. The points from scratch lie clearly below the diagonal of perfect calibration, the pre-trained ones nearer to it: on CIFAR-10 slightly below, on CIFAR-100 slightly above.", "width": "100%"}} tags=["hide-input"]
def draw_reliability(records, scale, datasets, method="standard", merge=5, beside=()):
    def merged(source):
        bins = evidence.curves(source, "reliability_accuracy", "reliability_confidence")
        bins = evidence.where(bins, profile=scale, dataset=datasets, method=method)
        return bins.assign(x=100 * bins["x"], value=100 * bins["value"], rank=bins.groupby("key").cumcount() // merge)

    bins, recorded_bins = merged(records), merged(beside)
    figure, panels = style.new_figure(columns=len(datasets), height=3.6)
    for panel, dataset in zip(panels, datasets, strict=True):
        panel.plot([0, 100], [0, 100], **style.EQUAL, label="perfectly calibrated")
        for arm in evidence.ARMS:
            look, mine = style.arm_style(arm), evidence.where(bins, dataset=dataset, arm=arm)
            for _, seed in mine.groupby("key"):
                panel.plot(
                    *seed.groupby("rank")[["x", "value"]].mean().to_numpy().T, color=look["color"], lw=0.6, alpha=0.6
                )
            points = mine.groupby("rank")[["x", "value"]].mean().to_numpy().T
            panel.plot(*points, **look | {"linestyle": "none"}, markersize=5, label=label(arm))
            others = evidence.where(recorded_bins, dataset=dataset, arm=arm)
            if len(others):
                means = others.groupby("rank")[["x", "value"]].mean().to_numpy().T
                panel.plot(*means, color=look["color"], lw=1.4, ls=":", label=f"recorded, {label(arm)}")
        panel.set(xlim=(0, 102), ylim=(0, 102), box_aspect=1, title=label(dataset), xlabel="confidence (%)")
    panels[0].set_ylabel("accuracy (%)")
    style.legend_outside(figure)
    style.show(figure, bins)


draw_reliability(recorded, "paper", cifar)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
over = evidence.curves(recorded, "reliability_accuracy", "reliability_confidence")
over = evidence.where(over, method="standard", profile="paper")
runs = over["seed"].nunique()
over = over.assign(gap=over["x"] - over["value"]).groupby(["arm", "dataset"], observed=True)["gap"].mean()
scratch, tuned = ([over[arm, name] for name in cifar] for arm in evidence.ARMS)
markdown.Markdown(
    markdown.conclusion(
        min(*scratch, tuned[0]) > 0 > tuned[1],
        f"At `paper` scale ({runs} seeds) the mean confidence from scratch is above the accuracy, by "
        f"{' and '.join(markdown.number(gap, RMS) for gap in scratch)} points on CIFAR-10 and CIFAR-100. Pre-trained it is "
        f"{markdown.number(tuned[0], RMS)} points above it on CIFAR-10, but {markdown.number(-tuned[1], RMS)} points *below* "
        "it on CIFAR-100: what is left there is too little confidence.",
    )
)

# %% [markdown]
# **Temperature scaling.** {numref}`tab-calibration-temperature` has networks that were trained on nine tenths of the images,
# before and after it; it was not measured at `paper` scale. The column of chance is as in {numref}`tab-calibration-chance`.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
networks = evidence.where(values, main=True, method="temperature")
basis, of_tiny = (
    evidence.basis(evidence.arms(values, [RMS], section="calibration", datasets=names, methods=["temperature"]))
    for names in (cifar, ["tiny_imagenet"])
)
lines = []
for target, arm in [(name, arm) for name in (*cifar, "tiny_imagenet32") for arm in evidence.ARMS]:
    ours = evidence.where(networks, dataset=target, arm=arm)
    ours = ours.pivot_table(index="key", columns="metric", values="value", observed=True)
    ours = ours.reindex(columns=[RMS, f"{RMS}_tempered", "temperature"])
    printed = select("calibration", dataset=target.removesuffix("32"), arm=arm, method="temperature")
    theirs = printed.set_index("metric")["printed"]
    last = theirs.get(f"{RMS}_dropped_bin_tempered", theirs.get(f"{RMS}_tempered", markdown.DASH))
    line = {"Setting": f"{label(target)}, {label(arm)}"}
    line["RMS (%)"] = " → ".join(markdown.spread(ours[name], RMS) for name in (RMS, f"{RMS}_tempered"))
    line["By chance (%)"] = markdown.number(chance[ours.index].mean(), RMS)
    line["Temperature"] = markdown.spread(ours["temperature"], "temperature")
    line["Authors' RMS (%)"] = f"{theirs.get(RMS, markdown.DASH)} → {last}" if len(theirs) else markdown.DASH
    lines.append(line | {"Authors' temperature": theirs.get("temperature", markdown.DASH)})
markdown.table(
    lines,
    caption=f"RMS calibration error before → after temperature scaling, {basis} (Tiny ImageNet: {of_tiny}). The authors' numbers are from P1 §4.2 "
    "(pre-trained) and from the logs of their next paper (from scratch, WRN-40-2, other normalisation); they probably lack the last bin.",
    name="tab-calibration-temperature",
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
left = [gain(name, f"{LIKELIHOOD}_tempered", method="temperature") for name in cifar]
markdown.Markdown(
    markdown.conclusion(
        all(one.high < 0 for one in left),
        "What temperature scaling does not give is accuracy. After it the pre-trained networks still have the lower negative "
        f"log-likelihood: {markdown.sides(left[0], LIKELIHOOD)} on CIFAR-10, {markdown.sides(left[1], LIKELIHOOD)} on CIFAR-100.",
    )
)

# %% [markdown]
# **Calibration against epochs.** In the first version of the paper a network from scratch, late in its training, still gains
# accuracy but loses calibration. {numref}`fig-calibration-epochs` has both curves.

# %% mystnb={"figure": {"caption": "CIFAR-100 from scratch by epoch: RMS calibration error and test error. Solid: ours, mean and one standard deviation over seeds, every fifth epoch. Dashed: the paper's Figure 4, first version.", "name": "fig-calibration-epochs"}, "image": {"alt": "Two panels, one above the other, over 100 epochs. The RMS error is level or swings at first and rises in the last third, ours as the paper's. The test error falls throughout and ends near the paper's.", "width": "100%"}} tags=["hide-input"]
figure, panels = style.new_figure(rows=2, height=2.3)
plotted = []
for panel, (name, axis) in zip(panels, {RMS: "RMS error (%)", ERROR: "test error (%)"}.items(), strict=True):
    rows = evidence.curves(recorded, f"history_{name}", "history_epoch")
    rows = evidence.where(rows, dataset="cifar100", profile="paper", arm="scratch", method="standard")
    style.band(panel, rows, "scratch", x="x")
    curve = select("calibration", dataset="cifar100", metric=f"history_{name}", locator="P1v1 Figure 4", curve=True)
    panel.plot(curve["position"], 100 * curve["value"], **style.paper_line("scratch"))
    panel.set(xlabel="epoch", ylabel=axis, xlim=(0, 102), ylim=(0, None))
    plotted.append(rows.assign(metric=name))
style.legend_outside(figure, paper=True)
history = pd.concat(plotted)
style.show(figure, history)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
course = {"section": "calibration", "profile": "paper", "dataset": "cifar100", "arm": "scratch", "method": "standard"}
late = [
    evidence.compare(values, *(course | {"metric": f"history_{name}_{when}"} for when in ("last", "half")))
    for name in (RMS, ERROR)
]
steps = history[history["metric"] == RMS].pivot_table(index="x", columns="seed", values="value").diff().abs()
markdown.Markdown(
    markdown.conclusion(
        late[0].low > 0 > late[1].high,
        f"In the second half of our trainings the RMS rises ({markdown.sides(late[0], RMS)}) while the test error falls "
        f"({markdown.sides(late[1], ERROR)}). Before, at high learning rates, a single network's RMS moves by up to "
        f"{markdown.number(steps.max().max(), RMS)} points from one observation to the next.",
    )
)

# %% [markdown]
# **Other measures.** The expected calibration error is of calibration alone; the Brier score counts accuracy too.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
markdown.arms_table(
    evidence.arms(values, ["expected_calibration_error", "brier_score"], **all_three),
    caption="Expected calibration error in 15 bins of equal width, and the Brier score. Scale and seeds as in the first table.",
    name="tab-calibration-further",
    paper=False,
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
course = {"section": "calibration", "profile": "cpu", "dataset": "cifar10"}
both_corpora = (evidence.where(values, **course, method=corpus) for corpus in ("places365", "standard"))
precision, other = (", ".join(sorted(rows["precision"].unique())) for rows in both_corpora)
scenes, objects = (
    [pretrained_with(metric, corpus, arm="scratch", scale="cpu") for metric in (RMS, ERROR, LIKELIHOOD)]
    for corpus in ("places365", "standard")
)
[theirs] = (claim.paper for claim in CLAIMS if claim.id == "cal-places365")
markdown.Markdown(
    markdown.conclusion(
        scenes[0].high < 0 < scenes[1].low and scenes[2].low < 0 < scenes[2].high and objects[1].high < 0,
        "**Another corpus.** The paper also pre-trains on Places365. MiniPlaces stands in for it here: 100 classes of scenes, "
        f"45,000 images, one pre-training. On CIFAR-10 at `cpu` scale the RMS falls with it, {markdown.sides(scenes[0], RMS)}, "
        f"a change of {markdown.effect(scenes[0], RMS)} (the paper: {theirs}). The ImageNet stand-in, with 3.6 times as many "
        f"images, changes it by {markdown.effect(objects[0], RMS)}. The ImageNet stand-in lowers the test error "
        f"({markdown.sides(objects[1], ERROR)}, {objects[1].n} seeds), whereas scenes raise it "
        f"({markdown.sides(scenes[1], ERROR)}, {scenes[1].n} seeds): there better calibration came without better "
        "classification. Whether the negative log-likelihood, which counts both, changes is undecided "
        f"({markdown.effect(scenes[2], LIKELIHOOD)}). The networks of scenes were trained in {precision}, the others in "
        f"{other}, which may change the third digit.",
    )
)

# %% [markdown]
# ## Run it yourself
#
# The next cell measures the section at the profile given by the parameters. The default, `smoke`, takes seconds: a tiny
# network and synthetic images. It tests the machinery and says nothing about the paper. {numref}`tab-calibration-live` and
# {numref}`fig-calibration-live` show this run.

# %% tags=["remove-stderr"]
jobs, live = registry.measure_as_asked("calibration", globals())

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
trainings.live_table(
    jobs,
    live,
    values,
    metrics=[ERROR, RMS, f"{RMS}_tempered", LIKELIHOOD],
    caption=f"This run, at `{profile}`.",
    name="tab-calibration-live",
)

# %% mystnb={"figure": {"caption": "Accuracy against confidence in this run; a point is the mean over seeds of one bin. Thin dotted lines are the recorded results of the same scale.", "name": "fig-calibration-live"}, "image": {"alt": "A reliability diagram of the live run with both arms: accuracy in bins of rising confidence, beside the diagonal of perfect calibration.", "width": "100%"}} tags=["hide-input"]
names = list(dict.fromkeys(job.dataset for job in jobs))[:2]
draw_reliability(live, profile, names, jobs[0].method, merge=1 if profile == "smoke" else 5, beside=recorded)

# %% [markdown]
# The same at another scale. Results go to `runs/`; `robustness publish` puts them into this book:
#
# ```bash
# papermill notebooks/calibration.ipynb runs/calibration-cifar100.ipynb \
#     -p profile cpu -p dataset cifar100
# ```
#
# The other learning rates, from the checkpoint that comes with the repository (`cpu` needs no `--init`), and the paper's
# check with another corpus (here MiniPlaces; at `paper` it is `places365`):
#
# ```bash
# robustness run calibration --profile paper --dataset cifar10 \
#     --method low-rate,high-rate \
#     --init wrn-40-2_imagenet32_160000x275_e100_s1_40471b
# robustness publish --changed
# robustness run calibration --profile cpu --dataset cifar10 \
#     --method places365 \
#     --init wrn-16-1_miniplaces_45000x100_e10_s1_cb9952
# ```

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
provenance.provenance_box(recorded, "calibration")

# %% [markdown]
# Source of this page: {download}`calibration.py </notebooks/calibration.py>`.
