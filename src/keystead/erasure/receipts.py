"""What an erasure is proven by afterwards, without the store. Spec: docs/spec/erasure-v1.md, 3."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from keystead.crypto.ring_signer import RingSigner
from keystead.errors import InvalidInputError, InvalidSignatureError

VERSION: Final = 1
BACKUPS: Final = (
    "Backups of the store that are older than this erasure hold these keys, wrapped. Whoever holds such a backup and "
    "may unwrap under the versions in keks can read what was encrypted, until those versions are destroyed in the KMS."
)
_DOMAIN: Final = b"keystead erasure receipt v1\x00"


@dataclass(frozen=True, slots=True)
class Kek:
    """What WRAP keys were wrapped under: the provider, the key id and its version as the KMS names them."""

    provider: str
    key_id: str
    version: str | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """A line of the log of erasures: its number, the keyring that was erased, its data keys, and when."""

    line: int
    keyring: str
    keys: tuple[int, ...]
    time: str


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """That the keys of a subject were destroyed, and when; it does not name the subject.

    Attributes:
        store: the store's id.
        keyring: the keyring that was erased, by the random name that ciphertexts' keys are under.
        keys: the ids of its data keys.
        time: RFC 3339, UTC.
        log_count: how many lines the erasure log has with this erasure in it.
        log_head: the SHA-256 of the last of them in hex.
        keks: what backups that are older stay readable under.
        nodes_seen: processes that had acknowledged it.
        nodes_unseen: processes that had not within 5 seconds; they refuse.
        remaining: the registered fields in which an index may find the subject's rows still: their tables could not be
            reached. The next re-encryption empties them, and so does asking for the receipt again.
        signature: Ed25519 over all of it.
    """

    store: str
    keyring: str
    keys: tuple[int, ...]
    time: str
    log_count: int
    log_head: str
    keks: tuple[Kek, ...]
    nodes_seen: int
    nodes_unseen: int
    remaining: tuple[str, ...] = ()
    signature: bytes = b""

    @property
    def indexes(self) -> str:
        """``emptied``, or ``remaining`` where some may find the subject's rows still."""
        return "remaining" if self.remaining else "emptied"

    def to_json(self) -> str:
        """Return the receipt as it is kept: a JSON object."""
        return json.dumps(self.to_dict(), sort_keys=True, indent=1)

    def to_dict(self) -> dict[str, Any]:
        """Return that object."""
        return self._body() | {"signature": base64.b64encode(self.signature).decode("ascii")}

    @classmethod
    def from_json(cls, text: str | bytes) -> ErasureReceipt:
        """Read a receipt; nothing of it is believed before ``verify``.

        Raises:
            InvalidInputError: it is none, or of a newer release.
        """
        try:
            told = json.loads(text)
            if told["v"] != VERSION:
                raise InvalidInputError("this receipt was made by a newer release; upgrade keystead to read it")
            receipt = cls(
                told["store"],
                told["keyring"],
                tuple(int(each) for each in told["keys"]),
                told["time"],
                told["log"]["count"],
                told["log"]["head"],
                tuple(Kek(each["provider"], each["key_id"], each["version"]) for each in told["keks"]),
                told["nodes"]["seen"],
                told["nodes"]["unseen"],
                tuple(map(str, told["remaining"])),
                base64.b64decode(told["signature"], validate=True),
            )
            if receipt._body() | {"signature": told["signature"]} != told:
                raise ValueError
        except InvalidInputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InvalidInputError("this is no whole receipt of an erasure; use another copy") from None
        return receipt

    def verify(self, public_keys: str | Sequence[str]) -> None:
        """Return if one of these keys signed the receipt; nothing but the receipt is needed.

        Args:
            public_keys: PEM, as ``km.receipt_keys()`` or `keystead subject receipt-keys` gave them before.

        Raises:
            InvalidSignatureError: none of them did.
            InvalidInputError: a text that is no public key.
        """
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        for pem in _pems(public_keys):
            try:
                key = load_pem_public_key(pem.encode())
            except (ValueError, UnsupportedAlgorithm):
                raise InvalidInputError("a key of receipts is a public key in PEM") from None
            if isinstance(key, Ed25519PublicKey):
                try:
                    return key.verify(self.signature, self._signed())
                except InvalidSignature:
                    continue
        raise InvalidSignatureError("the receipt was not signed by any of these keys, or was altered")

    def signed_by(self, signer: RingSigner) -> ErasureReceipt:
        """Return the receipt with a signature."""
        return replace(self, signature=signer.sign(self._signed()))

    def _signed(self) -> bytes:
        return _DOMAIN + json.dumps(self._body(), sort_keys=True, separators=(",", ":")).encode("ascii")

    def _body(self) -> dict[str, Any]:
        return {
            "v": VERSION,
            "store": self.store,
            "keyring": self.keyring,
            "keys": [str(key_id) for key_id in self.keys],
            "time": self.time,
            "log": {"count": self.log_count, "head": self.log_head},
            "keks": [asdict(each) for each in self.keks],
            "nodes": {"seen": self.nodes_seen, "unseen": self.nodes_unseen},
            "indexes": self.indexes,
            "remaining": list(self.remaining),
            "backups": BACKUPS,
        }


def _pems(given: str | Sequence[str]) -> list[str]:
    texts = [given] if isinstance(given, str) else list(given)
    end = "-----END PUBLIC KEY-----"
    found = [part + end for text in texts for part in text.split(end)[:-1]]
    if not found:
        raise InvalidInputError("a key of receipts is a public key in PEM")
    return found
