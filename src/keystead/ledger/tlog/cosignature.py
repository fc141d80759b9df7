"""Cosignatures of C2SP (c2sp.org/tlog-cosignature): a witness says when it saw that a log had only grown.

Ed25519 signs the text of the note with a time before it; ML-DSA-44 a structure that names witness, log, size and root.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

from keystead.errors import InvalidInputError, InvalidSignatureError
from keystead.ledger.tlog.checkpoint import Checkpoint
from keystead.ledger.tlog.note import NoteKey, NoteKeyType, NoteSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

MAX_TIME: Final = 2**63 - 1
_LABEL: Final = b"subtree/v1\n\x00"
_u64: Final = Struct(">Q")
_KINDS: Final = (NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.ML_DSA_44_COSIGNATURE)


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness's public key. As a ``NoteVerifier`` it checks cosignatures on checkpoints.

    Raises:
        InvalidInputError: a key that makes no cosignatures.
    """

    key: NoteKey

    def __post_init__(self) -> None:
        if self.key.kind not in _KINDS:
            raise InvalidInputError(f"the verifier key of {self.key.name} is no witness's: it makes no cosignatures")

    @classmethod
    def parse(cls, vkey: str) -> WitnessKey:
        """Return a witness's key from its text form."""
        return cls(NoteKey.parse(vkey))

    @property
    def name(self) -> str:
        """The witness's name."""
        return self.key.name

    @property
    def key_id(self) -> bytes:
        """Four bytes."""
        return self.key.key_id

    def verify(self, text: str, signature: bytes) -> None:
        """Return if ``signature`` is this witness's on a checkpoint, else raise ``InvalidSignatureError``."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

        seconds = time_of(signature)
        message = _message(self.key.kind, self.name, Checkpoint.parse(text), text, seconds)
        try:
            if self.key.kind is NoteKeyType.ED25519_COSIGNATURE:
                ed25519.Ed25519PublicKey.from_public_bytes(self.key.material).verify(signature[8:], message)
            else:
                mldsa.MLDSA44PublicKey.from_public_bytes(self.key.material).verify(signature[8:], message)
        except InvalidSignature:
            raise InvalidSignatureError(f"a cosignature of {self.name} is not of this checkpoint") from None


class WitnessSigner:
    """A witness's private key.

    Args:
        name: of the witness; best an address without its scheme, such as ``witness.example.org/w1``.
        private_key: Ed25519 or ML-DSA-44. One key for one witness: an Ed25519 cosignature does not name its witness.
    """

    def __init__(self, name: str, private_key: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        is_ed25519 = isinstance(private_key, Ed25519PrivateKey)
        kind = NoteKeyType.ED25519_COSIGNATURE if is_ed25519 else NoteKeyType.ML_DSA_44_COSIGNATURE
        self._private_key = private_key
        self.key = WitnessKey(NoteKey.of(name, kind, private_key.public_key().public_bytes_raw()))

    def __repr__(self) -> str:
        return f"WitnessSigner({self.key.name!r}, key hidden)"

    def cosign(self, text: str, seconds: int) -> NoteSignature:
        """Return the cosignature of the checkpoint ``text`` at a time, in seconds since 1970.

        Raises:
            InvalidInputError: a time that cannot be.
            InvalidSignatureError: the text is no checkpoint.
        """
        if not 0 <= seconds <= MAX_TIME:
            raise InvalidInputError("a cosignature's time is in seconds since 1970")
        key = self.key.key
        message = _message(key.kind, key.name, Checkpoint.parse(text), text, seconds)
        return NoteSignature(key.name, key.key_id, _u64.pack(seconds) + self._private_key.sign(message))


def time_of(signature: bytes) -> int:
    """Return the seconds since 1970 at which a cosignature says it was made.

    Raises:
        InvalidSignatureError: it is too short, or its time cannot be.
    """
    if len(signature) <= _u64.size:
        raise InvalidSignatureError("a cosignature is too short")
    (seconds,) = _u64.unpack_from(signature)
    if seconds > MAX_TIME:
        raise InvalidSignatureError("a cosignature's time cannot be")
    return int(seconds)


def _message(kind: NoteKeyType, name: str, checkpoint: Checkpoint, text: str, seconds: int) -> bytes:
    if kind is NoteKeyType.ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {seconds}\n{text}".encode()
    return b"".join(
        (
            _LABEL,
            _short(name),
            _u64.pack(seconds),
            _short(checkpoint.origin),
            _u64.pack(0),
            _u64.pack(checkpoint.size),
            checkpoint.root,
        )
    )


def _short(text: str) -> bytes:
    content = text.encode()
    if len(content) > 255:
        raise InvalidInputError("the names of witness and log have 255 bytes at most in an ML-DSA-44 cosignature")
    return bytes((len(content),)) + content
