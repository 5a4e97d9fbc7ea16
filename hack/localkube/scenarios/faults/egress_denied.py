"""The operator as it is, behind a network that lets it reach the API server and nothing else (run by ``python -m``).

A connection to anything else is never made and never refused, as behind a NetworkPolicy that drops; each is a line on standard error.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localkube.kubeconfig import read

DENIED = "egress denied: "  # how the line of a connection that was not made begins


def deaf_address(keep: list[socket.socket]) -> tuple[str, int]:
    """An address on loopback that answers no SYN: its queue is full. ``keep`` takes the sockets that must stay open for it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    address: tuple[str, int] = listener.getsockname()
    keep.append(listener)
    for _ in range(2):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(address)
        keep.append(filler)
    return address


def denying(allowed: tuple[str, int], deaf: tuple[str, int]) -> type[socket.socket]:
    """A class of sockets that connect to one address only; every other connection over IP goes to where nobody answers."""

    class Socket(socket.socket):
        def connect(self, address: Any, /) -> None:
            super().connect(self._led(address))

        def connect_ex(self, address: Any, /) -> int:
            return super().connect_ex(self._led(address))

        def _led(self, address: Any) -> Any:
            if self.family != socket.AF_INET or address[:2] == allowed:
                return address
            print(f"{DENIED}{address[0]}:{address[1]}", file=sys.stderr, flush=True)
            return deaf

    return Socket


def main() -> None:
    """Run the operator, its kubeconfig's API server within reach."""
    server = urlsplit(read(Path(os.environ["KUBECONFIG"])).server)
    keep: list[socket.socket] = []
    socket.socket = denying((server.hostname or "", server.port or 443), deaf_address(keep))  # type: ignore[misc]
    runpy.run_module("whatsapp_operator", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
