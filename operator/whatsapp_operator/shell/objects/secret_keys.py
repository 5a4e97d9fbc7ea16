"""The keys of Secrets: which are needed, their formats, and the messages about wrong ones. Pure; no message contains a value.

Values that only the operator reads are stripped of spaces and line breaks at both ends, in ``decoded`` and nowhere else: files end with a
line break, and none of these values can. Pods get values unchanged, because kubelets strip nothing. There a line break is a fault: the
client would crash at its next start.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from whatsapp_operator.core import checksums, manifests
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.manifests.pods import DATABASE_KEYS
from whatsapp_operator.core.names import Obj, Ref

Fault = str
"""What is wrong with a value and what to do, as a continuation of "Key x of Secret y": "is ... . Put ... there."."""


def decoded(secret: Obj | None, key: str) -> str | None:
    """Return a key of a Secret as text without spaces and line breaks at its ends; None if it is missing, empty if it is not text."""
    raw = raw_value(secret, key)
    if raw is None:
        return None
    try:
        return raw.decode().strip()
    except UnicodeDecodeError:
        return ""


def raw_value(secret: Obj | None, key: str) -> bytes | None:
    """Return a key of a Secret as pods get it; None if it is missing, empty if it is not base64."""
    text = ((secret or {}).get("data") or {}).get(key)
    if text is None:
        return None
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


def digest_of(secret: Obj, key: str) -> str:
    """Return a digest of what ``decoded`` makes of a key, or of its absence. It is keyed with the Secret's uid.

    Six digits have only a million values. Who cannot read the Secret does not know its uid, and so cannot try them all.
    """
    text = decoded(secret, key)
    value = b"" if text is None else b"=" + text.encode()
    return hmac.new(str(secret["metadata"]["uid"]).encode(), value, hashlib.sha256).hexdigest()[:32]


# --- formats of values --------------------------------------------------------------------------------------------


def _text(raw: bytes) -> Fault | None:
    """Check text that only the operator reads; its ends are stripped."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "is not UTF-8 text. Put it there as text, not as a binary or encoded file."
    return None


def _any(_: bytes) -> None:
    """Accept every value; the core checks it."""


def _line(raw: bytes) -> Fault | None:
    """Check text that pods get unchanged: one line, without a line break at its end."""
    if (fault := _text(raw)) is not None:
        return fault
    text = raw.decode()
    if text.rstrip("\r\n") != text:
        return "ends with a line break, and the pods would get that too. Make it with --from-literal, or with printf instead of echo."
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        return "has a line break or another control character in it. Write it in one line of text."
    return None


def _one_of(pattern: str, what: str) -> Callable[[bytes], Fault | None]:
    """Return the check of a line that must match a pattern; ``what`` names the valid values."""

    def check(raw: bytes) -> Fault | None:
        fault = _line(raw)
        return fault if fault is not None or re.fullmatch(pattern, raw.decode()) else f"is not {what}. Write that there."

    return check


PORT = r"0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"


def _certificates(raw: bytes) -> Fault | None:
    """Check one PEM certificate or a chain; text around them is allowed."""
    if (why := _no_certificate(raw)) is not None:
        return f"is no PEM certificate{why}"
    return None


def _no_certificate(raw: bytes) -> str | None:
    from . import pem  # noqa: PLC0415  # the library is not loaded by programs that read no Secrets

    if pem.has_certificates(raw):
        return None
    if raw.startswith(b"\x30") and not raw.isascii():
        return ": it is binary (DER). Convert it: openssl x509 -inform der -outform pem."
    if b"PRIVATE KEY-----" in raw:
        return ": it is a private key. Put the certificate there, and the key nowhere but under tls.key."
    return ". Put the certificate there, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----."


def _authority(raw: bytes) -> Fault | None:
    """Check certificates in ASCII, as TLS libraries read them; empty if the system trusts the authority."""
    if not raw.strip():
        return None
    if (fault := _certificates(raw)) is not None:
        return fault
    return None if raw.isascii() else "has characters next to its certificates that are not ASCII. Leave only the PEM blocks there."


