"""Where each number of a page was measured, and the commands that measure it again."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustness_lib.experiments.presets import PROFILES
from robustness_lib.models.checkpoint_ids import OWN, corpus_name, origin
from robustness_lib.report.markdown import Markdown
from robustness_lib.runner.records import EVIDENCE, Record


def provenance_box(records: Iterable[Record], section: str) -> Markdown:
    """A closed drop-down "How this page was made"; records of other sections do not count."""
    own = [record for record in records if record.job.section == section]
    groups = ([record for record in own if record.job.profile == scale] for scale in EVIDENCE)
    lines = [line for group in groups if group for line in _how_made(group)] or [
        "Nothing is recorded yet at the `cpu` profile. This command records it:",
        "",
        *("```bash", f"robustness run {section} --profile cpu", "```", ""),
    ]
    return Markdown("\n".join([":::{dropdown} How this page was made", "", *lines, ":::", ""]))


def _how_made(own: Sequence[Record]) -> list[str]:
    """Lines about the records of one profile."""
    datasets = sorted({record.job.dataset for record in own})
    groups = [[record for record in own if record.job.dataset == name] for name in datasets]
    commands = [rerun_command(group) for group in groups]
    starts = ([one for one in group if getattr(origin(one.job.init), "seed", -1) == one.job.seed] for group in groups)
    commands += [f"{rerun_command(some)} --init {OWN}" for some in starts if len({one.job.seed for one in some}) > 1]
    lines = [
        "These commands measure the recorded results again. What a page shows of methods on request and of trials "
        "has commands of its own there.",
        "",
        *("```bash", *commands, "```"),
    ]
    if any("--init" in command or "--set" in command for command in commands[: len(groups)]):
        lines += ["", "What has `--init` or `--set` comes into the book by `robustness publish --changed`."]
    lines += ["", f"Scale\n: profile `{own[0].job.profile}`, {len(own)} records", ""]
    sources = [record.provenance for record in own]
    for title, text in _facts(sources).items():
        lines += [f"{title}\n: {text}", ""] if text else []
    sums = sorted({(name, value) for source in sources for name, value in source.get("data", {}).items()})
    if sums:
        lines += ["SHA-256 of the data", *(f": {name} `{value}`" for name, value in sums), ""]
    return lines


def rerun_command(group: Sequence[Record]) -> str:
    """The command that measures records of one data set again, with the checkpoint and changed settings they share."""
    job = group[0].job
    parts = ["robustness", "run", job.section, "--profile", job.profile, "--dataset", job.dataset]
    parts += ["--seeds", ",".join(map(str, sorted({record.job.seed for record in group})))]
    init = _other_start(job.profile, job.dataset, {record.job.init for record in group})
    parts += [] if init is None else ["--init", init]
    changes = [record.provenance.get("changed", {}) for record in group]
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


def _facts(sources: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What a group of records has in common, by title; several values are all listed."""
    packages = [item for source in sources for item in source.get("versions", {}).items()]
    versions = {f"{name} {number}" for name, number in packages if name in ("python", "torch", "torchvision")}
    dates = sorted(str(source["date"])[:10] for source in sources if source.get("date"))
    trained = dict.fromkeys(place for source in sources for place in source.get("trained_on", ()))
    revisions = [str(source["revision"]) for source in sources if source.get("revision")]
    hours = sum(float(source.get("seconds") or 0) for source in sources) / 3600
    return {
        "Code revision": _listed(f"`{name[:7]}{'-dirty' * name.endswith('-dirty')}`" for name in revisions),
        "Device": _listed(source.get("device") for source in sources),
        "Precision": _listed(source.get("precision") for source in sources),
        "Networks trained before, on": "; ".join(trained),
        "Software": ", ".join(sorted(versions)) or "unknown",
        "Measured": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "unknown",
        "Time of computing, all records together": f"{hours:.1f} h",
    }


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value)) or "unknown"
