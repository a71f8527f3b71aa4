"""The book as one HTML file, for reading without a network and for printing.

``python -m robustness_lib.offline SITE FILE`` puts the pages of a built book one after another, in the order of its
contents, with styles, figures, formulas' script and downloads inside the file. ``make book`` does so, and the first
page links to it. Printed from a browser, it is the book's PDF. (Sphinx's own single page repeats anchors, and loses its
styles in a subfolder.)
"""

from __future__ import annotations

import base64
import mimetypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from robustness_lib.errors import UserError
from robustness_lib.files import write_atomically

FORMULAS = "_static/mathjax/tex-svg.js"
"""The script for formulas; it draws glyphs itself, so that no font has to come along."""

LEFT_OUT = "api"
"""Page and folder that are not in the file: the reference is several times as long as the rest, and the code has it
too."""

SCRIPT = "_static/companion.js"
MODE = """const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.dataset.theme = dark ? "dark" : "light";
window.MathJax = {options: {processHtmlClass: "math", ignoreHtmlClass: "bd-article", enableMenu: false}};"""
STYLE = """
body { display: block; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
main > .bd-article { border-top: 1px solid var(--pst-color-border); margin-top: 3rem; padding-top: 1rem; }
main > nav ul { display: block; list-style: none; padding-left: 1rem; }
main > nav .caption { font-weight: 600; margin: 1rem 0 0.25rem; }
.headerlink { text-decoration: none; }
@media print {
  main { max-width: none; padding: 0; }
  main > .bd-article:not(nav) { break-before: page; border: 0; }
}
"""

mimetypes.add_type("text/csv", ".csv")
mimetypes.add_type("text/x-python", ".py")
mimetypes.add_type("application/x-ipynb+json", ".ipynb")


def assemble(site: Path) -> str:
    """One page of all pages.

    Args:
        site: Folder of a book that Jupyter Book has built, with its ``index.html``.

    Returns:
        HTML that refers to no other file. What it links to is in it, or on the web.

    Raises:
        UserError: There is no book, or a page refers to what is not there.
    """
    root = site / "index.html"
    if not root.exists():
        raise UserError(f"{root} is missing, but one file is made of a built book; run 'make book'")
    first, contents = _first_page(root)
    names = {page.resolve(): page.stem for page in _pages(first, contents) if not _left_out(page, first)}
    articles = [_article(page, names) for page in names]
    styles = "".join(_style(first.parent / _href(link)) for link in _soup(first).select('link[rel="stylesheet"]'))
    title = _soup(first).select_one("h1")
    heading = title.get_text().removesuffix("#") if title else ""
    for link in contents.select("a"):
        if link.decomposed:
            continue
        name = names.get((first.parent / _href(link)).resolve())
        if name is None:
            (link.find_parent("li") or link).decompose()
        else:
            link["href"] = f"#{name}"
    return f"""<!DOCTYPE html>
<html lang="en" data-content_root="./">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading}</title>
<style>{styles}{STYLE}</style>
<script>{MODE}</script>
<script>{_script(site / SCRIPT)}</script>
</head>
<body>
<main class="bd-content">
{articles[0]}
<nav class="bd-article" aria-label="Contents">
<h2>Contents</h2>
{contents.decode_contents()}
</nav>
{"".join(articles[1:])}
</main>
<script>{_script(site / FORMULAS)}</script>
</body>
</html>
"""


def _soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def _href(tag: Tag) -> str:
    return str(tag["href"])


def _first_page(root: Path) -> tuple[Path, Tag]:
    """The page that ``index.html`` sends to, and the list of all pages in its sidebar."""
    refresh = _soup(root).select_one('meta[http-equiv="Refresh" i]')
    first = root if refresh is None else root.parent / str(refresh["content"]).partition("url=")[2].strip("'\" ")
    contents = _soup(first).select_one("nav.bd-docs-nav")
    if contents is None:
        raise UserError(f"{first} has no list of pages in its sidebar; build the book with Jupyter Book's own theme")
    return first, contents


def _pages(first: Path, contents: Tag) -> Iterator[Path]:
    for link in contents.select("a"):
        target = first if _href(link) == "#" else first.parent / _href(link)
        link["href"] = str(target.name) if _href(link) == "#" else _href(link)
        yield target


def _left_out(page: Path, first: Path) -> bool:
    return LEFT_OUT in page.resolve().relative_to(first.parent.resolve()).with_suffix("").parts


def _article(page: Path, names: dict[Path, str]) -> str:
    """The content of a page, its anchors preceded by the page's name and everything that it refers to inside."""
    article = _soup(page).select_one("article.bd-article")
    if article is None:
        raise UserError(f"{page} has no article; build the book with Jupyter Book's own theme")
    name = names[page.resolve()]
    for tag in article.select("[id]"):
        tag["id"] = f"{name}--{tag['id']}"
    for tag in article.select("a[href]"):
        _link(tag, page, names)
    for tag in article.select("img[src]"):
        tag["src"] = _data(page.parent / unquote(str(tag["src"])), page)
        tag["loading"] = "lazy"
    for tag in article.select("script"):
        tag.decompose()
    article["id"] = name
    return str(article)


def _link(tag: Tag, page: Path, names: dict[Path, str]) -> None:
    parts = urlsplit(_href(tag))
    if parts.scheme:
        return
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
    if target in names:
        anchor = f"--{parts.fragment}" if parts.fragment else ""
        tag["href"] = f"#{names[target]}{anchor}"
    elif target.suffix == ".html" or "_images" in target.parts:  # pages left out, listings of code, larger views
        tag.unwrap()
    else:
        tag["href"] = _data(target, page)
        tag["download"] = target.name


def _there(path: Path, page: Path) -> Path:
    if not path.exists():
        raise UserError(f"{page} refers to {path}, which does not exist; run 'make clean' and 'make book'")
    return path


def _data(path: Path, page: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(_there(path, page).read_bytes()).decode()}"


def _script(path: Path) -> str:
    return _there(path, path.parent).read_text(encoding="utf-8").replace("</script", "<\\/script")


def _style(path: Path) -> str:
    """A style sheet with what it imports and shows inside; fonts, which only the theme's buttons use, are left out."""
    path = Path(urlsplit(str(path)).path)
    text = re.sub(r"@font-face\s*{[^}]*}", "", _there(path, path).read_text(encoding="utf-8"))
    text = re.sub(
        r"@import\s+(?:url\()?[\"']?([^\"');]+)[\"']?\)?;", lambda match: _style(path.parent / match[1]), text
    )
    return re.sub(
        r"url\([\"']?(?!data:)([^\"')]+)[\"']?\)", lambda match: f'url("{_data(path.parent / match[1], path)}")', text
    )


def main() -> None:
    """Write the file."""
    site, file = (Path(word) for word in sys.argv[1:])
    try:
        write_atomically(file, assemble(site).encode())
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