def _private_key(raw: bytes) -> Fault | None:
    from . import pem  # noqa: PLC0415

    return pem.private_key_fault(raw)


# --- the table ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """The format of one key of a Secret."""

    key: str
    check: Callable[[bytes], Fault | None]
    is_needed: bool = True


ADMIN = (Form("username", _text, False), Form("password", _text), Form("initialPassword", _text, False))
"""The operator logs in with them. The client's pods do not get them."""
ACCOUNT = (Form("certificate", _any, False), Form("pin", _any, False), Form("expiresAt", _any, False))
"""The operator sends them with Set Shards. The core checks them: see the reasons not to send a certificate."""
SERVER = (Form("tls.crt", _certificates), Form("tls.key", _private_key), Form("ca.crt", _authority, False))
"""The Webapps read the first two as files, which have line breaks; the operator reads the last."""
CLIENT = (Form("ca.crt", _certificates), Form("tls.crt", _certificates, False), Form("tls.key", _private_key, False))
"""The client shows the last two to its database."""
DATABASE_FORMS: Mapping[str, Callable[[bytes], Fault | None]] = {
    "WA_DB_ENGINE": _one_of("PGSQL", "PGSQL, the only engine with which the simulator works"),
    "WA_DB_PORT": _one_of(PORT, "a port from 1 to 65535"),
    "WA_DB_PERSISTENT": _one_of("|0|1", "1 or 0"),
    "WA_DB_CONNECTION_IDLE_TIMEOUT": _one_of("[0-9]*", "a whole number of milliseconds"),
}
DATABASE = tuple(Form(key, DATABASE_FORMS.get(key, _line), is_needed) for key, is_needed in DATABASE_KEYS.items())
"""Environment of the client's containers, by ``secretKeyRef``: they get the bytes unchanged."""


@dataclass(frozen=True, slots=True)
class Named:
    """A Secret that a cluster needs, with the field that names it; None: the operator generates it."""

    name: str
    field: str | None
    forms: tuple[Form, ...]


def named(desired: Desired) -> Iterator[Named]:
    """Yield all Secrets that a cluster needs, in the order of their messages."""
    yield Named(manifests.admin_secret_name(desired), "spec.client.adminSecretRef" if desired.admin_secret else None, ADMIN)
    forms = SERVER if desired.tls.verifies else SERVER[:2]
    yield Named(manifests.tls_secret_name(desired), "spec.webapp.tls.secretRef" if desired.tls.secret_name else None, forms)
    if desired.database is not None:
        yield Named(desired.database.secret_name, "spec.database.secretRef", DATABASE)
        if desired.database.tls_secret_name is not None:
            yield Named(desired.database.tls_secret_name, "spec.database.tlsSecretRef", CLIENT)
    if desired.account is not None and desired.account.secret_name is not None:
        yield Named(desired.account.secret_name, "spec.account.secretRef", ACCOUNT)


def _missing(desired: Desired, secrets: Mapping[str, Obj | None]) -> str | None:
    for one in named(desired):
        if one.field is None or one.forms is ACCOUNT or one.name not in secrets:
            continue
        secret = secrets[one.name]
        if secret is None:
            return f"Secret {one.name}, which {one.field} names, does not exist"
        lacking = [form.key for form in one.forms if form.is_needed and not (raw_value(secret, form.key) or b"").strip()]
        if lacking:
            return f"Secret {one.name}, which {one.field} names, has no key {' nor '.join(lacking)}"
    return None


def _faults(desired: Desired, secrets: Mapping[str, Obj | None]) -> dict[str, str]:
    """Return what is wrong, by the name of the Secret: one sentence each."""
    found: dict[str, str] = {}
    for one in named(desired):
        secret = secrets.get(one.name)
        fault = _fault(one, secret) if secret is not None else None
        if fault is not None:
            found.setdefault(one.name, fault)
    return found


