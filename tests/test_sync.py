"""Results of several machines: what ``--out`` mirrors while work goes on, and ``merge``."""

import dataclasses
import os
import re
import shutil
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
import toys
from toys import Command, refused

from robustness_lib.experiments import pretraining
from robustness_lib.experiments.presets import PROFILES
from robustness_lib.models.checkpoints import save_weights
from robustness_lib.runner import model_cache
from robustness_lib.runner.records import Record, Store, publish
from robustness_lib.runner.sweep import sweep
from robustness_lib.runner.sync import Merged, merge

SMALL = ("--set", "train_images=20", "--set", "epochs=1", "--set", "batch_size=20", "--set", "observations=1")
PLACE = ("--data-root", "data", "--device", "cpu", "--precision", "float32", "--threads", "1")
OWN = ("--dataset", "own", "--seeds", "0", "--set", "pretraining.epochs=1", *SMALL, *PLACE)
RUN = ("run", "calibration", *OWN, "--out", "out")
SHOWS = "; 'robustness show calibration --profile smoke' has the numbers"
PRETRAIN = ("pretrain", "--corpus", "corpus", "--set", "epochs=1", *PLACE)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``robustness`` in an empty folder where the smoke profile has two small data sets of its own."""
    toys.write_bundle(tmp_path / "data", "own", 40, 4)
    toys.write_bundle(tmp_path / "data", "corpus", 60, 5)
    target = dataclasses.replace(PROFILES["smoke"].targets["synthetic"], corpus_holds="corpus_60x5")
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], targets={"own": target}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTNESS_DATA", raising=False)

    return toys.command(monkeypatch, capfd)


def tree(folder: Path | str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def measured(seed: int = 0, date: str = "2020-01-01", **metrics: float) -> Record:
    return Record(toys.toy_job(seed), {"error": 0.25, **metrics}, {"seconds": 1.0, "date": date})


def test_out_mirrors_what_the_jobs_have_in_the_store(command: Command) -> None:
    status, out, err = command(*RUN)
    assert (status, out) == (0, f"calibration: 4 recorded{SHOWS}\n")
    assert "out:" not in err
    store, copy = tree("runs"), tree("out")
    assert copy == {name: store[name] for name in store if name.startswith(("records/", "checkpoints/"))}
    assert len(copy) == 4 + 1 + 1  # the records, and the pre-training with its checkpoint


def test_nothing_is_lost_with_the_machine(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is repeated where the store is gone and only the folder was taken along."""
    command(*RUN, "--method", "standard")
    first = tree("out")
    shutil.rmtree("runs")
    monkeypatch.setattr(pretraining, "train", toys.forbid)
    status, out, err = command(*RUN)
    assert (status, out) == (0, f"calibration: 2 recorded, 2 recorded before and not measured again{SHOWS}\n")
    assert "out: 4 records and checkpoints added to runs, 0 were there already\n" in err
    assert first.items() < tree("out").items()
    before = tree("out")
    shutil.rmtree("runs")
    monkeypatch.setattr(model_cache, "train", toys.forbid)
    assert command(*RUN)[:2] == (0, f"calibration: 0 recorded, 4 recorded before and not measured again{SHOWS}\n")
    assert tree("out") == before


def test_what_was_recorded_before_is_mirrored_and_what_the_folder_holds_stays(command: Command) -> None:
    command(*RUN, "--out", "elsewhere")
    Store("out").add(measured())
    status, out, _ = command(*RUN, "--time-budget", "0")
    assert (status, out) == (0, f"calibration: 0 recorded, 4 recorded before and not measured again{SHOWS}\n")
    assert len(Store("out").records("calibration")) == 4
    assert Store("out").records("toy") == Store("runs").records("toy") == [measured()]


