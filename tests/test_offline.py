"""The book as one file, made of a small site that is marked up as Jupyter Book marks up its own."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from robustness_lib import offline
from robustness_lib.errors import UserError

PAGE = """<html><head><link rel="stylesheet" href="../_static/theme.css?v=1"></head><body>
<nav class="bd-docs-nav"><ul><li><a href="{home}">Home</a></li><li><a href="{other}">Other</a></li>
<li><a href="api.html">Reference</a><ul><li><a href="api/data.html">Data</a></li></ul></li></ul></nav>
<article class="bd-article"><section id="top"><h1>{title}<a class="headerlink" href="#top">#</a></h1>{body}</section>
</article></body></html>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    book = tmp_path / "book"
    files = {
        tmp_path / "index.html": '<meta http-equiv="Refresh" content="0; url=book/home.html" />',
        book / "home.html": PAGE.format(
            home="#",
            other="other.html",
            title="Title",
            body='<a href="other.html#top">there</a> <a href="https://example.org/x">web</a> '
            '<a href="api.html#f">f</a> <script>load()</script>',
        ),
        book / "other.html": PAGE.format(
            home="home.html",
            other="#",
            title="Second",
            body='<a href="home.html">back</a> <a href="../_downloads/a/numbers.csv" download="">numbers</a> '
            '<a class="image" href="../_images/x.svg"><img src="../_images/x.svg" alt="x"></a>',
        ),
        book / "api.html": PAGE.format(home="home.html", other="other.html", title="Reference", body="long"),
        book / "api/data.html": PAGE.format(home="../home.html", other="../other.html", title="Data", body="longer"),
        tmp_path / "_static/theme.css": '@import "more.css"; @font-face {src: url(font.woff2)} b {src: url(x.svg)}',
        tmp_path / "_static/more.css": "i {color: red}",
        tmp_path / "_static/x.svg": "<svg/>",
        tmp_path / "_images/x.svg": "<svg>picture</svg>",
        tmp_path / "_downloads/a/numbers.csv": "a,b\n1,2\n",
        tmp_path / offline.SCRIPT: "let end = '</script>';",
        tmp_path / offline.FORMULAS: "formulas()",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def inside(reference: object) -> str:
    kind, _, data = str(reference).partition(";base64,")
    assert kind.startswith("data:")
    return base64.b64decode(data).decode()


def test_pages_follow_each_other_with_anchors_of_their_own(site: Path) -> None:
    page = BeautifulSoup(offline.assemble(site), "html.parser")
    assert [article["id"] for article in page.select("article")] == ["home", "other"]
    anchors = [str(tag["id"]) for tag in page.select("[id]")]
    assert len(anchors) == len(set(anchors)) == 4
    inner = [str(link["href"])[1:] for link in page.select('a[href^="#"]')]
    assert set(inner) == {"home", "other", "home--top", "other--top"}
    assert [link.get_text() for link in page.select("nav a")] == ["Home", "Other"]
    assert page.title is not None
    assert page.title.get_text() == "Title"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    text = offline.assemble(site)
    page = BeautifulSoup(text, "html.parser")
    outer = [str(tag["href"]) for tag in page.select('a[href]:not([href^="#"])')]
    assert [link for link in outer if not link.startswith("data:")] == ["https://example.org/x"]
    [download] = [link for link in outer if link.startswith("data:")]
    assert inside(download) == "a,b\n1,2\n"
    assert page.select_one("a[download]")["download"] == "numbers.csv"
    assert [inside(picture["src"]) for picture in page.select("img")] == ["<svg>picture</svg>"]
    assert not page.select("link, script[src]")
    style = page.select_one("style")
    assert style is not None
    assert "i {color: red}" in style.get_text()
    assert "font-face" not in style.get_text()
    assert "url(x.svg)" not in style.get_text()
    assert "load()" not in text
    assert text.count("</script>") == 3, "a script that contains its own end would be cut off there"


@pytest.mark.parametrize("gone", ["index.html", "_downloads/a/numbers.csv", offline.FORMULAS, "_static/x.svg"])
def test_what_is_missing_is_named(site: Path, gone: str) -> None:
    (site / gone).unlink()
    with pytest.raises(UserError, match=Path(gone).name):
        offline.assemble(site)


def test_a_site_of_another_theme_is_refused(site: Path) -> None:
    (site / "book/home.html").write_text("<html><body><p>plain</p></body></html>")
    with pytest.raises(UserError, match="own theme"):
        offline.assemble(site)


def test_the_command_writes_the_file_or_one_sentence(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "robustness_lib.offline", str(site), str(tmp_path / "one.html")]
    subprocess.run(command, check=True)
    assert (tmp_path / "one.html").read_text() == offline.assemble(site)
    (site / "_images/x.svg").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert failed.stderr.startswith("error: ")
    assert len(failed.stderr.splitlines()) == 1
