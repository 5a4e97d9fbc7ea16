"""What is wrong with a key of a Secret is said with the Secret, the key and what to do; no value of any key is said anywhere."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import string
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from whatsapp_operator.core import manifests, report, rules
from whatsapp_operator.core.desired import Desired, Tuning
from whatsapp_operator.shell.kube.kinds import SECRET, WAC, Obj
from whatsapp_operator.shell.loop.cluster import Memory
from whatsapp_operator.shell.loop.observe import Observation, Observer
from whatsapp_operator.shell.objects.assemble import Slow
from whatsapp_operator.shell.objects.reading import account_secret_of, desired_of
from whatsapp_operator.shell.objects.secret_keys import findings_of
from whatsapp_operator.shell.whatsapp.access import Access
from whatsapp_operator.shell.whatsapp.session import is_strong

from .test_snapshot import KEY, Clock, FakeKube, NothingHeard, world

START = datetime(2027, 1, 1, tzinfo=UTC)
SPEC = {
    "shards": 2,
    "spares": 1,
    "client": {"type": "Simulator", "adminSecretRef": {"name": "login"}},
    "webapp": {"tls": {"secretRef": {"name": "server"}}},
    "account": {"countryCode": "1", "phoneNumber": "2", "secretRef": {"name": "account"}, "registeredAt": "2027-01-01T00:00:00Z"},
    "database": {"secretRef": {"name": "db"}, "tlsSecretRef": {"name": "db-tls"}},
}
FIELDS = {
    "login": "spec.client.adminSecretRef",
    "server": "spec.webapp.tls.secretRef",
    "db": "spec.database.secretRef",
    "db-tls": "spec.database.tlsSecretRef",
}


# --- good Secrets -----------------------------------------------------------------------------------------------------------


def signed(name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, days: int = 365) -> x509.Certificate:
    subject, parent = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(parent).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(START).not_valid_after(START + timedelta(days=days))
    return builder.sign(by, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def pem_key(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, passphrase: bytes = b"") -> bytes:
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


@cache
def material() -> dict[str, bytes]:
    """An authority, a server's certificate by it, and forms in which people put them into Secrets."""
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority, server = signed("authority", root, "authority", root), signed("webapp", leaf, "authority", root)
    return {
        "ca": pem(authority),
        "ca.der": authority.public_bytes(serialization.Encoding.DER),
        "ca.key": pem_key(root),
        "crt": pem(server),
        "key": pem_key(leaf),
        "locked": pem_key(leaf, b"a-passphrase"),
        "rsa": pem_key(rsa.generate_private_key(65537, 2048)),
        "expired": pem(signed("authority", root, "authority", root, days=1)),
    }


def good() -> dict[str, dict[str, bytes]]:
    made = material()
    return {
        "login": {"username": b"operator-of-acme", "password": b"Right-one-7!xK", "initialPassword": b"Initial-one-7!xK"},
        "server": {"tls.crt": made["crt"] + made["ca"], "tls.key": made["key"], "ca.crt": made["ca"]},
        "db": {
            "WA_DB_ENGINE": b"PGSQL",
            "WA_DB_HOSTNAME": b"db.acme.example",
            "WA_DB_PORT": b"54329",
            "WA_DB_USERNAME": b"acme-owner",
            "WA_DB_PASSWORD": b"owner's \xc3\xa9 word",
            "WA_DB_NAME_PREFIX": b"acme_prefix_",
            "WA_DB_PERSISTENT": b"1",
            "WA_DB_CONNECTION_IDLE_TIMEOUT": b"180000",
        },
        "db-tls": {"ca.crt": made["ca"], "tls.crt": made["crt"], "tls.key": made["key"]},
        "account": {"certificate": base64.b64encode(bytes(range(120))), "pin": b"739184", "expiresAt": b"2028-05-01T00:00:00Z"},
    }


def secret(name: str, data: Mapping[str, bytes], version: str = "70") -> Obj:
    meta = {"name": name, "namespace": "default", "uid": f"uid-of-{name}", "resourceVersion": version}
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded}


def a_desired(**spec: Any) -> Desired:
    meta = {"namespace": "default", "name": "acme", "uid": "wac-1", "generation": 3}
    return desired_of({"metadata": meta, "spec": {**SPEC, **spec}}, image="sim:1", tuning=Tuning())


def findings(changes: Mapping[tuple[str, str], bytes | None] = {}, desired: Desired | None = None) -> Any:
    data = good()
    for (name, key), value in changes.items():
        data[name].pop(key, None)
        if value is not None:
            data[name][key] = value
    return findings_of(desired or a_desired(), {name: secret(name, one) for name, one in data.items()})


