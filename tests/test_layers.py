"""Arrows point down only: notebooks, sections, the ground floor."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from robustness_lib.sections import SECTIONS

LIBRARY = Path("robustness_lib")
MODULES = {".".join(path.with_suffix("").parts): path for path in LIBRARY.rglob("*.py")}
ABOVE = {f"robustness_lib.{name}" for name in ("sections", "cli", "__main__", "recipe_choice")}
"""The modules that may import sections; the choice of recipes trains as they do."""


def imported(path: Path) -> set[str]:
    """The modules of the library that a module imports, by full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustness_lib"):
            found |= {node.module or "", *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("robustness_lib")}


def test_no_section_imports_another_and_nothing_below_imports_a_section() -> None:
    sections = {f"robustness_lib.{name}" for name in SECTIONS} - ABOVE
    assert sections <= set(MODULES)
    for name, path in MODULES.items():
        if name not in ABOVE:
            assert not (imported(path) & (sections | ABOVE)), name


@pytest.mark.parametrize("package", ["report", "paper"])
def test_what_reports_never_trains(package: str) -> None:
    ground = ("training", "networks", "sweep", "pretraining", "planning", "models")
    trains = {f"robustness_lib.{name}" for name in ground}
    for name, path in MODULES.items():
        if name.startswith(f"robustness_lib.{package}"):
            assert not (imported(path) & trains), name


def test_what_trains_never_reports() -> None:
    reports = {name for name in MODULES if name.startswith(("robustness_lib.report", "robustness_lib.paper"))}
    for name, path in MODULES.items():
        if name not in reports | ABOVE or name == "robustness_lib.recipe_choice":
            assert not (imported(path) & reports), name


def test_the_report_does_not_load_torch() -> None:
    code = "import sys, robustness_lib.report; print([m for m in sys.modules if m.split('.')[0] == 'torch'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_loads_nothing_heavy() -> None:
    """So that it answers at once; how long it takes is no test's business."""
    code = "import sys, robustness_lib.cli; print(sorted({'torch', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
