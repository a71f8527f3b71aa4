"""Keys, canonical JSON, the store, damaged files, publishing, and what tells records apart."""

import dataclasses
import errno
import fcntl
import functools
import itertools
import json
import math
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from robustness_lib.errors import UserError
from robustness_lib.files import remove_leftovers, write_atomically
from robustness_lib.report.comparison import distinctions
from robustness_lib.runner import provenance
from robustness_lib.runner.provenance import code_revision
from robustness_lib.runner.records import Job, Record, Store, canonical_json, check_metrics, load_published, publish
from robustness_lib.runner.sync import Merged, merge

SETTING: dict[str, Any] = {"section": "calibration", "profile": "cpu", "dataset": "cifar10", "init": "scratch"}
RECIPE = {"architecture": "wrn-16-1", "epochs": 60, "learning_rate": 0.1, "flip": True}
JOB = Job(**SETTING, method="standard", level=None, seed=0, recipe=RECIPE)


def record(seed: int = 0, error: float = 0.25, **changes: Any) -> Record:
    job = dataclasses.replace(JOB, seed=seed, **changes)
    return Record(job, {"error": error, "history_error": [0.5, error]}, {"seconds": 1.5, "date": "2020-01-01"})


def test_key_is_the_same_on_every_machine_and_in_every_version() -> None:
    text = (
        '{"dataset":"cifar10","init":"scratch","level":null,"method":"standard","profile":"cpu","recipe":'
        '{"architecture":"wrn-16-1","epochs":60,"flip":true,"learning_rate":0.1},"section":"calibration","seed":0}'
    )
    assert canonical_json(JOB.as_dict()) == text
    assert JOB.key == "6a56d4f2d8a19323"
    assert dataclasses.replace(JOB, recipe=dict(reversed(list(JOB.recipe.items())))).key == JOB.key
    assert dataclasses.replace(JOB, level=1).key == dataclasses.replace(JOB, level=1.0).key


PLAIN = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=20)


@settings(max_examples=20)
@given(PLAIN, st.integers(-(2**62), 2**62), st.none() | st.floats(-1e300, 1e300), st.floats(0, 1))
def test_round_trip(text: str, seed: int, level: float | None, error: float) -> None:
    job = dataclasses.replace(
        JOB, method=text, seed=seed, level=level, recipe={"note": text, "epochs": 3, "none": None}
    )
    first = Record(job, {"error": error, "curve": [error, 1.0]}, {"seconds": 2.5, "data": {text: "ab"}})
    again = Record.from_json(first.to_json())
    assert again == first
    assert again.job.key == job.key
    assert again.to_json() == first.to_json()


LINE = record().to_json()
REPLACED = [('"seed":0', '"seed":1'), ('"seed":0', '"seeds":0'), ('"metrics"', '"metric"'), ('"key"', '"more":1,"key"')]
SPOILED = [LINE[:100], LINE[:-1], "", "null", "[]", "[" * 200_000, *(LINE.replace(*pair) for pair in REPLACED)]
SPOILED += [json.dumps(json.loads(LINE) | part) for part in ({"metrics": [1]}, {"provenance": None}, {"job": []})]


