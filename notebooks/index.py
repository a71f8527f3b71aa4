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
from robustness_lib.paper import CLAIMS, SECTIONS, label, metric, network_label
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


# %% tags=["remove-cell", "remove-stderr"]
judged = verdicts.frame(values)
counts, own = verdicts.counts(judged).loc["all"], sum(claim.source == "our own" for claim in CLAIMS)
unsized = judged["words"].isin(["supported, size below", "supported, size undecided", "supported, size not judged"])
smote = judged.set_index("id").loc["imb-minority-cifar100"]  # at γ = 2 the classes differ least
at_weakest = smote["here"].endswith(", at 2") and smote["note"].startswith("3 of 4")
alone = evidence.where(values, dataset="imagenet", method="testbed", metric="high_share_standard")["value"]
WORDS = {
    "adv-clean-accuracy": "clean accuracy is not equal",
    "imb-minority": "rare classes do worse than with SMOTE"
    + " at the weakest of four imbalances, after short tuning" * at_weakest,
    "ood-every": "AUROC is not higher on every OOD set",
    "cal-error": "the test error is higher, not lower",
    "er-rare": f"effective robustness of more than a point is not rare among public networks ({judged.set_index('id').at['er-rare', 'here']} have it; "
    f"{100 * alone.mean():.1f} % of those trained on ImageNet alone)",
}
lost = {}  # of the claims that are contradicted, by what they are about, the data sets
for name, section in judged.loc[judged["direction"] == "contradicted", ["id", "section"]].itertuples(index=False):
    about, _, dataset = name.partition("-cifar")
    words = lost.setdefault(WORDS.get(about, SECTIONS[section].lower()), [])
    words += [label(f"cifar{dataset}")] * bool(dataset)
against = "; ".join(words + f" ({', '.join(sets)})" * bool(sets) for words, sets in lost.items())
tuned = evidence.where(values, main=True, profile="cpu", arm="pre-trained", section=list(SECTIONS))
tuned = tuned[tuned["method"].isin(("adversarial", "none", "normal", "standard"))]["recipe"].drop_duplicates()
networks = {network_label(name) for name in tuned.str.extract(r'"architecture":"(.+?)"')[0]}
images = evidence.train_images(tuned).max()

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
        ends = sorted(metric(name).better * end for end in (found.low, found.high))
        row |= {"improved": ends[0] > 0, "worse": ends[1] < 0}
        rows.append(row | {"ours": mean, "low": low, "high": high, "profile": found.profile, "n": found.n})
improved = sum(row["improved"] for row in rows)
small = sum(row["improved"] and row["profile"] == "cpu" for row in rows)
gold = [gain("label_noise", "error", method=name, reduce="excess") for name in ("glc-5", "glc-10")]


def means(found):
    return f"{100 * found.reference.mean():.1f} to {100 * found.treated.mean():.1f} %"


def points(found):
    return markdown.number(found.effect, "error", signed=True)


# %% tags=["remove-cell", "remove-stderr"]
area, excess = (gain("label_noise", "error", method="none", reduce=reduce) for reduce in ("area", "excess"))
rare = gain("imbalance", "minority_error", method="normal", reduce="mean")
names = ("cifar10", "cifar100")
attacked = [gain("adversarial", "adversarial_accuracy", name, method="adversarial") for name in names]
clean = [gain("adversarial", "clean_accuracy", name, method="adversarial") for name in names]
rms, errors = gain("calibration", "rms_calibration_error"), [gain("calibration", "error", name) for name in names]
halved = gain("calibration", "rms_calibration_error", kind="reduction")
ood, ood10 = (
    [gain("ood", f"auroc_{sets}", name) for sets in ("mean", "synthetic", "photographs")] for name in names[::-1]
)
noise = [gain("ood", f"auroc_{name}", "cifar100") for name in evidence.OOD_SETS["synthetic"]]
shift = gain("effective_robustness", "maximum_effective_robustness")
vanishes = judged.set_index("id").at["er-vanishes", "direction"]
printed = judged.set_index("id")["direction"][["er-slope-imagenet", "er-intercept-imagenet", "er-r2-imagenet"]]

