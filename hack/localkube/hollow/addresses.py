"""Loopback addresses for pods: each hollow process claims a range of its own, so that several control planes may share a machine."""

from __future__ import annotations

import ipaddress
import itertools
import random
import socket
from contextlib import suppress

from localkube.errors import LocalKubeError

RANGES = tuple(ipaddress.IPv4Network("127.64.0.0/10").subnets(new_prefix=18))
OF_NODES = ipaddress.IPv4Address("127.63.0.1")
CLAIM_PORT = 6249
PORTS = (6250, 6251, 6252, 6253, 8080, 8443)
"""What the simulator listens on; an address is only given out when all are free there."""


class Addresses:
    """A claimed range, out of which pods get addresses. An address that was given back is the last to be given out again."""

    def __init__(self) -> None:
        for self.network in random.sample(RANGES, len(RANGES)):
            with suppress(OSError):  # only a listening socket keeps others out
                self._claim = socket.create_server((str(self.network[1]), CLAIM_PORT))
                break
        else:
            raise LocalKubeError(f"all address ranges from {RANGES[0]} on are taken by other hollow nodes (port {CLAIM_PORT}): stop them")
        self._given: set[str] = set()
        self._turn = itertools.cycle(map(str, [*self.network.hosts()][1:]))

    def take(self) -> str:
        """A free address. LocalKubeError when there is none."""
        for ip in itertools.islice(self._turn, self.network.num_addresses):
            if ip not in self._given and all(is_free(ip, port) for port in PORTS):
                self._given.add(ip)
                return ip
        raise LocalKubeError(f"no free address left in {self.network}: does a program listen on all addresses, on one of {PORTS}? Stop it")

    def give_back(self, ip: str) -> None:
        """The pod is gone; its address may be used again."""
        self._given.discard(ip)

    def close(self) -> None:
        """Let go of the range."""
        self._claim.close()


def of_node(index: int) -> str:
    """The address of the n-th node; nothing listens there."""
    return str(OF_NODES + index)


def is_free(ip: str, port: int) -> bool:
    """Whether a program could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go does: lingering connections do not count
        try:
            probe.bind((ip, port))
        except OSError:
            return False
    return True
