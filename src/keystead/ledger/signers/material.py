"""A signer whose keys are in the environment or in files. Spec: docs/spec/signatures-v1.md, section 2."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NoReturn, SupportsIndex, TypeVar

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidSignatureError,
    KeyNotFoundError,
    SystemShutdownError,
)
from keystead.ledger.signers.cache import Confirmed, HeldKey
from keystead.ledger.signers.format import INVALID, derive_key, statement
from keystead.ledger.signers.settings import IdForm, KeyAudit, NamedSignature, SignerSettings
from keystead.model import SecretBytes, SignatureAlgorithm
from keystead.providers.key_sources import MaterialSource, Reading, State

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

T = TypeVar("T")

ALGORITHMS: Final = frozenset({SignatureAlgorithm.HMAC_SHA_256, SignatureAlgorithm.ED25519})
_ATTEMPTS: Final = 3
_FORM: Final = IdForm()


class MaterialKey:
    """One key, as it signs and verifies."""

    def __init__(self, key: bytes, fingerprint: str, algorithm: SignatureAlgorithm) -> None:
        self.fingerprint = fingerprint
        self.held = HeldKey(key)
        self._signs_privately = algorithm is SignatureAlgorithm.ED25519

    def __repr__(self) -> str:
        return f"MaterialKey({self.fingerprint}, hidden)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("MaterialKey cannot be pickled or copied; read the key where it is needed")

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``; errors as ``HeldKey.mac``."""
        content = statement(message)
        return self._private_key().sign(content) if self._signs_privately else self.held.mac(content)

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is of ``message``."""
        from cryptography.exceptions import InvalidSignature

        content = statement(message)
        if not self._signs_privately:
            return hmac.compare_digest(self.held.mac(content), signature)
        try:
            self._private_key().public_key().verify(signature, content)
        except InvalidSignature:
            return False
        return True

    def _private_key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.held.copy())


class _Keys:
    """The keys that a source held, the newest first, and what it looked like then."""

    __slots__ = ("keys", "state")

    def __init__(self, keys: tuple[MaterialKey, ...], state: State) -> None:
        self.keys = keys
        self.state = state

    @property
    def fingerprints(self) -> list[str]:
        return [key.fingerprint for key in self.keys]

    def wipe(self) -> None:
        for key in self.keys:
            key.held.wipe()


class MaterialSigner:
    """Signs by the newest of several keys and verifies by all of them.

    Any key id is taken, unless one was configured; what counts in it is the fingerprint behind a number sign.

    Args:
        source: where the keys are.
        name: what key ids are made of where the caller gives none.
        key_id: the only id that is taken, with or without a fingerprint.
    """

    def __init__(
        self, source: MaterialSource, name: str, settings: SignerSettings | None = None, *, key_id: str | None = None
    ) -> None:
        self._settings = settings = settings or SignerSettings(ttl_s=1.0)
        self._algorithm = settings.algorithm or SignatureAlgorithm.HMAC_SHA_256
        if self._algorithm not in ALGORITHMS:
            raise ConfigurationError(
                f"keys from the environment or a file make {' or '.join(sorted(ALGORITHMS))}, not {self._algorithm}"
            )
        self._source = source
        self._name = name
        self._key_id = key_id
        self._audit = KeyAudit(name, settings.audit)
        self._held = Confirmed(self._fetch, settings.terms, drop=_Keys.wipe)
        self._baseline: str | None = None
        self._told: set[str] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"MaterialSigner({self._name!r})"

    async def sign(self, message: bytes, *, key_id: str | None = None) -> bytes:
        """Return the signature of ``message``.

        Raises:
            KeyNotFoundError, ConfigurationError: there is no key, it may not be read, or no key has the fingerprint.
            ProviderConnectionError: the disk failed.
        """
        return (await self.sign_named(message, key_id=key_id)).signature

    async def sign_named(self, message: bytes, *, key_id: str | None = None) -> NamedSignature:
        """Return the signature of ``message``, and the id with the fingerprint of the key; errors as ``sign``."""
        base = self._base(key_id)
        return await self._using(
            key_id, lambda keys: NamedSignature(keys[0].sign(message), _FORM.join(base, keys[0].fingerprint))
        )

    async def sign_batch(self, messages: Sequence[bytes], *, key_id: str | None = None) -> list[bytes]:
        """Return a signature for each message; errors as ``sign``."""
        return await self._using(key_id, lambda keys: [keys[0].sign(message) for message in messages])

    async def verify(self, message: bytes, signature: bytes, *, key_id: str | None = None) -> None:
        """Return if ``signature`` is of ``message``, by any of the keys or by the one whose fingerprint is named.

        Raises:
            InvalidSignatureError: it is not.
            KeyNotFoundError, ConfigurationError, ProviderConnectionError: it could not be checked; as ``sign``.
        """
        if not isinstance(signature, bytes | bytearray | memoryview):
            raise InvalidInputError("a signature is bytes")

        def check(keys: Sequence[MaterialKey]) -> bool:
            return any(key.has_signed(message, bytes(signature)) for key in keys)

        before = self._held.known
        if await self._using(key_id, check):
            return
        # The keys may have been changed since they were read, by whoever signed this.
        if await self._held.refresh() is before or not await self._using(key_id, check):
            raise InvalidSignatureError(INVALID)

    async def get_key(self, *, key_id: str | None = None) -> SecretBytes:
        """Return the newest key, or the one whose fingerprint is named; errors as ``sign``.

        The audit is told once for each key, and once more when the keys were read anew.
        """
        key, fingerprint = await self._using(key_id, lambda keys: (keys[0].held.copy(), keys[0].fingerprint))
        if fingerprint not in self._told:
            self._told.add(fingerprint)
            self._audit.tell("key.get", _FORM.join(self._base(key_id), fingerprint), fingerprint)
        return key

    async def derive_key(self, purpose: str, *, epoch: int = 0, key_id: str | None = None) -> SecretBytes:
        """Return the key that the newest key gives for a purpose and epoch of the stream; errors as ``sign``."""
        key = await self.get_key(key_id=key_id)
        return SecretBytes(derive_key(key, purpose, stream=self._settings.stream, epoch=epoch))

    async def current_key_id(self, *, key_id: str | None = None) -> str:
        """Return the id with the fingerprint of the newest key; errors as ``sign``."""
        return _FORM.join(self._base(key_id), (await self._current()).keys[0].fingerprint)

    async def rotate_check(self) -> bool:
        """Look now; True if another key is the newest than when this was asked last, or at first.

        Errors as ``sign``.
        """
        self._require_open()
        newest = (await self._held.refresh()).keys[0].fingerprint
        rotated = self._baseline not in (None, newest)
        self._baseline = newest
        return rotated

    async def aclose(self) -> None:
        """Overwrite every key; idempotent."""
        self._is_closed = True
        self._held.close()

    async def _current(self) -> _Keys:
        self._require_open()
        if self._source.is_instant:
            known = self._held.known
            if known is None or self._source.look() != known.state:
                return await self._held.refresh()
            return known
        return await self._held.get()

    async def _using(self, key_id: str | None, use: Callable[[Sequence[MaterialKey]], T]) -> T:
        """Return what is made of the keys that an id means, which another thread may replace in the middle of it."""
        for _ in range(_ATTEMPTS - 1):
            keys = await self._meant(key_id)
            try:
                return use(keys)
            except SystemShutdownError:
                self._require_open()
        return use(await self._meant(key_id))

    async def _meant(self, key_id: str | None) -> Sequence[MaterialKey]:
        self._base(key_id)
        fingerprint = _FORM.split(key_id)[1] if key_id else None
        keys = (await self._current()).keys
        found = _with(keys, fingerprint) or _with((await self._held.refresh()).keys, fingerprint)
        if not found:
            raise KeyNotFoundError(
                f"{self._source.name} has no key with the fingerprint {fingerprint}: put it back behind the newest one "
                "if what it signed is to be verified"
            )
        return found

    def _base(self, key_id: str | None) -> str:
        base = _FORM.split(key_id)[0] if key_id else self._name
        if key_id and self._key_id is not None and base != self._key_id:
            raise KeyNotFoundError(f"the key {base!r} is not the configured one ({self._key_id!r})")
        return base

    async def _fetch(self, before: _Keys | None) -> _Keys:
        reading = await self._read(before)
        fingerprints = [key.fingerprint for key in reading.keys]
        if before is not None and fingerprints in ([], before.fingerprints):
            before.state = reading.state
            return before
        keys = tuple(MaterialKey(each.key, each.fingerprint, self._algorithm) for each in reading.keys)
        self._told.clear()
        action = "key.read"
        if before is not None:
            action = "key.rotate" if before.fingerprints[0] != fingerprints[0] else "key.refresh"
        self._baseline = self._baseline or fingerprints[0]
        self._audit.tell(action, _FORM.join(self._name, fingerprints[0]), fingerprints[0])
        return _Keys(keys, reading.state)

    async def _read(self, before: _Keys | None) -> Reading:
        """Return what the source holds; no keys where it looks as it did before."""

        def call() -> Reading:
            if before is not None and self._source.look() == before.state:
                return Reading((), before.state)
            return self._source.read()

        return call() if self._source.is_instant else await asyncio.to_thread(call)

    def _require_open(self) -> None:
        if self._is_closed:
            raise SystemShutdownError("the signer was closed")


def _with(keys: Sequence[MaterialKey], fingerprint: str | None) -> list[MaterialKey]:
    return [key for key in keys if fingerprint in (None, key.fingerprint)]
