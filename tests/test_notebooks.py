"""The notebooks: in step with their sources, small, labelled; their parameters are checked."""

import ast
import atexit
import dis
import functools
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode

from robustness_lib import paper
from robustness_lib.errors import UserError
from robustness_lib.notebook import CSV, check_parameters, write_page
from robustness_lib.paper import numbers

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
NOTEBOOKS = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@functools.cache
def read(path: Path) -> list[NotebookNode]:
    import jupytext  # takes a second, and one process runs this file

    return list(jupytext.read(path).cells)


def code_cells(source: Path) -> list[NotebookNode]:
    return [cell for cell in read(source) if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def test_a_notebook_works_from_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "book/results").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    check_parameters({"results": "book/results"})
    assert Path.cwd() == tmp_path
    with pytest.raises(UserError, match="start the notebook in the root of the repository"):
        check_parameters({"results": "nowhere"})


def test_every_section_has_a_notebook() -> None:
    assert {path.stem for path in SOURCES} == {*paper.SECTIONS, "index", "claims", "data_size", "cost", "provenance"}


@NOTEBOOKS
def test_pair_is_in_step(source: Path) -> None:
    def content(path: Path) -> list[tuple[str, str, dict[str, object]]]:
        return [(c.cell_type, c.source, {k: c.metadata[k] for k in sorted(c.metadata)}) for c in read(path)]

    pair = source.with_suffix(".ipynb")
    assert pair.is_file(), f"{pair.name} is missing: run make notebooks"
    assert content(source) == content(pair), f"{pair.name} is not what {source.name} says: run make notebooks"


@NOTEBOOKS
def test_every_name_that_a_notebook_takes_from_the_library_is_there(source: Path) -> None:
    """The pages are executed by the build alone, so a renamed function would go unnoticed."""
    tree = ast.parse("\n".join(cell.source for cell in code_cells(source)))
    names: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("robustness_lib"):
            for alias in node.names:
                exec(f"from {node.module} import {alias.name} as {alias.asname or alias.name}", names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id)
            assert not isinstance(module, ModuleType) or hasattr(module, node.attr), f"{node.value.id}.{node.attr}"


@NOTEBOOKS
def test_notebook_in_git_has_no_outputs(source: Path) -> None:
    notebook = json.loads(source.with_suffix(".ipynb").read_text())
    assert set(notebook["metadata"]) <= {"jupytext", "kernelspec"}
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])


@NOTEBOOKS
def test_parameters_cell_comes_first_and_is_plain(source: Path) -> None:
    first, check, *others = code_cells(source)
    assert "parameters" in tags(first)
    assert not any("parameters" in tags(cell) for cell in (check, *others))
    for statement in ast.parse(first.source).body:
        assert isinstance(statement, ast.Assign)
        assert isinstance(ast.literal_eval(statement.value), str | int | float | bool)
    for line in first.source.splitlines():
        assert "#" in line, f"papermill --help-notebook shows the comment: {line!r} has none"
    section = f', "{source.stem}"' if "measure_as_asked" in source.read_text() else ""
    assert f"check_parameters(globals(){section})" in check.source


@NOTEBOOKS
def test_no_cell_changes_a_parameter(source: Path) -> None:
    """The live cell would measure something else than was asked for."""
    first, *others = (
        {i.argval for i in dis.get_instructions(cell.source) if i.opname == "STORE_NAME"} for cell in code_cells(source)
    )
    for stored in others:
        assert not stored & first


@NOTEBOOKS
def test_cells_compile_and_are_short(source: Path) -> None:
    for cell in code_cells(source):
        compile(cell.source, source.name, "exec")
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        most = 75 if "markdown.findings(" in cell.source else 40
        assert len(lines) <= most, f"belongs in the library: {lines[0]} ..."
        assert not any(line.startswith(("%", "!")) for line in lines)


@NOTEBOOKS
def test_figures_have_caption_label_and_alternative_text(source: Path) -> None:
    for cell in code_cells(source):
        shown = cell.metadata.get("mystnb", {})
        if "figure" in shown or "image" in shown:
            assert shown["figure"]["name"].startswith("fig-")
            assert len(shown["figure"]["caption"]) > 20
            assert len(shown["image"]["alt"]) > 40
            assert shown["image"]["alt"] != shown["figure"]["caption"]
        if re.search(r"\b(draw\w*|new_figure|style\.show)\(", cell.source):
            assert "figure" in shown, f"a figure without a caption: {cell.source}"


