# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Provenance
#
# Where each number in this book comes from: the pre-trainings it rests on, the device, the software, the revision of the code.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell", "remove-stderr"]
from pathlib import Path

from robustness_lib import notebook
from robustness_lib.models import corpora
from robustness_lib.paper import SECTIONS, network_label, select
from robustness_lib.report import evidence, markdown
from robustness_lib.runner.records import canonical_json, load_published

notebook.check_parameters(globals())
published = load_published(folder=Path(results))
values = evidence.tidy(published)
TITLES = SECTIONS | {"pretraining": "Pre-training", "recipe_choice": "Hyper-parameter search", "cost": "Cost"}

# %% [markdown]
# ## What was pre-trained on what
#
# A network that learned less has less to transfer: {numref}`tab-pretrainings` is the first thing to know about every
# pre-trained result. The validation error is over the classes that the network knows *and* that have validation images:
# of the [stand-in's](../data.md) 275 classes, Tiny ImageNet's 200.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
rows = []
for method, network in (("pretraining", "WRN-40-2"), ("adversarial-pretraining", "WRN-28-10")):
    section = "calibration" if method == "pretraining" else "adversarial"
    log = select(section, dataset="imagenet32", method=method, metric="error").iloc[0]
    corpus = "Downsampled ImageNet, 1,281,167 images of 1,000 classes"
    row = {"By": "the authors", "Corpus": corpus, "Network": network, "Epochs": f"{log['position']:g}"}
    adversary = "none" if method == "pretraining" else "untargeted"
    rows.append(row | {"Adversary": adversary, "Validation error (%)": str(log["printed"])})
made = {}  # seeds of one setting are one row
for record in published:
    if record.job.section == "pretraining":
        setting = (record.job.profile, record.job.dataset, canonical_json(dict(record.job.recipe)))
        made.setdefault(setting, []).append(record)
for seeds in sorted(
    made.values(),
    key=lambda some: (some[0].job.profile, -some[0].metrics["images"], str(some[0].job.recipe.get("adversary"))),
):
    record = seeds[0]
    job, metrics = record.job, record.metrics
    sums = [checksum for name, checksum in record.provenance.get("data", {}).items() if name.endswith("/train")]
    words = corpora.description(job.dataset, sums[0] if sums else None)
    words = words.replace(corpora.STAND_IN, "stand-in").partition(f", {metrics['images']:,.0f} images of")[0]
    row = {
        "By": f"here, `{job.profile}`",
        "Corpus": f"{words}: {metrics['images']:,.0f} images, {metrics['classes']:.0f} classes",
    }
    row |= {
        "Network": network_label(str(job.recipe["architecture"])),
        "Epochs": f"{job.recipe['epochs']}" + (f", {len(seeds)} seeds" if len(seeds) > 1 else ""),
    }
    error = markdown.spread([one.metrics["error"] for one in seeds if "error" in one.metrics], "error")
    rows.append(row | {"Adversary": str(job.recipe.get("adversary", "none")), "Validation error (%)": error})
markdown.table(
    rows,
    caption="Pre-trainings, one seed each unless said otherwise. Stand-in: the 275-class ImageNet stand-in. A dash where the corpus has no "
    "validation images.",
    name="tab-pretrainings",
)

# %% [markdown]
# ## Where, when and with what
#
# Each page ends with its own provenance: commands, revisions and checksums.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
rows = []
for section, title in TITLES.items():
    for scale in ("cpu", "paper"):
        some = [record for record in published if (record.job.section, record.job.profile) == (section, scale)]
        facts = {
            name: sorted({str(record.provenance.get(name, "")).removeprefix("NVIDIA ") for record in some})
            for name in ("device", "precision", "date")
        }
        dates = sorted({date[:10] for date in facts["date"]})
        seeds = len({record.job.seed for record in some})
        if some:
            rows.append(
                {
                    "Results": f"{title}, `{scale}`",
                    "Records": f"{len(some)}",
                    "Seeds": f"{seeds}",
                    "Device": ", ".join(facts["device"]),
                    "Precision": ", ".join(facts["precision"]),
                    "Measured": " to ".join(dict.fromkeys((dates[0], dates[-1]))),
                }
            )