def test_checkpoint_that_comes_with_the_repository_is_not_copied(command: Command) -> None:
    name = command(*PRETRAIN)[1].splitlines()[0]
    Path("book").mkdir()
    Path("runs/checkpoints").rename("book/checkpoints")
    shutil.rmtree("runs")
    assert command(*RUN, "--method", "standard", "--init", name)[0] == 0
    assert [Path(path).parts[:2] for path in tree("out")] == [("records", "calibration")] * 2


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("runs", "lies inside the store runs"),
        ("data/../runs/out", "lies inside the store runs"),
        ("file/out", "could not make the folder file/out (Not a directory)"),
        ("locked", "nothing can be written into locked"),
    ],
)
def test_unsuitable_folder_is_refused_before_anything_is_trained(
    command: Command, monkeypatch: pytest.MonkeyPatch, folder: str, expected: str
) -> None:
    Path("file").write_text("not a folder")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "locked" and access(path, mode))
    line = refused(command, *RUN, "--out", folder)
    assert expected in line
    assert "choose" in line
    assert not Path("runs/checkpoints").exists()
    assert not Path("runs/records").exists()


def test_damaged_folder_is_refused_and_left_as_it_is(command: Command) -> None:
    Store("out").add(measured())
    [path] = Path("out/records/toy").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    before = tree("out")
    assert f"{path} is not a whole record" in refused(command, *PRETRAIN, "--out", "out")
    assert tree("out") == before
    path.write_bytes(whole)
    Path("out/checkpoints").mkdir()
    Path("out/checkpoints/some.safetensors").write_bytes(b"no weights")
    assert "out/checkpoints/some.safetensors is not a whole" in refused(command, *PRETRAIN, "--out", "out")


def test_records_of_worker_processes_are_told_here_one_by_one(tmp_path: Path) -> None:
    jobs = [toys.toy_job(seed, method="nothing") for seed in range(4)]
    told: list[Record] = []

    def on_record(record: Record) -> None:
        assert Store(tmp_path).get(record.job) == record
        told.append(record)

    pool = ProcessPoolExecutor(2, mp_context=toys.CHILDREN)
    sweep(jobs, toys.toy_run, toys.context(tmp_path), executor=pool, workers=2, on_record=on_record)
    assert os.getpid() not in {pid for _, pid in toys.ran(tmp_path)}
    assert sorted(record.job.seed for record in told) == [0, 1, 2, 3]
    sweep(jobs, toys.toy_run, toys.context(tmp_path), on_record=on_record)
    assert len(told) == 4  # what was recorded before is not told again


def checkpoint(folder: str, name: str, weight: float) -> Path:
    path = Path(folder) / "checkpoints" / f"{name}.safetensors"
    save_weights(path, {"w": torch.full((4,), weight)}, {})
    return path


def fill(folder: str, *records: Record) -> None:
    for record in records:
        Store(folder).add(record)


def test_merge_then_again(command: Command) -> None:
    fill("a", measured(0), measured(1))
    checkpoint("a", "one", 1.0)
    checkpoint("a", "one.partial", 0.5)  # of a training that did not end
    publish([measured(2)], Path("b"))  # files as in book/results
    status, out, err = command("merge", "a", "b")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "a: 3 records and checkpoints added to runs, 0 were there already",
        "b: 1 records and checkpoints added to runs, 0 were there already",
    ]
    before = tree("runs")
    assert [name for name in before if name.startswith("checkpoints")] == ["checkpoints/one.safetensors"]
    assert sorted(r.job.seed for r in Store("runs").records()) == [0, 1, 2]
    assert command("merge", "a", "b", "--store", "runs")[1].splitlines() == [
        "a: 0 records and checkpoints added to runs, 3 were there already",
        "b: 0 records and checkpoints added to runs, 1 were there already",
    ]
    assert tree("runs") == before