def test_findings_are_kept_while_the_secrets_are_the_same() -> None:
    def read(version: str) -> Slow:
        secrets = {name: secret(name, one, version) for name, one in good().items()}
        return Slow(read_at=0.0, objects={}, names=frozenset(secrets), secrets=secrets, unread={})

    desired, first, same, other = a_desired(), read("70"), read("70"), read("71")
    found = first.findings(desired)
    for later in (same, other):
        later.keep_findings(first)
    assert same.findings(desired) is found
    assert other.findings(desired) is not found


def test_good_secrets_are_no_fault() -> None:
    found = findings()
    assert (found.missing, found.malformed, found.no_access) == (None, None, None)
    assert {ref.name for ref in found.checksums} == {"acme-webapp", "acme-simulator"}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("server", "ca.crt", None),
        ("server", "ca.crt", b""),
        ("server", "ca.crt", b"\n"),
        ("server", "ca.crt", b"subject: authority\n" + material()["ca"] + material()["crt"]),
        ("server", "ca.crt", material()["ca.key"] + material()["ca"]),
        ("server", "tls.crt", material()["crt"].replace(b"\n", b"\r\n")),
        ("login", "password", b"Right-one-7!xK\n"),
        ("login", "username", None),
        ("db", "WA_DB_NAME_PREFIX", None),
        ("db", "WA_DB_PERSISTENT", b""),
        ("account", "pin", b"739184\n"),
    ],
)
def test_forms_that_do_no_harm_are_taken(name: str, key: str, value: bytes | None) -> None:
    found = findings({(name, key): value})
    assert (found.missing, found.malformed, found.no_access) == (None, None, None)


# --- what is wrong is said --------------------------------------------------------------------------------------------------

LINES = [key for key in good()["db"] if key != "WA_DB_PERSISTENT"]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\n\n"], ids=repr)
@pytest.mark.parametrize("key", LINES)
def test_a_line_break_that_reaches_the_pods_is_said(key: str, ending: bytes) -> None:
    """As ``kubectl create secret --from-file`` makes them of files that an editor or ``echo`` wrote."""
    found = findings({("db", key): good()["db"][key] + ending})
    assert found.malformed == (
        f"Key {key} of Secret db, which spec.database.secretRef names, ends with a line break, and the pods would get that too. "
        "Make it with --from-literal, or with printf instead of echo."
    )
    assert found.no_access is None, "the client can be asked all the same"
    assert {ref.name for ref in found.checksums} == {"acme-webapp"}, "no pod is replaced to crash"


MADE = material()
WRONG: list[tuple[str, str, bytes, str]] = [
    ("server", "ca.crt", MADE["ca.der"], "is no PEM certificate: it is binary (DER). Convert it"),
    ("server", "ca.crt", MADE["ca.key"], "is no PEM certificate: it is a private key"),
    ("server", "ca.crt", "Wurzel für alle".encode(), "is no PEM certificate. Put the certificate there"),
    ("server", "ca.crt", "für\n".encode() + MADE["ca"], "are not ASCII. Leave only the PEM blocks"),
    ("server", "ca.crt", b"\xff\xfe" + MADE["ca"], "are not ASCII. Leave only the PEM blocks"),
    ("server", "ca.crt", MADE["ca"][:200], "is no PEM certificate"),
    ("server", "tls.crt", MADE["ca.der"], "it is binary (DER)"),
    (
        "server",
        "tls.crt",
        MADE["ca"],
        "Keys tls.crt and tls.key of Secret server, which spec.webapp.tls.secretRef names, do not belong together",
    ),
    ("server", "tls.key", MADE["locked"], "is encrypted with a passphrase"),
    ("server", "tls.key", MADE["crt"], "is no PEM private key"),
    ("server", "tls.key", MADE["rsa"], "do not belong together"),
    ("db-tls", "ca.crt", MADE["ca.der"], "it is binary (DER)"),
    ("db-tls", "tls.key", MADE["rsa"], "do not belong together"),
    ("login", "password", b"\xff\xfe\x00", "is not UTF-8 text"),
    ("login", "username", b"\xff\xfe\x00", "is not UTF-8 text"),
    ("login", "initialPassword", b"\xff\xfe\x00", "is not UTF-8 text"),
    ("db", "WA_DB_ENGINE", b"MYSQL", "is not PGSQL"),
    ("db", "WA_DB_PORT", b"0", "is not a port from 1 to 65535"),
    ("db", "WA_DB_PORT", b"65536", "is not a port from 1 to 65535"),
    ("db", "WA_DB_PERSISTENT", b"yes", "is not 1 or 0"),
    ("db", "WA_DB_CONNECTION_IDLE_TIMEOUT", b"3m", "is not a whole number of milliseconds"),
    ("db", "WA_DB_PASSWORD", b"two\nlines", "has a line break or another control character in it"),
    ("db", "WA_DB_PASSWORD", b"nul\x00", "has a line break or another control character in it"),
    *(("db", key, b"caf\xe9", "is not UTF-8 text") for key in good()["db"]),
]


