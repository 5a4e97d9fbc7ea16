"""Loopback addresses for pods: each hollow process claims a range of its own, so that several control planes may share a machine."""

from __future__ import annotations

import hashlib
import ipaddress
import socket

RANGES = ipaddress.IPv4Network("127.64.0.0/10")
RANGE_BITS = 18
CLAIM_PORT = 6249
PORTS = (6250, 6251, 6252, 6253, 8080, 8443)
"""What the simulator listens on; an address is only given out when all are free there."""
RESERVED = 256
"""Addresses at the start of a range: the claim and the nodes."""


class AddressError(Exception):
    """No address could be had; the text says why and what to do."""


class Addresses:
    """A claimed range, out of which pods get addresses. An address that was given back is the last to be given out again."""

    def __init__(self, seed: str, wanted: str | None = None) -> None:
        self._given: set[str] = set()
        self.network, self._claim = self._claimed(seed, wanted)
        self._hosts = self.network.num_addresses - 2
        self._next = RESERVED
        try:
            self._check_ports()
        except AddressError:
            self._claim.close()
            raise

    @staticmethod
    def _claimed(seed: str, wanted: str | None) -> tuple[ipaddress.IPv4Network, socket.socket]:
        """The first range that no other process holds, counting from where the seed points, so that a restart finds its own again."""
        ranges = [_network(wanted)] if wanted is not None else list(RANGES.subnets(new_prefix=RANGE_BITS))
        first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") % len(ranges)
        for network in ranges[first:] + ranges[:first]:
            claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind((str(network[1]), CLAIM_PORT))
                claim.listen(1)  # with SO_REUSEADDR only a listening socket keeps others out
            except OSError:
                claim.close()
                continue
            return network, claim
        where = wanted or f"{RANGES} (all ranges)"
        message = f"address range {where} is taken by other hollow nodes (port {CLAIM_PORT}): stop them or choose another with --pod-range"
        raise AddressError(message)

    def _check_ports(self) -> None:
        for port in PORTS:
            if not _is_free(str(self.network[1]), port):
                message = f"port {port} is taken on {self.network[1]}, probably by a program that listens on all addresses; stop it"
                raise AddressError(message)

    def node(self, index: int) -> str:
        """The address of the n-th node; nothing listens there."""
        return str(self.network[2 + index % (RESERVED - 2)])

    def take(self) -> str:
        """A free address. Raises AddressError when there is none."""
        for _ in range(self._hosts):
            self._next = self._next + 1 if self._next < self._hosts else RESERVED
            ip = str(self.network[self._next])
            if ip not in self._given and all(_is_free(ip, port) for port in PORTS):
                self._given.add(ip)
                return ip
        message = f"no free address left in {self.network}; give a larger one with --pod-range"
        raise AddressError(message)

    def retake(self, ip: str) -> str:
        """The same address as before if it can be had (a restarted process must not change its pods' addresses), else a new one."""
        usable = ip.startswith("127.") and ip not in self._given and all(_is_free(ip, port) for port in PORTS)
        if not usable:
            return self.take()
        self._given.add(ip)
        return ip

    def give_back(self, ip: str) -> None:
        """The pod is gone; its address may be used again."""
        self._given.discard(ip)

    def close(self) -> None:
        """Let go of the range."""
        self._claim.close()


def _network(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as e:
        message = f"{text!r} is no address range ({e}): give one like 127.72.0.0/18"
        raise AddressError(message) from e
    if not network.is_loopback or network.num_addresses < 2 * RESERVED:
        message = f"{text} will not do for pods: give a loopback range of at least {2 * RESERVED} addresses, like 127.72.0.0/18"
        raise AddressError(message)
    return network


def _is_free(ip: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError:
            return False
    return True
