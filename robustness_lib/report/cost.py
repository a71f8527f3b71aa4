"""What the reproduction costs: how fast it runs, what bounds it, and how long all of it takes.

Everything here is a function of the records of ``python -m benchmarks`` (section ``cost``) and of planned jobs. Every
speed is in images a second: of one network's training unless several networks are named, then of all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from robustness_lib.checkpoint_ids import corpus_counts
from robustness_lib.paper import SECTIONS, network_label
from robustness_lib.records import Job
from robustness_lib.report.provenance import duration, rerun_command
from robustness_lib.report.style import OKABE_ITO, legend_outside, new_figure
from robustness_lib.report.tables import NOT_RUN, TITLES, Markdown, listed, myst_table

WORKS = ("training", "adversarial training", "evaluation")
AT_ONCE = "networks at once"
LIBRARY_WAYS = ("together", "processes")
"""The ways to train several networks at once that the library has; others are candidates that it was compared with."""

_WAYS = {"together": "the library", "processes": "one process each", "stacked": "stacked into one network"}
_SETTINGS = ("device", "threads", "architecture", "precision", "compile", "graphs", "networks", "way")
_DASH = "–"

WHOLE = {"tiny_imagenet": 100_000}
"""Training images of a whole data set that is not CIFAR's size."""

CIFAR = 50_000
"""Training images of CIFAR-10 and of CIFAR-100."""


# --------------------------------------------------------------------------------------------- speed


def speed_table(records: pd.DataFrame, *, caption: str, name: str) -> Markdown:
    """The library beside the textbook loop, a row a network, work and variant.

    Args:
        records: Records, as by :func:`robustness_lib.records.frame`.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table: median images/s of both over the rounds, and the median and range of their ratio.
    """
    header = ["Device", "Work", "Library", "Images/s", "Textbook loop", "Ratio (range)"]
    rows = [
        [
            *(_device(row), _work(row), _variant(row)),
            *(_number(row["images_per_second"]), _number(row["baseline_images_per_second"]), _ratio(row)),
        ]
        for row in _measured(records, WORKS).to_dict("records")
    ]
    return _table(header, rows, caption=caption, name=name)


def start_table(records: pd.DataFrame, *, caption: str, name: str) -> Markdown:
    """What a training takes beside its epochs: time to start, and memory.

    Args:
        records: Records.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table: seconds before the first epoch of the first training of a process and of every further
        one, the most memory in use by the library and by the textbook loop, and that loop's workers.
    """
    header = ["Device", "Work", "Library", "First start", "Later starts", "Memory", "Textbook's memory", "Its workers"]
    rows = [
        [
            *(_device(row), _work(row), _variant(row)),
            *(_seconds_or_less(row[column]) for column in ("start_seconds", "restart_seconds")),
            *(_gigabytes(row.get(column)) for column in ("peak_bytes", "baseline_peak_bytes")),
            f"{row['workers']:.0f}",
        ]
        for row in _measured(records, WORKS[:2]).to_dict("records")
    ]
    return _table(header, rows, caption=caption, name=name)


def together_table(records: pd.DataFrame, *, caption: str, name: str) -> Markdown:
    """Several networks at once beside one alone, a row a number of networks and way.

    Args:
        records: Records.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table; the speed is that of all networks together.
    """
    header = ["Device", "Networks", "Way", "Images/s", "One alone", "Ratio (range)", "Memory"]
    rows = [
        [
            *(
                _device(row),
                f"{row['networks']:.0f} × {network_label(row['architecture'])}",
                _WAYS.get(row["way"], row["way"]),
            ),
            *(_number(row["images_per_second"]), _number(row["baseline_images_per_second"]), _ratio(row)),
            _gigabytes(row.get("peak_bytes")),
        ]
        for row in _measured(records, [AT_ONCE]).to_dict("records")
    ]
    return _table(header, rows, caption=caption, name=name)


# --------------------------------------------------------------------------------------------- bounds


