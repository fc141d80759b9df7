"""Sessions of a log, drawn through a KMS: whoever writes may wrap, and need not unwrap."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from typing import Protocol

from keystead.errors import ConfigurationError, DecryptionError, KeyNotFoundError, KMSError, ProviderAuthError
from keystead.ledger.format.records import CHAIN, HMAC, Session
from keystead.ledger.signers.session import draw_session_key
from keystead.model import EncryptedData, KeyReference, SecretBytes
from keystead.ports import Closes, DescribesKeys, KmsProvider, Random
from keystead.providers.guard import GuardedProvider
from keystead.runtime.loop import background_loop

PURPOSE = "session"
_OF_THIS_MACHINE = "local"
"""The kind of a KMS that takes no permission to unwrap, and whose KEKs have one name, whatever they are."""


class SessionSource(Protocol):
    """Gives a log its sessions; every method blocks for as long as a KMS takes.

    Attributes:
        uri: what the KMS is opened by, where that is known.
        reference: the KMS key that wrapped the last session's; None where there is none.
    """

    uri: str | None
    reference: KeyReference | None

    def draw(self, stream: str, *, epoch_s: int, start_ms: int) -> tuple[Session, SecretBytes | None]:
        """Return a new session, and its key if it has one."""

    def has_rotated(self) -> bool:
        """Whether the KMS key has another version than the last session was wrapped by."""

    def close(self) -> None:
        """Give back what it holds."""


class KmsSessions:
    """Sessions whose keys a KMS wraps.

    Args:
        provider: a KMS, with a guard around it.
        key_id: the key that wraps.
        uri: what the provider was opened by, for the policy of readers.
        owns_provider: whether ``close`` closes the provider, too.
        asks_kms: whether the KMS is asked, where a log goes on, to open what the log was sealed under last; a KEK of
            this machine always is. Who writes may wrap, and need not unwrap.

    Attributes:
        has_opened: whether it opened that.
    """

    def __init__(
        self,
        provider: KmsProvider,
        key_id: str,
        *,
        uri: str | None = None,
        random: Random = os.urandom,
        owns_provider: bool = False,
        asks_kms: bool = False,
    ) -> None:
        if not key_id:
            raise ConfigurationError("the KMS of a log needs the id of a key")
        self._provider = provider
        self._key_id = key_id
        self._random = random
        self._owns_provider = owns_provider
        self._is_of_this_machine = provider.provider_name == _OF_THIS_MACHINE
        self._asks = asks_kms or self._is_of_this_machine
        self.has_opened = False
        self.uri = uri
        self.reference: KeyReference | None = None
        self._version: str | None = None
        self._ids_tell, self._saw_other_key = True, False

    def draw(self, stream: str, *, epoch_s: int, start_ms: int) -> tuple[Session, SecretBytes]:
        """Return a new session and its key.

        Raises:
            KMSError: whatever the KMS refuses.
        """
        session_id = secrets.token_hex(16)
        context = session_context(stream, session_id)
        drawn = draw_session_key(self._provider, self._key_id, context, self._random)
        encrypted, key = background_loop.run(drawn)
        before, self.reference, self._version = self.reference, encrypted.key_reference, None
        if self._saw_other_key and before is not None:
            # A KMS that describes a key by another id than it answers with would have every session replaced.
            self._ids_tell, self._saw_other_key = before.key_id != self.reference.key_id, False
        # The context is known to whoever reads the log; what is written down is not taken from there.
        wrapped = str(replace(encrypted, context={}))
        return Session(session_id, HMAC, wrapped, 0, epoch_s, start_ms), key

    def has_rotated(self) -> bool:
        """Whether another key, or version of it, would wrap now than wrapped the last session.

        A KMS that does not tell which version wrapped is compared with what it said when it was asked first. False
        where it does not tell, or denies that to who may only wrap.
        """
        reference = self.reference
        if reference is None or not isinstance(self._provider, DescribesKeys):
            return False
        try:
            description = background_loop.run(self._provider.describe(self._key_id))
        except ProviderAuthError:
            return False
        now = description.current_version
        self._version = reference.key_version or self._version or now
        self._saw_other_key = self._ids_tell and description.key_reference.key_id != reference.key_id
        return self._saw_other_key or (now is not None and now != self._version)

    def refuses(self, encrypted: EncryptedData, session: Session, stream: str) -> bool:
        """Whether the KMS is known not to open a session's key, which is one of ``stream``.

        It is not known of a key of another KMS, nor where the KMS is not asked, or does not tell.
        """
        provider = self._provider
        name = provider.instance if isinstance(provider, GuardedProvider) else provider.provider_name
        if not self._asks or encrypted.key_reference.provider != name:
            return False
        try:
            background_loop.run(provider.decrypt(encrypted, context=session_context(stream, session.id)))
        except DecryptionError:
            return True
        except KeyNotFoundError:
            # A KEK of this machine that is gone might be made anew by the next wrap.
            return self._is_of_this_machine
        except KMSError:
            return False
        self.has_opened = True
        return False

    def close(self) -> None:
        """Close the provider, if it is this object's own."""
        if self._owns_provider and isinstance(self._provider, Closes):
            background_loop.run(self._provider.aclose())


class ChainedSessions:
    """Sessions without keys: only checkpoints say who wrote."""

    uri: str | None = None
    reference: KeyReference | None = None

    def draw(self, stream: str, *, epoch_s: int, start_ms: int) -> tuple[Session, None]:
        """Return a new session."""
        return Session(secrets.token_hex(16), CHAIN, None, 0, 0, start_ms), None

    def has_rotated(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Do nothing."""


def session_context(stream: str, session_id: str) -> dict[str, str]:
    """Return what a session's key is bound to; see docs/spec/log-v1.md, 3.1."""
    return {"keystead.purpose": PURPOSE, "keystead.stream": stream, "keystead.session": session_id}
