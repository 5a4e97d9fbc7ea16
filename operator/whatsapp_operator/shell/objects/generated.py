"""Content of the Secrets that the operator generates once: a password, or a certificate with its key."""

from __future__ import annotations

import base64
import ipaddress
import secrets
import string
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from whatsapp_operator.core.actions import GenerateSecret

CERTIFICATE_LIFETIME: Final = timedelta(days=3650)


def filled_secret(action: GenerateSecret, now: datetime) -> dict[str, Any]:
    """Return the Secret with random content: a password, or a self-signed certificate for ``action.host_names``."""
    data = _certificate(action.host_names, now) if action.recipe == "tls" else _password()
    return {**action.obj, "data": {key: base64.b64encode(value).decode() for key, value in data.items()}}


def _password() -> dict[str, bytes]:
    """Return credentials; the password fits the client's rules (client#login): a digit, an upper, a lower and a special character."""
    drawn = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))
    return {"username": b"admin", "password": f"{drawn}aA1!".encode(), "initialPassword": b"secret"}


def _subject(host: str) -> x509.GeneralName:
    """Return a name as a certificate lists it: clients search for an address among addresses only."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate(host_names: tuple[str, ...], now: datetime) -> dict[str, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host_names[0][:64])])
    start = now.astimezone(UTC) - timedelta(minutes=5)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + CERTIFICATE_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_subject(host) for host in host_names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {"tls.crt": pem, "tls.key": private, "ca.crt": pem}
