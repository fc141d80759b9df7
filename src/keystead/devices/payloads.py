"""What is inside a ciphertext: a secret as it is, or one bound to an operation, a key and a time.

Spec: docs/spec/client-keys-v1.md, section 4.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Final

from keystead.crypto.codec import read_json
from keystead.devices.names import nfc
from keystead.devices.pairs import FAILED
from keystead.errors import DecryptionError

WINDOW_MS: Final = 120_000
"""How far a payload's time may be from the service's, either way."""

_MEMBERS: Final = frozenset({"v", "op", "aud", "nonce", "ts", "secret"})
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")


class Operation(StrEnum):
    """What a request is about; the names are GraphQL's."""

    SET_PASSCODE = "setUserPasscode"
    VERIFY_PASSCODE = "verifyUserPasscode"
    SET_PIN = "setTransactionPin"
    VERIFY_PIN = "verifyTransactionPin"
    DECRYPT = "decryptData"


def read_secret(plaintext: bytes) -> str:
    """Return the secret that is all of a payload, in NFC.

    Raises:
        DecryptionError: it is no UTF-8.
    """
    try:
        return nfc(plaintext.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    raise DecryptionError(FAILED)


def read_bound_secret(plaintext: bytes, operation: Operation, key_id: str, now: datetime) -> str:
    """Return the secret of a version 2 payload, in NFC.

    Raises:
        DecryptionError: it is none, or for another operation, key or time; the same error for all.
    """
    members = _members(plaintext)
    secret, sent_ms = members.get("secret"), members.get("ts")
    is_meant = (
        members.keys() == _MEMBERS
        and type(members["v"]) is int
        and (members["v"], members["op"], members["aud"]) == (2, operation.value, key_id)
        and isinstance(members["nonce"], str)
        and _NONCE.fullmatch(members["nonce"]) is not None
        and type(sent_ms) is int
        and abs(sent_ms - int(now.timestamp() * 1000)) <= WINDOW_MS
    )
    if not is_meant or not isinstance(secret, str) or not _is_text(secret):
        raise DecryptionError(FAILED)
    return nfc(secret)


def _members(plaintext: bytes) -> dict[str, object]:
    """Return the members of a JSON object; nothing for everything else."""
    try:
        found = read_json(plaintext)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_text(secret: str) -> bool:
    """Whether it is text at all: JSON may escape half of a surrogate pair."""
    return not any("\ud800" <= sign <= "\udfff" for sign in secret)
