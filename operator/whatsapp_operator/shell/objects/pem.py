"""Reads certificates and private keys. Pure; loads a library that is compiled and large."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization


def has_certificates(raw: bytes) -> bool:
    """Return whether there is at least one PEM certificate, and none that is broken."""
    try:
        return bool(x509.load_pem_x509_certificates(raw))
    except ValueError:
        return False


def private_key_fault(raw: bytes) -> str | None:
    """Return what is wrong with a PEM private key, as the end of a sentence; None if nothing is."""
    try:
        # The strength of the key is not checked: that takes long, and TLS libraries do it.
        serialization.load_pem_private_key(raw, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return "is encrypted with a passphrase. Put the private key there without one."
    except UnsupportedAlgorithm:
        # The client may support a kind of key that this library does not.
        return None
    except ValueError:
        return "is no PEM private key. Put the whole key there, from -----BEGIN to the line that ends it."
    return None


def are_a_pair(certificate: bytes, key: bytes) -> bool:
    """Return whether they belong together; True if this library does not support their kind."""
    try:
        private = serialization.load_pem_private_key(key, None, unsafe_skip_rsa_key_validation=True)
        return x509.load_pem_x509_certificate(certificate).public_key() == private.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return True
