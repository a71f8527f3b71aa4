"""The scales at which everything can be measured, ``smoke``, ``cpu`` and ``paper``: the tables of ``profiles.toml``.

A profile says on which images networks are pre-trained, on which data sets they are compared, and by which recipes
they are pre-trained, trained from scratch and tuned. What sections change in these is in ``settings.toml``; any field
can be overridden from the command line or a notebook's parameters cell.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib.resources import files
from typing import Any

from robustness_lib.errors import choose
from robustness_lib.models.checkpoint_ids import corpus_name
from robustness_lib.training.config import ADVERSARIES, TrainingConfig

_RECIPES = ("pretraining", "scratch", "tuned")


def read_toml(name: str) -> dict[str, Any]:
    """A table of this package; fractions, as in ``"4/255"``, become numbers."""

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(part) for key, part in value.items()}
        is_fraction = isinstance(value, str) and re.fullmatch(r"\d+/\d+", value)
        return float(Fraction(value)) if is_fraction else value

    table: dict[str, Any] = numbers(tomllib.loads((files("robustness_lib.experiments") / name).read_text("utf-8")))
    return table


@dataclass(frozen=True, kw_only=True)
class Target:
    """How one target data set is treated: a table of ``profiles.toml``."""

    corpus_holds: str
    pretraining: TrainingConfig
    scratch: TrainingConfig
    tuned: TrainingConfig
    adversarial: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    further: Mapping[str, tuple[str, int]] = field(default_factory=dict, hash=False)

    @property
    def corpus(self) -> str:
        """The name of the image set of pre-training."""
        return corpus_name(self.corpus_holds)

    def against(self, adversary: str) -> Target:
        """The target with recipes that train against one of ``training.config.ADVERSARIES``."""
        if adversary == ADVERSARIES[0]:
            return self
        recipes = {
            name: replace(getattr(self, name), adversary=adversary, **self.adversarial.get(name, {}))
            for name in _RECIPES
        }
        return replace(self, **recipes)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A scale of measurement."""

    name: str
    targets: dict[str, Target]  # by the name of the data set
    seeds: tuple[int, ...]  # that a complete set of records has
    pretraining_seed: int = 1  # of the one pre-training that all of them share (P1)


def _profiles() -> dict[str, Profile]:
    profiles = {}
    for name, table in read_toml("profiles.toml").items():
        targets = {}
        for dataset, row in table["targets"].items():
            whole = {**table["targets"].get(row.get("like"), {}), **row}
            whole.pop("like", None)
            targets[dataset] = Target(**whole | {part: TrainingConfig(**whole[part]) for part in _RECIPES})
        profiles[name] = Profile(name=name, targets=targets, seeds=tuple(table["seeds"]))
    return profiles


PROFILES = _profiles()


def profile(name: str) -> Profile:
    """The profile called ``name``."""
    return PROFILES[choose(name, PROFILES, "profile")]


def target_of(profile_name: str, dataset: str) -> Target:
    """How a profile treats a data set: as its first target, where it does not name it."""
    targets = profile(profile_name).targets
    return targets.get(dataset, next(iter(targets.values())))
