"""From a section's table of methods, and what a user selects of it, to a list of jobs.

A section is a dict of :class:`Method` by name, and one call of :func:`expand`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, TypedDict, TypeVar, Unpack

from robustness_lib.errors import SettingError, UserError, choose
from robustness_lib.experiments import pretraining
from robustness_lib.experiments.presets import PROFILES, profile, read_toml, target_of
from robustness_lib.models.checkpoint_ids import OWN, origin, trained_on
from robustness_lib.runner.records import SCRATCH, Job, checkpoint_id
from robustness_lib.training.config import ADVERSARIES, SEED_LIMIT, TrainingConfig

ARMS = ("scratch", "tuned")  # the two sides of a comparison: trained from scratch, and pre-trained then tuned
SETTINGS = read_toml("settings.toml")  # changes to the profiles' configs, by section, profile, and what they hold for
SIZES = (1000, 2000, 5000, 10_000, 20_000, 50_000)  # numbers of training images that are measured on request

R = TypeVar("R", bound=TrainingConfig)


class Filters(TypedDict, total=False):
    """What a user can select of a section; what is left out or None is the profile's or the section's own."""

    datasets: Sequence[str] | None
    methods: Sequence[str] | None
    seeds: Sequence[int] | None
    overrides: Mapping[str, str] | None  # settings to change, as text by name (pretraining.overrides_for)
    init: str | None  # id of a checkpoint to tune instead of the profile's, or OWN
    chosen_levels: Sequence[float] | None


@dataclass(frozen=True, kw_only=True)
class Method:
    """What is measured of a method, and how its trainings differ from the profile's."""

    arms: Sequence[str] = ARMS
    profiles: Collection[str] = tuple(PROFILES)  # where it is measured by default; none for one on request only
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)  # what it varies, by profile
    other_levels: bool = True  # whether a user can choose others than these
    seeds: int | None = None  # with how many of the profile's seeds; None for all
    changes: Mapping[str, Any] = field(default_factory=dict)  # settings of its config, whatever profile and arm
    settings: Sequence[str] = ()  # which of SETTINGS hold; empty for those of all, its arm, its data set and itself
    adversary: str = ADVERSARIES[0]  # what its networks are trained against, in pre-training too
    pretrained_against: str | None = None  # where a user's checkpoint counts only if its adversary was the same
    further: str = ""  # which of the target's further pre-trainings is tuned; empty for its main one
    corpus: str = ""  # what a checkpoint that the user must give is pre-trained on; empty where none must be given


TUNINGS: dict[str, dict[str, Any]] = {  # ways of fine-tuning few images beside that of `cpu`
    "longer": {"epochs": 60},  # as many as `cpu` trains from scratch
    "rate-0.001": {"learning_rate": 0.001},
    "rate-0.01": {"learning_rate": 0.01},
}


def _sized(images: int, arms: Sequence[str] = ARMS, **changes: Any) -> Method:
    return Method(arms=arms, profiles=(), changes={"train_images": images, "observations": 0, **changes})


SIZED = {f"standard-{n}": _sized(n) for n in SIZES}
SIZED |= {f"standard-{n}-{name}": _sized(n, ARMS[1:], **TUNINGS[name]) for n in SIZES[:2] for name in TUNINGS}
SIZED["standard-5000-shorter"] = _sized(5000, ARMS[:1], epochs=30)  # half as many as `cpu` trains from scratch


@dataclass(frozen=True)
class GridPoint:
    """What a config is for: a profile, an arm, a method, a target data set, and a level or None."""

    profile: str
    arm: str
    method: str
    dataset: str
    level: float | None


