"""Imports point down only, from the command line to the ground; a section imports no other section."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from robustness_lib.experiments.registry import SECTIONS

MODULES = {".".join(path.with_suffix("").parts[1:]): path for path in Path("robustness_lib").rglob("*.py")}

BELOW = {
    "data": {"data", "models"},
    "models": {"models"},
    "methods": {"methods", "data", "models"},
    "metrics": {"metrics", "methods", "data", "models"},
    "training": {"training", "metrics", "methods", "data", "models"},
    "runner": {"runner", "training", "metrics", "methods", "data", "models"},
    "experiments": {"experiments", "runner", "training", "metrics", "methods", "data", "models"},
    "paper": {"paper"},
    "report": {"report", "paper", "models", "metrics"},
}
"""The rooms that a room may import from; all may import the ground."""

GROUND = {"errors", "randomness", "files", "training.config", "training.device", "training.data_loader"}
"""What any room may import; of training its settings, its device and its batches, which import only the ground."""

ALSO = {"report": {"runner.records", "experiments.presets"}}
"""Single modules that a room may import too."""

ABOVE_SECTIONS = {"experiments.registry", "experiments.hyperparameter_search"}
"""What may import sections: their list, and the search for hyper-parameters, which trains as they do."""


def room(module: str) -> str:
    return module.split(".")[0]


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of the library that a module imports anywhere in its text."""
    found: set[str] = set()
    tree = ast.parse(MODULES[module].read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.If)]  # if TYPE_CHECKING
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "robustness_lib":
            base = (node.module or "").removeprefix("robustness_lib").lstrip(".")
            names = [f"{base}.{name.name}".lstrip(".") for name in node.names]
            found |= {name if name in MODULES else base for name in names}
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names if name.name.startswith("robustness_lib.")]
            found |= {name.removeprefix("robustness_lib.") for name in names}
    return frozenset(found - {"", module})


def reached(module: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    found, waiting = set[str](), {module}
    while waiting:
        new = set().union(*(imported(name) for name in waiting if name in MODULES)) - found
        found, waiting = found | new, new
    return found


@pytest.mark.parametrize("place", BELOW)
def test_a_room_imports_from_those_below_it(place: str) -> None:
    allowed = GROUND | ALSO.get(place, set())
    for module in MODULES:
        if room(module) == place and module not in GROUND:
            assert not {name for name in imported(module) - allowed if room(name) not in BELOW[place]}, module


@pytest.mark.parametrize("module", sorted(GROUND))
def test_the_ground_stands_on_nothing_else(module: str) -> None:
    assert reached(module) <= GROUND


def test_no_module_imports_itself_by_way_of_others() -> None:
    for module in MODULES:
        assert module not in reached(module), module


def test_no_section_imports_another() -> None:
    sections = {path.removeprefix("robustness_lib.") for path in SECTIONS.values()} - ABOVE_SECTIONS
    assert sections <= set(MODULES)
    for module in MODULES:
        if module not in ABOVE_SECTIONS:
            assert not imported(module) & sections, module


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("report.verdicts robustness_lib.report.provenance robustness_lib.report.trainings", {"torch"}),
        ("cli", {"torch", "pandas", "scipy", "sklearn"}),  # so that help answers at once
    ],
)
def test_nothing_heavy_is_loaded(modules: str, heavy: set[str]) -> None:
    code = f"import sys, robustness_lib.{modules.replace(' ', ', ')}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
