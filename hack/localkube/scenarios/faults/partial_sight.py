"""Faults of what the operators can read: rejected calls, missing rights, objects that others wrote."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Sequence

from localkube import LocalKubeError, Obj
from localkube.hollow.kube import MERGE
from localkube.plane.operators import NAME
from localkube.plane.operators import NAMESPACE as OPERATORS
from localkube.scenarios.cluster import NAMESPACE, SWITCHOVER
from localkube.scenarios.environment import SHARDS
from localkube.scenarios.faults.actions import STEP_S, Hollow
from localkube.scenarios.faults.control import RENEWED_S, SIGNAL_S, counted
from localkube.scenarios.faults.egress_denied import DENIED
from localkube.scenarios.hollow.environment import HollowEnvironment
from localkube.scenarios.hollow.servers import WATCH, WEBHOOK, WEBHOOKS, Rule, configuration, through
from outside.observer import Commit

RBAC = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{NAME}"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
HOLDER, EPOCH = "multiconnect.dev/holder", "multiconnect.dev/epoch"
RESHARD_NOW = "multiconnect.dev/reshard-now"
HOSTILE = {SWITCHOVER: "99," * 3400, RESHARD_NOW: "9" * 4301}
"""10 KB of requests that cannot be fulfilled, and a number that Python cannot parse."""
APART_S = 0.7  # between two holders that are deleted
GROUP_TAKEN, KIND_TAKEN = "policy", "poddisruptionbudgets"
OBSERVED, WRITTEN = "chaos.local/observed", "chaos.local/written"
OBSERVED_S = 1.0
UNWATCHED_S = 1.0
HOSTILE_S = 3.0  # how long a hostile neighbour is active before holders fail
BLIND_S = 15.0  # how long a leader that reaches no Coreapp is alone
STEP_DOWN_S = 30.0  # within this time, it leaves the Lease to one that reaches them
DENIED_S = 75.0
"""Within this time, a holder that denies its role is replaced: after seconds, or after a minute if it took over for that same reason."""
SETTLED_S = 25.0
WRITES = 10  # this many writes of one StatefulSet are enough to detect that admission changes them
WATCHES = 8  # two operators watch four kinds each, and more


async def _delete_apart(case: Hollow, clusters: Sequence[str]) -> None:
    """Delete a holder of each of these clusters, one after the other: what ten failovers at once cost is another question."""
    for number, cluster in enumerate(clusters):
        if number:
            await asyncio.sleep(APART_S * (0.5 + random.random()))  # noqa: S311 - not in step with probes
        await case.environment.delete_pod(case.strike(cluster, 0).pod)


async def _delete_others(case: Hollow) -> None:
    """Delete a holder in every cluster but the first. LocalKubeError where there is no other."""
    if len(case.clusters) < 2:
        raise LocalKubeError("this fault strikes one cluster and is measured by the others, so it needs two at least")
    await _delete_apart(case, case.clusters[1:])


async def _behind_proxy(case: Hollow, what: str, status: int, *rules: Rule) -> None:
    """Lead all operators to the proxy until the undoing, and wait until they watch again and have observed every cluster.

    So later measurements do not include the new connections that the proxy itself requires. ``what`` counts the calls that the proxy
    answers, or passes on, with a status.
    """
    environment, proxy = case.environment, case.environment.proxy
    await case.exits.enter_async_context(counted(case, what, lambda: proxy.answered[status] + proxy.passed[status]))
    await case.exits.enter_async_context(through(proxy, list(environment.wires.values()), *rules))
    await environment.seen(lambda: proxy.watches >= WATCHES, STEP_S, "that the operators watch through the proxy")
    await asyncio.gather(*(environment.annotate(cluster, {OBSERVED: str(time.time())}) for cluster in case.clusters))
    await asyncio.sleep(OBSERVED_S)


async def secret_unreadable(case: Hollow) -> None:
    """One Secret of the first cluster is answered 500, as when its key is lost; a holder of each cluster is deleted."""
    await _behind_proxy(case, "reads answered 500", 500, Rule(500, re.compile(rf"/secrets/{case.clusters[0]}-admin\b")))
    await _delete_apart(case, case.clusters)
    await case.environment.seen(lambda: case.environment.proxy.answered[500], STEP_S, "a read of the Secret")


async def half_answered(case: Hollow) -> None:
    """Half of all calls are answered 429; a holder of each cluster is deleted."""
    await _behind_proxy(case, "calls answered 429", 429)
    case.environment.proxy.rules = (Rule(429, share=0.5),)
    await _delete_apart(case, case.clusters)


async def watches_rejected(case: Hollow) -> None:
    """All watches are cut, and for a second new ones are answered 401; some seconds later a holder of each cluster is deleted."""
    proxy = case.environment.proxy
    async with counted(case, "watches answered 401", lambda: proxy.answered[401] + proxy.passed[401]):
        await case.exits.enter_async_context(through(proxy, list(case.environment.wires.values()), Rule(401, WATCH)))
        await asyncio.sleep(UNWATCHED_S)
        proxy.rules = ()
    await asyncio.sleep(RENEWED_S)
    await _delete_apart(case, case.clusters)


async def rights_taken(case: Hollow) -> None:
    """The operators' role loses one kind; a holder of each cluster is deleted."""
    environment = case.environment
    role = await environment.api.get(RBAC) or {}
    left = [rule for rule in role["rules"] if KIND_TAKEN not in rule["resources"]]
    await _behind_proxy(case, "calls answered 403", 403)
    case.exits.push_async_callback(_set_rights, environment, role["rules"], allowed=True)
    await _set_rights(environment, left, allowed=False)
    await _delete_apart(case, case.clusters)
    await environment.seen(lambda: environment.proxy.passed[403], STEP_S, "a call that lacks the right")


