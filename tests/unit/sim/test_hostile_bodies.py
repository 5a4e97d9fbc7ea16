"""Bodies that no client should send: each is answered in the documented envelope, and never by 5xx."""

import gzip
import io
import json
import random

import pytest

from wabiz_sim.sharding import shard_of

from .world import World

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


def test_a_recipient_is_one_however_it_is_written() -> None:
    written = ("16315550000", "+1 631 555 0000", "+1 (631) 555-0000", "1-631-555-0000")
    assert {shard_of(to, 32) for to in written} == {shard_of("16315550000", 32)}
    assert len({shard_of(f"group-{letter}", 32) for letter in "abcdefgh"}) > 1, "what has no digits is hashed as it is"
