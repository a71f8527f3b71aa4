"""Results that are carried between machines: what ``--out`` keeps while work goes on, and ``merge``."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
import toys
from toys import Command

from robustness_lib import carrying, networks, pretraining
from robustness_lib.checkpoints import load_weights, save_weights
from robustness_lib.errors import UserError
from robustness_lib.networks import keep_checkpoint, merge_checkpoints
from robustness_lib.profiles import PROFILES
from robustness_lib.records import Merged, Record, Store, keep, load_published
from robustness_lib.sweep import sweep

SMALL = ("--set", "train_images=20", "--set", "epochs=1", "--set", "batch_size=20", "--set", "observations=1")
PLACE = ("--data-root", "data", "--device", "cpu", "--precision", "float32", "--threads", "1")
OWN = ("--dataset", "own", "--seeds", "0", "--set", "pretraining.epochs=1", *SMALL, *PLACE)
RUN = ("run", "calibration", *OWN, "--out", "out")
SHOWS = "; 'robustness show calibration' has the numbers"
PRETRAIN = ("pretrain", "--corpus", "corpus", "--set", "epochs=1", *PLACE)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``robustness`` in an empty folder where the smoke profile has two small data sets of its own."""
    toys.write_bundle(tmp_path / "data", "own", 40, 4)
    toys.write_bundle(tmp_path / "data", "corpus", 60, 5)
    target = dataclasses.replace(PROFILES["smoke"].targets["synthetic"], corpus="corpus", corpus_holds="corpus_60x5")
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], targets={"own": target}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROBUSTNESS_DATA", raising=False)

    return toys.command(monkeypatch, capfd)


