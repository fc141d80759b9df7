"""Signers: one face over keys that sign in a KMS, data keys drawn through one, and keys from environment or files.

    async with KmsSigner(provider, "alias/audit", SignerSettings(stream="app")) as signer:
        signature = await signer.sign(b"what happened")
        recorded = await signer.current_key_id()
        await signer.verify(b"what happened", signature, key_id=recorded)

What is invalid raises ``InvalidSignatureError``; every other error says that it could not be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    InvalidSignatureError,
    KeyNotExportableError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    SystemShutdownError,
)
from keystead.ledger.signers.format import INVALID, derive_key, is_session_signature
from keystead.ledger.signers.keys import Described, NamedKey, ServedKeys
from keystead.ledger.signers.native import NativeKind, NativeSigner, RawForm, SignatureForm
from keystead.ledger.signers.session import SessionKeys
from keystead.ledger.signers.settings import KeyAudit, NamedSignature, SignerSettings
from keystead.model import KeyPurpose, PublicKey, SecretBytes, SignatureAlgorithm
from keystead.ports import Closes, ComputesMacs, KmsProvider

__all__ = ["KmsSigner", "NamedSignature", "Signer", "SignerSettings"]


class Signer(Protocol):
    """Signs under the newest version of a key, and verifies under every version.

    ``key_id`` None is the signer's own key. An id with a version, as ``current_key_id`` gives it, means that version.
    """

    async def sign(self, message: bytes, *, key_id: str | None = None) -> bytes:
        """Return the signature of ``message``."""

    async def sign_named(self, message: bytes, *, key_id: str | None = None) -> NamedSignature:
        """Return the signature of ``message``, and the id of the version that made it."""

    async def sign_batch(self, messages: Sequence[bytes], *, key_id: str | None = None) -> list[bytes]:
        """Return a signature for each message, each of which verifies alone; order kept."""

    async def verify(self, message: bytes, signature: bytes, *, key_id: str | None = None) -> None:
        """Return if ``signature`` is of ``message``.

        Raises:
            InvalidSignatureError: it is not.
            KMSError: it could not be checked.
        """

    async def get_key(self, *, key_id: str | None = None) -> SecretBytes:
        """Return the key itself; ``KeyNotExportableError`` where it never leaves its KMS."""

    async def derive_key(self, purpose: str, *, epoch: int = 0, key_id: str | None = None) -> SecretBytes:
        """Return the key that ``get_key``'s gives for a purpose and epoch of the stream."""

    async def current_key_id(self, *, key_id: str | None = None) -> str:
        """Return the id of the version that signs now, to be recorded beside what it signs."""

    async def rotate_check(self) -> bool:
        """Look now whether a key was rotated, and take over the new version; True if one was since the last time."""

    async def aclose(self) -> None:
        """Give up every key, and overwrite what can be; idempotent. Afterwards: ``SystemShutdownError``."""


@dataclass(frozen=True, slots=True)
class _Mode:
    """How a key signs; ``native`` None means with session keys."""

    native: NativeKind | None


