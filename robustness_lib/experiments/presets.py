"""The scales at which everything can be measured: ``smoke``, ``cpu`` and ``paper``.

A profile says on which images networks are pre-trained, on which data sets they are compared, and by which recipes
they are pre-trained, trained from scratch and tuned. Sections change what is special to them
(``dataclasses.replace``); any field can be overridden from the command line or a notebook's parameters cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from robustness_lib.errors import choose
from robustness_lib.training.config import ADVERSARIES, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Target:
    """How one target data set is treated.

    Attributes:
        corpus: The image set of pre-training.
        corpus_holds: The same with its counts of images and classes, where they are known before the data are there.
        pretraining, scratch, tuned: The recipes.
        adversarial: What adversarial training (P1 §3.1) changes in these three, by name.
        further: By name, other corpora (as ``corpus_holds``) and numbers of their images (0 for all) that some methods
            are pre-trained on.
    """

    corpus: str
    corpus_holds: str
    pretraining: TrainingConfig
    scratch: TrainingConfig
    tuned: TrainingConfig
    adversarial: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    further: Mapping[str, tuple[str, int]] = field(default_factory=dict, hash=False)

    def against(self, adversary: str) -> Target:
        """The target with recipes that train against one of :data:`robustness_lib.training.config.ADVERSARIES`."""
        if adversary == ADVERSARIES[0]:
            return self
        recipes = {
            name: replace(getattr(self, name), adversary=adversary, **self.adversarial.get(name, {}))
            for name in ("pretraining", "scratch", "tuned")
        }
        return replace(self, **recipes)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A scale of measurement.

    Attributes:
        targets: By name, the data sets that are compared on, and how.
        seeds: The seeds that a complete set of records has.
        pretraining_seed: The seed of the one pre-training that all of them share (P1: 1).
    """

    name: str
    targets: dict[str, Target]
    seeds: tuple[int, ...]
    pretraining_seed: int = 1

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return tuple(self.targets)


_SMOKE_RECIPE = TrainingConfig(architecture="wrn-10-1", batch_size=32, crop_padding=2)
_SMOKE_ATTACK = {"epsilon": 4 / 255, "step_size": 3 / 255, "attack_steps": 2}
_SMOKE = Target(
    corpus="synthetic-source",
    corpus_holds="synthetic-source_4000x40",
    pretraining=replace(_SMOKE_RECIPE, epochs=6),
    scratch=replace(_SMOKE_RECIPE, train_images=400, epochs=10, observations=5),
    tuned=replace(_SMOKE_RECIPE, train_images=400, epochs=5, learning_rate=0.05, observations=5),
    adversarial={
        "pretraining": {"epochs": 2, **_SMOKE_ATTACK},
        "scratch": {"epochs": 5, "observations": 2, **_SMOKE_ATTACK},
        "tuned": {"epochs": 3, "observations": 2, **_SMOKE_ATTACK},
    },
    further={"excluded": ("synthetic-source_4000x40", 0), "part": ("synthetic-source_4000x40", 400)},
)

_CPU_ATTACK = {"step_size": 4 / 255, "attack_steps": 3}
_CPU = Target(
    corpus="imagenet32",
    corpus_holds="imagenet32_160000x275",
    pretraining=TrainingConfig(architecture="wrn-16-1", epochs=10),
    scratch=TrainingConfig(architecture="wrn-16-1", train_images=5000, epochs=60, observations=10),
    tuned=TrainingConfig(architecture="wrn-16-1", train_images=5000, epochs=20, learning_rate=0.03, observations=10),
    adversarial={
        "pretraining": _CPU_ATTACK,
        "scratch": {"epochs": 30, "observations": 5, **_CPU_ATTACK},
        "tuned": {"epochs": 5, "observations": 5, **_CPU_ATTACK},
    },
    further={
        "excluded": ("imagenet32-no-cifar10_144900x249", 0),
        "smaller-corpus": ("imagenet32-no-cifar10_144900x249", 14_000),
        "corpus-25": ("imagenet32-no-cifar10_144900x249", 36_000),
        "corpus-50": ("imagenet32-no-cifar10_144900x249", 72_000),
        "fewer-classes": ("imagenet32-no-cifar10-tenth_15300x25", 14_000),
    },
)

_PAPER = Target(
    corpus="imagenet32",
    corpus_holds="imagenet32_1281167x1000",
    pretraining=TrainingConfig(architecture="wrn-40-2", epochs=100, batch_size=256),
    scratch=TrainingConfig(architecture="wrn-40-2", epochs=100, dropout=0.3, observations=20),
    tuned=TrainingConfig(architecture="wrn-40-2", epochs=10, learning_rate=0.001, observations=10),
    adversarial={
        "scratch": {"dropout": 0.0, "observations": 10},
        "tuned": {"epochs": 5, "observations": 5},
    },
    further={
        "excluded": ("imagenet32-no-cifar10", 0),
        "smaller-corpus": ("imagenet32-no-cifar10", 100_000),
        "corpus-25": ("imagenet32-no-cifar10", 250_000),
        "corpus-50": ("imagenet32-no-cifar10", 500_000),
        "fewer-classes": ("imagenet32-no-cifar10-tenth", 100_000),
    },
)

_PROFILES = (
    Profile(name="smoke", targets={"synthetic": _SMOKE}, seeds=(0, 1, 2)),
    Profile(
        name="cpu",
        targets={
            "cifar10": _CPU,
            "cifar100": _CPU,
            "tiny_imagenet32": replace(_CPU, corpus="imagenet32-no-tiny", corpus_holds="imagenet32-no-tiny_45000x75"),
        },
        seeds=(0, 1, 2),
    ),
    Profile(
        name="paper",
        targets={
            "cifar10": _PAPER,
            "cifar100": _PAPER,
            "tiny_imagenet": replace(
                _PAPER,
                corpus="imagenet64-no-tiny",
                corpus_holds="imagenet64-no-tiny",
                pretraining=replace(_PAPER.pretraining, crop_padding=8),
                scratch=replace(_PAPER.scratch, crop_padding=8),
                tuned=replace(_PAPER.tuned, crop_padding=8, epochs=20, observations=20),
            ),
        },
        seeds=(0, 1, 2, 3, 4),
    ),
)
PROFILES = {scale.name: scale for scale in _PROFILES}
"""The profiles by name."""


def profile(name: str) -> Profile:
    """The profile called ``name``."""
    return PROFILES[choose(name, PROFILES, "profile")]
