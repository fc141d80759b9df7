"""Keys of a trail: the sessions of its log, drawn through a KMS, and what signs its checkpoints.

Spec: docs/spec/audit-v1.md, 3.5 to 3.7.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from keystead.crypto.keyring import Keyring
from keystead.errors import ConfigurationError, NoActiveKeyError
from keystead.ledger.format.records import HMAC, Session
from keystead.ledger.format.session_source import session_context
from keystead.ledger.signers.session import draw_session_key
from keystead.ledger.tlog.note import NoteKey, NoteKeyType, NoteSignature
from keystead.model import AUDIT_KEYRING, KeyReference
from keystead.ports import Clock, Detail, KmsProvider, Random

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM: Final = "Ed25519"
EPOCH_S: Final = 900
_SIGNER: Final = b"keystead audit v1 checkpoint key\n"


@dataclass(frozen=True, slots=True)
class StreamSessions:
    """Draws sessions of a trail's log.

    Attributes:
        provider, key_id: the KMS key that wraps their keys; whoever writes need not be allowed to unwrap.
        uri: what opens the KMS, for the policy of readers.
    """

    provider: KmsProvider
    key_id: str
    random: Random
    clock: Clock
    epoch_s: int = EPOCH_S
    uri: str | None = None

    async def draw(self, stream: str) -> tuple[Session, bytes, KeyReference]:
        """Return a new session, its key, and the KMS key that wraps it, as the service names it.

        Raises:
            KMSError: the KMS gives none.
        """
        if not self.key_id:
            raise ConfigurationError("the audit trail's KMS needs the id of a key")
        session_id = self.random(16).hex()
        context = session_context(stream, session_id)
        encrypted, key = await draw_session_key(self.provider, self.key_id, context, self.random)
        wrapped = str(replace(encrypted, context={}))
        start_ms = int(self.clock.now().timestamp() * 1000)
        session = Session(session_id, HMAC, wrapped, 0, self.epoch_s, start_ms)
        return session, bytes(key), encrypted.key_reference


class KeyringSigner:
    """Signs checkpoints by keys that follow from those of the store's keyring ``keystead.audit``: every node can.

    Whoever can use the store's keys can sign. A key in a KMS, given in its place, is out of their reach.
    """

    is_remote = False
    uri: str | None = None

    def __init__(self, ring: Keyring, stream: str) -> None:
        self._ring = ring
        self._stream = stream

    def __repr__(self) -> str:
        return f"KeyringSigner({self._stream!r}, keys hidden)"

    @property
    def keys(self) -> tuple[NoteKey, ...]:
        """The public key of each version that is loaded, the newest first."""
        return tuple(self._key(key) for _, key in reversed(self._ring.copy_all()))

    def sign(self, text: str) -> NoteSignature:
        """Return the signature of ``text`` by the active version.

        Raises:
            KMSError: the keyring cannot be used now.
        """
        key = self._ring.copy_active()
        public = self._key(key)
        return NoteSignature(public.name, public.key_id, self._private(key).sign(text.encode()))

    def close(self) -> None:
        """Do nothing."""

    def _key(self, key: bytes) -> NoteKey:
        public = self._private(key).public_key().public_bytes_raw()
        return NoteKey.of(self._stream, NoteKeyType.ED25519, public)

    def _private(self, key: bytes) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(signing_seed(key, self._stream))


class StateKeys:
    """Makes and checks the codes that stand beside a trail's state."""

    def __init__(self, ring: Keyring) -> None:
        self._ring = ring

    def active(self) -> tuple[int, bytes]:
        """Return id and key of the active version.

        Raises:
            KMSError: the keyring cannot be used now.
        """
        key_id = self._ring.snapshot.active
        if key_id is None:
            raise NoActiveKeyError(
                f"keyring {AUDIT_KEYRING!r} has no active version; `keystead key rotate {AUDIT_KEYRING}`"
            )
        return key_id, bytes(self._ring.get(key_id).key)

    def find(self, key_id: int) -> bytes | None:
        """Return the key of a version; None where it is not loaded."""
        held = self._ring.snapshot.keys.get(key_id)
        return None if held is None else bytes(held.key)


def signing_seed(key: bytes, stream: str) -> bytes:
    """Return the seed of the key that signs checkpoints of a stream."""
    text = stream.encode()
    return hmac.digest(key, _SIGNER + len(text).to_bytes(4, "big") + text, "sha256")


def told_keys(reference: KeyReference, session: Session, stream: str, keys: tuple[NoteKey, ...]) -> dict[str, Detail]:
    """Return the details of an entry that tells which keys a sequencer uses."""
    told: dict[str, Detail] = {
        "stream": stream,
        "stream_session": session.id,
        "provider": reference.provider,
        "key": reference.key_id,
        "vkeys": [key.vkey for key in keys],
    }
    if reference.key_version is not None:
        told["version"] = reference.key_version
    return told
