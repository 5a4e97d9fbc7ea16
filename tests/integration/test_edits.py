"""Each edit of each field of each object on a real API server: one write that it accepts puts it right, and leaves nothing to write."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from localkube.errors import LocalKubeError
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY, await_crd
from unit.core.edits import EVERYTHING, Edit, edits_of, is_left, put_right, swaps_of, written_by
from unit.core.situations import situation
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Key, Obj

pytestmark = pytest.mark.integration

NAMESPACE = "edits"
SPEC = replace(situation().desired, key=Key(NAMESPACE, "acme"), **EVERYTHING)
NAMES = [f"{obj['kind']} {obj['metadata']['name']}" for obj in written_by(SPEC)]
PLURALS = {
    "Service": "api/v1:services",
    "PersistentVolumeClaim": "api/v1:persistentvolumeclaims",
    "StatefulSet": "apis/apps/v1:statefulsets",
    "Deployment": "apis/apps/v1:deployments",
    "PodDisruptionBudget": "apis/policy/v1:poddisruptionbudgets",
    "NetworkPolicy": "apis/networking.k8s.io/v1:networkpolicies",
}
DRAWN_AGAIN = ("clusterIP", "clusterIPs")
"""Fields of a Service that the API server draws again when its type was another one."""
FIXED = {
    "StatefulSet acme-coreapp": {"spec serviceName", "spec podManagementPolicy", "spec selector"},
    "StatefulSet acme-simulator": {"spec serviceName", "spec selector"},
    "Deployment acme-webapp": {"spec selector"},
    "PersistentVolumeClaim acme-simulator": {"spec accessModes", "spec resources"},
}
"""By object: the fields that the API server lets nobody change."""
SAME_BY_DEFAULT = {"StatefulSet acme-simulator": {"spec.updateStrategy removed", "spec.updateStrategy.type removed"}}
"""Edits after which the API server itself puts in what is desired, next to other defaults than before."""
SOON = 60.0


class Api:
    """The objects of a cluster without an operator."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds" / "whatsappclusters.yaml"))
        await_crd(plane)
        plane.kubectl("create", "namespace", NAMESPACE)
        spec = {"shards": 2, "client": {"type": "Simulator"}}
        cluster = {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": "acme"}, "spec": spec}
        made = json.loads(plane.kubectl("-n", NAMESPACE, "create", "-f", "-", "-o", "json", input=json.dumps(cluster)))
        self.desired: Desired = replace(SPEC, uid=made["metadata"]["uid"])
        self.written = dict(zip(NAMES, written_by(self.desired), strict=True))

    def close(self) -> None:
        self._plane.kubectl("delete", "crd", "whatsappclusters.multiconnect.dev")
        self._plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")

    def create(self, obj: Obj) -> Obj:
        return self._call("POST", obj, "")

    def read(self, obj: Obj) -> Obj:
        return self._call("GET", obj, obj["metadata"]["name"])

    def write(self, obj: Obj, change: Callable[[Obj], Obj | None]) -> Obj:
        """Change an object as it is stored, again as long as another writer came before; LocalKubeError if the API server rejects it."""
        deadline = time.monotonic() + SOON
        while True:
            live = self.read(obj)
            changed = change(live)
            if changed is None:
                return live
            try:
                return self._call("PUT", changed, obj["metadata"]["name"])
            except LocalKubeError as error:
                if ": 409 " not in str(error) or time.monotonic() > deadline:
                    raise

    def _call(self, method: str, obj: Obj, name: str) -> Obj:
        root, _, plural = PLURALS[obj["kind"]].partition(":")
        path = f"/{root}/namespaces/{NAMESPACE}/{plural}/{name}".rstrip("/")
        answer: Obj = self._plane.call(method, path, None if method == "GET" else obj)
        # Of an object in an answer the API server names no kind if it was read alone by some clients.
        return {**answer, "apiVersion": obj["apiVersion"], "kind": obj["kind"]}


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    api = Api(control_plane)
    yield api
    api.close()


def content(obj: Obj, without: Iterable[str] = ()) -> dict[str, Any]:
    """What is the operator's to decide, and what others had added before."""
    meta = obj["metadata"]
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if not key.startswith("deployment.kubernetes.io/")}
    spec = {key: value for key, value in obj["spec"].items() if key not in without}
    return {"labels": meta["labels"], "annotations": notes, "owners": meta["ownerReferences"], "spec": spec}


def is_for_the_collector(edit: Edit) -> bool:
    """Whether the garbage collector may delete the object for this edit: its owner seems to be gone."""
    return edit.path[:2] == ("metadata", "ownerReferences") and edit.path[-1] not in {"controller", "blockOwnerDeletion"}


def to_try(name: str, api: Api) -> list[Edit]:
    """The edits of an object, of like entries of a list only one's. Those of a pod template that another object has had are left out."""
    edits = [*edits_of(api.written[name]), *swaps_of(api.written[name])]
    others = (edit for other in NAMES[: NAMES.index(name)] for edit in edits_of(api.written[other]))
    known = {like(edit) for edit in others if "template" in edit.path}
    alike = {like(edit): edit for edit in edits if not (is_for_the_collector(edit) or is_left(api.written[name], edit))}
    return [edit for what, edit in alike.items() if what not in known]


def like(edit: Edit) -> str:
    return re.sub(r"\.\d+\b", ".n", str(edit))


@pytest.mark.parametrize("name", NAMES)
def test_every_edit_that_the_api_server_takes_is_put_right(name: str, api: Api) -> None:
    written = api.written[name]
    before = api.create({**written, "spec": {"replicas": 0, **written["spec"]}} if name == "StatefulSet acme-coreapp" else written)
    assert put_right(api.desired, before) is None, "what the API server makes of it is as desired"

    edits = to_try(name, api)
    taken, wrong = set[str](), set[str]()
    for edit in edits:
        try:
            api.write(written, edit.of)
        except LocalKubeError:
            continue
        taken.add(" ".join(map(str, edit.path[:2])))
        after = api.write(written, lambda live: put_right(api.desired, live))
        without = DRAWN_AGAIN if "elsewhere" in edit.what else ()
        if content(after, without) != content(before, without) or put_right(api.desired, after) is not None:
            wrong.add(str(edit))
    assert wrong == SAME_BY_DEFAULT.get(name, set())
    fields = {" ".join(map(str, edit.path[:2])) for edit in edits}
    assert fields - taken == FIXED.get(name, set())
