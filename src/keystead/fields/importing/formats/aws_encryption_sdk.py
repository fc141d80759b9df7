"""Messages of the AWS Encryption SDK, as bytes or in base64. Read by its own library: extra ``aws-encryption-sdk``.

Messages with and without key commitment, framed and unframed, signed or not. Under KMS keys each message is a call of
its own, since each has a data key of its own and KMS takes one at a time.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, InvalidTag

from keystead.errors import (
    DecryptionError,
    InvalidInputError,
    KeyStateError,
    KMSError,
    MissingDependencyError,
    ProviderAuthError,
    ProviderConnectionError,
)
from keystead.fields.importing.form import Keys, from_base64, keys_of, not_opened

_NAME: Final = "aws-encryption-sdk"
_SUITES_1: Final = frozenset({0x0014, 0x0046, 0x0078, 0x0114, 0x0146, 0x0178, 0x0214, 0x0346, 0x0378})
_SUITES_2: Final = frozenset({0x0478, 0x0578})
_MOST_DATA_KEYS: Final = 16
_AT_ONCE: Final = 8
"""How many messages are opened at the same time, each with a call to KMS."""
_DENIED: Final = frozenset({"AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"})
_STATES: Final = frozenset({"DisabledException", "KMSInvalidStateException", "NotFoundException"})
_PASSING: Final = frozenset(
    {"ThrottlingException", "KMSInternalException", "DependencyTimeoutException", "LimitExceededException"}
)


class _Messages:
    """Messages, whoever has the keys."""

    def __init__(self, opener: Mapping[str, object], context: Mapping[str, str]) -> None:
        sdk = _sdk()
        self._sdk = sdk
        self._opener = dict(opener)
        self._context = dict(context)
        policy = sdk.CommitmentPolicy.REQUIRE_ENCRYPT_ALLOW_DECRYPT
        self._client = sdk.EncryptionSDKClient(commitment_policy=policy, max_encrypted_data_keys=_MOST_DATA_KEYS)

    def recognises(self, value: bytes) -> bool:
        """Return whether it begins as a message does."""
        return _message(value) is not None

    def _opened(self, value: bytes) -> bytes:
        message = io.BytesIO(_message(value) or b"")
        try:
            plaintext, header = self._client.decrypt(source=message, **self._opener)
            is_whole = not message.read(1)
        except (self._sdk.exceptions.AWSEncryptionSDKClientError, InvalidTag, InvalidSignature):
            raise not_opened() from None
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError, IndexError):
            # A header that was altered is not always what the library expects of one.
            raise not_opened() from None
        bound = header.encryption_context
        if not is_whole or any(bound.get(name) != text for name, text in self._context.items()):
            raise not_opened()
        return bytes(plaintext)


class _RawMessages(_Messages):
    """Under a raw AES key."""

    def open(self, value: bytes) -> bytes:
        """Return a message's plaintext."""
        return self._opened(value)


