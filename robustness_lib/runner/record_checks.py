"""What a record may hold, whoever made it: its text reaches pages, terminals and names of files."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from robustness_lib.errors import UserError, shortened
from robustness_lib.models.checkpoint_ids import is_checkpoint_id
from robustness_lib.training.config import TrainingConfig

_matches = functools.lru_cache(4096)(re.compile(r"[\w+][\w.+-]{0,199}").fullmatch)
_MARKUP = set('<>`[]{}|\\$"')


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _matches(value) is not None


def _is_text(value: object) -> bool:
    """Whether it is a short line of text without control characters or markup."""
    return isinstance(value, str) and len(value) <= 500 and value.isprintable() and not _MARKUP & set(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not _is_flag(value) and abs(value) < 2**1023


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not _is_flag(value) and abs(value) < 2**63


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_setting(value: object) -> bool:
    return value is None or _is_flag(value) or _is_text(value) or _is_number(value)


def _is_metric(value: object) -> bool:
    numbers: list[Any] = value if isinstance(value, list) else [value]
    return set(map(type, numbers)) <= {int, float} and all(abs(number) < 2**1023 for number in numbers)


def _is_table(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether it is a mapping from names (of image sets with their split, after a slash) to values that fit."""
    return isinstance(value, dict) and all(_is_name(k.replace("/", "-")) and fits(v) for k, v in value.items())


_JOB: dict[str, Callable[[Any], bool]] = {
    "section": lambda value: _is_name(value) and value.isidentifier(),
    "profile": _is_name,
    "dataset": _is_name,
    "init": is_checkpoint_id,
    "method": _is_text,
    "level": lambda value: value is None or _is_number(value),
    "seed": _is_whole,
    "recipe": lambda value: isinstance(value, Mapping),
}
_PROVENANCE: dict[str, Callable[[Any], bool]] = {
    "seconds": lambda value: _is_number(value) and value >= 0,
    **dict.fromkeys(("device", "precision", "revision", "date"), _is_text),
    **dict.fromkeys(("threads", "together", "processes"), lambda value: _is_whole(value) and value > 0),
    **dict.fromkeys(("compile", "graphs", "tf32"), _is_flag),
    **dict.fromkeys(("data", "versions"), lambda value: _is_table(value, _is_text)),
    "trained_on": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "changed": lambda value: _is_table(value, _is_setting),
}
"""What each entry may be; further ones are settings."""

_SETTING = {
    name: {int: _is_whole, float: _is_number, bool: _is_flag, str: _is_text}[kind]
    for name, kind in get_type_hints(TrainingConfig).items()
}


def check_job(job: Mapping[str, Any]) -> None:
    """Refuse a job of which a field has not the type and range that it may have."""
    for name, fits in _JOB.items():
        _check(fits(job[name]), name, job[name])
    try:
        _check_recipe(tuple((name, value, type(value)) for name, value in job["recipe"].items()))
    except TypeError:  # of a value that cannot be hashed
        _check(False, "recipe", job["recipe"])


@functools.lru_cache(4096)
def _check_recipe(items: tuple[tuple[str, Any, type], ...]) -> None:
    for name, value, _ in items:
        _check(_is_name(name) and _SETTING.get(name, _is_setting)(value), f"setting {shortened(name)}", value)
    TrainingConfig(**{name: value for name, value, _ in items if name in _SETTING})


def check_record(data: Any) -> None:
    """Refuse what JSON says to be a record, and is none; its job's fields are left to :func:`check_job`."""
    _check_keys(data, ("key", "job", "metrics", "provenance"), "a record")
    _check_keys(data["job"], tuple(_JOB), "a job")
    _check(_is_table(data["metrics"], _is_metric), "metrics", data["metrics"])
    source = data["provenance"]
    _check(isinstance(source, dict) and "seconds" in source, "provenance", source)
    for name, value in source.items():
        _check(_is_name(name) and _PROVENANCE.get(name, _is_setting)(value), f"provenance {name[:40]!r}", value)


def _check_keys(value: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(value, dict) or set(value) != set(keys):
        raise UserError(f"{what} has the keys {', '.join(sorted(keys))}")


def _check(condition: bool, what: str, value: object) -> None:
    if not condition:
        raise UserError(f"the {what} of a job or record cannot be {shortened(value)}; give another")
