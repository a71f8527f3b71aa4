"""How the recipes of the ``cpu`` profile were chosen: on training images that the target's subset leaves over.

Candidates are trained as the comparison trains them, with seed 0, and judged on 5,000 other training images; no test
image is looked at. The choice is made once, on CIFAR-10, and then left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch

from robustness_lib import report
from robustness_lib.data import ImageSet, class_balanced_subset
from robustness_lib.errors import UserError
from robustness_lib.metrics import evaluate
from robustness_lib.networks import Context, Training, trained
from robustness_lib.pretraining import arms
from robustness_lib.profiles import profile
from robustness_lib.randomness import generator
from robustness_lib.recipes import Recipe
from robustness_lib.records import SCRATCH, Job, Metrics
from robustness_lib.report.tables import number
from robustness_lib.training import predict

SECTION = "recipe_choice"
METHODS = ("held-out",)

HELD_OUT_IMAGES = 5000

SHOWN = ("error", "rms_calibration_error", "negative_log_likelihood")

CANDIDATES: dict[str, list[dict[str, int | float]]] = {
    "tuned": [
        {"epochs": 10, "learning_rate": 0.01},
        {"epochs": 20, "learning_rate": 0.01},
        {"epochs": 20, "learning_rate": 0.03},
    ],
    "scratch": [{"epochs": 30}, {"epochs": 60}, {"epochs": 90}],
}
"""What is tried: changes to the recipe of each arm."""


def jobs(
    profile_name: str,
    *,
    datasets: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Mapping[str, str] | None = None,
    init: str | None = None,
) -> list[Job]:
    """One job a candidate; arguments as for :func:`robustness_lib.calibration.jobs`.

    Only the ``cpu`` profile had a choice to make: the recipes of ``paper`` are the paper's.
    """
    scale = profile(profile_name)
    if scale.name != "cpu":
        return []
    planned = []
    for dataset in datasets or ["cifar10"]:
        for arm in arms(scale, dataset, Recipe, overrides, init):
            for change in CANDIDATES["scratch" if arm.init == SCRATCH else "tuned"]:
                recipe = replace(arm.recipe, observations=0, **change)  # type: ignore[arg-type]
                for seed in seeds or [0]:
                    planned.append(
                        Job(
                            section=SECTION,
                            profile=scale.name,
                            dataset=dataset,
                            init=arm.init,
                            method=METHODS[0],
                            level=None,
                            seed=seed,
                            recipe=recipe.as_dict(),
                        )
                    )
    return sorted(planned, key=lambda job: (job.init == SCRATCH, job.recipe["epochs"]))


def left_over(data: ImageSet, recipe: Recipe, seed: int) -> ImageSet:
    """Training images to judge on: :data:`HELD_OUT_IMAGES` of those outside the subset that is trained on.

    Raises:
        UserError: The recipe's subset leaves too few.
    """
    used = torch.zeros(len(data), dtype=torch.bool)
    used[class_balanced_subset(data.labels, recipe.train_images or len(data), seed)] = True
    rest = torch.nonzero(~used).flatten()
    if len(rest) < HELD_OUT_IMAGES:
        raise UserError(
            f"train_images={recipe.train_images} leaves {len(rest)} of the {len(data)} training images of {data.name} "
            f"to judge on, but {HELD_OUT_IMAGES} are needed; give a smaller train_images"
        )
    chosen = rest[torch.randperm(len(rest), generator=generator(seed, "held-out"))[:HELD_OUT_IMAGES]]
    return data.subset(chosen)


def run(job: Job, context: Context) -> Metrics:
    """Train a candidate and judge it on training images that it has not seen.

    Returns:
        The metrics of :func:`robustness_lib.metrics.evaluate`.
    """
    recipe = Recipe(**job.recipe)  # type: ignore[arg-type]
    training = Training(dataset=job.dataset, init=job.init, seed=job.seed, recipe=recipe)
    network = trained(training, context, progress=job.label).network
    images = left_over(context.images(job.dataset, "train"), recipe, job.seed)
    logits = predict(network, images, recipe.normalisation, context.runtime)
    return evaluate(logits.numpy(), images.labels.numpy())


def table(records: pd.DataFrame, *, caption: str, name: str) -> report.tables.Markdown:
    """The candidates, the best of each arm in bold: the one with the least negative log-likelihood.

    Args:
        records: Records of this section, as by :func:`robustness_lib.records.frame`.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table, one row a candidate.
    """
    header = ["Arm", "Epochs", "Learning rate", "Error (%)", "RMS (%)", "Likelihood loss (nats)"]
    rows = []
    for arm, group in records.groupby("arm", sort=False):
        best = group["negative_log_likelihood"].astype(float).idxmin()
        order = group["recipe"].map(lambda recipe: (recipe["epochs"], recipe["learning_rate"])).sort_values().index
        for index in order:
            row = group.loc[index]
            cells = [str(arm), str(row["recipe"]["epochs"]), f"{row['recipe']['learning_rate']:g}"]
            cells += [number(row[metric], metric) for metric in SHOWN]
            rows.append([f"**{cell}**" for cell in cells] if index == best else cells)
    return report.myst_table(header, rows or [["not run", *["–"] * 5]], caption=caption, name=name)
