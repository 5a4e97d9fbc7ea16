"""The command ``hack/demo``: a cluster comes up, loses holders and its leader, grows and shrinks, while messages flow."""

from __future__ import annotations

import argparse
import asyncio
import math
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from localkube.demo import faults
from localkube.demo.cluster import NAME, NAMESPACE, Cluster, sentence
from localkube.demo.picture import timeline
from localkube.demo.print import VENDOR_RESHARD, show
from localkube.demo.screen import PLAIN_WIDTH, Screen, Step, clock
from localkube.demo.stage import Stage, alive, end_by_any_signal, remove, write_json
from localkube.errors import LocalKubeError
from localkube.hollow.kube import KubeError
from localkube.progress import to_stderr
from localkube.provenance import Provenance
from outside.ledger import Ledger
from outside.traffic import Traffic

Obj = dict[str, Any]

VENDOR_FAILOVER = "35 s"
RATE, INBOUND_RATE = 40.0, 5.0
"""Messages a second, out and in."""
FINISH_S = 60.0
MARKS = {
    "pod-deleted": "pod deleted",
    "container-killed": "container killed",
    "leader-killed": "leader killed",
    "grow": "shards 2 to 4",
    "shrink": "shards 4 to 2",
}
"""Steps that the picture names, in few words."""
WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoHolders:
    """How often a shard had two active holders, as three that know nothing of each other counted it."""

    seen_from_outside: int
    """By a watcher of all Services and pods."""
    whatsapp_servers: int
    """Messages taken from a holder that had been replaced, and connections of one shard that were accepted at once."""
    resolutions: int
    """Look-ups of a shard's Service that found several pods."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.seen_from_outside + self.whatsapp_servers + self.resolutions


class Demo:
    """The story, told to a screen."""

    def __init__(self, stage: Stage, manifest: Path, console: Console) -> None:
        """``manifest``: the cluster to apply."""
        self._stage = stage
        self._manifest = manifest
        self._console = console
        spec = yaml.safe_load(manifest.read_text(encoding="utf-8"))["spec"]
        self.restart = float(spec["client"]["simulator"]["restartSeconds"])
        self._traffic: Traffic | None = None
        self._apply = Step("apply", f"kubectl apply: {spec['shards']} shards, {spec['spares']} spare", meaning="from apply to Ready")
        delivered = "until the next message of its shard was delivered by another"
        gap = f"without service, {self.restart:g} s of it the simulator's shortened restart"
        self._deleted = Step("pod-deleted", "the pod that serves shard 0 is deleted", VENDOR_FAILOVER, delivered)
        self._killed = Step("container-killed", "the next holder's container is killed", VENDOR_FAILOVER, delivered)
        self._leader = Step("leader-killed", "the leading operator is killed (kill -9)", "", "until a new leader did what a user asked")
        self._grown = Step("grow", "shards 2 -> 4", VENDOR_RESHARD, gap)
        self._shrunk = Step("shrink", "shards 4 -> 2", VENDOR_RESHARD, gap)
        self.steps = [self._apply, self._deleted, self._killed, self._leader, self._grown, self._shrunk]
        self.ledger: Ledger | None = None
        self.slowest = 0.0
        """The longest that a sender waited, a resize's restart included; seconds."""
        self.two_holders: TwoHolders | None = None
        self.timeline: Obj | None = None
        """What a picture of it is drawn from."""

    async def run(self) -> None:
        """Tell it from beginning to end. LocalKubeError or KubeError as soon as a step does not come true."""
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(Cluster(self._stage))
            screen = stack.enter_context(Screen(self._console, self.steps, below=self._flow))
            with screen.running(self._apply) as step:
                begun = time.monotonic()
                await cluster.apply(self._manifest)
                await cluster.settle()
                step.seconds = time.monotonic() - begun
                step.note = str(cluster.status()["message"])
            kubeconfig = self._stage.plane.admin_kubeconfig
            traffic = Traffic(kubeconfig, NAMESPACE, NAME, rate=RATE, count=10**9, seconds=3600.0, inbound_rate=INBOUND_RATE)
            self._traffic = await stack.enter_async_context(traffic)
            await self._failovers(cluster, screen)
            await self._succession(cluster, screen)
            await self._resizes(cluster, screen)
            ended = time.monotonic()
            await self._traffic.drain(FINISH_S)
            self.timeline = timeline(
                cluster.observer.commits,
                cluster.observer.removed,
                {MARKS[step.name]: step.begun for step in self.steps if step.name in MARKS and step.begun is not None},
                (message.delivered_at for message in self._traffic.messages.values() if message.delivered_at is not None),
                begun=self._apply.begun or ended,
                ended=ended,
            )
            self.ledger = await self._traffic.ledger(cluster.senders)
            self.slowest = (await self._traffic.report()).slowest
            self.two_holders = await _two_holders(cluster, self.ledger)

    async def _failovers(self, cluster: Cluster, screen: Screen) -> None:
        for step, fault in ((self._deleted, faults.delete_holder), (self._killed, faults.kill_holder)):
            await asyncio.sleep(WAIT_S)
            with screen.running(step):
                found = await fault(cluster, 0)
                step.seconds, step.details = found.delivered, asdict(found)
                if found.by == found.old.uid:
                    step.meaning = "until it served again itself: its container was back before another Coreapp took over"
                to = next((pod["metadata"]["name"] for pod in cluster.coreapps() if pod["metadata"]["uid"] == found.by), "?")
                step.note = f"{found.old.pod} -> {to}; slowest of {found.sent} messages {clock(found.longest)}"
                await cluster.settle()

    async def _succession(self, cluster: Cluster, screen: Screen) -> None:
        await asyncio.sleep(WAIT_S)
        with screen.running(self._leader) as step:
            found = await faults.end_leader(cluster, signal.SIGKILL, 1)
            step.seconds, step.details = found.acts, asdict(found)
            step.note = f"{found.old} -> {found.new}, leading after {clock(found.lease)}; then it moved shard 1; messages flowed on"
            await cluster.settle()

    async def _resizes(self, cluster: Cluster, screen: Screen) -> None:
        for step, to in ((self._grown, 4), (self._shrunk, 2)):
            await asyncio.sleep(WAIT_S)
            with screen.running(step):
                found = await faults.reshard(cluster, to, restart=self.restart)
                step.seconds, step.details = found.gap, asdict(found)
                step.note = f"the operator adds {clock(max(0.0, found.gap - self.restart))}; all of it with pods took {clock(found.total)}"

    def _flow(self) -> str:
        """The messages so far, in one line."""
        if self._traffic is None:
            return "messages flow as soon as it is Ready"
        messages = list(self._traffic.messages.values())
        delivered = sum(message.delivered_at is not None for message in messages)
        return f"messages: {len(messages)} sent, {delivered} delivered, {len(messages) - delivered} wait; inbound flows to a webhook"

    # ---- the end

    def complaint(self) -> str | None:
        """One sentence if a promise was broken, else None."""
        if self.ledger is None or self.two_holders is None:
            return "the demo did not come to its end"
        if failures := self.ledger.failures():
            return "; ".join(failures)
        if self.ledger.strangers:
            return f"{self.ledger.strangers} messages were taken under ids that nobody gave them: they may be doubles"
        if self.two_holders.total:
            return f"a shard had two active holders {self.two_holders.total} times: it never may ({self.two_holders})"
        return None

    def figures(self) -> Obj:
        """Everything that was measured, for a file."""
        return {
            "restart_seconds": self.restart,
            "steps": [
                {"name": step.name, "what": step.what, "seconds": _rounded(step.seconds), "means": step.meaning, "vendor": step.vendor}
                | {"note": step.note, "state": step.state, "details": step.details}
                for step in self.steps
            ],
            "messages": None if self.ledger is None else {**self.ledger.as_json(), "slowest": self.slowest},
            "two_holders": None if self.two_holders is None else asdict(self.two_holders),
            "timeline": self.timeline,
        }

    def summarize(self) -> None:
        """Print the summary."""
        show(self.figures(), self._console)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else math.ceil(seconds * 10_000) / 10_000


