"""For each row of the table an observation in which it wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from whatsapp_operator.core import manifests
from whatsapp_operator.core.desired import Switchover, WebappService
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import AccountSecret, Answer, Login, Overruled
from whatsapp_operator.core.upkeep import attempted
from whatsapp_operator.core.windows import Window

from .situations import FINGERPRINT, NOW, Situation, situation

NIGHT = Window(name="night", schedule=f"0 {(NOW.hour + 12) % 24} * * *", duration=timedelta(hours=1))
"""Shut at NOW."""


def growing() -> Situation:
    """Two shards, four wanted, all pods there and ready: Set Shards may be sent."""
    return situation().settled(shards=2).wanting(shards=4).with_pods([3, 4])


def restarting() -> Situation:
    """Set Shards 2 -> 4 was accepted and GET says so; every shard has a holder, but nobody is back yet."""
    return situation().settled(shards=4).noted(4, Answer.ACCEPTED, origin=2).restarted(2)


def back() -> Situation:
    """Set Shards 2 -> 4 was accepted, GET says so, and all five Coreapps are back as standbys."""
    return growing().noted(4, Answer.ACCEPTED).reporting(4).restarted(4)


def out_of_reach(span: float) -> Situation:
    """Shard 0 was handed over from pod 0, whose node has been lost for so many seconds; another pod stands in."""
    one = situation().settled().with_nodes().held_by(0, 2).with_node(0, ready=None, renewed_at=NOW - timedelta(seconds=span))
    one = one.with_pod(0, unresponsive_since=NOW - timedelta(seconds=span), deleting=span > 300)
    return one.seeing(since={"NodesUnreachable/uid-0": NOW - timedelta(seconds=span)}).with_pods([3])


def rolling_out(span: float = 10) -> Situation:
    """A new pod template for so many seconds; the Coreapp that was added for it is ready, the others are of the template before."""
    one = situation().settled().all_pods(revision="rev-0").with_pods([3])
    since = NOW - timedelta(seconds=span)
    holders, spares = {"uid-0": "holder", "uid-1": "holder"}, {"uid-2": "spare"}
    return one.seeing(since={f"Outdated/{uid}/{part}": since for uid, part in {**holders, **spares}.items()})


def secret_missing(span: float) -> Situation:
    """The Secret of the account has not been there for so many seconds."""
    one = growing().with_account(secret=AccountSecret(missing="Secret acme-account"))
    return one.seeing(since={"SecretMissing": NOW - timedelta(seconds=span)})


def fenced_off() -> Situation:
    """The servers reject the epoch of shard 0, which was given to another holder for that very reason."""
    one = situation().settled().with_route(0, evidence="HolderDisagrees", touched="10-first")
    report = one.holder_of(0).report
    assert report is not None
    return one.with_holder(0, report=replace(report, fenced=True, gateway="disconnected"))


def refused_change() -> Situation:
    """The API server does not take what another type makes of the Webapps' Service."""
    wanted = situation().settled().wanting(webapp_service=WebappService(type="LoadBalancer"))
    return wanted.seeing(objects=situation().settled().snapshot.objects).rejecting("Service", "acme-webapp", "Service is invalid")


def changed_by_admission() -> Situation:
    """Admission added a container to what this process wrote, and drops a field of it."""
    one = situation().settled()
    ref = manifests.coreapp_statefulset("acme")
    desired = one.snapshot.objects[ref]
    template: dict[str, Any] = desired["spec"]["template"]
    spec = {key: value for key, value in template["spec"].items() if key != "topologySpreadConstraints"}
    spec["containers"] = [*spec["containers"], {"name": "proxy", "image": "mesh.example/proxy:1"}]
    stored = {**desired, "spec": {**desired["spec"], "template": {**template, "spec": spec}}}
    written = attempted({}, before=None, desired=manifests.coreapps(one.desired, replicas=None), stored=stored, now=NOW)
    return one.seeing(objects={**one.snapshot.objects, ref: stored}, written={ref: written})


def rejected_webapp() -> Situation:
    """For some seconds now, no Webapp of a new template can be created; those of the template before serve on."""
    said = 'pods "acme-webapp-x" is forbidden: no PriorityClass with name nope was found'
    return situation().settled().seeing(rejected_pods=said, since={"PodsRejected": NOW - timedelta(seconds=3)})


def held_pod() -> Situation:
    """A Coreapp beyond those wanted has ended, and a finalizer has kept its pod for some seconds; all else is as it should be."""
    one = situation().settled().with_pod(3, deleting=True, ready=False, held_by=("example.com/backup",))
    return one.seeing(since={"DeletionBlocked/uid-3": NOW - timedelta(seconds=3)})


