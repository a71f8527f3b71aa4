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
# On a small data set a pre-trained network is often more accurate than one from scratch. Is it also more robust than a network
# from scratch *of the same accuracy*, one that was trained on more images? If not, pre-training only replaces data. P1
# {cite:p}`hendrycks2019using` does not ask this: it compares the two at one number of training images. P2
# {cite:p}`andreassen2022evolution` does, for shifted images ([effective robustness](effective_robustness.ipynb)).

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
small = evidence.where(every, profile="cpu")
named = (
    small["method"].astype(str).str.extract(r"^(?:standard|none)(?:-\d+)?(?:-(longer|shorter|rate-.+))?$")[0].fillna("")
)
sized = small["method"].astype(str).str.match(r"(standard|none)(-\d|$)")
values = small.assign(tuning=named)[sized]
values = values.assign(images=evidence.train_images(values["recipe"]))
MEASURES = {  # by title: section, metric, its noise strength, and that at which the test error beside it was measured
    "RMS calibration error": ("calibration", "rms_calibration_error", None, None),
    "Negative log-likelihood": ("calibration", "negative_log_likelihood", None, None),
    "AUROC on photographs": ("ood", "auroc_photographs", None, None),
    "Error at 60 % label noise": ("label_noise", "error", 0.6, 0.0),
}


def column(section, name, level, tuning):
    rows = evidence.where(values, section=section, metric=name, tuning=tuning)
    rows = rows[rows["level"].isna() if level is None else np.isclose(rows["level"], level)]
    rows = rows.sort_values("method").drop_duplicates(place := ["images", "arm", "seed"])  # also called by its size
    return rows.set_index(place)["value"]


def measured(title, tuning=""):
    """Values and test errors, of another way of training those of the arm that has it."""
    section, name, level, clean = MEASURES[title]
    both = {"value": column(section, name, level, tuning), "error": column(section, "error", clean, tuning)}
    return pd.DataFrame(both).dropna().reset_index().assign(profile="cpu")


def complete(rows):
    """Those at the numbers of images at which both arms have three seeds."""
    rows = rows[rows.groupby(["images", "seed"])["arm"].transform("nunique") == 2]
    return rows[rows.groupby("images")["seed"].transform("nunique") >= 3]


points = {title: complete(measured(title)) for title in MEASURES}
sizes = {title: sorted(rows["images"].unique()) for title, rows in points.items()}


# %% tags=["remove-cell"]
def straight(x, y, place):
    return np.interp(place, x, y, left=np.nan, right=np.nan)


def bent(x, y, place):
    return np.polyval(np.polyfit(x, y, 2), place)


def from_scratch(title, images, what="value", at="error", curve=straight, tuning=""):
    """By seed, the pre-trained network's value, and ``what`` one from scratch would have at the same number ``at``."""
    tuned = evidence.where(measured(title, tuning) if tuning else points[title], images=images, arm="pre-trained")
    for seed, run in evidence.where(points[title], arm="scratch").groupby("seed"):
        scratch = run.sort_values(at)
        for row in evidence.where(tuned, seed=seed).to_dict("records"):
            yield row["value"], curve(scratch[at], scratch[what], row[at])


def difference(title, images, at="error", curve=straight, tuning=""):
    """Pre-trained less scratch with the 95 % interval, ``at`` the same number of ``images`` or test ``error``."""
    pairs = list(from_scratch(title, images, at=at, curve=curve, tuning=tuning))
    return evidence.mean_interval([own - other for own, other in pairs]) if pairs else (np.nan,) * 3


def worth(images):
    """On how many images a network from scratch reaches the pre-trained one's test error, with the 95 % interval."""
    logs = list(from_scratch(RMS, images, "images", curve=lambda x, y, place: straight(x, np.log(y), place)))
    return np.exp(evidence.mean_interval([number for _, number in logs])) if logs else np.full(3, np.nan)


def in_points(found):
    mean, _, ends = markdown.interval(*found, "error").partition(" ")
    return f"{mean} points {ends}"


def equivalent(images):
    mean, low, high = np.round(worth(images), -2)
    return f"{mean:,.0f} images [{low:,.0f}, {high:,.0f}]"


