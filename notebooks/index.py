# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Pre-training and robustness
#
# {cite:t}`hendrycks2019using` claim that pre-training on ImageNet makes a network more robust to adversarial examples, to
# wrong labels and to rare classes, and improves its calibration and its detection of out-of-distribution (OOD) images.
# {cite:t}`andreassen2022evolution` claim that *effective robustness*, the accuracy on shifted test data beyond what the
# accuracy on the original data predicts, rises during fine-tuning and is gone at its end. This book sets each claim
# beside what the code in this repository measured, and lets you run all of it again.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell", "remove-stderr"]
import numpy as np
import pandas as pd

from robustness_lib import notebook
from robustness_lib.paper import CLAIMS, SECTIONS, label, metric
from robustness_lib.report import evidence, markdown, style, verdicts

notebook.check_parameters(globals())
style.use_style()
values = evidence.load(results)


def gain(section, name, dataset="cifar10", **settings):
    return evidence.gain(values, name, section=section, dataset=dataset, **settings)


def printed_values(section, name, dataset, found, **setting):
    if section == "ood":  # the paper's mean over the OOD sets that ours is over
        return evidence.paper_ood_means(values, name, dataset=dataset, profile=found.profile)
    setting |= {"dataset": dataset, "metric": name, "levels": found.levels}
    return [evidence.paper_value(section, arm=arm, **setting) for arm in evidence.ARMS]


# %% mystnb={"markdown_format": "myst"} tags=["remove-input", "readme"]
area, excess = (gain("label_noise", "error", method="none", reduce=reduce) for reduce in ("area", "excess"))
rare = gain("imbalance", "minority_error", method="normal", reduce="mean")
attacked = [gain("adversarial", "adversarial_accuracy", name, method="adversarial") for name in ("cifar10", "cifar100")]
clean = gain("adversarial", "clean_accuracy", method="adversarial")
rms, error = gain("calibration", "rms_calibration_error"), gain("calibration", "error")
halved = gain("calibration", "rms_calibration_error", kind="reduction")
ood, ood10 = (
    [gain("ood", f"auroc_{sets}", name) for sets in ("mean", "synthetic", "photographs")]
    for name in ("cifar100", "cifar10")
)
shift = gain("effective_robustness", "maximum_effective_robustness")
counts, papers = verdicts.counts(verdicts.frame(values)).loc["all"], sum(claim.source == "papers" for claim in CLAIMS)
markdown.findings(
    (
        attacked[0].low < 0 < attacked[0].high and attacked[1].low > 0 and clean.low > 0,
        "**Adversarial robustness: undecided on CIFAR-10, better on CIFAR-100.** With a small network and few images (`cpu` "
        f"scale) the accuracy under attack changes by {markdown.effect(attacked[0], 'adversarial_accuracy')} and "
        f"{markdown.effect(attacked[1], 'adversarial_accuracy')}. Accuracy on clean CIFAR-10 images, which the paper finds "
        f"unchanged, rises by {markdown.effect(clean, 'clean_accuracy')}.",
    ),
    (
        area.high < 0 and rare.high < 0 and excess.low < 0 < excess.high,
        "**Label noise and class imbalance: lower error.** At `cpu` scale on CIFAR-10, the area under the curve of the error "
        f"over noise strengths falls ({markdown.sides(area, 'error')}), and so does the error on rare classes "
        f"({markdown.sides(rare, 'minority_error')}). Whether noise also does less harm is undecided: what it adds to the "
        f"error without noise changes by {markdown.effect(excess, 'error')}.",
    ),
    (
        rms.profile == "paper" and rms.high < 0 < error.low and halved.low < 0.5 < halved.high,
        "**Calibration: better, but accuracy falls.** At the papers' scale on CIFAR-10, the RMS calibration error falls "
        f"({markdown.sides(rms, 'rms_calibration_error')}; whether to a half, as claimed, is undecided), but the test error, "
        f"which the paper finds lower, rises ({markdown.sides(error, 'error')}). Our pre-training corpus has an eighth of the "
        "paper's images; whether that is why was not measured.",
    ),
    (
        ood[0].profile == "paper"
        and min(ood[0].low, ood[1].low) > 0 > ood[2].high
        and all(one.low < 0 < one.high for one in ood10),
        "**OOD detection: better on synthetic images, worse on photographs.** At the papers' scale on CIFAR-100, the mean AUROC "
        f"rises by {markdown.effect(ood[0], 'auroc_mean')}: on synthetic OOD images by {markdown.effect(ood[1], 'auroc_mean')}, "
        f"on photographs it falls, {markdown.effect(ood[2], 'auroc_mean')}. On CIFAR-10 none of the three is decided.",
    ),
    (
        shift.low < 0 < shift.high,
        "**Effective robustness: undecided.** Its maximum during fine-tuning differs from that of training from scratch by "
        f"{markdown.effect(shift, 'maximum_effective_robustness')}: with small networks and small test sets (`cpu` scale) the "
        "rise that the paper reports cannot be told from chance.",
    ),
    (
        True,
        f"Of {counts.sum()} claims ({papers} of them the papers'), {counts['supported']} are supported in direction, "
        f"{counts['contradicted']} [contradicted](claims.ipynb), {counts['undecided']} undecided, "
        f"{counts['not testable here']} not testable here and {counts['not measured']} not measured: "
        "[all claims](claims.ipynb).",
    ),
)

