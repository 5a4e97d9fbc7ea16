"""Keys and certificates of one local control plane: an authority of its own, valid for this folder only."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = timedelta(days=3650)

# user, groups: the names that Kubernetes' built-in roles are bound to (documentation "Using RBAC Authorization", core component roles)
CLIENTS = {
    "admin": ("local-admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", None),
    "kube-scheduler": ("system:kube-scheduler", None),
}
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass(frozen=True)
class Certificates:
    """Where the files of one control plane are: ``<name>.crt`` and ``<name>.key`` in one folder, readable by the owner only."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate that signed all others."""
        return self.folder / "ca.crt"

    def certificate(self, name: str) -> Path:
        """PEM certificate of ``server`` or of a client."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """PEM private key of ``server``, of a client, or ``service-account``, whose public half is ``service-account.pub``."""
        return self.folder / f"{name}.key"


def make(folder: Path, *, service_ip: str) -> Certificates:
    """The certificates in ``folder``, made if they are not there yet. They appear as a whole or not at all."""
    made = Certificates(folder)
    if folder.is_dir():
        return made
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    writer = Certificates(partial)

    authority_key = _write_key(writer.key("ca"))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localkube")])
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_certificate(writer.authority, authority)
    # without it Python 3.13 and newer refuse the chain (VERIFY_X509_STRICT)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())

    def issue(name: str, user: str, group: str | None, *more: tuple[x509.ExtensionType, bool]) -> None:
        key = _write_key(writer.key(name))
        names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group:
            names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = _builder(x509.Name(names), authority_name, key).add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(signed_by, critical=False)
        for extension, critical in more:
            builder = builder.add_extension(extension, critical=critical)
        _write_certificate(writer.certificate(name), builder.sign(authority_key, hashes.SHA256()))

    addresses = [x509.IPAddress(IPv4Address(address)) for address in ("127.0.0.1", service_ip)]
    names = x509.SubjectAlternativeName([*(x509.DNSName(name) for name in SERVER_NAMES), *addresses])
    issue("server", "kube-apiserver", None, (names, False), (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False))
    for client, (user, group) in CLIENTS.items():
        issue(client, user, group, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False))

    tokens = _write_key(writer.key("service-account"))
    public = tokens.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (partial / "service-account.pub").write_bytes(public)

    partial.rename(folder)
    return made


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of virtual machines jump
        .not_valid_after(now + VALID)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new P-256 key (milliseconds to make, where RSA takes up to a second), written so that only the owner can read it."""
    key = ec.generate_private_key(ec.SECP256R1())
    # SEC1 ("EC PRIVATE KEY") for the service-account key's sake: Kubernetes' key reader knows it, and so does every TLS library.
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(pem)
    return key


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
