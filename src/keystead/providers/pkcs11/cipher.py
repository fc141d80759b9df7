"""Encrypting and decrypting inside a token, in its module's turns. Spec: docs/spec/pkcs11-wrap-v1.md."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

from keystead.errors import DecryptionError, EncryptionError, InvalidInputError, KeyStateError, KMSError
from keystead.model import SecretBytes
from keystead.ports import Random
from keystead.providers.pkcs11 import errors as pkcs11_errors
from keystead.providers.pkcs11.format import (
    FAILED,
    NONCE_SIZE,
    SALT_SIZE,
    WrapHeader,
    WrapMechanism,
    gcm_aad,
    open_payload,
    wrap_payload,
)
from keystead.providers.pkcs11.keys import Version
from keystead.providers.pkcs11.token import OpenToken

_ENCRYPTS: Final = {WrapMechanism.AES_GCM: "ENCRYPT", WrapMechanism.AES_KEY_WRAP: "WRAP"}
_DECRYPTS: Final = {WrapMechanism.AES_GCM: "DECRYPT", WrapMechanism.AES_KEY_WRAP: "UNWRAP"}
_PROBE: Final = {"keystead.probe": "1"}
_OTHER_PROBE: Final = {"keystead.probe": "2"}


def mechanism_of(token: OpenToken, version: Version) -> WrapMechanism:
    """Return what a version encrypts by.

    Raises:
        KeyStateError: its attributes permit neither; it is disabled.
        InvalidInputError: the token has no mechanism for what they permit.
    """
    permitted = [each for each in WrapMechanism if {_ENCRYPTS[each], _DECRYPTS[each]} <= version.uses]
    for mechanism in permitted:
        if token.p11.Mechanism[mechanism.name] in token.mechanisms:
            return mechanism
    if permitted:
        raise InvalidInputError(
            f"the token does not have {' or '.join(each.algorithm for each in permitted)}, which is what the key "
            f"{str(version.name)!r} is for"
        )
    raise KeyStateError(
        f"the key {str(version.name)!r} (CKA_ID {version.key_id.hex()}) is disabled: it permits neither CKA_ENCRYPT "
        "with CKA_DECRYPT nor CKA_WRAP with CKA_UNWRAP"
    )


def seal(
    token: OpenToken,
    version: Version,
    plaintext: bytes,
    context: Mapping[str, str] | None,
    *,
    random: Random,
    limit: int,
) -> tuple[WrapHeader, bytes]:
    """Return the header and the whole ciphertext, after the token has opened it again.

    Raises:
        InvalidInputError: too long, or a context that cannot be encoded.
        KeyStateError: the version is disabled, or has encrypted ``limit`` messages in this process.
        EncryptionError: the token does not decrypt what it has encrypted.
    """
    header = WrapHeader(mechanism_of(token, version), version.key_id)
    if len(plaintext) > header.mechanism.max_plaintext:
        raise InvalidInputError(
            f"{header.mechanism.algorithm} takes at most {header.mechanism.max_plaintext} bytes here; encrypt longer "
            "data under a data key (km.local_encrypt, or generate_data_key)"
        )
    if token.encrypted[version.slot] >= limit:
        raise KeyStateError(
            f"this process has encrypted {limit} messages under the key {str(version.name)!r} (CKA_ID "
            f"{version.key_id.hex()}), as many as random nonces allow: rotate_key, then encrypt"
        )
    _probe(token, version, random)
    token.encrypted[version.slot] += 1
    body = _encrypt(token, version, header, plaintext, context, random=random)
    opened = None
    with contextlib.suppress(DecryptionError):
        opened = _open(token, version, header, body, context, random=random)
    if opened is None or not hmac.compare_digest(opened, plaintext):
        raise EncryptionError(
            "the token does not decrypt what it has just encrypted, and so nothing was kept: it may not use the nonce "
            "that it is given"
        )
    return header, bytes(header) + body


def unseal(
    token: OpenToken,
    version: Version,
    header: WrapHeader,
    body: bytes,
    context: Mapping[str, str] | None,
    *,
    random: Random,
) -> bytes:
    """Return the plaintext of a ciphertext that this version made, under a context that can be encoded.

    Raises:
        DecryptionError: it did not, or under another context, or the ciphertext was altered.
        KeyStateError: the version's attributes do not permit it.
    """
    if (use := _DECRYPTS[header.mechanism]) not in version.uses:
        raise KeyStateError(
            f"the key {str(version.name)!r} (CKA_ID {version.key_id.hex()}) is disabled: it does not permit CKA_{use}"
        )
    return _open(token, version, header, body, context, random=random)


def _open(
    token: OpenToken,
    version: Version,
    header: WrapHeader,
    body: bytes,
    context: Mapping[str, str] | None,
    *,
    random: Random,
) -> bytes:
    """Return the plaintext, or raise ``DecryptionError`` where the ciphertext is at fault, and not the token."""
    for is_again in (False, True):
        try:
            return _decrypt(token, version, header, body, context)
        except token.p11.exceptions.PKCS11Error as exc:
            name = pkcs11_errors.name_of(exc)
            if name in pkcs11_errors.BAD_CIPHERTEXT:
                break
            # Some tokens call a wrong tag a general error. Where they say so twice, and open what they have made
            # themselves in between, that was meant; else it was a fault of theirs, which may have passed.
            if name not in pkcs11_errors.UNCLEAR or not (is_again or _works(token, version, random)):
                raise
    raise DecryptionError(FAILED)


def _works(token: OpenToken, version: Version, random: Random) -> bool:
    """Whether the token is there, and opens what it has made itself under this version."""
    try:
        if not token.is_alive():
            return False
        if not any({_ENCRYPTS[each], _DECRYPTS[each]} <= version.uses for each in WrapMechanism):
            return bool(version.handle[token.p11.Attribute.CLASS])
        header, body = _probe(token, version, random)
        return not _decrypt(token, version, header, body, _PROBE)
    except (token.p11.exceptions.PKCS11Error, KMSError):
        return False


def _probe(token: OpenToken, version: Version, random: Random) -> tuple[WrapHeader, bytes]:
    """Return the ciphertext of nothing, made once in a session, when the token had to refuse another context for it.

    Raises:
        EncryptionError: it did not refuse.
    """
    known: tuple[WrapHeader, bytes] | None = token.probes.get(version.slot)
    if known is not None:
        return known
    header = WrapHeader(mechanism_of(token, version), version.key_id)
    token.encrypted[version.slot] += 1
    made = header, _encrypt(token, version, header, b"", _PROBE, random=random)
    # Twice, since a general error may be a fault that passes, and no refusal.
    if not (_refuses(token, version, *made) and _refuses(token, version, *made)):
        raise EncryptionError(
            f"the token's {header.mechanism.algorithm} decrypts under another context than the one that was encrypted "
            "under; it does not authenticate, and is not used"
        )
    token.probes[version.slot] = made
    return made


def _refuses(token: OpenToken, version: Version, header: WrapHeader, body: bytes) -> bool:
    """Whether the token does not open a ciphertext under another context."""
    try:
        _decrypt(token, version, header, body, _OTHER_PROBE)
    except DecryptionError:
        return True
    except token.p11.exceptions.PKCS11Error as exc:
        if pkcs11_errors.name_of(exc) not in pkcs11_errors.BAD_CIPHERTEXT | pkcs11_errors.UNCLEAR:
            raise
        return True
    return False


def _encrypt(
    token: OpenToken,
    version: Version,
    header: WrapHeader,
    plaintext: bytes,
    context: Mapping[str, str] | None,
    *,
    random: Random,
) -> bytes:
    if header.mechanism is WrapMechanism.AES_KEY_WRAP:
        return _wrap(token, version, wrap_payload(header, context, plaintext, random(SALT_SIZE)))
    # An object of our own, since some tokens write a nonce of theirs over it: AWS CloudHSM says that it does.
    p11, nonce = token.p11, bytes(bytearray(random(NONCE_SIZE)))
    parameters = p11.GCMParams(nonce, gcm_aad(header, context))
    sealed = version.handle.encrypt(plaintext, mechanism=p11.Mechanism.AES_GCM, mechanism_param=parameters)
    return nonce + bytes(sealed)


def _wrap(token: OpenToken, version: Version, payload: bytes) -> bytes:
    p11 = token.p11
    template = {
        p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY,
        p11.Attribute.KEY_TYPE: p11.KeyType.GENERIC_SECRET,
        p11.Attribute.VALUE: payload,
        **_passing(p11),
    }
    passing = token.session.create_object(template)
    try:
        return bytes(version.handle.wrap_key(passing, mechanism=p11.Mechanism.AES_KEY_WRAP))
    finally:
        _destroy(token, passing)


def _decrypt(
    token: OpenToken, version: Version, header: WrapHeader, body: bytes, context: Mapping[str, str] | None
) -> bytes:
    if header.mechanism is WrapMechanism.AES_KEY_WRAP:
        return open_payload(header, context, SecretBytes(_unwrap(token, version, body)))
    p11 = token.p11
    parameters = p11.GCMParams(body[:NONCE_SIZE], gcm_aad(header, context))
    opened = version.handle.decrypt(body[NONCE_SIZE:], mechanism=p11.Mechanism.AES_GCM, mechanism_param=parameters)
    return bytes(opened)


def _unwrap(token: OpenToken, version: Version, body: bytes) -> bytes:
    p11 = token.p11
    passing = version.handle.unwrap_key(
        p11.ObjectClass.SECRET_KEY,
        p11.KeyType.GENERIC_SECRET,
        body,
        mechanism=p11.Mechanism.AES_KEY_WRAP,
        capabilities=p11.MechanismFlag(0),
        template=_passing(p11),
    )
    try:
        return bytes(passing[p11.Attribute.VALUE])
    finally:
        _destroy(token, passing)


def _passing(p11: Any) -> dict[Any, bool]:
    """Return the attributes of an object that carries bytes into a wrap or out of it, and is destroyed at once."""
    attribute = p11.Attribute
    return {
        attribute.TOKEN: False,
        attribute.PRIVATE: True,
        attribute.SENSITIVE: False,
        attribute.EXTRACTABLE: True,
    }


def _destroy(token: OpenToken, passing: Any) -> None:
    # What cannot be destroyed ends with the session.
    with contextlib.suppress(token.p11.exceptions.PKCS11Error):
        passing.destroy()