# %% tags=["remove-cell", "remove-stderr"]
HEADLINES = {
    "adversarial": ("adversarial_accuracy", "adversarial", None),
    "label_noise": ("error", "none", "area"),
    "imbalance": ("error", "normal", "mean"),
    "ood": ("auroc_mean", "standard", None),
    "calibration": ("rms_calibration_error", "standard", None),
    "effective_robustness": ("maximum_effective_robustness", "standard", None),
}
SETTINGS = [(section, dataset, *HEADLINES[section]) for section in HEADLINES for dataset in ("cifar10", "cifar100")][
    :-1
]
rows = []
for section, dataset, name, method, reduce in SETTINGS[:-1]:  # effective robustness is no share of an error
    if (found := gain(section, name, dataset, method=method, reduce=reduce)).n:
        printed = printed_values(section, name, dataset, found, method=method, reduce=reduce)
        bad = [
            x if metric(name).better < 0 else 1 - x for x in (found.reference, found.treated, *map(np.array, printed))
        ]
        mean, low, high = 100 * np.array(evidence.mean_interval(1 - bad[1] / bad[0]))
        row = {"row": f"{SECTIONS[section]}, {label(dataset)}", "paper": 100 * (1 - bad[3] / bad[2])}
        rows.append(row | {"ours": mean, "low": low, "high": high, "scale": found.profile})

# %% mystnb={"figure": {"caption": "Relative error reduction by pre-training: the share of the error from scratch that is gone (error is 100 % less the value, for accuracy and AUROC); more is better. Filled squares: the papers' scale. Open squares: `cpu` scale. Lines: 95 % intervals over seeds.", "name": "fig-results"}, "image": {"alt": "One row for each section and data set. Diamonds are the papers' values, squares are ours, with intervals; most squares lie to the left of their diamond, nearer to zero.", "width": "100%"}} tags=["hide-input", "readme"]
frame = pd.DataFrame(rows, columns=["row", "paper", "ours", "low", "high", "scale"])[::-1]
color = style.arm_style("pre-trained")["color"]
figure, [panel] = style.new_figure(height=4.6)
panel.axvline(0, color="#333333", lw=1)
panel.hlines(frame["row"], frame["low"], frame["high"], color=color, lw=2.5, alpha=0.6)
for scale, fill in (("paper", color), ("cpu", "white")):
    some = frame[frame["scale"] == scale]
    panel.plot(some["ours"], some["row"], "s", color=color, mfc=fill, label=f"here, {scale} scale")
