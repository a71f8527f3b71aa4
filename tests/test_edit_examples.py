"""The worked examples of book/edit.md work: each block is appended to its file in a copy of the library, and run."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
import toys

ROOT = Path(__file__).parents[1]
MOST_FILES = {"An OOD score": 4, "A loss correction": 4, "A data set": 4, "A section": 7}
TEXT = (ROOT / "book/edit.md").read_text()
EXAMPLES = {title: TEXT.partition(f"### {title}\n")[2].partition("\n##")[0] for title in MOST_FILES}

FAST = ["train_images=40", "epochs=1", "observations=1", "pretraining.epochs=1", "pretraining.train_images=80"]
FAST_OOD = ["draws=1", "draw_images=20", "reference_images=40"]
RUN = """
import pytest
import torch
import toys
from typer.testing import CliRunner

from robustness_lib.cli import app
from robustness_lib.data.synthetic import COUNTS
from robustness_lib.runner.records import Store

COUNTS["synthetic"]["test"] = COUNTS["synthetic-source"]["test"] = 100


@pytest.mark.parametrize("words", {commands})
def test_command(words) -> None:
    done = CliRunner().invoke(app, [*words, "--store", "runs"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    arms = [record.job.init == "scratch" for record in Store("runs").records(words[1])]
    assert sorted(arms) == [False, True]


def test_page() -> None:
    page, few = {{}}, 'seeds, levels, overrides, results = "0", "100", "{settings}", "."'
    first, code = open("notebooks/small_sets.py").read().split("\\n\\n# %% tags=[\\"remove-cell")
    exec(f"{{first}}\\n{{few}}\\n# {{code}}", page)
    assert (len(page["values"]), len(page["live"]), "kernelspec" in first) == (0, 2, True)
"""


def blocks(example: str, language: str = "(?:python|text)") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", example, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_touch_few_files(title: str) -> None:
    files = re.findall(r"`([^`]+)`", EXAMPLES[title].partition("Files:")[2].partition("\n\n")[0])
    assert 0 < len(set(files)) <= MOST_FILES[title]
    changed = {block.splitlines()[0].removeprefix("# ") for block in blocks(EXAMPLES[title])}
    assert changed <= set(files)
    assert all((ROOT / name).exists() or "small_sets" in name for name in files)


def run_copy(folder: Path) -> None:
    """The tests of a copy of the library, which takes the place of this one."""
    with (folder / "output").open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "robustness_lib"]:
        del sys.modules[name]
    torch.set_num_threads(1)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "test_examples.py"]))


def test_examples_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "robustness_lib", tmp_path / "robustness_lib")
    (tmp_path / "notebooks").mkdir()
    commands, tests = [], []
    for example in EXAMPLES.values():
        for block in blocks(example):
            name = block.splitlines()[0].removeprefix("# ")
            if name.startswith("tests/"):
                tests.append(block)
                continue
            with (tmp_path / name).open("a") as file:
                file.write(block.partition("\n")[2] if name.endswith(".csv") else f"\n\n{block}")
        [command] = blocks(example, "bash")
        settings = FAST + (FAST_OOD if "run ood" in command else [])
        commands.append(shlex.split(command)[1:] + [word for setting in settings for word in ("--set", setting)])
    code = ["from __future__ import annotations", *tests, RUN.format(commands=commands, settings=",".join(FAST))]
    (tmp_path / "test_examples.py").write_text("\n\n".join(code))
    assert toys.exit_code(run_copy, tmp_path) == 0, (tmp_path / "output").read_text()
    assert f"{len(tests) + len(commands) + 1} passed" in (tmp_path / "output").read_text()
