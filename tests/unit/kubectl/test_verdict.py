"""The verdict: what is said first of a cluster, in health and in outages."""

from __future__ import annotations

import itertools

import pytest

from kubectl_whatsapp import verdict
from kubectl_whatsapp.model import Level
from kubectl_whatsapp.view import view

from .clusters import Cluster, a_cluster

FORBIDDEN = 'nodes is forbidden: User "eve" cannot list resource "nodes" in API group "" at the cluster scope'
CASES: tuple[tuple[str, Cluster, Level, str], ...] = (
    ("well", a_cluster(), Level.OK, "All 2 shards are served; 1 spare could take over."),
    ("one shard", a_cluster(shards=1, spares=2), Level.OK, "The one shard is served; 2 spares could take over."),
    ("absent", a_cluster().missing("cluster"), Level.UNKNOWN, "There is no WhatsAppCluster acme in namespace shop."),
    ("black hole", a_cluster().without(*a_cluster().found), Level.UNKNOWN, "could not be read (no answer within 1.0 s)"),
    ("node gone", a_cluster().without_node("node-0"), Level.CRITICAL, "1 of 2 shards is not served: shard 0: node node-0 is gone."),
    (
        "node silent",
        a_cluster().silent_node("node-1", seconds=40),
        Level.CRITICAL,
        "1 of 2 shards is not served: shard 1: node node-1 has not renewed its Lease since 11:59:20Z.",
    ),
    ("node renews slowly", a_cluster().silent_node("node-1", seconds=20), Level.OK, "All 2 shards are served"),
    ("pod gone", a_cluster().without_pod("acme-coreapp-0"), Level.CRITICAL, "shard 0: acme-coreapp-0 is gone"),
    ("pod deleted", a_cluster().deleting("acme-coreapp-0"), Level.CRITICAL, "shard 0: acme-coreapp-0 is being deleted"),
    (
        "pod crashes",
        a_cluster().unready("acme-coreapp-0", waiting="CrashLoopBackOff"),
        Level.CRITICAL,
        "acme-coreapp-0 is waiting: CrashLoopBackOff",
    ),
    ("both", a_cluster().unready("acme-coreapp-0", "acme-coreapp-1"), Level.CRITICAL, "2 of 2 shards are not served"),
    (
        "node gone, operator dead",
        a_cluster().without_node("node-0").operator_dead(),
        Level.CRITICAL,
        "node node-0 is gone. No operator leads, so no shard is moved.",
    ),
    (
        "a restart that was asked for",
        a_cluster().unready("acme-coreapp-0").status(operation={"to": 2, "answer": "Accepted", "deadline": "2027-01-04T12:02:00Z"}),
        Level.CRITICAL,
        "acme-coreapp-0 is not ready. Set Shards is restarting all Coreapps, until 12:02:00Z at the latest.",
    ),
    (
        "a restart that is overdue",
        a_cluster().unready("acme-coreapp-0").status(operation={"to": 2, "answer": "Accepted", "deadline": "2027-01-04T11:02:00Z"}),
        Level.CRITICAL,
        "1 of 2 shards is not served: shard 0: acme-coreapp-0 is not ready.",
    ),
    ("operator dead", a_cluster().operator_dead(), Level.CRITICAL, "All 2 shards are served, and no operator leads"),
    ("a takeover", a_cluster().operator_dead(seconds=5), Level.OK, "All 2 shards are served"),
    ("no Lease", a_cluster().missing("lease"), Level.CRITICAL, "no operator leads"),
    ("Lease not readable", a_cluster().without("lease"), Level.OK, "All 2 shards are served"),
    (
        "pods not readable",
        a_cluster().without("pods"),
        Level.UNKNOWN,
        "Whether 2 of 2 shards are served is not known: pods could not be read",
    ),
    ("Services not readable", a_cluster().without("services"), Level.UNKNOWN, "what the operator last reported"),
    ("nodes not readable", a_cluster().without("nodes", why=FORBIDDEN), Level.OK, "All 2 shards are served"),
    ("not observed", a_cluster().status(shards=None, settledShards=None, message=""), Level.UNKNOWN, "No shard is known yet"),
    ("no Webapp", a_cluster().unready("acme-webapp-a", "acme-webapp-b"), Level.CRITICAL, "no Webapp is ready: no message can be sent"),
    ("one Webapp", a_cluster().unready("acme-webapp-a"), Level.OK, "All 2 shards are served"),
    ("logged off", a_cluster().says("Ready", "False", "CertificateRejected"), Level.CRITICAL, "the operator reports (CertificateRejected)"),
    ("banned", a_cluster().says("Ready", "False", "Banned"), Level.CRITICAL, "the operator reports (Banned)"),
    ("restarting", a_cluster().says("Ready", "False", "Restarting"), Level.WARNING, "the operator reports (Restarting)"),
    ("self-check", a_cluster().says("Ready", "Unknown", "SelfCheckFailed"), Level.UNKNOWN, "not sure (SelfCheckFailed)"),
    ("no conditions", a_cluster().status(conditions=[]), Level.UNKNOWN, "the operator has not reported"),
    ("stalled", a_cluster().says("Stalled", "True", "SecretMissing", "Create it."), Level.WARNING, "A person must act: Create it."),
    ("no spare", a_cluster().unready("acme-coreapp-2"), Level.WARNING, "no spare is left"),
    ("fewer spares", a_cluster(spares=2).unready("acme-coreapp-2"), Level.WARNING, "only 1 of 2 spares could take one over"),
    ("no spare wanted", a_cluster(spares=0), Level.OK, "0 spares could take over"),
    (
        "spares away while Set Shards restarts",
        a_cluster().unready("acme-coreapp-2").status(operation={"id": "1", "to": 2, "answer": "Accepted"}),
        Level.OK,
        "All 2 shards are served",
    ),
    ("certificate", a_cluster().says("CertificateValid", "False", "CertificateExpired"), Level.WARNING, "The certificate needs attention"),
    ("certificate soon", a_cluster().says("CertificateValid", "True", "CertificateExpiresSoon"), Level.WARNING, "The certificate needs"),
    ("under way", a_cluster().says("Reconciling", "True", "ScalingUp", "Coreapps 3 -> 5."), Level.OK, "In progress: Coreapps 3 -> 5."),
)


