"""Every command that the README and the book print can be given as printed, from a fresh clone."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from robustness_lib import cli

PAGES = [Path("README.md"), *sorted(Path("book").glob("*.md"))]


def printed() -> list[str]:
    """The lines of the pages' shell blocks, without comments."""
    lines: list[str] = []
    for page in PAGES:
        for block in re.findall(r"^```(?:bash|shell|console)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            text = block.replace("\\\n", " ")
            lines += [line.split(" #")[0].strip() for line in text.splitlines() if line.strip() and line[0] not in "#>"]
    return list(dict.fromkeys(lines))


@pytest.mark.parametrize("line", [line for line in printed() if re.match(r"(torchrun .*-m )?robustness", line)])
def test_a_command_can_be_read(line: str) -> None:
    words = shlex.split(line.partition("robustness")[2].removeprefix("_lib").partition(" > ")[0].rstrip("& "))
    command = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("robustness", words, resilient_parsing="--help" in words)


@pytest.mark.parametrize("line", [line for line in printed() if line.startswith("papermill")])
def test_a_notebook_can_be_run(line: str) -> None:
    words = shlex.split(line)[1:]
    [source, *out] = [word for word in words if word.endswith(".ipynb")]
    assert all(Path(path).parent == Path() for path in out), "a fresh clone has no such folder"
    parameters = Path(source).with_suffix(".py").read_text().partition('tags=["parameters"')[2].partition("# %%")[0]
    for place, word in enumerate(words):
        if word == "-p":
            assert re.search(rf"^{words[place + 1]} = ", parameters, re.MULTILINE), words[place + 1]


@pytest.mark.parametrize("line", [line for line in printed() if line.startswith("make")])
def test_a_target_can_be_made(line: str) -> None:
    done = subprocess.run([*shlex.split(line), "--dry-run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