class _KmsMessages(_Messages):
    """Under keys that somebody else has."""

    def __init__(self, opener: Mapping[str, object], context: Mapping[str, str], told: threading.local) -> None:
        super().__init__(opener, context)
        self._told = told

    async def open_many(self, values: Sequence[bytes]) -> list[object | KMSError]:
        """Return each message's plaintext, or why it does not open."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def opened(value: bytes) -> object | KMSError:
            async with turns:
                return await asyncio.to_thread(self._asked, value)

        return list(await asyncio.gather(*map(opened, values)))

    def _asked(self, value: bytes) -> object | KMSError:
        self._told.code = None
        try:
            return self._opened(value)
        except DecryptionError as exc:
            return _reason(self._told.code) or exc
        except Exception as exc:
            if type(exc).__module__.partition(".")[0] != "botocore":
                raise
            raise ProviderConnectionError(
                f"AWS KMS could not be asked ({type(exc).__name__}); see Region, network and credentials"
            ) from None


def messages_of(
    *,
    keys: Keys | None = None,
    namespace: str | None = None,
    name: str | None = None,
    kms_keys: str | Sequence[str] | None = None,
    session: object | None = None,
    materials: object | None = None,
    context: Mapping[str, str] | None = None,
) -> _Messages:
    """Return what opens messages; give one of ``keys``, ``kms_keys`` and ``materials``.

    Args:
        keys: a raw AES wrapping key of 16, 24 or 32 bytes, with its ``namespace`` (provider id) and ``name`` (key id).
        kms_keys: ARNs of KMS keys; messages under others are refused.
        session: a botocore session for them, where the default one is not meant.
        materials: a master key provider, a materials manager or a keyring of the library's own.
        context: pairs that each message's encryption context must have.

    Raises:
        InvalidInputError: not one of these.
        MissingDependencyError: the library is not installed.
    """
    sdk = _sdk()
    if sum(each is not None for each in (keys, kms_keys, materials)) != 1:
        raise InvalidInputError(
            f"format {_NAME} takes one of keys= (a raw AES key, with namespace= and name=), kms_keys= (ARNs) and "
            "materials= (a master key provider, a materials manager or a keyring)"
        )
    bound = context or {}
    if keys is not None:
        [key] = keys_of(keys, _NAME)[:1]
        if len(key) not in (16, 24, 32) or not namespace or not name:
            raise InvalidInputError(
                f"keys= of format {_NAME} is a raw AES key of 16, 24 or 32 bytes, with namespace= and name=, its "
                "provider id and key id"
            )
        return _RawMessages({"key_provider": _raw_provider(namespace, name, key)}, bound)
    told = threading.local()
    if kms_keys is not None:
        arns = [kms_keys] if isinstance(kms_keys, str) else list(kms_keys)
        asking: Any = session or import_module("botocore.session").Session()
        asking.register("after-call.kms.Decrypt", lambda parsed, **_: _note(told, parsed))
        provider = sdk.StrictAwsKmsMasterKeyProvider(key_ids=arns, botocore_session=asking)
        return _KmsMessages({"key_provider": provider}, bound, told)
    kinds = (
        ("key_provider", sdk.key_providers.base.MasterKeyProvider),
        ("materials_manager", sdk.materials_managers.base.CryptoMaterialsManager),
    )
    option = next((option for option, kind in kinds if isinstance(materials, kind)), "keyring")
    return _KmsMessages({option: materials}, bound, told)


def _sdk() -> Any:
    try:
        sdk = import_module("aws_encryption_sdk")
    except ModuleNotFoundError as exc:
        if exc.name != "aws_encryption_sdk":
            raise
        raise MissingDependencyError(
            f"format {_NAME} requires aws-encryption-sdk. Install with: pip install keystead[{_NAME}]"
        ) from None
    import_module("aws_encryption_sdk.key_providers.raw")
    return sdk


def _raw_provider(namespace: str, name: str, key: bytes) -> object:
    raw: Any = import_module("aws_encryption_sdk.key_providers.raw")
    identifiers: Any = import_module("aws_encryption_sdk.identifiers")
    wrapping: Any = import_module("aws_encryption_sdk.internal.crypto.wrapping_keys")
    algorithm = getattr(identifiers.WrappingAlgorithm, f"AES_{len(key) * 8}_GCM_IV12_TAG16_NO_PADDING")
    return raw.RawMasterKey(
        provider_id=namespace,
        key_id=name,
        wrapping_key=wrapping.WrappingKey(
            wrapping_algorithm=algorithm,
            wrapping_key=key,
            wrapping_key_type=identifiers.EncryptionKeyType.SYMMETRIC,
        ),
    )


def _message(value: bytes) -> bytes | None:
    """Return a message's bytes, of base64 as well, or None where it does not begin as one."""
    message = value if value[:1] in (b"\x01", b"\x02") else from_base64(value)
    if message is None or len(message) < 64:
        return None
    if message[0] == 1 and message[1] == 0x80:
        return message if int.from_bytes(message[2:4], "big") in _SUITES_1 else None
    is_second = message[0] == 2 and int.from_bytes(message[1:3], "big") in _SUITES_2
    return message if is_second else None


def _note(told: threading.local, parsed: Mapping[str, Any]) -> None:
    code = (parsed.get("Error") or {}).get("Code")
    if code:
        told.code = code


def _reason(code: str | None) -> KMSError | None:
    """Return why KMS did not open a data key, where that concerns more than the one message.

    Raises:
        ProviderAuthError, ProviderConnectionError: it concerns all of them.
    """
    if code in _DENIED:
        raise ProviderAuthError("AWS KMS denied kms:Decrypt; see the credentials and the policy of the key")
    if code in _PASSING:
        raise ProviderConnectionError("AWS KMS is too busy, or failed; try again")
    if code in _STATES:
        return KeyStateError("the KMS key of the message is disabled, pending deletion or gone")
    return None
