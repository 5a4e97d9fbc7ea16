"""A cluster as it is when the operator has nothing to do, as objects of the API server. Pure but for drawn certificates; nothing runs it.

They come from the operator's own manifests, so a cluster of the scale bench differs from a real one only in its pods, which are not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime

from localkube import Obj
from localkube.hollow.status import Container, pod_status, stamp, transitions
from whatsapp_operator.core import checksums, manifests
from whatsapp_operator.core.actions import GenerateSecret
from whatsapp_operator.core.desired import Desired, Tuning
from whatsapp_operator.core.names import Ref
from whatsapp_operator.settings import Settings
from whatsapp_operator.shell.objects.generated import filled_secret
from whatsapp_operator.shell.objects.reading import desired_of
from whatsapp_operator.shell.objects.secret_keys import findings_of

NAMESPACE = "scale"
SHARDS, SPARES = 2, 3
COREAPPS = SHARDS + SPARES
WEBAPPS = 2
NODES = 10
SCHEDULER = "scale-bench"
"""There is no scheduler of that name: the bench itself binds its pods."""
IMAGE = str(next(one.default for one in fields(Settings) if one.name == "image"))
COLLECTIONS: Mapping[str, str] = {
    "WhatsAppCluster": f"/apis/multiconnect.dev/v1alpha1/namespaces/{NAMESPACE}/whatsappclusters",
    "StatefulSet": f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets",
    "Deployment": f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments",
    "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets",
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
    "Service": f"/api/v1/namespaces/{NAMESPACE}/services",
    "Secret": f"/api/v1/namespaces/{NAMESPACE}/secrets",
    "Pod": f"/api/v1/namespaces/{NAMESPACE}/pods",
}


def cluster(name: str) -> Obj:
    """The WhatsAppCluster as its user writes it."""
    meta = {"name": name, "namespace": NAMESPACE}
    spec = {"shards": SHARDS, "spares": SPARES, "client": {"type": "Simulator"}}
    return {"apiVersion": manifests.API_VERSION, "kind": "WhatsAppCluster", "metadata": meta, "spec": spec}


def desired(stored: Obj) -> Desired:
    """What the operator reads from a WhatsAppCluster as the API server stored it."""
    return desired_of(stored, image=IMAGE, tuning=Tuning())


def parts(want: Desired) -> Iterator[Obj]:
    """Everything that the operator would create, except shard Services. Its pods wait for a scheduler that does not exist."""
    hosts = (manifests.server_name(want),)
    for secret, recipe in zip(manifests.secrets(want), ("password", "tls"), strict=True):
        yield filled_secret(GenerateSecret(obj=secret, recipe=recipe, host_names=hosts), datetime.now(UTC))
    for obj in manifests.upkeep(want, webapp_replicas=manifests.FIRST_WEBAPPS, resharding=False, is_first_boot=False, is_unused=False):
        if obj["kind"] == "StatefulSet":
            obj["spec"]["replicas"] = 1 if obj["metadata"]["name"] == manifests.simulator_name(want.key.name) else COREAPPS
        if "template" in obj["spec"]:
            obj["spec"]["template"]["spec"]["schedulerName"] = SCHEDULER
        yield obj


def stamped(want: Desired, obj: Obj, secrets: Mapping[str, Obj]) -> Obj:
    """A workload with the checksum of the Secrets that its pods take, as stored; without it the operator would put it there again."""
    checksum = findings_of(want, secrets).checksums.get(Ref(obj["kind"], obj["metadata"]["name"]))
    return obj if checksum is None else checksums.stamped(obj, None, checksum, replaces=False)


def epoch(shard: int) -> str:
    """The epoch of a shard's holder."""
    return f"1-scale{shard}"


def holder_labels(shard: int) -> dict[str, str]:
    """What a handover puts on the new holder."""
    return {manifests.ROLE_LABEL: "active", manifests.SHARD_LABEL: str(shard), manifests.EPOCH_LABEL: epoch(shard)}


def shard_service(want: Desired, shard: int, holder: Obj, *, now: datetime) -> Obj:
    """A shard's Service after a committed handover to a pod."""
    service = manifests.shard_service(want, shard)
    service["spec"]["selector"][manifests.EPOCH_LABEL] = epoch(shard)
    service["metadata"]["annotations"] = {
        manifests.HOLDER_ANNOTATION: f"{holder['metadata']['name']}/{holder['metadata']['uid']}",
        manifests.COMMITTED_ANNOTATION: manifests.exact_timestamp(now),
    }
    return service


def running(pod: Obj, *, ip: str, now: datetime) -> Obj:
    """What the kubelet reports of a pod whose container is ready, as a patch of its status."""
    container = Container().running(now, ready=True)
    since = transitions({}, container, now, failed=False) | {"PodScheduled": ("True", stamp(now))}
    name = pod["spec"]["containers"][0]["name"]
    return pod_status(pod, container, main_name=name, ip=ip, host_ip=ip, started=stamp(now), since=since, failed="")


def report(pod: Obj, ordinal: int) -> Obj:
    """What a Coreapp answers to a probe."""
    holds = ordinal < SHARDS
    return {
        "uid": pod["metadata"]["uid"],
        "pod": pod["metadata"]["name"],
        "shard": ordinal if holds else None,
        "epoch": epoch(ordinal) if holds else None,
        "shards": SHARDS,
        "gateway_status": "connected" if holds else "disconnected",
        "version": "v2.53.4",
    }
