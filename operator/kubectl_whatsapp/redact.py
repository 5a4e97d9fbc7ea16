"""Removes secret and personal data from a report; in case of uncertainty, it removes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

HIDDEN: Final = "***"
DROPPED: Final = frozenset({"managedFields", "kubectl.kubernetes.io/last-applied-configuration"})
"""Keys that are not useful here, or repeat what is removed elsewhere."""
WORDS: Final = r"token|passw(?:or)?d|secret|pin|certificate|credential|authorization|api[-_]?key|private[-_]?key|phone"
SECRET_KEY: Final = re.compile(rf"(?i).*({WORDS}).*")
"""Keys with a text that is not shown."""
SAFE_KEY: Final = re.compile(r"(?i)(?:ping|pinned).*|.*(?:name|ref|seconds|at|fingerprint)")
"""Keys that match ``SECRET_KEY`` but name an object or a time."""
FLAG: Final = rf"--?[\w-]*(?:{WORDS})[\w-]*"
"""Command-line options with a secret value."""
USER_FLAGS: Final = ("-u", "--user")
"""Options with a password after a colon in their value, like those of curl."""
QUOTED: Final = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
TEXTS: Final = (
    re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL),
    re.compile(r"(?i)\b(?:bearer|basic|apikey)\s+[\w.~+/=-]{4,}"),
    re.compile(r"\beyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)?"),
    re.compile(rf"""(?i)[\w-]*(?:{WORDS})[\w-]*["']?\s*[:=]\s*(?:{QUOTED}|[^\s,;)}}\]]+)"""),
    re.compile(rf"(?i)(?<!\S){FLAG}\s+(?:{QUOTED}|[^\s-]\S*)"),
    re.compile(rf"(?<!\S)(?:{'|'.join(USER_FLAGS)})[\s=]+(?:{QUOTED}|[^\s:]+:\S+)"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    re.compile(r"(?<!\w)\+[1-9][\d ()./-]{5,18}\d(?!\w)"),
    re.compile(r"(?<![\w.:-])\+?\d{7,15}(?![\w:.-])"),
    re.compile(r"\b(?=[A-Za-z0-9+/]*\d)(?=[A-Za-z0-9+/]*[a-z])(?=[A-Za-z0-9+/]*[A-Z])[A-Za-z0-9+/]{40,}={0,2}"),
)
"""In texts: PEM, authorization headers, JWTs, ``key=value`` and ``--key value`` of secret keys, ``--user name:password``, passwords in
URLs, telephone numbers, long base64."""


def text(content: str, known: Iterable[str] = ()) -> str:
    """Return a text without its secrets. ``known``: secrets to remove wherever they occur."""
    for one in sorted((one for one in known if len(one) >= 4), key=len, reverse=True):
        content = content.replace(one, HIDDEN)
    for pattern in TEXTS:
        content = pattern.sub(HIDDEN, content)
    return content


def obj(value: Any, known: Iterable[str] = (), *, key: str = "") -> Any:
    """Return a Kubernetes object without its secrets. ``key``: the key of this value."""
    known = tuple(known)
    if isinstance(value, dict):
        is_secret = value.get("kind") == "Secret"
        shown = {name: one for name, one in value.items() if name not in DROPPED and not (is_secret and name in {"data", "stringData"})}
        if _is_secret(str(shown.get("name") or "")) and "value" in shown:  # a header of a probe
            shown["value"] = HIDDEN
        return {text(str(name), known): obj(one, known, key=str(name)) for name, one in shown.items()}
    if isinstance(value, list | tuple):
        return [
            _hidden_value(one, known) if key == "env" else HIDDEN if _is_value_of(before, one) else obj(one, known, key=key)
            for before, one in pairwise(("", *value))
        ]
    is_secret_key = _is_secret(key)
    if isinstance(value, str):
        return HIDDEN if value and is_secret_key else text(value, known)
    return HIDDEN if is_secret_key and isinstance(value, int | float) and not isinstance(value, bool) else value


def _is_secret(key: str) -> bool:
    return bool(SECRET_KEY.fullmatch(key)) and not SAFE_KEY.fullmatch(key)


def _is_value_of(flag: Any, value: Any) -> bool:
    """Whether an argument of a command line is the secret value of the one before."""
    if not isinstance(flag, str) or not isinstance(value, str) or value.startswith("-"):
        return False
    return (flag in USER_FLAGS and ":" in value) or (bool(re.fullmatch(FLAG, flag, re.IGNORECASE)) and not SAFE_KEY.fullmatch(flag))


def _hidden_value(entry: Any, known: Iterable[str]) -> Any:
    """An environment variable without its value: anyone may put a secret there."""
    if not isinstance(entry, dict):
        return HIDDEN
    return {name: HIDDEN if name == "value" else obj(one, known, key=str(name)) for name, one in entry.items()}