def _fault(one: Named, secret: Obj) -> str | None:
    where = f"of Secret {one.name}" + (f", which {one.field} names," if one.field else "")
    for form in one.forms:
        raw = raw_value(secret, form.key)
        # An empty value counts as missing, which is reported elsewhere.
        if raw and (fault := form.check(raw)) is not None:
            return f"Key {form.key} {where} {fault}"
    certificate, key = raw_value(secret, "tls.crt"), raw_value(secret, "tls.key")
    if one.forms is CLIENT and bool(certificate) != bool(key):
        has, lacks = ("tls.crt", "tls.key") if certificate else ("tls.key", "tls.crt")
        return f"Key {has} {where} needs key {lacks} too. Put both there, or none if the database asks for no client certificate."
    has_pair = any(form.key == "tls.key" for form in one.forms)
    if has_pair and certificate and key and not _are_a_pair(certificate, key):
        return f"Keys tls.crt and tls.key {where} do not belong together. Put the certificate of this private key first into tls.crt."
    return None


def _are_a_pair(certificate: bytes, key: bytes) -> bool:
    from . import pem  # noqa: PLC0415

    return pem.are_a_pair(certificate, key)


# --- findings -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the Secrets of a cluster mean for it. Its repr shows nothing secret."""

    missing: str | None = None
    """What is missing in a Secret of the user, without the account's."""
    malformed: str | None = None
    """The first key with a wrong format, and what to do."""
    no_access: str | None = None
    """Why the client cannot be reached with these Secrets; nothing must be sent then."""
    checksums: Mapping[Ref, str] = field(default_factory=dict)
    """By workload: the checksum of the keys that its pods use; none if it is unknown, or if the values would harm the pods."""
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """Values that must be masked in texts of the client, which knows many of them: those of its database too."""


def findings_of(desired: Desired, secrets: Mapping[str, Obj | None]) -> Findings:
    """Return the findings for the Secrets that were read, by name. A Secret that is not in ``secrets`` was not read, which is no fault."""
    faults = _faults(desired, secrets)
    return Findings(
        missing=_missing(desired, secrets),
        malformed=next(iter(faults.values()), None),
        no_access=faults.get(manifests.tls_secret_name(desired)) or faults.get(manifests.admin_secret_name(desired)),
        checksums=_checksums(desired, secrets, faults),
        hidden=_values_to_hide(desired, secrets),
    )


def _checksums(desired: Desired, secrets: Mapping[str, Obj | None], faults: Mapping[str, str]) -> dict[Ref, str]:
    needed = {one.name: [form.key for form in one.forms if form.is_needed] for one in named(desired)}
    found: dict[Ref, str] = {}
    for ref, used in checksums.keys_used(desired).items():
        read = {name: secret for name in used if (secret := secrets.get(name)) is not None and name not in faults}
        is_whole = all(raw_value(secret, key) for name, secret in read.items() for key in needed[name])
        if read.keys() == used.keys() and is_whole:
            digest = hashlib.sha256()
            for name, keys in used.items():
                digest.update(_checksum(read[name], keys))
            found[ref] = digest.hexdigest()[:32]
    return found


def _checksum(secret: Obj, keys: tuple[str, ...]) -> bytes:
    """Return the checksum of these keys of a Secret, keyed with its uid."""
    digest = hmac.new(str(secret["metadata"]["uid"]).encode(), digestmod=hashlib.sha256)
    for key in keys:
        raw = raw_value(secret, key)
        digest.update(f"{key}:{-1 if raw is None else len(raw)}:".encode() + (raw or b""))
    return digest.digest()


SHORTEST_HIDDEN = 4
"""Characters of the shortest value that is masked: a shorter one tells little, and would mask half of the text."""
NAMES_OF_NO_SECRET = frozenset({"admin", "PGSQL"})
"""Documented values, which are not secret."""


def _values_to_hide(desired: Desired, secrets: Mapping[str, Obj | None]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for one in named(desired):
        for form in one.forms:
            text = decoded(secrets.get(one.name), form.key) or ""
            if len(text) >= SHORTEST_HIDDEN and text not in NAMES_OF_NO_SECRET:
                found[text] = None
    return tuple(found)
