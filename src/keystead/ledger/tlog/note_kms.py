"""Keys of a KMS that sign notes, where no type of the signed-note specification fits. Spec: docs/spec/log-v1.md, 7."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final, Self

from keystead.crypto.signatures import verify_signature
from keystead.errors import CouldNotVerifyError, InvalidInputError, InvalidSignatureError
from keystead.ledger.signers.format import statement
from keystead.model import KeyPurpose, KeyReference, PublicKey, Signature, SignatureAlgorithm
from keystead.ports import ComputesMacs
from keystead.runtime.loop import background_loop

IDENTIFIER: Final = b"keystead.org/kms/v1\n"
_u16: Final = Struct(">H")


@dataclass(frozen=True, slots=True)
class KmsNoteKey:
    """What a verifier key of such a type holds in the place of the public key.

    Attributes:
        der: the public key as SubjectPublicKeyInfo; empty with a MAC.
        reference: the key version that makes a MAC; None where there is a public key.
    """

    algorithm: SignatureAlgorithm
    der: bytes = b""
    reference: KeyReference | None = None

    @classmethod
    def parse(cls, material: bytes) -> Self:
        """Return a key from its bytes.

        Raises:
            InvalidInputError: malformed, or of an algorithm that is not known.
        """
        fields = _fields(material[len(IDENTIFIER) :]) if material.startswith(IDENTIFIER) else []
        try:
            algorithm = SignatureAlgorithm(fields[0].decode())
            if not algorithm.is_mac:
                (der,) = fields[1:]
                return cls(algorithm, der)
            qualified_id, version = (each.decode() for each in fields[1:])
        except (ValueError, IndexError):
            raise InvalidInputError("a verifier key of a KMS is malformed, or of an algorithm not known here") from None
        provider, _, key_id = qualified_id.partition(":")
        reference = KeyReference(provider, key_id, purpose=KeyPurpose.MAC, key_version=version or None)
        return cls(algorithm, reference=reference)

    def render(self) -> bytes:
        """Return the key's bytes."""
        if self.reference is None:
            fields = [self.der]
        else:
            fields = [self.reference.qualified_id.encode(), (self.reference.key_version or "").encode()]
        return IDENTIFIER + b"".join(_u16.pack(len(each)) + each for each in (self.algorithm.encode(), *fields))

    def verify(self, text: str, signature: bytes) -> None:
        """Return if ``signature`` is of ``text``.

        Raises:
            InvalidSignatureError: it is not.
            CouldNotVerifyError: it is a MAC, which only the KMS can check.
        """
        if self.reference is not None:
            raise CouldNotVerifyError(
                f"checkpoints are signed by a MAC of {self.reference.provider!r}, which only that KMS can check: give "
                "it to the verifier, or its URI in the policy"
            )
        public_key = PublicKey(self.der, KeyReference("", ""), (self.algorithm,))
        try:
            verify_signature(public_key, statement(text.encode()), signature, algorithm=self.algorithm)
        except InvalidInputError as exc:
            raise InvalidSignatureError(str(exc)) from None


class MacNoteVerifier:
    """The key of a MAC, at the KMS that checks it; a ``NoteVerifier``."""

    def __init__(self, name: str, key_id: bytes, key: KmsNoteKey, provider: ComputesMacs) -> None:
        self.name = name
        self.key_id = key_id
        self._key = key
        self._provider = provider

    def verify(self, text: str, signature: bytes) -> None:
        """Return if ``signature`` is of ``text``; blocks.

        Raises:
            InvalidSignatureError: it is not.
            KMSError: the KMS could not tell.
        """
        mac = Signature(signature, self._key.reference or KeyReference("", ""), self._key.algorithm)
        background_loop.run(self._provider.verify_mac(statement(text.encode()), mac))


def _fields(content: bytes) -> list[bytes]:
    """Return the length-prefixed fields that ``content`` is made of; none where it is not."""
    fields, at = [], 0
    while at + 2 <= len(content):
        (size,) = _u16.unpack_from(content, at)
        fields.append(content[at + 2 : at + 2 + size])
        at += 2 + size
    return fields if at == len(content) else []
