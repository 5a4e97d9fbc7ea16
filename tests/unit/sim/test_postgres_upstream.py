"""The upstream on PostgreSQL: nothing lost and nothing doubled while the server restarts, nothing forgotten when the upstream dies."""

import asyncio
import itertools
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from wabiz_sim.coreapp import Coreapp
from wabiz_sim.upstream import Upstream
from waiting import LONG, until

from .postgres_server import PostgresServer
from .proxy import Proxy
from .world import PASSWORD, World, closed, recipient

SENDERS, RESTARTS = 4, 3


@pytest.fixture
def environment(postgres: PostgresServer, prefix: str) -> dict[str, str]:
    return {**postgres.environment(prefix=prefix), "WABIZ_STATE_DIR": ""}


async def _cluster(world: World, environment: dict[str, str]) -> tuple[Upstream, list[Coreapp]]:
    """Two shards, each served, and one Webapp."""
    server, cores, _ = await world.cluster(2, **environment)
    restarted = [asyncio.create_task(world.restarted(core)) for core in cores]
    assert (await world.set_shards(2))[0] == 201
    await asyncio.gather(*restarted)
    for number in range(2):
        await world.serve(number, number, f"{number + 1}-a", 2)
    return server, cores


async def _send_until_taken(world: World, to: str, message_id: str, refused: list[int] | None = None) -> None:
    async def taken() -> bool:
        try:
            status, _ = await world.send(to, message_id)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
        if status != 201 and refused is not None:
            refused.append(status)
        return status == 201

    await until(taken)


async def _messages(world: World) -> list[dict[str, Any]]:
    return list((await world.control("messages"))["messages"])


async def _counted(world: World) -> bool:
    """True once the upstream serves again, with counters that agree with what it holds."""
    try:
        counters, messages = await world.control("counters"), await _messages(world)
        audit = await world.control("audit")
    except (AssertionError, aiohttp.ClientError, OSError):
        return False
    assert sum(counters["accepted"].values()) == len(messages)
    assert (audit["two_holders"], audit["doubled"]) == (0, 0)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_restarts_of_the_server_lose_and_double_nothing(
    world: World, postgres: PostgresServer, environment: dict[str, str], how: signal.Signals
) -> None:
    server, _ = await _cluster(world, environment)
    done = asyncio.Event()
    sent: list[str] = []
    refused: list[int] = []

    async def send(sender: int) -> None:
        for number in itertools.count():
            message_id = f"{sender}-{number}"
            await _send_until_taken(world, recipient((sender + number) % 2, 2, sender), message_id, refused)
            sent.append(message_id)
            if done.is_set():
                return

    senders = [asyncio.create_task(send(sender)) for sender in range(SENDERS)]
    for number in range(RESTARTS):
        enough = len(sent) + 20
        await until(lambda enough=enough: len(sent) >= enough)
        await asyncio.to_thread(postgres.stop, how)
        try:
            if number == 0:  # away for longer than any caller waits
                await until(lambda: len(refused) >= SENDERS)
        finally:
            await asyncio.to_thread(postgres.start)
    enough = len(sent) + 20
    await until(lambda: len(sent) >= enough)
    done.set()
    await asyncio.gather(*senders)

    assert server.running
    assert set(refused) == {503}
    await until(lambda: _counted(world))
    assert sorted(message["id"] for message in await _messages(world)) == sorted(sent)
    assert (await world.control("missing", {"ids": sent}))["missing"] == []


@pytest.mark.slow
async def test_while_the_server_is_away_everything_but_the_sign_of_life_is_503(
    world: World, postgres: PostgresServer, environment: dict[str, str]
) -> None:
    server, _ = await _cluster(world, environment)
    await asyncio.to_thread(postgres.stop)
    try:
        answers = [
            await world.api("GET", "/v1/account/shards"),
            await world.set_shards(4),
            await world.send(recipient(0, 2), "m"),
            await world.login(PASSWORD, None),
        ]
        alive, _ = await world.call("GET", f"http://{world.address(250)}:8080/")
    finally:
        await asyncio.to_thread(postgres.start)

    assert [status for status, _ in answers] == [503] * 4
    assert answers[0][1]["errors"][0]["code"] == 1023
    assert alive == 200
    assert server.running

    async def shards() -> int | None:
        status, answer = await world.api("GET", "/v1/account/shards")
        return answer["account"]["shards"] if status == 200 else None

    assert await until(shards) == 2
    await _send_until_taken(world, recipient(0, 2), "m")
    assert [message["id"] for message in await _messages(world)] == ["m"]