# %% tags=["remove-cell"]
RMS, LIKELIHOOD, AUROC, NOISE = MEASURES
RMS_NAME, FEW = MEASURES[RMS][1], (1000, 2000)
noise = {"section": "label_noise", "profile": "cpu", "dataset": "cifar10", "metric": "error", "method": "none-10000"}
sides = [noise | {"arm": arm} for arm in evidence.ARMS[::-1]]
clean, noisy = (evidence.compare(small, *sides, level=level) for level in (0.0, 0.6))


def tuned_as(title, tuning):
    """The differences at equal test error with another way of fine-tuning, one for each number of images."""
    return [difference(title, images, tuning=tuning) for images in FEW]


def against_short(name, tuning=""):
    """1,000 images after pre-training against 5,000 from scratch for fewer epochs."""
    side = {"section": "ood" if name == MEASURES[AUROC][1] else "calibration", "profile": "cpu", "dataset": "cifar10"}
    tuned, scratch = f"standard-1000{tuning}", "standard-5000-shorter"
    sides = {"arm": "pre-trained", "method": tuned}, {"arm": "scratch", "method": scratch}
    return evidence.compare(small, *(side | one | {"metric": name} for one in sides))


def settings(tuning, arm="pre-trained", images=FEW, section="calibration"):
    """How networks were trained: epochs and learning rate."""
    rows = evidence.where(values, section=section, arm=arm, tuning=tuning, images=list(images))
    found = [rows["recipe"].str.extract(rf'"{name}":([\d.]+)')[0].unique() for name in ("epochs", "learning_rate")]
    return [", ".join(one) for one in found]


def noise_epochs(tuning="", arm="pre-trained"):
    return settings(tuning, arm, [1000], "label_noise")[0]


# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
same, equal = ([[difference(title, n, at) for n in FEW] for title in (RMS, AUROC)] for at in ("images", "error"))
usual, longer, lower = (tuned_as(RMS, way)[0] for way in ("", "longer", "rate-0.01"))
alike = [against_short("error", way) for way in ("", "-rate-0.01")]
usual_short, longer_short, lower_short = (against_short(RMS_NAME, way) for way in ("", "-longer", "-rate-0.01"))
long_noise = difference(NOISE, 1000, tuning="longer")
curved = [[difference(title, images, curve=bent) for images in FEW] for title in (RMS, AUROC)]
errors = [measured(RMS, way).groupby(["arm", "images"], observed=True)["error"].mean() for way in ("", "rate-0.001")]
gained = [errors[0].get(("scratch", n), np.nan) - errors[1].get(("pre-trained", n), np.nan) for n in FEW]
slowest = difference(AUROC, 2000, tuning="rate-0.001")
detected = [one for way in ("", "longer", "rate-0.01") for one in tuned_as(AUROC, way)]
markdown.findings(
    (
        worth(1000)[1] > 2000
        and worth(2000)[1] > 2000
        and abs(alike[0].effect) < 0.01
        and all(x < 0.01 for x in gained),
        "**Pre-training can replace data** (CIFAR-10, `cpu`). Fine-tuned on 1,000 images, a network has the test error that one from scratch reaches on about "
        f"{equivalent(1000)}, trained for {settings('', 'scratch')[0]} epochs, or on 5,000 for {settings('shorter', 'scratch', [5000])[0]}; on 2,000, that of about {equivalent(2000)} "
        f"({settings('', 'scratch')[0]} epochs). At a learning rate of {settings('rate-0.001')[1]} hardly anything is gained ({{numref}}`tab-data-size-tuning`).",
    ),
    (
        (usual[2] < 0 and longer[1] > 0 and lower[2] < 0 and lower[0] < usual[0])
        and all(one.low < 0 < one.high for one in alike)
        and all(low > 0 for low in (usual_short.low, longer_short.low, -lower_short.high)),
        "**Calibration: better or worse at equal accuracy, depending on both trainings.** Fine-tuned on 1,000 images for "
        f"{settings('')[0]} epochs, a network has a lower RMS calibration error than an equally accurate one trained from scratch for {settings('', 'scratch')[0]} "
        f"({in_points(usual)}), and a higher one than after {settings('shorter', 'scratch', [5000])[0]} ({markdown.effect(usual_short, RMS_NAME)}). "
        f"Fine-tuned for {settings('longer')[0]} epochs, its RMS is higher than both; at a learning rate of {settings('rate-0.01')[1]} instead of {settings('')[1]}, lower than both.",
    ),
    (
        all(one[1] > 0 for one in same[1])
        and all(low < 0 < high for _, low, high in detected)
        and (curved[1][0][1] > 0 > curved[1][1][1] and slowest[1] > 0),
        f"**OOD detection: a gain beyond accuracy is mostly undecided.** With equally many images AUROC on photographs rises by {' (1,000) and '.join(map(in_points, same[1]))} "
        f"(2,000). At the same test error the difference is undecided ({' and '.join(map(in_points, equal[1]))}), but above zero "
        f"with a parabola for the interpolation (1,000: {in_points(curved[1][0])}) or a learning rate of {settings('rate-0.001')[1]} (2,000: {in_points(slowest)}).",
    ),
    (
        (difference(NOISE, 1000)[2] < 0 and noisy.high < 0 and clean.low < 0 < clean.high and abs(clean.effect) < 0.01)
        and long_noise[1] < 0 < long_noise[2]
        and noise_epochs("longer") == noise_epochs("", "scratch"),
        f"**Label noise: lower error after {noise_epochs()} epochs of fine-tuning, undecided after {noise_epochs('longer')}.** With 10,000 images the errors "
        f"without noise hardly differ ({markdown.sides(clean, 'error')}); with 60 % of the labels wrong they do ({markdown.sides(noisy, 'error')}, "
        f"{markdown.effect(noisy, 'error')}). But training from scratch takes {noise_epochs('', 'scratch')} epochs, and fewer epochs alone may protect from wrong labels. At equal error without noise, "
        f"with 1,000 images, the difference is {in_points(difference(NOISE, 1000))} after {noise_epochs()} epochs and undecided after {noise_epochs('longer')} ({in_points(long_noise)}).",
    ),
)

