"""Private and archaic words do not come back: in code, comments, messages and documents, only standard terms are used.

A word of ``PROSE`` is forbidden in comments, texts and documents; a part of an identifier is forbidden if it is in ``NAMES``. Folders in
``FORBIDDEN`` must have none. For the others the number is printed: ``pytest tests/unit/test_words.py -s``.
"""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THIS = "tests/unit/test_words.py"
FORBIDDEN = ("operator/", "crds/", "charts/", "docs/", "examples/", "README.md", "CONTRIBUTING.md", "SECURITY.md")
COUNTED = ("tests/", "hack/")
"""Move a folder from here to FORBIDDEN once it has no such word any more."""
EXCEPTED = (
    "README.md",
    "docs/benchmarks.md",
    "docs/end-to-end.md",
)
"""Files of FORBIDDEN with such words, mostly in blocks of figures that hack/ writes; remove each once it has none."""

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
    r"NameTaken|DriftFound|Refilling|OutOfReach|AsPromised|NoSpareWanted|CertificateFit|PodsRefused|ChangeRefused": "its new name",
    r"LoginRefused|PinRefused|CertificateRefused|SwitchoverRefused|WebappDown|ClientSilent|PackingLow|PackedLow": "its new name",
    r"TetherBroken|LabelsTaken|NotReadyLong": "its new name",
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
    ]
)
"""Parts of identifiers."""

ALLOWED_LINES = re.compile(r"how we will treat|not valid\|rejected\|refused")
"""Texts of Kubernetes in the CRD, and the pattern of the client's error texts."""
_WORDS = re.compile(rf"\b(?:{'|'.join(PROSE)})\b", re.IGNORECASE)
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def files(*folders: str) -> list[Path]:
    """Return the text files of the repository under these folders, without generated and locked ones."""
    listed = subprocess.run(["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    kinds = (".py", ".md", ".yaml", ".tpl", ".txt")
    return [ROOT / name for name in listed if name != THIS and name.endswith(kinds) and "/lock/" not in name and (ROOT / name).is_file()]


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the word of each finding in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _words_of_code(text)
    else:
        yield from _words_of_prose(text, 1)


def _words_of_code(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield from ((token.start[0], token.string) for part in _PARTS.findall(token.string) if part.lower() in NAMES)
        elif token.type in {tokenize.COMMENT, tokenize.STRING}:
            yield from _words_of_prose(token.string, token.start[0])


def _words_of_prose(text: str, first: int) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), first):
        if not ALLOWED_LINES.search(line):
            is_tcp = "connect" in line.lower()
            yield from ((number, word[0]) for word in _WORDS.finditer(line) if not (is_tcp and word[0].lower().startswith("refus")))


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_private_words(folder: str) -> None:
    excepted = {ROOT / name for name in EXCEPTED}
    found = [f"{path.relative_to(ROOT)}:{line}: {word}" for path in files(folder) if path not in excepted for line, word in words_of(path)]

    assert not found, f"{len(found)} private words, see PROSE and NAMES for others:\n" + "\n".join(found)


def test_private_words_that_are_left_are_counted() -> None:
    for folder in COUNTED:
        found = Counter(word.lower() for path in files(folder) for _, word in words_of(path))
        print(f"{folder} {found.total()} private words: {', '.join(f'{word} {number}' for word, number in found.most_common(12))}")


def test_the_patterns_find_words_and_leave_standard_terms() -> None:
    bad = "The next look is told; whoever refused it. Should it come again, we stop."
    assert [word for _, word in _words_of_prose(bad, 1)] == ["look", "told", "whoever", "refused", "Should it", "we"]
    good = "It looks up a name; one connect was refused: connection refused. A roll-out hands over the shard."
    assert list(_words_of_prose(good, 1)) == []
    assert [word for _, word in _words_of_code("def the_next_look(desk): pass  # anew")] == ["the_next_look", "desk", "anew"]
