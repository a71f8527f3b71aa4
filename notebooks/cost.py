# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Cost
#
# How fast networks train here, beside a textbook training loop, and how long the recorded results took.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell", "remove-stderr"]
from pathlib import Path

import pandas as pd

from robustness_lib import notebook
from robustness_lib.paper import SECTIONS, network_label
from robustness_lib.report import markdown
from robustness_lib.runner.records import load_published

notebook.check_parameters(globals())
published = load_published(folder=Path(results))
TITLES = SECTIONS | {"pretraining": "Pre-training", "recipe_choice": "Hyper-parameter search"}
speeds = pd.DataFrame(
    [
        {**record.metrics, **record.job.recipe, "method": record.job.method}
        for record in published
        if record.job.section == "cost" and record.job.method != "networks at once" and "ratio_min" in record.metrics
    ],
    columns=[
        "method",
        "device",
        "threads",
        "architecture",
        "precision",
        "compile",
        "graphs",
        "ratio",
        "ratio_min",
        "ratio_max",
        "images_per_second",
        "baseline_images_per_second",
    ],
)
gpu, cpu = (speeds[speeds["device"].str.startswith("CPU") == here] for here in (False, True))

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
trained = cpu[cpu["method"] == "training"]
fastest = 5e6 / gpu["images_per_second"].max() / 60
whole = [
    record.provenance["seconds"] / 60
    for record in published
    if (record.job.section, record.job.profile, record.job.arm) == ("calibration", "paper", "scratch")
    and "H200" in str(record.provenance.get("device"))
]
markdown.findings(
    (
        len(gpu) > 0 and gpu["ratio_min"].min() > 1 and len(whole) > 0 and min(whole) > fastest,
        f"On an H200, WRN-40-2 trains on {gpu['images_per_second'].max():,.0f} CIFAR images a second, "
        f"{gpu['ratio'].max():.1f} times as many as a textbook loop; at that speed the updates of the paper's 100 epochs take "
        f"{fastest:.1f} minutes. The recorded trainings of that length took {min(whole, default=0):.1f} to "
        f"{max(whole, default=0):.1f} minutes in all, evaluations included.",
    ),
    (
        len(trained) > 0
        and trained["ratio_min"].min() > 1
        and trained["precision"][trained["ratio"].idxmin()] == "float32",
        f"On two CPU cores the library is {trained['ratio'].min():.1f} to {trained['ratio'].max():.1f} times as fast as the "
        "textbook loop; the least is in float32.",
    ),
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
rows = []
for row in speeds.sort_values(["device", "method", "ratio"]).to_dict("records"):
    ways = f"{row['precision']}{', compiled' if row['compile'] else ''}{', CUDA graphs' if row['graphs'] else ''}"
    rows.append(
        {
            "Device": f"{row['device'].removeprefix('NVIDIA ')}, {row['threads']:.0f} threads",
            "Work": f"{row['method']}, {network_label(row['architecture'])}",
            "Library's computation": ways,
            "Its images/s": f"{row['images_per_second']:,.0f}",
            "Textbook loop's": f"{row['baseline_images_per_second']:,.0f}",
            "Ratio [range]": f"{row['ratio']:.2f} [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}]",
        }
    )
markdown.table(
    rows,
    caption="Images a second by the library and by the textbook loop, in batches of 128: medians over rounds, and the ratio "
    "with its range over rounds.",
    name="tab-cost-speed",
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
some = [record for record in published if record.job.section in TITLES and record.job.profile in ("cpu", "paper")]
spent = pd.DataFrame(
    {
        "Results": [TITLES[record.job.section] for record in some],
        "Scale": [f"`{record.job.profile}`" for record in some],
        "Device": [str(record.provenance.get("device", "")).removeprefix("NVIDIA ") for record in some],
        "Hours": [max(one.provenance["seconds"], one.metrics.get("training_seconds", 0)) / 3600 for one in some],
    }
)
spent = spent.groupby(["Results", "Scale", "Device"])["Hours"].agg(Records="count", Hours="sum").reset_index()
markdown.table(
    spent.assign(Hours=[f"{hours:.1f}" if hours >= 0.05 else "< 0.05" for hours in spent["Hours"]]),
    caption="Computing time of all recorded results, evaluation included. A network that two sections use counts where it was "
    "trained: those of OOD detection mostly under calibration.",
    name="tab-cost-whole",
)

# %% [markdown]
# ## How it was measured
#
# Both loops give the network the same number of updates at the same batch size, with the same augmentation, optimiser and
# learning rates. The textbook loop loads images one by one through torchvision's transforms and a `DataLoader` with the
# number of workers that is fastest on the machine, computes in float32, and reads the loss after every update. The two run
# in turn in one process on an idle machine; the ratio is taken round by round. The first epoch is not timed.
#
# On a busy machine, and on a CPU without bfloat16 arithmetic, ratios are lower.
#
# ## Run it yourself
#
# On an idle machine, from the root of the repository:
#
# ```bash
# python -m benchmarks
# robustness publish
# ```
#
# Source of this page: {download}`cost.py </notebooks/cost.py>`.
