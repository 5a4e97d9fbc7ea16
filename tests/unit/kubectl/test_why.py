"""Why: the operator's own rules on what was read, and what would change it."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_whatsapp.why import RuleAnswer, _advice, _meaning, why
from whatsapp_operator.core import rules
from whatsapp_operator.core.evidence import EVIDENCE
from whatsapp_operator.core.reasons import Reason

from .clusters import Cluster, a_cluster, before


def spec_with_account(cluster: Cluster) -> Cluster:
    account = {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}}
    return cluster.spec(account=account)


CASES: tuple[tuple[str, Cluster, Reason, str], ...] = (
    ("well", a_cluster(), Reason.UP_TO_DATE, "Nothing to do."),
    (
        "holder gone",
        a_cluster().without_pod("acme-coreapp-0"),
        Reason.FAILING_OVER,
        "acme-coreapp-0 failed (PodDeleted), acme-coreapp-2 is",
    ),
    ("holder deleted", a_cluster().deleting("acme-coreapp-1"), Reason.FAILING_OVER, "Shard 1: acme-coreapp-1 failed (PodDeleted)"),
    ("no standby", a_cluster(spares=0).without_pod("acme-coreapp-0"), Reason.REPLACING_PODS, "1 of 2 Coreapps are ready"),
    ("manual", a_cluster().spec(failover={"mode": "Manual"}).without_pod("acme-coreapp-0"), Reason.REPLACING_PODS, "2 of 3 Coreapps"),
    ("standby away", a_cluster().unready("acme-coreapp-2"), Reason.REPLACING_PODS, "waiting for acme-coreapp-2"),
    ("a resize begins", a_cluster().spec(shards=4), Reason.SCALING_UP, "Coreapps 3 -> 5."),
    ("paused", a_cluster().spec(shards=4).annotated(paused="true"), Reason.PAUSED, "Changes are held"),
    ("a smaller one", a_cluster().spec(shards=1), Reason.SETTING_SHARDS, "Set Shards 2 -> 1: all Coreapps will restart"),
    ("drift", a_cluster().spec(shards=4).status(settledShards=4), Reason.SCALING_UP, "Coreapps 3 -> 5"),
    ("account unread", spec_with_account(a_cluster()).spec(shards=1), Reason.SETTING_SHARDS, "Set Shards 2 -> 1"),
    ("banned", spec_with_account(a_cluster()).status(bannedAt=before(hours=1)), Reason.BANNED, "account is banned"),
    ("invalid spec", a_cluster().spec(shards="many"), Reason.SPEC_INVALID, "Is the CRD of this release installed?"),
)


@pytest.mark.parametrize(("cluster", "rule", "sentence"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_rule_that_decides(cluster: Cluster, rule: Reason, sentence: str) -> None:
    found = why(cluster.read())

    assert found.rule == rule, found.sentence
    assert sentence in found.sentence
    assert (found.meaning, found.what_changes_it) == (_meaning(rule), _advice(rule))
    assert found.meaning
    assert found.what_changes_it


def test_what_was_asked_before_and_after_is_named_in_the_order_of_the_table() -> None:
    found = why(a_cluster().without_pod("acme-coreapp-0").spec(shards=4).read())

    assert found.said_no == ()
    assert [one.rule for one in found.also] == ["ScalingUp", "AwaitingCoreapps", "SettingShards", "ReplacingPods"]
    rest = why(a_cluster().read()).said_no
    assert [one.rule for one in rest] == [str(rule.name) for rule in rules.RULES][:-1]
    assert rest[0] == RuleAnswer(rule="FailingOver", holds=False, state="Working")


def test_what_nobody_carries_out_is_said_to_stand_still() -> None:
    lost = a_cluster().without_pod("acme-coreapp-0")
    dead, unread = why(lost.operator_dead().read()), why(lost.without("lease").read())

    assert dead.stopped == "No operator leads: none of this is done until one does."
    assert dead.what_changes_it.startswith("An operator must lead. ")
    assert (why(lost.read()).stopped, unread.stopped, why(lost.missing("lease").read()).stopped) == ("", "", dead.stopped)


def test_each_reason_has_a_meaning_and_advice() -> None:
    assert [reason for reason in Reason if not (_meaning(reason) and _advice(reason))] == []


def test_another_answer_than_the_operators_is_said_and_what_was_taken_for_granted() -> None:
    expired = a_cluster().says("Stalled", "True", "CertificateExpired", "Put a new one there.")
    found = why(expired.status(reason="CertificateExpired", message="Put a new one there.").read())

    assert found.reported == "CertificateExpired: Put a new one there."
    assert (
        found.differs == "The operator knows more than this command can read: answers to its probes, Secrets, and how long a fact has held."
    )
    newer = expired.status(reason="CertificateExpired", observedGeneration=1).but(
        lambda one: one["cluster"]["metadata"].update(generation=2)
    )
    assert why(newer.read()).differs.endswith(" It last judged generation 1 of the spec, which is now 2.")
    assert any("PodDisruptionBudget" in one for one in found.granted)
    assert why(a_cluster().read()).differs == ""


def test_a_call_in_progress_is_not_taken_for_an_unknown_one() -> None:
    operation = {"id": "4-x", "from": 2, "to": 4, "leaderEpoch": 1, "startedAt": before(seconds=3), "settleBy": before(minutes=-15)}
    found = a_cluster(spares=3).spec(shards=4, spares=1).status(operation={**operation, "answer": "None", "deadline": before(minutes=-3)})

    assert why(found.read()).rule == Reason.SETTING_SHARDS
    accepted = found.status(operation={**operation, "answer": "Accepted", "deadline": before(minutes=-3)})
    assert why(accepted.read()).rule == Reason.VERIFYING


@pytest.mark.parametrize("source", ["pods", "services", "statefulsets"])
def test_without_what_the_rules_need_they_are_not_run(source: str) -> None:
    found = why(a_cluster().without(source, why="no answer").read(), 0)

    assert found.problem.startswith("The rules need all pods, Services and StatefulSets")
    assert (found.rule, found.shard) == ("", None)
    assert found.reported.startswith("Serving: ")
    assert list((found.unread or {}).values()) == ["no answer"]


@pytest.mark.parametrize("source", ["nodes", "nodeLeases", "lease", "operators", "deployments"])
def test_without_the_rest_they_are_run_all_the_same(source: str) -> None:
    found = why(a_cluster().without(source).without_pod("acme-coreapp-0").read())

    assert found.rule == Reason.FAILING_OVER


def test_a_cluster_that_is_not_there_or_not_readable() -> None:
    assert why(a_cluster().missing("cluster").read()).problem == "The rules need the WhatsAppCluster: it does not exist."
    assert why(a_cluster().without("cluster", why="HTTP 500").read()).problem == "The rules need the WhatsAppCluster: HTTP 500."


def test_a_shard_shows_its_evidence_and_who_could_take_it() -> None:
    found = why(a_cluster(2, 3).without_pod("acme-coreapp-0").unready("acme-coreapp-3").deleting("acme-coreapp-4").read(), 0).shard

    assert found is not None
    assert (found.state, found.holder) == ("Moving", "acme-coreapp-0")
    assert found.sentence == "acme-coreapp-0 failed (PodDeleted); acme-coreapp-2 takes over."
    assert [one.evidence for one in found.evidence] == [str(proof.evidence) for proof in EVIDENCE]
    assert [one.evidence for one in found.evidence if one.holds] == ["PodDeleted"]
    assert [(one.pod, one.eligible, one.why) for one in found.candidates] == [
        ("acme-coreapp-2", True, ""),
        ("acme-coreapp-1", False, "it holds shard 1"),
        ("acme-coreapp-3", False, "it is not ready"),
        ("acme-coreapp-4", False, "it is being deleted"),
    ]


def test_a_shard_without_a_standby_and_one_that_does_not_exist() -> None:
    lost = why(a_cluster(spares=0).without_pod("acme-coreapp-1").read(), 1).shard
    assert lost is not None
    assert (lost.state, lost.sentence) == ("Unserved", "acme-coreapp-1 failed (PodDeleted); no standby takes over.")
    none = why(a_cluster().read(), 9).shard
    assert none is not None
    assert (none.state, none.sentence) == ("", "There is no shard 9; shards go from 0 to 1.")


def test_a_foreign_pod_with_the_labels_of_a_holder_is_named() -> None:
    def copied(found: dict[str, Any]) -> None:
        pods = found["pods"]["items"]
        holder = next(pod for pod in pods if pod["metadata"]["name"] == "acme-coreapp-0")
        meta = {key: value for key, value in holder["metadata"].items() if key != "ownerReferences"}
        pods.append({**holder, "metadata": {**meta, "name": "debug", "uid": "of-another"}})

    found = why(a_cluster().but(copied).read(), 0).shard

    assert found is not None
    assert (found.state, found.sentence) == (
        "Moving",
        "Its Service selects acme-coreapp-0 and also pod debug. Remove the label multiconnect.dev/epoch of that pod.",
    )


def test_a_node_that_was_lost_for_long_counts_by_its_own_times() -> None:
    def unknown(found: dict[str, Any]) -> None:
        for item in found["nodes"]["items"]:
            if item["metadata"]["name"] == "node-2":
                item["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "lastTransitionTime": before(minutes=3)}]

    lost = a_cluster().but(unknown).silent_node("node-2", minutes=4).unready("acme-coreapp-2")
    assert why(lost.read()).rule == Reason.SCALING_UP, "one more Coreapp for the one that is out of reach"
