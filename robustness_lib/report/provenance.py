"""Where each number of a page was measured, and the commands that measure it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

import pandas as pd

from robustness_lib.experiments.presets import PROFILES
from robustness_lib.models.checkpoint_ids import corpus_name, origin
from robustness_lib.report.markdown import Markdown
from robustness_lib.runner.records import EVIDENCE


def provenance_box(records: pd.DataFrame, section: str) -> Markdown:
    """A closed drop-down "How this page was made"; ``records`` is of :func:`robustness_lib.runner.records.frame`."""
    own = records[records["section"] == section]
    recorded = [scale for scale in EVIDENCE if scale in set(own["profile"])] or ["cpu"]
    lines = [":::{dropdown} How this page was made", ""]
    for scale in recorded:
        lines += _how_made(own[own["profile"] == scale], section, scale)
    return Markdown("\n".join([*lines, ":::", ""]))


def _how_made(own: pd.DataFrame, section: str, profile: str) -> list[str]:
    """Lines about the records of one profile."""
    if own.empty:
        command = ["```bash", f"robustness run {section} --profile {profile}", "```", ""]
        return [f"Nothing is recorded yet at the `{profile}` profile. This command records it:", "", *command]
    commands = [rerun_command(section, profile, str(name), group) for name, group in own.groupby("dataset")]
    lines = [
        "These commands measure the recorded results again. What a page shows of methods on request and of trials "
        "has commands of its own there.",
        "",
        *("```bash", *commands, "```"),
    ]
    if any("--init" in command or "--set" in command for command in commands):
        lines += ["", "What has `--init` or `--set` comes into the book by `robustness publish --changed`."]
    lines += ["", f"Scale\n: profile `{profile}`, {len(own)} records", ""]
    for title, text in _facts(own).items():
        lines += [f"{title}\n: {text}", ""] if text else []
    sums = sorted({(name, value) for source in own["provenance"] for name, value in source.get("data", {}).items()})
    if sums:
        lines += ["SHA-256 of the data", *(f": {name} `{value}`" for name, value in sums), ""]
    return lines


def rerun_command(section: str, profile: str, dataset: str, group: pd.DataFrame) -> str:
    """The command that measures a group of records of one data set again, with the checkpoint and settings they had.

    Settings in which only some of them differ from what the section plans are left out.
    """
    parts = ["robustness", "run", section, "--profile", profile, "--dataset", dataset]
    parts += ["--seeds", ",".join(map(str, sorted(set(group["seed"]))))]
    init = _other_start(profile, dataset, group["init"])
    parts += [] if init is None else ["--init", init]
    changes = [source.get("changed", {}) for source in group["provenance"]]
    for name, value in changes[0].items():
        parts += ["--set", f"{name}={value}"] if all(one.get(name) == value for one in changes) else []
    return shlex.join(parts)


def _other_start(profile: str, dataset: str, inits: Iterable[str]) -> str | None:
    """The checkpoint that records start from where it holds another part of the profile's corpus; else None."""
    if profile not in PROFILES:
        return None
    targets = PROFILES[profile].targets
    wanted = (targets.get(dataset) or next(iter(targets.values()))).corpus_holds
    starts = {init: start for init in inits if (start := origin(init)) is not None}
    others = [i for i, one in starts.items() if one.corpus == corpus_name(wanted) and one.holds != wanted]
    return min(others, default=None)


def _facts(group: pd.DataFrame) -> dict[str, str]:
    """What a group of records has in common, by title; several values are all listed."""
    sources: list[dict[str, Any]] = list(group["provenance"])
    packages = [item for source in sources for item in source.get("versions", {}).items()]
    versions = {f"{name} {number}" for name, number in packages if name in ("python", "torch", "torchvision")}
    dates = sorted(str(source["date"])[:10] for source in sources if source.get("date"))
    trained = dict.fromkeys(place for source in sources for place in source.get("trained_on", ()))
    hours = sum(float(source.get("seconds") or 0) for source in sources) / 3600
    return {
        "Code revision": _listed(
            f"`{name[:7]}{'-dirty' * name.endswith('-dirty')}`"
            for source in sources
            if (name := source.get("revision"))
        ),
        "Device": _listed(source.get("device") for source in sources),
        "Precision": _listed(source.get("precision") for source in sources),
        "Networks trained before, on": "; ".join(trained),
        "Software": ", ".join(sorted(versions)) or "unknown",
        "Measured": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "unknown",
        "Time of computing, all records together": f"{hours:.1f} h",
    }


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value)) or "unknown"