markdown.table(rows, caption="Where the recorded results come from.", name="tab-provenance")

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
versions = {
    f"{name} {record.provenance['versions'][name]}"
    for record in published
    for name in ("python", "torch", "torchvision", "numpy")
    if name in record.provenance.get("versions", {})
}
contents = {}
for record in published:
    for name, checksum in record.provenance.get("data", {}).items():
        contents.setdefault(name, set()).add(checksum)
several = [f"`{name}`" for name, sums in sorted(contents.items()) if len(sums) > 1]
unclean = sum(str(record.provenance.get("revision", "")).endswith("-dirty") for record in published)
markdown.Markdown(
    f"Software: {', '.join(sorted(versions))}. {unclean} of {len(published)} records were made with uncommitted changes to the "
    "library (their revision ends in `-dirty`). Images with lossy compression can be unpacked a little differently on "
    f"another machine; sets with more than one checksum: {', '.join(several) or 'none'}."
)

# %% [markdown]
# ## What a record holds
#
# Each result is one line of `book/results/<section>.jsonl`: the job, its metrics, and where they come from. The job is
# described completely, down to the learning rate; its key is a hash of that description. Checksums are of the images
# themselves, so a record says on which data it was measured, whatever the files were called.
#
# ## Records that were deleted
#
# On 25 November 2026 published records of CIFAR-10 at `cpu` were deleted, and the same was measured again with other
# training settings. Their results were known by then. They are in the history of `book/results`.
#
# The settings
#
# - of label noise (34 records of one seed, in commit `7a82df1`) were batches of 128, and 40 epochs from scratch, 10
#   pre-trained; now they are batches of 32, 20 and 3 epochs, three seeds;
# - of class imbalance (40 records, in `93b6387`; 4 of them in `7a82df1` before, after which they had come back) were batches
#   of 128 and of 32, and 14 to 58 epochs of normal training from scratch, 3 to 12 pre-trained; now they are batches of 32,
#   69 to 115 and 14 to 23 epochs.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
area = evidence.gain(values, "error", section="label_noise", dataset="cifar10", method="none", reduce="area")
errors = [
    evidence.gain(values, "error", section="imbalance", dataset="cifar10", method="normal", level=level)
    for level in (0.2, 1.0, 2.0)
]
error = [100 * sum(getattr(x, side).mean() for x in errors) / len(errors) for side in ("reference", "treated")]
markdown.Markdown(
    markdown.conclusion(
        area.n > 0 and 0 < error[0] - error[1] < (67.1 - 40.5) / 2,
        f"The area without correction was 65.7 → 45.6 % then and is {markdown.sides(area, 'error')} now. The error of normal training "
        f"in batches of 32, mean of three imbalances, was 67.1 → 40.5 % and is {error[0]:.1f} → {error[1]:.1f} %: the first settings "
        "trained too briefly, above all from scratch, and with longer training the gain is less than half of what it was.",
    )
)

# %% [markdown]
# At `cpu` two seeds of calibration and [OOD detection](ood.ipynb) were added when the results of three were known. The
# other ways of [training on few images](data_size.ipynb) were added when those of the usual way were known.
#
# The settings of `cpu` were chosen from trials on held-out training images; where not the best of them was taken,
# the section's page says so. Two were not: the length of adversarial pre-training was chosen after CIFAR-10's test result was
# known ([adversarial robustness](adversarial.ipynb)), and of effective robustness no trials were recorded. `paper` follows the
# papers; the pages say where it does not.
#
# ## What is promised
#
# The same job gives the same numbers, bit for bit, on one CPU machine. How far they differ between devices, drivers and
# library versions was not measured; `robustness compare` shows it for yours. A CPU without bfloat16 arithmetic trains in
# float32, which may change the third digit; a record says its precision. Evaluation is always in float32.
#
# Source of this page: {download}`provenance.py </notebooks/provenance.py>`.
