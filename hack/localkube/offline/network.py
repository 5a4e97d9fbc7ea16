"""The pod network of a kind cluster without kind's own plugin: a point-to-point link per pod, an address range and routes per node.

NetworkPolicies are not enforced by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localkube.errors import LocalKubeError

CONFLIST = "/etc/cni/net.d/10-pods.conflist"
ROUTES = "/kind/routes"


@dataclass(frozen=True)
class Node:
    """One node: its name, which is its container's too, its address among the nodes, and the range of its pods' addresses."""

    name: str
    address: str
    pods: str


def nodes_of(listed: Mapping[str, Any]) -> list[Node]:
    """The nodes in a NodeList, by name. LocalKubeError names one that has no range of addresses yet."""
    found = []
    for item in listed["items"]:
        name, pods = item["metadata"]["name"], item["spec"].get("podCIDR")
        address = next((each["address"] for each in item["status"].get("addresses", []) if each["type"] == "InternalIP"), None)
        if not pods or not address:
            raise LocalKubeError(f"node {name} has no range of pod addresses yet: read the log of kube-controller-manager")
        found.append(Node(name, address, pods))
    return sorted(found, key=lambda node: node.name)


def conflist(node: Node) -> str:
    """The network configuration of a node for containerd. Nothing is masqueraded: the routes know the way back."""
    ranges = [[{"subnet": node.pods}]]
    plugins = [
        {"type": "ptp", "mtu": 1500, "ipMasq": False, "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}, indent=1)


def routes(node: Node, everyone: Sequence[Node]) -> str:
    """The routes of ``node`` to the pods of all others, in the words of ``ip -batch``."""
    return "".join(f"route replace {other.pods} via {other.address}\n" for other in everyone if other.name != node.name)


def script(node: Node, everyone: Sequence[Node]) -> str:
    """A shell script that gives the node its pod network; harmless when run again."""
    return "\n".join(
        [
            "set -eu",
            f"cat > {ROUTES} <<'END'\n{routes(node, everyone)}END",
            f"ip -force -batch {ROUTES}",
            f"cat > {CONFLIST}.partial <<'END'\n{conflist(node)}\nEND",
            f"mv {CONFLIST}.partial {CONFLIST}",
            "",
        ]
    )


def corefile(text: str) -> str:
    """A Corefile without ``loop`` and ``forward``, which need a DNS server above. LocalKubeError if it is not the usual one."""
    changed = re.sub(r"^[ \t]*loop[ \t]*\n", "", text, flags=re.MULTILINE)
    changed = re.sub(r"^[ \t]*forward [^\n{]*(\{[^}]*\})?[ \t]*\n", "", changed, flags=re.MULTILINE)
    if "kubernetes " not in changed or "forward" in changed or changed.count("{") != changed.count("}"):
        raise LocalKubeError("the configuration of CoreDNS is not kubeadm's: it cannot be freed of the server above that is not there")
    return changed
