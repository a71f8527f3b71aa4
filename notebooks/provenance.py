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
# ## What is promised
#
# The same job gives the same numbers bit by bit on one CPU machine. Across devices, drivers and library versions it
# does not: there numbers agree within the noise between seeds. Training in reduced precision (bfloat16) is recorded as
# such; evaluation is always in full precision.
#
# This page is made by {download}`provenance.py </notebooks/provenance.py>`.
