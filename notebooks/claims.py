# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The scoreboard
#
# What the two papers claim, the numbers that they give for it, ours, and a verdict on each. The verdicts are computed from
# the recorded results whenever the book is built.

# %% tags=["parameters", "remove-cell"]
results = "book/results"  # folder of the recorded results

# %% tags=["remove-cell", "remove-stderr"]
import numpy as np
import pandas as pd
from scipy import stats

from robustness_lib import notebook
from robustness_lib.paper import CLAIMS, SECTIONS
from robustness_lib.paper.numbers import DATA
from robustness_lib.report import evidence, markdown, verdicts

notebook.check_parameters(globals())
values = evidence.load(results)
rows = verdicts.frame(values)
counts = verdicts.counts(rows)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
papers, logs, own = (sum(claim.source == who for claim in CLAIMS) for who in ("papers", "authors' logs", "our own"))
markdown.Markdown(
    f"Of {len(CLAIMS)} claims {papers} are the papers', {logs} follow from training logs that the authors released, and "
    f"{own} are our own. They overlap, so their number is no measure of a paper. "
    "{numref}`tab-summary` counts the verdicts, {numref}`tab-contradicted` has the claims that the records contradict, "
    "and {numref}`tab-claims` all of them."
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
table = counts.rename(index={name: f"[{title}]({name}.ipynb)" for name, title in SECTIONS.items()} | {"all": "**all**"})
markdown.table(
    table.rename_axis("Section").reset_index(), caption="Number of claims by section and verdict.", name="tab-summary"
)

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
against = rows[rows["direction"] == "contradicted"]
markdown.table(
    pd.DataFrame(
        {
            "Claim": against["statement"]
            + [f"<br>*{text[0].upper()}{text[1:]}.*" if text else "" for text in against["note"]],
            "Paper": against["paper"],
            "Here": against["here"],
            "Effect [95 %]": against["interval"],
            "Scale": against["scale"],
        }
    ),
    caption="Claims that are contradicted here.",
    name="tab-contradicted",
)

# %% [markdown]
# ## How a verdict is reached
#
# The two sides of a claim are compared at the same seed: they share every random draw but what is compared. (At `cpu`
# some of their networks were trained in bfloat16, others in float32: *How this page was made* lists both.) Each seed gives
# one effect, and the interval is the 95 % interval of Student's t distribution over the seeds. The highest scale with two
# seeds decides, `paper` before `cpu`; `smoke` never counts.
#
# | Direction | When |
# | --- | --- |
# | supported | The interval lies wholly on the claimed side of no effect. |
# | contradicted | It lies wholly on the other side. |
# | undecided | It includes zero (or an end of the claim's margin); or two pre-trainings are compared, of which one has a single seed; or all seeds give the same value. |
# | not testable here | What is needed is private; or training without a correction is compared with Forward correction, which fails here; or the networks have learned too little: on clean test images, after training at the lowest recorded noise strength or exponent, both sides err on more than 85 % (one side, where the rise of the error is compared). |
# | not measured | Fewer than two seeds have both sides. The note says what it takes. |
#
# **Size**, where the paper states one: *reached* if the interval lies wholly at or beyond it, *below* if wholly short of
# it, else *undecided*. At `cpu` it is *not judged*: the networks are small and see a part of the data.
#
# **Similarity.** A claim that two things are similar, that a harm is small or that a number is the printed one has a margin,
# given with its reason: *supported* if the interval lies within the margin, *contradicted* if wholly outside.
#
# **Every level, class or OOD set.** Such a claim is supported where all of them support it, and contradicted where one
# contradicts it. Shown is one that contradicts it, else one that is undecided; of several the one whose interval lies least
# on the claimed side.
#
# **What the intervals leave out.** Where a page's caption says *one pre-training*, all seeds of the pre-trained arm start
# from one checkpoint: an interval covers the randomness of fine-tuning and of training from scratch, not that of
# pre-training. Nothing is corrected for the number of claims: of a hundred effects that are truly zero, about five would be
# decided by chance. Numbers that are computed from published predictions have no seeds, and one record decides: *supported*
# then means that the paper's number is reproduced, not that it would be the same with other networks. A zero-shot network is
# our own; its seeds agree because they sample none of the randomness of its pre-training, so it stays undecided.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
clean = evidence.gain(values, "clean_accuracy", section="adversarial", dataset="cifar100", method="adversarial")
markdown.Markdown(
    markdown.conclusion(
        clean.n > 1 and 0.82 < 1 - max(clean.reference.mean(), clean.treated.mean()) < verdicts.NOTHING_LEARNED,
        "**A near miss.** After adversarial training on CIFAR-100 the accuracy on clean images is "
        f"{markdown.sides(clean, 'clean_accuracy')} from scratch → pre-trained, so the test error is at the edge of "
        f"{100 * verdicts.NOTHING_LEARNED:.0f} %: with a slightly lower limit the claims that compare the two would not be testable.",
    )
)

# %% [markdown]
# ## What would decide the undecided
#
# {numref}`tab-undecided` says about how many seeds an interval would need to leave out zero (or the end of a margin), if effect
# and spread stayed as they are. These are orders of magnitude: the 95 % interval of a standard deviation from three values
# reaches from half of it to six times. Where the arms start from several pre-trainings, each further seed needs one of its own.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
MOST = 1000


def seeds_needed(verdict):
    claim, found, n = verdict.claim, verdict.comparison, verdict.comparison.n
    if found.low == found.high or "of the two pre-trainings compared one has a single seed" in verdict.note:
        return np.nan  # what is missing is no seed
    ends = claim.bounds if claim.test != "beyond" else [float(claim.kind == "ratio")]
    distance = min(abs(found.effect - end) for end in ends)
    spread = (found.high - found.low) / 2 / stats.t.ppf(0.975, n - 1) * n**0.5
    many = np.arange(n + 1, MOST + 1)
    enough = many[stats.t.ppf(0.975, many - 1) * spread / many**0.5 < distance]
    return enough[0] if len(enough) else np.inf


undecided = [one for one in verdicts.all_verdicts(values) if one.direction == "undecided"]
needed = pd.Series([seeds_needed(one) for one in undecided], dtype=float)
words = {np.inf: f"more than {MOST:,}"}
markdown.table(
    pd.DataFrame(
        {
            "Claim": [one.claim.statement for one in undecided],
            "Seeds needed": [words.get(n, "no number" if np.isnan(n) else f"{n:.0f}") for n in needed],
            "Seeds": [one.comparison.n for one in undecided],
            "Effect [95 %]": [verdicts.effect_text(one) for one in undecided],
            "Scale": [f"`{one.scale}`" for one in undecided],
        }
    ).loc[needed.sort_values().index],
    caption=f"Undecided claims, and about how many seeds would decide them: for {(needed <= 5).sum()} of {len(needed)} at most "
    "five. *No number*: more seeds of fine-tuning decide nothing, since two pre-trainings are "
    "compared of which one has a single seed, or nothing in the comparison is random.",
    name="tab-undecided",
)

# %% [markdown]
# ## All claims
#
# P1 is {cite:t}`hendrycks2019using` in its last version and P1v1 its first; *P1 log* are its authors' training logs. P2 is
# {cite:t}`andreassen2022evolution`. An arrow leads from the reference to the side that the claim is about; numbers here are
# means ± standard deviations over the seeds that both sides have, then the effect with its interval; *published* ones are
# computed from published predictions. The paper's numbers are as printed; ours may be over fewer noise strengths, exponents
# or OOD sets, and each section's first table has both over the same. Networks of both scales were pre-trained on a 275-class
# ImageNet stand-in (Tiny ImageNet + mini-ImageNet) or a part of it, those of claims about Places365 on MiniPlaces.

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
verdicts.claims_table(rows, name="tab-claims")

# %% [markdown]
# ## The rule was changed when the results were known
#
# The first rule was fixed before our trainings were measured. It gave *holds in direction* to any mean on the claimed side,
# however wide its interval, and *holds* where an interval merely touched a stated size, so it rewarded noise. On 29 November
# 2026, with the results known, it was replaced by the one above. On the same day claims that had been tested in
# another sense than the papers' were corrected, and claims that recorded results could test were added. {numref}`tab-changed` has every
# claim that was measured then and has another verdict now; *open* meant that the interval included zero.
#
# Some records were deleted earlier and measured again with another recipe: see [Provenance](provenance.ipynb).

# %% mystnb={"markdown_format": "myst"} tags=["remove-input"]
old = pd.read_csv(DATA / "old_verdicts.csv", keep_default_na=False)  # the words at commit b0a55c5
both = rows.merge(old, on="id")
same = {"holds": "supported", "does not hold": "contradicted", "not yet measured": "not measured"}
changed = both[(both["verdict"].map(same) != both["words"]) & (both["verdict"] != "not yet measured")]
titles = {"statement": "Claim", "verdict": "Before", "words": "Now", "was": "Before, the claim was"}
markdown.table(
    changed[[*titles]].rename(columns=titles),
    caption="Claims whose verdict is another than before 29 November 2026.",
    name="tab-changed",
)

# %% [markdown]
# This page is made by {download}`claims.py </notebooks/claims.py>`.
