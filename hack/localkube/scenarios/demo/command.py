"""The command ``hack/demo``: a cluster comes up, loses holders and its leader, grows and shrinks, while messages flow."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from rich.console import Console
from rich.markdown import Markdown

from localkube import LocalKubeError, Obj
from localkube.blocks import VENDOR_RESHARD, demo_block
from localkube.figures import clock
from localkube.files import EXECUTABLE, write, write_json
from localkube.programs.binaries import provide
from localkube.progress import to_stderr
from localkube.scenarios.cluster import NAME
from localkube.scenarios.command import Command
from localkube.scenarios.demo.picture import timeline
from localkube.scenarios.demo.screen import PLAIN_WIDTH, Screen, Step
from localkube.scenarios.faults.hollow import named
from localkube.scenarios.faults.resize import resize
from localkube.scenarios.faults.succession import Succession, end_leader
from localkube.scenarios.harness import Harness, alive, remove
from localkube.scenarios.hollow.environment import HollowEnvironment, SingleCluster
from localkube.scenarios.runner.case import Fault
from localkube.scenarios.runner.player import Outcome, Player
from localkube.scenarios.runner.report import complaints
from outside.ledger import Ledger

VENDOR_FAILOVER = "35 s"
RATE, INBOUND_RATE = 40.0, 5.0  # messages a second, out and in
WAIT_S = 0.5
MARKS = {
    "pod-deleted": "pod deleted",
    "container-killed": "container killed",
    "leader-killed": "leader killed",
    "grow": "shards 2 to 4",
    "shrink": "shards 4 to 2",
}
"""Steps that the picture names, in few words."""


class Demo:
    """The steps, what a screen shows of them, and what came of them."""

    def __init__(self, harness: Harness, manifest: Path, console: Console) -> None:
        """``manifest``: the cluster to apply."""
        self._harness, self._manifest, self.console = harness, manifest, console
        spec = yaml.safe_load(manifest.read_text(encoding="utf-8"))["spec"]
        self.restart = float(spec["client"]["simulator"]["restartSeconds"])
        delivered = "until the next message of its shard was delivered by another"
        gap = f"without service, {self.restart:g} s of it the simulator's shortened restart"
        self.steps = [
            Step("apply", f"kubectl apply: {spec['shards']} shards, {spec['spares']} spare", meaning="from apply to Ready"),
            Step("pod-deleted", "the pod that serves shard 0 is deleted", VENDOR_FAILOVER, delivered),
            Step("container-killed", "the next holder's container is killed", VENDOR_FAILOVER, delivered),
            Step("leader-killed", "the leading operator is killed (kill -9)", "", "until a new leader did what a user asked"),
            Step("grow", "shards 2 -> 4", VENDOR_RESHARD, gap),
            Step("shrink", "shards 4 -> 2", VENDOR_RESHARD, gap),
        ]
        self.environment: SingleCluster | None = None
        self.ledger: Ledger | None = None
        self.slowest = 0.0  # the longest that a sender waited, a resize's restart included; seconds
        self.two_holders: dict[str, int] | None = None
        """How often a shard had two active holders, as three that know nothing of each other counted it: seen_from_outside, by a watcher
        of all Services and pods; whatsapp_servers, messages taken from a holder that had been replaced, and connections of one shard that
        were accepted at once; resolutions, lookups of a shard's Service that found several pods."""
        self.timeline: Obj | None = None  # what a picture of it is drawn from

    async def run(self) -> None:
        """Take all steps. LocalKubeError as soon as one does not come true."""
        async with AsyncExitStack() as exits:
            environment = self.environment = await exits.enter_async_context(SingleCluster(self._harness))
            screen = exits.enter_context(Screen(self.console, self.steps, below=self._flow))
            apply, deleted, killed, leader, grow, shrink = self.steps
            with screen.running(apply):
                begun = time.monotonic()
                await environment.apply(self._manifest, NAME)
                apply.seconds, apply.note = time.monotonic() - begun, str(environment.status(NAME)["message"])
            await exits.enter_async_context(environment.sending(NAME, rate=RATE, inbound_rate=INBOUND_RATE))
            for step in (deleted, killed):
                with screen.running(step):
                    await self._fail_over(environment, step)
            with screen.running(leader):
                await self._end_leader(environment, leader)
            for step, to in ((grow, 4), (shrink, 2)):
                with screen.running(step):
                    await self._resize(environment, step, to)
            await self._conclude(environment)

    async def _fail_over(self, environment: SingleCluster, step: Step) -> None:
        probe, holder, begun = environment.probes[NAME], environment.holder(NAME, 0), time.monotonic()
        outcome = await _play(environment, *named(step.name))
        if not outcome.times:
            step.meaning = "until it served again itself: its container was back before another Coreapp took over"
        step.seconds, step.details = max(outcome.times or outcome.resumed), outcome.samples[-1]
        step.begun = _monotonic(outcome.samples[-1]["window"][0])
        after, waits = environment.holder(NAME, 0), [taken - sent for sent, taken in probe.delivered() if taken >= begun]
        step.note = f"{holder and holder.pod} -> {after and after.pod}; slowest of {len(waits)} messages {clock(max(waits))}"

    async def _end_leader(self, environment: SingleCluster, step: Step) -> None:
        found: list[Succession] = []
        action, moves = end_leader(signal.SIGKILL, 1, found), frozenset({"switchover"})
        await _play(environment, Fault(step.name, step.what, action, everybody=True, failover=False, moves=moves))
        step.begun, step.seconds, step.details = found[0].begun, found[0].acts, asdict(found[0])
        leading = f"{found[0].old} -> {found[0].new}, leading after {clock(found[0].lease)}"
        step.note = f"{leading}; then it moved shard 1; messages flowed on"

    async def _resize(self, environment: SingleCluster, step: Step, to: int) -> None:
        found = await resize(environment, NAME, to, restart=self.restart)
        step.begun = _monotonic(found.begun)
        step.seconds, step.details = found.gap, asdict(found)
        step.note = f"the operator adds {clock(found.added)}; all of it with pods took {clock(found.total)}"

    async def _conclude(self, environment: SingleCluster) -> None:
        probe, whole, ended = environment.probes[NAME], environment.whole, time.monotonic()
        self.ledger = await probe.ledger()
        self.slowest = max((taken - sent for sent, taken in probe.delivered()), default=0.0)
        marks = {MARKS[step.name]: step.begun for step in self.steps if step.name in MARKS and step.begun is not None}
        delivered, begun = (taken for _, taken in probe.delivered()), self.steps[0].begun or ended
        self.timeline = timeline(whole.commits, whole.removed, marks, delivered, begun=begun, ended=ended)
        self.two_holders = {
            "seen_from_outside": len(await asyncio.to_thread(whole.verify)),
            "whatsapp_servers": self.ledger.totals.two_holders,
            "resolutions": await environment.ambiguous(),
        }

    def _flow(self) -> str:
        """The messages so far, in one line."""
        if self.environment is None or NAME not in self.environment.probes:
            return "messages flow as soon as it is Ready"
        sent, delivered = len(self.environment.probes[NAME].sent), len(self.environment.probes[NAME].delivered())
        return f"messages: {sent} sent, {delivered} delivered, {sent - delivered} wait; inbound flows to a webhook"

    # ---- the end

    def complaint(self) -> str | None:
        """One sentence if a promise was broken, else None."""
        if self.ledger is None or self.two_holders is None:
            return "the demo did not come to its end"
        if failures := self.ledger.failures():
            return "; ".join(failures)
        if self.ledger.strangers:
            return f"{self.ledger.strangers} messages were taken under ids that no sender of this run used: they may be doubles"
        if total := sum(self.two_holders.values()):
            return f"a shard had two active holders {total} times: it never may ({self.two_holders})"
        return None

    def figures(self) -> Obj:
        """Everything that was measured, for a file."""
        steps = [
            {"name": step.name, "what": step.what, "seconds": _rounded(step.seconds), "means": step.meaning, "vendor": step.vendor}
            | {"note": step.note, "state": step.state, "details": step.details}
            for step in self.steps
        ]
        messages = None if self.ledger is None else {**self.ledger.as_json(), "slowest": self.slowest}
        rest = {"two_holders": self.two_holders, "timeline": self.timeline}
        return {"restart_seconds": self.restart, "steps": steps, "messages": messages, **rest}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else math.ceil(seconds * 10_000) / 10_000


