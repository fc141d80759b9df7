"""Session keys: drawn through a KMS, kept only wrapped, and confirmed by it again and again while they are used.

Spec: docs/spec/signatures-v1.md, section 4.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeVar

from keystead.errors import (
    DecryptionError,
    InvalidSignatureError,
    KeyDecryptionFailError,
    KeyGenerationFailError,
    ProviderAuthError,
    SystemShutdownError,
)
from keystead.ledger.signers.cache import Confirmed, HeldKey
from keystead.ledger.signers.format import (
    INVALID,
    SESSION_KEY_SIZE,
    SIGN,
    SessionSignature,
    session_head,
    statement,
    wrapped_bytes,
)
from keystead.ledger.signers.keys import NamedKey, ServedKeys
from keystead.ledger.signers.settings import KeyAudit, NamedSignature, SignerSettings
from keystead.model import EncryptedData, SecretBytes
from keystead.ports import GeneratesDataKeys, KmsProvider, Random

T = TypeVar("T")

MAX_OPENED: Final = 256
"""Session keys of others that are held for verifying; the least recently used is given up for another."""
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A session key in memory, and wrapped.

    Attributes:
        encrypted: as the KMS gave it; ``wrapped`` is what of it stands in a signature.
        key_id: names the version of the KMS key that wrapped it.
        identity: the KMS key as it was described when this one was drawn.
    """

    encrypted: EncryptedData
    wrapped: bytes
    key_id: str
    identity: tuple[str, str | None] | None
    key: HeldKey = field(repr=False)
    signing: HeldKey = field(repr=False)

    @classmethod
    def of(
        cls,
        encrypted: EncryptedData,
        plaintext: bytes,
        stream: str,
        *,
        key_id: str = "",
        identity: tuple[str, str | None] | None = None,
    ) -> SessionKey:
        """Return a session key with the key that it signs with."""
        key = HeldKey(plaintext)
        signing = key.derive(SIGN, stream=stream)
        return cls(encrypted, wrapped_bytes(encrypted), key_id, identity, key, signing)

    @property
    def version(self) -> str | None:
        """The version of the KMS key, where the KMS tells one."""
        return self.encrypted.key_reference.key_version

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``."""
        head = session_head(self.wrapped)
        return head + self.signing.mac(head + statement(message))

    def wipe(self) -> None:
        """Overwrite the key and what was derived from it."""
        self.key.wipe()
        self.signing.wipe()


async def draw_session_key(
    provider: KmsProvider, key_id: str, context: Mapping[str, str], random: Random
) -> tuple[EncryptedData, SecretBytes]:
    """Return a new session key wrapped and in clear: drawn by the KMS where it does that, here where not.

    Raises:
        KeyGenerationFailError: the KMS drew a key of another size.
        KMSError: whatever the KMS refuses.
    """
    if not isinstance(provider, GeneratesDataKeys):
        plaintext = SecretBytes(random(SESSION_KEY_SIZE))
        return await provider.encrypt(plaintext, key_id, context=context), plaintext
    pair = await provider.generate_data_key(key_id, context=context)
    if len(pair.plaintext_key) != SESSION_KEY_SIZE:
        raise KeyGenerationFailError("the KMS drew a session key that is not 32 bytes")
    return pair.encrypted_key, pair.plaintext_key


class SessionKeys:
    """Draws session keys through a KMS to sign with, and opens those of others to verify."""

    def __init__(self, provider: KmsProvider, served: ServedKeys, settings: SignerSettings, audit: KeyAudit) -> None:
        self._provider = provider
        self._served = served
        self._settings = settings
        self._audit = audit
        self._context = settings.session_context()
        self._current = {
            key_id: Confirmed(self._drawing(key_id), settings.terms, drop=SessionKey.wipe) for key_id in served.ids
        }
        self._opened: OrderedDict[bytes, Confirmed[SessionKey]] = OrderedDict()
        self._told: dict[str, float] = {}
        self._is_closed = False

    async def current(self, key_id: str) -> SessionKey:
        """Return the session key that signs now for a configured key.

        Raises:
            KeyNotFoundError, KeyStateError, ProviderAuthError: the KMS does not let the key be used any more.
            ProviderConnectionError: the KMS does not answer, and the grace is over.
        """
        held = self._current[key_id]
        session = await held.get()
        identity = (await self._served.describe(key_id)).identity
        if identity is not None and session.identity != identity:
            held.expire()
            session = await held.get()
        return session

    async def sign_batch(self, messages: list[bytes], key_id: str) -> list[NamedSignature]:
        """Return the signature of each message; errors as ``current``."""

        def sign(session: SessionKey) -> list[NamedSignature]:
            return [NamedSignature(session.sign(message), session.key_id) for message in messages]

        return await self._using(lambda: self.current(key_id), sign)

    async def get_key(self, key_id: str) -> SecretBytes:
        """Return the session key itself, in bytes that cannot be wiped; errors as ``current``.

        The audit is told once each time that the KMS has confirmed the key, not each time that it is got.
        """
        session, key = await self._using(lambda: self.current(key_id), lambda session: (session, session.key.copy()))
        confirmed_at = self._current[key_id].confirmed_at
        if self._told.get(session.key_id) != confirmed_at:
            self._told[session.key_id] = confirmed_at
            self._audit.tell("key.get", session.key_id, session.version)
        return key

    async def verify(self, message: bytes, signature: bytes, named: NamedKey) -> None:
        """Return if ``signature`` is of ``message``, under the key that was named.

        Raises:
            InvalidSignatureError: it is not.
            KeyNotFoundError: it was made under a key that is none of ours.
            KeyStateError, ProviderConnectionError: the KMS does not open its key now, or does not answer.
        """
        parts = SessionSignature.parse(signature)
        encrypted = self._read_before(parts.wrapped) or parts.encrypted()
        await self._require_named(encrypted, named)
        sealed = parts.head + statement(message)
        mac = await self._using(
            lambda: self._session_of(parts.wrapped, encrypted), lambda session: session.signing.mac(sealed)
        )
        if not hmac.compare_digest(mac, parts.mac):
            raise InvalidSignatureError(INVALID)

    async def renew(self) -> None:
        """Have every session key in use confirmed, or replaced where its KMS key was rotated."""
        for key_id, held in self._current.items():
            if held.known is not None:
                await held.refresh()
                await self.current(key_id)

    def close(self) -> None:
        """Overwrite every key."""
        self._is_closed = True
        opened, self._opened = self._opened, OrderedDict()
        for held in (*self._current.values(), *opened.values()):
            held.close()

    async def _require_named(self, encrypted: EncryptedData, named: NamedKey) -> None:
        """Refuse a session key that is wrapped by a key of nobody we know, or by another one than was named."""
        reference = encrypted.key_reference
        is_named = (await self._served.find(reference.key_id)).key_id == named.key_id
        if named.version is not None:
            key_id, version = named.version
            is_named &= version in (None, reference.key_version)
            is_named &= reference.key_id == key_id or key_id in self._served.ids
        if not is_named:
            raise InvalidSignatureError("the signature was made under another key than the one that was named")

    async def _using(self, find: Callable[[], Awaitable[SessionKey]], use: Callable[[SessionKey], T]) -> T:
        """Return what is made of a session key that another thread may give up for a newer one in the middle of it."""
        for _ in range(_ATTEMPTS - 1):
            session = await find()
            try:
                return use(session)
            except SystemShutdownError:
                if self._is_closed:
                    raise
        return use(await find())

    def _read_before(self, wrapped: bytes) -> EncryptedData | None:
        """Return what a wrapped key says that was read before; reading it takes longer than everything else."""
        opened = self._opened.get(sha256(wrapped).digest())
        for held in (*self._current.values(), *([opened] if opened else [])):
            known = held.known
            if known is not None and known.wrapped == wrapped:
                return known.encrypted
        return None

    async def _session_of(self, wrapped: bytes, encrypted: EncryptedData) -> SessionKey:
        for held in self._current.values():
            known = held.known
            if known is not None and known.wrapped == wrapped:
                session = await held.get()
                if session.wrapped == wrapped:
                    return session
        return await self._open(wrapped, encrypted)

    async def _open(self, wrapped: bytes, encrypted: EncryptedData) -> SessionKey:
        slot = sha256(wrapped).digest()
        held = self._opened.get(slot)
        if held is None:
            held = self._opened[slot] = Confirmed(self._opening(encrypted), self._settings.terms, drop=SessionKey.wipe)
            if len(self._opened) > MAX_OPENED:
                self._opened.popitem(last=False)[1].close()
        else:
            self._opened.move_to_end(slot)
        try:
            return await held.get()
        finally:
            # What does not open is not remembered.
            if held.known is None and self._opened.get(slot) is held:
                del self._opened[slot]

    def _opening(self, encrypted: EncryptedData) -> Callable[[SessionKey | None], Coroutine[Any, Any, SessionKey]]:
        async def fetch(before: SessionKey | None) -> SessionKey:
            try:
                plaintext = await self._unwrapped(encrypted, "key.unwrap" if before is None else "key.refresh")
            except DecryptionError:
                raise InvalidSignatureError(INVALID) from None
            if len(plaintext) != SESSION_KEY_SIZE:
                raise InvalidSignatureError(INVALID)
            return before or SessionKey.of(encrypted, plaintext, self._settings.stream)

        return fetch

    def _drawing(self, key_id: str) -> Callable[[SessionKey | None], Coroutine[Any, Any, SessionKey]]:
        async def fetch(before: SessionKey | None) -> SessionKey:
            described = await self._served.describe_enabled(key_id)
            if before is not None and described.identity in (None, before.identity):
                try:
                    await self._confirm(before)
                    return before
                except ProviderAuthError:
                    # Whoever may only draw keys, and not unwrap, goes on with a new one, if he may draw that.
                    pass
            encrypted, plaintext = await self._audit.told(
                "key.draw",
                key_id,
                lambda: draw_session_key(self._provider, key_id, self._context, self._settings.random),
                lambda drawn: drawn[0].key_reference.key_version,
            )
            self._served.note(key_id, encrypted.key_reference.key_id)
            return SessionKey.of(
                encrypted,
                plaintext,
                self._settings.stream,
                key_id=self._served.form.of_reference(encrypted.key_reference),
                identity=described.identity,
            )

        return fetch

    async def _confirm(self, session: SessionKey) -> None:
        try:
            plaintext = await self._unwrapped(session.encrypted, "key.refresh")
        except DecryptionError:
            raise KeyDecryptionFailError(_ANOTHER) from None
        if not session.key.equals(plaintext):
            raise KeyDecryptionFailError(_ANOTHER)

    async def _unwrapped(self, encrypted: EncryptedData, action: str) -> SecretBytes:
        async def call() -> SecretBytes:
            return SecretBytes(await self._provider.decrypt(encrypted, context=self._context))

        reference = encrypted.key_reference
        return await self._audit.told(
            action, self._served.form.of_reference(reference), call, lambda _: reference.key_version
        )


_ANOTHER: Final = "the KMS no longer unwraps the session key that it wrapped; another one is drawn at the next call"
