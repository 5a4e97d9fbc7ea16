"""One test per rule of what must exist, named after its reason, with the neighbours in which it must not win."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

import pytest

from whatsapp_operator.core.actions import Create, GenerateSecret, GetShards, Scale, SetShards, State
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Login

from .plans import of, only
from .situations import NOW, seconds, situation
from .witnesses import WITNESSES, growing

# --- what must exist


def test_NameConflict_leaves_the_object_alone_and_says_which() -> None:
    plan = WITNESSES["NameConflict"].plan()

    assert (plan.stuck, plan.actions) == (plan.decision, ())
    assert plan.decision.why == (
        "Service acme-webapp is not owned by this cluster and is left alone. Delete or rename it, or give the cluster another name. "
        "If it only lost its owner reference, put that back instead."
    )


def test_NameConflict_speaks_of_a_shard_Service_too() -> None:
    assert situation().settled().with_route(1, foreign=True).row() == "NameConflict"


FORMER = [Ref("Secret", "acme-admin"), Ref("PersistentVolumeClaim", "acme-simulator")]


@pytest.mark.parametrize("ref", FORMER)
def test_NameConflict_holds_first_pods_that_would_start_with_anothers_password_or_store(ref: Ref) -> None:
    one = situation().seeing(name_conflicts=(ref,))
    made = {action.obj["kind"] for action in of(one.plan(), Create)}

    assert "Service" in made
    assert not made & {"StatefulSet", "Deployment"}
    rest = {Ref(obj["kind"], obj["metadata"]["name"]): obj for obj in one.facts().absent}
    assert one.seeing(objects=rest).row() == "NameConflict"


@pytest.mark.parametrize("ref", FORMER)
def test_NameConflict_does_not_keep_the_pods_of_a_cluster_that_was_at_work_from_coming_back(ref: Ref) -> None:
    one = situation().settled().without_object("StatefulSet", "acme-coreapp").without_object(ref.kind, ref.name)

    assert only(one.seeing(statefulset=None, name_conflicts=(ref,)).plan(), Create).obj["kind"] == "StatefulSet"


def test_LoginRejected_names_the_Secret() -> None:
    plan = WITNESSES["LoginRejected"].plan()

    assert plan.decision.state is State.STUCK
    assert "acme-admin" in plan.decision.why


def test_LoginRejected_is_said_also_when_the_shards_were_known_before() -> None:
    """laws#12: the password is changed, the token runs out, the user asks for four shards; the reason must be named."""
    one = growing().client(login=Login.REJECTED, asked_at=NOW - seconds(600))

    assert one.plan().stuck is not None


def test_ObjectsRejected_says_what_the_API_server_said_and_goes_on_trying() -> None:
    plan = WITNESSES["ObjectsRejected"].plan()

    assert "exceeded quota: compute" in plan.decision.why
    assert of(plan, Create)


def test_ObjectsRejected_ends_when_everything_is_there() -> None:
    assert situation().settled().rejecting("Service", "acme-webapp").row() == "UpToDate"
    assert situation().settled().rejecting("Service", "acme-webapp").without_object("Secret", "acme-admin").row() == "Bootstrapping"


def test_Bootstrapping_makes_every_object_and_draws_the_Secrets() -> None:
    one = situation()
    plan = one.plan()

    made = [(action.obj["kind"], action.obj["metadata"]["name"]) for action in plan.actions if isinstance(action, (Create, GenerateSecret))]
    assert made == [(obj["kind"], obj["metadata"]["name"]) for obj in one.facts().absent]
    assert [(action.obj["metadata"]["name"], action.recipe) for action in of(plan, GenerateSecret)] == [
        ("acme-admin", "admin"),
        ("acme-webapp-tls", "tls"),
    ]
    assert of(plan, GenerateSecret)[1].host_names == ("acme-webapp.default.svc", "acme-webapp")


def test_Bootstrapping_makes_shards_plus_spares_Coreapps_and_one_Webapp() -> None:
    replicas = {obj.obj["metadata"]["name"]: obj.obj["spec"].get("replicas") for obj in of(situation().plan(), Create)}

    assert replicas["acme-coreapp"] == 3
    assert replicas["acme-webapp"] == 1


def test_Bootstrapping_waits_until_the_client_reports_its_shards() -> None:
    one = situation().settled().seeing(settled_shards=None).client(shards=None, asked_at=None)

    assert one.row() == "Bootstrapping"
    assert of(one.plan(), GetShards)


def test_Bootstrapping_ends_with_the_first_number_of_shards() -> None:
    assert situation().settled().seeing(settled_shards=None).reporting(1).row() == "SettingShards"


def test_Bootstrapping_makes_a_deleted_StatefulSet_again_for_every_shard_that_exists() -> None:
    one = situation().settled(shards=4, spares=2).wanting(shards=2).without_object("StatefulSet", "acme-coreapp").seeing(statefulset=None)

    assert only(one.plan(), Create).obj["spec"]["replicas"] == 6


def test_ScalingUp_comes_before_Set_Shards() -> None:
    plan = WITNESSES["ScalingUp"].plan()

    scale = only(plan, Scale)
    assert (scale.replicas, scale.uid, scale.resource_version) == (5, "sts", "9")
    assert of(plan, SetShards) == []


def test_ScalingUp_follows_the_client_when_it_has_more_shards_than_there_are_pods() -> None:
    assert only(situation().settled().reporting(8).plan(), Scale).replicas == 9


def test_ScalingUp_while_paused_goes_only_as_far_as_shards_exist() -> None:
    assert only(situation().settled().reporting(8).wanting(paused=True).plan(), Scale).replicas == 8
    assert of(situation().settled().wanting(shards=4, paused=True).plan(), Scale) == []


def test_ScalingUp_is_over_when_the_pods_are_asked_for() -> None:
    assert growing().row() != "ScalingUp"
