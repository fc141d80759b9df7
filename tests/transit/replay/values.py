"""What the words in a recorded request stand for: earlier answers, keys wrapped for the server, long texts."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.transit.replay.edits import edited

Find = Callable[[str], Any]
"""Returns the value that a reference names."""

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "SHA1": hashes.SHA1(),
    "SHA224": hashes.SHA224(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}


class NoValueError(Exception):
    """A reference names what an earlier answer did not have."""

    def __init__(self, reference: str, index: int) -> None:
        super().__init__(f"{reference} is not in the answer to exchange {index}")
        self.index = index


def at(value: Any, path: str) -> Any:
    """Return what is at a dotted path, such as ``data.batch_results.0.ciphertext``.

    Raises:
        LookupError, TypeError, ValueError: there is nothing.
    """
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def resolved(value: Any, find: Find) -> Any:
    """Return a value of a request as it is sent.

    Raises:
        NoValueError: an earlier answer does not have what it needs.
    """
    if isinstance(value, list):
        return [resolved(each, find) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        found = find(value["$ref"])
        return edited(found, value["edit"]) if "edit" in value else found
    if "$byok" in value:
        return _wrapped(value["$byok"], find)
    if "$repeat" in value:
        times = value["$repeat"]["times"]
        if "text" in value["$repeat"]:
            return str(value["$repeat"]["text"]) * times
        return [resolved(value["$repeat"]["item"], find)] * times
    return {name: resolved(each, find) for name, each in value.items()}


def _wrapped(given: Mapping[str, Any], find: Find) -> str:
    """Return a key as it is imported: RSA-OAEP of an AES key, then RFC 5649 of the key under that one."""
    wrapping = load_pem_public_key(resolved(given["wrapping_key"], find).encode())
    assert isinstance(wrapping, RSAPublicKey)
    algorithm, ephemeral = _HASHES[given["hash_function"]], os.urandom(32)
    key = wrapping.encrypt(ephemeral, OAEP(MGF1(algorithm), algorithm, None))
    return base64.b64encode(
        key + aes_key_wrap_with_padding(ephemeral, base64.b64decode(given["target_key_base64"]))
    ).decode()
