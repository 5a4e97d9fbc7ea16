"""What the texts refer to is there: laws, facts about the client, files, headings. Nothing refers to a page outside of the repository."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {".py", ".md", ".yaml", ".toml", ".json", ".sh", ".txt", ".tpl", ""}
OUTSIDE = re.compile(
    r"\bDESIGN\b|\bAPI\.md\b|\.\./shared\b|multiconnect-page|\b(vocabulary|style|peers|python-clients|local-kubernetes|vendor-mode)\.md\b"
)
LAWS = tuple(range(1, 17))


@cache
def texts() -> dict[Path, str]:
    """Every text file that is kept in the repository, by its path."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    kept = (Path(name) for name in listed if name and Path(name).suffix in TEXTS)
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in kept if (ROOT / path).is_file() and path.parts[0] != "LICENSE"}


def pages() -> dict[Path, str]:
    return {path: text for path, text in texts().items() if path.suffix == ".md"}


def anchors(text: str) -> set[str]:
    """What a link into a page may name: its headings as GitHub spells them, and ids."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


def references(kind: str) -> set[tuple[Path, str]]:
    return {(path, name) for path, text in texts().items() for name in re.findall(rf"\b{kind}#([\w-]+)", text)}


def test_each_law_has_its_place_and_is_broken_on_purpose() -> None:
    places = anchors(texts()[Path("docs/architecture.md")])
    mutants = texts()[Path("tests/simulation/test_mutants.py")]
    assert {f"law-{number}" for number in LAWS} <= places
    assert {str(number) for number in LAWS} <= set(re.findall(r'Mutant\(\s*"[^"]+", \w+, "([^"]+)"', mutants))


def test_each_reference_to_a_law_or_to_a_fact_of_the_client_resolves() -> None:
    laws, facts = anchors(texts()[Path("docs/architecture.md")]), anchors(texts()[Path("docs/whatsapp-client.md")])
    assert references("laws"), "the code refers to laws"
    assert references("client"), "the code refers to facts"
    assert {(path, name) for path, name in references("laws") if f"law-{name}" not in laws} == set()
    assert {(path, name) for path, name in references("client") if name not in facts} == set()


def test_nothing_refers_to_a_page_outside_of_the_repository() -> None:
    own = Path(__file__).resolve().relative_to(ROOT)
    found = [f"{path}: {word[0]}" for path, text in texts().items() if path != own for word in OUTSIDE.finditer(text)]
    assert found == []


@pytest.mark.parametrize("page", pages(), ids=str)
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", pages()[page], flags=re.DOTALL)):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / page.parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {link}"


ADDITIONS = ("a rule", "something that is done whichever rule wins", "a condition", "a reason", "evidence", "a field", "a fault")


@pytest.mark.parametrize("what", ADDITIONS)
def test_it_is_said_where_to_add(what: str) -> None:
    section = texts()[Path("docs/architecture.md")].split("## Where to add things")[1].split("\n## ")[0]
    assert re.search(rf"^\| {what}\b[^|]*\|[^|]*`[\w./-]+/[\w./-]*`", section, re.MULTILINE)


def test_what_is_to_be_changed_for_an_addition_is_there() -> None:
    section = texts()[Path("docs/architecture.md")].split("## Where to add things")[1].split("\n## ")[0]
    named = re.findall(r"`([\w./-]+/[\w./-]*)`", section)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
