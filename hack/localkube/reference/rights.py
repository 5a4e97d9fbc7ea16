"""The rights that the chart grants, each with its reason: from the chart's lists of rules, and their comments."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

FOLDER = Path("charts") / "whatsapp-operator" / "files"
ONLY_CLUSTER = "# --- Only in a ClusterRole"
"""A Role cannot grant the rules after this line of the file, so they are left out with ``scope: Namespace``."""
HEAD = """# Rights

<!-- made by `make reference` from charts/whatsapp-operator/files -->

What the chart grants, and why. A test compares these lists with the operator's requests in the API server's audit log: every right that is
used is granted, and every right that is granted is used, except for three that a short run does not always need.
"""
SECTIONS = (
    (
        "The operator, in each namespace with clusters",
        "With `scope: Cluster` a ClusterRole, with `scope: Namespace` a Role in each of `watchNamespaces`.",
    ),
    ("The operator, in the whole cluster", "Only with `scope: Cluster`, for a Role cannot grant it."),
    ("The operator, in its own namespace", "A Role."),
    ("The operator, in kube-node-lease", "A Role, only with `scope: Cluster`."),
    ("People who may view", "Added to the roles view, edit and admin of Kubernetes, unless `rbac.aggregate` is false."),
    ("People who may edit", "Added to the roles edit and admin."),
)


def page(root: Path) -> str:
    """Return the page; ``root`` is the repository."""
    cluster, own, leases, view, edit = (
        (root / FOLDER / f"{name}-rules.yaml").read_text(encoding="utf-8") for name in ("cluster", "lease", "node-lease", "view", "edit")
    )
    everywhere, _, only_cluster = cluster.partition(ONLY_CLUSTER)
    lists = (everywhere, only_cluster, own, leases, view, edit)
    return HEAD + "".join(_section(*section, rules) for section, rules in zip(SECTIONS, lists, strict=True))


def _section(title: str, where: str, rules: str) -> str:
    rows = "".join(_row(rule) for rule in re.split(r"^(?=- )", rules, flags=re.MULTILINE)[1:])
    return f"\n## {title}\n\n{where}\n\n| API group | resources | verbs | why |\n| --- | --- | --- | --- |\n{rows}"


def _row(text: str) -> str:
    (rule,) = yaml.safe_load(text)
    names = rule.get("resourceNames", ())
    resources = ", ".join(f"`{one}`" for one in rule["resources"]) + (f" named {', '.join(f'`{name}`' for name in names)}" if names else "")
    group = ", ".join(f"`{one}`" if one else "core" for one in rule["apiGroups"])
    why = "; ".join(re.findall(r"# (.*)$", text, re.MULTILINE))
    return f"| {group} | {resources} | {', '.join(rule['verbs'])} | {why} |\n"