@NOTEBOOKS
def test_a_notebook_without_recorded_results_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to the cell that measures."""
    monkeypatch.chdir(ROOT)
    mpl.use("agg")
    shell = InteractiveShell.instance(display_pub_class=CapturingDisplayPublisher)
    try:
        first, *others = code_cells(source)
        cells = [first.source, f"# Parameters\nresults = {str(tmp_path)!r}\n", *(cell.source for cell in others)]
        for text in itertools.takewhile(lambda text: "measure_as_asked" not in text, cells):
            assert shell.run_cell(text, store_history=True).success, text
        shown = f"{shell.display_pub.outputs} {capsys.readouterr().out}"
        assert re.search("Not shown|none recorded|not measured", shown)
    finally:
        InteractiveShell.clear_instance()
        atexit.unregister(shell.atexit_operations)


@pytest.mark.parametrize("own", [True, False], ids=["own results", "the book's results"])
def test_a_page_goes_on_where_records_are_missing(tmp_path: Path, own: bool) -> None:
    """With results of one's own; what fails with the book's, or while measuring, is an error."""
    for folder in ("book", "own"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ood.jsonl").touch()
    shell = InteractiveShell.instance(display_pub_class=CapturingDisplayPublisher)
    try:
        shell.run_cell(f"results = {str(tmp_path / 'book')!r}", store_history=True)
        shell.run_cell(f"# Parameters\nresults = {str(tmp_path / ('own' if own else 'book'))!r}", store_history=True)
        shell.run_cell("from robustness_lib import notebook\nnotebook.check_parameters(globals())", store_history=True)
        shell.run_cell("from matplotlib import pyplot\nerror = 0.1")
        assert shell.run_cell("figure = pyplot.figure()\n{}['cifar100']").success is own
        assert own == bool(re.search(r"Not shown.*KeyError\('cifar100'\)", str(shell.display_pub.outputs)))
        assert own == (not shell.user_ns["pyplot"].get_fignums()), "a half-drawn figure"
        assert shell.run_cell("assert error").success
        assert not shell.run_cell("measure_as_asked").success
    finally:
        shell.user_ns["pyplot"].close("all")
        InteractiveShell.clear_instance()


DEFAULTS = 'profile = "smoke"  # scale\nseeds = "0,1,2"\nworkers = 0\nrate = 0.1\nquick = False'


def run(injected: str = "") -> dict[str, object]:
    """A namespace as a kernel has it after the parameters cell and the cell that papermill put after it."""
    namespace: dict[str, object] = {}
    cells = [DEFAULTS, *([f"# Parameters\n{injected}\n"] if injected else [])]
    for cell in cells:
        exec(cell, namespace)
    namespace["In"] = ["", *cells, "check_parameters(globals())"]
    check_parameters(namespace)
    return namespace


def test_parameters_of_the_right_kind_are_accepted() -> None:
    assert run()["seeds"] == "0,1,2"
    given = run('profile = "cpu"\nworkers = 2\nrate = 1\nquick = True\nseeds = 0')
    assert [given[name] for name in ("profile", "workers", "rate", "quick", "seeds")] == ["cpu", 2, 1.0, True, "0"]
    assert isinstance(given["rate"], float)


@pytest.mark.parametrize(
    ("injected", "message"),
    [
        ('profil = "cpu"', r"unknown parameter 'profil' \(did you mean 'profile'\?\).*seeds, workers"),
        ("workers = 1.5", "workers is 1.5, but a whole number"),
        ("workers = True", "workers is True, but a whole number"),
        ('rate = "1e-3"', "rate is '1e-3', but a number"),
        ("quick = 1", "quick is 1, but True or False"),
        ("seeds = [0, 1]", r"seeds is \[0, 1\], but text was expected, such as its default '0,1,2'"),
    ],
)
def test_unknown_name_and_value_of_another_kind_are_refused(injected: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(injected)


def test_what_a_section_cannot_measure_is_refused() -> None:
    texts = {"profile": "smoke", "dataset": "all", "method": "all", "seeds": "0", "overrides": "", "data_root": ""}
    check_parameters(dict(texts), "calibration")
    with pytest.raises(UserError, match=r"'temper'.*standard, temperature"):
        check_parameters(texts | {"method": "temper"}, "calibration")


def test_papermill_run_with_an_unsuitable_parameter_fails_in_its_first_cells(tmp_path: Path) -> None:
    """The real thing, once: kernel, injected cell, refusal, exit status."""
    out = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", "notebooks/claims.ipynb", str(out), "--no-progress-bar"]
    done = subprocess.run([*command, "-p", "result", "x"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode != 0
    assert "unknown parameter 'result' (did you mean 'results'?)" in done.stdout + done.stderr
    counts = [cell.get("execution_count") for cell in json.loads(out.read_text())["cells"]]
    assert max(filter(None, counts)) == 3  # the parameters, papermill's and the check


def executed(path: Path, **change: object) -> Path:
    """An executed notebook as papermill writes it."""
    cell = {
        "cell_type": "code",
        "source": "1",
        "execution_count": 1,
        "metadata": {"papermill": {"duration": 1.0}, "tags": ["hide-input"]},
        "outputs": [{"output_type": "stream", "name": "stdout", "text": ["done\n"]} | change],
    }
    noted = {"kernelspec": {"name": "python3"}, "papermill": {"input_path": "/somewhere", "parameters": {}}}
    path.write_text(json.dumps({"cells": [cell], "metadata": noted, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_page_lacks_what_papermill_noted_and_progress_bars(tmp_path: Path) -> None:
    run_path, page_path = executed(tmp_path / "run.ipynb", name="stderr", text=["50%"]), tmp_path / "page.ipynb"
    write_page(run_path, page_path)
    page = json.loads(page_path.read_text())
    assert page["metadata"] == {"kernelspec": {"name": "python3"}}
    assert page["cells"][0]["metadata"] == {"tags": ["hide-input"]}
    assert page["cells"][0]["outputs"][0]["text"] == ["50%"]
    run_path.write_text(run_path.read_text().replace("hide-input", "remove-stderr"))
    write_page(run_path, page_path)
    assert json.loads(page_path.read_text())["cells"][0]["outputs"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_type": "error"}, "stopped with an error in cell 1"),
        ({"text": [f"{Path.home()}/x\n"]}, "holds the path .* of this machine"),
        ({}, "seeds given"),
    ],
)
def test_page_that_is_not_fit_to_publish_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    run_path = executed(tmp_path / "run.ipynb", **change)
    if not change:
        run_path.write_text(run_path.read_text().replace('"parameters": {}', '"parameters": {"seeds": "0"}'))
    with pytest.raises(UserError, match=message):
        write_page(run_path, tmp_path / "page.ipynb")
    assert not (tmp_path / "page.ipynb").exists()


NOT_MEASURED = {95}
"""Percentages in prose that are nobody's result: the level of an interval."""


