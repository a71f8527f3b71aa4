# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Pre-training or more data?
#
# On a small data set a pre-trained network is more accurate than one from scratch. Is it also more robust than a network
# from scratch *of the same accuracy*, one that was trained on more images? If not, pre-training only replaces data. The
# papers do not ask this: they compare the two at one number of training images.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell", "remove-stderr"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from robustness_lib import notebook
from robustness_lib.paper import label, metric
from robustness_lib.report import evidence, markdown, style

notebook.check_parameters(globals())
style.use_style()
every = evidence.where(evidence.load(results), main=True, dataset="cifar10")
values = evidence.where(every, profile="cpu")
values = values[values["method"].astype(str).str.fullmatch(r"(standard|none)(-\d+)?")]
values = values.assign(images=values["recipe"].str.extract(r'"train_images":(\d+)')[0].astype(int))
MEASURES = {  # by title: section, metric, its noise strength, and that at which the test error beside it was measured
    "RMS calibration error": ("calibration", "rms_calibration_error", None, None),
    "Negative log-likelihood": ("calibration", "negative_log_likelihood", None, None),
    "AUROC on photographs": ("ood", "auroc_photographs", None, None),
    "Error at 60 % label noise": ("label_noise", "error", 0.6, 0.0),
}


def column(section, name, level):
    rows = evidence.where(values, section=section, metric=name)
    rows = rows[rows["level"].isna() if level is None else np.isclose(rows["level"], level)]
    return rows.set_index(["images", "arm", "seed"])["value"]


def measured(section, name, level, clean):
    """Values and test errors at the numbers of images at which both arms have three seeds."""
    error = column("calibration" if section == "ood" else section, "error", clean)
    rows = pd.DataFrame({"value": column(section, name, level), "error": error}).dropna().reset_index()
    rows = rows[rows.groupby(["images", "seed"])["arm"].transform("nunique") == 2]
    return rows[rows.groupby("images")["seed"].transform("nunique") >= 3].assign(profile="cpu")


points = {title: measured(*setting) for title, setting in MEASURES.items()}
sizes = {title: sorted(rows["images"].unique()) for title, rows in points.items()}


# %% tags=["remove-cell"]
def from_scratch(title, images, read, at="error"):
    """By seed, what networks from scratch would have at the pre-trained one's test error, or number of images."""
    for _, run in points[title].groupby("seed"):
        scratch, tuned = (evidence.where(run, arm=arm).sort_values(at) for arm in evidence.ARMS)
        for row in evidence.where(tuned, images=images).to_dict("records"):
            yield row["value"], np.interp(row[at], scratch[at], read(scratch), left=np.nan, right=np.nan)


def difference(title, images, at):
    """Pre-trained less scratch with the 95 % interval, ``at`` the same number of ``images`` or test ``error``."""
    return evidence.mean_interval([own - other for own, other in from_scratch(title, images, lambda x: x["value"], at)])


def worth(title, images):
    """On how many images a network from scratch reaches the pre-trained one's test error, with the 95 % interval."""
    return np.exp(evidence.mean_interval([x for _, x in from_scratch(title, images, lambda x: np.log(x["images"]))]))


def less(title, images, at):
    mean, low, high = (-100 * end for end in difference(title, images, at))
    return f"{mean:.1f} points [{high:.1f}, {low:.1f}]"


def equivalent(images):
    mean, low, high = np.round(worth(RMS, images), -2)
    return f"{mean:,.0f} images [{low:,.0f}, {high:,.0f}]"


# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
RMS, _, AUROC, NOISE = MEASURES
rms, auroc = ([difference(title, images, "error") for images in (1000, 2000)] for title in (RMS, AUROC))
gained = [difference(RMS, images, "images") for images in (1000, 2000)]
noise, plenty = difference(NOISE, 1000, "error"), {"section": "label_noise", "method": "none-5000", "arm": "scratch"}
side = {"metric": "error", "profile": "cpu", "dataset": "cifar10"}
few = side | {"section": "label_noise", "method": "none-1000", "arm": "pre-trained"}
clean, noisy = (evidence.compare(values, few, side | plenty, level=level) for level in (0.0, 0.6))
recipes = evidence.where(values, section="label_noise").groupby("arm", observed=True)["recipe"].first()
epochs = recipes.str.extract(r'"epochs":(\d+)')[0].astype(int)
markdown.findings(
    (
        worth(RMS, 1000)[1] > 2000 and worth(RMS, 2000)[1] > 2000,
        "On CIFAR-10 at `cpu` scale, pre-training is worth data. Fine-tuned on 1,000 images, a network has the test error that "
        f"one from scratch reaches on about {equivalent(1000)}; on 2,000, that of about {equivalent(2000)}.",
    ),
    (
        all(one[2] < 0 and one[0] > 0.5 * whole[0] for one, whole in zip(rms, gained, strict=True))
        and all(low < 0 < high for _, low, high in auroc),
        "**Calibration, OOD detection: mostly data.** With 1,000 images pre-training lowers the RMS calibration error by "
        f"{less(RMS, 1000, 'images')}; compared with a network from scratch of the same test error, by {less(RMS, 1000, 'error')}. With "
        f"2,000 images these are {less(RMS, 2000, 'images')} and {less(RMS, 2000, 'error')}. AUROC on photographs rises by "
        f"{markdown.interval(*difference(AUROC, 1000, 'images'), 'error')} and {markdown.interval(*difference(AUROC, 2000, 'images'), 'error')} points; "
        "at the same test error a difference is undecided.",
    ),
    (
        noise[2] < 0 and noisy.high < 0 < clean.effect,
        "**Label noise: more than data.** With 1,000 images, 60 % of the labels wrong, pre-training lowers the test error by "
        f"{less(NOISE, 1000, 'images')}; compared with a network from scratch that errs as often when trained without noise, by "
        f"{less(NOISE, 1000, 'error')}. With 5,000 images from scratch the error is {markdown.spread(noisy.reference, 'error')} %, with "
        f"1,000 after pre-training {markdown.spread(noisy.treated, 'error')} %, although without noise it is the higher one "
        f"({markdown.spread(clean.reference, 'error')} and {markdown.spread(clean.treated, 'error')} %).",
    ),
    (
        noise[2] < 0 and epochs["pre-trained"] < epochs["scratch"],
        f"Why is open. The pre-trained network is fine-tuned for {epochs['pre-trained']} epochs, the other is trained for "
        f"{epochs['scratch']}, in which it can memorise more wrong labels. The gain may come from pre-training or from the short "
        "fine-tuning that it allows.",
    ),
)

# %% [markdown]
# {numref}`fig-data-size` shows each measure against accuracy, {numref}`tab-data-size` the numbers.

# %% mystnb={"figure": {"caption": "Each measure against the test error of the same network, on CIFAR-10; the numbers of training images stand beside the points, in thousands. If pre-training only replaced data, both lines would be one curve. For label noise the test error is that without noise. Bars: one standard deviation over seeds.", "name": "fig-data-size"}, "image": {"alt": "Four panels, a line from scratch and one pre-trained in each. For calibration error, negative log-likelihood and AUROC the pre-trained line continues the one from scratch, or lies a little on its better side. For the error at 60 % label noise it lies about ten points below.", "width": "100%"}} tags=["hide-input"]
figure, axes = plt.subplots(2, 2, figsize=(6.0, 6.4))
for panel, (title, rows) in zip(axes.flat, points.items(), strict=True):
    shown = metric(MEASURES[title][1])
    for arm in evidence.ARMS:
        groups = evidence.where(rows, arm=arm).groupby("images")[["error", "value"]]
        mean, sd = groups.mean(), groups.std()
        x, y = 100 * mean["error"], shown.scale * mean["value"]
        bars = {"xerr": 100 * sd["error"], "yerr": shown.scale * sd["value"], "capsize": 2}
        panel.errorbar(x, y, label=label(arm), **bars, **style.arm_style(arm))
        for images in mean.index:
            look = {"xytext": (6, 7 if arm == "scratch" else -14), "textcoords": "offset points", "fontsize": 10}
            panel.annotate(f"{images / 1000:g}", (x[images], y[images]), **look, color=style.arm_style(arm)["color"])
    panel.set(title=f"{title} ({shown.unit})", xlabel="test error (%)")
