"""The blocks of code in the documents, and the commands in those that show a console."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "$ "
COMMENT = re.compile(r"\s+# .*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, and what it has."""

    page: str
    section: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        """The place, for messages and the names of tests."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[Command]:
        """What is typed in a console, each with what it prints. ValueError if output comes before any prompt."""
        found: list[list[str]] = []
        is_typed = False
        for line in self.text.splitlines():
            if is_typed:
                found[-1][0] = f"{found[-1][0].removesuffix(chr(92)).rstrip()} {line.strip()}"
            elif line.startswith(PROMPT):
                found.append([line.removeprefix(PROMPT), ""])
            elif not found:
                msg = f"{self}: a console begins with the prompt '{PROMPT}'"
                raise ValueError(msg)
            else:
                found[-1][1] += f"{line}\n"
            is_typed = (is_typed or line.startswith(PROMPT)) and line.endswith("\\")
        return [Command(COMMENT.sub("", typed).rstrip(), printed) for typed, printed in found]


@dataclass(frozen=True)
class Command:
    """What is typed after a prompt, on one line and without a comment, and what the document says that it prints."""

    typed: str
    printed: str


def pages() -> list[str]:
    """Every Markdown file that is kept, README first."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted((name for name in listed if (ROOT / name).exists()), key=lambda name: (name != "README.md", name))


def blocks(page: str, text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in their order, also those in lists."""
    section, is_heading = "", False
    for token in MarkdownIt().parse(text):
        if is_heading:
            section = token.content
        is_heading = token.type == "heading_open"
        if token.type in {"fence", "code_block"}:
            line = token.map[0] + 1 if token.map else 0
            yield Block(page, section, line, token.info.strip(), token.content)


@cache
def all_blocks() -> list[Block]:
    """Every fenced block of every page."""
    return [block for page in pages() for block in blocks(page, (ROOT / page).read_text(encoding="utf-8"))]