class KmsSigner:
    """A signer over a provider. The key's own type decides how: see ``SignerSettings.use_kms_signing``.

    Args:
        provider: a KMS, with a guard around it.
        key_id: the key, as the provider names it.
        form: how signatures of the KMS itself are written down.
        makes_macs_with_any_key: whether the KMS makes MACs under keys that encrypt as well.
        owns_provider: whether ``aclose`` closes the provider, too.
    """

    def __init__(
        self,
        provider: KmsProvider,
        key_id: str,
        settings: SignerSettings | None = None,
        *,
        form: SignatureForm | None = None,
        makes_macs_with_any_key: bool = False,
        owns_provider: bool = True,
    ) -> None:
        if not isinstance(key_id, str) or not key_id:
            raise InvalidInputError("a signer needs the id of a key")
        self._settings = settings or SignerSettings()
        self._provider = provider
        self._makes_macs = makes_macs_with_any_key and isinstance(provider, ComputesMacs)
        self._owns_provider = owns_provider
        self._audit = KeyAudit(provider.provider_name, self._settings.audit)
        self._served = ServedKeys(provider, key_id, self._settings, self._audit)
        self._sessions = SessionKeys(provider, self._served, self._settings, self._audit)
        self._native = NativeSigner(provider, self._served, self._settings, self._audit, form or RawForm())
        self._modes: dict[str, tuple[Described, _Mode]] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"KmsSigner({self._served.own!r})"

    @property
    def provider(self) -> KmsProvider:
        """The KMS, for what else is done with the same key."""
        return self._provider

    @property
    def key_id(self) -> str:
        """The key, as the provider names it."""
        return self._served.own

    @property
    def algorithm(self) -> SignatureAlgorithm | None:
        """What has to be signed with; None is the key's own choice."""
        return self._settings.algorithm

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def sign(self, message: bytes, *, key_id: str | None = None) -> bytes:
        """Return the signature of ``message``.

        Raises:
            ConfigurationError: ``use_kms_signing`` with a key that cannot sign, or another algorithm than the key's.
            KeyNotFoundError, KeyStateError, ProviderAuthError, ProviderConnectionError: as the KMS answers.
        """
        return (await self.sign_named(message, key_id=key_id)).signature

    async def sign_named(self, message: bytes, *, key_id: str | None = None) -> NamedSignature:
        """Return the signature of ``message``, and the id of the version that made it; errors as ``sign``."""
        return (await self._sign([message], key_id))[0]

    async def sign_batch(self, messages: Sequence[bytes], *, key_id: str | None = None) -> list[bytes]:
        """Return a signature for each message; see ``SignerSettings.batch``. Errors as ``sign``.

        Raises:
            PartialBatchError: with a call for each, some failed.
        """
        return [each.signature for each in await self._sign(messages, key_id)]

    async def verify(self, message: bytes, signature: bytes, *, key_id: str | None = None) -> None:
        """Return if ``signature`` is of ``message``.

        Raises:
            InvalidSignatureError: it is not.
            KeyNotFoundError: it names a key, or a version, that is not known here.
            KeyStateError, ProviderAuthError, ProviderConnectionError: it could not be checked.
        """
        named = await self._named(key_id)
        content, signature = _content(message), _content(signature)
        unknown: KMSError | None = None
        for each in self._served.meant(named):
            try:
                await self._verify(content, signature, each)
            except InvalidSignatureError:
                continue
            except (ConfigurationError, KeyNotFoundError, KeyStateError) as exc:
                unknown = unknown or exc  # it may be of this one, which nobody can say
            else:
                return
        raise unknown or InvalidSignatureError(INVALID)

    async def get_key(self, *, key_id: str | None = None) -> SecretBytes:
        """Return the session key that signs now. Nobody can wipe it: let it go out of scope.

        Raises:
            KeyNotExportableError: the KMS signs itself.
            KMSError: as ``sign``.
        """
        if self._settings.use_kms_signing:
            raise _not_exportable()
        named = await self._named(key_id)
        if (await self._mode(named)).native is not None:
            raise _not_exportable()
        return await self._sessions.get_key(named.key_id)

    async def derive_key(self, purpose: str, *, epoch: int = 0, key_id: str | None = None) -> SecretBytes:
        """Return the key that the session key gives for a purpose and epoch of the stream; errors as ``get_key``."""
        session_key = await self.get_key(key_id=key_id)
        return SecretBytes(derive_key(session_key, purpose, stream=self._settings.stream, epoch=epoch))

    async def public_key(self, *, key_id: str | None = None) -> PublicKey:
        """Return the public key of the version that is named, or that signs now.

        Raises:
            ConfigurationError: the key makes MACs, or session keys.
            KMSError: as the KMS answers.
        """
        named = await self._named(key_id)
        kind = (await self._mode(named)).native
        if kind is None or kind.is_mac:
            raise ConfigurationError("this key has no public half; a key that signs has one")
        return await self._native.public_key(named.version or (named.key_id, None))

    async def current_key_id(self, *, key_id: str | None = None) -> str:
        """Return the id of the version that signs now; errors as ``sign``.

        Between this call and a signature the key may be rotated: ``sign_named`` gives both at once.
        """
        named = await self._named(key_id)
        if (await self._mode(named)).native is None:
            return (await self._sessions.current(named.key_id)).key_id
        described = await self._served.describe(named.key_id)
        if described.identity is None:
            return self._native.last(named.key_id) or named.key_id
        return self._served.form.join(*described.identity)

    async def rotate_check(self) -> bool:
        """Ask the KMS now; session keys are replaced where the key was rotated, and confirmed where not.

        Raises:
            KMSError: it could not be asked, or lets a key be used no more.
        """
        self._require_open()
        rotated = await self._served.has_rotated()
        await self._sessions.renew()
        return rotated

    async def aclose(self) -> None:
        """Overwrite every key and close the provider; idempotent."""
        self._is_closed = True
        self._sessions.close()
        self._served.close()
        if self._owns_provider and isinstance(self._provider, Closes):
            await self._provider.aclose()

    async def _sign(self, messages: Sequence[bytes], key_id: str | None) -> list[NamedSignature]:
        contents = [_content(message) for message in messages]
        named = await self._named(key_id)
        mode = await self._mode(named)
        if mode.native is None:
            return await self._sessions.sign_batch(contents, named.key_id)
        signed = await self._native.sign_batch(contents, named.key_id, mode.native)
        if signed:
            self._served.compare(named.key_id, signed[-1].key_id)
        return signed

    async def _verify(self, message: bytes, signature: bytes, named: NamedKey) -> None:
        mode = await self._mode(named)
        if mode.native is None:
            await self._require_told(named, signature)
            await self._sessions.verify(message, signature, named)
        else:
            await self._native.verify(message, signature, named, mode.native)

    async def _named(self, key_id: str | None) -> NamedKey:
        self._require_open()
        return await self._served.find(key_id)

    async def _mode(self, named: NamedKey) -> _Mode:
        described = await self._served.describe(named.key_id)
        known = self._modes.get(named.key_id)
        if known is None or known[0] is not described:
            known = self._modes[named.key_id] = described, self._mode_of(described, named.key_id)
        return known[1]

    async def _require_told(self, named: NamedKey, signature: bytes) -> None:
        """Refuse to call a signature invalid that a key may have made which we may not ask what it is for."""
        if (await self._served.describe(named.key_id)).is_denied and not is_session_signature(signature):
            raise ConfigurationError(
                f"the key {named.key_id!r} may not be described, which takes a permission: whether it makes such "
                "signatures cannot be told"
            )

    def _mode_of(self, described: Described, key_id: str) -> _Mode:
        wanted, description = self._settings.algorithm, described.description
        purpose = KeyPurpose.ENCRYPT_DECRYPT if description is None else description.key_reference.purpose
        known = () if description is None else description.algorithms
        if purpose is KeyPurpose.ENCRYPT_DECRYPT and not self._settings.use_kms_signing:
            if wanted not in (None, SignatureAlgorithm.HMAC_SHA_256):
                raise ConfigurationError(f"session keys make {SignatureAlgorithm.HMAC_SHA_256}, not {wanted}")
            return _Mode(None)
        if purpose is KeyPurpose.MAC or (known and known[0].is_mac):
            kind = NativeKind(True, wanted or (known[0] if known else None))
        elif purpose is KeyPurpose.SIGN_VERIFY or known:
            kind = NativeKind(False, wanted)
        elif self._makes_macs:
            kind = NativeKind(True, wanted)
        else:
            raise ConfigurationError(
                f"use_kms_signing=True needs a key that signs or makes MACs, and {key_id!r} "
                + ("may not be described, which takes a permission" if description is None else "encrypts")
                + "; give another key, or leave use_kms_signing away"
            )
        if wanted is not None and known and wanted not in known:
            raise ConfigurationError(f"the key {key_id!r} does not sign by {wanted}; it does by {', '.join(known)}")
        return _Mode(kind)

    def _require_open(self) -> None:
        if self._is_closed:
            raise SystemShutdownError("the signer was closed")


def _content(message: object) -> bytes:
    if not isinstance(message, bytes | bytearray | memoryview):
        raise InvalidInputError("messages and signatures are bytes; encode text first with .encode()")
    return bytes(message)


def _not_exportable() -> KeyNotExportableError:
    return KeyNotExportableError(
        "the key never leaves its KMS, which signs itself: use sign and verify. To have a key in the process, take one "
        "that encrypts, and use_kms_signing=False"
    )
