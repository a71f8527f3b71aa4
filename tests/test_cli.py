"""The command: what it prints, and that a mistake is one sentence and exit status 2."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toys
from toys import Command, refused

from robustness_lib import cli
from robustness_lib.errors import UserError
from robustness_lib.experiments import calibration, pretraining, registry
from robustness_lib.runner.records import PUBLISHED, Record, Store, load_published

SMALL = ("--set", "train_images=20", "--set", "epochs=1", "--set", "batch_size=20", "--set", "observations=1")
PLACE = ("--data-root", "data", "--store", "runs", "--device", "cpu", "--precision", "float32", "--threads", "1")
PRETRAIN = ("pretrain", "--corpus", "corpus", "--set", "epochs=1", *PLACE)
OWN = ("--dataset", "own", "--seeds", "0", *SMALL, *PLACE)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``robustness`` in an empty folder with two data sets; gives status, output and errors."""
    toys.write_bundle(tmp_path / "data", "own", 40, 4)
    toys.write_bundle(tmp_path / "data", "corpus", 60, 5)
    monkeypatch.chdir(tmp_path)
    (tmp_path / PUBLISHED).mkdir(parents=True)
    monkeypatch.delenv("ROBUSTNESS_DATA", raising=False)

    return toys.command(monkeypatch, capfd)


_made: dict[str, bytes] = {}


@pytest.fixture
def checkpoint(command: Command) -> str:
    """The id of a checkpoint in the store, which one test for all pre-trains."""
    if not _made:
        assert command(*PRETRAIN)[0] == 0
        _made.update({path.stem: path.read_bytes() for path in Path("runs/checkpoints").iterdir()})
        shutil.rmtree("runs")
    [(name, content)] = _made.items()
    Path("runs/checkpoints").mkdir(parents=True)
    Path(f"runs/checkpoints/{name}.safetensors").write_bytes(content)
    return name


