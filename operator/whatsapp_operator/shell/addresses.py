"""Addresses of pods as they stand in URLs and headers, IPv4 and IPv6. Pure."""

from __future__ import annotations


def bracketed(host: str) -> str:
    """Return a host as a URL names it: an IPv6 address in brackets, everything else as it is."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int | str) -> str:
    """Return a host and a port as a URL names them: ``10.0.0.1:8443``, ``[fd00::1]:8443``."""
    return f"{bracketed(host)}:{port}"
