"""One run of a table of faults on either backend: plays them, prints the results, writes the file, and returns the exit status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from localkube.blocks import chaos_block, e2e_block
from localkube.progress import to_stderr
from localkube.scenarios.command import Command
from localkube.scenarios.runner.case import Fault, G
from localkube.scenarios.runner.player import Outcome, Player
from localkube.scenarios.runner.report import bound, complaints, failures, limit, missed, remarks, report
from outside.ledger import Ledger


def rounds(faults: Sequence[Fault[G]]) -> list[list[Fault[G]]]:
    """The faults in groups: those that are played in turn with each other together."""
    groups: list[list[Fault[G]]] = []
    for fault in faults:
        if fault.after and groups and groups[-1][-1].name == fault.after:
            groups[-1].append(fault)
        else:
            groups.append([fault])
    return groups


@dataclass
class Session(Generic[G]):
    """What was requested, and the results so far, even if the run is interrupted."""

    faults: Sequence[Fault[G]]
    times: Callable[[Fault[G]], int]  # how often a fault is to be measured
    on_kind: bool = False  # a missed goal, which may be the machine's, does not make the run fail
    played: list[tuple[Fault[G], Outcome]] = field(default_factory=list)
    ledgers: dict[str, Ledger] = field(default_factory=dict)  # what became of every message, by cluster; empty while it is not over
    about: dict[str, Any] = field(default_factory=dict)  # more for the file

    async def play(self, environment: G) -> None:
        """Play all faults, those that undo each other in turn, and report at once what makes the run fail."""
        for group in rounds(self.faults):
            player = Player(environment, n=self.times(group[0]))
            outcomes = await player.play_in_turn(group) if len(group) > 1 else [await player.play(group[0])]
            for fault, outcome in zip(group, outcomes, strict=True):
                self.played.append((fault, outcome))
                for text in self.complaints(fault, outcome):
                    to_stderr(f"  {text}")
        found = await asyncio.gather(*(stream.ledger() for stream in environment.streams.values()))
        self.ledgers.update(zip(environment.streams, found, strict=True))

    def complaints(self, fault: Fault[G], outcome: Outcome) -> list[str]:
        """What makes the run fail."""
        return (failures if self.on_kind else complaints)(outcome, fault, n=self.times(fault))

    def finish(self, command: Command, path: Path, status: int) -> int:
        """Print and write what was measured, if anything was. Returns the exit status."""
        if not self.played:
            return status
        for fault, outcome in self.played:
            for note in remarks(outcome):
                command.console.print(f"{fault.name}: {note}")
        said = [text for played in self.played for text in self.complaints(*played)]
        said += [f"ledger of {cluster}: {text}" for cluster, ledger in self.ledgers.items() for text in ledger.failures()]
        if not self.ledgers:
            said.append("there is no ledger: what became of the messages is not known")
        ledgers = {cluster: ledger.as_json() for cluster, ledger in self.ledgers.items()}
        about = {**self.about, "seconds": round(command.seconds, 1), "ledgers": ledgers}
        about["missed"] = [text for fault, outcome in self.played if (text := missed(outcome, fault))]
        found = report(self.played, about, beyond=limit if self.on_kind else bound)
        return command.write(path, found, said, block=e2e_block if self.on_kind else chaos_block, status=status)
