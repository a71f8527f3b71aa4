"""The one exception for mistakes that a user can mend."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend; the message is one sentence: what was wrong, what was expected, what to do."""


class SettingError(UserError):
    """A setting of a recipe has an unsuitable value; ``message`` goes on after the setting's name."""

    def __init__(self, setting: str, message: str = "") -> None:  # with one argument as it is unpickled
        super().__init__(f"{setting}{message}")
        self.setting = setting


def choose(value: str, valid: Iterable[str], what: str) -> str:
    """``value`` if it is one of ``valid``; else a UserError that lists these. ``what`` is such as "data set"."""
    options = list(valid)
    if value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UserError(f"unknown {what} {shortened(value)}{hint}; choose one of: {', '.join(options)}")


def shortened(value: object) -> str:
    """A value as Python writes it, at most 60 characters of it; of a list or a mapping the type's name."""
    text = repr(value) if value is None or isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"


def first_line(error: Exception) -> str:
    """The first line of what another library's error says, 120 characters at most; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
