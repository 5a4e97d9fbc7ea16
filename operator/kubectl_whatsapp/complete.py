"""Completion for kubectl: it runs ``kubectl_complete-whatsapp`` with the words so far and reads proposals and a directive, as from Cobra.

If anything is wrong or slow, nothing is proposed: a completion never fails and never waits long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from kubectl_whatsapp import rights

DIRECTIVE: Final = ":4"
"""Cobra's ShellCompDirectiveNoFileComp: no file names are proposed."""
FILES: Final = ":0"
"""Cobra's ShellCompDirectiveDefault: the shell proposes file names."""
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
    "--request-timeout": "",
    "--reason": "",
    "--file": "file",
    "-f": "file",
    "--port": "",
    "--tail": "",
    "--shards": "shards",
    "--spares": "",
}
"""Options that take a value, and what is proposed for it."""
FLAGS: Final = ("--all-namespaces", "-A", "--follow", "--help", "-h", "--short", "--watch", "-w", "--yes-in-production")
"""Options without a value."""
OF_FILES: Final = frozenset({"kubeconfig", "file"})
"""For options with these values, the shell itself makes the proposals."""
FIXED: Final[dict[str, tuple[str, ...]]] = {
    "output": ("text", "wide", "json", "yaml"),
    "until": ("Ready", "UpToDate"),
    "shards": ("1", "2", "4", "8", "16", "32"),
}

Ask = Callable[[dict[str, str], str, str], Iterable[str]]
"""Returns names; its arguments are the options, the kind (``cluster``, ``shard`` or ``pod``) and the cluster."""


def proposals(words: Sequence[str], ask: Ask) -> list[str]:
    """Return the possible completions of the last word."""
    *before, last = words or [""]
    options, places, open_option = _parsed(before)
    name, equals, _ = last.partition("=")
    if open_option:
        found = _values(WITH_VALUE[open_option], options, places, ask)
    elif equals and name in WITH_VALUE:
        found = [f"{name}={one}" for one in _values(WITH_VALUE[name], options, places, ask)]
    elif last.startswith("-"):
        found = sorted((*WITH_VALUE, *FLAGS))
    elif not places:
        found = [*rights.NEEDED]
    else:
        kind = "cluster" if len(places) == 1 else "shard" if len(places) == 2 and places[0] in SHARD_COMMANDS else ""
        found = [*(["operator"] if kind == "shard" and places[0] == "logs" else []), *_values(kind, options, places, ask)]
    return [one for one in found if one.startswith(last)]


def directive(words: Sequence[str]) -> str:
    """Return what the shell may propose in addition."""
    option = _parsed(words[:-1])[2]
    return FILES if option and WITH_VALUE[option] in OF_FILES else DIRECTIVE


def _parsed(before: Sequence[str]) -> tuple[dict[str, str], list[str], str]:
    """The values of options by kind, the words that belong to no option, and the option that still needs its value."""
    options: dict[str, str] = {}
    places: list[str] = []
    open_option = ""
    for word in before:
        name, equals, value = word.partition("=")
        if open_option:
            options[WITH_VALUE[open_option]], open_option = word, ""
        elif word in WITH_VALUE:
            open_option = word
        elif equals and name in WITH_VALUE:
            options[WITH_VALUE[name]] = value
        elif not word.startswith("-"):
            places.append(word)
    return options, places, open_option


def _values(kind: str, options: dict[str, str], places: Sequence[str], ask: Ask) -> list[str]:
    if kind in FIXED:
        return [*FIXED[kind]]
    if kind in {"cluster", "pod", "shard"}:
        return [*ask(options, kind, places[1] if len(places) > 1 else "")]
    return []


def _ask(options: dict[str, str], kind: str, cluster: str) -> list[str]:
    """Read names from the API server; none if that fails."""
    from kubectl_whatsapp import access, reading  # noqa: PLC0415  # commands and options are proposed without them
    from kubectl_whatsapp.errors import AccessError, RequestError  # noqa: PLC0415

    try:
        found = access.find(
            access.Options(
                context=options.get("context", ""), kubeconfig=options.get("kubeconfig", ""), namespace=options.get("namespace", "")
            )
        )
        client, target = found.client(), reading.Target(found.namespace, cluster)
        if kind == "pod":
            read = reading.read(client, target, ["pods"], deadline=PATIENCE)
            return [pod["metadata"]["name"] for pod in read.items("pods") or () if "-coreapp-" in pod["metadata"]["name"]]
        path = f"{reading.API}/namespaces/{found.namespace}/whatsappclusters"
        listed = client.get(path, timeout=PATIENCE)
    except (AccessError, RequestError):
        return []
    clusters = listed.get("items") or ()
    if kind == "cluster":
        return [one["metadata"]["name"] for one in clusters]
    status = next((one.get("status") or {} for one in clusters if one["metadata"]["name"] == cluster), {})
    return [f"shard-{number}" for number in range(int(status.get("shards") or 0))]


def main() -> None:
    """Print the proposals and the directive."""
    words = sys.argv[1:]
    print("\n".join([*proposals(words, _ask), directive(words)]))


if __name__ == "__main__":
    main()
