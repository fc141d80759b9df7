"""Compute the vectors of keys that sign checkpoints; see ``gen_vectors.py``."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts.gen_vectors_azure import D, E, N, P, Q
from scripts.gen_vectors_kms import Case, known_bytes
from scripts.gen_vectors_signatures import statement, u16

NAME = "example.org/app"
TEXT = f"{NAME}\n3\n{base64.b64encode(known_bytes('a root')).decode()}\n"
KMS = b"\xffkeystead.org/kms/v1\n"

NAMES = [
    ("example.org/app", "example.org/app"),
    ("my app", "my%20app"),
    ("a+b 100%", "a%2Bb%20100%25"),
    ("Gr\u00f6\u00dfe", "Gr\u00f6\u00dfe"),
]


def note_key(comment: str, typed: bytes, sign: Callable[[bytes], bytes], text: str = TEXT) -> Case:
    """Return a key of a type, and a note that it has signed.

    Args:
        typed: the type, and what it says a key is.
    """
    told = typed[1:] if typed[:1] == b"\x02" else NAME.encode() + b"\n" + typed
    key_id = hashlib.sha256(told).digest()[:4]
    line = base64.b64encode(key_id + sign(text.encode())).decode()
    return {
        "comment": comment,
        "vkey": f"{NAME}+{key_id.hex()}+{base64.b64encode(typed).decode()}",
        "text": text,
        "note": f"{text}\n\u2014 {NAME} {line}\n",
    }


def note_keys() -> list[Case]:
    """Return a key of each type."""
    ed25519 = Ed25519PrivateKey.from_private_bytes(known_bytes("log signer"))
    p256 = ec.derive_private_key(int.from_bytes(known_bytes("log signer P-256"), "big") >> 1, ec.SECP256R1())
    p384 = ec.derive_private_key(int.from_bytes(known_bytes("log signer P-384"), "big"), ec.SECP384R1())
    rsa_key = _rsa_key()
    mac_key = known_bytes("log signer MAC")
    mac_of = b"".join(map(u16, (b"HMAC-SHA-256", b"cloud:audit-mac", b"2")))
    unversioned = b"".join(map(u16, (b"HMAC-SHA-256", b"cloud:audit-mac", b"")))

    def make_mac(text: bytes) -> bytes:
        return hmac.digest(mac_key, statement(text), "sha256")

    long_text = TEXT + f"{'x' * 4096}\n"
    cases = [
        note_key("Ed25519", b"\x01" + ed25519.public_key().public_bytes_raw(), ed25519.sign),
        note_key(
            "ECDSA over SHA-256",
            b"\x02" + _der(p256.public_key()),
            lambda text: p256.sign(text, ec.ECDSA(SHA256(), deterministic_signing=True)),
        ),
        note_key(
            "ECDSA over SHA-384",
            KMS + u16(b"ECDSA-SHA-384") + u16(_der(p384.public_key())),
            lambda text: p384.sign(statement(text), ec.ECDSA(SHA384(), deterministic_signing=True)),
        ),
        note_key(
            "RSA PKCS #1 over SHA-256",
            KMS + u16(b"RSA-PKCS1-SHA-256") + u16(_der(rsa_key.public_key())),
            lambda text: rsa_key.sign(statement(text), padding.PKCS1v15(), SHA256()),
        ),
        note_key(
            "RSA PKCS #1, a text of more than 4096 bytes",
            KMS + u16(b"RSA-PKCS1-SHA-256") + u16(_der(rsa_key.public_key())),
            lambda text: rsa_key.sign(statement(text), padding.PKCS1v15(), SHA256()),
            long_text,
        ),
    ]
    macs = [
        note_key("MAC of version 2 of a key", KMS + mac_of, make_mac),
        note_key("MAC of a key without versions", KMS + unversioned, make_mac),
    ]
    return cases + [{**case, "mac_key": mac_key.hex()} for case in macs]


def names() -> list[Case]:
    """Return what a stream's signing key is called unless something else is said."""
    return [{"stream": stream, "name": name} for stream, name in NAMES]


def _rsa_key() -> rsa.RSAPrivateKey:
    numbers = rsa.RSAPrivateNumbers(
        P, Q, D, rsa.rsa_crt_dmp1(D, P), rsa.rsa_crt_dmq1(D, Q), rsa.rsa_crt_iqmp(P, Q), rsa.RSAPublicNumbers(E, N)
    )
    return numbers.private_key()


def _der(public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
