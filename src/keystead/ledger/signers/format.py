"""What keys sign, and the bytes that come of it. Spec: docs/spec/signatures-v1.md."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from struct import Struct
from typing import Final

from keystead.crypto.merkle import HASH_SIZE, leaf_hash, root_from_inclusion
from keystead.errors import InvalidCiphertextError, InvalidInputError, InvalidProofError, InvalidSignatureError
from keystead.model import EncryptedData, KeyReference

LARGEST_PLAIN: Final = 4096
MAC_SIZE: Final = 32
SESSION_KEY_SIZE: Final = 32
SIGN: Final = "sign"
INVALID: Final = "the signature is not of these bytes under this key"

_RESERVED: Final = b"keystead "
_DIGEST: Final = b"keystead signed\x00\x01"
_TREE: Final = b"keystead signed\x00\x02"
_SESSION: Final = b"keystead session v1"
_SESSION_MAGIC: Final = b"\xacKS\x01"
_ITEM_MAGIC: Final = b"\xacKS\x02"
_VAULT: Final = re.compile(rb"vault:v([1-9][0-9]{0,9}):([A-Za-z0-9+/]+={0,2})\Z")
_MAX_PROOF: Final = 64
_u16: Final = Struct(">H")
_u64: Final = Struct(">Q")
_ITEM: Final = Struct(">QQB")


def statement(message: bytes) -> bytes:
    """Return what is signed of a message: itself; or a digest, if it is empty, long, or begins as our own formats do.

    Raises:
        InvalidInputError: it is not bytes-like.
    """
    if not isinstance(message, bytes | bytearray | memoryview):
        raise InvalidInputError("what is signed is bytes; encode text first with .encode()")
    content = bytes(message)
    if 0 < len(content) <= LARGEST_PLAIN and not content.startswith(_RESERVED):
        return content
    return _DIGEST + sha256(_DIGEST + content).digest()


def tree_statement(size: int, root: bytes) -> bytes:
    """Return what is signed of a tree of ``size`` messages."""
    return _TREE + _u64.pack(size) + root


def derive_key(session_key: bytes | bytearray, purpose: str, *, stream: str = "", epoch: int = 0) -> bytes:
    """Return the 32 bytes that a session key gives for a purpose, stream and epoch: HKDF-SHA256 (RFC 5869).

    Raises:
        InvalidInputError: no purpose, a text of 64 KiB or that UTF-8 cannot encode, or an epoch that is no u64.
    """
    if not purpose or not 0 <= epoch < 2**64:
        raise InvalidInputError("a key is derived for a purpose that is not empty and an epoch from 0 on")
    info = _SESSION + _text(purpose) + _text(stream) + _u64.pack(epoch)
    extracted = hmac.digest(bytes(HASH_SIZE), session_key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def wrapped_bytes(encrypted: EncryptedData) -> bytes:
    """Return a wrapped session key as it stands in a signature: what the KMS needs, and nothing else.

    Raises:
        InvalidInputError: it is longer than 65 535 bytes.
    """
    reference = encrypted.key_reference
    bare = replace(
        encrypted,
        key_reference=KeyReference(reference.provider, reference.key_id, key_version=reference.key_version),
        context={},
    )
    content = bare.to_bytes()
    if len(content) > 0xFFFF:
        raise InvalidInputError("the wrapped session key is longer than a signature can hold")
    return content


@dataclass(frozen=True, slots=True)
class SessionSignature:
    """A signature in data-key mode, in parts. ``head`` is everything before the MAC, which covers it."""

    head: bytes
    wrapped: bytes
    mac: bytes

    @classmethod
    def parse(cls, signature: bytes) -> SessionSignature:
        """Read a signature.

        Raises:
            InvalidSignatureError: it is none of this form.
        """
        start = len(_SESSION_MAGIC) + _u16.size
        if len(signature) < start or not signature.startswith(_SESSION_MAGIC):
            raise InvalidSignatureError(INVALID)
        end = start + _u16.unpack_from(signature, len(_SESSION_MAGIC))[0]
        if len(signature) != end + MAC_SIZE:
            raise InvalidSignatureError(INVALID)
        return cls(signature[:end], signature[start:end], signature[end:])

    def encrypted(self) -> EncryptedData:
        """Return the wrapped session key.

        Raises:
            InvalidSignatureError: it is no encrypted data, or says more than a writer would have.
        """
        try:
            encrypted = EncryptedData.from_bytes(self.wrapped)
        except InvalidCiphertextError:
            raise InvalidSignatureError(INVALID) from None
        if wrapped_bytes(encrypted) != self.wrapped:
            raise InvalidSignatureError(INVALID)
        return encrypted


def is_session_signature(signature: bytes) -> bool:
    """Whether a signature begins as one in data-key mode does."""
    return signature.startswith(_SESSION_MAGIC)


def session_head(wrapped: bytes) -> bytes:
    """Return what stands before the MAC of a signature in data-key mode."""
    return _SESSION_MAGIC + _u16.pack(len(wrapped)) + wrapped


@dataclass(frozen=True, slots=True)
class TreeItem:
    """One message's share of a signature over many: where it is in the tree, the way to the root, the signature."""

    index: int
    size: int
    proof: tuple[bytes, ...]
    signature: bytes

    def to_bytes(self) -> bytes:
        """Return the item's bytes.

        Raises:
            InvalidInputError: the signature is longer than 65 535 bytes.
        """
        if len(self.signature) > 0xFFFF:
            raise InvalidInputError("the signature is longer than an item can hold")
        head = _ITEM_MAGIC + _ITEM.pack(self.index, self.size, len(self.proof))
        return head + b"".join(self.proof) + _u16.pack(len(self.signature)) + self.signature

    @classmethod
    def find(cls, signature: bytes) -> TreeItem | None:
        """Read an item; None where the bytes are none."""
        at = len(_ITEM_MAGIC) + _ITEM.size
        if not signature.startswith(_ITEM_MAGIC) or len(signature) < at:
            return None
        index, size, height = _ITEM.unpack_from(signature, len(_ITEM_MAGIC))
        end = at + height * HASH_SIZE
        if height > _MAX_PROOF or len(signature) < end + _u16.size:
            return None
        proof = tuple(signature[start : start + HASH_SIZE] for start in range(at, end, HASH_SIZE))
        body = end + _u16.size
        if len(signature) != body + _u16.unpack_from(signature, end)[0]:
            return None
        return cls(index, size, proof, signature[body:])

    def statement(self, message: bytes) -> bytes:
        """Return what the signature has to be of for ``message`` to be where this item says.

        Raises:
            InvalidSignatureError: no tree has such a proof.
        """
        try:
            root = root_from_inclusion(leaf_hash(message), self.index, self.size, self.proof)
        except InvalidProofError:
            raise InvalidSignatureError(INVALID) from None
        return tree_statement(self.size, root)