def ceilings_table(records: pd.DataFrame, *, caption: str, name: str) -> Markdown:
    """What each device does at most, measured: a large matrix product, and a large copy."""
    header = ["Device", "Precision", "Matrix product (TFLOP/s)", "Copy (GB/s, read and written)"]
    rows = [
        [_device(row), row["precision"], _number(row["teraflops"]), _number(row["gigabytes_per_second"])]
        for row in _measured(records, ["ceilings"]).to_dict("records")
    ]
    return _table(header, rows, caption=caption, name=name)


def bounds(records: pd.DataFrame) -> pd.DataFrame:
    """The fastest way of each work beside the two speeds that the device's ceilings allow.

    Args:
        records: Records.

    Returns:
        One row a device, work, network and precision whose ceilings are measured: ``device``, ``threads``, ``method``,
        ``architecture``, ``precision``, ``networks``, ``images_per_second`` (the fastest variant's),
        ``baseline_images_per_second``, ``flops_per_image``, ``bytes_per_image``, ``compute_bound`` and
        ``memory_bound`` (images/s), ``binds`` ("compute" or "memory", the lower of the two) and ``share`` (of it).
    """
    ceilings = {
        (row["device"], row["threads"], row["precision"]): (row["teraflops"] * 1e12, row["gigabytes_per_second"] * 1e9)
        for row in _measured(records, ["ceilings"]).to_dict("records")
    }
    found = []
    for (device, threads, _, _, precision), group in _by_library(records, (*WORKS, AT_ONCE)).groupby(
        ["device", "threads", "method", "architecture", "precision"], sort=False
    ):
        if (device, threads, precision) in ceilings:
            compute, memory = ceilings[device, threads, precision]
            best = group.sort_values("images_per_second").iloc[-1].to_dict()
            best["compute_bound"] = compute / best["flops_per_image"]
            best["memory_bound"] = memory / best["bytes_per_image"]
            best["binds"] = "compute" if best["compute_bound"] < best["memory_bound"] else "memory"
            best["share"] = best["images_per_second"] / best[f"{best['binds']}_bound"]
            found.append(best)
    columns = ["device", "threads", "method", "architecture", "precision", "networks", "images_per_second"]
    columns += ["baseline_images_per_second", "flops_per_image", "bytes_per_image", "compute_bound", "memory_bound"]
    return pd.DataFrame(found, columns=[*columns, "binds", "share"])


def bounds_table(records: pd.DataFrame, *, caption: str, name: str) -> Markdown:
    """What an image needs, the speeds that this allows, and the share of the lower one that is reached.

    Args:
        records: Records.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table, a row a row of :func:`bounds`.
    """
    header = ["Device", "Work", "GFLOP an image", "MB an image", "By compute", "By memory", "Measured", "Share reached"]
    rows = [
        [
            *(_device(row), f"{_work(row)}, {row['precision']}"),
            *(_number(row["flops_per_image"] / 1e9), _number(row["bytes_per_image"] / 1e6)),
            *(_number(row["compute_bound"]), _number(row["memory_bound"]), _number(row["images_per_second"])),
            f"{100 * row['share']:.0f} % ({row['binds']})",
        ]
        for row in bounds(records).to_dict("records")
    ]
    return _table(header, rows, caption=caption, name=name)


