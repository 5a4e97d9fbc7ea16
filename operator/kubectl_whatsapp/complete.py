"""Completion for kubectl: it runs ``kubectl_complete-whatsapp`` with the words so far, and reads lines and a directive, as Cobra's have.

After what is wrong or slow nothing is proposed: a completion never fails and never waits for long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from kubectl_whatsapp import access, reading, rights
from kubectl_whatsapp.reading import API, Target

DIRECTIVE: Final = ":4"
"""Cobra's ShellCompDirectiveNoFileComp: no file names are proposed."""
PATIENCE: Final = 1.0
SHARD_COMMANDS: Final = frozenset({"switchover", "why", "logs"})
WITH_VALUE: Final[dict[str, str]] = {
    "-n": "namespace",
    "--namespace": "namespace",
    "--context": "context",
    "--kubeconfig": "kubeconfig",
    "-o": "output",
    "--output": "output",
    "--to": "pod",
    "--shard": "shard",
    "--until": "until",
    "--operator-namespace": "",
    "--lease": "",
    "--timeout": "",
    "--reason": "",
    "--file": "",
    "-f": "",
    "--tail": "",
    "--shards": "shards",
    "--spares": "",
}
"""Options that take a value, and what is proposed for it."""
FIXED: Final[dict[str, tuple[str, ...]]] = {
    "output": ("text", "wide", "json", "yaml"),
    "until": ("Ready", "UpToDate"),
    "shards": ("1", "2", "4", "8", "16", "32"),
}

Obj = dict[str, Any]
Ask = Callable[[str, str], Iterable[Obj]]
"""Gives the objects at a path of a kind, ``clusters`` or ``pods``, in the namespace that the words name."""


def proposals(words: Sequence[str], ask: Callable[[dict[str, str], str, str], Iterable[str]]) -> list[str]:
    """Return what could stand in place of the last word. ``ask``: gives names of a kind; its arguments are options, kind and cluster."""
    *before, last = words or [""]
    options, places = _parsed(before)
    if last.startswith("--") and "=" in last:
        name, _, begin = last.partition("=")
        return [f"{name}={one}" for one in _values(WITH_VALUE.get(name, ""), options, places, ask) if one.startswith(begin)]
    if before and before[-1] in WITH_VALUE and len(before) != len(places) + _given(before):
        return [one for one in _values(WITH_VALUE[before[-1]], options, places, ask) if one.startswith(last)]
    if last.startswith("-"):
        return sorted(one for one in (*WITH_VALUE, "--help", "--watch", "-w", "--short") if one.startswith(last))
    if not places:
        return sorted(one for one in rights.NEEDED if one.startswith(last))
    kind = "cluster" if len(places) == 1 else "shard" if len(places) == 2 and places[0] in SHARD_COMMANDS else ""
    return [one for one in _values(kind, options, places, ask) if one.startswith(last)]


def _given(before: Sequence[str]) -> int:
    """How many of the words are options that are complete, with their values."""
    count, at = 0, 0
    while at < len(before):
        if before[at] in WITH_VALUE and at + 1 < len(before):
            count, at = count + 2, at + 2
        else:
            count, at = count + (before[at].startswith("-") and before[at] not in WITH_VALUE), at + 1
    return count


def _parsed(before: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The options that have a value, and the other words."""
    options: dict[str, str] = {}
    places: list[str] = []
    at = 0
    while at < len(before):
        word = before[at]
        name, equals, value = word.partition("=")
        if word in WITH_VALUE:
            if at + 1 < len(before):
                options[WITH_VALUE[word]] = before[at + 1]
            at += 2
            continue
        if equals and name in WITH_VALUE:
            options[WITH_VALUE[name]] = value
        elif not word.startswith("-"):
            places.append(word)
        at += 1
    return options, places


def _values(
    kind: str, options: dict[str, str], places: Sequence[str], ask: Callable[[dict[str, str], str, str], Iterable[str]]
) -> list[str]:
    if kind in FIXED:
        return [*FIXED[kind]]
    if kind in {"cluster", "pod", "shard"}:
        return [*ask(options, kind, places[1] if len(places) > 1 else "")]
    return []


def _ask(options: dict[str, str], kind: str, cluster: str) -> list[str]:
    """Read names from the API server; none after any trouble."""
    try:
        found = access.find(
            access.Options(
                context=options.get("context", ""), kubeconfig=options.get("kubeconfig", ""), namespace=options.get("namespace", "")
            )
        )
        client, target = found.client(), Target(found.namespace, cluster)
        if kind == "pod":
            read = reading.read(client, target, ["pods"], deadline=PATIENCE)
            return [pod["metadata"]["name"] for pod in read.items("pods") or () if "-coreapp-" in pod["metadata"]["name"]]
        path = f"{API}/namespaces/{found.namespace}/whatsappclusters"
        listed = client.get(path, timeout=PATIENCE)
    except (access.AccessError, access.RequestError):
        return []
    clusters = listed.get("items") or ()
    if kind == "cluster":
        return [one["metadata"]["name"] for one in clusters]
    status = next((one.get("status") or {} for one in clusters if one["metadata"]["name"] == cluster), {})
    return [f"shard-{number}" for number in range(int(status.get("shards") or 0))]


def main() -> None:
    """Print the proposals and the directive."""
    words = sys.argv[1:]
    print("\n".join([*proposals(words, _ask), DIRECTIVE]))
    sys.stdout.flush()
    time.sleep(0)


if __name__ == "__main__":
    main()
