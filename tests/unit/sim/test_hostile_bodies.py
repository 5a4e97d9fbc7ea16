"""Bodies and credentials that no client should send: each is answered in the documented envelope, and never by 5xx."""

import asyncio
import gzip
import io
import json
import random
import ssl

import pytest

from wabiz_sim.sharding import shard_of

from .world import PASSWORD, World

CALLS = (
    ("POST", "/v1/users/login"),
    ("POST", "/v1/account/shards"),
    ("PATCH", "/v1/settings/application"),
    ("POST", "/v1/messages"),
)
PLAIN = {"Content-Type": "application/json"}
HOSTILE: dict[str, tuple[bytes, dict[str, str]]] = {
    "nested too deeply": (b"[" * 100_000, PLAIN),
    "objects nested too deeply": (b'{"a":' * 50_000, PLAIN),
    "no gzip although it says so": (b'{"shards": 2}', {**PLAIN, "Content-Encoding": "gzip"}),
    "gzip that ends early": (gzip.compress(b'{"shards": 2}')[:-9], {**PLAIN, "Content-Encoding": "gzip"}),
    "an encoding that nobody knows": (b"{}", {**PLAIN, "Content-Encoding": "nope"}),
    "a charset that nobody knows": (b"{}", {"Content-Type": "application/json; charset=nope"}),
    "not of its charset": (b'{"shards": "\xff\xfe"}', PLAIN),
    "numbers without an end": (b'{"shards": ' + b"9" * 5000 + b"}", PLAIN),
    "no number": (b'{"shards": NaN, "to": Infinity}', PLAIN),
    "a list": (b"[1, 2]", PLAIN),
    "nothing": (b"", PLAIN),
    "NUL": (b'{"to": "1\\u0000", "text": {"body": "\\u0000"}}', PLAIN),
    "half a surrogate": (b'{"to": "1", "text": {"body": "\\ud800"}, "new_password": "\\ud800Aa1-xxxx"}', PLAIN),
    "wrong types": (b'{"to": 1, "type": [], "text": 7, "shards": {}, "cc": [], "pin": {}, "new_password": {}}', PLAIN),
    "too large": (b" " * 1_048_577, PLAIN),
}


async def _answer(world: World, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    every = {**headers, "Authorization": f"Bearer {world.token}"}
    url = f"https://{world.address(200)}:8443{path}"
    async with world.session.request(method, url, data=io.BytesIO(body), headers=every) as answer:
        return answer.status, json.loads(await answer.text())


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_body_is_refused_in_the_envelope(world: World, name: str) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    body, headers = HOSTILE[name]
    for method, path in CALLS:
        status, answer = await _answer(world, method, path, body, headers)
        # A text with half a surrogate is a text; an empty body is a settings change that changes nothing.
        assert 200 <= status < 500, (method, path, status, answer)
        assert "meta" in answer


@pytest.mark.parametrize("credential", [b"Bearer \xff", b"Apikey \xff", b"Basic \xff", b"Bearer \xc3\xa4", b"Bearer", b"\xff"])
async def test_a_credential_that_is_no_text_is_a_wrong_one(world: World, credential: bytes) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    for method, path in (*CALLS, ("GET", "/v1/health"), ("GET", "/v1/account/shards"), ("POST", "/v1/users/logout")):
        # No client of HTTP sends such bytes as they are.
        reader, writer = await asyncio.open_connection(world.address(200), 8443, ssl=trust)
        writer.write(f"{method} {path} HTTP/1.0\r\nContent-Length: 2\r\nAuthorization: ".encode() + credential + b"\r\n\r\n{}")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert (head.split()[1], json.loads(body)["errors"][0]["code"]) == (b"401", 1005), (method, path, body)


async def test_random_bodies_are_never_answered_by_5xx(world: World) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")
    rng = random.Random(1)
    good = [b'{"to": "16315550000", "text": {"body": "x"}}', b'{"cc": "1", "phone_number": "6315550000", "shards": 3}']
    for _ in range(200):
        body = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 6)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        method, path = rng.choice(CALLS)
        status, answer = await _answer(world, method, path, bytes(body), PLAIN)
        assert 200 <= status < 500, (method, path, bytes(body), status, answer)