def test_conflicts_are_named_and_the_earlier_record_stays_whatever_the_order(command: Command) -> None:
    """Records that differ in date, in numbers, in lists, in times alone; one without a date."""
    undated = dataclasses.replace(measured(4, error=0.5), provenance={"seconds": 1.0})
    fill("a", measured(0, "2020-01-01"), measured(1, "2021-01-01", loss=3.0), measured(2, "2021-01-01"), undated)
    fill("b", measured(0, "2020-01-02", error=0.2), measured(1, loss=2.0), measured(2, run_seconds=5.0), measured(4))
    checkpoint("a", "one", 1.0)
    checkpoint("b", "one", 2.0)
    status, out, err = command("merge", "a", "b", "--store", "ab")
    assert (status, err) == (0, "")
    toy = "toy toys scratch train seed"
    _, counts, conflicts = out.splitlines()
    assert counts == "b: 0 records and checkpoints added to ab, 1 were there already"
    assert conflicts.startswith("b: 4 were there with other results (")
    assert conflicts.endswith("); the earlier record of each stays, and the checkpoint that was there")
    assert sorted(re.split(r"[();] ?", conflicts)[1:5]) == ["one", f"{toy} 0", f"{toy} 1", f"{toy} 4"]
    assert command("merge", "b", "a", "--store", "ba")[0] == 0
    assert tree("ab/records") == tree("ba/records")
    kept = {r.job.seed: (r.metrics.get("loss"), r.metrics["error"]) for r in Store("ab").records()}
    assert kept == {0: (None, 0.25), 1: (2.0, 0.25), 2: (None, 0.25), 4: (None, 0.25)}
    before = tree("ab")
    assert command("merge", "a", "b", "ba", "--store", "ab")[0] == 0
    assert tree("ab") == before


def test_damage_is_named_and_the_rest_is_merged(command: Command) -> None:
    fill("a", measured(0), measured(1))
    Store("a").path(toys.toy_job(1)).write_bytes(b"")
    publish([measured(2), measured(3)], Path("a"))
    lines = Path("a/toy.jsonl").read_text().splitlines()
    Path("a/toy.jsonl").write_text("\n".join([lines[0], lines[1][:50]]))
    whole, damaged = checkpoint("a", "one", 1.0), checkpoint("a", "two", 2.0)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    status, out, err = command("merge", "a")
    assert status == 1
    assert out == "a: 3 records and checkpoints added to runs, 0 were there already\n"
    in_line, in_file, in_weights = err.splitlines()
    assert in_line.startswith("line 2 of a/toy.jsonl is not a whole record (")
    assert in_file.startswith(f"{Store('a').path(toys.toy_job(1))} is not a whole record (")
    assert in_weights.startswith(f"{damaged} is damaged: its content has SHA-256")
    assert tree("runs/checkpoints") == {"one.safetensors": whole.read_bytes()}
    assert len(Store("runs").records()) == 2


def test_what_is_damaged_in_the_store_is_replaced(command: Command) -> None:
    fill("a", measured())
    fill("runs", measured())
    whole = checkpoint("a", "one", 1.0)
    for path in (checkpoint("runs", "one", 1.0), Store("runs").path(toys.toy_job())):
        path.write_bytes(path.read_bytes()[:20])
    assert merge(Path("a"), Path("runs")) == Merged(added=2)
    assert Path("runs/checkpoints/one.safetensors").read_bytes() == whole.read_bytes()
    assert Store("runs").records() == [measured()]


def test_merge_waits_for_a_job_that_is_being_measured(tmp_path: Path) -> None:
    fill(str(tmp_path / "a"), measured())
    store = Store(tmp_path / "runs")
    merging = threading.Thread(target=merge, args=(tmp_path / "a", store.folder))
    with store.lock(toys.toy_job(), wait=True):
        merging.start()
        merging.join(0.2)
        assert merging.is_alive()
        store.add(measured(0, "2021-01-01", error=0.5))
    merging.join(60)
    assert store.records() == [measured()]


@pytest.mark.parametrize("folder", ["empty", "missing", "file"])
def test_nothing_to_merge_is_a_mistake(command: Command, folder: str) -> None:
    Path("empty/checkpoints").mkdir(parents=True)
    Path("file").write_text("not a folder")
    line = refused(command, "merge", folder)
    assert ("holds nothing to merge" if folder == "empty" else f"there is no folder {folder};") in line
    assert "give a folder that --out filled, or another store" in line
    assert not Path("runs").exists()