async def test_set_shards_whose_commit_nobody_confirmed_is_an_error_and_then_reported_to_all(
    world: World, proxy: Proxy, environment: dict[str, str]
) -> None:
    environment["WA_DB_PORT"] = str(proxy.port)
    server, cores = await _cluster(world, environment)

    async def answer_is_lost() -> int:
        await asyncio.wait_for(proxy.requests.wait(), LONG)
        url = f"http://{world.address(250)}:8080/ws/node"
        async with world.session.ws_connect(url, params={"uid": "late", "role": "webapp"}) as member:
            number = (await member.receive_json(timeout=LONG))["shards"]
        proxy.cut()
        return int(number)

    # The change that is lost is the one of the account itself: reads before it are let through.
    put_facts = server._store.put_facts  # type: ignore[union-attr]

    async def mute_and_put(facts: dict[str, Any]) -> None:
        proxy.muted = "restarts" in facts
        await put_facts(facts)

    server._store.put_facts = mute_and_put  # type: ignore[union-attr, method-assign]
    losing = asyncio.create_task(answer_is_lost())
    status, _ = await world.set_shards(4)
    assert await losing == 2, "a number that may be lost is not announced"
    assert status == 503

    for core in cores:
        await until(lambda core=core: core.ready and core.shards == 4)
    counters = await world.control("counters")
    assert (counters["shards"], counters["restarts"]) == (4, 2)
    assert (await world.api("GET", "/v1/account/shards"))[1]["account"]["shards"] == 4


async def test_a_message_whose_commit_nobody_confirmed_is_taken_once(world: World, proxy: Proxy, environment: dict[str, str]) -> None:
    environment["WA_DB_PORT"] = str(proxy.port)
    await _cluster(world, environment)
    await world.send(recipient(0, 2), "first")
    proxy.muted = True
    sending = asyncio.create_task(_send_until_taken(world, recipient(0, 2), "second"))
    await asyncio.wait_for(proxy.requests.wait(), LONG)
    proxy.cut()
    await sending

    await until(lambda: _counted(world))
    assert [message["id"] for message in await _messages(world)] == ["first", "second"]
    counters = await world.control("counters")
    assert counters["accepted"] == {"0": 2}
    assert counters["duplicates"] == {"0": 1}


async def _process(world: World, environment: dict[str, str], folder: Path) -> asyncio.subprocess.Process:
    env = {
        "PYTHONPATH": ":".join(path for path in sys.path if path),
        "POD_NAME": "upstream",
        "POD_IP": world.address(250),
        "WABIZ_LISTEN": world.address(250),
        "WABIZ_RESTART_SECONDS": "0.1",
        **environment,
    }
    argv = (sys.executable, "-m", "wabiz_sim", "upstream")
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    return await asyncio.create_subprocess_exec(*argv, env=env, cwd=folder, stderr=asyncio.subprocess.PIPE)


