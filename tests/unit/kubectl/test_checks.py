"""Checks: one line each, with the page to read; the worst of them is the exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubectl_whatsapp.checks import CHECKS, OF_THE_CLUSTER, check
from kubectl_whatsapp.model import Level

from .clusters import Cluster, a_cluster

ROOT = Path(__file__).parents[3]
BAD: tuple[tuple[str, Cluster, Level, str], ...] = (
    ("reading", a_cluster().without("nodes", why="forbidden"), Level.WARNING, "could not read nodes (forbidden)"),
    ("reading", a_cluster().without("cluster"), Level.UNKNOWN, "could not read WhatsAppCluster shop/acme"),
    ("operator leads", a_cluster().operator_dead(), Level.CRITICAL, "no operator leads"),
    ("operator leads", a_cluster().without("lease"), Level.UNKNOWN, "could not be read"),
    ("operator replicas", a_cluster().unready().but(lambda found: found["operators"]["items"].pop()), Level.WARNING, "1 replica is ready"),
    (
        "operator replicas",
        a_cluster().but(lambda found: [pod["spec"].update(nodeName="node-0") for pod in found["operators"]["items"]]),
        Level.WARNING,
        "all replicas are on one node",
    ),
    ("operator replicas", a_cluster().but(lambda found: found["operators"]["items"].clear()), Level.UNKNOWN, "no pod of the operator"),
    ("cluster", a_cluster().without_pod("acme-coreapp-0"), Level.CRITICAL, "1 of 2 shards is not served"),
    ("newest spec", a_cluster().status(observedGeneration=2), Level.WARNING, "generation 2 of the spec; the newest is 3"),
    ("nothing stalled", a_cluster().says("Stalled", "True", "NameConflict", "Delete it."), Level.WARNING, "NameConflict: Delete it."),
    ("spares", a_cluster().says("Redundant", "False", "NoSpareLeft"), Level.WARNING, "NoSpareLeft"),
    ("spares", a_cluster().status(conditions=[]), Level.UNKNOWN, "has not reported condition Redundant"),
    ("certificate", a_cluster().says("CertificateValid", "False", "CertificateExpired"), Level.WARNING, "CertificateExpired"),
    ("certificate", a_cluster().says("CertificateValid", "Unknown", "AwaitingSecret"), Level.UNKNOWN, "AwaitingSecret"),
    (
        "holders are spread",
        a_cluster().but(lambda found: found["pods"]["items"][1]["spec"].update(nodeName="node-0")),
        Level.WARNING,
        "node node-0 has 2 holders, but only 1 spare on other nodes could take over",
    ),
    (
        "holders are spread",
        a_cluster().but(lambda found: found["pods"]["items"][2]["spec"].update(nodeName="node-0")),
        Level.WARNING,
        "node node-0 has 1 holder, but only 0 spares on other nodes could take over: its loss leaves shards unserved.",
    ),
    ("holders are spread", a_cluster().but(lambda found: found["pods"]["items"].clear()), Level.UNKNOWN, "no holder is known"),
    ("Webapps", a_cluster().without_pod("acme-webapp-b"), Level.WARNING, "1 Webapp is ready"),
    ("Webapps", a_cluster().without_pod("acme-webapp-b").without_pod("acme-webapp-a"), Level.WARNING, "0 Webapps are ready"),
    ("Webapps", a_cluster().without("pods"), Level.UNKNOWN, "pods could not be read"),
    ("Webapps", a_cluster().but(lambda found: found["pods"]["items"][-1]["spec"].update(nodeName="node-0")), Level.WARNING, "on one node"),
    ("not paused", a_cluster().annotated(paused="true"), Level.WARNING, "planned changes are held"),
    ("automatic failover", a_cluster().spec(failover={"mode": "Manual"}), Level.WARNING, "Manual"),
)


def test_a_cluster_that_is_well_passes_them_all() -> None:
    found = check(a_cluster().read())

    assert [one.name for one in found.checks if one.level is not Level.OK] == []
    assert [one.name for one in found.checks] == [name for name, _, _ in CHECKS]
    assert (found.level, found.sentence) == (Level.OK, f"{len(CHECKS)} of {len(CHECKS)} checks passed.")


@pytest.mark.parametrize(("name", "cluster", "level", "sentence"), BAD)
def test_what_is_amiss(name: str, cluster: Cluster, level: Level, sentence: str) -> None:
    found = check(cluster.read())
    (one,) = (one for one in found.checks if one.name == name)

    assert one.level is level, one.sentence
    assert sentence in one.sentence
    assert found.level is not Level.OK


def test_each_check_can_fail() -> None:
    assert {name for name, _, _, _ in BAD} == {name for name, _, _ in CHECKS}


def test_without_a_cluster_the_prerequisites_are_checked_all_the_same() -> None:
    found = check(a_cluster().missing("cluster").read())

    assert [one.name for one in found.checks] == [name for name, _, _ in CHECKS[: OF_THE_CLUSTER + 1]]
    assert found.checks[-1].sentence == "There is no WhatsAppCluster acme in namespace shop."


@pytest.mark.parametrize("hint", sorted({hint for _, hint, _ in CHECKS}))
def test_each_hint_leads_to_a_heading(hint: str) -> None:
    page, _, anchor = hint.partition("#")
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}

    assert not anchor or anchor in headings