@pytest.mark.parametrize("section", list(paper.SECTIONS))
def test_no_result_is_typed_into_a_page(section: str) -> None:
    """A percentage or a difference in prose is the paper's or a setting, never ours."""
    printed = numbers._table(section)
    known = {float(text) for text in printed["printed"] if re.fullmatch(r"-?[\d.]+", text)} | NOT_MEASURED
    known |= {round(100 * level, 6) for level in printed["level"].dropna()}
    text = prose((ROOT / f"notebooks/{section}.py").read_text())
    typed = {match[1] for match in re.finditer(r"([−-]?\d+(?:\.\d+)?) ?(?:%|percent|points?\b)", text)}
    strange = sorted(number for number in typed if float(number.replace("−", "-")) not in known)
    assert not strange, f"typed numbers; let the page compute them from records: {strange}"


def prose(text: str) -> str:
    """The Markdown of a notebook's source, without fenced code."""
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ") and line[:4] != "# %%"]
    return re.sub(r"```.*?```", "", "\n".join(lines), flags=re.DOTALL)


def test_page_links_the_numbers_of_its_figures(tmp_path: Path) -> None:
    picture = {"image/svg+xml": "<svg/>", CSV: "x,y\n1,2\n"}
    output = {"output_type": "display_data", "data": picture, "metadata": {}}
    figure = {"mystnb": {"figure": {"caption": "What it is.", "name": "fig-it"}}}
    cells = [{"cell_type": "code", "metadata": noted, "outputs": [output]} for noted in (figure, {})]
    (tmp_path / "run.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}}))
    write_page(tmp_path / "run.ipynb", tmp_path / "page.ipynb")
    first, second = json.loads((tmp_path / "page.ipynb").read_text())["cells"]
    assert list(first["outputs"][0]["data"]) == list(second["outputs"][0]["data"]) == ["image/svg+xml"]
    assert (tmp_path / "data/fig-it.csv").read_text() == "x,y\n1,2\n"
    caption = first["metadata"]["mystnb"]["figure"]["caption"]
    assert caption == "What it is. {download}`The numbers (CSV) <data/fig-it.csv>`"
