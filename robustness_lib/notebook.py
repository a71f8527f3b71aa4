"""What a notebook needs around its cells: checked parameters, and an executed copy that is fit to publish.

papermill does not check parameters: it runs with the defaults where a name is misspelt. :func:`check_parameters`,
called in the cell after the parameters cell, refuses such a run. ``python -m robustness_lib.notebook EXECUTED PAGE``
writes the copy that the book shows (:func:`write_page`).
"""

import ast
import json
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from robustness_lib.errors import UserError, choose
from robustness_lib.files import as_path, write_atomically

CSV = "text/csv"  # the format in which a notebook keeps a figure's numbers
_INJECTED = "# Parameters\n"  # how the cell begins that papermill puts after the parameters cell
_FOLDERS = ("data_root", "store", "results")  # parameters in which ~ is the home folder
_GUARD = """try: ...
except Exception as _error:
    from matplotlib import pyplot
    pyplot.close("all")  # a half-drawn figure
    display({"text/markdown": f"*Not shown: this failed; are records missing?* (`{_error!r:.99}`)"}, raw=True)
"""


def check_parameters(namespace: MutableMapping[str, Any], section: str | None = None) -> None:
    """Refuse unknown parameters, values of the wrong kind and what a section cannot measure; work from the root.

    A notebook that an editor started in its own folder goes on in the folder above, if that has the recorded results.
    The defaults in the parameters cell say of which kind each parameter is. Values in the namespace, the notebook's
    ``globals()``, are converted (``-p seeds 0`` means ``"0"``). With results of one's own, cells say what they lack.
    """
    history = [str(cell) for cell in namespace.get("In", ())]
    defaults = next(filter(None, map(_constants, history)), {})
    for cell in history:
        if cell.startswith(_INJECTED):
            for name in re.findall(r"^(\w+) =", cell, re.MULTILINE):
                choose(name, defaults, "parameter")
    for name, default in defaults.items():
        value = _as_kind_of(default, namespace[name], name)
        namespace[name] = str(as_path(value)) if name in _FOLDERS and value else value
    if "results" in namespace:
        folder = Path(namespace["results"])
        if not folder.is_dir() and (".." / folder).is_dir():
            os.chdir("..")
        if not folder.is_dir():
            raise UserError(
                f"the recorded results are not in {folder}; start the notebook in the root of the repository, or give "
                "their folder as the parameter results"
            )
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        own = folder != Path(defaults.get("results", folder))
        if shell is not None and (own or not any(folder.glob(f"{section or '*'}.jsonl"))):
            shell.ast_transformers.append(MissingRecords())
    if section is not None:
        from robustness_lib.experiments import registry

        registry.plan_as_asked(section, namespace)
    if "profile" in defaults:
        _name_run({name: namespace[name] for name in defaults if name not in _FOLDERS and namespace[name] != ""})


class MissingRecords(ast.NodeTransformer):
    """Makes cells that fail for want of recorded results say so, up to the cell that measures."""

    is_over = False

    def visit_Module(self, cell: ast.Module) -> ast.Module:
        """The cell with its statements guarded."""
        self.is_over = self.is_over or "measure_as_asked" in ast.unparse(cell)
        if self.is_over or not cell.body:
            return cell
        if isinstance(last := cell.body[-1], ast.Expr):
            last.value = ast.Call(ast.parse("get_ipython().displayhook", mode="eval").body, [last.value], [])
        guarded = ast.parse(_GUARD)
        guarded.body[0].body = cell.body  # type: ignore[attr-defined]
        return ast.fix_missing_locations(guarded)


def _name_run(parameters: Mapping[str, Any]) -> None:
    """Show at the top of an executed notebook which run it is of; the book leaves this out."""
    from IPython.display import Markdown, display  # of the extra "book"; the library does without

    words = ", ".join(f"{name} `{value}`" for name, value in parameters.items())
    text = f"**This run:** {words}. What it measured is under *Run it yourself*, beside the recorded results."
    display(Markdown(text))  # type: ignore[no-untyped-call]


def _constants(cell: str) -> dict[str, Any]:
    """Names and values of a cell that holds nothing but plain assignments; otherwise nothing."""
    try:
        return {one.targets[0].id: ast.literal_eval(one.value) for one in ast.parse(cell).body}  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, AttributeError):
        return {}


def _as_kind_of(default: Any, value: Any, name: str) -> Any:
    """``value``, as the kind of thing that ``default`` is."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match default:
        case bool():
            fits, expected = isinstance(value, bool), "True or False"
        case int():
            fits, expected = number and isinstance(value, int), "a whole number"
        case float():
            fits, expected = number, "a number (write 0.001 rather than 1e-3)"
            value = float(value) if number else value
        case str():
            fits, expected = number or isinstance(value, str), "text"
            value = str(value) if number else value
        case _:
            fits, expected = default is None or isinstance(value, type(default)), type(default).__name__
    if not fits:
        raise UserError(
            f"the parameter {name} is {value!r}, but {expected} was expected, such as its default {default!r}"
        )
    return value


def write_page(executed: Path, page: Path) -> None:
    """Write the copy of an executed notebook that the book shows, whole or not at all.

    It lacks what papermill noted about the run, and the progress bars of cells with the tag ``remove-stderr``. The
    numbers that a figure draws become a file, ``data/<its label>.csv`` beside the copy, to which its caption links.
    """
    notebook = json.loads(executed.read_text())
    parameters = notebook["metadata"].pop("papermill", {}).get("parameters", {})
    if parameters:
        raise UserError(f"{executed} was run with {', '.join(parameters)} given; the book shows runs at the defaults")
    here = {str(path) for path in (Path.cwd(), os.path.expanduser("~"), Path(sys.prefix))} - {"/", "~"}
    for number, cell in enumerate(notebook["cells"], start=1):
        for noted in ("papermill", "execution"):
            cell["metadata"].pop(noted, None)
        shown = cell.get("outputs", [])
        if "remove-stderr" in cell["metadata"].get("tags", []):
            shown[:] = [output for output in shown if output.get("name") != "stderr"]
        if any(output["output_type"] == "error" for output in shown):
            raise UserError(f"{executed} stopped with an error in cell {number}; mend it and run it again")
        if paths := sorted(path for path in here if f"{path}/" in json.dumps(shown)):
            raise UserError(
                f"an output of cell {number} of {executed} holds the path {paths[0]} of this machine; "
                "print paths relative to the repository"
            )
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        for output in shown:
            numbers = "".join(output.get("data", {}).pop(CSV, ""))
            if numbers.count("\n") > 1 and "name" in figure:
                path = f"data/{figure['name']}.csv"
                write_atomically(page.parent / path, numbers.encode())
                figure["caption"] += f" {{download}}`The numbers (CSV) <{path}>`"
    write_atomically(page, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())


def main() -> int:
    """Write one page from the command line; a mistake is one sentence on stderr and status 2."""
    try:
        write_page(*map(Path, sys.argv[1:]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
