"""The order in which rows are asked is the operator's mind; nobody changes it by accident."""

from __future__ import annotations

import pytest

from whatsapp_operator.core import objections, rules
from whatsapp_operator.core.desired import Switchover
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import AccountSecret, Answer

from .situations import FINGERPRINT, Situation, situation
from .witnesses import WITNESSES, growing

ORDER = [
    "FailingOver",
    "SwitchoverRequested",
    "Draining",
    "Deleting",
    "ScalingUp",
    "LoginRejected",
    "ObjectsRejected",
    "Bootstrapping",
    "NameConflict",
    "AssigningShards",
    "ConsolidatingShards",
    "LoggingIn",
    "AnswerUnknown",
    "Verifying",
    "Restarting",
    "Paused",
    "ScalingDown",
    "RollingOut",
    "ServerBusy",
    "ShardsDrifted",
    "Banned",
    "NumberInUse",
    "RegistrationClosed",
    "ClientExpired",
    "AwaitingSecret",
    "SecretMissing",
    "SecretMalformed",
    "PinMalformed",
    "PinRejected",
    "RegistrationTooOld",
    "CertificateMissing",
    "CertificateMalformed",
    "CertificateExpiryUnknown",
    "CertificateExpired",
    "CertificateRejected",
    "AwaitingCoreapps",
    "WindowInvalid",
    "WindowClosed",
    "CrdOutdated",
    "SettingShards",
    "RestartOverdue",
    "NodesUnreachable",
    "ReplacingPods",
    "EpochRejected",
    "ChangeRejected",
    "FieldInvalid",
    "ReadFailed",
    "ImageUnavailable",
    "PodsRejected",
    "DeletionBlocked",
    "ReplicasOverruled",
    "ChangedByAdmission",
    "UpToDate",
]


def test_rows_stand_in_this_order() -> None:
    assert [row.name for row in rules.RULES] == ORDER


def test_failover_stands_above_all_order() -> None:
    assert ORDER.index("FailingOver") == 0


def test_objections_stand_in_the_order_of_their_rows() -> None:
    names = [one.name for one in objections.OBJECTIONS]

    assert names == [name for name in ORDER if name in names]


def test_a_row_has_one_name() -> None:
    assert len(set(ORDER)) == len(ORDER)


def test_the_last_row_always_holds() -> None:
    assert rules.RULES[-1].name == "UpToDate"


@pytest.mark.parametrize("name", ORDER)
def test_every_row_wins_in_some_observation(name: str) -> None:
    assert WITNESSES[name].row() == name


def test_every_row_has_a_witness_and_every_witness_a_row() -> None:
    assert sorted(WITNESSES) == sorted(ORDER)


@pytest.mark.parametrize("name", ORDER[:-1])
def test_a_row_that_is_removed_changes_a_plan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = WITNESSES[name].plan()
    monkeypatch.setattr(rules, "RULES", tuple(row for row in rules.RULES if row.name != name))

    assert WITNESSES[name].plan() != before


def matching(one: Situation) -> list[str]:
    """The rows that hold in an observation, from the top."""
    return [row.name for row in rules.RULES if row.when(one.facts())]