WITNESSES: Mapping[str, Situation] = {
    "Deleting": situation().settled().wanting(deleting=True),
    "FailingOver": situation().settled().holder_deleted(0),
    "SwitchoverRequested": situation().settled().wanting(switchovers=(Switchover(shard=0),), switchover_text="0"),
    "NameConflict": situation().settled().seeing(name_conflicts=(Ref("Service", "acme-webapp"),)),
    "Draining": situation().settled().with_nodes().with_node(0, leaving="cordoned"),
    "LoginRejected": situation().settled().client(shards=None, asked_at=None, login=Login.REJECTED),
    "ObjectsRejected": situation().rejecting("Deployment", "acme-webapp", "exceeded quota: compute"),
    "Bootstrapping": situation(),
    "ScalingUp": situation().settled().wanting(shards=4),
    "LoggingIn": situation().settled().client(shards=None, asked_at=None, unresponsive_since=NOW),
    "AnswerUnknown": growing().noted(4, Answer.UNKNOWN),
    "ServerBusy": growing().noted(4, Answer.BUSY),
    "Verifying": growing().noted(4, Answer.ACCEPTED),
    "AssigningShards": back(),
    "ConsolidatingShards": situation().settled().with_pods([3]).held_by(0, 3),
    "Restarting": restarting(),
    "Paused": situation().settled().wanting(shards=4, paused=True),
    "ScalingDown": situation().settled().with_pods([3, 4]).retiring(3, 4),
    "RollingOut": rolling_out(),
    "ShardsDrifted": situation().settled().reporting(1),
    "Banned": growing().seeing(banned_at=NOW),
    "NumberInUse": growing().with_account().seeing(number_kept_by="default/first"),
    "RegistrationClosed": growing().with_account().seeing(registration_closed_for="70"),
    "ClientExpired": growing().with_account().seeing(expired_build="v2.53.4 whatsapp-operator/wabiz-sim:dev"),
    "AwaitingSecret": secret_missing(4),
    "SecretMissing": secret_missing(5),
    "SecretMalformed": growing().seeing(malformed="Key WA_DB_PASSWORD of Secret db ends with a line break. Make it again."),
    "PinMalformed": growing().with_account(pin_is_valid=False),
    "RegistrationTooOld": growing().with_account(secret=AccountSecret(), registered_at=NOW - timedelta(days=8)),
    "CertificateMissing": growing().with_account(secret=AccountSecret()),
    "CertificateMalformed": growing().with_account(certificate=None),
    "CertificateExpiryUnknown": growing().with_account(expires_at=None),
    "CertificateExpired": growing().with_account(expires_at=NOW - timedelta(seconds=1)),
    "PinRejected": growing().with_account().seeing(rejected_pin="pin-1"),
    "WindowInvalid": growing().wanting(windows=(Window(name="night", schedule="61 3 * * *", duration=timedelta(hours=1)),)),
    "WindowClosed": growing().wanting(windows=(NIGHT,)),
    "CertificateRejected": growing().with_account().seeing(rejected_fingerprint=FINGERPRINT),
    "AwaitingCoreapps": situation().settled().wanting(shards=4).with_pods([3, 4], ready=False, phase="Pending"),
    "CrdOutdated": growing().seeing(not_kept=("fingerprint",)),
    "SettingShards": growing(),
    "RestartOverdue": situation().settled(shards=4).noted(4, Answer.ACCEPTED).with_pod(4, report=None).later(300),
    "NodesUnreachable": out_of_reach(60),
    "ReplacingPods": situation().settled().with_pod(2, ready=False),
    "EpochRejected": fenced_off(),
    "ChangeRejected": refused_change(),
    "FieldInvalid": situation().settled().wanting(invalid="Annotation multiconnect.dev/reshard-now says 'four'. Write one such as 4."),
    "ReadFailed": situation().settled().seeing(unread={"NetworkPolicy": "list NetworkPolicy: HTTP 403"}),
    "ImageUnavailable": situation().settled().seeing(image_problem="acme-webapp-x: ImagePullBackOff"),
    "PodsRejected": rejected_webapp(),
    "DeletionBlocked": held_pod(),
    "ReplicasOverruled": situation().settled().seeing(overruled=Overruled(by="kube-controller-manager", replicas=5, times=2, at=NOW)),
    "ChangedByAdmission": changed_by_admission(),
    "UpToDate": situation().settled(),
}