async def _set_rights(environment: HollowEnvironment, rules: list[Obj], *, allowed: bool) -> None:
    """Write the role's rules, and wait until the API server goes by them."""
    await environment.api.patch(RBAC, {"rules": rules}, kind=MERGE)
    what = {"group": GROUP_TAKEN, "resource": KIND_TAKEN, "verb": "list", "namespace": NAMESPACE}
    spec = {"user": f"system:serviceaccount:{OPERATORS}:{NAME}", "resourceAttributes": what}

    async def is_so() -> bool:
        review = await environment.api.post(REVIEWS, {"spec": spec})
        return review["status"]["allowed"] is allowed

    await environment.until(is_so, SIGNAL_S, f"that the API server says {allowed} to {KIND_TAKEN}")


async def admission_changes(case: Hollow) -> None:
    """A webhook adds a sidecar and a label to the first cluster's Coreapps, and it is to grow; a holder of each other one is deleted."""
    environment, first = case.environment, case.clusters[0]
    workload = f"{first}-coreapp"
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/{workload}"
    case.struck |= {pod["metadata"]["uid"] for pod in environment.coreapps(first)}
    await environment.api.post(WEBHOOKS, configuration(environment.webhook, environment.certificates, {"multiconnect.dev/cluster": first}))
    case.exits.push_async_callback(environment.api.delete, f"{WEBHOOKS}/{WEBHOOK}")
    # What it added before stays in the template: so what counts is that it was asked.
    asked = environment.webhook.asked[workload]

    async def is_asked() -> bool:
        await environment.api.patch(path, {"metadata": {"annotations": {WRITTEN: str(time.time())}}}, kind=MERGE)
        return environment.webhook.asked[workload] > asked

    await environment.until(is_asked, SIGNAL_S, "that the API server, which learns of a webhook a little later, asks it")
    await environment.set_shards(first, 2 * SHARDS)
    case.exits.push_async_callback(environment.set_shards, first, SHARDS)
    await _delete_others(case)
    begun = time.monotonic()
    if await environment.settle([first], SETTLED_S):
        case.troubles.append(f"{first} has not grown in {SETTLED_S:g} s under the webhook: {environment.status(first).get('message')}")
    took, written = time.monotonic() - begun, environment.webhook.asked[workload] - asked
    case.effects["writes seen by admission"] += written
    writes = f"{workload} was written {written} times in {took:.0f} s"
    if written > WRITES:
        case.troubles.append(f"{writes}, to no avail")
    else:
        case.notes.append(writes)


