"""Addresses of pods as URLs and headers spell them, IPv4 and IPv6. Pure."""

from __future__ import annotations


def bracketed(host: str) -> str:
    """Return a host as a URL spells it: an IPv6 address in brackets, everything else unchanged."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int | str) -> str:
    """Return a host and a port as a URL spells them: ``10.0.0.1:8443``, ``[fd00::1]:8443``."""
    return f"{bracketed(host)}:{port}"
