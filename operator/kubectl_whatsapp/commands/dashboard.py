"""The command that serves the live page."""

from __future__ import annotations

from typing import Annotated

import typer

from kubectl_whatsapp.cli import Question, command, fail, note


@command("dashboard", for_one=False)
def dashboard(
    question: Question,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Show the clusters of all namespaces.")] = False,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1 (default: a free one).", min=0, max=65535)] = 0,
) -> int:
    """Serve a live page about one or all clusters.

    It only reads, until Ctrl-C. Open the address that it prints in a browser on this machine. The address contains a token: anyone who has
    it can read what you may read. With -A, you need the rights in all namespaces.
    """
    import asyncio  # noqa: PLC0415  # these load the web server and the operator's rules, which other commands do not need

    from kubectl_whatsapp.dashboard.board import Board, Scope  # noqa: PLC0415
    from kubectl_whatsapp.dashboard.server import Server  # noqa: PLC0415

    target = question.target
    scope = Scope(
        namespace="" if all_namespaces else target.namespace,
        name=target.name,
        operator_namespace=target.operator_namespace,
        lease=target.lease,
    )

    async def serve() -> None:
        server = Server(lambda changed: Board(question.client, question.access.client(), scope, changed))
        async with server.serving(port):
            print(server.url, flush=True)
            note("Open it in a browser on this machine. Press Ctrl-C to stop.")
            await server.wait()

    try:
        asyncio.run(serve())
    except OSError as error:
        fail(f"port {port} of 127.0.0.1 cannot be used: {error.strerror}. Choose another one with --port.")
    return 0