def vault_text(value: bytes, version: str) -> bytes:
    """Return a Vault server's own spelling of a signature or MAC, in ASCII."""
    return f"vault:v{version}:{base64.b64encode(value).decode()}".encode()


def parse_vault_text(signature: bytes) -> tuple[bytes, str]:
    """Return value and version of what ``vault_text`` gave.

    Raises:
        InvalidSignatureError: another form, or another spelling of it.
    """
    found = _VAULT.match(signature)
    try:
        if found is not None:
            value, version = base64.b64decode(found[2], validate=True), found[1].decode()
            if vault_text(value, version) == signature:
                return value, version
    except ValueError:
        pass
    raise InvalidSignatureError(INVALID)


def levels_of(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return the roots of all complete subtrees over the hashes of leaves: single leaves, pairs, fours..."""
    levels = [list(leaves)]
    while len(below := levels[-1]) > 1:
        pairs = range(0, len(below) - 1, 2)
        levels.append([sha256(b"\x01" + below[at] + below[at + 1]).digest() for at in pairs])
    return levels


def _text(text: str) -> bytes:
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError("a purpose or stream has a lone surrogate, which UTF-8 cannot encode") from None
    if len(content) > 0xFFFF:
        raise InvalidInputError("a purpose or stream has 64 KiB or more")
    return _u16.pack(len(content)) + content