@pytest.mark.parametrize(("cluster", "level", "sentence"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_verdict(cluster: Cluster, level: Level, sentence: str) -> None:
    found = view(cluster.read()).verdict

    assert found.level is level, found.sentence
    assert sentence in found.sentence


def test_each_entry_of_the_table_has_a_case() -> None:
    spoken = set()
    for _, cluster, _, _ in CASES:
        found = view(cluster.read()).verdict
        spoken |= {judge for level, judge in verdict.VERDICTS if level is found.level and _says(judge, cluster) == found.sentence}

    assert {judge for _, judge in verdict.VERDICTS} == spoken


def _says(judge: object, cluster: Cluster) -> str | None:
    assert callable(judge)
    from kubectl_whatsapp.view import _shards, _standbys, leader_of
    from kubectl_whatsapp.world import World

    world = World(cluster.read())
    shards = tuple(_shards(world))
    standbys = tuple(_standbys(world, shards))
    said: str | None = judge(verdict.Facts(world, shards, standbys, leader_of(world)))
    return said


@pytest.mark.parametrize("names", [*itertools.combinations(a_cluster().found, 1), *itertools.combinations(a_cluster().found, 2)])
def test_what_could_not_be_read_is_named_and_makes_no_good_cluster_seem_broken(names: tuple[str, ...]) -> None:
    found = view(a_cluster().without(*names, why="no answer").read())

    assert set(found.unread.values()) == {"no answer"}
    assert len(found.unread) == len(names)
    assert found.verdict.level in {Level.OK, Level.UNKNOWN}, found.verdict.sentence


def test_a_shard_that_is_lost_is_named_whatever_else_could_not_be_read() -> None:
    lost = a_cluster().without_pod("acme-coreapp-0").operator_dead()
    for names in itertools.combinations(("nodes", "nodeLeases", "lease", "operators", "statefulsets", "deployments"), 2):
        found = view(lost.without(*names).read()).verdict
        assert found.level is Level.CRITICAL
        assert "acme-coreapp-0 is gone" in found.sentence


def test_each_level_has_its_exit_code() -> None:
    assert {level: level.exit_code for level in Level} == {Level.OK: 0, Level.WARNING: 1, Level.CRITICAL: 2, Level.UNKNOWN: 3}
