"""The site of the documents: links and diagrams as on GitHub, and nothing that is fetched from outside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from localkube import site
from unit.forked import Ended, Forks, forks

ROOT = Path(__file__).resolve().parents[3]
LIBRARIES = ("sphinx.cmd.build", "sphinx.builders.html", "sphinx.ext.mathjax", "myst_parser.parsers.sphinx_", "furo", "mmdr")
INDEX = """Index
=====

.. toctree::

   page
   /README
"""
PAGE = """# Page

<a id="fact"></a>
**1. A fact.** See the [fact](#fact), the [read me](../README.md#one-two), [the folder](folder) and [a file](folder/a.yaml).

```mermaid
flowchart LR
    a["one"] --> b["two"]
```
"""
README = "# Read me\n\n## One, two\n\nThe [fact](docs/page.md#fact).\n"


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Processes that have Sphinx already, and what it loads for a page."""
    with forks(tmp_path_factory.mktemp("forked"), "", LIBRARIES) as one:
        yield one


def build(forked: Forks, root: Path, page: str = PAGE, readme: str = README) -> Ended:
    """Build a small site with the configuration of this repository."""
    (root / "docs" / "folder").mkdir(parents=True, exist_ok=True)
    (root / "docs" / "folder" / "a.yaml").write_text("a: 1\n", encoding="utf-8")
    (root / "docs" / "index.rst").write_text(INDEX, encoding="utf-8")
    (root / "docs" / "page.md").write_text(page, encoding="utf-8")
    (root / "README.md").write_text(readme, encoding="utf-8")
    argv = ["-m", "sphinx", "-W", "--keep-going", "--quiet", "-c", str(ROOT / "docs"), str(root), str(root / "build")]
    ended = forked.run(os.environ, *argv, deadline=120.0)
    assert ended.status is not None, "it did not end"
    return ended


def test_links_anchors_and_diagrams_are_as_on_github(forked: Forks, tmp_path: Path) -> None:
    built = build(forked, tmp_path)
    assert (built.status, built.err) == (0, "")
    page = (tmp_path / "build" / "docs" / "page.html").read_text(encoding="utf-8")
    assert 'id="fact"' in page
    assert 'href="#fact"' in page
    assert 'href="../README.html#one-two"' in page
    assert re.search(r"<svg[^>]*>.*one.*two.*</svg>", page, re.DOTALL)
    assert "flowchart LR" not in page
    assert 'href="docs/page.html#fact"' in (tmp_path / "build" / "README.html").read_text(encoding="utf-8")
    assert "docs/index.html" in (tmp_path / "build" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (PAGE.replace("(#fact)", "(#missing)"), "missing"),
        (PAGE.replace("#one-two", "#three"), "three"),
        (PAGE.replace("(folder)", "(missing.md)"), "missing.md"),
        (PAGE.replace("-->", "--"), "diagram docs-page-"),
        (
            PAGE.replace("flowchart LR", "sequenceDiagram").replace('a["one"] --> b["two"]', "A->>B: one; two: three"),
            "parse error (sequence)",
        ),
        (PAGE + "\n![a picture](https://example.com/a.png)\n", "docs/page.html: https://example.com/a.png"),
    ],
    ids=["anchor", "anchor of another page", "page", "diagram", "another diagram", "fetched"],
)
def test_a_fault_of_a_page_fails_the_build(forked: Forks, tmp_path: Path, page: str, said: str) -> None:
    built = build(forked, tmp_path, page)
    assert built.status != 0
    assert said in built.err


def test_a_page_that_no_list_has_fails_the_build(forked: Forks, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "lonely.md").write_text("# Lonely\n", encoding="utf-8")
    built = build(forked, tmp_path)
    assert built.status != 0
    assert "lonely.md" in built.err


def test_what_a_page_fetches_is_seen_and_what_it_links_to_is_not() -> None:
    page = '<script src="//a.example/a.js"></script><a href="https://b.example"></a><img src="c.png"><link rel="stylesheet" href="http://d.example/d.css">'
    assert site.fetched(page) == ["//a.example/a.js", "http://d.example/d.css"]
    assert site.imported('@import "https://e.example/e.css"; a { background: url(//f.example/f.png); src: url(g.woff) }') == [
        "https://e.example/e.css",
        "//f.example/f.png",
    ]
