"""Commands that read and judge: status, why, check."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from kubectl_whatsapp import changes, reading
from kubectl_whatsapp.cli import FAILED, MISUSED, NOT_IN_TIME, Question, command, fail, seconds
from kubectl_whatsapp.shape import Output

REFRESH = 1.0
"""Seconds between two readings of ``status --watch``."""


class Until(StrEnum):
    """What ``status --until`` waits for."""

    READY = "Ready"
    UP_TO_DATE = "UpToDate"


@command("status")
def status(
    question: Question,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again every second until Ctrl-C.")] = False,
    until: Annotated[Until | None, typer.Option("--until", help="Show it every second until the cluster is Ready or UpToDate.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for --until.", parser=seconds(), metavar="SECONDS")] = 600.0,
) -> int:
    """Show the verdict, shards, standbys, and what to do next.

    Exits with 0 if all is well, 1 if a person should act, 2 if messages are not delivered or the next failure would move no shard, 3 if
    that is not known, 4 if the command itself failed or there is no cluster to wait for, 5 if --until was not reached in time.
    """
    if not watch and until is None:
        return _show(question)[0]
    ends = time.monotonic() + timeout
    first = True
    while True:
        if not first and sys.stdout.isatty() and not question.output.is_for_programs:
            print("\033[H\033[2J", end="")
        _, found = _show(question, at_once=first)
        if first or until is not None:
            _must_be_there(found, is_first=first)
        first = False
        if until is not None and changes.condition_is(until)(found.found.get("cluster") or {}) is not None:
            return 0
        if until is not None and time.monotonic() > ends:
            fail(f"{question.target.name} is not {until} after {timeout:g} s.", NOT_IN_TIME)
        time.sleep(REFRESH)


def _must_be_there(found: reading.Read, *, is_first: bool) -> None:
    """Fail if waiting is pointless: the cluster does not exist, or may not be read."""
    name, namespace = found.target.name, found.target.namespace
    if "cluster" in found.absent and is_first:
        fail(f"there is no WhatsAppCluster {name} in namespace {namespace} to wait for.")
    if "cluster" in found.absent:
        fail(f"WhatsAppCluster {name} in namespace {namespace} was deleted while the command waited for it.")
    if "cluster" in found.lasting:
        fail(f"WhatsAppCluster {namespace}/{name} could not be read: {found.unread['cluster']}")


def _show(question: Question, *, at_once: bool = True) -> tuple[int, reading.Read]:
    read = question.read_at_once() if at_once else question.read()
    from kubectl_whatsapp.view import view  # noqa: PLC0415  # loaded while it was read

    found = view(read)
    question.show("Status", found, lambda render: render.status(found, wide=question.output is Output.WIDE))
    return found.verdict.level.exit_code, read


@command("why")
def why(
    question: Question, shard: Annotated[str, typer.Argument(help="Explain this shard too, such as 3 or shard-3.", metavar="[SHARD]")] = ""
) -> int:
    """Say which of the operator's rules decides, and why.

    Names the evidence, the rules above that do not hold, and what would change it. Runs the operator's own rules on what can be read, and
    names what it assumes because only the operator can know it.
    """
    number = changes.shard_number(shard) if shard else None
    if shard and number is None:
        fail(f"{shard} is not a shard; give its number, such as 3 or shard-3.", MISUSED)
    read = question.read_at_once(reading.RULES, load="why")
    from kubectl_whatsapp.why import why as answer  # noqa: PLC0415  # loads the operator's rules

    found = answer(read, number)
    question.show("Why", found, lambda render: render.why(found, wide=question.output is Output.WIDE))
    if found.problem:
        return 3
    return FAILED if found.shard is not None and not found.shard.state else 0


@command("check")
def check(question: Question, short: Annotated[bool, typer.Option("--short", help="Show only checks that did not pass.")] = False) -> int:
    """Check the prerequisites and the health of a cluster.

    Prints one line for each check, with the page to read. Exits like status: with 0 if all checks pass, else with the code of the worst.
    """
    read = question.read_at_once(load="checks")
    from kubectl_whatsapp import checks  # noqa: PLC0415  # loaded while it was read

    found = checks.check(read)
    question.show("Check", found, lambda render: render.check(found, short=short))
    return found.level.exit_code
