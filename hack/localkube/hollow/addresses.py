"""Loopback addresses for pods: each hollow process claims a range of its own, so that several control planes may share a machine."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress

from localkube.errors import LocalKubeError

RANGES = tuple(ipaddress.IPv4Network("127.64.0.0/10").subnets(new_prefix=18))
CLAIM_PORT = 6249
PORTS = (6250, 6251, 6252, 6253, 8080, 8443)
"""What the simulator listens on; an address is only given out when all are free there."""
RESERVED = 256
"""Addresses at the start of a range: the claim and the nodes."""


class AddressError(LocalKubeError):
    """No address could be had; the text says why and what to do."""


class Addresses:
    """A claimed range, out of which pods get addresses. An address that was given back is the last to be given out again."""

    def __init__(self, seed: str, ranges: Sequence[ipaddress.IPv4Network] = RANGES) -> None:
        """Claim a range. `seed`: where the search begins, so that a restart finds its own again. Raises AddressError."""
        self._given: set[str] = set()
        self.network, self._claim = _claimed(seed, ranges)
        self._hosts = self.network.num_addresses - 2
        self._next = RESERVED
        for port in PORTS:
            if not is_free(str(self.network[1]), port):
                self._claim.close()
                message = f"port {port} is taken on {self.network[1]}, probably by a program that listens on all addresses; stop it"
                raise AddressError(message)

    def node(self, index: int) -> str:
        """The address of the n-th node; nothing listens there."""
        return str(self.network[2 + index % (RESERVED - 2)])

    def take(self) -> str:
        """A free address. Raises AddressError when there is none."""
        for _ in range(self._hosts):
            self._next = self._next + 1 if self._next < self._hosts else RESERVED
            if self._taken(ip := str(self.network[self._next])):
                return ip
        raise AddressError(f"no free address left in {self.network}")

    def retake(self, ip: str) -> str:
        """The same address as before if it can be had (a restarted process must not change its pods' addresses), else a new one."""
        return ip if ip.startswith("127.") and self._taken(ip) else self.take()

    def _taken(self, ip: str) -> bool:
        """Give out this address if it is free; return whether it was."""
        usable = ip not in self._given and all(is_free(ip, port) for port in PORTS)
        if usable:
            self._given.add(ip)
        return usable

    def give_back(self, ip: str) -> None:
        """The pod is gone; its address may be used again."""
        self._given.discard(ip)

    def close(self) -> None:
        """Let go of the range."""
        self._claim.close()


def _claimed(seed: str, ranges: Sequence[ipaddress.IPv4Network]) -> tuple[ipaddress.IPv4Network, socket.socket]:
    """The first range that no other process holds."""
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") % len(ranges)
    for network in (*ranges[first:], *ranges[:first]):
        # Only a listening socket keeps others out; create_server sets SO_REUSEADDR.
        with suppress(OSError):
            return network, socket.create_server((str(network[1]), CLAIM_PORT))
    raise AddressError(f"all address ranges from {ranges[0]} on are taken by other hollow nodes (port {CLAIM_PORT}): stop them")


def is_free(ip: str, port: int) -> bool:
    """Whether a program could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go does: lingering connections do not count
        try:
            probe.bind((ip, port))
        except OSError:
            return False
    return True
