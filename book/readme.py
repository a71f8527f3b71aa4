"""Write the results in README.md, and their picture, from the first page: ``make readme``.

The cells of notebooks/index.py are executed; what those with the tag ``readme`` show goes between two marks in it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any
from unittest import mock

import jupytext
import matplotlib as mpl

START, END = "<!-- results: made by `make readme`, not by hand -->", "<!-- end of the results -->"
PICTURE = Path("book/_static/results.svg")


def outputs(page: Path = Path("notebooks/index.py")) -> tuple[list[str], str]:
    """What the cells with the tag show: Markdown texts, and the figure as SVG with its alternative text before it."""
    mpl.use("agg")
    from robustness_lib.report import style

    shown: list[str] = []
    figures: list[str] = []
    space: dict[str, Any] = {"__name__": "readme"}
    with mock.patch.object(style, "show", lambda figure, plotted: figures.append(style.as_svg(figure))):
        for cell in jupytext.read(page).cells:
            if cell.cell_type != "code":
                continue
            *body, last = ast.parse(cell.source).body
            shows = isinstance(last, ast.Expr)
            exec(compile(ast.Module([*body, *([] if shows else [last])], []), page.name, "exec"), space)
            value = eval(compile(ast.Expression(last.value), page.name, "eval"), space) if shows else None
            if "readme" in cell.metadata.get("tags", []):
                image = cell.metadata.get("mystnb", {}).get("image")
                caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
                shown.append(f"![{image['alt']}]({PICTURE})\n\n*{caption}*" if image else plain(str(value)))
    return shown, figures[0]


def plain(text: str) -> str:
    """MyST as the Markdown that a repository's host shows: directives without their fences, pages by their sources."""
    text = re.sub(r"^:::\{table\} (.*)$", r"*\1*", text, flags=re.M)
    text = re.sub(r"^:{3,}.*$|^:(?:class|name): .*$", "", text, flags=re.M)
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](notebooks/\1.py)", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def written(text: str, shown: list[str]) -> str:
    """``text`` with the results between the marks."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"README.md needs the lines {START} and {END}")
    return f"{before}{START}\n\n" + "\n\n".join(shown) + f"\n\n{END}{after}"


if __name__ == "__main__":
    texts, picture = outputs()
    readme = Path("README.md")
    readme.write_text(written(readme.read_text(), texts))
    PICTURE.write_text(picture)
