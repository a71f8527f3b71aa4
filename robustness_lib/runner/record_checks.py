"""What a record may hold, whoever made it: its text reaches pages, terminals and names of files."""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_type_hints

from robustness_lib.errors import UserError, shortened
from robustness_lib.models.checkpoint_ids import is_checkpoint_id
from robustness_lib.training.config import TrainingConfig

Fits: TypeAlias = Callable[[Any], bool]

_matches = functools.lru_cache(4096)(re.compile(r"[\w+][\w.+-]{0,199}").fullmatch)
_MARKUP = set('<>`[]{}|\\$"')

_FITS: dict[type, Fits] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63,
    float: lambda value: isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1023,
    str: lambda value: (  # a short line without control characters or markup
        isinstance(value, str) and len(value) <= 500 and value.isprintable() and not _MARKUP & set(value)
    ),
}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _matches(value) is not None


def _is_setting(value: object) -> bool:
    return value is None or any(fits(value) for fits in _FITS.values())


def _is_metric(value: object) -> bool:
    numbers: list[Any] = value if isinstance(value, list) else [value]
    small = set(map(type, numbers)) <= {int, float} and max(map(abs, numbers), default=0) < 2**1023
    return small and all(map(math.isfinite, numbers))


def _is_table(value: Any, fits: Fits) -> bool:
    """Whether it is a mapping from names (of image sets with their split, after a slash) to values that fit."""
    return isinstance(value, dict) and all(_is_name(k.replace("/", "-")) and fits(v) for k, v in value.items())


_JOB: dict[str, Fits] = {
    "section": lambda value: _is_name(value) and value.isidentifier(),
    "profile": _is_name,
    "dataset": _is_name,
    "init": is_checkpoint_id,
    "method": _FITS[str],
    "level": lambda value: value is None or _FITS[float](value),
    "seed": _FITS[int],
    "recipe": lambda value: isinstance(value, Mapping),
}
_PROVENANCE: dict[str, Fits] = {
    "seconds": lambda value: _FITS[float](value) and value >= 0,
    **dict.fromkeys(("device", "precision", "revision", "date"), _FITS[str]),
    **dict.fromkeys(("threads", "together", "processes"), lambda value: _FITS[int](value) and value > 0),
    **dict.fromkeys(("compile", "graphs", "tf32"), _FITS[bool]),
    **dict.fromkeys(("data", "versions"), lambda value: _is_table(value, _FITS[str])),
    "trained_on": lambda value: isinstance(value, list) and all(map(_FITS[str], value)),
    "changed": lambda value: _is_table(value, _is_setting),
}  # what each entry may be; further ones are settings

_SETTING = {name: _FITS[kind] for name, kind in get_type_hints(TrainingConfig).items()}


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
    _check_keys(data, {"key", "job", "metrics", "provenance"})
    _check_keys(data["job"], set(_JOB))
    _check(_is_table(data["metrics"], _is_metric), "metrics", data["metrics"])
    source = data["provenance"]
    _check(isinstance(source, dict) and "seconds" in source, "provenance", source)
    for name, value in source.items():
        _check(_is_name(name) and _PROVENANCE.get(name, _is_setting)(value), f"provenance {name[:40]!r}", value)


def _check_keys(value: Any, keys: set[str]) -> None:
    if not isinstance(value, dict) or value.keys() != keys:
        raise UserError(f"it has not the keys {', '.join(sorted(keys))}")


def _check(condition: bool, what: str, value: object) -> None:
    if not condition:
        raise UserError(f"the {what} of a job or record cannot be {shortened(value)}; give another")
