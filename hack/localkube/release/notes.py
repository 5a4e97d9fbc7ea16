"""The notes of a release, cut from CHANGELOG.md (https://keepachangelog.com)."""

from __future__ import annotations

import re

import yaml

from localkube.errors import LocalKubeError

KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}
"""The headings of Keep a Changelog, which are also the kinds of Artifact Hub."""
LINKS = re.compile(r"^\[[^\]]+\]: \S+$\n?", re.MULTILINE)
"""The definitions of links at the end of a changelog, which belong to its headings."""
MAX_CHANGES = 50
MAX_CHANGE_LENGTH = 300


def notes(changelog: str, version: str) -> str:
    """Return the section of ``version`` without its heading. LocalKubeError if there is none, or if it says nothing."""
    parts = re.split(r"^## (.*)$", changelog, flags=re.MULTILINE)
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        if re.match(rf"\[?{re.escape(version)}\]?(\s|$)", heading) and (body := LINKS.sub("", text).strip()):
            return body + "\n"
    raise LocalKubeError(f"CHANGELOG.md has no notes of {version}: write them under a heading '## [{version}] - YYYY-MM-DD'")


def changes(text: str) -> str:
    """Return the changes in notes as the annotation ``artifacthub.io/changes``: YAML, one plain sentence for each bullet."""
    kind, found = "changed", []
    for line in text.splitlines():
        if heading := re.match(r"### (\w+)", line):
            kind = heading[1].lower() if heading[1].lower() in KINDS else "changed"
        elif bullet := re.match(r"- (.+)", line):
            found.append({"kind": kind, "description": _plain(bullet[1])})
    dumped: str = yaml.safe_dump(found[:MAX_CHANGES], sort_keys=False, allow_unicode=True, width=1000)
    return dumped


def _plain(markdown: str) -> str:
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", markdown).replace("**", "").replace("`", "")
    return text if len(text) <= MAX_CHANGE_LENGTH else text[: MAX_CHANGE_LENGTH - 3].rstrip() + "..."
