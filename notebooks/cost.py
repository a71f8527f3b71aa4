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
# How fast networks train here, what keeps them from training faster, and how long the whole reproduction takes on the
# devices that were measured.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell", "remove-stderr"]
from pathlib import Path

from robustness_lib import notebook, pretraining, profiles, records, report, sections

notebook.check_parameters(globals())
report.use_style()
recorded = records.frame(records.load_published("cost", Path(results)))

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
scales = [profiles.profile(name) for name in ("cpu", "paper")]
planned = [job for scale in scales for section in sections.SECTIONS.values() for job in section.jobs(scale.name)]
planned += pretraining.missing(planned, None, None)
work = report.planned_work(planned, sections.images_trained)
report.reproduction_note(work, recorded)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.gpu_note(recorded)

# %% [markdown]
# ## One network
#
# {numref}`tab-cost-speed` has the library's loop beside a textbook loop: images one by one through torchvision's
# transformations and a `DataLoader` with the number of workers that is fastest on the machine, float32, a look at the loss
# after every update. Both give the network the same number of updates at the same batch size, with the same augmentation,
# optimiser and learning rates.
#
# The two run in turn in one process, on a machine that does nothing else. The ratio is taken round by round, because two
# neighbours in time have met the same machine; its range over the rounds says how far to trust it. *Adversarial training*
# is against projected gradient descent in ten steps, the paper's attack; *evaluation* is always in float32.
#
# The first epoch is not timed, nor what goes before it; {numref}`tab-cost-start` has that.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.speed_table(
    recorded,
    caption="Images a second of the library and of the textbook loop: medians over rounds, the ratio with its range.",
    name="tab-cost-speed",
)

# %% [markdown]
# A training is set up before its first epoch. For the first one of a process this includes compiling the network; every
# further one has the compiled network, and records its steps as CUDA graphs where it uses them. Memory is the most that
# was in use: on a GPU what PyTorch reserved there, on a CPU what the process takes with all its libraries.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.start_table(
    recorded,
    caption="What a training takes beside its epochs: time to start, memory, and the workers of the textbook's loader.",
    name="tab-cost-start",
)

# %% [markdown]
# ## Several networks at once
#
# One small network need not fill a large GPU, so a sweep trains several of its jobs at the same time; each becomes what it
# would be alone. {numref}`tab-cost-together` compares ways to do so with one network alone, which is as fast as any number
# one after the other: the library's own; a process for each network, all on the same device; and a candidate that the
# library does not use, all networks stacked into one whose convolutions are grouped.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.together_table(
    recorded,
    caption="Several networks at once: images a second of all of them, and how many times as many as of one alone.",
    name="tab-cost-together",
)

# %% [markdown]
# ## What bounds it
#
# A device cannot compute faster than it multiplies large matrices, nor move data faster than it copies them.
# {numref}`tab-cost-ceilings` has both, measured. (On a GPU the product in float32 rounds as PyTorch lets convolutions
# round, to TF32.)

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.ceilings_table(recorded, caption="What the devices do at most.", name="tab-cost-ceilings")

# %% [markdown]
# Divided by what one image needs, the ceilings become bounds on the speed. The operations are counted exactly: those of
# convolutions and matrix products, which are nearly all. The memory traffic is an upper estimate: every operator is taken
# to read its inputs from memory and to write its outputs there, as if nothing were fused and nothing stayed in a cache. So
# a loop that fuses operators may go beyond the bound by memory.
#
# {numref}`tab-cost-bounds` has both bounds, and the share of the lower one, the one that binds, that the fastest way
# reaches; {numref}`fig-cost-bounds` shows them.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.bounds_table(
    recorded,
    caption="What an image needs, the images a second that this allows, and the share that is reached.",
    name="tab-cost-bounds",
)

# %% mystnb={"figure": {"caption": "Measured images a second against the two bounds, on a logarithmic axis, one panel a device. The grey line leads from the library's speed to the lower bound.", "name": "fig-cost-bounds"}, "image": {"alt": "Dot plot with a line for each network and kind of work. Four marks stand on it: the textbook loop, this library, and the bounds by compute and by memory. The table before it has the numbers.", "width": "100%"}} tags=["hide-input"]
figure = report.bounds_figure(recorded)

# %% [markdown]
# ## The whole reproduction
#
# {numref}`tab-cost-whole` adds up what is planned: every job of every section, and the pre-trainings that they start from.
# An image counts once an epoch, and one of 64 pixels as four of 32. The time is that of the training alone, at the fastest
# recorded speed of that network on one device; jobs of a section may train several at once where that is faster. Not in it
# are evaluation, the observations along the way, dropout (the speeds were measured without), and starting up. Jobs that
# share a trained network are counted each, though it is trained once.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.reproduction_table(
    work,
    recorded,
    caption="Planned jobs, the images that they process, and the time of their training on one device.",
    name="tab-cost-whole",
)

# %% [markdown]
# The profile `smoke` is left out: it takes seconds to minutes anywhere.
#
# ## How to measure it
#
# From the root of the repository, on a machine that does nothing else:
#
# ```bash
# python -m benchmarks
# robustness publish
# ```
#
# The first line measures what is not recorded yet of the device, and says a line about each measurement. It can be stopped
# at any moment and repeated; `--time-budget` gives it so many seconds, `--only` restricts it, `--out` keeps the records in
# a folder that `robustness merge` takes into another machine's store. To measure again, give it another `--store`.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.made_by(recorded, "cost")

# %% [markdown]
# This page is made by {download}`cost.py </notebooks/cost.py>`.
