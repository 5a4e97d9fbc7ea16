"""A hollow pod is stopped, killed and deleted as under a kubelet; on a lost node nothing of it is reported."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localkube.hollow.status import stamp
from waiting import until

from .hollow_bench import a_bench, a_pod

Obj = dict[str, Any]
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def leaving(obj: Obj, grace: int, version: str = "2") -> Obj:
    more = {"deletionTimestamp": stamp(NOW), "deletionGracePeriodSeconds": grace, "resourceVersion": version}
    return obj | {"metadata": obj["metadata"] | more}


async def test_a_deleted_pod_is_stopped_and_then_deleted_for_good(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        pod.update(leaving(obj, 30))
        await until(lambda: pod.finished)

        assert bench.made[0].calls == ["start", "stop 30"]
        assert bench.kube.deleted == ["u1"]
        assert not (tmp_path / "pods" / "u1").exists()


async def test_a_shorter_grace_hastens_the_end(tmp_path: Path) -> None:
    async with a_bench(tmp_path, lingers=True) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        pod.update(leaving(obj, 3600))
        await until(lambda: bench.made[0].calls[-1] == "stop 3600")
        pod.update(leaving(obj, 0, "3"))
        await until(lambda: pod.finished)

        assert bench.made[0].calls[-1] == "kill"
        assert len(bench.made) == 1


async def test_a_hung_pod_is_killed_when_its_grace_ends(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        await pod.hang()
        pod.update(leaving(obj, 1))
        await until(lambda: pod.finished)

        assert bench.made[0].calls == ["start", "hang", "kill"]


async def test_a_force_deleted_pod_is_killed_at_once(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready)
        await pod.vanish()

        assert bench.made[0].calls == ["start", "kill"]
        assert bench.kube.deleted == []
        assert pod.finished


async def test_a_kill_that_began_is_seen_through_when_the_object_vanishes_meanwhile(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: pod.container.ready)
        bench.kube.away = True
        pod.update(leaving(obj, 0))
        await until(lambda: "kill" in bench.made[0].calls)
        await pod.vanish()

        assert bench.made[0].gone
        assert pod.finished


async def test_a_pod_that_is_leaving_when_first_seen_gets_no_life(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(leaving(a_pod(), 30))
        await until(lambda: pod.finished)

        assert bench.made == []
        assert bench.kube.deleted == ["u1"]


async def test_nothing_leaves_a_lost_node(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready and bench.kube.reports)
        bench.node.reachable.clear()
        await pod.hang("lost")
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and pod.container.ready)

        assert len(bench.kube.reports) == 1
        assert bench.made[1].calls == ["start", "hang"]
        await pod.shut_down()


async def test_what_the_node_controller_overwrote_is_reported_again(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        obj = a_pod()
        pod = bench.pod(obj)
        await until(lambda: len(bench.kube.reports) == 1)
        conditions = [one | ({"status": "False"} if one["type"] == "Ready" else {}) for one in bench.last()["conditions"]]
        stale = obj | {"metadata": obj["metadata"] | {"resourceVersion": "50"}, "status": {"conditions": conditions}}
        pod.update(stale)
        pod.update(stale | {"metadata": obj["metadata"] | {"resourceVersion": "500"}})
        await until(lambda: len(bench.kube.reports) == 2)
        await pod.shut_down()