@pytest.mark.parametrize("spoiled", SPOILED, ids=range(len(SPOILED)))
def test_damage_is_seen(spoiled: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.from_json(spoiled)


@pytest.mark.parametrize("name", ["section", "profile", "dataset", "init"])
@pytest.mark.parametrize(
    "value", ["", "../../evil", "/tmp/x", "a/b", "<img src=x onerror=alert(1)>", "\x1b[2J", "a\nb", 7]
)
def test_names_of_a_job_are_harmless(name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"the {name} of a job or record cannot be "):
        dataclasses.replace(JOB, **{name: value})  # type: ignore[arg-type]


def each(fields: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in fields.items() for value in values]


WRONG = {"level": [10**400, math.nan], "seed": [True, 2**63], "method": [["standard"], "\x07"], "recipe": [[]]}
SETTINGS = {"epochs": ["abc", 0], "batch_size": [10**400], "learning_rate": [math.inf], "flip": [1], "<b>": [1]}
SETTINGS |= {"schedule": ["<b>"], "note": [{"a": 1}, "`rm`"]}


@pytest.mark.parametrize(("name", "value"), each(WRONG) + [("recipe", dict([one])) for one in each(SETTINGS)], ids=str)
def test_fields_of_a_job_have_their_type_and_range(name: str, value: object) -> None:
    with pytest.raises(UserError):
        dataclasses.replace(JOB, **{name: value})  # type: ignore[arg-type]


METRICS = {"error": [10**400, "0.5", True, [[0.5]], [0.5, math.nan]], "<b>": [0.5]}
SOURCE = {"seconds": [10**400, -1], "device": ["<img src=x onerror=alert(1)>", "CPU \x1b]0;x\x07"], "threads": [0]}
SOURCE |= {"compile": ["yes"], "data": [{"<b>/test": "00"}], "trained_on": ["CPU"], "changed": [{"epochs": [1]}]}
SOURCE |= {"more": [{"deep": [1]}]}


@pytest.mark.parametrize("part", ["metrics", "provenance"])
def test_fields_of_a_record_have_their_type_and_range(part: str) -> None:
    for name, value in each(METRICS if part == "metrics" else SOURCE):
        data = json.loads(record().to_json())
        data[part][name] = value
        with pytest.raises(UserError, match=rf"the {part}.* of a job or record cannot be .*; give another"):
            Record.from_json(json.dumps(data))


def test_metrics_are_plain_finite_floats() -> None:
    found = check_metrics({"a": np.float32(0.5), "b": 1, "c": [np.float64(1), 2]})
    assert found == {"a": 0.5, "b": 1.0, "c": [1.0, 2.0]}
    assert type(found["a"]) is type(found["b"]) is float
    for bad in ({"loss": math.nan}, {"loss": [0.5, math.inf]}):
        with pytest.raises(UserError, match="loss is not finite"):
            check_metrics(bad)


def full_disk(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "folder" / "file.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, where, full_disk)
    with pytest.raises(UserError, match="No space left on device") as caught:
        write_atomically(path, b"new content")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]  # nothing half-written lies about
    monkeypatch.undo()
    write_atomically(path, b"new content")
    assert path.read_bytes() == b"new content"


def test_what_killed_processes_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    left, begun, old, other = (
        tmp_path / "a" / name for name in (".x.0123abcd", ".y.0123abcd", ".z.89abcdef", ".n.markdown")
    )
    write_atomically(tmp_path / "a" / "x", b"x")
    for path in (left, other):
        path.write_bytes(b"half")
    begun.touch()
    old.touch()
    os.utime(old, (0, 0))
    with (tmp_path / "a" / ".w.01234567").open("wb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        writing.write(b"half")
        writing.flush()
        remove_leftovers(tmp_path)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"x", begun.name, ".w.01234567", other.name}


def test_a_store_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).add(record())

    def closed(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"the store .* cannot be read \(Permission denied\); check its permissions"):
        Store(tmp_path).records()


def test_store_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.records() == []
    assert store.get(JOB) is None
    for seed in (2, 0, 1):
        store.add(record(seed))
    store.add(record(0, section="ood"))
    assert store.get(JOB) == record(0)
    assert [r.job.key for r in store.records()] == sorted(r.job.key for r in store.records())
    assert len(store.records()) == 4
    assert {r.job.seed for r in store.records("calibration")} == {0, 1, 2}
    store.add(record(0, error=0.5))  # measuring again replaces
    assert store.get(JOB) == record(0, error=0.5)
    assert len(store.records()) == 4


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"null\n", b'{"key":1}', record(0, section="ood").to_json().encode()],
    ids=repr,
)
def test_damaged_file_counts_as_not_recorded(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    store.add(record(0))
    store.add(record(1))
    store.path(JOB).write_bytes(content)
    assert store.get(JOB) is None
    assert [r.job.seed for r in store.records()] == [1]
    assert store.damaged() == [store.path(JOB)]


def test_publish_merges_sorts_and_changes_nothing_the_second_time(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "runs"), tmp_path / "results"
    for seed in (5, 3, 4):
        store.add(record(seed))
    assert publish(store.records(), folder) == ({"calibration": (3, 3)}, [])
    first = (folder / "calibration.jsonl").read_bytes()
    keys = [json.loads(line)["key"] for line in first.splitlines()]
    assert keys == sorted(keys)
    assert first.endswith(b"}\n")
    assert publish(store.records(), folder) == ({"calibration": (3, 0)}, [])
    assert (folder / "calibration.jsonl").read_bytes() == first

    other = Store(tmp_path / "elsewhere")
    other.add(record(3, error=0.125))
    other.add(record(9))
    other.add(record(0, section="ood"))
    fresh = {"calibration": (4, 1), "ood": (1, 1)}
    assert publish(other.records(), folder) == (fresh, [(record(3), record(3, error=0.125))])
    assert publish(other.records(), folder, replace=True) == ({"calibration": (4, 1), "ood": (1, 0)}, [])
    found = {r.job.seed: r.metrics["error"] for r in load_published("calibration", folder)}
    assert found == {3: 0.125, 4: 0.25, 5: 0.25, 9: 0.25}
    assert len(load_published(None, folder)) == 5
    assert load_published("adversarial", folder) == []
    slower = dataclasses.replace(
        record(9), metrics=record(9).metrics | {"training_seconds": 1.0, "images_per_second": 2}
    )
    assert publish([slower], folder) == ({"calibration": (4, 0)}, [])  # times are no difference


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (LINE[:100], r" is not a whole record"),
        (record(1, error=0.75).to_json(), rf" .* {record(1).job.key} has a line"),
    ],
)
def test_published_line_that_is_cut_or_there_twice_is_refused_with_file_and_number(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "calibration.jsonl"
    path.write_text("\n".join([record(1).to_json(), line, record(2).to_json(), ""]))
    before = path.read_bytes()
    for act in (lambda: load_published("calibration", tmp_path), lambda: publish([record(7)], tmp_path)):
        with pytest.raises(UserError, match=rf"line 2 of {path}{reason}") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def publish_child(folder: Path, first: int) -> None:
    for seed in range(first, first + 5):
        publish([record(seed)], folder)


def test_two_publishes_at_once_lose_nothing(tmp_path: Path) -> None:
    with toys.child(publish_child, tmp_path, 0) as one, toys.child(publish_child, tmp_path, 5) as other:
        for child in (one, other):
            child.join(240)
            assert child.exitcode == 0
    assert sorted(r.job.seed for r in load_published("calibration", tmp_path)) == list(range(10))


def deadly_child(act: Callable[..., object], *arguments: object, call: str, number: int) -> None:
    """Do something, but be killed in the midst of the ``number``-th file that is written."""
    real, calls = getattr(os, call), itertools.count(1)

    def deadly(*given: Any) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*given)

    setattr(os, call, deadly)
    act(*arguments)