@pytest.mark.parametrize(("name", "key", "value", "says"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_form_is_said_with_secret_and_key(name: str, key: str, value: bytes, says: str) -> None:
    found = findings({(name, key): value})
    assert found.missing is None
    assert says in found.malformed
    assert key in found.malformed
    assert f"of Secret {name}, which {FIELDS[name]} names," in found.malformed
    assert (found.no_access is not None) == (name in {"login", "server"}), "nothing is sent with a Secret that is wrong"


def test_a_client_certificate_needs_its_key() -> None:
    assert "needs key tls.key too" in findings({("db-tls", "tls.key"): None}).malformed
    assert "needs key tls.crt too" in findings({("db-tls", "tls.crt"): None}).malformed
    assert findings({("db-tls", "tls.crt"): None, ("db-tls", "tls.key"): None}).malformed is None


def test_an_authority_that_nobody_checks_by_is_no_fault() -> None:
    desired = a_desired(webapp={"tls": {"secretRef": {"name": "server"}, "verification": "None"}})
    assert findings({("server", "ca.crt"): MADE["ca.der"]}, desired).malformed is None


def test_a_needed_key_that_is_empty_is_missing() -> None:
    found = findings({("db", "WA_DB_PASSWORD"): b"", ("db", "WA_DB_USERNAME"): b"\n"})
    assert found.missing == "Secret db, which spec.database.secretRef names, has no key WA_DB_USERNAME nor WA_DB_PASSWORD"


def test_a_secret_that_was_not_read_is_no_fault() -> None:
    found = findings_of(a_desired(), {})
    assert (found.missing, found.malformed, found.checksums, found.hidden) == (None, None, {}, ())


# --- the checksum -----------------------------------------------------------------------------------------------------------


def checksum(changes: Mapping[tuple[str, str], bytes | None], of: str) -> str:
    return next(str(one) for ref, one in findings(changes).checksums.items() if ref.name == of)


def taken_by(template: Any) -> set[tuple[str, str]]:
    """Every Secret that a pod template names, with the key; of a volume ``*``."""
    spec = template["spec"]
    env = [one.get("valueFrom", {}).get("secretKeyRef") for container in spec["containers"] for one in container["env"]]
    volumes = {(one["secret"]["secretName"], "*") for one in spec["volumes"] if "secret" in one}
    return volumes | {(one["name"], one["key"]) for one in env if one is not None}


def test_whatever_a_pod_takes_from_a_secret_is_in_the_checksum_of_its_workload() -> None:
    desired = a_desired()
    workloads = [
        obj
        for obj in manifests.upkeep(desired, webapp_replicas=1, resharding=False, is_first_boot=False, is_unused=False)
        if obj["kind"] in {"StatefulSet", "Deployment"}
    ]
    taken = {obj["metadata"]["name"]: taken_by(obj["spec"]["template"]) for obj in workloads}
    assert taken["acme-coreapp"] == set()
    assert {name for name, _ in taken["acme-webapp"]} == {"server"}
    assert {name for name, _ in taken["acme-simulator"]} == {"db", "db-tls"}
    for workload, pairs in taken.items():
        for name, key in pairs:
            for each in good()[name] if key == "*" else [key]:
                # The authority of the Webapps is for those who ask them.
                if (workload, each) != ("acme-webapp", "ca.crt"):
                    other = {"WA_DB_ENGINE": None, "WA_DB_PORT": b"5433", "WA_DB_PERSISTENT": b"0"}
                    value = other.get(each, good()[name][each] + (b"0" if name == "db" else b"\n"))
                    if value is not None:
                        assert checksum({(name, each): value}, workload) != checksum({}, workload), each


def test_a_checksum_is_of_the_content_alone_and_tells_nothing_without_the_uid() -> None:
    desired, data = a_desired(), good()
    first = findings_of(desired, {name: secret(name, one) for name, one in data.items()}).checksums
    labelled = findings_of(desired, {name: secret(name, one, version="99") for name, one in data.items()}).checksums
    assert labelled == first
    again = {name: secret(name, one) for name, one in data.items()}
    for one in again.values():
        one["metadata"]["uid"] += "-made-again"
    other = findings_of(desired, again).checksums
    assert all(other[ref] != first[ref] for ref in first)


def test_the_digest_of_a_pin_is_of_what_is_sent_and_tells_nothing_without_the_uid() -> None:
    def digest(pin: bytes | None, uid: str = "u1", **others: bytes) -> str | None:
        data = {key: base64.b64encode(value).decode() for key, value in {"pin": pin, **others}.items() if value is not None}
        return account_secret_of("account", {"metadata": {"resourceVersion": "1", "uid": uid}, "data": data}).pin_digest

    same = {digest(b"482913"), digest(b"482913\n"), digest(b"482913", certificate=b"another")}
    assert len(same) == 1
    others = {digest(b"482914"), digest(b"482913", uid="u2"), digest(None), digest(b""), digest(None, uid="u2")}
    assert len(same | others) == 6
    assert account_secret_of("account", None).pin_digest is None


# --- law 13: no value of any key, anywhere --------------------------------------------------------------------------------------


def canary(number: int) -> str:
    """A value that is in no other text; letters only, so that it is a word in all of them."""
    return "Canary" + "".join(string.ascii_lowercase[(number * 7 + place * 5) % 26] for place in range(10))


def forms(word: str) -> Iterator[bytes]:
    """A value in the forms in which it may be damaged."""
    raw = word.encode()
    yield from (raw, raw + b"\n", b"\xff" + raw, raw + b"\n" + raw, b"\x00" + raw, raw * 60, b"-----BEGIN CERTIFICATE-----\n" + raw)
    yield base64.b64encode(raw)


async def observe(secrets: Mapping[str, Obj]) -> Observation:
    """What the Observer makes of the cluster with these Secrets."""
    objects = world()
    objects[WAC][0] |= {"spec": {**SPEC}, "status": {"settledShards": 2}}
    objects[SECRET] = [*secrets.values()]
    fakes = cast("Any", NothingHeard())
    kube = cast("Any", FakeKube(objects))
    observer = Observer(kube=kube, clients=fakes, coreapps=fakes, clock=Clock(), image="sim:1", tuning=Tuning())
    found = await observer.observe(KEY, Memory(), nonce="n0nce", leader_epoch=1)
    assert found is not None
    return found


def shown(found: Observation) -> str:
    """All that a person may read of what an observation led to."""
    plan, facts = rules.plan(found.desired, found.snapshot), rules.facts(found.desired, found.snapshot)
    status = report.report(facts, plan)
    events = report.events({}, status, {}, now=found.snapshot.now)
    said = [row.why(facts) for row in rules.RULES if row.when(facts)]
    values = (events, found, plan, found.access, found.credentials)
    return "\n".join([json.dumps(status, default=str), *said, *map(repr, values), str(found.access.problem)])


@pytest.mark.parametrize("name", [*good()])
def test_no_value_of_a_secret_is_shown_whatever_its_form(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for number, key in enumerate(good()[name]):
        word = canary(number)
        for form in forms(word):
            data = good()
            data[name][key] = form
            visible = shown(asyncio.run(observe({one: secret(one, values) for one, values in data.items()})))
            visible += "\n".join(record.getMessage() for record in caplog.records)
            traces = {word, base64.b64encode(word.encode()).decode().rstrip("="), word[:12], repr(form)[2:-1]}
            # A certificate's fingerprint and a stated expiry are shown on purpose; neither is a value.
            assert not [trace for trace in traces if trace in visible], f"{name}/{key} as {form[:20]!r}"


async def test_everything_that_the_client_may_know_is_hidden_where_it_repeats_it() -> None:
    data = good()
    found = await observe({one: secret(one, values) for one, values in data.items()})
    documented = {b"PGSQL", b"1"}
    values = [value.decode().strip() for one in data.values() for value in one.values() if value not in documented]
    assert set(values) == set(found.access.hidden)
    assert not [value for value in values if value in repr(found.access)]


@pytest.mark.parametrize(
    ("password", "is_taken"),
    [
        ("Right-one-7!xK", True),
        ("aA1!" * 2, True),
        ("aA1!" * 16, True),
        ("aA1!" * 16 + "a", False),
        ("aA1!aA1", False),
        ("right-one-7!", False),
        ("RIGHT-ONE-7!", False),
        ("Right-one-x!", False),
        ("RightOne7x", False),
        ("", False),
    ],
)
def test_the_rules_for_a_new_password_are_those_of_the_client(password: str, is_taken: bool) -> None:
    assert is_strong(password) is is_taken


def test_an_access_shows_nothing_secret() -> None:
    access = Access(addresses=(), server_name="x", hidden=("hidden-value",), password="p4ssword", authority="PEM-text")
    assert not [one for one in ("hidden-value", "p4ssword", "PEM-text") if one in repr(access)]
