"""The kind cluster that end-to-end tests run on, as containers: its nodes, and the way to its pods."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from localkube.e2e.programs import run
from localkube.errors import LocalKubeError

Obj = dict[str, Any]

NAME = "whatsapp-e2e"
LABEL = f"label=io.x-k8s.kind.cluster={NAME}"
ROLE = "io.x-k8s.kind.role"
NETWORK = "kind"
SENDER = f"{NAME}-sender"
SENDER_PORT = 18080
CALL_S = 60.0


async def nodes() -> dict[str, str]:
    """The nodes' containers and their roles (control-plane, worker); none if there is no such cluster."""
    rows = await run("docker", "ps", "--all", "--filter", LABEL, "--format", f'{{{{.Names}}}} {{{{.Label "{ROLE}"}}}}', timeout=CALL_S)
    return dict(sorted(row.split(" ", 1) for row in rows.splitlines() if " " in row))


async def control_plane() -> str:
    """The control plane's container. LocalKubeError if there is none."""
    found = [name for name, role in (await nodes()).items() if role == "control-plane"]
    if not found:
        msg = f"there is no kind cluster {NAME}: make it with 'hack/kind-offline up --name {NAME}'"
        raise LocalKubeError(msg)
    return found[0]


async def start_sender(image: str) -> str:
    """Start the proxy through which messages are sent, beside the control plane and in its network, which no fault strikes.

    ``image``: one with Python as `python`. Returns the proxy's URL.
    """
    await stop_sender()
    container = await control_plane()
    text = (Path(__file__).parent / "relay.py").read_text(encoding="utf-8")
    options = ("--detach", "--name", SENDER, f"--network=container:{container}", f"--env=PORT={SENDER_PORT}", "--entrypoint=python")
    await run("docker", "run", *options, image, "-c", text, timeout=CALL_S)
    (about,) = await _inspect(container)
    address = about["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
    return f"http://{address}:{SENDER_PORT}"


async def stop_sender() -> None:
    """End the proxy, if there is one."""
    with contextlib.suppress(LocalKubeError):
        await run("docker", "rm", "--force", SENDER, timeout=CALL_S)


async def unpause() -> None:
    """Let nodes go on that a run left paused which could not clean up after itself."""
    names = (await run("docker", "ps", "--filter", LABEL, "--filter", "status=paused", "--format", "{{.Names}}", timeout=CALL_S)).split()
    if names:
        await run("docker", "unpause", *names, timeout=CALL_S)


async def has_image(image: str) -> bool:
    """Whether Docker has this image."""
    return bool((await run("docker", "images", "--quiet", image, timeout=CALL_S)).strip())


async def _inspect(container: str) -> list[Obj]:
    found: list[Obj] = json.loads(await run("docker", "inspect", container, timeout=CALL_S))
    return found
