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
# Where each number in this book was measured: on what device, with which software, at which revision of the code, how
# long it took, and the command that measures it again.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell"]
from pathlib import Path

from robustness_lib import notebook, records, report

notebook.check_parameters(globals())
recorded = records.frame(records.load_published(folder=Path(results)))

# %% [markdown]
# ## What was pre-trained on what
#
# {numref}`tab-pretrainings` has the pre-trainings that the results start from, beside the two of which the authors published
# a log. A network that learned less has less to carry over: this is the first thing to know about every pre-trained result.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.pretrainings_table(
    recorded,
    caption="Pre-trainings; the test error is on clean validation images of the classes that were trained on.",
    name="tab-pretrainings",
)

# %% [markdown]
# ## Where, when and with what
#
# {numref}`tab-provenance` has one row for each section, data set and profile. A command measures what the profile plans, with
# `--init` and `--set` where all of a row was measured with another checkpoint or other settings. Single trials count in their
# row, and their section's page has their commands.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.provenance_table(recorded, caption="Where the recorded results come from.", name="tab-provenance")

# %% [markdown]
# ## What a record holds
#
# Each result is one line of `book/results/<section>.jsonl`: the job, its metrics, and where they come from. The job is
# described completely, down to the learning rate; its key is a hash of that description. The checksums are those of
# the images themselves, so a record says on which data it was measured, whatever the files were called.

# %% mystnb={"markdown_format": "myst"} tags=["hide-input"]
report.contents_note(recorded)

# %% [markdown]
# A record whose code revision ends in `-dirty` was measured with changes to the library that were not committed.
#
# ## Records that were deleted
#
# On 25 November 2026 published records of CIFAR-10 at `cpu` were deleted, and the same was measured again with other
# training settings. Their results were known by then. They are in the history of `book/results`.
#
# | Deleted | Settings then | Settings now | Results |
# | --- | --- | --- | --- |
# | label noise, 34 records of one seed, in commit `7a82df1` | batches of 128; 40 epochs from scratch, 10 pre-trained | batches of 32; 20 and 3 epochs; three seeds | area without correction then 65.7 → 45.6 %, now 64.5 → 45.1 % |
# | class imbalance, 4 records in `7a82df1`, and 40 in `93b6387` (the same 4, which had come back, and 36) | batches of 128 and of 32; 14 to 58 epochs of normal training from scratch, 3 to 12 pre-trained | batches of 32; 69 to 115 and 14 to 23 epochs | error of normal training, mean of three imbalances, in batches of 32: then 67.1 → 40.5 %, now 44.2 → 34.0 % |
#
# The first imbalance settings trained too briefly, above all from scratch; longer training took more than half of the gain
# away. The settings were chosen on held-out training images.
#
# ## What is promised
#
# The same job gives the same numbers bit by bit on one CPU machine. Across devices, drivers and library versions it
# does not: there numbers agree within the noise between seeds. Training in reduced precision (bfloat16) is recorded as
# such; evaluation is always in full precision.
#
# This page is made by {download}`provenance.py </notebooks/provenance.py>`.
