"""Hashes of passcodes and PINs: Argon2id over an HMAC under a pepper. Spec: docs/spec/secret-hash-v1.md."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from struct import pack
from typing import Final

from keystead.crypto.argon2id import argon2id
from keystead.crypto.framing import framed
from keystead.devices.unpadded import from_unpadded, to_unpadded
from keystead.errors import InvalidInputError
from keystead.ports import Random, SecretKind

_SALT_SIZE: Final = 16
_HASH_SIZE: Final = 32
_NUMBER: Final = "(0|[1-9][0-9]{0,6})"
_PHC: Final = re.compile(
    rf"\$argon2id\$v=19\$m={_NUMBER},t={_NUMBER},p={_NUMBER},keyid=([A-Za-z0-9+/]{{11}})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{43})"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What Argon2id takes: memory in KiB, iterations, lanes."""

    memory_kib: int = 19_456
    iterations: int = 2
    lanes: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.lanes <= 16 and 1 <= self.iterations <= 64 and 8 * self.lanes <= self.memory_kib <= 1 << 20):
            raise InvalidInputError("Argon2id takes 1 to 16 lanes, 1 to 64 iterations and 8 KiB a lane to 1 GiB")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose secret it is, and which: what a hash is bound to."""

    kind: SecretKind
    user: str
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class SecretHash:
    """A stored hash; ``str`` is its text."""

    pepper_id: int
    cost: Cost
    salt: bytes
    value: bytes

    def __str__(self) -> str:
        cost = self.cost
        return (
            f"$argon2id$v=19$m={cost.memory_kib},t={cost.iterations},p={cost.lanes}"
            f",keyid={to_unpadded(pack('>Q', self.pepper_id))}${to_unpadded(self.salt)}${to_unpadded(self.value)}"
        )

    @classmethod
    def parse(cls, text: str) -> SecretHash:
        """Return what a text says.

        Raises:
            InvalidInputError: it is no hash of this form, or takes more than is ever given.
        """
        found = _PHC.fullmatch(text)
        if found is None:
            raise InvalidInputError("this is no hash of a secret")
        memory, iterations, lanes = map(int, found.groups()[:3])
        pepper, salt, value = map(_bytes, found.groups()[3:])
        return cls(int.from_bytes(pepper, "big"), Cost(memory, iterations, lanes), salt, value)

    def is_of(self, secret: str, owner: Owner, pepper: bytes) -> bool:
        """Return whether the hash is that of ``secret``; takes the processor for some milliseconds."""
        computed = _argon2id(secret, owner, pepper, self.cost, self.salt)
        return hmac.compare_digest(computed, self.value)


def hash_secret(
    secret: str, owner: Owner, pepper: bytes, pepper_id: int, *, random: Random, cost: Cost | None = None
) -> SecretHash:
    """Return a new hash of ``secret``, which is in NFC; takes the processor for some milliseconds."""
    cost, salt = cost or Cost(), random(_SALT_SIZE)
    return SecretHash(pepper_id, cost, salt, _argon2id(secret, owner, pepper, cost, salt))


def _argon2id(secret: str, owner: Owner, pepper: bytes, cost: Cost, salt: bytes) -> bytes:
    message = framed("keystead secret v1", owner.kind, owner.tenant, owner.user, secret)
    keyed = hmac.digest(pepper, message, "sha256")
    return argon2id(
        keyed, salt, length=_HASH_SIZE, memory_kib=cost.memory_kib, iterations=cost.iterations, lanes=cost.lanes
    )


def _bytes(text: str) -> bytes:
    try:
        return from_unpadded(text)
    except ValueError:
        raise InvalidInputError("this is no hash of a secret") from None