def test_killed_while_merging_the_store_has_whole_records_only(tmp_path: Path) -> None:
    calm, store = Store(tmp_path / "calm"), Store(tmp_path / "runs")
    publish([record(seed) for seed in range(10)], tmp_path / "out")
    merge(tmp_path / "out", calm.folder)
    for call, number, count in (("fsync", 4, 3), ("replace", 5, 7)):
        child = functools.partial(deadly_child, call=call, number=number)
        assert toys.exit_code(child, merge, tmp_path / "out", store.folder) == -signal.SIGKILL
        assert len(store.records()) == count
        assert store.damaged() == []
    assert merge(tmp_path / "out", store.folder) == Merged(added=3, same=7)
    assert store.records() == calm.records()


def test_a_copy_in_another_repository_has_no_revision_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROBUSTNESS_REVISION", raising=False)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def revision(folder: str, project: str) -> str:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / folder / "records.py"))
        for path, text in (("pyproject.toml", f'name = "{project}"\n'), (f"{folder}/records.py", "")):
            (tmp_path / path).write_text(text)
        git("add", "--force", ".")
        git("commit", "--allow-empty", "-m", "x")
        return code_revision()

    git("init")
    assert revision("robustness_lib", "another") == "unknown"
    assert revision(".venv/lib/robustness_lib", "robustness-lib") == "unknown"
    own = revision("robustness_lib", "robustness-lib")
    assert own == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "robustness_lib" / "records.py").write_text("changed")
    monkeypatch.setenv("GIT_DIR", str(Path.cwd() / ".git"))  # as in a hook of another repository
    assert code_revision() == f"{own}-dirty"


def test_revision_of_copied_files_is_what_their_owner_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTNESS_REVISION", "0123456789ab")
    assert code_revision() != "0123456789ab", "in a checkout git knows better"
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "records.py"))
    assert code_revision() == "0123456789ab"
    monkeypatch.delenv("ROBUSTNESS_REVISION")
    assert code_revision() == "unknown"


def distinguished(*changes: dict[str, Any]) -> list[str]:
    """What tells records of one setting apart that differ so."""
    rows = []
    for seed, change in enumerate(changes):
        source = {"seconds": 1.0, **change.pop("provenance", {})}
        rows.append(dataclasses.replace(record(seed, **change), provenance=source))
    return list(distinctions(rows).values())


def test_checkpoints_recipes_precisions_and_images_are_kept_apart() -> None:
    assert distinguished({}, {}) == ["", ""]
    assert distinguished({"init": "a"}, {"init": "b"}) == ["init=a", "init=b"]
    assert distinguished({"recipe": {"epochs": 1}}, {"recipe": {"epochs": 1, "adversary": "targeted"}}) == [
        "",
        "adversary=targeted",
    ]
    precisions = [{"precision": "float32"}, {"precision": "bfloat16"}, {"precision": "float32", "tf32": True}]
    assert distinguished(*({"provenance": one} for one in precisions)) == [
        "precision=float32",
        "precision=bfloat16",
        "precision=float32-tf32",
    ]
    sets = [{"data": {"own/test": digit * 64}} for digit in "aab"] + [{"data": {}}]
    assert distinguished(*({"provenance": one} for one in sets)) == [
        *["sha256:own/test=aaaaaaaa"] * 2,
        "sha256:own/test=bbbbbbbb",
        "",
    ]
    assert distinguished({"profile": "cpu"}, {"profile": "paper", "init": "b"}) == ["", ""]  # other settings