async def hostile_neighbour(case: Hollow) -> None:
    """Two clusters get an annotation each that cannot be fulfilled; a holder of each cluster, their own too, is deleted."""
    environment = case.environment
    for cluster, (name, value) in zip(case.clusters, HOSTILE.items(), strict=False):
        await environment.annotate(cluster, {name: value})
        case.exits.push_async_callback(environment.annotate, cluster, {name: None})
        case.effects["hostile annotations"] += 1
    await asyncio.sleep(HOSTILE_S)
    await _delete_apart(case, case.clusters)


async def copy_service(case: Hollow) -> None:
    """Keep a copy of the first cluster's Service of shard 0, then move that shard to the spare."""
    environment, first = case.environment, case.clusters[0]
    environment.copy = await environment.api.get(_service(first)) or {}
    old = case.holder(first, 0)
    await environment.switch_over(first, 0)
    await environment.seen(lambda: environment.holder(first, 0) not in {None, old}, DENIED_S, f"the switchover of shard 0 of {first}")


async def put_older_back(case: Hollow) -> None:
    """Replace that Service by its earlier copy; a holder of each other cluster is deleted. It must be handed over under a new epoch."""
    environment, first = case.environment, case.clusters[0]
    meta = {name: value for name, value in environment.copy["metadata"].items() if name not in {"resourceVersion", "managedFields"}}
    # The pod that it selects no longer holds the shard, and the real holder is not selected: the shard may leave either.
    case.struck |= {environment.copy["metadata"]["annotations"][HOLDER].rpartition("/")[2], case.holder(first, 0).uid}
    environment.streams[first].burst(0, RENEWED_S)
    begun = time.monotonic()
    written = await environment.api.replace(_service(first), {**environment.copy, "metadata": meta})
    version = int(written["metadata"]["resourceVersion"])
    environment.own_writes |= {f" at {version}", f" when epoch {environment.copy['spec']['selector'][EPOCH]} was committed"}
    case.effects["older Services put back"] += 1
    await _delete_others(case)

    def committed() -> Commit | None:
        """The first handover of that shard since its older Service came back."""
        return next((one for one in environment.observer.commits if (one.cluster, one.shard) == (first, 0) and one.version > version), None)

    try:
        again = await environment.seen(committed, DENIED_S, f"a new epoch of shard 0 of {first}, whose older Service came back,")
    except LocalKubeError as error:
        case.troubles.append(str(error).strip())
    else:
        case.notes.append(f"shard 0 of {first} was handed over again {again.monotonic - begun:.1f} s after its older Service came back")


def _service(cluster: str) -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/services/{cluster}-shard-0"


async def blind_leader(case: Hollow) -> None:
    """Both operators end, and the next one reaches the API server but no Coreapp. After a while one comes that does, and is to lead; then a
    holder of each cluster is deleted. At the end the one that reaches no Coreapp is replaced."""
    environment = case.environment
    for one in [*environment.harness.operators.running]:
        await environment.end(one)
        case.effects["operators ended"] += 1
    name = await environment.start_operator(module="localkube.scenarios.faults.egress_denied")
    blind = environment.harness.operators.running[name]

    async def restore_sight() -> None:
        case.effects["connections denied"] += blind.log.read_text(encoding="utf-8", errors="replace").count(DENIED)
        await environment.end(blind.name)
        await environment.start_operator()

    case.exits.push_async_callback(restore_sight)
    await environment.leader()
    await asyncio.sleep(BLIND_S)
    await environment.start_operator()
    begun = time.monotonic()

    async def leads_no_more() -> bool:
        return await environment.leader() != blind.name

    try:
        await environment.until(leads_no_more, STEP_DOWN_S, f"that {blind.name}, which reaches no Coreapp, left the Lease")
    except LocalKubeError as error:
        case.troubles.append(str(error).strip())
    else:
        case.notes.append(f"it left the Lease to one that sees after {time.monotonic() - begun:.1f} s")
    await _delete_apart(case, case.clusters)
