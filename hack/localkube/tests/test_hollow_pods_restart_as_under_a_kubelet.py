"""A hollow pod starts, crashes, restarts and is probed as under a kubelet."""

from __future__ import annotations

from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from localkube.hollow.pods import RESTART_S, NotRunningError
from localkube.hollow.process import running
from waiting import until

from .hollow_bench import FakeComponent, a_bench, a_pod

Obj = dict[str, Any]


async def test_a_pod_runs_in_its_own_folder_on_its_own_address(tmp_path: Path) -> None:
    container = {"env": [{"name": "WABIZ_STATE_DIR", "value": "/state/x"}], "volumeMounts": [{"name": "s", "mountPath": "/state"}]}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod(container, volumes=[{"name": "s", "emptyDir": {}}]))
        await until(lambda: "running" in bench.main_state())

        assert bench.made[0].env == {"WABIZ_STATE_DIR": str(tmp_path / "pods" / "u1" / "s" / "x"), "WABIZ_LISTEN": pod.ip}
        assert len(bench.kube.reports) == 1
        await pod.shut_down()
        assert (tmp_path / "pods" / "u1" / "s").is_dir()


async def test_a_crash_is_reported_before_the_restart_and_the_folder_survives(tmp_path: Path) -> None:
    container = {"volumeMounts": [{"name": "s", "mountPath": "/state"}]}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod(container, volumes=[{"name": "s", "emptyDir": {}}]))
        await until(lambda: "running" in bench.main_state())
        kept = tmp_path / "pods" / "u1" / "s" / "kept"
        kept.write_text("x")
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and "running" in bench.main_state())

        states = [next(iter(one["containerStatuses"][0]["state"])) for one in bench.kube.reports]
        assert states == ["running", "terminated", "running"]
        assert bench.last()["containerStatuses"][0]["restartCount"] == 1
        assert bench.made[0].calls == ["start", "kill"]
        assert kept.exists()
        await pod.shut_down()


async def test_a_crash_is_made_good_while_the_api_server_is_away(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: "running" in bench.main_state())
        bench.kube.away = True
        await pod.kill()
        await until(lambda: len(bench.made) == 2)
        bench.kube.away = False
        await until(lambda: bench.last()["containerStatuses"][0]["restartCount"] == 1)
        await pod.shut_down()


async def test_a_missing_secret_makes_it_wait_until_it_comes(tmp_path: Path) -> None:
    secrets: dict[str, dict[str, bytes]] = {}
    container = {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}
    async with a_bench(tmp_path, lambda _, name: secrets.get(name)) as bench:
        pod = bench.pod(a_pod(container))
        await until(lambda: "waiting" in bench.main_state())
        assert bench.main_state()["waiting"] == {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}
        assert bench.last()["phase"] == "Pending"

        secrets["s"] = {"k": b"v"}
        pod.news.set()
        await until(lambda: "running" in bench.main_state())

        assert bench.made[0].env["X"] == "v"
        assert bench.last()["containerStatuses"][0]["restartCount"] == 0
        await pod.shut_down()


async def test_a_component_that_does_not_start_is_restarted_ever_more_slowly(tmp_path: Path) -> None:
    async with a_bench(tmp_path, fails=True) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: len(bench.made) == 2)

        assert bench.main_state()["terminated"]["exitCode"] == 1
        assert "OSError: no" in bench.main_state()["terminated"]["message"]
        await pod.shut_down()


async def test_readiness_is_followed(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: "running" in bench.main_state())
        bench.made[0].ready = False
        pod.probe()
        await until(lambda: not bench.last()["containerStatuses"][0]["ready"])
        await pod.shut_down()


async def test_a_hung_container_is_noticed_by_the_probes_of_its_spec_only(tmp_path: Path) -> None:
    probe = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 0.05}
    async with a_bench(tmp_path) as bench:
        other = a_pod({"readinessProbe": probe})
        patient, probed = bench.pod(a_pod()), bench.pod(other | {"metadata": other["metadata"] | {"uid": "u2"}})
        await until(lambda: patient.container.ready and probed.container.ready)
        await patient.hang()
        await probed.hang()

        def noticed() -> bool:
            patient.probe()
            probed.probe()
            return not probed.container.ready

        await until(noticed)
        assert patient.container.ready
        await probed.resume()
        probed.probe()
        assert probed.container.ready
        await patient.shut_down()
        await probed.shut_down()


