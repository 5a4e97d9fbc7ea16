"""What the texts refer to is there: laws, facts about the client, files, headings. Nothing refers to a page outside of the repository."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from whatsapp_operator import __version__

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


ADDITIONS = ("a rule", "something that is done no matter which rule wins", "a condition", "a reason", "evidence", "a field", "a fault")


@pytest.mark.parametrize("what", ADDITIONS)
def test_it_is_said_where_to_add(what: str) -> None:
    section = texts()[Path("docs/architecture.md")].split("## Where to add things")[1].split("\n## ")[0]
    assert re.search(rf"^\| {what}\b[^|]*\|[^|]*`[\w./-]+/[\w./-]*`", section, re.MULTILINE)


def test_what_is_to_be_changed_for_an_addition_is_there() -> None:
    section = texts()[Path("docs/architecture.md")].split("## Where to add things")[1].split("\n## ")[0]
    named = re.findall(r"`([\w./-]+/[\w./-]*)`", section)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


# ---------------------------------------------------------------- the list of changes, and the version

GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def faults_of(changelog: str) -> list[str]:
    """What in a list of changes has not the form of Keep a Changelog (https://keepachangelog.com), sentence by sentence."""
    headings = re.findall(r"^(#{1,3}) (.+)$", changelog, re.MULTILINE)
    found = [] if headings[:1] == [("#", "Changelog")] else ["it begins with '# Changelog'"]
    releases = [text for level, text in headings if level == "##"]
    if releases[:1] != ["[Unreleased]"]:
        found.append("the first section is '## [Unreleased]'")
    dated = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", text) for text in releases[1:]]
    found += [f"'## {text}' is no '## [1.2.3] - 2026-01-31'" for text, match in zip(releases[1:], dated, strict=True) if match is None]
    numbers = [tuple(map(int, match.groups())) for match in dated if match]
    if numbers != sorted(set(numbers), reverse=True):
        found.append("the newest release is the first, and each is there once")
    for release in re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]:
        groups = re.findall(r"^### (.+)$", release, re.MULTILINE)
        name = release.partition("\n")[0]
        found += [f"{name}: '### {group}' is none of {', '.join(sorted(GROUPS))}" for group in groups if group not in GROUPS]
        found += [f"{name}: '### {group}' is there more than once" for group in sorted(set(groups)) if groups.count(group) > 1]
    return found


def test_the_list_of_changes_has_the_form_of_keep_a_changelog() -> None:
    assert faults_of(texts()[Path("CHANGELOG.md")]) == []


@pytest.mark.parametrize(
    ("changelog", "said"),
    [
        (
            "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A.\n\n## [0.1.0] - 2026-01-31\n\n### Fixed\n\n#### Of the chart\n\n- B.\n",
            None,
        ),
        ("# Changes\n\n## [Unreleased]\n", "begins with"),
        ("# Changelog\n\n## Unreleased\n", "first section"),
        ("# Changelog\n\n## [Unreleased]\n\n## 0.1.0\n", "'## 0.1.0' is no"),
        ("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-31\n\n## [0.2.0] - 2026-02-01\n", "newest release"),
        ("# Changelog\n\n## [Unreleased]\n\n### New\n", "'### New' is none of Added"),
        ("# Changelog\n\n## [Unreleased]\n\n### Added\n\n### Added\n", "more than once"),
    ],
)
def test_a_list_of_changes_of_another_form_is_noticed(changelog: str, said: str | None) -> None:
    found = faults_of(changelog)
    assert (len(found) == 1 and said in found[0]) if said else found == []


def test_every_image_of_the_documents_has_the_version_of_the_project() -> None:
    found = {(str(path), tag) for path, text in pages().items() for tag in re.findall(r"REGISTRY/[\w-]+:([\w.]+)", text)}
    assert {path for path, _ in found} >= {"docs/install.md"}
    assert {tag for _, tag in found} == {__version__}