# %% [markdown]
# {numref}`fig-data-size` shows each measure against accuracy, {numref}`tab-data-size` the numbers, and
# {numref}`tab-data-size-tuning` other schedules.

# %% mystnb={"figure": {"caption": "Each measure against the test error of the same network, on CIFAR-10; the numbers of training images stand beside the points, in thousands. If pre-training only replaced data, both lines would be one curve. Open triangles: 1,000 images (right) and 2,000, fine-tuned for as many epochs as from scratch, or at a rate of 0.01; for label noise 1,000 alone. Open square: 5,000 images from scratch for half as many epochs (not for label noise). For label noise the test error is that without noise. Bars: one standard deviation over seeds.", "name": "fig-data-size"}, "image": {"alt": "Four panels, a line from scratch and one pre-trained in each. For calibration error, negative log-likelihood and AUROC the pre-trained line continues the one from scratch, or lies a little on its better side. For the first two, more epochs of fine-tuning lie above both lines and the lower rate below, far below for calibration error. For the error at 60 % label noise the pre-trained line lies about ten points below, and more epochs bring it up to the line from scratch. Fewer epochs from scratch lie below both lines for calibration error and negative log-likelihood, and near them for AUROC.", "width": "100%"}} tags=["hide-input"]
WAYS = (("longer", "pre-trained", "^", "more epochs"), ("rate-0.01", "pre-trained", "v", "lower rate"))
WAYS += (("shorter", "scratch", "s", "fewer epochs"),)
figure, axes = plt.subplots(2, 2, figsize=(6.0, 6.4))
plotted = []
for panel, (title, rows) in zip(axes.flat, points.items(), strict=True):
    plotted.append(rows.assign(measure=title, tuning=""))
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
    for way, arm, mark, words in WAYS:
        others = evidence.where(measured(title, way), arm=arm).assign(measure=title, tuning=words)
        mean = others.groupby("images")[["error", "value"]].mean()
        look = style.arm_style(arm) | {"marker": mark, "mfc": "none", "linestyle": "none"}
        panel.plot(100 * mean["error"], shown.scale * mean["value"], **look, label=f"{label(arm)}, {words}")
        plotted.append(others)
    panel.set(title=f"{title} ({shown.unit})", xlabel="test error (%)")