async def _two_holders(cluster: Cluster, ledger: Ledger) -> TwoHolders:
    violations = await asyncio.to_thread(cluster.observer.verify)
    ambiguous: dict[str, int] = (await cluster.control.state())["ambiguous"]
    return TwoHolders(
        seen_from_outside=len(violations),
        whatsapp_servers=ledger.totals.two_holders,
        resolutions=sum(times for service, times in ambiguous.items() if service.startswith(f"{NAMESPACE}/{NAME}-shard-")),
    )


# --------------------------------------------------------------------------------------------------------------- command


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns 0, 1 after one sentence on standard error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="hack/demo", description="A cluster that runs, fails over and resizes before your eyes.")
    parser.add_argument("--keep", action="store_true", help="leave it running at the end; hack/demo --down removes it")
    parser.add_argument("--down", action="store_true", help="end and remove what an earlier run left")
    parser.add_argument("--port", type=int, help="port of the API server on 127.0.0.1 (default: a free one)")
    parser.add_argument("--dir", type=Path, default=root / "build" / "demo", help="its folder (default: build/demo)")
    options = parser.parse_args(argv)
    folder: Path = options.dir.absolute()
    try:
        if options.down:
            ended = remove(folder)
            to_stderr(f"ended {len(ended)} processes and removed {folder}" if ended else f"nothing runs in {folder}")
            return 0
        if alive(folder):
            msg = f"a demo runs in {folder} already: end it with 'hack/demo --down'"
            raise LocalKubeError(msg)
        return _show(folder, options, root, Provenance(root, "hack/demo", argv))
    except (LocalKubeError, KubeError) as error:
        print(f"hack/demo: {sentence(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"hack/demo: the machine refuses: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("hack/demo: interrupted; all that was started has been ended, what was built is kept", file=sys.stderr)
        return 130


def _show(folder: Path, options: argparse.Namespace, root: Path, run: Provenance) -> int:
    end_by_any_signal()
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    stage = Stage(folder, port=options.port, detached=options.keep, audit_log=True, report=to_stderr)
    stage.up()
    demo = Demo(stage, root / "examples" / "cluster.yaml", console)
    keep = False
    try:
        try:
            asyncio.run(demo.run())
        except (LocalKubeError, KubeError):
            keep = options.keep  # somebody will want to see what went wrong
            raise
        finally:
            write_json(folder.with_suffix(".json"), {"run": run.of_run(), "complaint": demo.complaint(), **demo.figures()})
        demo.summarize()
        console.print(f"Figures: {folder.with_suffix('.json')}", markup=False, highlight=False, soft_wrap=True)
        keep = options.keep
        wait = not keep and sys.stdin.isatty() and sys.stdout.isatty()
        if keep or wait:
            _look_around(stage, console, folder)
        if complaint := demo.complaint():
            raise LocalKubeError(complaint)
        if wait:
            _wait(folder, console)
    finally:
        if keep:
            to_stderr("it runs on; 'hack/demo --down' ends and removes it")
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it
            stage.down()
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return 0


def _look_around(stage: Stage, console: Console, folder: Path) -> None:
    lines = ["To look around:", f"  export KUBECONFIG={shlex.quote(str(folder / 'kubeconfig'))}"]
    if shutil.which("kubectl") is None:
        lines.append(f'  export PATH={shlex.quote(str(stage.kubectl.parent))}:"$PATH"')
    lines.append(f"  kubectl get wac,pods -L multiconnect.dev/role,multiconnect.dev/shard; kubectl describe wac {NAME}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _wait(folder: Path, console: Console) -> None:
    """Leave it running until Ctrl-C, or until somebody else ends it."""
    console.print("It runs until Ctrl-C here, or 'hack/demo --down' elsewhere.", highlight=False)
    try:
        while alive(folder):
            time.sleep(WAIT_S)
    except KeyboardInterrupt:
        console.print()
