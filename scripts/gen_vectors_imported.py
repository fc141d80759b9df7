"""Compute the vectors of other systems' forms that importers read; see ``gen_vectors.py``."""

from __future__ import annotations

import base64
import hashlib
import hmac
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY = bytes(range(32))
IV = bytes(range(16))
TEXT = "née Byron ✓, more than one block"
TIME = 1_700_000_000
COLUMN_KEY = "the key of a column"


def imported_file() -> dict[str, Any]:
    """Return ``imported-forms.json``."""
    return {
        "spec": "docs/spec/imported-forms.md",
        "plaintext": TEXT,
        "tests": [
            _case("fernet", _fernet(KEY), keys=[_url(KEY)]),
            _case(
                "django-fernet-encrypted-fields",
                _fernet(hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 100_000)),
                keys=["secret"],
                salts=["salt"],
            ),
            _case("django-fernet-fields", _fernet(_hkdf(b"secret")), keys=["secret"]),
            {"format": "django-cryptography", "options": {"keys": ["secret"]}, "stored_hex": _pickled().hex()},
            *(
                _case("sqlalchemy-utils", _cbc(padding), keys=[COLUMN_KEY], engine="aes", padding=padding)
                for padding in ("naive", "pkcs5", "oneandzeroes", "zeroes")
            ),
            _case("sqlalchemy-utils", _gcm(), keys=[COLUMN_KEY], engine="aes-gcm"),
            _case("sqlalchemy-utils", _fernet(_column_key()), keys=[COLUMN_KEY], engine="fernet"),
            _case(
                "aws-encryption-sdk",
                base64.b64encode(_message()).decode(),
                raw_key=KEY.hex(),
                namespace="app",
                name="k1",
                context={"table": "people"},
            ),
        ],
    }


def _case(format: str, stored: str, **options: Any) -> dict[str, Any]:
    return {"format": format, "options": options, "stored": stored}


def _fernet(key: bytes) -> str:
    payload = b"\x80" + pack(">Q", TIME) + IV + _sealed(key[16:], IV, _pkcs7(TEXT.encode()))
    return _url(payload + hmac.digest(key[:16], payload, "sha256"))


def _hkdf(secret: bytes) -> bytes:
    pseudorandom = hmac.digest(b"django-fernet-fields-hkdf-salt", secret, "sha256")
    return hmac.digest(pseudorandom, b"django-fernet-fields\x01", "sha256")


def _pickled() -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", b"secret", b"django-cryptography", 30_000)
    content = TEXT.encode()
    # Protocol 4: a frame, a text of less than 256 bytes, which is noted, and the end.
    body = b"\x8c" + bytes([len(content)]) + content + b"\x94."
    payload = b"\x80" + pack(">Q", TIME) + IV + _sealed(key, IV, _pkcs7(b"\x80\x04\x95" + pack("<Q", len(body)) + body))
    return payload + hmac.digest(b"secret", payload, "sha256")


def _column_key() -> bytes:
    return hashlib.sha256(COLUMN_KEY.encode()).digest()


def _cbc(padding: str) -> str:
    content, key = TEXT.encode(), _column_key()
    size = 16 - len(content) % 16
    tail = {
        "naive": b"*" * size,
        "pkcs5": bytes([size]) * size,
        "oneandzeroes": b"\x80" + bytes(size - 1),
        "zeroes": bytes(size - 1) + bytes([size]),
    }[padding]
    return base64.b64encode(_sealed(key, key[:16], content + tail)).decode()


def _gcm() -> str:
    sealed = AESGCM(_column_key()).encrypt(IV[:12], TEXT.encode(), None)
    return base64.b64encode(IV[:12] + sealed[-16:] + sealed[:-16]).decode()


def _message() -> bytes:
    """A message of version 1 under suite 0x0078, which derives no key; not framed, under a raw AES key."""
    data_key, message_id = bytes(range(32, 64)), bytes(range(64, 80))
    context = pack(">H", 1) + _counted(b"table") + _counted(b"people")
    info = b"k1" + pack(">II", 128, 12) + IV[:12]
    wrapped = AESGCM(KEY).encrypt(IV[:12], data_key, context)
    header = b"\x01\x80" + pack(">H", 0x0078) + message_id + _counted(context)
    header += pack(">H", 1) + _counted(b"app") + _counted(info) + _counted(wrapped)
    header += b"\x01" + bytes(4) + bytes([12]) + bytes(4)
    cipher, content = AESGCM(data_key), TEXT.encode()
    nonce = pack(">IQ", 0, 1)
    bound = message_id + b"AWSKMSEncryptionClient Single Block" + pack(">IQ", 1, len(content))
    sealed = cipher.encrypt(nonce, content, bound)
    return header + bytes(12) + cipher.encrypt(bytes(12), b"", header) + nonce + pack(">Q", len(content)) + sealed


def _counted(content: bytes) -> bytes:
    return pack(">H", len(content)) + content


def _pkcs7(content: bytes) -> bytes:
    size = 16 - len(content) % 16
    return content + bytes([size]) * size


def _sealed(key: bytes, iv: bytes, padded: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()
