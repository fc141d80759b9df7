"""Signed notes of C2SP (c2sp.org/signed-note): a text, and lines that sign it.

Keys are told by name and key id. A signature of a key that is not known is ignored, as the specification has it; one of
a known key that does not fit condemns the whole note.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final, Protocol

from keystead.errors import InvalidInputError, InvalidSignatureError
from keystead.ledger.tlog.note_kms import KmsNoteKey

MAX_NOTE_BYTES: Final = 1 << 20
MAX_SIGNATURES: Final = 64
KEY_ID_SIZE: Final = 4
_CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_VKEY: Final = re.compile(r"([^+]+)\+([0-9a-fA-F]{8})\+([A-Za-z0-9+/]+={0,2})\Z")


class NoteKeyType(IntEnum):
    """The byte that tells a key's algorithm and what it signs."""

    ED25519 = 0x01
    ECDSA = 0x02
    ED25519_COSIGNATURE = 0x04
    ML_DSA_44_COSIGNATURE = 0x06
    KMS = 0xFF


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line, with its end."""
        return f"\u2014 {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and the lines that sign it."""

    text: str
    signatures: tuple[NoteSignature, ...] = ()

    @classmethod
    def parse(cls, content: bytes) -> Note:
        """Return a note from its bytes.

        Raises:
            InvalidSignatureError: malformed.
        """
        if len(content) > MAX_NOTE_BYTES:
            raise _malformed("longer than any note may be")
        try:
            note = content.decode("utf-8")
        except UnicodeDecodeError:
            raise _malformed("not UTF-8") from None
        text, blank, lines = note.rpartition("\n\n")
        if not blank or not lines.endswith("\n") or _CONTROLS.search(note):
            raise _malformed("without a text, an empty line and signatures")
        signed = lines[:-1].split("\n")
        if len(signed) > MAX_SIGNATURES:
            raise _malformed("with too many signatures")
        return cls(f"{text}\n", tuple(_parse_line(line) for line in signed))

    def render(self) -> bytes:
        """Return the note's bytes."""
        return (self.text + "\n" + "".join(each.line() for each in self.signatures)).encode()


