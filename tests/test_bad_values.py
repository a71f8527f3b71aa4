"""Whatever is given to an option or a setting, it is one sentence that names it, status 2 and an untouched store."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import toys
import typer
from toys import Command

from robustness_lib import cli
from robustness_lib.errors import UserError
from robustness_lib.experiments import calibration, registry
from robustness_lib.runner.records import PUBLISHED, Record, Store
from robustness_lib.training.config import TrainingConfig

BAD = ["", " ", "x", "-1", "0.5", "nan", "-inf", "1e400", "9" * 30, "9" * 5000, "é", "\x1b[2J", "a b", "x" * 300]
FEWER = ["", "-1", "nan", "9" * 30, "\x1b[2Jé", "x" * 300]
ARGUMENTS = {"section": "calibration", "weights": "resnet18", "folders": "runs", "names": "synthetic"}
FOLDERS = {"store", "out", "data_root"}
"""Options for which most of these are fair."""

SHOWN_AS = {
    **{"settings": "NAME=VALUE", "weights": "file", "init": "init|checkpoint", "checkpoint": "checkpoint"},
    **{"dataset": "data", "names": "data set", "corpus": "corpus|data set"},
}
"""What names an option in a message, where its name does not."""


def options() -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command with the name of each of its options and arguments that take a value."""
    waiting = [((), toys.get_command(cli.app))]
    for path, command in waiting:
        waiting += [((*path, name), inner) for name, inner in getattr(command, "commands", {}).items()]
        for option in command.params if path and not hasattr(command, "commands") else ():
            if not getattr(option, "is_flag", False):
                yield path, str(option.name)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.chdir(tmp_path)
    toys.write_bundle(tmp_path / "data", "own", 40, 4)
    monkeypatch.setattr("robustness_lib.runner.sweep.perform", never)
    for job in calibration.jobs("cpu")[:1]:
        for path in (Store("runs").path(job), (PUBLISHED / "calibration.jsonl")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Record(job, {"error": 0.5}, {"seconds": 1.0}).to_json() + "\n")
    return toys.command(monkeypatch, capfd)


@pytest.mark.parametrize(("path", "name"), list(options()), ids=str)
def test_a_bad_value_of_an_option(command: Command, path: tuple[str, ...], name: str) -> None:
    [given] = [found for found in _params(path) if found.name == name]
    before = {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}
    for bad in FEWER:
        if name in FOLDERS and 0 < len(bad) < 256:
            continue
        words = list(path)
        if given.param_type_name == "option":
            words.append(f"{given.opts[0]}={bad}")
        for other in _params(path):
            if other.param_type_name == "argument" and (other.required or other.name == name):
                words += ["--", bad if other.name == name else ARGUMENTS[str(other.name)]]
        status, out, err = command(*words)
        assert (status, out) == (2, ""), (words, out, err)
        shown = SHOWN_AS.get(name, re.sub("_", "[_ -]", name.removesuffix("_name").removesuffix("s")))
        assert re.search(shown, err), (words, err)
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert before == {file: file.read_bytes() for file in Path().rglob("*") if file.is_file()}, words


def _params(path: tuple[str, ...]) -> list[typer.core.TyperOption]:
    command = toys.get_command(cli.app)
    for name in path:
        command = command.commands[name]
    return list(command.params)


UNCHECKED = {"ood_sets", "further_sets", "model"}
"""Settings that name image sets or networks of others, which are looked for when they are used."""


@pytest.mark.parametrize("name", registry.SECTIONS)
def test_a_bad_value_of_a_setting(name: str) -> None:
    section, profile = registry.section(name), "cpu" if name == "recipe_choice" else "smoke"
    settings = {setting for job in section.jobs(profile) for setting in job.recipe} - UNCHECKED
    shared = {field.name for field in dataclasses.fields(TrainingConfig)}
    for setting in sorted(settings | shared if name == "calibration" else settings - shared):
        noun = setting.removeprefix("test_").removesuffix("s").replace("_", "[_ ]")
        messages = {bad: refusal(section, profile, {setting: bad}) for bad in BAD}
        assert {bad for bad, message in messages.items() if message is None} <= {"0.5"}, setting
        for message in filter(None, messages.values()):
            assert re.search(noun, message)
            assert "\n" not in message
            assert len(message) < 700


def refusal(section: registry.Section, profile: str, overrides: dict[str, str]) -> str | None:
    try:
        section.jobs(profile, overrides=overrides)
    except UserError as error:
        return str(error)
    return None