def bounds_figure(records: pd.DataFrame) -> Figure:
    """Measured speeds against the two bounds, a panel a device, a line a work, in its fastest precision.

    Args:
        records: Records.

    Returns:
        The figure; an empty panel that says so where nothing is recorded.
    """
    rows = bounds(records)
    places = rows["images_per_second"].astype(float).groupby([rows[column] for column in _WORK_OF], sort=False).idxmax()
    groups = [group.to_dict("records") for _, group in rows.loc[places].groupby(["device", "threads"], sort=False)]
    most = max([len(group) for group in groups], default=3)
    figure, panels = new_figure(rows=max(1, len(groups)), height=1.3 + 0.4 * most)
    for panel, group in zip(panels, groups, strict=False):
        _bounds_panel(panel, group)
    if not groups:
        panels[0].annotate(NOT_RUN, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
        panels[0].set(xticks=[], yticks=[])
    for panel in panels:
        panel.set_xlabel("images/s")
    legend_outside(figure, columns=2)
    return figure


_WORK_OF = ("device", "threads", "method", "architecture")
_MARKS: dict[str, dict[str, Any]] = {
    "baseline_images_per_second": {"label": "textbook loop", "color": OKABE_ITO["vermilion"], "marker": "s"},
    "images_per_second": {"label": "this library", "color": OKABE_ITO["blue"], "marker": "o"},
    "compute_bound": {"label": "bound by compute", "color": OKABE_ITO["black"], "marker": "D", "mfc": "white"},
    "memory_bound": {"label": "bound by memory", "color": OKABE_ITO["green"], "marker": "^", "mfc": "white"},
}


def _bounds_panel(panel: Axes, rows: Sequence[Mapping[Any, Any]]) -> None:
    for place, row in enumerate(rows):
        shown = [key for key in _MARKS if row["method"] != AT_ONCE or key != "baseline_images_per_second"]
        reached = row["images_per_second"], min(row["compute_bound"], row["memory_bound"])
        panel.plot(reached, [place, place], color="#999999", lw=1.5, zorder=1)
        for key in shown:
            panel.plot(row[key], place, linestyle="none", ms=8, zorder=3, **_MARKS[key])
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(EngFormatter())
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_yticks(range(len(rows)), [f"{_work(row)},\n{row['precision']}" for row in rows], fontsize=9)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_title(_device(rows[0]), loc="left", fontsize=10)
    panel.margins(x=0.08)


# --------------------------------------------------------------------------------------------- the whole


def planned_work(jobs: Iterable[Job], images_trained: Callable[[Job], float | None] = lambda job: None) -> pd.DataFrame:
    """How much there is to train, by section, profile and network.

    Args:
        jobs: Planned jobs of any sections, pre-training among them; equal ones count once, those that train no
            network not at all.
        images_trained: How many images a job processes, where that is not epochs times training images; else None.

    Returns:
        ``section``, ``profile``, ``architecture``, ``method`` ("training" or "adversarial training"), ``jobs``,
        ``images``: epochs times training images, an image of 64 pixels counted as four of 32; and ``unknown``: how
        many of the jobs are not in it, because only its data tell how large their corpus is.
    """
    rows = []
    for job in {job.key: job for job in jobs if "architecture" in job.recipe}.values():
        told = images_trained(job)
        images = _images(job) if told is None else told
        method = "adversarial training" if _attacks(job) else "training"
        kind = {"section": job.section, "profile": job.profile, "architecture": str(job.recipe["architecture"])}
        rows.append({**kind, "method": method, "jobs": 1, "images": images or 0.0, "unknown": int(images is None)})
    kinds = ["section", "profile", "architecture", "method"]
    table = pd.DataFrame(rows, columns=[*kinds, "jobs", "images", "unknown"])
    return table.groupby(kinds, sort=False).sum().reset_index()


def _attacks(job: Job) -> bool:
    against = job.recipe.get("adversary", "none") != "none"
    return against or job.method == "adversarial" or (job.section == "adversarial" and job.method != "normal")


def _images(job: Job) -> float | None:
    counts = corpus_counts(job.dataset)
    whole = counts[0] if counts else None if job.section == "pretraining" else WHOLE.get(job.dataset, CIFAR)
    images = job.recipe.get("train_images") or whole
    if images is None:
        return None
    large = job.dataset == "tiny_imagenet" or job.dataset.startswith("imagenet64")
    return float(images) * float(job.recipe.get("epochs") or 1) * (4 if large else 1)


def speeds(records: pd.DataFrame) -> pd.DataFrame:
    """The fastest recorded way of the library to train each network, by device.

    Args:
        records: Records.

    Returns:
        ``device``, ``threads``, ``architecture``, ``method`` ("training" or "adversarial training"), ``alone``
        (images/s of one network) and ``best`` (the same, or of several at once where that is faster).
    """
    rows = _by_library(records, ("training", "adversarial training", AT_ONCE))
    rows = rows.assign(
        alone=rows["images_per_second"].where(rows["method"] != AT_ONCE, rows["baseline_images_per_second"]),
        best=rows["images_per_second"],
        method=rows["method"].replace(AT_ONCE, "training"),
    )
    found = rows.groupby(["device", "threads", "architecture", "method"], sort=False)[["alone", "best"]].max()
    return found.reset_index()


def reproduction_table(work: pd.DataFrame, records: pd.DataFrame, *, caption: str, name: str) -> Markdown:
    """What everything costs: jobs, images, and the time on each measured device.

    A section's jobs run as fast as the library's fastest recorded way, several networks at once where that was
    faster; a pre-training is one network.

    Args:
        work: From :func:`planned_work`.
        records: Records.
        caption: Caption of the table.
        name: Its label for references.

    Returns:
        A numbered MyST table, profile by profile with a sum; "not measured" where a device has no record of a network,
        "at least" where that or the size of a corpus leaves something out; and a row for each section of the papers
        without jobs.
    """
    fast = speeds(records)
    devices = list(dict.fromkeys(zip(fast["device"], fast["threads"], strict=True)))
    header = ["Profile", "Section", "Network", "Jobs", "Images (millions)"]
    header += [_device({"device": device, "threads": threads}) for device, threads in devices] or ["Time"]
    rows = []
    for profile, group in work.groupby("profile", sort=False):
        times = [
            [_seconds(row, fast, device, threads) for device, threads in devices] or [math.nan]
            for row in group.to_dict("records")
        ]
        for row, mine in zip(group.to_dict("records"), times, strict=True):
            section, more = str(row["section"]), bool(row["unknown"])
            network = network_label(str(row["architecture"])) + (", PGD" if row["method"] != "training" else "")
            cells = [f"`{profile}`", TITLES.get(section, section), network, f"{row['jobs']:,}"]
            cells.append(_at_least(row["images"] / 1e6, _number, more))
            rows.append([*cells, *(_at_least(value, _hours, more) for value in mine)])
        more, known = bool(group["unknown"].any()), group["images"].sum() / 1e6
        cells = [f"`{profile}`", "**all**", "", f"{group['jobs'].sum():,}", _at_least(known, _number, more)]
        cells += [_sum_of(column, more) for column in zip(*times, strict=True)]
        rows.append(cells)
    for section, title in SECTIONS.items():
        if section not in set(work["section"]):
            rows.append([_DASH, title, "no jobs planned yet", *[_DASH] * (len(header) - 3)])
    return _table(header, rows, caption=caption, name=name)


def reproduction_note(work: pd.DataFrame, records: pd.DataFrame) -> Markdown:
    """What everything costs, in a sentence a measured device.

    Args:
        work: From :func:`planned_work`.
        records: Records.

    Returns:
        Markdown; empty where no device was measured.
    """
    fast = speeds(records)
    lines = []
    for device, threads in dict.fromkeys(zip(fast["device"], fast["threads"], strict=True)):
        parts = []
        for profile, group in work.groupby("profile", sort=False):
            times = [_seconds(row, fast, device, threads) for row in group.to_dict("records")]
            if any(map(math.isfinite, times)):
                part = f"all of `{profile}` takes {_sum_of(times, bool(group['unknown'].any()))} of training"
                left = zip(group["method"], group["architecture"], times, strict=True)
                missing = (f"{how} of {network_label(name)}" for how, name, took in left if math.isnan(took))
                unknown = dict.fromkeys(missing)
                parts.append(part + (f" (not measured: {listed(list(unknown))})" if unknown else ""))
        if parts:
            lines.append(f"**In short.** On {_device({'device': device, 'threads': threads})}, {', and '.join(parts)}.")
    return Markdown("\n\n".join(lines))


def _sum_of(times: Sequence[float], more: bool) -> str:
    finite = [value for value in times if math.isfinite(value)]
    return _at_least(sum(finite) if finite else math.nan, _hours, more or len(finite) < len(times))


def _seconds(row: Mapping[Any, Any], fast: pd.DataFrame, device: str, threads: int) -> float:
    same = (fast["device"] == device) & (fast["threads"] == threads) & (fast["method"] == row["method"])
    rows = fast[same & (fast["architecture"] == row["architecture"])]
    speed = rows["alone" if row["section"] == "pretraining" else "best"]
    return math.nan if speed.empty else float(row["images"]) / float(speed.iloc[0])


def gpu_note(records: pd.DataFrame) -> Markdown:
    """A sentence that says which GPUs were measured, or that none was and how to do it."""
    on_gpu = records[(records["section"] == "cost") & (records["profile"] == "paper")]
    if devices := sorted({str(recipe["device"]) for recipe in on_gpu["recipe"]}):
        return Markdown(f"GPUs measured: {', '.join(devices)}.\n")
    command = rerun_command("cost", "paper", None, [])
    return Markdown(
        "No GPU has been benchmarked yet. This command measures the one of the machine that it runs on, and can be "
        f"repeated until it is done:\n\n```bash\n{command}\n```\n"
    )


# --------------------------------------------------------------------------------------------- cells


def _measured(records: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Records of the section with those methods: their settings as columns; GPUs first, then by network and work."""
    mine = records[(records["section"] == "cost") & records["method"].isin(methods)]
    settings = {name: [recipe.get(name) for recipe in mine["recipe"]] for name in _SETTINGS}
    table = mine.assign(**settings)
    for column in ("images_per_second", "baseline_images_per_second"):
        if column not in table:
            table[column] = math.nan
    places = pd.DataFrame(
        {
            "gpu": table["profile"] != "paper",
            "device": table["device"],
            "threads": table["threads"],
            "size": [_size(name) for name in table["architecture"]],
            "method": [methods.index(method) for method in table["method"]],
            "networks": pd.to_numeric(table["networks"]).fillna(0),
            "speed": -table["images_per_second"],
        },
        index=table.index,
    )
    return table.loc[places.sort_values([str(column) for column in places], kind="stable").index]


def _by_library(records: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Without the candidates that the library does not have."""
    rows = _measured(records, methods)
    return rows[(rows["method"] != AT_ONCE) | rows["way"].isin(LIBRARY_WAYS)]


def _size(architecture: object) -> float:
    """Roughly the work of a Wide ResNet: depth times squared width."""
    found = re.fullmatch(r"wrn-(\d+)-(\d+)", str(architecture))
    return float(found[1]) * float(found[2]) ** 2 if found else math.inf


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, name: str) -> Markdown:
    """A table that does not repeat the device, nor under one device the work, of the row before."""
    shown = [list(row) for row in rows]
    for above, row, cells in zip(rows, rows[1:], shown[1:], strict=False):
        same = 0 if above[0] != row[0] else 1 if above[1] != row[1] else 2
        cells[:same] = [""] * same
    return myst_table(header, shown or [[NOT_RUN, *[_DASH] * (len(header) - 1)]], caption=caption, name=name)


def _device(row: Mapping[Any, Any]) -> str:
    name = str(row["device"])
    return f"{name}, {row['threads']} thread{'s' if row['threads'] != 1 else ''}" if name.startswith("CPU") else name


def _work(row: Mapping[Any, Any]) -> str:
    words = f"training, {row['networks']:.0f} at once" if row["method"] == AT_ONCE else str(row["method"])
    return f"{str(row['architecture']).upper()} {words}"


def _variant(row: Mapping[Any, Any]) -> str:
    ways = [word for column, word in (("compile", "compiled"), ("graphs", "CUDA graphs")) if row[column]]
    return ", ".join([str(row["precision"]), *(ways or ["op by op"])])


def _ratio(row: Mapping[Any, Any]) -> str:
    return f"{row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"


def _gigabytes(value: float | None) -> str:
    return _DASH if value is None or math.isnan(value) else f"{value / 1e9:.2g} GB"


def _number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if not math.isfinite(value) or value <= 0:
        return _DASH
    digits = max(0, 2 - math.floor(math.log10(value)))
    return f"{round(value, 2 - math.floor(math.log10(value))):,.{digits}f}"


def _seconds_or_less(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 90 else duration(seconds)


def _hours(seconds: float) -> str:
    return duration(seconds) if seconds < 360_000 else f"{seconds / 3600:,.0f} h"


def _at_least(value: float, shown: Callable[[float], str], more: bool) -> str:
    """A value, and whether there is more that is not known."""
    if not math.isfinite(value):
        return "not measured"
    return f"at least {shown(value)}" if more else shown(value)
