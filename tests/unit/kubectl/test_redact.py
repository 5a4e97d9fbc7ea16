"""Canaries: nothing secret leaves in a report, wherever it stands; and what helps stays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_whatsapp import redact

CANARY = "canary0Canary1"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlX2NhbmFyeQ"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nY2FuYXJ5MENhbmFyeTE=\n-----END RSA PRIVATE KEY-----"
BASE64 = "Y2FuYXJ5MENhbmFyeTFjYW5hcnkwQ2FuYXJ5MWNhbmFyeTBDYW5hcnkx"

OBJECTS: tuple[Any, ...] = (
    {"kind": "Secret", "data": {"x": CANARY}, "stringData": {"y": CANARY}},
    {"items": [{"kind": "Secret", "data": {"x": CANARY}}]},
    {"spec": {"containers": [{"env": [{"name": "HARMLESS", "value": CANARY}]}]}},
    {"env": [CANARY]},
    {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": CANARY}, "managedFields": [CANARY]}},
    {"password": CANARY},
    {"spec": {"adminPassword": CANARY, "token": CANARY, "secret": CANARY, "apiKey": CANARY, "credentials": CANARY}},
    {"pin": 123456, "phoneNumber": "123456789"},
    {"certificate": [CANARY]},
    {"metadata": {"annotations": {"note": f"password: {CANARY}"}}},
    {"args": ["--verbose", "--db-password", CANARY, "--port", "80"]},
    {"command": ["sh", "-c", f"agent --api-key {CANARY} --port 80"]},
    {"command": ["curl", "-u", f"agent:{CANARY}", "-H", f"X-Api-Key: {CANARY}"]},
    {"httpGet": {"httpHeaders": [{"name": "X-Api-Key", "value": CANARY}, {"value": CANARY, "name": "Authorization"}]}},
    {"note": "call +49 151 123456 78 or +1 (631) 123-4567"},
)
TEXTS = (
    f"Authorization: Bearer {CANARY}",
    f"authorization=Basic {CANARY}",
    f"login with token={CANARY}.",
    f'{{"password": "{CANARY} and more", "a": 1}}',
    f"{{'pin': '{CANARY}'}}",
    f"WA_DB_PASSWORD={CANARY}",
    f"postgres://user:{CANARY}@db:5432/x",
    f"secret: {CANARY}",
    f"a certificate = {CANARY}",
    f"private_key: {CANARY}",
    f"agent --token {CANARY} --port 80",
    f"agent --pin '{CANARY} 1'",
    f"curl -u agent:{CANARY} https://x",
    f"curl --user 'agent:{CANARY} 1' https://x",
)
HARMLESS: tuple[Any, ...] = (
    {"spec": {"secretName": "acme-admin", "secretRef": {"name": "acme-account"}, "tlsSecretRef": {"name": "tls"}}},
    {"certificate": {"expiresAt": "2027-05-01T00:00:00Z", "fingerprint": "ab" * 16, "loggedOffAt": "2027-01-01T00:00:00Z"}},
    {"resourceVersion": "1234", "port": 6253, "holder": "acme-coreapp-0", "epoch": "387-fu48y", "replicas": 3},
    {"image": "whatsapp-operator/wabiz-sim:0.1.0", "uid": "cd40ae67-76ac-4519-a863-6f5b7a674f2a", "podIP": "10.0.0.1"},
    {"message": "2 of 3 Coreapps are ready: waiting for acme-coreapp-2 (0/3 nodes are available)."},
    {"token": "", "env": []},
    {"args": ["--token", "--port", "80", "--pin-seconds", "5"], "httpHeaders": [{"name": "Accept", "value": "text/plain"}]},
    {"message": "and +10 more (2 of 12) at 2026-11-28 10:00:00 +0000 127.0.0.1 10250; --user 1000"},
)


@pytest.mark.parametrize("obj", OBJECTS, ids=str)
def test_nothing_secret_is_left_in_an_object(obj: Any) -> None:
    text = json.dumps(redact.obj(obj))

    assert CANARY not in text
    assert "123456" not in text


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_secret_is_left_in_a_text(text: str) -> None:
    assert CANARY not in redact.text(f"12:00:00 INFO {text} goes on\n")


@pytest.mark.parametrize(
    "secret", [JWT, PEM, BASE64, "+4915112345678", "16315551234", "+49 151 1234 5678", "+49 151 12345678", "+1 (631) 555-1234"]
)
def test_what_is_a_secret_by_its_form_is_found(secret: str) -> None:
    for text in (f"here: {secret}", f"({secret})", f'"{secret}"', f"x {secret} y"):
        shown = redact.text(text)
        assert secret not in shown
        assert "Canary" not in shown
        assert redact.HIDDEN in shown
    assert secret not in json.dumps(redact.obj({"message": f"got {secret}"}))


def test_an_unfinished_key_is_taken_out_too() -> None:
    assert redact.text("x -----BEGIN PRIVATE KEY-----\nabc def") == "x ***"


def test_what_is_known_is_found_wherever_it_stands() -> None:
    assert redact.text("a-s3cret-b", known=["s3cret"]) == "a-***-b"
    assert redact.obj({"x": ["a-s3cret-b"], "s3cret": 1}, known=["s3cret"]) == {"x": ["a-***-b"], "***": 1}
    assert redact.text("abc", known=["a"]) == "abc", "what is too short stands everywhere"


@pytest.mark.parametrize("obj", HARMLESS, ids=str)
def test_what_helps_stays(obj: Any) -> None:
    assert redact.obj(obj) == obj


@pytest.mark.parametrize(
    "line",
    [
        "2027-01-04T12:00:00.123Z INFO shop/acme: FailingOver: Shard 0: acme-coreapp-0 failed (PodDeleted), acme-coreapp-2 is taking over.",
        "rule=Serving generation=3 resourceVersion=412 took 0.012 s",
        "GET https://10.0.0.1:8443/v1/account/shards 200",
    ],
)
def test_lines_of_the_operator_stay(line: str) -> None:
    assert redact.text(line) == line
