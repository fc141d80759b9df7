"""AWS KMS: what these credentials may do with a key, asked by dry runs, and AWS's clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from keystead.crypto.context import encode_context
from keystead.errors import ProviderAuthError, ProviderConnectionError
from keystead.model import KeyDescription, KeyPurpose
from keystead.providers.aws.errors import Failure, Kind
from keystead.providers.aws.keys import MAC_NAMES, SIGNING_NAMES, check_key_id
from keystead.providers.aws.rotation import AwsRotation

_PROBE: Final = b"?"
_OF_WRAPS: Final = {"keystead.purpose": "wrap"}
_DRY: Final = {"DryRun": True}
_DRY_UNREAD: Final = {"DryRun": True, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}
_ALLOWED_CODES: Final = frozenset({"DryRunOperationException", "KMSInvalidMacException"})


class AwsPermissions(AwsRotation):
    """``ChecksPermissions`` and ``TellsTime``."""

    async def check_permissions(self, key_id: str, *, context: Mapping[str, str] | None = None) -> Mapping[str, bool]:
        """Return which of a key's operations are allowed, by dry runs and by reading; nothing is done with the key.

        What the key is not for is left out, and so is ``rotate_key``, which has no dry run. Policies may have
        conditions on the encryption context: without a ``context``, what Keystead's own wraps have in common is asked.

        Raises:
            KeyNotFoundError, KeyStateError: there is no such key, or it can do nothing at present.
            ProviderAuthError: the credentials are of nobody.
            ProviderConnectionError: AWS could not be asked.
        """
        check_key_id(key_id)
        encode_context(context)
        allowed: dict[str, bool] = {}
        try:
            description: KeyDescription | None = await self.describe(key_id)
            allowed["describe"] = True
        except ProviderAuthError:
            description = None
            allowed["describe"] = False
        asked_with = _OF_WRAPS if context is None else context
        for name, operation, parameters in _probes(key_id, description, dict(asked_with)):
            answer = await self._try(operation, **parameters)
            may = _is_allowed(answer)
            if may is not None:
                allowed[name] = may
        return allowed

    async def service_time(self) -> datetime:
        """Return AWS's time, to the second, from an answer to a request without a signature.

        It needs no permission and no credentials, and leaves no trace in anybody's CloudTrail.
        """
        headers = await self._workers.run(self._clients.headers_of_an_unsigned_answer)
        if isinstance(headers, Failure):
            raise headers.error()
        try:
            return parsedate_to_datetime(headers["date"]).astimezone(UTC)
        except (KeyError, ValueError):
            raise ProviderConnectionError("what answers at the endpoint of AWS KMS tells no time") from None


def _probes(
    key_id: str, description: KeyDescription | None, context: dict[str, str]
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what to ask; without a description, each kind of key's operations."""
    probes: list[tuple[str, str, dict[str, Any]]] = []
    purpose = description and description.key_reference.purpose
    if purpose in (None, KeyPurpose.ENCRYPT_DECRYPT):
        key, bound = {"KeyId": key_id}, {"EncryptionContext": context}
        moved = {
            "SourceKeyId": key_id,
            "DestinationKeyId": key_id,
            "SourceEncryptionContext": context,
            "DestinationEncryptionContext": context,
        }
        probes += [
            ("encrypt", "encrypt", {**key, **bound, "Plaintext": _PROBE, **_DRY}),
            ("decrypt", "decrypt", {**key, **bound, **_DRY_UNREAD}),
            ("generate_data_key", "generate_data_key", {**key, **bound, "KeySpec": "AES_256", **_DRY}),
            ("rewrap", "re_encrypt", {**moved, **_DRY_UNREAD}),
            ("get_rotation_policy", "get_key_rotation_status", key),
        ]
    algorithms = description.algorithms if description else ()
    if purpose in (None, KeyPurpose.MAC):
        made = {"KeyId": key_id, "Message": _PROBE, "MacAlgorithm": "HMAC_SHA_256"}
        if algorithms:
            made["MacAlgorithm"] = MAC_NAMES[algorithms[0]]
        probes += [
            ("mac", "generate_mac", {**made, **_DRY}),
            ("verify_mac", "verify_mac", {**made, "Mac": bytes(32), **_DRY}),
        ]
    if purpose in (None, KeyPurpose.SIGN_VERIFY):
        name = SIGNING_NAMES[algorithms[0]] if algorithms else "ECDSA_SHA_256"
        signed = {"KeyId": key_id, "Message": _PROBE, "MessageType": "RAW", "SigningAlgorithm": name}
        probes += [("sign", "sign", {**signed, **_DRY}), ("public_key", "get_public_key", {"KeyId": key_id})]
    return probes


def _is_allowed(answer: object) -> bool | None:
    """Return what an answer says, None where that is nothing.

    Raises:
        KMSError: AWS could not be asked, or not for this key.
    """
    if not isinstance(answer, Failure) or answer.code in _ALLOWED_CODES:
        return True
    if answer.kind is Kind.DENIED and not answer.is_of_chain:
        return False
    if answer.kind in {Kind.USAGE, Kind.UNSUPPORTED, Kind.INPUT, Kind.UNREADABLE} and not answer.is_of_chain:
        return None
    raise answer.error()
