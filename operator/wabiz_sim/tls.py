"""The Webapp's TLS certificate: the mounted one, or a self-signed one as in the vendor's client."""

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .settings import Settings, SettingsError


def server_context(settings: Settings) -> ssl.SSLContext:
    """Return the server's TLS context.

    Raises SettingsError when WABIZ_TLS_DIR is set but holds no usable tls.crt and tls.key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = settings.tls_dir
    if folder is not None:
        try:
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        except (OSError, ssl.SSLError) as error:
            msg = f"WABIZ_TLS_DIR={folder}: tls.crt and tls.key cannot be used ({error}); mount a TLS Secret there or unset it"
            raise SettingsError(msg) from None
        return context
    with tempfile.TemporaryDirectory() as scratch:
        certificate, key = Path(scratch, "tls.crt"), Path(scratch, "tls.key")
        _self_signed(settings, certificate, key)
        context.load_cert_chain(certificate, key)
    return context


def _self_signed(settings: Settings, certificate: Path, key: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{settings.cluster}-webapp"[:64])])
    now = datetime.now(UTC)
    alternatives = x509.SubjectAlternativeName(
        [x509.DNSName(f"{settings.cluster}-webapp"), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(settings.pod_ip))]
    )
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=825))
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
