"""How the name of a Service becomes an address."""

from collections.abc import Awaitable, Callable

Resolve = Callable[[str, int], Awaitable[tuple[str, int]]]
"""Maps (Service name, port) to (address, port). Raises LookupError when the Service has no endpoint."""


async def by_dns(name: str, port: int) -> tuple[str, int]:
    """Leave the name as it is: inside a container DNS resolves it, anew for each connection."""
    return name, port


def split_host_port(text: str) -> tuple[str, int]:
    """Read ``acme-simulator:8080``.

    Raises ValueError when there is no port or it is not a number from 1 to 65535.
    """
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        msg = f"{text!r} is not of the form <name>:<port>"
        raise ValueError(msg)
    return host, int(port)