panel.plot(frame["paper"], frame["row"], label="paper", **style.PAPER)
panel.set_xlabel("relative error reduction (%)")
style.legend_outside(figure)
style.show(figure, frame[::-1])

# %% [markdown]
# ::::{grid} 1 1 3 3
# :gutter: 3
#
# :::{grid-item-card} Read the results
# :link: claims
# :link-type: doc
# Each claim, the paper's number, ours with its interval, and a verdict.
# :::
#
# :::{grid-item-card} Run it again
# :link: ../rerun
# :link-type: doc
# One command a section, on a laptop or a GPU. Runs resume, and their results land in this book.
# :::
#
# :::{grid-item-card} Change it
# :link: ../edit
# :link-type: doc
# Edit notebooks as plain Python, or add a method to the library.
# :::
# ::::
#
# ## The numbers
#
# One measure a section; {numref}`fig-results` shows the same as relative reductions.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input", "readme"]
cells, starts = [], set()
for section, dataset, name, method, reduce in SETTINGS:
    if (found := gain(section, name, dataset, method=method, reduce=reduce)).n:
        words = {"area": "area under the error curve", "mean": f"mean {metric(name).label}"}
        shifted = " on ImageNet images of excluded classes" * (section == "effective_robustness")
        words = words.get(reduce, metric(name).label) + shifted
        printed = printed_values(section, name, dataset, found, method=method, reduce=reduce)
        starts.add(found.pretraining_seeds)
        cells.append(
            {
                "Measure": f"{SECTIONS[section]}, {label(dataset)}: {words}, `{found.profile}`",
                "Paper": markdown.arrow(printed, name),
                "From scratch": markdown.spread(found.reference, name),
                "Pre-trained": markdown.spread(found.treated, name),
                "Difference [95 %]": markdown.effect(found, name),
            }
        )
markdown.table(
    cells,
    caption="Mean ± standard deviation over seeds, and the paired difference with its 95 % interval. "
    + "All seeds of a pre-trained arm start from one checkpoint. " * (starts == {1})
    + "Where ours is over fewer noise strengths, exponents or OOD sets than the paper's, so is the paper's.",
    name="tab-results",
)

# %% [markdown]
# ## The pages
#
# | page | question |
# |---|---|
# | [Adversarial robustness](adversarial.ipynb) | Does adversarial pre-training help against adversarial examples? |
# | [Label noise](label_noise.ipynb) | What is left of accuracy when training labels are wrong? |
# | [Class imbalance](imbalance.ipynb) | What happens to classes with few images? |
# | [Out-of-distribution detection](ood.ipynb) | Does the network notice images of no class that it knows? |
# | [Calibration](calibration.ipynb) | When it says 80 %, is it right eight times in ten? |
# | [Effective robustness](effective_robustness.ipynb) | How does robustness to shifted data change during fine-tuning? |
#
# ## How to read a number
#
# Intervals are 95 % intervals over seeds, mostly three. They cover the randomness of training from scratch and of
# fine-tuning. They leave out that of pre-training where all seeds start from one checkpoint, and that of the choice of
# test images. A claim is undecided where the interval includes zero ([the rule](claims.ipynb)). Every result has a scale:
#
# `smoke`
# : Synthetic images and a tiny network. It shows that the machinery works and proves nothing. Pages run it when the book
#   is built.
#
# `cpu`
# : Real images and a small network, pre-trained on a 275-class ImageNet stand-in and tuned on a part of CIFAR. It can
#   show the direction of an effect, not the papers' values.
#
# `paper`
# : The papers' target data, networks and schedules; pre-training used the same stand-in
#   ([data](../data.md)), an eighth of the papers' corpus. Numbers from scratch compare with the papers' directly, pre-trained
#   ones as far as the corpus allows.
#
# An *arm* is one of the two things compared: a network trained from scratch, or a pre-trained one. The *corpus* is what a
# network was pre-trained on, the *head* its last layer, new for every task. WRN-*d*-*k* is a Wide ResNet of *d* layers, *k*
# times as wide as the narrowest.