def _monotonic(wall: float) -> float:
    """A time by `time.time()` on the other clock."""
    return time.monotonic() - (time.time() - wall)


async def _play(environment: SingleCluster, fault: Fault[HollowEnvironment]) -> Outcome:
    """Play a fault once. LocalKubeError when anything is not as it must be; how long it took is for the reader to judge."""
    outcome = await Player[HollowEnvironment](environment, n=1, quiet=True).play(fault)
    if said := complaints(outcome, replace(fault, goal=None), n=not outcome.resumed):
        raise LocalKubeError("; ".join(said))
    return outcome


# --------------------------------------------------------------------------------------------------------------- command


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="hack/demo", description="A cluster that runs, fails over and resizes before your eyes.")
    parser.add_argument("--keep", action="store_true", help="leave it running at the end; hack/demo --down removes it")
    parser.add_argument("--observe", action="store_true", help="let a Prometheus scrape the operators and evaluate the alerts")
    parser.add_argument("--down", action="store_true", help="end and remove what an earlier run left")
    parser.add_argument("--dir", type=Path, default=root / "build" / "demo", help="its folder (default: build/demo)")
    options = parser.parse_args(argv)
    folder: Path = options.dir.absolute()
    command = Command("hack/demo", argv, root=root)

    def work() -> None:
        if options.down:
            ended = remove(folder)
            to_stderr(f"ended {len(ended)} processes and removed {folder}" if ended else f"nothing runs in {folder}")
        elif alive(folder):
            raise LocalKubeError(f"a demo runs in {folder} already: end it with 'hack/demo --down'")
        else:
            try:
                _run(folder, options, command)
            except KeyboardInterrupt:
                to_stderr("what was built is kept")
                raise

    return command.run(work)


