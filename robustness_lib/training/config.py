"""How a network is trained: every setting of a training, and the learning rate of every update."""

from __future__ import annotations

import functools
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Self, get_args, get_type_hints

from robustness_lib.errors import SettingError, choose, shortened

NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "cifar-p2": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation per channel, of images in [0, 1]; ``half`` maps to [-1, 1] (P1, almost everywhere),
``cifar`` are CIFAR's statistics (P1's Forward and GLC), ``cifar-p2`` those that P2 prints for CIFAR (B.4),
``imagenet`` ImageNet's (P2)."""

TORCHVISION = ("resnet18", "resnet50", "resnet152", "alexnet", "vgg11_bn", "wide_resnet50_2")
"""The networks of P2 that torchvision provides (P2 B.6)."""

ARCHITECTURES = ("wrn-40-2", "wrn-28-10", "wrn-<depth>-<width>", "allconv", "allconv-<channels>", *TORCHVISION)
"""What :func:`robustness_lib.models.architectures.build` can build; P1's AllConv has 96 channels, then 192."""

ADVERSARIES = ("none", "untargeted", "targeted")
ANCHORS = ("clean", "noised")
"""Kinds of adversarial training, and centers of the attack's ball (:class:`robustness_lib.methods.pgd.Threat`)."""

SEED_LIMIT = 2**32 - 1
"""Seeds are below it, as NumPy's legacy generator takes 32 bits, and label noise is drawn from a job's seed + 1."""

LARGEST = 10**9  # that a setting can be given

EPSILON, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10  # of P1's attack in training, in units of an image in [0, 1]
SCHEDULES = ("cosine", "step", "constant")  # courses of the learning rate (learning_rate_at)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained (P1 §3-4: SGD with Nesterov momentum and a cosine schedule per step).

    A section's recipe adds its own settings by inheritance. A setting that is added once results are recorded is
    declared with ``metadata={"added": True}``: it is left out of a job's key while it has its default.
    """

    architecture: str = "wrn-40-2"
    train_images: int = 0  # size of a class-balanced subset of the training set; 0 for the whole set
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 0.1  # at the start of the schedule
    final_learning_rate: float = 1e-6  # at the end of a cosine
    momentum: float = 0.9
    weight_decay: float = 5e-4  # on all parameters, batch normalisation and biases included
    dropout: float = 0.0  # inside the blocks of a Wide ResNet
    crop_padding: int = 4  # black pixels around an image before the random crop; 0 for no crop
    flip: bool = True
    normalisation: str = "half"
    trainable: str = "all"  # or "head"
    observations: int = 0  # after how many epochs the test set is evaluated, evenly spread, the last among them
    schedule: str = field(default="cosine", metadata={"added": True})
    head_bias: bool = field(default=True, metadata={"added": True})  # of a pre-trained network's new head
    adversary: str = field(default="none", metadata={"added": True})
    epsilon: float = field(default=EPSILON, metadata={"added": True})
    step_size: float = field(default=STEP_SIZE, metadata={"added": True})
    attack_steps: int = field(default=STEPS, metadata={"added": True})
    anchor: str = field(default="clean", metadata={"added": True})
    attack_mode: str = field(default="train", metadata={"added": True})  # the attacked network's mode; or "eval"
    nesterov: bool = field(default=True, metadata={"added": True})
    early_looks: int = field(default=0, metadata={"added": True})  # evaluations within the first epoch

    def __post_init__(self) -> None:
        for setting in fields(self):
            if isinstance(setting.default, float):  # 1 and 1.0 are one setting and make one key
                object.__setattr__(self, setting.name, float(getattr(self, setting.name)))
        wrn_depth_and_width(self.architecture)
        choose(self.normalisation, NORMALISATIONS, "normalisation")
        choose(self.trainable, ("all", "head"), "value of trainable")
        choose(self.schedule, SCHEDULES, "schedule")
        choose(self.adversary, ADVERSARIES, "adversary")
        choose(self.anchor, ANCHORS, "anchor of an attack")
        choose(self.attack_mode, ("train", "eval"), "value of attack_mode")
        for names, fits, expected in _RANGES:
            for name in names.split():
                _require(fits(getattr(self, name)), name, getattr(self, name), expected)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The config with these settings, such as those of a job."""
        return cls(**settings)

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, as they go into a job's key."""
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        return {f.name: settings[f.name] for f in fields(self) if not f.metadata or settings[f.name] != f.default}

    def with_overrides(self, overrides: Mapping[str, str]) -> Self:
        """A copy with some settings replaced by values that are given as text."""
        hints = _hints(type(self))
        for name in overrides:
            choose(name, hints, "setting of a recipe")
        new: dict[str, Any] = {name: parse_value(text, hints[name], name) for name, text in overrides.items()}
        return replace(self, **new) if new else self

    def training_part(self) -> TrainingConfig:
        """Only what determines the trained network: a section's recipe without what the section adds to it."""
        return TrainingConfig(**{f.name: getattr(self, f.name) for f in fields(TrainingConfig)})

    def observed_epochs(self) -> list[int]:
        """The epochs (from 1) after which the test set is evaluated."""
        count = min(self.observations, self.epochs)
        return sorted({round(self.epochs * (k + 1) / count) for k in range(count)})


