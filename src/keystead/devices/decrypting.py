"""What a client has encrypted to its key pair, opened: bounded, for its owner, once, and all failures alike.

Spec: docs/spec/client-keys-v1.md, sections 3 and 4.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from keystead import telemetry
from keystead.devices import operations
from keystead.devices.ciphertexts import MAX_SIZE, OVERSIZE, decode_ciphertext
from keystead.devices.client_keys import ClientKeys
from keystead.devices.junk import JunkLimit
from keystead.devices.metrics import Metrics
from keystead.devices.operations import Reason
from keystead.devices.pairs import ALGORITHMS, FAILED, Algorithm, OpenKey, Purpose, binding, make_pair
from keystead.devices.payloads import WINDOW_MS, Operation, read_bound_secret, read_secret
from keystead.devices.surroundings import Surroundings
from keystead.devices.uses import UseCounts
from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    KeyExpiredError,
    KeyNotFoundError,
    KMSError,
    RateLimitedError,
    ReplayedError,
    StorageOperationError,
)
from keystead.model import Principal, SecretBytes
from keystead.ports import AuditEvent, ClientKeyRecord, NotesUses, PairKind
from keystead.runtime.off_loop import in_thread

JUNK: Final = (DecryptionError, KeyExpiredError, KeyNotFoundError, ReplayedError)
"""What is wrong with a ciphertext that cannot be opened; clients are not told which."""

_PURPOSES: Final = {
    Operation.SET_PASSCODE: Purpose.PASSCODE,
    Operation.VERIFY_PASSCODE: Purpose.PASSCODE,
    Operation.SET_PIN: Purpose.TRANSACTION_PIN,
    Operation.VERIFY_PIN: Purpose.TRANSACTION_PIN,
    Operation.DECRYPT: Purpose.DATA,
}
_LONG: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A ciphertext as a client sends it.

    Attributes:
        text: base64.
        key_id: of the pair that it is encrypted to.
        algorithm: as it is declared; None for the default of the pair's kind.
        payload_version: what is inside, as it is declared: 1, the secret alone, or 2.
    """

    text: str
    key_id: str
    algorithm: Algorithm | None = None
    payload_version: int = 1


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in it, with the ciphertext's SHA-256, and until when it could be sent again."""

    secret: str
    key: ClientKeyRecord
    digest: bytes
    until: datetime


Confirm = Callable[[Opened], Awaitable[bool]]


