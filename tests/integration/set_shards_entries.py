"""How the operator gets in: passwords and TLS of the Webapps, right and wrong, in the cases of Set Shards."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .environment import condition_of
from .set_shards_environment import LONG, SHUT, Trial

LOGIN, TLS = "acme-login", "acme-tls"
PASSWORD, WRONG = "Right-one-7!xK", "Wrong-one-8?yL"


# --- the administrator's password


async def put_login(s: Trial) -> None:
    """The administrator's Secret, as the user brings it."""
    await s.put_secret(LOGIN, password=PASSWORD)


async def own_password(s: Trial) -> None:
    """The first login has changed the initial password to the one that was given; nothing else was made up."""
    assert not (await s.client_state())["password_change_required"]
    assert "acme-admin" not in await s.kubectl("get", "secrets", "-o", "name")
    await s.resize()


async def wrong_password(s: Trial) -> None:
    """The Secret's password becomes a wrong one, and the token ends: said, not sent, and right again with the right one."""
    await s.patch(reshard={"windows": [SHUT]})
    await s.resize()
    await s.word("Reconciling", "WindowClosed")
    await s.put_secret(LOGIN, password=WRONG, initialPassword=WRONG[::-1])
    async with asyncio.timeout(LONG):
        # Until the Secret is read again, the operator gets in with the password that it knows.
        while s.reason("Stalled") != "LoginRejected":
            await s.stand_in("tokens", expire=True)
            await asyncio.sleep(0.2)
    assert LOGIN in await s.word("Stalled", "LoginRejected")
    await s.patch(reshard={"windows": None})
    assert await s.made() == []
    await put_login(s)


async def login_missing(s: Trial) -> None:
    """There is no Secret of the administrator, until there is."""
    await s.kubectl("delete", "secret", LOGIN)
    await s.resize()
    message = await s.word("Stalled", "SecretMissing")
    assert LOGIN in message
    assert "spec.client.adminSecretRef" in message
    assert await s.made() == []
    await put_login(s)


async def login_without_password(s: Trial) -> None:
    """The Secret has no password."""
    await s.kubectl("delete", "secret", LOGIN)
    await s.put_secret(LOGIN, username="admin")
    await s.resize()
    # Before that it may say that the Secret, which was deleted a moment ago, is not there.
    await s.said(
        lambda status: "password" in condition_of(status, "Stalled", "SecretMissing").get("message", ""),
        "Stalled=SecretMissing that names the password",
    )
    assert await s.made() == []
    await put_login(s)


async def login_missing_at_first(s: Trial) -> None:
    """The Secret comes after the cluster."""
    await s.open()
    assert LOGIN in await s.word("Stalled", "SecretMissing")
    await put_login(s)
    await s.rest()
    assert not (await s.client_state())["password_change_required"]


async def weak_password_at_first(s: Trial) -> None:
    """The client does not take the password that it is to have."""
    await s.put_secret(LOGIN, password="weak")
    await s.open()
    assert LOGIN in await s.word("Stalled", "LoginRejected")
    await put_login(s)
    await s.rest()
    assert not (await s.client_state())["password_change_required"]


async def first_login_again(s: Trial) -> None:
    """The client is back at its initial password, as after the loss of its database."""
    await s.stand_in("reset-password")
    await s.resize()
    await s.until_made()
    assert not (await s.client_state())["password_change_required"]


# --- the Webapps' certificate


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _sign(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, host: str = ""
) -> x509.Certificate:
    start = datetime.now(UTC) - timedelta(minutes=5)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=not host, path_length=None), critical=True)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(by, hashes.SHA256())


async def put_tls(s: Trial, *, trusted: bool = True) -> None:
    """The Webapps' Secret: signed by an authority of the user's, whose certificate is in it, or another's if not ``trusted``."""
    if not s.authority:
        root, leaf = _key(), _key()
        private = leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        certificate = _sign("acme", leaf, "authority", root, host=f"acme-webapp.{s.namespace}.svc")
        s.authority = {"tls.crt": _pem(certificate), "tls.key": private, "ca.crt": _pem(_sign("authority", root, "authority", root))}
    stranger = _key()
    other = {} if trusted else {"ca.crt": _pem(_sign("other", stranger, "other", stranger))}
    await s.put_secret(TLS, **{**s.authority, **other})


async def own_authority(s: Trial) -> None:
    """The Webapps show the user's certificate, and the operator checks it."""
    assert "acme-webapp-tls" not in await s.kubectl("get", "secrets", "-o", "name")
    await s.resize()


async def wrong_authority(s: Trial) -> None:
    """The authority in the Secret is not the one that signed: nothing is sent to the server that answers, and the message says why."""
    await _distrusted(s)
    await put_tls(s)


async def wrong_authority_at_first(s: Trial) -> None:
    """The same, from the beginning on: not even the first login is sent, and what the cluster waits for is said."""
    await put_tls(s, trusted=False)
    await s.open()
    await s.until(lambda seen: "certificate" in seen.condition(s.namespace, "acme", "Reconciling").get("message", ""), "the reason")
    assert (await s.client_state())["password_change_required"]
    await put_tls(s)


async def not_verified(s: Trial) -> None:
    """The same, but the user does not want it checked."""
    await _distrusted(s)
    await s.patch(webapp={"tls": {"verification": "None"}})
    await s.rest()
    await s.patch(webapp={"tls": {"verification": "Full"}})
    await put_tls(s)


async def _distrusted(s: Trial) -> None:
    await put_tls(s, trusted=False)
    # Only what happens to the cluster makes the operator read its Secrets before its rest is over.
    await s.resize()
    message = await s.word("Ready", "WebappNotResponding")
    assert "certificate" in message, message
    assert await s.made() == []


async def wrong_name(s: Trial) -> None:
    """The certificate is another host's."""
    await s.patch(webapp={"tls": {"serverName": "other.example"}})
    await s.resize()
    message = await s.word("Ready", "WebappNotResponding")
    assert "certificate" in message, message
    assert await s.made() == []
    await s.patch(webapp={"tls": {"serverName": None}})