@pytest.mark.slow
async def test_what_was_killed_goes_on_elsewhere_with_nothing_but_the_database(
    world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    first = await _process(world, environment, tmp_path / "first")
    second = None
    try:
        await until(lambda: not closed(world.address(250), 8080))
        core = await world.coreapp(0)
        await world.webapp()
        assert (await world.login())[0] == 200
        await until(lambda: core.shards == 1)
        restarted = asyncio.create_task(world.restarted(core))
        assert (await world.set_shards(2))[0] == 201
        await restarted
        await world.serve(0, 0, "7-a", 2)
        assert (await world.send(recipient(0, 2), "m"))[0] == 201
        await world.control("inbound", {"from": recipient(1, 2), "body": "hi", "id": "i"})

        first.kill()
        await first.wait()
        second = await _process(world, environment, tmp_path / "second")
        await until(lambda: not closed(world.address(250), 8080))

        assert (await world.api("GET", "/v1/account/shards"))[1]["account"]["shards"] == 2  # by the token of before
        await _send_until_taken(world, recipient(0, 2), "m")
        counters = await world.control("counters")
        assert (counters["accepted"], counters["duplicates"], counters["inbound_waiting"]) == ({"0": 1}, {"0": 1}, 1)
        assert len(counters["set_shards_calls"]) == 1
        assert not counters["password_change_required"]
        query = {"shard": "0", "epoch": "6-z", "uid": "u", "shards": "2"}
        with pytest.raises(aiohttp.WSServerHandshakeError) as rejection:
            await world.session.ws_connect(f"http://{world.address(250)}:8080/ws/gateway", params=query)
        assert rejection.value.headers is not None
        assert rejection.value.headers["X-Simulator-Rejection"] == "fenced"
    finally:
        for process in (first, second):
            if process is not None and process.returncode is None:
                process.terminate()
            if process is not None:
                await asyncio.wait_for(process.communicate(), 15)
    assert second.returncode == 0


@pytest.mark.slow
async def test_two_processes_that_make_the_database_at_once(world: World, environment: dict[str, str], tmp_path: Path) -> None:
    others = {**environment, "POD_IP": world.address(251), "WABIZ_LISTEN": world.address(251)}
    processes = [await _process(world, environment, tmp_path), await _process(world, others, tmp_path)]

    async def state(number: int, process: asyncio.subprocess.Process) -> str:
        if process.returncode is not None:
            return "gave up"
        try:
            status, _ = await world.call("GET", f"http://{world.address(number)}:8080/control/counters")
        except (aiohttp.ClientError, OSError):
            return "not yet"
        return "serves" if status == 200 else "gave up"

    async def one_serves() -> bool:
        states = await asyncio.gather(*map(state, (250, 251), processes))
        return sorted(states) == ["gave up", "serves"]

    try:
        await until(one_serves)
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        ends = await asyncio.wait_for(asyncio.gather(*(process.communicate() for process in processes)), 15)
    said = "".join(errors.decode() for _, errors in ends)
    assert "another upstream took it over" in said
    assert "cannot be used" not in said, "that the other was quicker is no trouble"


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (
            {"WA_DB_ENGINE": "MYSQL"},
            2,
            "WA_DB_ENGINE is MYSQL; the simulator speaks PGSQL only: name a PostgreSQL server, or none",
        ),
        ({"WA_DB_PASSWORD": ""}, 2, "WA_DB_PASSWORD is not set, but WA_DB_ENGINE is"),
        ({"WABIZ_DB_TLS_DIR": "/nowhere"}, 2, "WABIZ_DB_TLS_DIR=/nowhere has no ca.crt"),
    ],
)
async def test_bad_settings_of_the_database_are_one_sentence(
    world: World, environment: dict[str, str], tmp_path: Path, change: dict[str, str], status: int, said: str
) -> None:
    process = await _process(world, {**environment, **change}, tmp_path)
    _, errors = await asyncio.wait_for(process.communicate(), LONG)

    assert process.returncode == status
    assert len(errors.decode().splitlines()) == 1
    assert said in errors.decode()


@pytest.mark.slow
async def test_an_unreachable_database_is_said_at_once_and_sigterm_is_heard_meanwhile(
    world: World, environment: dict[str, str], tmp_path: Path
) -> None:
    process = await _process(world, {**environment, "WA_DB_PORT": "9"}, tmp_path)
    assert process.stderr is not None
    try:
        said = (await asyncio.wait_for(process.stderr.readline(), LONG)).decode()
    finally:
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 15)
    assert "cannot be used: connection failed" in said
    assert "Connection refused" in said
    assert environment["WA_DB_PASSWORD"] not in said
    assert "Traceback" not in errors.decode()
