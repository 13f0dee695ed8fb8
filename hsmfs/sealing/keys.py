"""Ed25519 keys and the certificates that carry them, in PEM (RFC 8032, RFC 8410, RFC 7468)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import BadSeal, ConfigError

SIGNATURE = 64
"""Bytes of a signature."""
_HOW = "make one with: openssl genpkey -algorithm ed25519 -out KEY.pem"


class Party:
    """Somebody's public key, from a PUBLIC KEY or a CERTIFICATE.

    Attributes:
        pem: as it was given. name: the certificate's subject, or '' for a bare key.
    """

    def __init__(self, pem: bytes, what: str) -> None:
        self.pem, self.name = pem, ""
        try:
            if b"BEGIN CERTIFICATE" in pem:
                found = x509.load_pem_x509_certificate(pem)
                self.name = found.subject.rfc4514_string()
                key = found.public_key()
            else:
                key = serialization.load_pem_public_key(pem)  # type: ignore[assignment]
        except (ValueError, UnsupportedAlgorithm) as fault:
            raise BadSeal(f"{what} is neither a public key nor a certificate: {fault}") from fault
        if not isinstance(key, Ed25519PublicKey):
            raise BadSeal(f"{what} is not an Ed25519 key", next_step=_HOW)
        self.key: Ed25519PublicKey = key

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the key's SubjectPublicKeyInfo (DER)."""
        return hashlib.sha256(_spki(self.key)).hexdigest()

    def signed(self, data: bytes, signature: bytes) -> bool:
        """Whether the party's key made the signature of data."""
        try:
            self.key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class Signer:
    """Somebody's private key, with what others know of it."""

    def __init__(self, key: Ed25519PrivateKey, party: Party) -> None:
        self._key, self.party = key, party

    def sign(self, data: bytes) -> bytes:
        """The signature, SIGNATURE bytes."""
        return self._key.sign(data)


def party(path: Path) -> Party:
    """From a file. Raises ConfigError, BadSeal."""
    return Party(_read(path), str(path))


def signer(path: Path, certificate: Path | None = None) -> Signer:
    """A private key without a passphrase, and its certificate if there is one. Raises ConfigError,
    BadSeal."""
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise ConfigError(f"{path} is no private key in PEM: {fault}", next_step=_HOW) from fault
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key", next_step=_HOW)
    public = key.public_key()
    if certificate is None:
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Signer(key, Party(pem, str(path)))
    known = party(certificate)
    if _spki(known.key) != _spki(public):
        raise ConfigError(f"{certificate} is not the certificate of the key {path}")
    return Signer(key, known)


def _spki(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise ConfigError(f"{path}: {fault.strerror}", next_step="correct the path") from fault