def _run(folder: Path, options: argparse.Namespace, command: Command) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    harness = Harness(folder, detached=options.keep, audit_log=True, observe=options.observe)
    harness.up()
    demo = Demo(harness, command.root / "examples" / "cluster.yaml", console)
    keep, file = options.keep, folder.with_suffix(".json")  # it is kept also to see what went wrong
    wait = not keep and sys.stdin.isatty() and sys.stdout.isatty()
    try:
        try:
            asyncio.run(demo.run())
        finally:
            figures = {"run": command.provenance.of_run(), **demo.figures()}
            write_json(file, {**figures, "complaint": demo.complaint()})
        console.print(Markdown(demo_block(figures)))
        for line in (f"Figures: {file}", *(_invitation(folder) if keep or wait else ())):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if harness.prometheus is not None and (keep or wait):
            killed = "WhatsAppOperatorReplicaDown fires five minutes after the demo has killed an operator."
            console.print(f"Alerts and metrics: {harness.prometheus.url}/alerts ({killed})", highlight=False, soft_wrap=True)
        if complaint := demo.complaint():
            raise LocalKubeError(complaint)
        if wait:
            _wait(folder, console)
    except KeyboardInterrupt:
        keep = False
        raise
    finally:
        if keep:
            to_stderr("it runs on; 'hack/demo --down' ends and removes it")
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it
            harness.down()
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _invitation(folder: Path) -> list[str]:
    """How to look around."""
    folders = [_plugin(folder), *([] if shutil.which("kubectl") else [provide(os.environ)["kubectl"].parent])]
    return [
        "To look around:",
        f"  export KUBECONFIG={shlex.quote(str(folder / 'kubeconfig'))}",
        f'  export PATH={":".join(shlex.quote(str(one)) for one in folders)}:"$PATH"',
        f"  kubectl get wac,pods -L multiconnect.dev/role,multiconnect.dev/shard; kubectl describe wac {NAME}",
        f"  kubectl whatsapp status {NAME}; kubectl whatsapp why {NAME} shard-0; kubectl whatsapp dashboard {NAME}",
    ]


def _plugin(folder: Path) -> Path:
    """Write a program that runs the plugin of this source, where kubectl finds it; returns the folder for the PATH."""
    source = Path(__file__).parents[4] / "operator"
    command = f"PYTHONPATH={shlex.quote(str(source))} exec {shlex.quote(sys.executable)} -m kubectl_whatsapp"
    # It goes with what was started in that folder.
    return write(folder / "operators" / "bin" / "kubectl-whatsapp", f'#!/bin/sh\n{command} "$@"\n', mode=EXECUTABLE).parent


def _wait(folder: Path, console: Console) -> None:
    """Leave it running until Ctrl-C, or until it is ended from elsewhere."""
    console.print("It runs until Ctrl-C here, or 'hack/demo --down' elsewhere.", highlight=False)
    try:
        while alive(folder):
            time.sleep(WAIT_S)
    except KeyboardInterrupt:
        console.print()
