"""Where each number was measured, and the command that measures it again."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from robustness_lib.experiments.presets import PROFILES
from robustness_lib.models.checkpoint_ids import corpus_name, origin
from robustness_lib.paper import SECTIONS
from robustness_lib.report.markdown import Markdown
from robustness_lib.runner.records import EVIDENCE


def rerun_command(
    section: str,
    profile: str,
    dataset: str | None,
    seeds: Iterable[int],
    *,
    methods: Iterable[str] = (),
    settings: Mapping[str, object] | None = None,
    init: str | None = None,
) -> str:
    """The command that measures one data set's results again.

    Args:
        section: Section.
        profile: Profile.
        dataset: Image set; None: all of the section's sets.
        seeds: Seeds; none: the profile's own.
        methods: Methods; none: the section's own.
        settings: Changed settings, by name.
        init: The checkpoint to start from; None: the profile's own.

    Returns:
        The command, for example ``robustness run calibration --profile cpu --dataset cifar10 --seeds 0,1,2``;
        pre-training, whose data set is a corpus with its counts, and cost have commands of their own.
    """
    changes = [word for name, value in (settings or {}).items() for word in ("--set", f"{name}={value}")]
    if section == "pretraining":
        corpus = re.sub(r"_\d+x\d+$", "", dataset or "")
        parts = ["robustness", "pretrain", "--profile", profile, *(["--corpus", corpus] if corpus else [])]
        return shlex.join([*parts, *changes, *itertools.chain(*(("--seed", str(int(seed))) for seed in seeds))])
    if section == "cost":
        return f"python -m benchmarks --device {'cuda' if profile == 'paper' else 'cpu'}"
    parts = ["robustness", "run", section, "--profile", profile]
    if dataset is not None:
        parts += ["--dataset", dataset]
    choices = {
        "--method": sorted(set(methods)),
        "--seeds": [str(int(seed)) for seed in sorted(set(seeds))],
        "--init": [] if init is None else [init],
    }
    parts += [word for name, values in choices.items() if values for word in (name, ",".join(values))]
    return shlex.join([*parts, *changes])


def duration(seconds: float) -> str:
    """A time in words: "42 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def provenance_box(records: pd.DataFrame, section: str) -> Markdown:
    """A closed drop-down "How this page was made" for one section.

    Args:
        records: Records; those of other sections are ignored.
        section: Section.

    Returns:
        For each profile that has records, else for `cpu`: commands, code revision, device, software, time, and the
        checksums of the data, as MyST Markdown.
    """
    own = records[records["section"] == section]
    recorded = [scale for scale in EVIDENCE if scale in set(own["profile"])] or ["cpu"]
    lines = [":::{dropdown} How this page was made", ""]
    for scale in recorded:
        lines += _how_made(own[own["profile"] == scale], section, scale)
    return Markdown("\n".join([*lines, ":::", ""]))


def _how_made(mine: pd.DataFrame, section: str, profile: str) -> list[str]:
    """Lines about the records of one profile."""
    lines: list[str] = []
    if mine.empty:
        lines += [f"Nothing is recorded yet at the `{profile}` profile. This command records it:", ""]
        lines += [*_code([rerun_command(section, profile, None, [])]), ""]
    else:
        lines += [
            "These commands measure the recorded results again. What a page shows of methods on request and of trials "
            "has commands of its own there.",
            "",
        ]
        commands = (rerun_commands(section, profile, key[2], group) for key, group in _groups(mine))
        found = list(itertools.chain.from_iterable(commands))
        lines += _code(found)
        if any("--init" in command or "--set" in command for command in found):
            lines += ["", "What has `--init` or `--set` comes into the book by `robustness publish --changed`."]
        facts = _facts(mine)
        words = {
            "revision": "Code revision",
            "device": "Device",
            "precision": "Precision",
            "trained_on": "Networks trained before, on",
            "versions": "Software",
        }
        words |= {"dates": "Measured", "time": "Time of computing, all records together"}
        lines += ["", f"Scale\n: profile `{profile}`, {len(mine)} records", ""]
        for key, text in words.items():
            lines += [f"{text}\n: {facts[key]}", ""] if facts[key] else []
        sums = _checksums(mine)
        if sums:
            lines += ["SHA-256 of the data", *(f": {name} `{value}`" for name, value in sums), ""]
    return lines


