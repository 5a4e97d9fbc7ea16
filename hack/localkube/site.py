"""What the documentation site adds to Sphinx: locally drawn diagrams, links as on GitHub, pages that fetch nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>$', re.MULTILINE)
FETCHING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}
"""Elements for which a browser fetches something, and the attribute that says what."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the functions below with Sphinx."""
    app.connect("source-read", prepare)
    app.connect("doctree-read", adapt)
    app.connect("build-finished", check)
    return {"parallel_read_safe": True}


def prepare(_app: Sphinx, _name: str, source: list[str]) -> None:
    """Turn anchors in HTML into targets that MyST knows."""
    source[0] = ANCHOR.sub(r"(\1)=", source[0])


def adapt(app: Sphinx, doctree: nodes.document) -> None:
    """Draw the diagrams, have links from other pages reach anchors, and show links to folders, which the site does not have, as text."""
    name = app.env.docname
    slugs = app.env.metadata[name].setdefault("myst_slugs", {})  # where MyST looks
    for anchor, place in doctree.nameids.items():
        slugs.setdefault(anchor, (None, place, ""))
    for block in list(doctree.findall(lambda node: isinstance(node, nodes.literal_block) and node.get("language") == "mermaid")):
        svg = drawn(block.astext(), f"{name.replace('/', '-')}-{block.line}")
        block.parent.replace(block, nodes.raw("", f'<div style="background: #fff; overflow-x: auto">{svg}</div>', format="html"))
    for link in list(doctree.findall(pending_xref)):
        if link.get("reftype") == "myst" and (Path(app.srcdir) / Path(name).parent / link["reftarget"]).is_dir():
            link.parent.replace(link, link.children)


def drawn(diagram: str, name: str) -> str:
    """Return a diagram in Mermaid as SVG; ``name`` is its own within a page. ExtensionError says what is wrong with it."""
    import mmdr  # noqa: PLC0415  it complains when a process that does not draw ends, such as that of the tests

    try:
        svg: str = mmdr.render(diagram).svg()
    except ValueError as error:
        raise ExtensionError(f"diagram {name}: {error}") from error
    return svg.replace("merman", name)


def check(app: Sphinx, error: Exception | None) -> None:
    """Lead from the folder itself to the index; fail a build whose pages fetch anything from outside. ExtensionError names it."""
    if error is None and app.builder.format == "html":
        index = (
            f'<!doctype html><meta http-equiv="refresh" content="0; url={app.config.root_doc}.html"><title>{app.config.html_title}</title>'
        )
        (Path(app.outdir) / "index.html").write_text(index, encoding="utf-8")
        if found := outside(Path(app.outdir)):
            raise ExtensionError(f"the pages fetch from outside: {', '.join(found)}")


def outside(folder: Path) -> list[str]:
    """Return what the pages and style sheets of a folder fetch from outside, each with the file that does."""
    files = [(path, path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*")) if path.suffix in {".html", ".css"}]
    return [f"{path.relative_to(folder)}: {url}" for path, text in files for url in (fetched if path.suffix == ".html" else imported)(text)]


def imported(sheet: str) -> list[str]:
    """Return the addresses outside from which a style sheet fetches something."""
    return re.findall(r"(?:url\(|@import )\s*[\"']?((?:https?:)?//[^\"')\s]+)", sheet)


def fetched(page: str) -> list[str]:
    """Return the addresses outside from which a browser would fetch something for a page."""
    parser = _Fetching()
    parser.feed(page)
    return [url for url in parser.urls if re.match(r"(?:https?:)?//", url)]


class _Fetching(HTMLParser):
    """Notes what a browser fetches; links that a reader may follow do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if value and name == FETCHING.get(tag)]
