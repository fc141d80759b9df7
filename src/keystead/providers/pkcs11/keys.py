"""Keys on a token: their versions, which of them is the newest, and the making of the next one.

Spec: docs/spec/pkcs11-wrap-v1.md, section 1. Everything here belongs into the turns of the token's module.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from keystead.errors import InvalidInputError, KeyNotFoundError, KeyStateError
from keystead.model import KeyPurpose, KeyReference
from keystead.ports import Random
from keystead.providers.pkcs11.config import KeyName
from keystead.providers.pkcs11.format import id_order, next_key_id
from keystead.providers.pkcs11.token import OpenToken

PROVIDER: Final = "pkcs11"
LISTED_FOR_S: Final = 1.0
"""How long a listing tells which version is the newest; a rotation by another process shows after that."""

_PURPOSES: Final = {
    "AES": KeyPurpose.ENCRYPT_DECRYPT,
    "GENERIC_SECRET": KeyPurpose.MAC,
    "RSA": KeyPurpose.SIGN_VERIFY,
    "EC": KeyPurpose.SIGN_VERIFY,
    "EC_EDWARDS": KeyPurpose.SIGN_VERIFY,
}
_DOES: Final = {
    KeyPurpose.ENCRYPT_DECRYPT: "encrypts",
    KeyPurpose.MAC: "makes MACs",
    KeyPurpose.SIGN_VERIFY: "signs",
}
_USES: Final = ("ENCRYPT", "DECRYPT", "WRAP", "UNWRAP", "SIGN", "VERIFY")
_ATTRIBUTES: Final = ("ID", "LABEL", *_USES, "EXTRACTABLE", "SENSITIVE", "VALUE_LEN", "MODULUS", "EC_PARAMS")
_MAX_LISTINGS: Final = 256
_AES_BITS: Final = 256


@dataclass(frozen=True, slots=True)
class Version:
    """One object on the token.

    Attributes:
        kind: type of the key by the binding's name: AES, GENERIC_SECRET, RSA, EC or EC_EDWARDS.
        uses: what its attributes permit, by their names: ENCRYPT, DECRYPT, WRAP, UNWRAP, SIGN, VERIFY.
        is_protected: whether it never leaves the token in clear.
        size: bytes of a secret key, or of the modulus of an RSA key.
        curve: ``CKA_EC_PARAMS``.
    """

    handle: Any = field(repr=False)
    label: str
    key_id: bytes
    kind: str
    uses: frozenset[str]
    is_protected: bool
    size: int
    curve: bytes

    @property
    def purpose(self) -> KeyPurpose:
        """What the key is for, by its type."""
        return _PURPOSES[self.kind]

    @property
    def name(self) -> KeyName:
        """The key that this is a version of."""
        return KeyName(self.label) if self.label else KeyName(None, self.key_id)

    @property
    def slot(self) -> tuple[str, bytes]:
        """What is told of this version is kept under."""
        return self.label, self.key_id

    def reference(self, typed: str) -> KeyReference:
        """Return the reference of answers that this version had a part in; ``typed`` is what the caller called it."""
        answered = str(self.name)
        alias = None if typed == answered else typed
        return KeyReference(PROVIDER, answered, alias, self.purpose, key_version=self.key_id.hex())


def list_versions(token: OpenToken, name: KeyName, *, max_age_s: float = 0.0) -> tuple[Version, ...]:
    """Return the versions of a key, the newest last; at least one.

    Raises:
        KeyNotFoundError: there is none.
        KeyStateError: ids are missing, or one stands twice.
        InvalidInputError: the objects of this name are not versions of one key.
    """
    known = token.listings.get(str(name))
    if known is not None and time.monotonic() - known[1] < max_age_s:
        found: tuple[Version, ...] = known[0]
        return found
    found = tuple(sorted(_search(token, name), key=lambda version: id_order(version.key_id)))
    _check(name, found)
    if len(token.listings) >= _MAX_LISTINGS:
        token.listings.clear()
    token.listings[str(name)] = found, time.monotonic()
    return found


def newest_version(token: OpenToken, name: KeyName, purpose: KeyPurpose) -> Version:
    """Return the version that encrypts or signs; errors as ``list_versions``, and ``InvalidInputError`` of purpose."""
    return _of_purpose(list_versions(token, name, max_age_s=LISTED_FOR_S)[-1], purpose)


def find_version(token: OpenToken, name: KeyName, key_id: bytes, purpose: KeyPurpose) -> Version | None:
    """Return the version of that id, or None; errors as ``newest_version``."""
    for max_age_s in (float("inf"), 0.0):
        for version in list_versions(token, name, max_age_s=max_age_s):
            if version.key_id == key_id:
                return _of_purpose(version, purpose)
    return None


def require_protected(version: Version, *, allow_extractable: bool) -> None:
    """Refuse a key that could leave the token.

    Raises:
        KeyStateError: it could, and that is not allowed.
    """
    if not version.is_protected and not allow_extractable:
        raise KeyStateError(
            f"the key {str(version.name)!r} (CKA_ID {version.key_id.hex()}) could leave the token: it is extractable, "
            "or not sensitive. It decrypts and verifies, and no more. rotate_key makes a version that stays inside; or "
            "accept this one with allow_extractable"
        )


def make_next(token: OpenToken, newest: Version, random: Random) -> bytes:
    """Make the version after ``newest``, of the same kind and use, that never leaves the token; return its id.

    Raises:
        KeyStateError: the newest one is disabled, so that its use is not known.
    """
    key_id = next_key_id(newest.key_id, random(4))
    p11 = token.p11
    stays = {p11.Attribute.SENSITIVE: True, p11.Attribute.EXTRACTABLE: False}
    common = {"id": key_id, "label": newest.label, "store": True, "capabilities": _capabilities(token, newest)}
    if newest.kind in {"AES", "GENERIC_SECRET"}:
        bits = _AES_BITS if newest.kind == "AES" else newest.size * 8
        token.session.generate_key(p11.KeyType[newest.kind], bits, template=stays, **common)
    elif newest.kind == "RSA":
        token.session.generate_keypair(p11.KeyType.RSA, newest.size * 8, private_template=stays, **common)
    else:
        curve = {p11.Attribute.EC_PARAMS: newest.curve}
        parameters = token.session.create_domain_parameters(p11.KeyType[newest.kind], curve, local=True)
        parameters.generate_keypair(private_template=stays, **common)
    token.listings.clear()
    return key_id


def _capabilities(token: OpenToken, newest: Version) -> Any:
    flags = token.p11.MechanismFlag
    if newest.kind != "AES":
        return flags.SIGN | flags.VERIFY
    if newest.uses & {"ENCRYPT", "DECRYPT"}:
        return flags.ENCRYPT | flags.DECRYPT
    if newest.uses & {"WRAP", "UNWRAP"}:
        return flags.WRAP | flags.UNWRAP
    raise KeyStateError(
        f"the newest version of {str(newest.name)!r} neither encrypts nor wraps, and so does not tell what the next "
        "one is to do; enable it (CKA_ENCRYPT and CKA_DECRYPT, or CKA_WRAP and CKA_UNWRAP) and rotate again"
    )


def _search(token: OpenToken, name: KeyName) -> list[Version]:
    attribute = token.p11.Attribute
    template: dict[Any, str | bytes] = {}
    if name.label is not None:
        template[attribute.LABEL] = name.label
    if name.key_id is not None:
        template[attribute.ID] = name.key_id
    objects = list(token.session.get_objects(template))
    return [version for each in objects if (version := _version(token, each)) is not None]


def _version(token: OpenToken, handle: Any) -> Version | None:
    """Return a secret or private key of a kind that is used here; None for every other object."""
    attribute = token.p11.Attribute
    try:
        # Asked for by themselves: the binding fails for all of them over a vendor's own value of one.
        types = handle.get_attributes([attribute.CLASS, attribute.KEY_TYPE])
        kind = types[attribute.KEY_TYPE].name
        is_key = types[attribute.CLASS] in {token.p11.ObjectClass.SECRET_KEY, token.p11.ObjectClass.PRIVATE_KEY}
        if not is_key or kind not in _PURPOSES:
            return None
        values = handle.get_attributes([attribute[each] for each in _ATTRIBUTES])
    except (KeyError, ValueError):
        return None
    modulus = values.get(attribute.MODULUS, b"").lstrip(b"\0")
    return Version(
        handle,
        values.get(attribute.LABEL, ""),
        values.get(attribute.ID, b""),
        kind,
        frozenset(each for each in _USES if values.get(attribute[each])),
        bool(values.get(attribute.SENSITIVE)) and values.get(attribute.EXTRACTABLE) is False,
        values.get(attribute.VALUE_LEN, len(modulus)),
        values.get(attribute.EC_PARAMS, b""),
    )


def _check(name: KeyName, versions: tuple[Version, ...]) -> None:
    shown = repr(str(name))
    if not versions:
        raise KeyNotFoundError(
            f"the token shows no AES, generic secret or private key {shown}; make it with the token's own tool "
            "(docs: PKCS#11), or correct its label"
        )
    if len({version.label for version in versions}) > 1:
        raise InvalidInputError(f"several keys have the id of {shown}; name one by its label: object=<label>")
    if len({version.purpose for version in versions}) > 1:
        raise InvalidInputError(f"objects of several kinds have the label {shown}; give each key a label of its own")
    ids = [version.key_id for version in versions]
    if not all(ids) or len(set(ids)) < len(ids):
        raise KeyStateError(
            f"two objects with the label {shown} have the same CKA_ID, or one has none, and ciphertexts name their "
            "version by it: give each another one with the token's own tool"
        )


def _of_purpose(version: Version, purpose: KeyPurpose) -> Version:
    if version.purpose is not purpose:
        raise InvalidInputError(
            f"the key {str(version.name)!r} {_DOES[version.purpose]}; this call wants one that {_DOES[purpose]}"
        )
    return version