_hints: Callable[[type], dict[str, Any]] = functools.cache(get_type_hints)

_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("epochs batch_size attack_steps", lambda value: value >= 1, "at least 1"),
    ("train_images crop_padding observations early_looks", lambda value: value >= 0, "at least 0"),
    ("batch_size", lambda value: value <= 1_000_000, "at most 1000000"),
    ("crop_padding early_looks", lambda value: value <= 100, "at most 100"),
    (
        "learning_rate final_learning_rate weight_decay step_size",
        lambda value: math.isfinite(value) and value >= 0,
        "a finite number, at least 0",
    ),
    ("epsilon", lambda value: 0 <= value <= 1, "in [0, 1], in units of the image"),
    ("momentum dropout", lambda value: 0 <= value < 1, "in [0, 1)"),
)


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise SettingError(name, f" is {shortened(value)} but must be {expected}; give another value")


def allconv_channels(architecture: str) -> int | None:
    """Channels of the first stage of ``allconv`` or ``allconv-<channels>``; None for another name."""
    match = re.fullmatch(r"allconv(?:-(?!96)([1-9][0-9]?))?", architecture)
    return match and int(match[1] or 96)


def wrn_depth_and_width(architecture: str) -> tuple[int, int] | None:
    """Depth and width of a Wide ResNet called ``wrn-<depth>-<width>``; None for another network that there is."""
    if allconv_channels(architecture):
        return None
    if not architecture.startswith("wrn"):
        choose(architecture, ARCHITECTURES, "architecture")
        return None
    match = re.fullmatch(r"wrn-([0-9]{1,4})-([0-9]{1,4})", architecture)
    depth, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 10 <= depth <= 1000 or (depth - 4) % 6 or not 1 <= width <= 100:
        raise SettingError(
            "architecture",
            f" is {shortened(architecture)}, but a Wide ResNet is wrn-<depth>-<width>, with a depth 4 more than a "
            "multiple of 6 (10, 16, 22, 28, 34, 40, …) and a width from 1 to 100, for example wrn-40-2",
        )
    return depth, width


def parse_value(text: str, kind: Any, name: str) -> str | int | float | bool | None:
    """Read a value of the type ``kind`` (``str``, ``int``, ``float``, ``bool``, or one of them or None)."""
    if isinstance(kind, types.UnionType):
        if text.lower() == "none":
            return None
        kind = next(k for k in get_args(kind) if k is not type(None))
    text = str(text).strip()
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        value = float(Fraction(text)) if kind is float and "/" in text else kind(text)
    except (KeyError, ValueError, ZeroDivisionError, OverflowError):
        words = {bool: "true or false", int: "a whole number", float: "a number, such as 0.03 or 8/255"}
        expected = words.get(kind, "text")
        raise SettingError(name, f"={shortened(text)} cannot be read: {expected} was expected") from None
    if isinstance(value, str):
        _require(len(value) <= 500, name, value, "at most 500 characters long")
    else:
        _require(not LARGEST < abs(value) < math.inf, name, value, f"at most {LARGEST:,}")
    return value


def learning_rate_at(step: int, total_steps: int, recipe: TrainingConfig) -> float:
    """The learning rate of update number ``step`` = 1 ... ``total_steps``.

    ``cosine`` is advanced before every update (P1's code), ``step`` drops to a fifth (Zagoruyko and Komodakis 2016)
    after 40, 60 and 80 % of the updates (P1 Figure 1).
    """
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "step":
        drops = sum(5 * (step - 1) >= fifths * total_steps for fifths in (2, 3, 4))
        return recipe.learning_rate * 0.2**drops
    half_wave = 0.5 * (1 + math.cos(math.pi * step / total_steps))
    return recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * half_wave


def early_steps(recipe: TrainingConfig, steps: int) -> list[int]:
    """Updates of the first epoch after which the test set is evaluated: a half of ``steps``, a quarter, …; rising."""
    halves = {round(steps / 2**k) for k in range(1, recipe.early_looks + 1)}
    return sorted(step for step in halves if 1 <= step < steps)
