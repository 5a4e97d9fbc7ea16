"""The rest of the REST API: login, health, settings, support, and what it says when the database is away."""

import asyncio
import json
import time
from datetime import datetime

import aiohttp
import pytest

from waiting import until

from .world import PASSWORD, World, recipient


async def test_the_first_login_must_change_the_password(world: World) -> None:
    await world.upstream()
    await world.webapp()

    status, answer = await world.login(new_password=None)
    assert (status, answer["errors"][0]["code"]) == (401, 1024)

    for weak in ("shrt-A1", "nodigits-Aa", "NOLOWER-12", "noupper-12", "NoSpecial12", "x" * 61 + "-A1b", 12345678):
        status, answer = await world.login(new_password=weak)
        assert (status, answer["errors"][0]["code"]) == (400, 1009), weak

    status, answer = await world.login(new_password=PASSWORD)
    assert status == 200
    assert (await world.api("GET", "/v1/account/shards"))[0] == 200
    assert (await world.login("secret", None))[0] == 401
    status, answer = await world.login(PASSWORD, None)
    assert status == 200
    days = (datetime.fromisoformat(answer["users"][0]["expires_after"]).timestamp() - time.time()) / 86400
    assert 6.9 < days <= 7


async def test_wrong_credentials_are_refused(world: World) -> None:
    await world.upstream()
    await world.webapp()
    url = f"https://{world.address(200)}:8443/v1/users/login"

    for authorization in ("", "Basic", "Basic !!!", aiohttp.encode_basic_auth("admin", "x"), aiohttp.encode_basic_auth("root", "secret")):
        status, answer = await world.call("POST", url, headers={"Authorization": authorization})
        assert (status, answer["errors"][0]["code"]) == (401, 1005)


@pytest.mark.parametrize("path", ["/v1/account/shards", "/v1/health", "/v1/settings/application", "/v1/support"])
async def test_without_a_good_token_nothing_is_disclosed(world: World, path: str) -> None:
    await world.upstream()
    await world.webapp()

    for token in ("", "made-up"):
        world.token = token
        status, answer = await world.api("GET", path)
        assert (status, answer["errors"][0]["code"]) == (401, 1005)
    assert (await world.send("1", "m1"))[0] == 401
    assert (await world.set_shards(2))[0] == 401


async def test_tokens_expire(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    assert (await world.send(recipient(0, 1), "m1"))[0] == 201
    await world.control("tokens", {"seconds": 0.3})
    assert (await world.send(recipient(0, 1), "m1"))[0] == 201, "it counts for new tokens"
    await world.login(PASSWORD, None)

    async def refused() -> bool:
        return (await world.send(recipient(0, 1), "m2"))[0] == 401

    await until(refused)
    assert (await world.api("GET", "/v1/account/shards"))[0] == 401


async def test_tokens_can_be_made_void_for_all_webapps_at_once(world: World) -> None:
    await world.cluster(1)
    await world.webapp(1)
    await world.serve(0, 0, "1-a")
    assert (await world.send(recipient(0, 1), "m1"))[0] == 201
    assert (await world.send(recipient(0, 1), "m2", webapp=1))[0] == 201

    await world.control("tokens", {"expire": True})

    assert (await world.send(recipient(0, 1), "m3"))[0] == 401
    assert (await world.send(recipient(0, 1), "m4", webapp=1))[0] == 401


async def test_logout_makes_the_token_void(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    assert (await world.send(recipient(0, 1), "m1"))[0] == 201

    assert (await world.api("POST", "/v1/users/logout"))[0] == 200

    assert (await world.send(recipient(0, 1), "m2"))[0] == 401
    assert (await world.login(PASSWORD, None))[0] == 200


async def test_a_password_can_be_reset(world: World) -> None:
    await world.cluster(1)

    await world.control("reset-password", {})

    assert (await world.api("GET", "/v1/account/shards"))[0] == 401
    assert (await world.login(PASSWORD, None))[0] == 401
    assert (await world.control("counters"))["password_change_required"] is True
    assert (await world.login("secret", PASSWORD))[0] == 200


async def test_tokens_and_password_survive_the_upstream(world: World) -> None:
    server, _, _ = await world.cluster(1)
    await server.kill()
    await world.upstream()

    assert (await world.api("GET", "/v1/account/shards"))[0] == 200
    assert (await world.login(PASSWORD, None))[0] == 200


async def test_health_is_cluster_wide(world: World) -> None:
    _, cores, _ = await world.cluster(2)
    await world.serve(0, 0, "1-a")

    _, answer = await world.api("GET", "/v1/health")

    assert answer["health"] == {
        f"{world.address(1)}:coreapp-0": {"gateway_status": "connected", "role": "coreapp"},
        f"{world.address(2)}:coreapp-1": {"gateway_status": "disconnected", "role": "coreapp"},
    }

    await cores[1].kill()

    async def gone() -> bool:
        return len((await world.api("GET", "/v1/health"))[1]["health"]) == 1

    await until(gone)


async def test_health_takes_an_api_key_and_nothing_else_does(world: World) -> None:
    key = "k" * 12
    await world.upstream()
    await world.webapp(WA_API_KEY=key)
    url = f"https://{world.address(200)}:8443/v1/"

    assert (await world.call("GET", url + "health", headers={"Authorization": f"Apikey {key}"}))[0] == 200
    assert (await world.call("GET", url + "health", headers={"Authorization": "Apikey wrong"}))[0] == 401
    assert (await world.call("GET", url + "account/shards", headers={"Authorization": f"Apikey {key}"}))[0] == 401


async def test_settings_are_merged_and_kept(world: World) -> None:
    server, _, _ = await world.cluster(0)
    assert (await world.api("PATCH", "/v1/settings/application", {"webhooks": {"url": "https://example.org/hook"}}))[0] == 200
    assert (await world.api("PATCH", "/v1/settings/application", {"unhealthy_interval": 10}))[0] == 200
    await server.kill()
    await world.upstream()

    _, answer = await world.api("GET", "/v1/settings/application")

    application = answer["settings"]["application"]
    assert application["webhooks"]["url"] == "https://example.org/hook"
    assert application["webhooks"]["max_concurrent_requests"] == 6
    assert (application["unhealthy_interval"], application["heartbeat_interval"]) == (10, 5)


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"unhealthy_interval": "10"}, {"webhooks": {"url": "ftp://x"}}, ["x"]])
async def test_settings_that_mean_nothing_are_refused(world: World, change: object) -> None:
    await world.cluster(0)

    status, answer = await world.api("PATCH", "/v1/settings/application", change)

    assert (status, answer["errors"][0]["code"]) == (400, 1009)


