"""Private and archaic words do not come back: in code, comments, messages and documents, only standard terms are used.

A word of ``PROSE`` is forbidden in comments, texts and documents; a part of an identifier is forbidden if it is in ``NAMES``.
"""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THIS = "tests/unit/test_words.py"
FORBIDDEN = (
    "operator/",
    "tests/",
    "hack/",
    "crds/",
    "charts/",
    "docs/",
    "examples/",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "conftest.py",
)

_FORMER_REASONS = (
    r"NameTaken|DriftFound|Refilling|OutOfReach|AsPromised|NoSpareWanted|CertificateFit|PodsRefused|ChangeRefused|"
    r"LoginRefused|PinRefused|CertificateRefused|SwitchoverRefused|WebappDown|ClientSilent|PackingLow|PackedLow|"
    r"TetherBroken|LabelsTaken|NotReadyLong"
)
"""Reasons and evidence as they were called once; forbidden as a part of an identifier too."""
PROSE = {
    r"anew|whilst|lest|be it|in vain|for ever|for want of|at leisure|in good order|in one breath": "again, while, forever, ...",
    r"whoever|whomever|somebody|anybody": "name who or what it is",
    r"whatever (?!happens)": "every, any, no matter which",
    r"beside": "in addition to, next to",
    r"looks?(?! (up|like|for|around)\b|-like|$)|looked(?! (up|like|for)\b)|looking(?! (up|like|for)\b)": "observation, observe, read",
    r"told|untold|owed|tells? (it|them|others|everybody)": "assigned, notified, emitted, reported, pending",
    r"theatre|stages?|scenes?|deeds?": "harness, environment, case, fault",
    r"ears|roster|desk|pulse|doors?": "listener, index, session, monitor, client",
    r"hands(?! over)": "executor",
    r"roll(?! ?-?(out|outs|back)\b)": "schedule, index",
    r"wish|wishes|wished": "spec, desired, request",
    r"doubts?|doubted|doubtful|guess|guesses|guessed": "self-check, uncertain, estimate",
    r"stand-ins?": "simulator",
    r"customers?|storms?": "user, load generator, load",
    r"refusals?|refus(e|es|ed|ing)": "rejected; only TCP connections are refused",
    r"(?-i:[Ww]e|us|[Oo]ur|[Oo]urs|ourselves)": "name the process, the operator or the test",
    r"hopeless|made good|evasions?|presses": "unrecoverable, compensated, switchover, urgent",
    r"(?-i:Should (it|a|an|the|they|this|its))": "if",
    _FORMER_REASONS: "its new name",
}
"""Patterns of whole words, and what to write instead."""

NAMES = frozenset(
    [
        "anew",
        "lest",
        "whoever",
        "somebody",
        "beside",
        "look",
        "looks",
        "see",
        "sees",
        "told",
        "untold",
        "owed",
        "theatre",
        "stage",
        "scene",
        "deed",
        "deeds",
        "ears",
        "roster",
        "desk",
        "pulse",
        "door",
        "doors",
        "hands",
        "wish",
        "wishes",
        "doubt",
        "doubts",
        "guess",
        "standin",
        "customer",
        "storm",
        "hopeless",
        "evasion",
        "evasions",
        "presses",
        "goodbye",
        "bell",
        "burial",
        "bury",
        "rites",
        "weather",
        "house",
        "ground",
        "ear",
        "park",
        "fate",
        "fates",
        "story",
        "stories",
        "books",
        "executioner",
        "gatekeeper",
        "usurpers",
        "electorate",
    ]
)
"""Parts of identifiers."""

ALLOWED_LINES = re.compile(
    r"how we will treat|server rejected our request|not valid\|rejected\|refused|We no longer accept new registrations"
)
"""Texts of Kubernetes in the CRD and in answers, and the pattern and a text of the client's errors."""
DOCKER_FOLDER = "tests/images/"
DOCKER_WORDS = frozenset({"stage", "stages"})
"""A part of a Dockerfile from one FROM to the next is a stage; only the tests of the images speak of it."""
_WORDS = re.compile(rf"\b(?:{'|'.join(PROSE)})\b", re.IGNORECASE)
_FORMER = re.compile(rf"(?<![A-Za-z])(?:{_FORMER_REASONS})(?![a-z])")
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def files(*folders: str) -> list[Path]:
    """Return the text files of the repository under these folders, without generated and locked ones."""
    listed = subprocess.run(["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    kinds = (".py", ".md", ".yaml", ".tpl", ".txt")
    return [ROOT / name for name in listed if name != THIS and name.endswith(kinds) and "/lock/" not in name and (ROOT / name).is_file()]


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the word of each finding in a file."""
    text = path.read_text(encoding="utf-8")
    allowed = DOCKER_WORDS if path.is_relative_to(ROOT / DOCKER_FOLDER) else frozenset()
    found = _words_of_code(text, allowed) if path.suffix == ".py" else _words_of_prose(text, 1)
    yield from ((line, word) for line, word in found if word.lower() not in allowed)


def _words_of_code(text: str, allowed: frozenset[str] = frozenset()) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield from ((token.start[0], token.string) for word in _words_of_name(token.string) if word not in allowed)
        elif token.type in {tokenize.COMMENT, tokenize.STRING}:
            yield from _words_of_prose(token.string, token.start[0])


@cache
def _words_of_name(name: str) -> list[str]:
    return [*(part.lower() for part in _PARTS.findall(name) if part.lower() in NAMES), *_FORMER.findall(name)]


def _words_of_prose(text: str, first: int) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), first):
        if not ALLOWED_LINES.search(line):
            is_tcp = "connect" in line.lower()
            yield from ((number, word[0]) for word in _WORDS.finditer(line) if not (is_tcp and word[0].lower().startswith("refus")))


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_private_words(folder: str) -> None:
    read = files(folder)
    found = [f"{path.relative_to(ROOT)}:{line}: {word}" for path in read for line, word in words_of(path)]

    assert read, "there is nothing under this name"
    assert not found, f"{len(found)} private words, see PROSE and NAMES for others:\n" + "\n".join(found)


def test_a_stage_is_a_standard_term_only_in_the_tests_of_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    text = "class Stage:\n    stage_of_a_door: int  # the stages, told anew\n"
    for folder in ("tests/images", "tests/unit"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.py").write_text(text)

    assert [word for _, word in words_of(tmp_path / "tests/images/a.py")] == ["stage_of_a_door", "told", "anew"]
    assert [word for _, word in words_of(tmp_path / "tests/unit/a.py")] == ["Stage", *["stage_of_a_door"] * 2, "stages", "told", "anew"]


def test_the_patterns_find_words_and_leave_standard_terms() -> None:
    bad = "The next look is told; whoever refused it. Should it come again, we stop."
    assert [word for _, word in _words_of_prose(bad, 1)] == ["look", "told", "whoever", "refused", "Should it", "we"]
    good = "It looks up a name; one connect was refused: connection refused. A roll-out hands over the shard."
    assert list(_words_of_prose(good, 1)) == []
    assert [word for _, word in _words_of_code("def the_next_look(desk): pass  # anew")] == ["the_next_look", "desk", "anew"]
    assert [word for _, word in _words_of_code("def test_PinRefused_ends(): NotReadyLonger")] == ["test_PinRefused_ends"]