def rerun_commands(section: str, profile: str, dataset: str, group: pd.DataFrame) -> list[str]:
    """The commands that measure recorded results of one data set again, with the checkpoint and settings they had.

    Args:
        section: Section.
        profile: Profile.
        dataset: Image set.
        group: Records of these three, as by :func:`robustness_lib.runner.records.frame`.

    Returns:
        One command; one for each pre-training, as its command takes one seed. Settings in which only some of the
        records differ from what the section plans are left out.
    """
    if section == "pretraining":
        against = group["recipe"].map(lambda recipe: str(recipe.get("adversary", "none")))
        epochs = group["recipe"].map(lambda recipe: int(recipe["epochs"]))
        images = group["recipe"].map(lambda recipe: int(recipe.get("train_images") or 0))
        commands = []
        for (kind, count, length, _), some in group.groupby([against, images, epochs, "seed"]):
            settings = {"adversary": kind} if kind != "none" else {}
            settings |= {"train_images": count} if count else {}
            settings |= {"epochs": length} if epochs[against == kind].nunique() > 1 else {}
            commands.append(rerun_command(section, profile, dataset, [int(some["seed"].iloc[0])], settings=settings))
        return commands
    trials: Iterable[str] = group["method"] if section == "recipe_choice" else ()  # a plain run has only some of them
    init, settings = other_start(profile, dataset, group["init"]), _other_settings(group)
    return [rerun_command(section, profile, dataset, group["seed"], methods=trials, init=init, settings=settings)]


def _other_settings(group: pd.DataFrame) -> dict[str, Any]:
    """The settings in which all records of a group differ, in the same way, from what their section plans."""
    changes = [source.get("changed", {}) for source in group["provenance"]]
    return {name: value for name, value in changes[0].items() if all(one.get(name) == value for one in changes)}


def other_start(profile: str, dataset: str, inits: Iterable[str]) -> str | None:
    """The checkpoint that records start from where it holds another part of the profile's corpus; else None.

    Args:
        profile: The records' profile.
        dataset: Their image set.
        inits: What they start from.
    """
    if profile not in PROFILES:
        return None
    targets = PROFILES[profile].targets
    wanted = (targets.get(dataset) or next(iter(targets.values()))).corpus_holds
    starts = {init: start for init in inits if (start := origin(init)) is not None}
    others = [i for i, one in starts.items() if one.corpus == corpus_name(wanted) and one.holds != wanted]
    return min(others, default=None)


def _code(commands: list[str]) -> list[str]:
    return ["```bash", *commands, "```"]


def _groups(records: pd.DataFrame) -> list[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Records by section (in the papers' order), profile and data set."""
    order = {section: place for place, section in enumerate(SECTIONS)}
    groups = [
        ((str(key[0]), str(key[1]), str(key[2])), group)
        for key, group in records.groupby(["section", "profile", "dataset"])
    ]
    return sorted(groups, key=lambda item: (order.get(item[0][0], len(order)), item[0]))


def _facts(group: pd.DataFrame) -> dict[str, str]:
    """What a group of records has in common, each fact as text; several values are all listed."""
    sources: list[Mapping[str, Any]] = list(group["provenance"])
    versions = {
        f"{package} {number}"
        for source in sources
        for package, number in source.get("versions", {}).items()
        if package in ("python", "torch", "torchvision")
    }
    dates = sorted(str(source["date"])[:10] for source in sources if source.get("date"))
    return {
        "device": _listed(source.get("device") for source in sources),
        "precision": _listed(source.get("precision") for source in sources),
        "trained_on": "; ".join(dict.fromkeys(place for source in sources for place in source.get("trained_on", ()))),
        "versions": ", ".join(sorted(versions)) or "unknown",
        "revision": _listed(f"`{short_revision(str(r))}`" for source in sources if (r := source.get("revision"))),
        "dates": "unknown" if not dates else " to ".join(dict.fromkeys((dates[0], dates[-1]))),
        "time": duration(float(sum(_seconds(group)))),
    }


def _seconds(group: pd.DataFrame) -> list[float]:
    """Computing time of each record; of a pre-training whose checkpoint was there already, that of its training."""
    measured = [float(source.get("seconds") or 0) for source in group["provenance"]]
    if "training_seconds" not in group:
        return measured
    trained = group["training_seconds"].astype(float).fillna(0)
    return [max(pair) for pair in zip(measured, trained, strict=True)]


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value)) or "unknown"


def _checksums(group: pd.DataFrame) -> list[tuple[str, str]]:
    pairs = {(str(k), str(v)) for source in group["provenance"] for k, v in source.get("data", {}).items()}
    return sorted(pairs)


def short_revision(revision: str) -> str:
    """A commit in seven digits, and whether the code was changed since: "0123456-dirty"."""
    return revision[:7] + ("-dirty" if revision.endswith("-dirty") else "")