def expand(
    section: str,
    profile_name: str,
    methods: Mapping[str, Method],
    config_type: type[R],
    /,
    *,
    configure: Callable[[R, GridPoint], R] | None = None,
    **filters: Unpack[Filters],
) -> list[Job]:
    """One job for each data set, method, level, seed and arm, in this order.

    ``configure`` makes further changes to a config, after the settings and before a user's overrides.
    """
    scale = profile(profile_name)
    names = filters.get("methods") or [name for name, method in methods.items() if scale.name in method.profiles]
    for name in names:
        choose(name, methods, f"method of the section {section}")
    chosen, seeds, overrides = filters.get("chosen_levels"), filters.get("seeds"), filters.get("overrides")
    if chosen and not any(methods[name].levels for name in names):
        raise UserError(f"the section {section} has no levels to choose from at {', '.join(names)}; leave them out")
    for seed in seeds or ():
        if not 0 <= seed < SEED_LIMIT:
            raise UserError(f"the seed {seed} is out of range; choose seeds from 0 to {SEED_LIMIT - 1}")
    default = SETTINGS.get(section, {}).get(scale.name, {}).get("default", {})
    jobs = []
    for dataset, name in product(filters.get("datasets") or default.get("datasets", scale.targets), names):
        method = methods[name]
        count = default.get("seeds", method.seeds)
        levels: Sequence[float | None] = method.levels.get(scale.name, [None])
        if chosen and method.levels:
            levels = [level for level in chosen if method.other_levels or level in levels]
        for level in levels:
            points = [GridPoint(scale.name, arm, name, dataset, level) for arm in ARMS]
            configs = {  # of both arms, so that a wrong setting of either is refused
                point.arm: _config(section, point, method, config_type, configure, overrides) for point in points
            }
            start = partial(_checkpoint, points[1], method, configs["tuned"], filters.get("init"), overrides)
            shared = start(None) if filters.get("init") != OWN and "tuned" in method.arms else None
            jobs += [
                Job(
                    section=section,
                    profile=scale.name,
                    dataset=dataset,
                    init=SCRATCH if arm == "scratch" else shared or start(seed),
                    method=name,
                    level=level,
                    seed=seed,
                    recipe=configs[arm].as_dict(),
                )
                for seed in (scale.seeds[:count] if seeds is None else seeds)
                for arm in method.arms
            ]
    if chosen and not jobs:
        own = {name: ", ".join(f"{level:g}" for level in methods[name].levels[scale.name]) for name in names}
        has = "; ".join(f"{name} has {levels}" for name, levels in own.items())
        raise UserError(f"there is nothing to measure at the levels {', '.join(f'{x:g}' for x in chosen)}: {has} alone")
    return jobs


def _config(
    section: str,
    point: GridPoint,
    method: Method,
    config_type: type[R],
    configure: Callable[[R, GridPoint], R] | None,
    overrides: Mapping[str, str] | None,
) -> R:
    """The profile's config, changed by the method and the section, then by the user."""
    base = getattr(target_of(point.profile, point.dataset).against(method.adversary), point.arm)
    own = SETTINGS.get(section, {}).get(point.profile, {})
    changes: dict[str, Any] = {}
    for key in method.settings or ("all", point.arm, point.dataset):
        changes |= own.get(key, {})
    changes |= {**method.changes, **({} if method.settings else own.get(point.method, {}))}
    config = config_type(**(base.as_dict() | changes))
    if configure is not None:
        config = configure(config, point)
    try:
        return config.with_overrides(pretraining.overrides_for(point.arm, overrides))
    except SettingError as error:
        restricted = f"{point.arm}.{error.setting}" in (overrides or {})
        raise UserError(f"{point.arm}.{error}" if restricted else str(error)) from None


def _checkpoint(
    point: GridPoint,
    method: Method,
    config: TrainingConfig,
    given: str | None,
    overrides: Mapping[str, str] | None,
    seed: int | None,
) -> str:
    """The id of the checkpoint that a method tunes: the user's where it suits, else the profile's (of a ``seed``)."""
    given = None if given == OWN else given
    name, against = point.method, method.pretrained_against or method.adversary
    made = None if given is None else origin(given)
    suits = method.pretrained_against in (None, ADVERSARIES[0] if made is None else made.adversary)
    if method.corpus and (given is None or not trained_on(given, method.corpus) or not suits):
        setting = "" if against == ADVERSARIES[0] else f" --set adversary={against}"
        raise UserError(
            f"the method {name} tunes a network that was pre-trained on {method.corpus}, but "
            + ("no checkpoint was given" if given is None else f"{given} is another checkpoint")
            + f"; make one with 'robustness pretrain --profile {point.profile} --corpus {method.corpus}{setting}' and "
            "give its id to --init"
        )
    if given is not None and suits:
        return given
    target = target_of(point.profile, point.dataset)
    if method.further and method.further not in target.further:
        raise UserError(
            f"profile {point.profile} has no pre-training for the method {name}; give a checkpoint to --init"
        )
    own = {"adversary": against, "architecture": config.architecture}
    changes = own | pretraining.overrides_for("pretraining", overrides)
    return checkpoint_id(pretraining.job(profile(point.profile), target, method.further, seed=seed, overrides=changes))