def test_small_run_then_nothing_to_do(command: Command, checkpoint: str) -> None:
    arguments = ("run", "calibration", *OWN, "--init", checkpoint)
    status, out, _ = command(*arguments, "--time-budget", "0")
    assert (status, out) == (
        0,
        "calibration: 0 recorded, 4 not started for lack of time; run the same command again to go on\n",
    )
    status, out, _ = command(*arguments)
    shows = "; 'robustness show calibration --profile smoke' has the numbers\n"
    assert (status, out) == (0, f"calibration: 4 recorded{shows}")
    records = Store("runs").records("calibration")
    assert {(r.job.method, r.job.init == "scratch") for r in records} == {
        (method, arm) for method in ("standard", "temperature") for arm in (True, False)
    }
    status, out, _ = command(*arguments)
    assert (status, out) == (0, f"calibration: 0 recorded, 4 recorded before and not measured again{shows}")
    assert Store("runs").records("calibration") == records


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "calibrations"), ["'calibrations'", "did you mean 'calibration'", "recipe_choice"]),
        (("run", "calibration", "--profile", "cpus"), ["'cpus'", "smoke, cpu, paper"]),
        (("run", "calibration", "--dataset", "cifar11"), ["'cifar11'", "cifar10", "cifar100", "synthetic", "own"]),
        (("run", "calibration", "--method", "temper"), ["'temper'", "standard, temperature"]),
        (("run", "calibration", "--set", "epoch=5"), ["'epoch'", "did you mean 'epochs'", "learning_rate", "bin_size"]),
        (("run", "calibration", "--set", "tune.epochs=5"), ["'tune'", "scratch, tuned, pretraining"]),
        (("run", "calibration", "--set", "epochs"), ["'epochs'", "NAME=VALUE"]),
        (("run", "calibration", "--set", "architecture=wrn-11-1"), ["wrn-11-1", "multiple of 6"]),
        (("run", "calibration", "--seeds", "3-1"), ["seeds='3-1'", "0,1,2"]),
        (("run", "calibration", "--levels", "0.5"), ["calibration has no levels"]),
        (("run", "label_noise", "--levels", "2"), ["corruption strength is 2", "[0, 1]"]),
        (("run", "label_noise", "--method", "none-excluded"), ["--corpus imagenet32-no-cifar10", "--init"]),
        (("run", "calibration", "--init", "mine"), ["the checkpoint mine is neither in", "robustness pretrain"]),
        (
            ("run", "calibration", "--data-root", "nowhere", "--dataset", "own"),
            ["nowhere", "--data-root", "ROBUSTNESS_DATA"],
        ),
        (("pretrain", "--corpus", "imagenet99"), ["'imagenet99'", "imagenet32"]),
        (("data", "fetch", "cifar11"), ["'cifar11'", "cifar10"]),
        (("run", "recipe_choice"), ["recipe_choice measures nothing at --profile smoke; choose another --profile"]),
        (
            ("run", "recipe_choice", "--method", "nonsense", "--seeds", "0-2"),
            ["nothing at --profile smoke --method nonsense --seeds 0-2;", "leave out what restricts it"],
        ),
        (("run", "calibration", "--init", "/elsewhere/x"), ["--init is '/elsewhere/x'", "robustness pretrain"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_sentence(command: Command, arguments: tuple[str, ...], expected: list[str]) -> None:
    place = () if "--data-root" in arguments or arguments[0] != "run" else ("--data-root", "data")
    line = refused(command, *arguments, *place)
    for part in expected:
        assert part in line
    assert not Path("runs/records").exists()


def test_a_tilde_is_the_home_folder(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    toys.write_bundle(tmp_path / "home" / "sets", "at-home", 20, 4)
    assert command("data", "check", "at-home", "--data-root", "~/sets")[0] == 0
    fill(tmp_path / "home" / "s", 1, "smoke")
    assert command("merge", "~/s", "--store", "~/t")[0] == 0
    assert Store(tmp_path / "home" / "t").records() == Store(tmp_path / "home" / "s").records() != []
    assert not Path("~").exists()
    monkeypatch.delenv("HOME")
    assert "no home folder is known" in refused(command, "status", "--store", "~nobody-of-this-name/runs")


def test_failed_job_has_status_1_and_says_why(command: Command, checkpoint: str) -> None:
    diverging = ("--set", "scratch.learning_rate=1e6", "--set", "scratch.epochs=20", "--set", "batch_size=5")
    status, out, err = command("run", "calibration", "--method", "standard", *OWN, *diverging, "--init", checkpoint)
    assert status == 1
    assert out.startswith("calibration: 1 recorded, 1 failed; 'robustness show calibration --profile smoke' ")
    [line] = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert "calibration own scratch standard seed 0: the training diverged" in line
    assert "Traceback" not in err


def test_pretrain_prints_the_id_and_does_not_train_twice(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("pretrain", "--corpus", "corpus", "--seed", "5", "--set", "epochs=1", *PLACE)
    status, out, _ = command(*arguments)
    assert status == 0
    name, where = out.splitlines()
    assert name.startswith("wrn-10-1_corpus_60x5_e1_s5_")
    assert where.startswith(f"runs/checkpoints/{name}.safetensors: validation error ")
    made = Path(f"runs/checkpoints/{name}.safetensors").read_bytes()

    monkeypatch.setattr(pretraining, "train", toys.forbid)
    assert command(*arguments)[:2] == (0, out)
    assert Path(f"runs/checkpoints/{name}.safetensors").read_bytes() == made


def test_settings_of_a_pretraining_may_say_so_and_a_damaged_checkpoint_is_refused(command: Command) -> None:
    plain = command(*PRETRAIN)
    assert plain[0] == 0
    restricted = ("--set", "pretraining.epochs=1", "--set", "epochs=7")
    assert command("pretrain", "--corpus", "corpus", *restricted, *PLACE)[:2] == plain[:2]
    [path] = Path("runs/checkpoints").iterdir()
    line = refused(command, "pretrain", "--corpus", "corpus", "--set", "tuned.epochs=1", *PLACE)
    assert "unknown setting of a recipe 'tuned.epochs'" in line
    path.write_bytes(path.read_bytes()[:5000])  # though its record is there
    line = refused(command, *PRETRAIN)
    assert f"{path} is not a whole safetensors file" in line
    assert "delete it and make" in line


def fill(store: Path, count: int, profile: str) -> list[Path]:
    jobs = calibration.jobs(profile)[:count]
    for job in jobs:
        Store(store).add(Record(job, {"error": 0.5}, {"seconds": 1.0}))
    return [Store(store).path(job) for job in jobs]


def test_status_counts_and_names_damaged_files(command: Command) -> None:
    paths = fill(Path("runs"), 3, "smoke")
    paths[0].write_text("{")
    own = calibration.jobs("smoke", overrides={"epochs": "3"})[0]
    Store("runs").add(Record(own, {"error": 0.5}, {"seconds": 1.0}))
    unknown = dataclasses.replace(own, profile="gpu")
    Store("runs").add(Record(unknown, {"error": 0.5}, {"seconds": 1.0}))
    status, out, err = command("status", "--store", "runs")
    assert status == 0
    header, *rows, words = out.splitlines()
    assert header.split()[3:] == ["planned", "yours", "book", "other", "yours", "other", "book"]
    assert [word for word in ("planned: ", "yours: ", "book: ", "other yours, other book: ") if word not in words] == []
    table = {tuple(row.split()[:3]): row.split()[3:] for row in rows}
    assert table["calibration", "smoke", "synthetic"] == ["12", "2", "0", "1", "0"]
    assert table["calibration", "cpu", "cifar10"][1] == "0"
    assert ("calibration", "paper", "tiny_imagenet") in table
    [line] = err.splitlines()
    assert line.startswith(f"{paths[0]} is not a whole record")


def test_publish_then_status(command: Command) -> None:
    fill(Path("runs"), 2, "smoke")
    assert command("publish")[:2] == (
        0,
        "nothing to publish: runs holds no record that the profiles cpu or paper plan\n",
    )
    fill(Path("runs"), 2, "cpu")
    status, out, _ = command("publish")
    assert (status, out) == (0, "book/results/calibration.jsonl: 2 records, 2 of them new or changed\n")
    assert command("publish")[1] == "book/results/calibration.jsonl: 2 records, 0 of them new or changed\n"
    assert len(load_published("calibration")) == 2
    Path("elsewhere").mkdir()
    rows = [row.split() for row in command("status", "--store", "elsewhere")[1].splitlines()[1:-1]]
    assert [sum(int(row[column]) for row in rows) for column in (4, 5, 6, 7)] == [0, 2, 0, 0]


@pytest.mark.parametrize("arguments", ["status", "show calibration", "compare", "publish"])
def test_a_store_that_is_not_there_is_no_empty_one(command: Command, arguments: str) -> None:
    assert "there is no store missing; name one that" in refused(command, *arguments.split(), "--store", "missing")
    assert not Path("missing").exists()
    Path("file").write_text("not a folder")
    assert "--store is file, which is no folder" in refused(command, *arguments.split(), "--store", "file")


def test_publish_replaces_other_numbers_only_when_asked(command: Command) -> None:
    fill(Path("runs"), 3, "cpu")
    command("publish")
    [one, two, _] = calibration.jobs("cpu")[:3]
    Store("runs").add(Record(one, {"error": 0.25, "curve": [0.5]}, {"seconds": 1.0, "device": "another"}))
    Store("runs").add(Record(two, {"error": 0.5, "training_seconds": 7.0}, {"seconds": 9.0}))
    before = Path("book/results/calibration.jsonl").read_text()
    status, out, err = command("publish")
    assert (status, out) == (1, "book/results/calibration.jsonl: 3 records, 0 of them new or changed\n")
    assert err.splitlines() == [
        f"not published: {one.label} ({one.key}): curve none -> 1 values, error 0.5 -> 0.25",
        "1 published records have other numbers and stay; --replace puts yours there",
    ]
    assert Path("book/results/calibration.jsonl").read_text() == before
    status, out, err = command("publish", "--replace")
    assert (status, err) == (0, "")
    assert {r.job.key: r.metrics["error"] for r in load_published("calibration")}[one.key] == 0.25


def measured(profile: str, store: str, errors: dict[int, float], precision: str = "bfloat16") -> None:
    """Put records of one setting, by seed, into a store."""
    for seed, error in errors.items():
        [job, *_] = calibration.jobs(profile, methods=["standard"], seeds=[seed], datasets=["cifar10"])
        source = {"seconds": 1.0, "device": "CPU x", "precision": precision}
        Store(store).add(Record(job, {"error": error, "training_seconds": float(seed), "curve": [error]}, source))


def test_compare_sets_yours_beside_the_books(command: Command) -> None:
    measured("cpu", "theirs", {0: 0.2, 1: 0.3, 2: 0.4})
    command("publish", "--store", "theirs")
    measured("cpu", "runs", {0: 0.2, 1: 0.35, 3: 0.9}, precision="float32")
    status, out, _ = command("compare", "calibration", "--profile", "cpu")
    header, *rows, words, agree = out.splitlines()
    assert status == 0
    assert header.split()[-6:] == ["metric", "seed", "yours", "book", "difference", "sd"]
    assert [row.split()[-6:] for row in rows] == [
        ["error", "0", "0.2000", "0.2000", "0.0000", "0.1000"],
        ["error", "1", "0.3500", "0.3000", "0.0500", "0.1000"],
        ["error", "mean", "0.2750", "0.2500", "0.0250", "0.1000"],
    ]
    assert "sd: of the book's value over its seeds" in words
    assert agree == "of 2 numbers 1 equal, 1 differ by at most one sd"


def test_compare_takes_means_of_other_seeds_and_says_when_there_is_nothing(command: Command) -> None:
    shutil.rmtree("book")
    assert "there is no book/results here" in command("status")[2]
    assert "run the command in the root of the repository" in refused(command, "publish")
    PUBLISHED.mkdir(parents=True)
    assert "none of the 0 records of all sections in runs repeats a measurement of the book" in refused(
        command, "compare"
    )
    measured("cpu", "theirs", {0: 0.2, 1: 0.4})
    command("publish", "--store", "theirs")
    measured("cpu", "runs", {7: 0.5})
    [row] = [line.split() for line in command("compare")[1].splitlines() if "cifar10" in line]
    assert row[-5:] == ["mean", "0.5000", "0.3000", "0.2000", "0.1414"]


def test_run_says_in_which_precision_the_book_was_measured(command: Command) -> None:
    job = calibration.jobs("smoke", methods=["standard"], seeds=[0], overrides={"epochs": "1", "train_images": "40"})[0]
    line = Record(job, {"error": 0.5}, {"seconds": 1.0, "precision": "bfloat16"}).to_json()
    Path("book/results/calibration.jsonl").write_text(f"{line}\n")
    settings = ("--set", "epochs=1", "--set", "train_images=40", "--set", "pretraining.epochs=1")
    arguments = ("run", "calibration", "--method", "standard", "--seeds", "0", *settings, *PLACE, "--time-budget", "0")
    err = command(*arguments)[2]
    assert "this machine computes in float32, the book's did in bfloat16: the third digit may differ" in err
    assert "third digit" not in command(*arguments, "--precision", "bfloat16")[2]


def test_a_trial_with_other_settings_takes_no_results_place(command: Command) -> None:
    fill(Path("runs"), 2, "cpu")
    trial = calibration.jobs("cpu", overrides={"epochs": "1"})[0]
    Store("runs").add(Record(trial, {"error": 0.9}, {"seconds": 1.0}))
    status, out, _ = command("publish")
    assert status == 0
    first, second = out.splitlines()
    assert first == "book/results/calibration.jsonl: 2 records, 2 of them new or changed"
    assert second.startswith("1 with changed settings stay in runs")
    assert trial.key not in {record.job.key for record in load_published("calibration")}
    assert command("publish", "--changed")[1] == "book/results/calibration.jsonl: 3 records, 1 of them new or changed\n"
    found = {record.job.key: record.provenance.get("changed") for record in load_published("calibration")}
    assert found.pop(trial.key) == {"epochs": 1}
    assert set(found.values()) == {None}


def test_data_check_reports_a_damaged_file(command: Command) -> None:
    path = Path("data/own/train.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    status, out, err = command("data", "check", "own", "--data-root", "data")
    assert status == 1
    assert out.startswith("own is damaged: ")
    assert str(path) in out
    assert "Traceback" not in out + err
    assert str(path) in refused(command, "run", "calibration", *OWN)
    assert not Path("runs/checkpoints").exists()  # nothing was pre-trained for a data set that cannot be read


def test_data_list_says_where_it_looked_and_tells_the_rest_of_named_sets(command: Command) -> None:
    Path("data/own/test.npz").unlink()
    header, *rows, last = command("data", "list", "--data-root", "data")[1].splitlines()
    assert header.split() == ["name", "here", "what"]
    assert max(map(len, rows)) <= 100
    here = {row.split()[0]: row.split()[1] for row in rows}
    assert (here["cifar10"], here["synthetic"], here["own"]) == ("no", "yes", "yes")
    assert [row for row in rows if row.endswith("your own bundle, without test.npz")]
    assert rows[-1] == f"searched: {Path('data').resolve()}"
    assert "'robustness data list NAME'" in last
    out = command("data", "list", "cifar10", "own", "--data-root", "data")[1]
    assert "cifar10: CIFAR-10\n  here  no, data/cifar-10-batches-py\n  from  Krizhevsky (2009)" in out
    assert "\n  get   'robustness data fetch cifar10' downloads it\n" in out
    assert "did you mean 'cifar10'" in refused(command, "data", "list", "cifar11")
    assert "the data root nowhere" in refused(command, "data", "list", "--data-root", "nowhere")


def shown(command: Command, *options: str) -> list[list[str]]:
    """The rows of ``robustness show calibration`` as words, without their header."""
    status, out, _ = command("show", "calibration", *options)
    assert status == 0
    header, *rows = (line.split() for line in out.splitlines()[:-1])
    assert header[:3] == ["whose", "profile", "dataset"]
    return rows


def test_show_says_whose_a_number_is_keeps_recipes_apart_and_can_be_restricted(command: Command) -> None:
    assert "nothing is recorded" in refused(command, "show", "calibration", "--metric", "error")
    measured("cpu", "theirs", {0: 0.2, 1: 0.4})
    command("publish", "--store", "theirs")
    measured("cpu", "runs", {0: 0.3})
    assert [row[-3:] for row in shown(command, "--metric", "error")] == [
        ["error", "0.3000", "1"],
        ["0.3000", "0.1414", "2"],
    ]
    assert {row[0] for row in shown(command)} == {"yours", "book's"}
    [job] = calibration.jobs("cpu", methods=["standard"], seeds=[0], datasets=["cifar10"])[:1]
    trial = dataclasses.replace(job, recipe=job.recipe | {"epochs": 1, "learning_rate": 0.5})
    Store("runs").add(Record(trial, {"error": 0.9}, {"seconds": 1.0}))
    fill(Path("runs"), 1, "smoke")
    rows = shown(command, "--profile", "cpu", "--dataset", "cifar10", "--method", "standard", "--metric", "error")
    assert any("0.9000" in row and {"epochs=1", "learning_rate=0.5"} <= set(row) for row in rows)
    assert any("0.3000" in row and f"epochs={job.recipe['epochs']}" in row for row in rows)
    assert {row[1] for row in rows} == {"cpu"}
    line = refused(command, "show", "calibration", "--profile", "smoke", "--dataset", "cifar10")
    assert line == "error: no selected record has the dataset 'cifar10'; choose one of: synthetic"


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (registry.parse_seeds, "default", None),
        (registry.parse_seeds, "0,2, 5", [0, 2, 5]),
        (registry.parse_seeds, "7,1-2", [7, 1, 2]),
        (registry.parse_levels, "all", None),
        (registry.parse_levels, "0, 0.5,1", [0, 0.5, 1]),
        (registry.parse_names, "a, b", ["a", "b"]),
        (registry.parse_seeds, "3,0-4", "has 3 twice"),  # nothing is counted twice
        (registry.parse_levels, "0.5,1,.5", "has 0.5 twice"),
        (registry.parse_names, "standard, standard", "has standard twice"),
        (registry.parse_levels, "0-1", "levels='0-1' cannot be read"),
    ],
)
def test_lists(read: Callable[[str], object], text: str, expected: object) -> None:
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            read(text)
    else:
        assert read(text) == expected


@pytest.mark.parametrize(("number", "status", "word"), [("INT", 130, "interrupted"), ("TERM", 143, "terminated")])
def test_interrupted_run_keeps_its_records_and_prints_one_line(
    command: Command, checkpoint: str, tmp_path: Path, number: str, status: int, word: str
) -> None:
    endless = ("--set", "tuned.epochs=100000", "--set", "tuned.observations=0")
    arguments = ("run", "calibration", "--method", "standard", *OWN, *endless, "--init", checkpoint)
    with toys.child(toys.command_child, arguments, tmp_path) as child:
        toys.wait_for(lambda: len(Store("runs").records("calibration")) == 1)
        assert child.pid is not None
        os.kill(child.pid, signal.Signals[f"SIG{number}"])
        child.join(60)
        assert child.exitcode == status
    assert Path("stdout").read_text() == ""
    *bars, last = Path("stderr").read_text().splitlines()
    assert last == f"{word}: what was recorded is kept; run the same command again to go on"
    assert not [line for line in bars if "Traceback" in line or "Error" in line or "interrupt" in line.lower()]
    assert len(Store("runs").records("calibration")) == 1
    assert Store("runs").damaged() == []


def test_an_interrupt_before_the_command_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: signal.raise_signal(signal.SIGTERM))
    assert command("status") == (
        143,
        "",
        "terminated: what was recorded is kept; run the same command again to go on\n",
    )


def test_command_as_installed_for_a_user_without_name_and_home(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import pwd\ndef missing(user): raise KeyError(user)\npwd.getpwuid = pwd.getpwnam = missing\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(cli.__file__).parents[1])])
    words = [sys.executable, "-m", "robustness_lib", "run", "nothing"]
    done = subprocess.run(words, cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: unknown section 'nothing'; choose one of: {', '.join(registry.SECTIONS)}\n"
