"""The book's scaffold: complete, consistent, and the same as what the code says."""

import ast
import importlib
import itertools
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from robustness_lib.report import style

ROOT = Path(__file__).parents[1]
PROSE = sorted((ROOT / "book").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def test_every_page_is_in_the_table_of_contents_once() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    assert len(files) == len(set(files))
    pages = {f"book/{path.stem}" for path in PROSE} | {f"book/executed/{path.stem}" for path in NOTEBOOKS}
    assert set(files) == pages


def test_every_module_is_in_the_reference() -> None:
    package = ROOT / "robustness_lib"
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in package.rglob("*.py")
        if not path.name.startswith("_")
    } | {f"robustness_lib.{room}" for room in ("data", "metrics", "paper")}  # these pass names on
    pages = "\n".join(page.read_text() for page in (ROOT / "book/api").glob("*.md"))
    described = re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE)
    listed = re.findall(r"^   (robustness_lib\.\S+)$", pages, re.MULTILINE)
    assert sorted(described) == sorted(listed) == sorted(modules)


def sources() -> str:
    library = (path.read_text() for path in (ROOT / "robustness_lib").rglob("*.py"))
    return "\n".join([*(path.read_text() for path in [*PROSE, *NOTEBOOKS]), *library])


def test_every_citation_is_in_the_bibliography_and_every_entry_is_cited() -> None:
    entries = re.findall(r"^@\w+\{(\S+),$", (ROOT / "book/references.bib").read_text(), re.MULTILINE)
    cited = {key.strip() for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", sources()) for key in keys.split(",")}
    assert len(entries) == len(set(entries))
    assert cited == set(entries)


def test_every_label_is_referred_to() -> None:
    """A notebook that was not run loses its figures: only a reference to each makes the build notice."""
    text = "\n".join(path.read_text() for path in NOTEBOOKS)
    equations = set(re.findall(r"\$\$ \((eq-[a-z-]+)\)", text))
    figures = set(re.findall(r'"name": "(fig-[a-z-]+)"', text))
    assert equations <= set(re.findall(r"\{eq\}`(eq-[a-z-]+)`", text))
    assert figures <= set(re.findall(r"\{numref\}`(?:[^`<]*<)?(fig-[a-z-]+)>?`", text))


def test_no_address_and_no_path_of_a_machine_in_the_repository() -> None:
    """What is installed from where is the user's choice, and no file knows where it lies."""
    files = [ROOT / name for name in ("constraints.txt", "pyproject.toml", "environment.yml", "Makefile")]
    files += [*PROSE, *NOTEBOOKS, *(ROOT / "book/results").glob("*.jsonl"), ROOT / "README.md"]
    for path in files:
        text = path.read_text()
        assert not re.search(r"(?<![\w.])/(home|root|Users|tmp|work)/", text), path.name
        assert not re.search(r"--(extra-)?index-url|--find-links|pypi\.|anaconda\.org", text), path.name


def test_constraints_pin_what_is_declared_and_what_is_installed() -> None:
    text = re.sub(r"^#.*\n", "", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    pin = re.compile(r"([A-Za-z0-9._-]+)==([^ ;]+)( ; [^\n]+?)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n")
    assert pin.sub("", text) == "", "each line is a pin with the hashes of its files"
    pins = {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in pin.finditer(text)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["book"], *extras["test"]]:
        name = re.match(r"[A-Za-z0-9_-]+", requirement)[0].lower()
        assert name in pins, f"{name} is declared but not pinned"
        assert metadata.version(name).partition("+")[0] == pins[name].partition("+")[0], name


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (\S+)", (ROOT / ".github/workflows/book.yml").read_text())
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []


def test_readme_shows_the_published_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """README.md and its picture are what the first page shows: `make readme` writes both."""
    monkeypatch.syspath_prepend(ROOT / "book")
    readme = importlib.import_module("readme")
    shown, picture = readme.outputs(ROOT / "notebooks/index.py")
    assert style.show.__module__ == style.__name__, "making the picture leaves the style as it was"
    text = (ROOT / "README.md").read_text()
    assert text == readme.written(text, shown), "run make readme"
    assert (ROOT / readme.PICTURE).read_text() == picture, "run make readme"
    assert text.count("\n") < 120
    with pytest.raises(SystemExit, match="needs the lines"):
        readme.written("# no marks", shown)


def test_pages_do_without_thebe(tmp_path: Path) -> None:
    from sphinx.application import Sphinx  # takes a second

    (tmp_path / "index.md").write_text("# A page\n")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'book/_ext')!r})\n"
        "extensions = ['myst_parser', 'sphinx_thebe', *OURS]\nthebe_config = {}\n"
    )
    sources = (tmp_path / "conf.py").read_text()
    for ours, found in (([], True), (["without_thebe"], False)):
        (tmp_path / "conf.py").write_text(f"OURS = {ours}\n{sources}")
        app = Sphinx(
            tmp_path, tmp_path, tmp_path / f"out{found}", tmp_path / "trees", "html", status=None, freshenv=True
        )
        app.build()
        assert ("thebe" in (tmp_path / f"out{found}" / "index.html").read_text()) == found


def test_descriptions_of_attributes_begin_without_a_colon() -> None:
    """Sphinx would take what stands before it for the attribute's type."""
    for path in sorted((ROOT / "robustness_lib").rglob("*.py")):
        bodies = (getattr(node, "body", None) for node in ast.walk(ast.parse(path.read_text())))
        for one, other in (pair for body in bodies if isinstance(body, list) for pair in itertools.pairwise(body)):
            if isinstance(one, ast.Assign | ast.AnnAssign) and isinstance(
                value := getattr(other, "value", 0), ast.Constant
            ):
                first = re.sub(r"``.*?``|:\w+:`.*?`", "", str(value.value).partition("\n")[0])
                assert not isinstance(other, ast.Expr) or ": " not in first, f"{path}:{other.lineno}: {first}"
