"""The page of rights says what the chart grants, role by role, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from .render import ROOT, Charts, Obj

Right = tuple[str, str, str, str]
"""API group, resource, name or empty, verb."""

EACH, WHOLE, OWN, LEASES, VIEW, EDIT = (
    "The operator, in each namespace with clusters",
    "The operator, in the whole cluster",
    "The operator, in its own namespace",
    "The operator, in kube-node-lease",
    "People who may view",
    "People who may edit",
)


def documented() -> dict[str, set[Right]]:
    """The rights on the page, by section."""
    sections = (ROOT / "docs" / "rbac.md").read_text(encoding="utf-8").split("\n## ")[1:]
    return {text.partition("\n")[0]: set(rows(text)) for text in sections}


def rows(text: str) -> Iterable[Right]:
    for group, resources, verbs in re.findall(r"^\| (`[^|]+`|core) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE):
        kinds, _, name = resources.partition(" named ")
        for resource in kinds.split(", "):
            yield from (
                ("" if group == "core" else group.strip("`"), resource.strip("`"), name.strip("`"), verb) for verb in verbs.split(", ")
            )


def granted(role: Obj) -> set[Right]:
    return {
        (group, resource, name, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize(
    ("kind", "name", "sections"),
    [
        ("ClusterRole", "whatsapp-operator", (EACH, WHOLE)),
        ("Role", "whatsapp-operator-leader", (OWN,)),
        ("Role", "whatsapp-operator-nodes", (LEASES,)),
        ("ClusterRole", "whatsapp-operator-view", (VIEW,)),
        ("ClusterRole", "whatsapp-operator-edit", (EDIT,)),
    ],
)
def test_the_page_has_the_rights_of_a_role(charts: Charts, kind: str, name: str, sections: tuple[str, ...]) -> None:
    page = documented()
    assert granted(charts.operator().one(kind, name)) == set().union(*(page[section] for section in sections))


def test_the_page_has_every_role_of_the_chart(charts: Charts) -> None:
    shown = charts.operator()
    assert len([*shown.of("Role"), *shown.of("ClusterRole")]) == 5
    assert documented().keys() == {EACH, WHOLE, OWN, LEASES, VIEW, EDIT}


def test_a_role_of_one_namespace_has_the_rights_of_its_section(charts: Charts) -> None:
    shown = charts.operator(scope="Namespace", watchNamespaces=["a"])
    (role,) = (one for one in shown.of("Role") if one["metadata"]["namespace"] == "a")
    assert granted(role) == documented()[EACH]
    assert len(shown.of("Role")) == 2


def test_every_right_has_its_reason() -> None:
    text = (ROOT / "docs" / "rbac.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("| ") and line.endswith("|  |")] == []
