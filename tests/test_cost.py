"""Speeds, bounds and the cost of the whole, from made-up records whose results are known by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import pytest

from robustness_lib import calibration, pretraining, report, sections
from robustness_lib.paper import SECTIONS
from robustness_lib.profiles import profile
from robustness_lib.records import SCRATCH, Job, Record, frame, load_published
from robustness_lib.report import cost

GPU, CPU = "NVIDIA H200", "CPU made by hand"
LABELS = {"caption": "c", "name": "tab-c"}


def record(method: str = "training", device: str = CPU, speed: float = 100.0, **changes: Any) -> Record:
    """A measurement; its settings and metrics can be changed by name."""
    recipe: dict[str, Any] = {
        "device": device,
        "threads": 2,
        "architecture": "wrn-16-1",
        "precision": "bfloat16",
        "compile": False,
        "graphs": False,
        "networks": 1,
        "way": "alone",
    }
    metrics: dict[str, Any] = {
        "images_per_second": speed,
        "baseline_images_per_second": speed / 4,
        "ratio": 4.0,
        "ratio_min": 3.9,
        "ratio_max": 4.1,
        "start_seconds": 30.0,
        "restart_seconds": 0.25,
        "peak_bytes": 2e9,
        "flops_per_image": 1e9,
        "bytes_per_image": 4e6,
        "workers": 2.0,
    }
    for name, value in changes.items():
        (recipe if name in recipe else metrics)[name] = value
    job = Job(
        section="cost",
        profile="cpu" if device.startswith("CPU") else "paper",
        dataset="random",
        init="scratch",
        method=method,
        level=None,
        seed=0,
        recipe=recipe,
    )
    return Record(job, metrics, {"seconds": 9.0, "device": device})


def ceilings(device: str = CPU, precision: str = "bfloat16") -> Record:
    """10¹² operations and 2 · 10⁹ bytes a second."""
    found = record("ceilings", device, precision=precision)
    recipe = {name: found.job.recipe[name] for name in ("device", "threads", "precision")}
    job = Job(**{**found.job.as_dict(), "recipe": recipe})
    return Record(job, {"teraflops": 1.0, "gigabytes_per_second": 2.0}, found.provenance)


def cells(table: str) -> list[list[str]]:
    """Header and rows."""
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in (lines[0], *lines[2:])]


@pytest.fixture(autouse=True)
def _no_figure_left() -> Iterator[None]:
    yield
    plt.close("all")


# ---------------------------------------------------------------------------------------- speed


def test_speed_table_shows_gpus_then_small_networks_then_the_fastest_variant() -> None:
    records = [
        record(architecture="wrn-40-2", speed=10.0),
        record(speed=100.0),
        record(speed=1234.5, compile=True),
        record("evaluation", speed=400.0, precision="float32"),
        record(device=GPU, speed=98_765.0, compile=True, graphs=True, baseline_peak_bytes=3.1e9),
    ]
    header, *rows = cells(report.speed_table(frame(records), **LABELS))
    assert header[:4] == ["Device", "Work", "Library", "Images/s"]
    assert [row[:4] for row in rows] == [
        [GPU, "WRN-16-1 training", "bfloat16, compiled, CUDA graphs", "98,800"],
        [f"{CPU}, 2 threads", "WRN-16-1 training", "bfloat16, compiled", "1,230"],
        ["", "", "bfloat16, op by op", "100"],
        ["", "WRN-16-1 evaluation", "float32, op by op", "400"],
        ["", "WRN-40-2 training", "bfloat16, op by op", "10.0"],
    ]
    assert rows[0][4:] == ["24,700", "4.00 (3.90 to 4.10)"]


def test_start_table_has_time_memory_and_workers() -> None:
    records = [
        record(device=GPU, compile=True, graphs=True, baseline_peak_bytes=3.14e9),
        record("evaluation"),
        record(start_seconds=95.0),
    ]
    _, *rows = cells(report.start_table(frame(records), **LABELS))
    assert [row[3:] for row in rows] == [
        ["30 s", "0.25 s", "2 GB", "3.1 GB", "2"],
        ["2 min", "0.25 s", "2 GB", "–", "2"],
    ]


def test_together_table_has_every_way() -> None:
    ways = [(2, "together", 250.0), (8, "stacked", 700.0), (8, "processes", 600.0)]
    records = [
        record("networks at once", speed=speed, networks=networks, way=way, baseline_images_per_second=100.0)
        for networks, way, speed in ways
    ]
    _, *rows = cells(report.together_table(frame([*records, record()]), **LABELS))
    assert [row[1:5] for row in rows] == [
        ["2 × WRN-16-1", "the library", "250", "100"],
        ["8 × WRN-16-1", "stacked into one network", "700", "100"],
        ["", "one process each", "600", "100"],
    ]


@pytest.mark.parametrize(
    "table", [report.speed_table, report.start_table, report.together_table, report.ceilings_table, report.bounds_table]
)
def test_what_is_not_recorded_says_so(table: Any) -> None:
    _, row = cells(table(frame([]), **LABELS))
    assert row[0] == "not run"
    assert set(row[1:]) == {"–"}


# ---------------------------------------------------------------------------------------- bounds


def test_bounds_are_the_ceilings_over_what_an_image_needs() -> None:
    """By hand: 10¹² / 10⁹ = 1,000 images/s by compute; 2 · 10⁹ / 4 · 10⁶ = 500 by memory, of which 250 are a half."""
    records = [
        ceilings(),
        record(speed=250.0, compile=True),
        record(speed=200.0),
        record("adversarial training", speed=60.0, flops_per_image=1e10, bytes_per_image=4e6),
        record(speed=50.0, precision="float32"),  # without a ceiling there is no bound
    ]
    rows = cost.bounds(frame(records))
    columns = ["method", "images_per_second", "compute_bound", "memory_bound", "binds", "share"]
    assert rows[columns].to_numpy().tolist() == [
        ["training", 250.0, 1000.0, 500.0, "memory", 0.5],
        ["adversarial training", 60.0, 100.0, 500.0, "compute", 0.6],
    ]
    _, first, second = cells(report.bounds_table(frame(records), **LABELS))
    assert first[1:] == [
        "WRN-16-1 training, bfloat16",
        "1.00",
        "4.00",
        "1,000",
        "500",
        "250",
        "50 % (memory)",
    ]
    assert second[-1] == "60 % (compute)"
    assert cells(report.ceilings_table(frame(records), **LABELS))[1][2:] == ["1.00", "2.00"]


def test_a_candidate_that_the_library_lacks_is_not_its_speed() -> None:
    records = [ceilings(), record(speed=100.0)]
    for way, speed in (("stacked", 400.0), ("together", 300.0), ("processes", 200.0)):
        records.append(record("networks at once", speed=speed, networks=4, way=way, baseline_images_per_second=110.0))
    rows = cost.bounds(frame(records))
    assert rows.set_index("method")["images_per_second"].to_dict() == {"training": 100.0, "networks at once": 300.0}
    fast = cost.speeds(frame(records))
    assert fast[["method", "alone", "best"]].to_numpy().tolist() == [["training", 110.0, 300.0]]


def test_figure_has_a_panel_a_device_and_marks_where_the_numbers_are() -> None:
    records = []
    for device in (GPU, CPU):
        records += [ceilings(device), ceilings(device, "float32"), record(device=device, speed=250.0)]
        records += [record(device=device, speed=100.0, precision="float32"), record("evaluation", device, 300.0)]
    figure = report.bounds_figure(frame(records))
    assert [panel.get_title(loc="left") for panel in figure.axes] == [GPU, f"{CPU}, 2 threads"]
    for panel in figure.axes:
        assert (panel.get_xscale(), panel.get_xlabel()) == ("log", "images/s")
        words = [label.get_text() for label in panel.get_yticklabels()]
        assert words == ["WRN-16-1 training,\nbfloat16", "WRN-16-1 evaluation,\nbfloat16"]  # the faster precision alone
        marks = {line.get_label(): line.get_xydata().tolist() for line in panel.lines[:5]}
        assert marks["this library"] == [[250.0, 0.0]]
        assert marks["textbook loop"] == [[62.5, 0.0]]
        assert marks["bound by compute"] == [[1000.0, 0.0]]
        assert marks["bound by memory"] == [[500.0, 0.0]]
        assert panel.get_legend() is None
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4
    styles = {(line.get_marker(), line.get_color()) for line in figure.axes[0].lines[1:5]}
    assert len({marker for marker, _ in styles}) == len({color for _, color in styles}) == 4


def test_figure_without_records_says_so() -> None:
    (panel,) = report.bounds_figure(frame([])).axes
    assert [text.get_text() for text in panel.texts] == ["not run"]


# ---------------------------------------------------------------------------------------- the whole


def job(section: str = "calibration", dataset: str = "cifar10", **changes: Any) -> Job:
    fields = {"profile": "paper", "init": "scratch", "method": "standard", "level": None, "seed": 0}
    recipe = {"architecture": "wrn-16-1", "epochs": 10, "train_images": 0}
    for name, value in changes.items():
        (recipe if name in recipe else fields)[name] = value
    return Job(section=section, dataset=dataset, recipe=recipe, **fields)


def test_work_is_epochs_times_images() -> None:
    work = report.planned_work(
        [
            job(),  # 10 epochs of 50,000
            job(),  # the same job counts once
            job(seed=1, train_images=2000, epochs=3),
            job(dataset="tiny_imagenet", epochs=1),  # 100,000 of four times the size
            job("pretraining", "imagenet32_160000x275", epochs=2),
            job("pretraining", "imagenet64-no-tiny"),
            job("adversarial", method="normal", epochs=1),
            job("adversarial", method="adversarial", epochs=1),
        ]
    )
    columns = ["section", "method", "jobs", "images", "unknown"]
    assert work[columns].to_numpy().tolist() == [
        ["calibration", "training", 3, 500_000 + 6_000 + 400_000, 0],
        ["pretraining", "training", 2, 320_000, 1],
        ["adversarial", "training", 1, 50_000, 0],
        ["adversarial", "adversarial training", 1, 50_000, 0],
    ]


def test_reproduction_takes_images_over_the_fastest_speed() -> None:
    """By hand: half a million images at 100 a second are 83 minutes, at 250 a second 33."""
    work = report.planned_work(
        [
            job(),
            job("pretraining", "imagenet32_500000x275", epochs=1),
            job("pretraining", "imagenet64-no-tiny", epochs=1),
            job("ood", architecture="wrn-40-2"),
        ]
    )
    together = record("networks at once", speed=250.0, networks=2, way="together", baseline_images_per_second=90.0)
    header, *rows = cells(report.reproduction_table(work, frame([record(speed=100.0), together]), **LABELS))
    assert header[-2:] == ["Images (millions)", f"{CPU}, 2 threads"]
    assert [row[1:] for row in rows[:4]] == [
        ["Calibration", "WRN-16-1", "1", "0.500", "33 min"],
        ["Pre-training", "WRN-16-1", "2", "at least 0.500", "at least 83 min"],
        ["Out-of-distribution detection", "WRN-40-2", "1", "0.500", "not measured"],
        ["**all**", "", "4", "at least 1.50", "at least 1.9 h"],
    ]
    missing = [title for name, title in SECTIONS.items() if name not in ("calibration", "ood")]
    assert [row[1:3] for row in rows[4:]] == [[title, "no jobs planned yet"] for title in missing]


def test_a_section_may_train_nothing_of_its_own() -> None:
    work = report.planned_work([job("ood"), job()], lambda one: 0.0 if one.section == "ood" else None)
    assert work.set_index("section")["images"].to_dict() == {"ood": 0, "calibration": 500_000}


def test_reproduction_has_a_column_a_device() -> None:
    header, row, *_ = cells(
        report.reproduction_table(
            report.planned_work([job()]), frame([record(speed=10.0), record(device=GPU, speed=10_000.0)]), **LABELS
        )
    )
    assert header[-2:] == [GPU, f"{CPU}, 2 threads"]
    assert row[-2:] == ["50 s", "13.9 h"]


def test_reproduction_without_records_still_says_how_much_there_is() -> None:
    header, row, *_ = cells(report.reproduction_table(report.planned_work([job()]), frame([]), **LABELS))
    assert header[-1] == "Time"
    assert row[-2:] == ["0.500", "not measured"]


def test_everything_planned_can_be_counted() -> None:
    scales = [profile(name) for name in ("cpu", "paper")]
    planned = [one for scale in scales for module in sections.SECTIONS.values() for one in module.jobs(scale.name)]
    planned += [pretraining.job(scale, target) for scale in scales for target in scale.targets.values()]
    work = report.planned_work(planned)
    assert work["jobs"].sum() == len({one.key for one in planned if "architecture" in one.recipe})
    assert (work["images"] > 0).all()
    assert set(sections.SECTIONS) <= set(work["section"])


def test_gpu_note_names_the_gpus_or_the_command() -> None:
    assert report.gpu_note(frame([record(), record(device=GPU)])) == f"GPUs measured: {GPU}.\n"
    for nothing in (frame([record()]), frame([])):
        note = report.gpu_note(nothing)
        assert note.startswith("No GPU has been benchmarked yet.")
        assert "python -m benchmarks --device cuda" in note


def test_cost_has_a_command_of_its_own() -> None:
    assert report.rerun_command("cost", "cpu", "random", [0]) == "python -m benchmarks --device cpu"
    assert report.rerun_command("cost", "paper", "random", [0]) == "python -m benchmarks --device cuda"
    assert "python -m benchmarks --device cuda" in report.made_by(frame([record(device=GPU)]), "cost")


@pytest.mark.parametrize(
    ("value", "text"), [(123456.0, "123,000"), (999.6, "1,000"), (12.34, "12.3"), (0.0533, "0.0533"), (0.0, "–")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert cost._number(value) == text


def test_the_whole_has_every_pre_training_that_a_job_starts_from() -> None:
    cells = [cell for cell in Path("notebooks/cost.py").read_text().split("# %%") if "planned_work" in cell]
    space: dict[str, object] = {"recorded": frame(load_published("cost"))}
    exec("from robustness_lib import notebook, pretraining, profiles, records, report, sections", space)
    exec(cells[0].partition("\n")[2], space)
    planned = space["planned"]
    assert isinstance(planned, list)
    made = {pretraining.checkpoint_id(job) for job in planned if job.section == "pretraining"}
    assert {job.init for job in planned} - {SCRATCH} == made
    assert any("_untargeted_" in name for name in made)
    work = report.planned_work([job for job in planned if job.section == "pretraining"])
    assert work["images"].sum() > 0


def test_a_part_of_a_corpus_counts_as_what_it_is() -> None:
    scale = profile("cpu")
    jobs = pretraining.pretrainings(scale, scale.targets["cifar10"])
    [small] = [job for job in jobs if job.recipe["train_images"] == 14_000 and "tenth" not in job.dataset]
    assert cost._images(small) == 14_000 * small.recipe["epochs"]
    [whole] = jobs[:1]
    assert cost._images(whole) == 160_000 * whole.recipe["epochs"]


def test_the_whole_cost_is_said_in_a_sentence() -> None:
    work = report.planned_work(calibration.jobs("cpu"), sections.images_trained)
    found = frame(load_published("cost"))
    table = report.reproduction_table(work, found, caption="c", name="n")
    note = report.reproduction_note(work, found)
    assert note.startswith("**In short.** On ")
    last = [line for line in table.splitlines() if "**all**" in line][-1].strip("| ").split(" | ")[-1]
    assert f"all of `cpu` takes {last} of training" in note
    assert report.reproduction_note(work, found.iloc[:0]) == ""
    another = frame([record(device=GPU, architecture="wrn-28-10")])
    assert report.reproduction_note(work, another) == ""  # nothing planned is measured there
