"""What `make` makes again, and what not, in a folder whose tools only write down that they were called."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("calibration", "claims", "ood")

TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
case "$(basename "$0") $*" in
papermill*) cp "$4" "$5" ;;
*robustness_lib.notebook*) mkdir -p book/executed && cp "$3" "$4" ;;
jupyter-book*) mkdir -p _build/html ;;
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""

Make = Callable[..., list[str]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Run make for a target in a small copy of the repository; gives the calls of tools, in order."""
    monkeypatch.chdir(tmp_path)
    files = "Makefile", "pyproject.toml", "constraints.txt", "jupytext.toml", "README.md", "_config.yml", "_toc.yml"
    for name in files:
        shutil.copy(ROOT / name, name)
    for folder in ("notebooks", "book/results", "robustness_lib", ".venv/bin"):
        Path(folder).mkdir(parents=True)
    Path("robustness_lib/module.py").touch()
    for page in PAGES:
        Path(f"notebooks/{page}.py").touch()
        Path(f"notebooks/{page}.ipynb").touch()
    for section in ("calibration", "ood", "pretraining"):
        Path(f"book/results/{section}.jsonl").write_text("{}\n")
    for tool in ("python", "papermill", "jupytext", "jupyter-book", "ruff", "mypy", "pytest"):
        Path(f".venv/bin/{tool}").write_text(TOOL)
        Path(f".venv/bin/{tool}").chmod(0o755)
    Path(".venv/set-up").touch()

    def run(target: str, *settings: str) -> list[str]:
        Path("calls").write_text("")
        done = make_here(target, *settings)
        assert done.returncode == 0, done.stderr
        return Path("calls").read_text().splitlines()

    return run


def make_here(*words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | {"PATH": path}
    return subprocess.run(["make", *words], env=own, capture_output=True, text=True, check=False)


def executed(calls: list[str]) -> set[str]:
    """The pages whose notebooks were executed."""
    return {Path(call.split()[-1]).stem for call in calls if call.startswith("papermill ")}


def replace(path: str, content: str) -> None:
    """As publishing does: a new file takes the old one's place, so that the folder changes too."""
    Path("new").write_text(content)
    os.replace("new", path)


def test_book_notices_results_that_come_change_and_go(make: Make) -> None:
    ood = Path("book/results/ood.jsonl")
    assert executed(make("book")) == set(PAGES)
    for change in (lambda: replace(str(ood), "{}\n{}\n"), ood.unlink, lambda: ood.write_text("{}\n")):
        assert make("book") == []
        change()
        calls = make("book")
        assert {"ood", "claims"} <= executed(calls)
        assert "--all" not in calls[-1]
    Path("notebooks/ood.py").write_text("# another title")
    assert "--all" in make("book")[-1]


def test_setup_makes_the_environment_and_nothing_else(make: Make) -> None:
    assert make("setup") == []
    shutil.move(".venv/bin/python", "other-python")
    for modules in (["venv", "pip", "pip"], ["pip", "pip"]):  # a second Python would make a mixture of both
        Path(".venv/set-up").unlink()
        calls = make("setup", "PYTHON=./other-python")
        assert [call.partition(" -m ")[2].split()[0] for call in calls if " -m " in call] == modules
        assert not executed(calls)
        assert Path(".venv/set-up").exists()


@pytest.mark.usefixtures("make")
def test_the_book_is_built_in_the_active_environment_where_that_is_asked_for() -> None:
    Path(".venv/bin").rename("active")
    Path(".venv/set-up").unlink()
    Path(".venv").rmdir()
    done = make_here("book", "PYTHON_ENV=none", path=f"{Path('active').resolve()}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert executed(Path("calls").read_text().splitlines()) == set(PAGES)
    assert not Path(".venv").exists()