style.legend_outside(figure)
style.show(figure, pd.concat(plotted))

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
cells = []
ways = [(title, images, "") for title in MEASURES for images in sizes[title]]
for title, images, way in [*ways, (NOISE, 1000, "longer")]:
    section, name, *_ = MEASURES[title]
    row = {"Measure": title, "Images": f"{images:,}"}
    tunings = dict(zip(evidence.ARMS, ("", way), strict=True))
    row["Epochs"] = " → ".join(settings(tuning, arm, [images], section)[0] for arm, tuning in tunings.items())
    rows = {arm: measured(title, tuning) if tuning else points[title] for arm, tuning in tunings.items()}
    rows = {arm: evidence.where(found, images=images, arm=arm) for arm, found in rows.items()}
    row["Test error"] = markdown.arrow([found["error"].mean() for found in rows.values()], "error")
    for words, at in {"At equal test error": "error", "At equal images": "images"}.items():
        row[f"{words} [95 %]"] = markdown.interval(*difference(title, images, at, tuning=way), name)
    for words, found in zip(("From scratch", "Pre-trained"), rows.values(), strict=True):
        row[words] = markdown.spread(found["value"], name)
    cells.append(row)
markdown.table(
    cells,
    caption="Pre-trained minus from scratch, at the same test error and at the same number of training images, with the paired "
    f"95 % interval: CIFAR-10, `cpu`, {evidence.basis(pd.concat(points.values())).partition(', ')[2]}, each with a pre-training of its "
    "own (275-class ImageNet stand-in). For label noise the test error without noise is equal. A dash: the test error of a seed lies outside those from scratch. Negative log-likelihood "
    "in nats, all else in per cent, with differences in points.",
    name="tab-data-size",
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
cells = []
ways = [(images, "pre-trained", way) for images in FEW for way in ("", "longer", "rate-0.01", "rate-0.001")]
for images, arm, way in [(5000, "scratch", "shorter"), *ways]:
    row = {"Arm": label(arm), "Images": f"{images:,}"}
    row |= dict(zip(("Epochs", "Learning rate"), settings(way, arm, [images]), strict=True))
    found = {title: evidence.where(measured(title, way), arm=arm, images=images, seed=[0, 1, 2]) for title in MEASURES}
    row["Test error"] = markdown.spread(found[RMS]["error"], "error")
    row["RMS"] = markdown.spread(found[RMS]["value"], RMS_NAME)
    row["NLL"] = markdown.spread(found[LIKELIHOOD]["value"], MEASURES[LIKELIHOOD][1])
    apart = {title: difference(title, images, tuning=way) if arm == "pre-trained" else (np.nan,) * 3 for title in found}
    row["RMS minus A [95 %]"] = markdown.interval(*apart[RMS], RMS_NAME)
    short = against_short(RMS_NAME, f"-{way}" * bool(way))
    is_alike = images == 1000 and way != "rate-0.001"  # whose test error is another
    row["RMS minus B [95 %]"] = (
        markdown.interval(short.effect, short.low, short.high, RMS_NAME) if is_alike else markdown.DASH
    )
    row["AUROC minus A [95 %]"] = markdown.interval(*apart[AUROC], MEASURES[AUROC][1])
    if row["RMS"] != markdown.DASH:
        cells.append(row)
markdown.table(
    cells,
    caption="Other schedules, compared at the same test error: with networks from scratch trained for "
    f"{' epochs at a learning rate of '.join(settings('', 'scratch'))} (A, interpolated), and with those of the first row (B, where the test errors are about the same). "
    "RMS: RMS calibration error; NLL: negative log-likelihood in nats; AUROC: on photographs; all but NLL in per cent. CIFAR-10, `cpu`, 3 seeds. "
    f"All but the default ({' epochs at a learning rate of '.join(settings(''))}) were chosen when results were known. A dash: not compared, or as above.",
    name="tab-data-size-tuning",
)

# %% [markdown]
# ## How it was measured
#
# The networks are WRN-16-1, trained as on the pages of [calibration](calibration.ipynb), of
# [OOD detection](ood.ipynb) (the same networks) and of [label noise](label_noise.ipynb), with another number of training
# images and the same number of epochs. At one seed a smaller training set is a part
# of a larger one, and both arms have the same images, labels and order; each seed has a pre-training of its own.
#
# *At equal test error*: at each seed the value from scratch is interpolated linearly between the two numbers of
# images whose test errors enclose that of the pre-trained network, and never extrapolated. Numbers of images are
# interpolated in their logarithm.
#
# ## What limits it
#
# **Recipes.** The lengths and learning rates of calibration were chosen on held-out images, for 5,000 training images; those
# of label noise, for 2,000, are not the best that were tried ([label noise](label_noise.ipynb)). With fewer images there are
# fewer updates, which may be too few from scratch; and as many epochs on 1,000 images are fewer updates than on the 3,400
# of an equally accurate network from scratch. Some networks on 5,000 images (calibration, OOD detection) and on 2,000 (label
# noise) were trained in bfloat16, the others in float32. The shorter training from scratch was chosen because, of the
# lengths in a [trial](calibration.ipynb) with one seed, on held-out images, it had the least RMS calibration error, which favours
# training from scratch, and the highest test error.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
prolonged = [difference(RMS, images, curve=bent, tuning="longer") for images in FEW]
markdown.Markdown(
    markdown.conclusion(
        all(whole[0] / 2 < two[0] < one[0] for whole, one, two in zip(same[0], equal[0], curved[0], strict=True))
        and all(two[0] < whole[0] / 2 for whole, two in zip(same[1], curved[1], strict=True))
        and curved[1][0][1] > 0
        and all(one[1] > 0 for one in prolonged),
        "**Straight lines.** The curves from scratch bend. With a parabola through the points, at the same test error, pre-training "
        f"changes the RMS by {' and '.join(map(in_points, curved[0]))} and AUROC by {' and '.join(map(in_points, curved[1]))}, so that with "
        "1,000 images AUROC is a little better. The means are still less than half of those at equal numbers of images. Fine-tuned for longer, the RMS "
        f"is higher all the same ({' and '.join(map(in_points, prolonged))}).",
    )
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
least, most, beyond = (f"{end:,}" for end in (min(sizes[RMS]), max(sizes[RMS]), max(sizes[NOISE])))
whole = evidence.gain(every, "error", section="calibration", dataset="cifar10", profile="paper")
side = {"section": "calibration", "profile": "cpu", "dataset": "cifar10", "metric": "error"}
slow = {"method": "low-rate", "arm": "pre-trained"}, {"method": "standard", "arm": "scratch"}
slow = evidence.compare(small, *(side | one for one in slow))
markdown.Markdown(
    f"**Range.** From {least} to {most} images of CIFAR-10 (label noise: to {beyond}), and one architecture; adversarial robustness and class imbalance were not measured. "
    + markdown.conclusion(
        whole.low > 0 and slow.low > 0,
        "At `paper` scale, with all 50,000 images, WRN-40-2 and a smaller learning rate of fine-tuning, pre-training *raises* the test error "
        f"({markdown.effect(whole, 'error')}). Here, fine-tuned on 5,000 images at a tenth of the learning rate, a network also errs more "
        f"than one from scratch ({markdown.effect(slow, 'error')}): the number of images is not all that decides.",
    )
)

# %% [markdown]
# ## Run it again
#
# ```bash
# robustness run calibration --profile cpu --dataset cifar10 --init own \
#     --method standard,standard-1000,standard-2000,standard-5000-shorter
# robustness run ood --profile cpu --dataset cifar10 --init own \
#     --method standard,standard-1000,standard-2000,standard-5000-shorter
# robustness run calibration --profile cpu --dataset cifar10 --init own \
#     --method standard-1000-longer,standard-1000-rate-0.01,standard-1000-rate-0.001
# robustness run ood --profile cpu --dataset cifar10 --init own \
#     --method standard-1000-longer,standard-1000-rate-0.01,standard-1000-rate-0.001
# robustness run label_noise --profile cpu --dataset cifar10 --init own \
#     --method none,none-1000,none-1000-longer,none-5000,none-10000 --levels 0,0.6
# ```
#
# With 2,000 images the other schedules are called `standard-2000-…`; `robustness run calibration --method help` lists all
# names. These schedules are meant for `cpu`.
#
# Source of this page: {download}`data_size.py </notebooks/data_size.py>`.
