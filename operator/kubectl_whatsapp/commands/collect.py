"""Commands that collect: report (an archive for a ticket) and logs."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from kubectl_whatsapp import changes, reading
from kubectl_whatsapp.cli import MISUSED, Question, command, fail, note
from kubectl_whatsapp.errors import RequestError
from kubectl_whatsapp.marks import is_name
from kubectl_whatsapp.reading import Read
from kubectl_whatsapp.shape import document

PATIENCE = 10.0
"""Seconds for all objects, and for each log."""
TAIL = 2000
"""Lines of each log in a report."""
PAUSE = 1.0
"""Seconds before the log of a shard is requested again; the shard may have another holder by then."""
MOST_WITHOUT_LOG = 60.0
"""Following a shard ends after this many seconds without a readable log: a handover takes less."""
MOST_LOGS = 40
"""Logs in a report, the operator's first."""


@command("report")
def report(
    question: Question,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="The archive (default: CLUSTER-TIME.tar.gz).", metavar="PATH")] = None,
) -> int:
    """Write one archive for a ticket, without secrets.

    Contains the objects, Events, verdict, rules and logs of a cluster and its operator. Secrets are never read. Values of environment
    variables, telephone numbers, tokens, keys and anything of that form are replaced by ***. Read it before you send it.
    """
    read = question.read([*reading.RULES, "events"], deadline=PATIENCE, load="why")
    at = datetime.now(UTC)
    path = file or Path(f"{question.target.name}-{at:%Y%m%dT%H%M%SZ}.tar.gz")
    parts = dict(_parts(question, read))
    try:
        path.touch(mode=0o600)
        _write(path, parts, at)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}.")
    found = {"file": str(path), "parts": sorted(parts), "unread": read.unread_titles()}
    missing = "".join(f"\ncould not read {what} ({why})" for what, why in read.unread_titles().items())
    if "cluster" in read.absent:
        missing = f"\nThere is no WhatsAppCluster {read.target.name} in namespace {read.target.namespace}.{missing}"
    question.show("Report", found, f"{path}: {len(parts)} files, secrets redacted. Read it before you send it.{missing}")
    return 0


def _write(path: Path, parts: dict[str, str], at: datetime) -> None:
    import tarfile  # noqa: PLC0415  # nothing else needs it

    with tarfile.open(path, "w:gz") as archive:
        for name, content in sorted(parts.items()):
            data = content.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(at.timestamp()), 0o600
            archive.addfile(entry, io.BytesIO(data))


def _parts(question: Question, read: Read) -> Iterator[tuple[str, str]]:
    """The files of a report, redacted."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # --help needs none of these

    from kubectl_whatsapp import checks, redact  # noqa: PLC0415
    from kubectl_whatsapp.view import view  # noqa: PLC0415
    from kubectl_whatsapp.why import why  # noqa: PLC0415

    known = tuple(question.access.secrets())
    spec = (read.found.get("cluster") or {}).get("spec") or {}
    if number := str((spec.get("account") or {}).get("phoneNumber") or ""):
        known = (*known, number)

    def shown(value: Any) -> str:
        return json.dumps(redact.obj(value, known), indent=2)

    yield "status.json", shown(document("Status", view(read)))
    yield "why.json", shown(document("Why", why(read)))
    yield "check.json", shown(document("Check", checks.check(read)))
    yield "unread.json", shown(read.unread_titles())
    for name, found in read.found.items():
        yield f"objects/{name}.json", shown(found)
    logs = [(f"operator/{pod}", question.target.operator_namespace, pod) for pod in _names(read, "operators")]
    logs += [(f"pods/{pod}", question.target.namespace, pod) for pod in _names(read, "pods")]
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda one: _log(question, one[1], one[2]), logs[:MOST_LOGS])
        for (name, _, _), content in zip(logs, texts, strict=False):
            yield f"logs/{name}.log", redact.text(content, known)


def _names(read: Read, source: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in read.items(source) or ()]


def _log_path(namespace: str, pod: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/log"


def _log(question: Question, namespace: str, pod: str) -> str:
    try:
        return question.client.text(_log_path(namespace, pod), timeout=PATIENCE, tailLines=str(TAIL))
    except RequestError as error:
        return f"could not be read: {error}\n"


@command("logs")
def logs(
    question: Question,
    what: Annotated[
        str,
        typer.Argument(help="A shard (its holder's log), a pod, or operator (the leader's log).", metavar="SHARD|POD|operator"),
    ],
    follow: Annotated[bool, typer.Option("--follow", help="Follow the log until Ctrl-C; a shard is followed to its next holder.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Number of lines.")] = 50,
) -> int:
    """Show the log of a holder, a pod, or the operator's leader."""
    is_shard, named = changes.shard_number(what) is not None, ""
    failing_since: float | None = None
    while True:
        namespace, pod = _pod(question, what)
        try:
            if not follow:
                print(question.client.text(_log_path(namespace, pod), timeout=PATIENCE, tailLines=str(tail)), end="")
                return 0
            if pod != named:
                note(f"--- {pod}")
                named = pod
            for line in question.client.lines(_log_path(namespace, pod), timeout=PATIENCE, tailLines=str(tail), follow="true"):
                print(line, flush=True)
                failing_since, tail = None, 0
            failing_since, tail = None, 0
        except RequestError as error:
            # The holder, or its node, may be gone before the status names the next holder.
            failing_since = failing_since or time.monotonic()
            may_pass = is_shard and follow and error.status not in {401, 403}
            if not may_pass or time.monotonic() - failing_since > MOST_WITHOUT_LOG:
                more = f". If the operator is not a pod in {namespace}, see --operator-namespace and --lease." if what == "operator" else ""
                fail(f"the log of {pod} could not be read: {error}{more}")
        if not is_shard:
            return 0
        time.sleep(PAUSE)


def _pod(question: Question, what: str) -> tuple[str, str]:
    """The namespace and name of the pod with the requested log."""
    target, shard = question.target, changes.shard_number(what)
    if what == "operator":
        return target.operator_namespace, _leader(question)
    if shard is None:
        if not is_name(what):
            fail(f"{what} cannot be the name of a pod.", MISUSED)
        return target.namespace, what
    cluster = question.cluster()
    found = changes.entry(cluster, shard)
    if not found:
        fail(changes.no_shard(cluster, shard))
    holder = found.get("holder")
    if not holder:
        fail(f"shard {shard} of {target.name} has no holder; see `kubectl whatsapp status {target.name}`.")
    return target.namespace, str(holder)


def _leader(question: Question) -> str:
    """The name of the leading pod: the first half of the holder's identity in the Lease."""
    read = question.read(["lease"])
    if "lease" not in read.found:
        fail(f"the operator's Lease could not be read: {read.unread.get('lease', 'it does not exist')}.")
    identity = str((read.found["lease"].get("spec") or {}).get("holderIdentity") or "")
    return identity.rpartition("_")[0] or fail("no operator leads.")