@pytest.mark.parametrize(("characters", "status"), [(4096, 201), (4097, 400)])
async def test_a_text_has_at_most_as_many_characters_as_is_documented(world: World, characters: int, status: int) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    message = {"to": "16315550000", "text": {"body": "\N{SMILING FACE WITH OPEN MOUTH}" * characters}}
    assert (await world.api("POST", "/v1/messages", message))[0] == status


async def test_support_says_when_the_build_expires(world: World) -> None:
    await world.cluster(0)
    assert (await world.api("GET", "/v1/support"))[1]["support"]["expire_timestamp"] == "2099-12-31T00:00:00+00:00"

    await world.control("support", {"expire_timestamp": "2025-10-23T00:00:00Z"})

    assert (await world.api("GET", "/v1/support"))[1]["support"]["expire_timestamp"] == "2025-10-23T00:00:00+00:00"


async def test_the_probe_needs_no_token(world: World) -> None:
    await world.webapp()

    async with world.session.get(f"https://{world.address(200)}:8443/") as response:
        assert response.status == 200


async def test_an_unknown_path_is_answered_in_the_envelope(world: World) -> None:
    await world.webapp()

    # 1014 is the code of an unknown endpoint (client#answers).
    assert (await world.api("GET", "/v1/nothing"))[1]["errors"][0]["code"] == 1014
    assert (await world.api("DELETE", "/v1/health"))[0] == 405


async def test_a_hung_upstream_answers_when_it_goes_on(world: World) -> None:
    server, _, _ = await world.cluster(0)
    server.hang()
    asking = asyncio.create_task(world.api("GET", "/v1/account/shards"))
    done, _ = await asyncio.wait({asking}, timeout=0.2)
    assert not done

    server.resume()

    assert (await asking)[0] == 200


async def test_without_an_upstream_the_webapp_says_not_ready(world: World) -> None:
    server, _, _ = await world.cluster(0)
    await server.kill()

    for method, path in (("GET", "/v1/account/shards"), ("POST", "/v1/users/login"), ("GET", "/v1/health")):
        status, answer = await world.api(method, path)
        assert (status, answer["errors"][0]["code"]) == (503, 1011)


async def test_a_webapp_survives_a_restart_of_the_upstream(world: World) -> None:
    server, _, _ = await world.cluster(1)
    await world.serve(0, 0, "1-a")
    await server.stop(2)
    await world.upstream()
    await world.until_connected(0)

    assert (await world.send(recipient(0, 1), "m1"))[0] == 201


@pytest.mark.parametrize(("call", "method", "path"), [("get_shards", "GET", "account/shards"), ("health", "GET", "health")])
async def test_other_calls_can_go_wrong_too(world: World, call: str, method: str, path: str) -> None:
    await world.cluster(0)
    await world.control("faults", {"call": call, "fault": "error", "status": 401, "code": 1005})
    await world.control("faults", {"call": call, "fault": "garbage"})

    assert (await world.api(method, f"/v1/{path}"))[0] == 401
    with pytest.raises(json.JSONDecodeError):
        await world.api(method, f"/v1/{path}")
    assert (await world.api(method, f"/v1/{path}"))[0] == 200


async def test_a_stopped_webapp_finishes_what_it_has(world: World) -> None:
    _, _, webapp = await world.cluster(1)
    world.route(0, 0)
    sending = asyncio.create_task(world.send(recipient(0, 1), "m1"))
    await asyncio.wait({sending}, timeout=0.1)
    stopping = asyncio.create_task(webapp.stop(2.0))
    await world.tell(0, 0, "1-a")

    assert (await sending)[0] == 201
    await stopping


async def test_a_webapp_can_be_killed_and_started_again_at_once(world: World) -> None:
    _, _, webapp = await world.cluster(0)
    await webapp.kill()

    await world.webapp()

    assert (await world.api("GET", "/v1/account/shards"))[0] == 200