compared = {"label noise": area, "class imbalance": rare, "calibration on CIFAR-10": rms}
compared |= {"OOD detection on CIFAR-100": ood[0], "effective robustness": shift}
compared |= {f"adversarial robustness on {label(name)}": one for name, one in zip(names, attacked, strict=True)}
separate = [name for name, one in compared.items() if one.pretraining_seeds > 1]
apart = (
    f", but in {', '.join(separate)} and on the page about more data each seed has a pre-training of its own"
    * bool(separate)
)
lengths = evidence.where(values, main=True, section="label_noise", profile="cpu", dataset="cifar10", method="none")
lengths = lengths["recipe"].str.extract(r'"epochs":(\d+)')[0].groupby(lengths["arm"], observed=True).first()


def on_few(section, metric, treated, reference, level=None):
    side = {"section": section, "profile": "cpu", "dataset": "cifar10", "metric": metric}
    sides = {"arm": "pre-trained", "method": treated}, {"arm": "scratch", "method": reference}
    return evidence.compare(values, *(side | one for one in sides), level=level)


pairs = (("none-10000", "none-10000", 0.0), ("none-10000", "none-10000", 0.6), ("none-1000-longer", "none-5000", 0.6))
clean10, short, long = (on_few("label_noise", "error", *one) for one in pairs)
as_often, few_rms = (
    [
        on_few("calibration", name, f"standard-1000{way}", "standard-5000-shorter")
        for way in ("", "-longer", "-rate-0.01")
    ]
    for name in ("error", "rms_calibration_error")
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input", "readme"]
markdown.findings(
    (
        all(not row["worse"] and row["ours"] < row["paper"] for row in rows) and shift.low < 0 < shift.high,
        f"**In short.** Pre-training improves {improved} of {len(rows)} main measures (the figure below): the 95 % interval of the difference excludes zero, "
        f"{small} times on small networks alone (`cpu`). The other {len(rows) - improved} are undecided, and so is a rise of effective robustness. Each mean gain is a smaller share of the error than in the paper.",
    ),
    (
        networks == {"WRN-16-1"},
        f"**Scale** of the main results. `cpu`: Wide ResNet 16-1, at most {images:,} training images; `paper`: Wide ResNet 40-2, all images; "
        "both pre-trained on a 275-class stand-in for ImageNet or a part of it.",
    ),
    (
        attacked[0].low < 0 < attacked[0].high
        and attacked[1].low > 0
        and all(one.low > 0 and one.profile == "cpu" for one in clean),
        "**Adversarial robustness: undecided on CIFAR-10, better on CIFAR-100** (`cpu`). With adversarial training in both arms, accuracy under attack (PGD, ε = 8/255) rises from "
        f"{means(attacked[1])} on CIFAR-100. Clean accuracy, unchanged in the paper, rises as well, by {points(clean[1])} points "
        f"(CIFAR-10: {points(clean[0])}).",
    ),
    (
        all(one.high < 0 and one.profile == "cpu" for one in (area, rare, *gold)) and excess.low < 0 < excess.high,
        f"**Label noise, class imbalance: lower error** (`cpu`). On CIFAR-10 the area under the error curve falls from {means(area)} (fine-tuning for {lengths.get('pre-trained')} epochs, from scratch {lengths.get('scratch')}), "
        f"the error on rare classes from {means(rare)}. With Gold Loss Correction pre-training also makes "
        "noise itself do less harm on CIFAR-10; without a correction that is undecided.",
    ),
    (
        rms.profile == "paper" and rms.high < 0 and halved.low < 0.5 < halved.high and all(x.low > 0 for x in errors),
        f"**Calibration: better, but accuracy falls** (`paper`). On CIFAR-10 the RMS calibration error falls from {means(rms)}; "
        f"whether by half is undecided. The test error, lower in the authors' logs, rises from {means(errors[0])} "
        f"(CIFAR-100: {means(errors[1])}).",
    ),
    (
        ood[0].profile == "paper"
        and ood[0].low > 0
        and ood[1].low > 0 > ood[2].high
        and all(one.n for one in noise)
        and [one.low > 0 for one in noise] == [False, True, False]
        and all(one.low < 0 < one.high for one in (noise[0], noise[2], *ood10)),
        "**OOD detection by the largest softmax probability: mixed on CIFAR-100, undecided on CIFAR-10** (`paper`). On CIFAR-100 the mean AUROC rises "
        f"({markdown.effect(ood[0], 'auroc_mean')}): on synthetic images it rises ({markdown.effect(ood[1], 'auroc_mean')}; of three sets Rademacher noise alone has an interval "
        f"that excludes zero), on two sets of photographs it falls ({markdown.effect(ood[2], 'auroc_mean')}).",
    ),
    (
        shift.low < 0 < shift.high
        and shift.profile == "cpu"
        and set(printed) == {"supported"}
        and vanishes == "undecided",
        "**Effective robustness: the line of the public ImageNet networks is reproduced to every digit; whether fine-tuning raises effective robustness, and loses it by the end, is undecided** "
        f"(`cpu`; maximum, pre-trained minus from scratch: {markdown.effect(shift, 'maximum_effective_robustness')}).",
    ),
    (
        (short.high < 0 and clean10.low < 0 < clean10.high and long.low < 0 < long.high)
        and all(low > 0 for low in (few_rms[0].low, few_rms[1].low, -few_rms[2].high))
        and all(abs(one.effect) < 0.01 for one in (clean10, *as_often)),
        "**[Pre-training or more data?](data_size.ipynb)** (`cpu`, CIFAR-10) Beyond accuracy the answer depends on how both networks are trained. With 60 % wrong labels, 10,000 images "
        f"and about equal errors on clean labels, the error falls from {means(short)} after short fine-tuning; after fine-tuning for as many epochs as from scratch, on 1,000 images, a difference at equal "
        f"accuracy is undecided. At a test error of {100 * as_often[0].treated.mean():.0f} to {100 * as_often[-1].treated.mean():.0f} % the RMS calibration error is {100 * few_rms[0].reference.mean():.1f} % from scratch and "
        f"{100 * few_rms[-1].treated.mean():.1f} to {100 * few_rms[1].treated.mean():.1f} % pre-trained, depending on length and learning rate of fine-tuning.",
    ),
    (
        True,
        f"**Of {counts.sum()} overlapping claims** ({own} our own) {counts['supported']} are supported ({unsized.sum()} of them in direction only), "
        f"{counts['undecided']} undecided, {counts['not testable here']} not testable here, {counts['not measured']} not measured and "
        f"{counts['contradicted']} [contradicted](claims.ipynb): {against}.",
    ),
    (
        len(separate) < len(compared),
        f"**Trust: exploratory.** Intervals are over seeds, mostly three; pre-trained runs of a measure share one checkpoint{apart}, and nothing is corrected for the number "
        "of claims. Chosen with results known ([provenance](provenance.ipynb)): [the rule](claims.ipynb), the length of adversarial pre-training, "
        "the training settings of label noise and imbalance on CIFAR-10, two further seeds of calibration and OOD detection at `cpu`, the other ways "
        "of training on few images.",
    ),
)

# %% mystnb={"figure": {"caption": "Relative error reduction by pre-training: the share of the error from scratch that is gone (error is 100 % less the value, for accuracy and AUROC); more is better. Diamonds: the paper's values. Filled squares: ours at `paper` scale. Open squares: ours at `cpu` scale. Lines: 95 % intervals over seeds.", "name": "fig-results"}, "image": {"alt": "One row for each section and data set. Diamonds are the papers' values, squares are ours, with intervals; the squares lie to the left of their diamonds, nearer to zero.", "width": "100%"}} tags=["hide-input", "readme"]
frame = pd.DataFrame(rows, columns=["row", "paper", "ours", "low", "high", "profile", "n"])[::-1]
color = style.arm_style("pre-trained")["color"]
figure, [panel] = style.new_figure(height=4.6)
panel.axvline(0, color="#333333", lw=1)
panel.hlines(frame["row"], frame["low"], frame["high"], color=color, lw=2.5, alpha=0.6)
for scale, fill in (("paper", color), ("cpu", "white")):
    some = frame[frame["profile"] == scale]
    seeds = evidence.basis(some).partition(", ")[2] or "no seeds"
    panel.plot(some["ours"], some["row"], "s", color=color, mfc=fill, label=f"here, {scale} scale, {seeds}")
panel.plot(frame["paper"], frame["row"], label="paper", **style.PAPER)
panel.set_xlabel("relative error reduction (%)")
style.legend_outside(figure)
style.show(figure, frame[::-1].rename(columns={"n": "seeds"}))

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
# One measure per section; {numref}`fig-results` shows the same as relative reductions, without effective robustness, which
# is no share of an error.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input", "readme"]
cells = []
for section, dataset, name, method, reduce in SETTINGS:
    if (found := gain(section, name, dataset, method=method, reduce=reduce)).n:
        words = {"area": "area under the error curve", "mean": f"mean {metric(name).label}"}
        shifted = " on ImageNet images of excluded classes" * (section == "effective_robustness")
        words = words.get(reduce, metric(name).label) + shifted
        printed = printed_values(section, name, dataset, found, method=method, reduce=reduce)
        cells.append(
            {
                "Measure": f"{SECTIONS[section]}, {label(dataset)}: {words}",
                "Scale": f"`{found.profile}`"
                + f", {found.pretraining_seeds} pre-trainings" * (found.pretraining_seeds > 1),
                "Paper": markdown.arrow(printed, name),
                "From scratch": markdown.spread(found.reference, name),
                "Pre-trained": markdown.spread(found.treated, name),
                "Difference [95 %]": markdown.effect(found, name),
            }
        )
markdown.table(
    cells,
    caption="Mean ± standard deviation over seeds, and the paired difference with its 95 % interval. "
    + "All seeds of a pre-trained arm start from one checkpoint"
    + " where no other number is given" * bool(separate)
    + ". "
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
# | [Pre-training or more data?](data_size.ipynb) | Is a pre-trained network more robust than an equally accurate one from scratch? |
#
# ## How to read a number
#
# Intervals are 95 % intervals over seeds, mostly three. They cover the randomness of training from scratch and of
# fine-tuning. They leave out that of pre-training where all seeds start from one checkpoint, and that of the choice of
# test images. Over three seeds an interval is wide: it reaches 2.5 standard deviations to either side of the mean. A claim of
# a difference is undecided where the interval includes zero; a claim of similarity is judged by a margin
# ([the rule](claims.ipynb)). Every result has a scale:
#
# `smoke`
# : Synthetic images and a tiny network. It shows that the machinery works and proves nothing. Pages run it when the book
#   is built.
#
# `cpu`
# : Real images and a small network, pre-trained on a 275-class ImageNet stand-in and tuned on a part of CIFAR. Even
#   the direction of an effect can differ at `paper`.
#
# `paper`
# : The first paper's schedules and WRN-40-2 (its adversarial networks are WRN-28-10) on all of CIFAR, pre-trained on the same
#   stand-in ([data](../data.md)), an eighth of its corpus. Numbers from scratch compare with the paper's directly,
#   pre-trained ones as far as the corpus allows.
#
# `published`
# : Computed from predictions that others released; nothing was trained, and there is no interval.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
large = evidence.where(values, main=True, profile="paper", section=list(SECTIONS))
sets = large["metric"].astype(str).str.removeprefix("auroc_")[large["metric"].str.startswith("auroc_")]
sets = set(sets) - {"mean", *evidence.OOD_SETS} - {"cifar10", "cifar100"}  # and the other CIFAR
markdown.Markdown(
    markdown.conclusion(
        set(large["section"]) == {"calibration", "ood"} and set(large["dataset"]) == {"cifar10", "cifar100"},
        "At `paper` scale only calibration and OOD detection were measured, with CIFAR; the latter over "
        f"{len(sets) + 1} of the paper's eight OOD sets.",
    )
)

# %% [markdown]
# An *arm* is one of the two things compared: a network trained from scratch, or a pre-trained one. RMS is the root mean
# square over bins of confidence. AUROC, the area under the receiver operating characteristic, is the probability that an OOD
# image is scored as stranger than an ordinary one: 50 % by chance.
