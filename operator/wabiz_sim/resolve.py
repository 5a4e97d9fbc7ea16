"""How the name of a Service becomes an address."""

import ipaddress
from collections.abc import Awaitable, Callable

Resolve = Callable[[str, int], Awaitable[tuple[str, int]]]
"""Maps (Service name, port) to (address, port). Raises LookupError when the Service has no endpoint."""


async def by_dns(name: str, port: int) -> tuple[str, int]:
    """Return the name unchanged: inside a container DNS resolves it for each connection."""
    return name, port


def split_host_port(text: str) -> tuple[str, int]:
    """Read ``acme-simulator:8080`` or ``[fd00::5]:8080``.

    Raises ValueError when there is no port, it is not a number from 1 to 65535, or brackets are not around an IPv6 address.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("["):
        host = host.removeprefix("[").removesuffix("]")
        if join_host_port(host, port) != text or not _is_ipv6(host):
            host = ""
    elif ":" in host or "]" in host:
        host = ""
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        msg = f"{text!r} is not of the form <name>:<port>"
        raise ValueError(msg)
    return host, int(port)


def join_host_port(host: str, port: int | str) -> str:
    """Write a host and a port as a URL names them, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