async def test_a_tcp_probe_does_not_notice_a_stopped_process_but_a_deaf_port(tmp_path: Path) -> None:
    probe = {"tcpSocket": {"port": 6253}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 0.05}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod({"readinessProbe": probe}))
        await until(lambda: pod.container.ready)
        await pod.hang()
        pod._hung["asked"] -= 0.1  # twice as long as the probe's time-out
        pod.probe()
        assert pod.container.ready
        await pod.resume()

        await pod.disturb(ports="half-open")
        assert pod.container.ready

        def noticed() -> bool:
            pod.probe()
            return not pod.container.ready

        await until(noticed)
        await pod.disturb(ports="open")
        pod.probe()
        assert pod.container.ready
        assert bench.made[0].calls == ["start", "hang", "resume", "disturb half-open", "disturb open"]
        await pod.shut_down()


async def test_a_pod_that_is_parted_goes_on_and_is_joined_unless_it_began_a_new_life(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready)
        await pod.part()
        pod.probe()
        assert pod.container.ready, "it is not stopped"
        await pod.join()
        await pod.join()
        assert bench.made[0].calls == ["start", "disturb parted", "disturb open"]

        await pod.part()
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and pod.container.ready)
        await pod.join()
        assert bench.made[1].calls == ["start"], "a new life was never parted"
        await pod.shut_down()


async def test_what_faults_did_to_a_pod_is_counted_over_all_its_lives(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        await until(lambda: pod.container.ready)

        def effects() -> Counter[str]:
            return sum(bench.around.effects[pod.uid], Counter())

        assert not effects(), "nothing was done to it"
        bench.made[0].effects["requests held"] = 2
        assert effects() == {"requests held": 2}
        await pod.kill()
        await until(lambda: len(bench.made) == 2 and pod.container.ready)
        bench.made[1].effects["requests held"] = 1
        assert effects() == {"requests held": 3, "containers ended": 1}
        await pod.vanish()
        assert effects() == {"requests held": 3, "containers ended": 1}, "also when it is gone"


def test_a_container_is_restarted_as_late_as_by_a_kubelet_unless_a_test_asks_for_less() -> None:
    assert RESTART_S >= 1.0
    assert signature(running).parameters["restart_delay_s"].default == RESTART_S


async def test_only_what_can_be_disturbed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod())
        with pytest.raises(NotRunningError, match="runs no container"):
            await pod.disturb(swallow=0.3)
        await until(lambda: pod.container.ready)
        monkeypatch.delattr(FakeComponent, "disturb")
        with pytest.raises(ValueError, match="cannot be disturbed, only killed and hung"):
            await pod.disturb(swallow=0.3)
        await pod.shut_down()


async def test_a_failed_liveness_probe_restarts_a_hung_container(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod({"livenessProbe": {"failureThreshold": 1, "timeoutSeconds": 0.02}}))
        await until(lambda: pod.container.ready)
        await pod.hang()

        def restarted() -> bool:
            pod.probe()
            return len(bench.made) == 2 and pod.container.ready

        await until(restarted)
        await pod.shut_down()


async def test_a_pod_without_the_simulator_just_runs(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod({"command": ["sleep", "1"]}))
        await until(lambda: "running" in bench.main_state())

        assert bench.last()["containerStatuses"][0]["ready"]
        assert bench.made == []
        await pod.shut_down()


async def test_a_claim_is_a_folder_that_outlives_the_pod(tmp_path: Path) -> None:
    container = {"env": [{"name": "D", "value": "/d"}], "volumeMounts": [{"name": "v", "mountPath": "/d"}]}
    async with a_bench(tmp_path) as bench:
        pod = bench.pod(a_pod(container, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "there"}}]))
        await until(lambda: pod.container.ready)
        await pod.vanish()

        assert bench.made[0].env["D"] == str(tmp_path / "claims" / "claim-1")
        assert (tmp_path / "claims" / "claim-1").is_dir()
