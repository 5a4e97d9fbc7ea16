"""The pod network that is made node by node, and CoreDNS without a server above."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from localkube.errors import LocalKubeError
from localkube.offline import network
from localkube.offline.network import Node

NODES = [Node(name, f"172.18.0.{number}", f"10.244.{number}.0/24") for number, name in enumerate(("a", "b", "c"), 2)]
COREFILE = """.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""


def listed(*nodes: Node, **changes: Any) -> dict[str, Any]:
    return {
        "items": [
            {
                "metadata": {"name": node.name},
                "spec": {"podCIDR": node.pods, **changes},
                "status": {"addresses": [{"type": "Hostname", "address": node.name}, {"type": "InternalIP", "address": node.address}]},
            }
            for node in nodes
        ]
    }


def test_nodes_are_read_in_the_order_of_their_names() -> None:
    assert network.nodes_of(listed(*reversed(NODES))) == NODES


def test_a_node_without_a_range_is_named() -> None:
    with pytest.raises(LocalKubeError, match="node a has no range"):
        network.nodes_of(listed(NODES[0], podCIDR=""))


def test_a_node_routes_to_all_others_and_not_to_itself() -> None:
    assert network.routes(NODES[1], NODES) == ("route replace 10.244.2.0/24 via 172.18.0.2\nroute replace 10.244.4.0/24 via 172.18.0.4\n")


def test_pods_get_addresses_of_their_own_node_and_keep_them_on_the_way() -> None:
    link, ports = json.loads(network.conflist(NODES[0]))["plugins"]
    assert link["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]
    assert link["ipMasq"] is False
    assert (link["type"], link["ipam"]["type"], ports["type"]) == ("ptp", "host-local", "portmap")


def test_the_script_is_one_for_a_shell() -> None:
    script = network.script(NODES[0], NODES)
    done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert network.routes(NODES[0], NODES) in script
    assert network.conflist(NODES[0]) in script


def test_coredns_asks_nobody_above_and_is_otherwise_as_it_was() -> None:
    without = COREFILE.replace("    loop\n", "").replace("    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n", "")
    assert network.corefile(COREFILE) == without
    assert network.corefile(without) == without


@pytest.mark.parametrize("text", ["", ".:53 {\n    whoami\n}\n", COREFILE.replace("    loop\n", "    loop {\n")])
def test_an_unknown_corefile_is_refused(text: str) -> None:
    with pytest.raises(LocalKubeError, match="CoreDNS"):
        network.corefile(text)