def _nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("levels", [5, 300, 800, 960, 980, 990])
async def test_settings_of_an_unknown_shape_are_rejected_and_leave_the_stored_ones_readable(world: World, levels: int) -> None:
    await world.cluster(1)
    body = f'{{"media": {_nested(levels)}}}'.encode()

    assert (await _answer(world, "PATCH", "/v1/settings/application", body, PLAIN))[0] == 400
    assert (await _answer(world, "GET", "/v1/settings/application", b"", PLAIN))[0] == 200


@pytest.mark.parametrize("name", ["callback_backoff_delay_ms", "max_callback_backoff_delay_ms", "unhealthy_interval"])
@pytest.mark.parametrize("number", [pytest.param(10**400, id="huge"), 2**31, -1])
async def test_a_number_that_is_no_time_is_rejected_and_ends_no_coreapp(world: World, name: str, number: int) -> None:
    await world.cluster(1)
    await world.serve(0, 0, "1-a")

    status, answer = await world.api("PATCH", "/v1/settings/application", {name: number})

    assert (status, name in answer["errors"][0]["details"]) == (400, True)
    assert (await world.api("POST", "/v1/messages", {"to": "16315550000", "text": {"body": "x"}}))[0] == 201


@pytest.mark.parametrize("password", ["\ud800Aa1-xxxx", "\0Aa1-xxxx"])
async def test_a_new_password_that_has_no_encoding_is_rejected(world: World, password: str) -> None:
    await world.cluster(1)
    status, answer = await world.login(password=PASSWORD, new_password=password)
    assert (status < 500, "meta" in answer) == (True, True), answer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"messages?after={10**30}", None),
        (f"messages?after=-{10**30}", None),
        (f"frames?after={10**30}", None),
        ("tokens", {"seconds": 10**400}),
        ("tokens", {"seconds": 1e300}),
        ("tokens", {"seconds": float("nan")}),
        ("tokens", {"seconds": True}),
        ("shards", {"n": True}),
        ("faults", {"call": [], "fault": "error"}),
        ("faults", {"call": "login", "fault": []}),
        ("faults", {"call": "set_shards", "fault": "error", "code": 1e999}),
        ("registered", {"at": "0001-01-01T00:00:00+14:00"}),
        ("registered", {"at": "9999-12-31T23:59:59-14:00"}),
        ("support", {"expire_timestamp": "0001-01-01"}),
        ("pin", {"pin": "\uff11\uff12\uff13\uff14\uff15\uff16"}),
        ("certificate", {"fingerprint": "\ud800"}),
        ("inbound", {"from": "1", "body": "x", "id": ["a"]}),
        ("missing", {"ids": ["\ud800"]}),
        ("missing", {"ids": ["a"] * 70_000}),
    ],
)
async def test_no_request_of_a_test_makes_the_upstream_fail(world: World, path: str, body: object) -> None:
    await world.cluster(1)
    method = "GET" if body is None else "POST"
    data = None if body is None else json.dumps(body)
    async with world.session.request(method, f"http://{world.address(250)}:8080/control/{path}", data=data) as answer:
        assert answer.status < 500
    assert (await world.login(password=PASSWORD, new_password=None))[0] == 200


def test_a_recipient_is_one_however_it_is_written() -> None:
    written = ("16315550000", "+1 631 555 0000", "+1 (631) 555-0000", "1-631-555-0000")
    assert {shard_of(to, 32) for to in written} == {shard_of("16315550000", 32)}
    assert len({shard_of(f"group-{letter}", 32) for letter in "abcdefgh"}) > 1, "what has no digits is hashed as it is"