CONTESTS: list[tuple[str, str, Situation]] = [
    ("FailingOver", "Deleting", situation().settled().holder_deleted(0).wanting(deleting=True)),
    ("Deleting", "ScalingUp", situation().settled().wanting(deleting=True, shards=4)),
    ("FailingOver", "SwitchoverRequested", situation().settled(spares=2).holder_deleted(0).wanting(switchovers=(Switchover(shard=1),))),
    ("FailingOver", "NameConflict", situation().settled().holder_deleted(0).seeing(name_conflicts=(Ref("Service", "acme-webapp"),))),
    ("FailingOver", "Bootstrapping", situation().settled().holder_deleted(0).without_object("Service", "acme-webapp")),
    ("FailingOver", "ScalingUp", situation().settled().holder_deleted(0).wanting(shards=4)),
    ("FailingOver", "AnswerUnknown", growing().noted(4, Answer.UNKNOWN).later(200).holder_deleted(0)),
    ("FailingOver", "CertificateRejected", growing().with_account().seeing(rejected_fingerprint=FINGERPRINT).holder_deleted(0)),
    ("FailingOver", "SettingShards", growing().holder_deleted(0)),
    ("SwitchoverRequested", "ScalingUp", WITNESSES["SwitchoverRequested"].wanting(shards=4)),
    ("Bootstrapping", "NameConflict", situation().seeing(name_conflicts=(Ref("Service", "acme-webapp"),))),
    ("LoginRejected", "LoggingIn", WITNESSES["LoginRejected"]),
    ("ObjectsRejected", "Bootstrapping", WITNESSES["ObjectsRejected"]),
    ("ScalingUp", "Bootstrapping", situation().settled().without_object("Service", "acme-webapp").replicas(1)),
    ("ScalingUp", "LoginRejected", WITNESSES["LoginRejected"].replicas(1)),
    (
        "ScalingUp",
        "ObjectsRejected",
        situation().settled().without_object("Service", "acme-webapp").replicas(1).rejecting("Service", "acme-webapp"),
    ),
    ("ScalingUp", "LoggingIn", WITNESSES["LoggingIn"].replicas(2)),
    ("ScalingUp", "AssigningShards", situation().settled().without_route(0).replicas(2)),
    ("ScalingUp", "SettingShards", WITNESSES["ScalingUp"]),
    ("LoggingIn", "AnswerUnknown", WITNESSES["LoggingIn"].noted(2, Answer.UNKNOWN)),
    ("AssigningShards", "Restarting", growing().noted(4, Answer.ACCEPTED).reporting(4).restarted(4, [0, 1, 2, 3])),
    ("AssigningShards", "ConsolidatingShards", situation().settled(spares=2).with_pods([4]).held_by(0, 4).without_route(1)),
    ("ConsolidatingShards", "ScalingDown", WITNESSES["ConsolidatingShards"]),
    (
        "ConsolidatingShards",
        "Restarting",
        situation().settled().with_pods([3]).held_by(0, 3).noted(2, Answer.ACCEPTED, origin=4).with_pod(1, report=None),
    ),
    ("Paused", "SettingShards", growing().wanting(paused=True)),
    ("Paused", "ScalingDown", situation().settled().with_pods([3]).wanting(paused=True)),
    ("Paused", "ShardsDrifted", WITNESSES["ShardsDrifted"].wanting(paused=True)),
    ("ShardsDrifted", "SettingShards", WITNESSES["ShardsDrifted"]),
    ("CertificateExpired", "SettingShards", WITNESSES["CertificateExpired"]),
    ("CertificateMissing", "AwaitingCoreapps", WITNESSES["AwaitingCoreapps"].with_account(secret=AccountSecret())),
    ("AwaitingCoreapps", "SettingShards", WITNESSES["AwaitingCoreapps"]),
    ("SettingShards", "ReplacingPods", growing().with_pod(5, ready=False).replicas(6)),
    ("RestartOverdue", "ReplacingPods", WITNESSES["RestartOverdue"].with_pod(4, ready=False)),
    ("ReplacingPods", "ChangedByAdmission", WITNESSES["ChangedByAdmission"].with_pod(2, ready=False)),
    ("ChangedByAdmission", "UpToDate", WITNESSES["ChangedByAdmission"]),
]


@pytest.mark.parametrize(("higher", "lower", "one"), CONTESTS, ids=[f"{higher}-{lower}" for higher, lower, _ in CONTESTS])
def test_of_two_rows_that_hold_the_higher_wins(higher: str, lower: str, one: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one.row() == higher
    assert lower in matching(one)

    rows = [row for row in rules.RULES if row.name != higher]
    place = [str(row.name) for row in rows].index(lower) + 1
    moved = next(row for row in rules.RULES if row.name == higher)
    monkeypatch.setattr(rules, "RULES", (*rows[:place], moved, *rows[place:]))

    assert one.row() != higher