class Decrypting:
    """Opens ciphertexts for the owners of the key pairs.

    Args:
        max_size: of a ciphertext, in decoded bytes.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        keys: ClientKeys,
        uses: UseCounts,
        metrics: Metrics,
        *,
        max_size: int = MAX_SIZE,
    ) -> None:
        self._s = surroundings
        self._keys = keys
        self._uses = uses
        self._metrics = metrics
        self._junk = JunkLimit(surroundings.clock)
        self._max_size = max_size
        self._decoy: OpenKey | None = None

    async def open(
        self, who: Principal, encrypted: Encrypted, operation: Operation, *, confirm: Confirm | None = None
    ) -> Opened:
        """Return what is in a ciphertext; nothing is remembered of it, and no guess at a secret counted.

        Args:
            confirm: return whether the pair is still as it is in what was opened, and the ciphertext new; where it is
                so, the store is not asked for them before. Nothing may come of it elsewhere.

        Raises:
            RateLimitedError: this user has sent too much that did not decrypt.
            InvalidInputError: its key id or payload version cannot be one.
            KeyNotFoundError, KeyExpiredError: as ``ClientKeys.find_for``.
            ReplayedError: it has succeeded before.
            DecryptionError: everything else that is wrong with it.
        """
        begun, of = self._s.clock.monotonic(), _Found()
        reason: Reason | None = None
        try:
            self._junk.check(who)
            if confirm is not None and (opened := await self._confirmed(who, encrypted, operation, of, confirm)):
                return opened
            return await self._opened(who, encrypted, operation, of)
        except Exception as exc:
            reason = _reason_of(exc)
            if isinstance(exc, JUNK):
                self._junk.count(who)
            raise
        finally:
            self._metrics.note(
                operations.Operation.DECRYPT,
                self._s.clock.monotonic() - begun,
                reason=reason,
                key_id=encrypted.key_id,
                device_id=None if of.key is None else of.key.device_id,
                tenant=who.tenant,
                is_owner=of.key is not None,
            )

    async def decrypt_data(self, who: Principal, encrypted: Encrypted) -> str:
        """Return what is in a ciphertext of data, as often as it is sent, once that is in the audit trail.

        Raises:
            KMSError: as ``open``; or it could not be recorded.
        """
        opened = await self.open(who, encrypted, Operation.DECRYPT)
        details = {"client_key": opened.key.id, "device": opened.key.device_id, **who.details()}
        if isinstance(self._s.audit, NotesUses):
            await self._s.audit.note(AuditEvent("client_key.decrypt", details=details))
        return opened.secret

    async def _confirmed(
        self, who: Principal, encrypted: Encrypted, operation: Operation, of: _Found, confirm: Confirm
    ) -> Opened | None:
        """Open with a pair as this process remembers it; None where it does not, or where it is not confirmed."""
        try:
            of.key = self._keys.recent(who, encrypted.key_id)
            ciphertext = decode_ciphertext(encrypted.text, self._max_size)
        except JUNK:
            return None
        if of.key is None:
            return None
        of.plaintext = await self._decrypt(of.key, encrypted, operation, ciphertext)
        opened = self._read(encrypted, operation, of.key, sha256(ciphertext).digest(), of.plaintext)
        if not await confirm(opened):
            of.key = None
            return None
        self._uses.note(opened.key.id)
        return opened

    async def _opened(self, who: Principal, encrypted: Encrypted, operation: Operation, of: _Found) -> Opened:
        ciphertext, wrong = b"", None
        try:
            ciphertext = decode_ciphertext(encrypted.text, self._max_size)
        except DecryptionError as exc:
            wrong = exc
        digest = sha256(ciphertext).digest()
        missing: KMSError | None = None
        is_spent = False
        try:
            of.key, is_spent = await self._keys.find_for(who, encrypted.key_id, digest)
        except (KeyNotFoundError, KeyExpiredError) as exc:
            missing = exc
        key = of.key
        if key is None:
            if of.plaintext is None:
                await self._pretend()
            raise wrong or missing or DecryptionError(FAILED)
        try:
            # What is no ciphertext, and what was one, go the same way: the time does not tell one from another.
            plaintext = of.plaintext
            if plaintext is None:
                plaintext = await self._decrypt(key, encrypted, operation, ciphertext)
        except DecryptionError as exc:
            raise wrong or exc from None
        if is_spent and operation is not Operation.DECRYPT:
            raise ReplayedError
        self._uses.note(key.id)
        return self._read(encrypted, operation, key, digest, plaintext)

    async def _decrypt(
        self, key: ClientKeyRecord, encrypted: Encrypted, operation: Operation, ciphertext: bytes
    ) -> SecretBytes:
        opened = await self._keys.open(key)
        info = binding(key.id, key.device_id, _PURPOSES[operation])
        with telemetry.span("keystead.decrypt", {"keystead.kind": str(key.kind)}):
            return opened.open(ciphertext, encrypted.algorithm or ALGORITHMS[key.kind][0], info)

    def _read(
        self, encrypted: Encrypted, operation: Operation, key: ClientKeyRecord, digest: bytes, plaintext: SecretBytes
    ) -> Opened:
        now = self._s.clock.now()
        if encrypted.payload_version == 2:
            secret = read_bound_secret(plaintext, operation, key.id, now)
            # Its time may lie as far ahead as it may lie behind.
            return Opened(secret, key, digest, now + timedelta(milliseconds=2 * WINDOW_MS))
        if encrypted.payload_version != 1:
            raise InvalidInputError("payloadVersion is 1 or 2")
        expires_at = now + _LONG if key.expires_at is None else key.expires_at
        return Opened(read_secret(plaintext), key, digest, expires_at + self._s.policy.decrypt_grace)

    async def _pretend(self) -> None:
        """Take as long as what has a key: with a key of its own, and never what was sent, which may not fit it."""
        if self._decoy is None:
            pair = await in_thread(make_pair, PairKind.RSA_2048)
            self._decoy = OpenKey(PairKind.RSA_2048, pair.private)
        with contextlib.suppress(DecryptionError):
            self._decoy.open(b"", Algorithm.RSA_OAEP_SHA1)


@dataclass(slots=True)
class _Found:
    """The key pair that a ciphertext was for, once it is known to be the caller's; and what was in it."""

    key: ClientKeyRecord | None = None
    plaintext: SecretBytes | None = None


def _reason_of(failure: Exception) -> Reason:
    if isinstance(failure, DecryptionError) and str(failure) == OVERSIZE:
        return Reason.OVERSIZE
    return next((reason for kind, reason in _REASONS if isinstance(failure, kind)), Reason.OTHER)


_REASONS: Final[tuple[tuple[type[KMSError], Reason], ...]] = (
    (KeyNotFoundError, Reason.KEY_NOT_FOUND),
    (KeyExpiredError, Reason.KEY_EXPIRED),
    (ReplayedError, Reason.REPLAYED),
    (DecryptionError, Reason.NOT_DECRYPTED),
    (InvalidInputError, Reason.INVALID_INPUT),
    (RateLimitedError, Reason.RATE_LIMITED),
    (StorageOperationError, Reason.KEY_UNREADABLE),
)