class NoteVerifier(Protocol):
    """A key that a note may be signed by."""

    @property
    def name(self) -> str:
        """The key's name."""

    @property
    def key_id(self) -> bytes:
        """Four bytes."""

    def verify(self, text: str, signature: bytes) -> None:
        """Return if ``signature`` is of ``text``, else raise ``InvalidSignatureError``."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that signs notes; ``vkey`` is its text form.

    Attributes:
        material: the public key as its type encodes it: 32 bytes, SubjectPublicKeyInfo in DER (ECDSA), 1 312 bytes, or
            ``KmsNoteKey``.
    """

    name: str
    kind: NoteKeyType
    material: bytes
    key_id: bytes

    @classmethod
    def of(cls, name: str, kind: NoteKeyType, material: bytes) -> NoteKey:
        """Return a key with the id that its specification gives it.

        Raises:
            InvalidInputError: a name that cannot be, or no such public key.
        """
        require_name(name)
        key = cls(name, kind, material, key_id_of(name, kind, material))
        _load(key)
        return key

    @classmethod
    def parse(cls, vkey: str) -> NoteKey:
        """Return a key from its text form, ``name+hash+key``.

        Raises:
            InvalidInputError: malformed, of a type that is not known, or with the hash of another key.
        """
        found = _VKEY.match(vkey)
        content = unbase64(found[3]) if found is not None else None
        if found is None or not content:
            raise InvalidInputError("a verifier key reads name+hash+key: a name, eight hex digits and base64")
        try:
            kind = NoteKeyType(content[0])
        except ValueError:
            raise InvalidInputError(f"the verifier key of {found[1]} is of type {content[0]}, not known here") from None
        key = cls.of(found[1], kind, content[1:])
        if key.key_id.hex() != found[2].lower():
            raise InvalidInputError(f"the verifier key of {found[1]} has the hash of another key")
        return key

    @property
    def vkey(self) -> str:
        """The text form."""
        content = base64.b64encode(bytes((self.kind,)) + self.material).decode()
        return f"{self.name}+{self.key_id.hex()}+{content}"

    @property
    def kms_key(self) -> KmsNoteKey | None:
        """What stands in a key of the KMS type; None with any other."""
        return KmsNoteKey.parse(self.material) if self.kind is NoteKeyType.KMS else None

    def verify(self, text: str, signature: bytes) -> None:
        """Return if ``signature`` is of ``text``.

        Raises:
            InvalidSignatureError: it is not.
            CouldNotVerifyError: a MAC, which only its KMS can check.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
        from cryptography.hazmat.primitives.hashes import SHA256

        public_key = _load(self)
        try:
            if isinstance(public_key, KmsNoteKey):
                return public_key.verify(text, signature)
            if isinstance(public_key, ed25519.Ed25519PublicKey) and self.kind is NoteKeyType.ED25519:
                return public_key.verify(signature, text.encode())
            if isinstance(public_key, ec.EllipticCurvePublicKey):
                return public_key.verify(signature, text.encode(), ec.ECDSA(SHA256()))
        except InvalidSignature:
            pass
        raise InvalidSignatureError(f"a signature of {self.name} is not of this note")


def verify_note(note: Note, keys: Iterable[NoteVerifier]) -> list[NoteVerifier]:
    """Return the keys that have signed a note, each once, in the note's order.

    Raises:
        InvalidSignatureError: none of ``keys`` has, or a signature of one of them is wrong.
    """
    known = {(key.name, key.key_id): key for key in keys}
    signed: dict[tuple[str, bytes], NoteVerifier] = {}
    for each in note.signatures:
        key = known.get((each.name, each.key_id))
        if key is not None:
            key.verify(note.text, each.value)
            signed[each.name, each.key_id] = key
    if not signed:
        raise InvalidSignatureError("the note is not signed by a key that is trusted")
    return list(signed.values())


def key_id_of(name: str, kind: int, material: bytes) -> bytes:
    """Return the id of a key."""
    if kind == NoteKeyType.ECDSA:
        return sha256(material).digest()[:KEY_ID_SIZE]
    return sha256(name.encode() + b"\n" + bytes((kind,)) + material).digest()[:KEY_ID_SIZE]


def require_name(name: str) -> None:
    """Raise ``InvalidInputError`` for a name that a signature line cannot hold."""
    if not name or "+" in name or any(sign.isspace() or unicodedata.category(sign) == "Cc" for sign in name):
        raise InvalidInputError("the name of a key is not empty and has neither spaces nor a plus sign")


def parse_signatures(lines: str) -> Sequence[NoteSignature]:
    """Return signature lines that come without a note, as a witness sends them.

    Raises:
        InvalidSignatureError: malformed.
    """
    if not lines.endswith("\n"):
        raise _malformed("without the end of a line")
    return [_parse_line(line) for line in lines[:-1].split("\n")]


def _parse_line(line: str) -> NoteSignature:
    dash, _, rest = line.partition(" ")
    name, _, text = rest.partition(" ")
    try:
        # Of the bits that encode nothing no notice is taken, as by the implementations that notes come from.
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("with a line that is no signature") from None
    if dash != "\u2014" or len(value) <= KEY_ID_SIZE:
        raise _malformed("with a line that is no signature")
    try:
        require_name(name)
    except InvalidInputError:
        raise _malformed("with a line that names no key") from None
    return NoteSignature(name, value[:KEY_ID_SIZE], value[KEY_ID_SIZE:])


def unbase64(text: str) -> bytes | None:
    """Return the bytes of standard base64 in its one spelling; None where it is none."""
    try:
        content = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if base64.b64encode(content).decode() == text else None


def _load(key: NoteKey) -> object:
    """Return the public key in a note key.

    Raises:
        InvalidInputError: it is none of its type.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    if key.kind is NoteKeyType.KMS:
        return KmsNoteKey.parse(key.material)
    try:
        if key.kind in (NoteKeyType.ED25519, NoteKeyType.ED25519_COSIGNATURE):
            return ed25519.Ed25519PublicKey.from_public_bytes(key.material)
        if key.kind is NoteKeyType.ML_DSA_44_COSIGNATURE:
            return mldsa.MLDSA44PublicKey.from_public_bytes(key.material)
        loaded = load_der_public_key(key.material)
        if isinstance(loaded, ec.EllipticCurvePublicKey):
            return loaded
    except ValueError:
        pass
    raise InvalidInputError(f"the verifier key of {key.name} holds no public key of its type")


def _malformed(how: str) -> InvalidSignatureError:
    return InvalidSignatureError(f"a signed note is malformed: {how}")