style.legend_outside(figure)
style.show(figure, pd.concat(rows.assign(measure=title) for title, rows in points.items()))

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
cells = []
for title, rows in points.items():
    name = MEASURES[title][1]
    for images in sizes[title]:
        row = {"Measure": title, "Images": f"{images:,}"}
        for words, at in {"At equal test error": "error", "At equal images": "images"}.items():
            row[f"{words} [95 %]"] = markdown.interval(*difference(title, images, at), name)
        for words, arm in zip(("From scratch", "Pre-trained"), evidence.ARMS, strict=True):
            row[words] = markdown.spread(evidence.where(rows, images=images, arm=arm)["value"], name)
        cells.append(row)
markdown.table(
    cells,
    caption="Pre-trained less from scratch, at the same test error and at the same number of training images, with the paired "
    f"95 % interval: CIFAR-10, `cpu`, {evidence.basis(pd.concat(points.values())).partition(', ')[2]}, each with a pre-training of its "
    "own (275-class ImageNet stand-in). A dash: no network from scratch in the table has this test error. Negative log-likelihood "
    "in nats, all else in per cent, with differences in points.",
    name="tab-data-size",
)

# %% [markdown]
# ## How it was measured
#
# The networks are WRN-16-1, trained as on the pages of [calibration](calibration.ipynb), of
# [OOD detection](ood.ipynb) (the same networks) and of [label noise](label_noise.ipynb), with another number of training
# images and nothing else changed: so many epochs, whatever the number of images. At one seed a smaller training set is a part
# of a larger one, and both arms have the same images, labels and order; each seed has a pre-training of its own.
#
# *At equal test error*: at each seed the value from scratch is interpolated linearly between the two numbers of
# images whose test errors enclose that of the pre-trained network. It is never extrapolated.
#
# ## What limits it
#
# **Straight lines.** Between two numbers of images the curve from scratch is taken as straight. Where it bends, the
# difference at equal test error is off.
#
# **Recipes.** The number of epochs and the learning rates were chosen on held-out images, for 5,000 training images
# (label noise: 2,000). With fewer images there are fewer updates, which may be too few from scratch. Of calibration the networks
# from scratch on 5,000 images, and of label noise those on 2,000, were mostly trained in bfloat16, the others in float32.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
least, most = (f"{end:,}" for end in (min(map(min, sizes.values())), max(map(max, sizes.values()))))
whole = evidence.gain(every, "error", section="calibration", dataset="cifar10", profile="paper")
shared = {"section": "calibration", "profile": "cpu", "dataset": "cifar10", "metric": "error"}
slow = {"method": "low-rate", "arm": "pre-trained"}, {"method": "standard", "arm": "scratch"}
slow = evidence.compare(every, *(shared | side for side in slow))
markdown.Markdown(
    f"**Range.** From {least} to {most} images of CIFAR-10, and one network. "
    + markdown.conclusion(
        min(whole.low, slow.low) > 0,
        "At `paper` scale, with all 50,000 images, WRN-40-2 and a smaller rate of fine-tuning, pre-training *raises* the test error "
        f"({markdown.effect(whole, 'error')}). So does a tenth of the rate here, with 5,000 images ({markdown.effect(slow, 'error')}): "
        "the number of images is not all that decides.",
    )
)

# %% [markdown]
# ## Run it again
#
# ```bash
# robustness run calibration --profile cpu --dataset cifar10 --init own \
#     --method standard,standard-1000,standard-2000
# robustness run ood --profile cpu --dataset cifar10 --init own \
#     --method standard,standard-1000,standard-2000
# robustness run label_noise --profile cpu --dataset cifar10 --init own \
#     --method none,none-1000,none-5000 --levels 0,0.6
# ```
#
# Other numbers of images, up to 50,000, are called alike: `robustness run calibration --method help` lists them.
#
# Source of this page: {download}`data_size.py </notebooks/data_size.py>`.
