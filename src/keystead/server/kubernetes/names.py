"""Names: the keyring behind a key, the key id of a version, and what is kept in clear beside a ciphertext."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError, InvalidInputError
from keystead.manager.announced import KeyVersion
from keystead.transit.names import keyring_name, require_name

CONTEXT: Final = encode_context({"keystead.use": "kubernetes-kms-v2"})
"""What every ciphertext is bound to: under a reserved word, so that no other use of the key opens it."""
MAX_NAME: Final = 128
_STORE: Final = "store.keystead.org"
_FORM: Final = "envelope.keystead.org"


def keyring_of(name: str) -> str:
    """Return the keyring of the Transit key ``name``, of the first that had the name.

    Raises:
        InvalidInputError: no name that a key id can have.
    """
    try:
        require_name(name)
    except InvalidInputError:
        raise InvalidInputError("a key's name is letters, digits and _, and within it also . and -") from None
    if len(name) > MAX_NAME:
        raise InvalidInputError(f"the name of a key for Kubernetes has at most {MAX_NAME} characters")
    return keyring_name("", name, 1)


def key_id_of(version: KeyVersion) -> str:
    """Return the key id of a version: 200 characters at most, the same for ever, and no other version's."""
    return f"keystead/1/{version.keyring}/{version.number}/{version.data_key_id:016x}"


def require_key_id(given: str, data_key_id: int) -> None:
    """Refuse a key id that is not of this data key, before its key is looked for.

    Raises:
        DecryptionError: it is not.
    """
    if given.rpartition("/")[2] != f"{data_key_id:016x}":
        raise DecryptionError("the key id is not that of the ciphertext: they were not encrypted together")


def annotations_of(store_id: str) -> dict[str, bytes]:
    """Return what is kept beside a ciphertext, in clear: the form of the envelope, and the store that has its key."""
    return {_FORM: b"1", _STORE: store_id.encode()}


def require_annotations(given: Mapping[str, bytes], store_id: str) -> None:
    """Refuse annotations other than those of this store.

    Raises:
        DecryptionError: they are.
    """
    own = annotations_of(store_id)
    if dict(given) == own:
        return
    if given.keys() == own.keys() and given[_FORM] == own[_FORM]:
        raise DecryptionError(
            f"the ciphertext is of another store than this one, {store_id}: its annotation {_STORE} says of which"
        )
    raise DecryptionError(
        "the annotations are not those the ciphertext was given: it was not encrypted here, or altered"
    )
