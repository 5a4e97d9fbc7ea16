"""Set Shards answers as documented, and can be made to answer as badly as anything on a network can."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from wabiz_sim import certificate
from waiting import until

from .world import World, recipient

NOW = datetime.now(UTC)
GOOD = certificate.make("Acme", 1, NOW - timedelta(days=10), NOW + timedelta(days=300))
OTHER = certificate.make("Acme", 2, NOW - timedelta(days=10), NOW + timedelta(days=300))
EXPIRED = certificate.make("Acme", 3, NOW - timedelta(days=400), NOW - timedelta(days=1))


async def _shards(world: World) -> int:
    status, answer = await world.api("GET", "/v1/account/shards")
    assert status == 200, answer
    return int(answer["account"]["shards"])


async def test_it_answers_at_once_and_then_all_coreapps_restart(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")

    status, answer = await world.set_shards(2, cert=GOOD)

    assert status == 201
    assert set(answer) == {"meta"}
    assert await _shards(world) == 2
    for core in cores:
        await until(lambda core=core: core.shards == 2)
    counters = await world.control("counters")
    assert counters["restarts"] == 1
    assert counters["set_shards_calls"] == [
        {
            "at": counters["set_shards_calls"][0]["at"],
            "by": "api",
            "from": 1,
            "shards": 2,
            "coreapps": 2,
            "certificate": certificate.fingerprint(GOOD)[:12],
            "fault": None,
            "status": 201,
            "restarted": True,
        }
    ]
    assert counters["connections"] == {}


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"cc": None}, 1008, "cc is required"),
        ({"phone_number": None}, 1008, "phone_number is required"),
        ({"shards": None}, 1008, "shards is required"),
        ({"cc": 1}, 1009, "cc must be a string of digits"),
        ({"phone_number": "+1631"}, 1009, "phone_number must be a string of digits"),
        ({"cc": "2"}, 1009, "cc is not that of this client"),
        ({"phone_number": "1"}, 1009, "phone_number is not that of this client"),
        ({"shards": 3}, 1009, "shards must be one of 1, 2, 4, 8, 16, 32"),
        ({"shards": "2"}, 1009, "shards must be one of"),
        ({"shards": True}, 1009, "shards must be one of"),
        ({"pin": "12345"}, 1009, "six digits"),
        ({"pin": 123456}, 1009, "six digits"),
        ({"cert": "no base64!"}, 1009, "base64"),
        ({"cert": ""}, 1009, "base64"),
        ({"cert": 7}, 1009, "base64"),
    ],
)
async def test_a_bad_parameter_is_refused_and_nothing_restarts(world: World, change: dict[str, object], code: int, words: str) -> None:
    await world.upstream(WABIZ_CC="1", WABIZ_PHONE="6315550000")
    await world.webapp()
    await world.login()

    status, answer = await world.set_shards(**{"shards": 2, **change})

    assert (status, answer["errors"][0]["code"]) == (400, code)
    assert words in answer["errors"][0]["details"]
    counters = await world.control("counters")
    assert (counters["restarts"], counters["logged_off"], counters["banned"]) == (0, False, False)


async def test_a_pin_is_needed_once_two_step_verification_is_on(world: World) -> None:
    await world.cluster(1)
    await world.control("pin", {"pin": "123456"})

    missing = await world.set_shards(1, cert=GOOD)
    wrong = await world.set_shards(1, cert=GOOD, pin="654321")
    right = await world.set_shards(1, cert=GOOD, pin="123456")

    assert (missing[0], missing[1]["errors"][0]["details"]) == (400, "two-step verification: pin is missing")
    assert (wrong[0], wrong[1]["errors"][0]["code"]) == (400, 1005)
    assert right[0] == 201


async def test_busy_is_403_as_often_as_asked_for(world: World) -> None:
    await world.cluster(1)
    await world.control("faults", {"call": "set_shards", "fault": "busy", "count": 2})

    answers = [(await world.set_shards(2, cert=GOOD))[0] for _ in range(3)]

    assert answers == [403, 403, 201]
    assert (await world.control("counters"))["restarts"] == 1
    faults = (await world.control("faults"))["faults"]
    assert [(fault["fault"], fault["left"], fault["fired"]) for fault in faults] == [("busy", 0, 2)]


REJECTIONS = ("busy", "wrong_certificate", "wrong_pin", "banned", "expired_build", "registration_closed")


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_every_refusal_comes_under_any_status(world: World, status: int) -> None:
    await world.cluster(1)
    errors = {}
    for fault in REJECTIONS:
        await world.control("faults", {"call": "set_shards", "fault": fault, "status": status})
        found, answer = await world.set_shards(2, cert=GOOD)
        assert found == status
        errors[fault] = (answer["errors"][0]["code"], answer["errors"][0]["details"])
    assert errors["wrong_certificate"] == (1005, "client setup is logged off: wrong certificate, call again with the right one")
    assert errors["banned"] == (1031, "account is banned")
    assert errors["expired_build"] == (1005, "App Expired")
    counters = await world.control("counters")
    assert (counters["restarts"], counters["logged_off"], counters["banned"]) == (0, True, True)


async def test_a_refusal_says_what_the_fault_names(world: World) -> None:
    await world.cluster(1)
    fault = {"call": "set_shards", "fault": "busy", "status": 429, "code": 1015, "details": "slow down", "retry_after": "120"}
    await world.control("faults", fault)

    url, headers = f"https://{world.address(200)}:8443/v1/account/shards", {"Authorization": f"Bearer {world.token}"}
    async with world.session.post(url, json={}, headers=headers) as response:
        assert (response.status, response.headers.get("Retry-After")) == (429, "120"), await response.text()
        error = (await response.json())["errors"][0]
    assert error == {"code": 1015, "title": "Too many requests", "details": "slow down"}


async def test_a_fault_with_after_waits_for_that_call(world: World) -> None:
    await world.cluster(1)
    await world.control("faults", {"call": "set_shards", "fault": "busy"})
    await world.control("faults", {"call": "get_shards", "fault": "error", "after": "set_shards"})
    assert (await world.api("GET", "/v1/account/shards"))[0] == 200

    assert (await world.set_shards(2, cert=GOOD))[0] == 403

    assert (await world.api("GET", "/v1/account/shards"))[0] == 500


async def test_a_second_call_during_the_restart_is_403(world: World) -> None:
    world.restart_seconds = "0.4"
    await world.cluster(1)
    assert (await world.set_shards(2, cert=GOOD))[0] == 201

    assert (await world.set_shards(4, cert=GOOD))[0] == 403

    assert await _shards(world) == 2


async def test_a_call_may_come_into_the_restart_of_another(world: World) -> None:
    world.restart_seconds = "0.4"
    await world.cluster(1)
    await world.control("faults", {"call": "set_shards", "fault": "overtaken"})

    assert (await world.set_shards(2, cert=GOOD))[0] == 403

    assert await _shards(world) == 1
    counters = await world.control("counters")
    assert counters["restarts"] == 1
    assert [(call["status"], call["restarted"]) for call in counters["set_shards_calls"]] == [(403, False)]


async def test_a_wrong_certificate_logs_the_client_off_until_the_right_one_is_sent(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    await world.serve(0, 0, "1-a")
    await world.control("certificate", {"fingerprint": certificate.fingerprint(GOOD)[:12]})

    status, answer = await world.set_shards(2, cert=OTHER)

    assert (status, answer["errors"][0]["code"]) == (400, 1005)
    assert "logged off" in answer["errors"][0]["details"]
    await until(lambda: cores[0].report()["gateway_status"] == "disconnected")
    _, health = await world.api("GET", "/v1/health")
    assert [entry["gateway_status"] for entry in health["health"].values()] == ["disconnected"]
    counters = await world.control("counters")
    assert (counters["logged_off"], counters["banned"], counters["restarts"]) == (True, False, 0)

    assert (await world.set_shards(1, cert=GOOD))[0] == 201
    await world.restarted(cores[0])
    await world.until_connected(0)
    assert (await world.send(recipient(0, 1), "m1"))[0] == 201


async def test_a_certificate_may_be_taken_for_a_wrong_one(world: World) -> None:
    await world.cluster(1)
    await world.control("faults", {"call": "set_shards", "fault": "wrong_certificate"})

    first, _ = await world.set_shards(2, cert=GOOD)
    second, _ = await world.set_shards(2, cert=GOOD)

    assert (first, second) == (400, 201)


async def test_an_expired_certificate_bans_the_account_for_good(world: World) -> None:
    server, cores, _ = await world.cluster(1)
    await world.serve(0, 0, "1-a")

    status, answer = await world.set_shards(2, cert=EXPIRED)

    assert (status, answer["errors"][0]["code"]) == (400, 1031)
    assert "banned" in answer["errors"][0]["details"]
    await until(lambda: cores[0].report()["gateway_status"] == "disconnected")
    assert (await world.set_shards(2, cert=GOOD))[1]["errors"][0]["code"] == 1031

    await server.kill()
    await world.upstream()
    assert (await world.control("counters"))["banned"] is True
    assert (await world.control("counters"))["restarts"] == 0


async def test_without_a_certificate_it_works_for_seven_days_after_registration(world: World) -> None:
    _, cores, _ = await world.cluster(1)
    assert (await world.set_shards(1))[0] == 201
    await world.restarted(cores[0])
    await world.serve(0, 0, "1-a")
    await world.control("registered", {"at": (NOW - timedelta(days=7, minutes=1)).isoformat()})

    status, answer = await world.set_shards(2)

    assert (status, answer["errors"][0]["code"]) == (400, 1005)
    assert "disconnected" in answer["errors"][0]["details"]
    await until(lambda: cores[0].report()["gateway_status"] == "disconnected")
    assert (await world.set_shards(2, cert=GOOD))[0] == 201


async def test_the_time_of_registration_may_be_given(world: World) -> None:
    await world.cluster(1, WABIZ_REGISTERED_AT="2020-01-01T00:00:00Z")

    assert (await world.set_shards(2))[0] == 400
    assert (await world.set_shards(2, cert=GOOD))[0] == 201


@pytest.mark.parametrize("applies", [True, False])
@pytest.mark.parametrize("fault", ["error", "timeout", "reset", "garbage"])
async def test_an_answer_may_be_lost_with_or_without_the_effect(world: World, fault: str, applies: bool) -> None:
    await world.cluster(1)
    await world.control(
        "faults", {"call": "set_shards", "fault": fault, "applies": applies, **({"status": 201} if fault == "garbage" else {})}
    )

    async def noted() -> bool:
        return bool((await world.control("counters"))["set_shards_calls"])

    if fault == "error":
        status, answer = await world.set_shards(2, cert=GOOD)
        assert (status, answer["errors"][0]["code"]) == (500, 1014)
    else:
        calling = asyncio.create_task(world.set_shards(2, cert=GOOD))
        await until(noted)
        if fault == "timeout":
            done, _ = await asyncio.wait({calling}, timeout=0.3)
            assert not done
            calling.cancel()
        with pytest.raises({"timeout": asyncio.CancelledError, "reset": aiohttp.ClientError, "garbage": ValueError}[fault]):
            await calling

    assert await _shards(world) == (2 if applies else 1)
    counters = await world.control("counters")
    assert counters["restarts"] == (1 if applies else 0)
    assert [(call["fault"], call["restarted"]) for call in counters["set_shards_calls"]] == [(fault, applies)]


async def test_an_error_may_turn_out_a_success_later(world: World) -> None:
    await world.cluster(1)
    await world.control("faults", {"call": "set_shards", "fault": "late", "seconds": 0.2, "status": 502})

    assert (await world.set_shards(2, cert=GOOD))[0] == 502
    (call,) = (await world.control("counters"))["set_shards_calls"]
    assert (call["from"], call["restarted"]) == (1, False)

    async def applied() -> bool:
        return await _shards(world) == 2

    await until(applied)


async def test_an_answer_may_be_slow(world: World) -> None:
    await world.cluster(1)
    await world.control("faults", {"call": "set_shards", "fault": "slow", "seconds": 0.3})
    started = time.monotonic()

    calling = asyncio.create_task(world.set_shards(2, cert=GOOD))
    assert (await calling)[0] == 201

    assert time.monotonic() - started >= 0.3


async def test_another_party_may_change_the_shards(world: World) -> None:
    _, cores, _ = await world.cluster(1)

    await world.control("shards", {"n": 4})

    assert await _shards(world) == 4
    await until(lambda: cores[0].shards == 4)
    assert [(call["by"], call["restarted"]) for call in (await world.control("counters"))["set_shards_calls"]] == [("control", True)]


async def test_one_coreapp_may_take_longer(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.control("faults", {"call": "restart", "fault": "slow", "seconds": 0.5, "pod": "coreapp-1"})

    await world.set_shards(2, cert=GOOD)

    await until(lambda: cores[0].shards == 2)
    assert not cores[1].ready
    await until(lambda: cores[1].shards == 2)


async def test_the_number_of_shards_survives_the_upstream(world: World) -> None:
    server, _, _ = await world.cluster(1)
    await world.set_shards(8, cert=GOOD)
    await server.stop(2)

    await world.upstream()

    assert await _shards(world) == 8


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({}, "call must be one of"),
        ({"call": "health", "fault": "busy"}, "fault of health must be one of"),
        ({"call": "health", "fault": "error", "count": 0}, "count must be"),
        ({"call": "health", "fault": "error", "status": 99}, "status must be"),
        ({"call": "health", "fault": "error", "seconds": -1}, "seconds must be"),
        ({"call": "health", "fault": "error", "often": 1}, "unknown field often"),
        ({"call": "health", "fault": "error", "after": "logout"}, "after must be one of"),
    ],
)
async def test_a_fault_that_means_nothing_is_refused(world: World, fault: dict[str, object], words: str) -> None:
    await world.upstream()

    status, answer = await world.call("POST", f"http://{world.address(250)}:8080/control/faults", fault)

    assert status == 400
    assert words in answer["error"]
    assert (await world.control("faults")) == {"faults": []}
