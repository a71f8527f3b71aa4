"""Where a number comes from: the code, the libraries, and how long it took."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_version = cache(metadata.version)  # which reads files
LIBRARIES = ("robustness-lib", "torch", "torchvision", "numpy", "scipy", "scikit-learn", "imbalanced-learn")


def provenance(*, seconds: float, data: Mapping[str, str], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds, SHA-256 of image sets by ``name/split``, device and precision, and code."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = _version(name)
    return {
        "seconds": round(seconds, 1),
        "data": dict(data),
        **runtime,
        "versions": versions,
        "revision": REVISION,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def code_revision() -> str:
    """The git commit of the code that runs, in twelve digits, with ``-dirty`` where library files differ from it.

    Outside a checkout of this project ``$ROBUSTNESS_REVISION``, else ``"unknown"``.
    """
    here = Path(__file__).resolve().parent
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=outside)
        return done.stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        root = Path(git("rev-parse", "--show-toplevel"))
        ours = 'name = "robustness-lib"' in (root / "pyproject.toml").read_text()
        if ours and here.is_relative_to(root / "robustness_lib"):  # not where an environment inside it has a copy
            commit = git("rev-parse", "--short=12", "HEAD")
            changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/robustness_lib")
            return f"{commit}-dirty" if changed else commit
    return os.environ.get("ROBUSTNESS_REVISION") or "unknown"


REVISION = code_revision()
"""The code of this process, asked for when it begins, since commits are made while it runs."""
