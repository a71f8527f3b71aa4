"""From a scale and a selection to a list of jobs: what every section plans in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TypedDict, Unpack

from robustness_lib.errors import UserError, choose
from robustness_lib.experiments.presets import profile
from robustness_lib.experiments.pretraining import R, arms
from robustness_lib.runner.records import Job
from robustness_lib.training.config import ADVERSARIES

SEED_LIMIT = 2**32 - 1
"""Seeds are below it: NumPy's legacy generator takes 32 bits, and label noise is drawn from a job's seed + 1."""


class Filters(TypedDict, total=False):
    """What a user can select of a section; what is left out or None is the profile's or the section's own.

    Attributes:
        datasets: Target data sets.
        methods: Methods of the section.
        seeds: Seeds.
        overrides: Settings to change, as text by name (:func:`robustness_lib.experiments.pretraining.arms`).
        init: Id of a checkpoint to tune instead of the profile's.
        chosen_levels: Levels, where the section has levels.
    """

    datasets: Sequence[str] | None
    methods: Sequence[str] | None
    seeds: Sequence[int] | None
    overrides: Mapping[str, str] | None
    init: str | None
    chosen_levels: Sequence[float] | None


@dataclass(frozen=True)
class GridPoint:
    """What a recipe is for.

    Attributes:
        scale: Name of the profile.
        arm: ``"scratch"`` or ``"tuned"``.
        method: Method of the section.
        dataset: Target data set.
        level: The level, or None where there is none.
    """

    scale: str
    arm: str
    method: str
    dataset: str
    level: float | None


def plan(
    section: str,
    profile_name: str,
    all_methods: Sequence[str],
    recipe_type: type[R],
    *,
    levels: Sequence[float | None] = (None,),
    adapt: Callable[[R, GridPoint], R] | None = None,
    adversary: str = ADVERSARIES[0],
    **selection: Unpack[Filters],
) -> list[Job]:
    """One job for each method, seed, data set, level and arm (from scratch, and pre-trained then tuned).

    Args:
        section: The section.
        profile_name: The scale.
        all_methods: The methods that the section has.
        recipe_type: The section's recipe: :class:`~robustness_lib.training.config.TrainingConfig`, or a subclass with
            settings of its own.
        levels: Strengths of what the section varies; None where there is none.
        adapt: What the section changes in the profile's recipes: from such a recipe and the case that it is for to
            the section's recipe. A user's overrides come after.
        adversary: What networks are trained against, in pre-training too
            (:func:`robustness_lib.experiments.presets.Target.against`).
        **selection: What is selected (:class:`Filters`).

    Returns:
        The jobs, both arms of a comparison next to each other, seed by seed: a sweep that is stopped leaves whole
        comparisons.

    Raises:
        UserError: An unknown name or an unsuitable value.
    """
    scale = profile(profile_name)
    seeds, chosen = selection.get("seeds"), selection.get("chosen_levels")
    if chosen and None in levels:
        raise UserError(f"the section {section} has no levels to choose from; leave them out")
    methods = selection.get("methods") or all_methods
    for method in methods:
        choose(method, all_methods, f"method of the section {section}")
    for seed in seeds or ():
        if not 0 <= seed < SEED_LIMIT:
            raise UserError(f"the seed {seed} is out of range; choose seeds from 0 to {SEED_LIMIT - 1}")
    datasets = selection.get("datasets") or scale.datasets
    levels, seeds = chosen or levels, scale.seeds if seeds is None else seeds
    overrides, init = selection.get("overrides"), selection.get("init")
    sides = {}  # a seed changes no recipe
    for method, dataset, level in product(methods, datasets, levels):
        case = partial(GridPoint, scale.name, method=method, dataset=dataset, level=level)
        change = None if adapt is None else partial(_adapted, adapt, case)
        both = arms(scale, dataset, recipe_type, overrides, init, change, adversary)
        sides[method, dataset, level] = [(arm.init, arm.recipe.as_dict()) for arm in both]
    return [
        Job(
            section=section,
            profile=scale.name,
            dataset=dataset,
            init=start,
            method=method,
            level=level,
            seed=seed,
            recipe=recipe,
        )
        for method, seed, dataset, level in product(methods, seeds, datasets, levels)
        for start, recipe in sides[method, dataset, level]
    ]


def _adapted(adapt: Callable[[R, GridPoint], R], case: Callable[[str], GridPoint], recipe: R, arm: str) -> R:
    return adapt(recipe, case(arm))