def refused(command: Command, *arguments: str) -> str:
    """The one sentence of a mistake."""
    status, out, err = command(*arguments)
    assert (status, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: ")
    return line


def tree(folder: Path | str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def forbid(*arguments: object, **options: object) -> None:
    raise AssertionError("trained again")


def measured(seed: int = 0, date: str = "2020-01-01", **metrics: float) -> Record:
    return Record(toys.toy_job(seed), {"error": 0.25, **metrics}, {"seconds": 1.0, "date": date})


# ---------------------------------------------------------------------------------------- keeping


def test_out_holds_in_few_files_what_the_jobs_have_in_the_store(command: Command) -> None:
    status, out, err = command(*RUN)
    assert (status, out) == (0, f"calibration: 4 recorded, 0 were recorded before{SHOWS}\n")
    assert "out:" not in err
    [checkpoint] = Path("runs/checkpoints").iterdir()
    assert set(tree("out")) == {"calibration.jsonl", "pretraining.jsonl", f"checkpoints/{checkpoint.name}"}
    assert Path("out/checkpoints", checkpoint.name).read_bytes() == checkpoint.read_bytes()
    for section in ("calibration", "pretraining"):
        lines = Path(f"out/{section}.jsonl").read_text().splitlines()
        assert lines == [record.to_json() for record in Store("runs").records(section)]
        keys = [json.loads(line)["key"] for line in lines]
        assert keys == sorted(keys)


def test_nothing_is_lost_with_the_machine(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is repeated where the store is gone and only the folder was carried over."""
    command(*RUN, "--method", "standard")
    first = tree("out")
    shutil.rmtree("runs")
    monkeypatch.setattr(pretraining, "train", forbid)
    status, out, err = command(*RUN)
    assert (status, out) == (0, f"calibration: 2 recorded, 2 were recorded before{SHOWS}\n")
    assert "out: 3 records added to runs, 0 were there already\n" in err
    assert "out: 1 checkpoints added to runs, 0 were there already\n" in err
    lines = first.pop("calibration.jsonl").splitlines()
    assert set(lines) < set(Path("out/calibration.jsonl").read_bytes().splitlines())
    assert first.items() <= tree("out").items()
    before = tree("out")
    shutil.rmtree("runs")
    monkeypatch.setattr(networks, "train", forbid)
    assert command(*RUN)[:2] == (0, f"calibration: 0 recorded, 4 were recorded before{SHOWS}\n")
    assert tree("out") == before


def test_what_was_recorded_before_is_kept_and_what_the_folder_holds_stays(command: Command) -> None:
    command(*RUN, "--out", "elsewhere")
    keep([measured()], Path("out"))
    other = Path("out/toy.jsonl").read_text()
    status, out, _ = command(*RUN, "--time-budget", "0")
    assert (status, out) == (0, f"calibration: 0 recorded, 4 were recorded before{SHOWS}\n")
    assert len(load_published("calibration", Path("out"))) == 4
    assert Path("out/toy.jsonl").read_text() == other
    assert len(Store("runs").records("toy")) == 1


def test_checkpoint_that_comes_with_the_repository_is_not_copied(command: Command) -> None:
    name = command(*PRETRAIN)[1].splitlines()[0]
    Path("book").mkdir()
    Path("runs/checkpoints").rename("book/checkpoints")
    shutil.rmtree("runs")
    arguments = (*RUN, "--method", "standard", "--init", name)
    assert command(*arguments)[1] == f"calibration: 2 recorded, 0 were recorded before{SHOWS}\n"
    assert set(tree("out")) == {"calibration.jsonl"}
    shutil.copytree("book/checkpoints", "runs/checkpoints")
    keep_checkpoint(name, Path("runs"), Path("out"))
    assert not Path("out/checkpoints").exists()


def test_pretraining_alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (*PRETRAIN, "--out", "out")
    status, out, _ = command(*arguments)
    assert status == 0
    name = out.splitlines()[0]
    before = tree("out")
    assert set(before) == {"pretraining.jsonl", f"checkpoints/{name}.safetensors"}
    shutil.rmtree("runs")
    monkeypatch.setattr(pretraining, "train", forbid)
    assert command(*arguments)[:2] == (0, out)
    assert tree("out") == before
    assert tree("runs/checkpoints") == {f"{name}.safetensors": before[f"checkpoints/{name}.safetensors"]}


def test_two_commands_share_a_folder(command: Command) -> None:
    command(*RUN, "--method", "standard")
    command(*RUN, "--method", "temperature", "--store", "others")
    found = load_published("calibration", Path("out"))
    assert {r.job.method for r in found} == {"standard", "temperature"}
    assert len(found) == 4
    assert len(Store("others").records("calibration")) == 4


def test_remains_of_a_killed_process_are_removed(command: Command) -> None:
    Path("out/checkpoints").mkdir(parents=True)
    for name in ("out/calibration.jsonl", "out/checkpoints/some.safetensors"):
        folder, _, file = name.rpartition("/")
        Path(folder, f".{file}.0123abcd").write_bytes(b"half")
    Path("out/.calibration.jsonl.swp").write_text("what an editor keeps")
    command(*PRETRAIN, "--out", "out")
    assert [name for name in tree("out") if "/." in f"/{name}"] == [".calibration.jsonl.swp"]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("runs", "lies inside the store runs"),
        ("runs/out", "lies inside the store runs"),
        ("data/../runs/out", "lies inside the store runs"),
        ("file", "could not make the folder file (File exists)"),
        ("file/out", "could not make the folder file/out (Not a directory)"),
    ],
)
@pytest.mark.parametrize("arguments", [RUN, PRETRAIN], ids=["run", "pretrain"])
def test_unsuitable_folder_is_refused_before_anything_is_trained(
    command: Command, arguments: tuple[str, ...], folder: str, expected: str
) -> None:
    Path("file").write_text("not a folder")
    line = refused(command, *arguments, "--out", folder)
    assert expected in line
    assert "choose" in line
    assert not Path("runs/checkpoints").exists()
    assert not Path("runs/records").exists()


def test_folder_that_cannot_be_written_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**options: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(carrying.tempfile, "TemporaryFile", read_only)
    assert "no results can be kept in out (Read-only file system); choose" in refused(command, *RUN)
    assert not Path("runs/records").exists()


@pytest.mark.parametrize("arguments", [RUN, PRETRAIN], ids=["run", "pretrain"])
def test_damaged_folder_is_refused_and_left_as_it_is(command: Command, arguments: tuple[str, ...]) -> None:
    keep([measured(0), measured(1)], Path("out"))
    whole = Path("out/toy.jsonl").read_bytes()
    Path("out/toy.jsonl").write_bytes(whole[:-40])
    before = tree("out")
    assert "line 2 of out/toy.jsonl is not a whole record" in refused(command, *arguments, "--out", "out")
    assert tree("out") == before
    Path("out/toy.jsonl").write_bytes(whole)
    Path("out/checkpoints").mkdir()
    Path("out/checkpoints/some.safetensors").write_bytes(b"no weights")
    assert "out/checkpoints/some.safetensors is not a whole" in refused(command, *arguments, "--out", "out")
    assert not Path("runs/checkpoints").exists()


def test_damaged_checkpoint_of_the_store_is_not_kept(tmp_path: Path) -> None:
    save_weights(tmp_path / "runs/checkpoints/some.safetensors", {"w": torch.ones(4)}, {})
    path = tmp_path / "runs/checkpoints/some.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(UserError, match="is damaged"):
        keep_checkpoint("some", tmp_path / "runs", tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_full_disk_stops_the_command_and_the_store_keeps_the_record(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = carrying.records.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.name == "calibration.jsonl":
            raise UserError("could not write calibration.jsonl (No space left on device); make room")
        real(path, content)

    monkeypatch.setattr(carrying.records, "write_atomically", full)
    status, out, err = command(*RUN, "--method", "standard")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: could not write calibration.jsonl (No space left on device)")
    assert len(Store("runs").records("calibration")) == 1
    monkeypatch.undo()


# ---------------------------------------------------------------------------------------- real processes


def test_killed_at_any_moment_the_folder_is_whole_and_work_goes_on_from_it_alone(
    command: Command, tmp_path: Path
) -> None:
    name = command(*PRETRAIN, "--out", "out")[1].splitlines()[0]
    arguments = (*RUN, "--seeds", "0-49", "--method", "standard", "--init", name)

    def lines() -> list[str]:
        return [record.to_json() for record in load_published("calibration", tmp_path / "out")]

    before: list[str] = []
    for more in (1, 3):
        shutil.rmtree("runs")
        with toys.child(toys.command_child, arguments, tmp_path) as child:
            enough = len(before) + more
            toys.wait_for(lambda enough=enough: len(lines()) >= enough)  # every look at it finds whole lines
            child.kill()
            child.join()
        assert set(before) < set(lines())
        before = lines()
        assert load_weights(Path(f"out/checkpoints/{name}.safetensors"))[0]
    count = len(before)
    assert 4 <= count < 100
    shutil.rmtree("runs")
    told = f"0 recorded, {count} were recorded before, {100 - count} not started for lack of time"
    assert told in command(*arguments, "--time-budget", "0")[1]
    assert lines() == before


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


# ---------------------------------------------------------------------------------------- merging


def checkpoint(folder: str, name: str, weight: float, speed: str = "1") -> Path:
    path = Path(folder) / "checkpoints" / f"{name}.safetensors"
    save_weights(path, {"w": torch.full((4,), weight)}, {"images_per_second": speed})
    return path


def test_merge_then_again(command: Command) -> None:
    keep([measured(0), measured(1)], Path("a"))
    checkpoint("a", "one", 1.0)
    checkpoint("a", "one.partial", 0.5)  # of a training that did not end
    Store("b").add(measured(2))
    status, out, err = command("merge", "a", "b")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "a: 2 records added to runs, 0 were there already",
        "a: 1 checkpoints added to runs, 0 were there already",
        "b: 1 records added to runs, 0 were there already",
    ]
    before = tree("runs")
    assert [name for name in before if name.startswith("checkpoints")] == ["checkpoints/one.safetensors"]
    assert [r.job.seed for r in sorted(Store("runs").records(), key=lambda r: r.job.seed)] == [0, 1, 2]
    status, out, err = command("merge", "a", "b", "--store", "runs")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "a: 0 records added to runs, 2 were there already",
        "a: 0 checkpoints added to runs, 1 were there already",
        "b: 0 records added to runs, 1 were there already",
    ]
    assert tree("runs") == before


def test_conflicts_are_told_and_resolved_whatever_the_order(command: Command) -> None:
    keep([measured(0, "2020-01-01"), measured(1, "2021-01-01", loss=3.0), measured(2, "2021-01-01")], Path("a"))
    keep([measured(0, "2020-01-02", error=0.2), measured(1, loss=2.0), measured(2), measured(3)], Path("b"))
    checkpoint("a", "one", 1.0)
    checkpoint("b", "one", 2.0)
    checkpoint("a", "two", 1.0, speed="1")
    checkpoint("b", "two", 1.0, speed="2")
    status, out, err = command("merge", "a", "b", "--store", "ab")
    assert (status, err) == (0, "")
    assert out.splitlines()[2:] == [
        "b: 1 records added to ab, 0 were there already, 1 were measured twice with equal metrics (the earlier of each "
        "is kept)",
        "b: 0 checkpoints added to ab, 1 were there already",
        "b: 2 records were there with other metrics; the largest relative difference is 0.33, in loss of toy toys "
        "scratch train seed 1; the earlier are kept",
        "b: 1 checkpoints were there with other weights (one); of each, the repository's own is kept, else the one "
        "with the lower SHA-256 sum",
    ]
    assert command("merge", "b", "a", "--store", "ba")[0] == 0
    assert tree("ab") == tree("ba")
    kept = {r.job.seed: (r.metrics, r.provenance["date"]) for r in Store("ab").records()}
    assert kept == {
        0: ({"error": 0.25}, "2020-01-01"),
        1: ({"error": 0.25, "loss": 2.0}, "2020-01-01"),
        2: ({"error": 0.25}, "2020-01-01"),
        3: ({"error": 0.25}, "2020-01-01"),
    }
    before = tree("ab")
    assert command("merge", "a", "b", "ba", "--store", "ab")[0] == 0
    assert tree("ab") == before


def test_checkpoint_of_the_repository_is_the_one_that_counts(command: Command) -> None:
    shipped = checkpoint("book", "one", 1.0).read_bytes()
    for weight in (2.0, 3.0):
        checkpoint(f"other{weight}", "one", weight)
        found = merge_checkpoints(Path(f"other{weight}"), Path("runs"))
        assert found == Merged(differing=["one"])
    assert merge_checkpoints(Path("book"), Path("runs")) == Merged(same=1)
    assert networks.find_checkpoint("one", Path("runs")) == Path("book/checkpoints/one.safetensors")
    assert Path("book/checkpoints/one.safetensors").read_bytes() == shipped


def test_damage_is_named_and_the_rest_is_merged(command: Command) -> None:
    keep([measured(0), measured(1), measured(2)], Path("a"))
    lines = Path("a/toy.jsonl").read_text().splitlines()
    Path("a/toy.jsonl").write_text("\n".join([lines[0], lines[1][: len(lines[1]) // 2], lines[2]]))
    whole, damaged = checkpoint("a", "one", 1.0), checkpoint("a", "two", 2.0)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    cut = checkpoint("a", "three", 3.0)
    cut.write_bytes(cut.read_bytes()[:-5])
    status, out, err = command("merge", "a")
    assert status == 1
    assert out.splitlines() == [
        "a: 2 records added to runs, 0 were there already",
        "a: 1 checkpoints added to runs, 0 were there already",
    ]
    in_line, in_cut, in_damaged = err.splitlines()
    assert in_line.startswith("line 2 of a/toy.jsonl is not a whole record (")
    assert in_cut.startswith(f"{cut} is not a whole safetensors file")
    assert in_damaged.startswith(f"{damaged} is damaged: its content has SHA-256")
    assert tree("runs/checkpoints") == {"one.safetensors": whole.read_bytes()}
    assert len(Store("runs").records()) == 2


def test_damaged_checkpoint_of_the_store_is_replaced(tmp_path: Path) -> None:
    for folder in ("a", "runs"):
        save_weights(tmp_path / folder / "checkpoints/one.safetensors", {"w": torch.ones(4)}, {})
    path = tmp_path / "runs/checkpoints/one.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    assert merge_checkpoints(tmp_path / "a", tmp_path / "runs") == Merged(added=1)
    assert path.read_bytes() == (tmp_path / "a/checkpoints/one.safetensors").read_bytes()


@pytest.mark.parametrize("folder", ["empty", "blank", "missing", "file"])
def test_nothing_to_merge_is_a_mistake(command: Command, folder: str) -> None:
    Path("empty/checkpoints").mkdir(parents=True)
    Path("blank").mkdir()
    Path("blank/calibration.jsonl").write_bytes(b"")
    Path("file").write_text("not a folder")
    line = refused(command, "merge", folder)
    assert ("holds nothing to merge" if folder in ("empty", "blank") else f"there is no folder {folder};") in line
    assert "give a folder that --out filled, or another store" in line
    assert not Path("runs").exists()


def test_store_that_cannot_be_written(command: Command) -> None:
    keep([measured(0)], Path("a"))
    Path("file").write_text("not a folder")
    assert "--store is file, which is no folder" in refused(command, "merge", "a", "--store", "file")
