"""AWS KMS as the KEK: symmetric keys that encrypt, HMAC keys, asymmetric keys that sign. Needs the extra ``aws``.

URI: ``awskms:///alias/orders``, ``awskms:///<key id>`` or ``awskms:///arn:aws:kms:...``, with three slashes; options
``?region=``, ``?profile=`` and ``?endpoint=`` (a VPC endpoint, or an emulator on this machine). The endpoint form of
other projects, ``awskms://host/key``, is refused: go-cloud writes ``awskms://alias/x`` and means no host by it.

Credentials: boto3's own chain (environment, profile, SSO, process, web identity, container, instance role), read at
the first call; or ``AWSKMSConfig(access_key=, secret_key=, session_token=)``.

Permissions, each on the key: ``encrypt`` kms:Encrypt; ``decrypt`` and ``decrypt_foreign`` kms:Decrypt;
``generate_data_key`` kms:GenerateDataKey; ``rewrap`` kms:ReEncryptFrom and kms:ReEncryptTo; ``describe``
kms:DescribeKey; ``rotate_key`` kms:RotateKeyOnDemand, kms:DescribeKey and, to count, kms:ListKeyRotations;
``get_rotation_policy`` kms:GetKeyRotationStatus, and kms:ListKeyRotations for its last date; ``mac`` kms:GenerateMac;
``verify_mac`` kms:VerifyMac; ``sign`` kms:Sign; ``public_key`` kms:GetPublicKey; ``service_time`` none. A key named by
an alias, or an algorithm that is not named, needs kms:DescribeKey where a description is looked up.

Size limits: 1 to 4096 bytes for ``encrypt``, ``mac`` and Ed25519; other signatures are of any length. The context goes
to AWS as the encryption context: it is authenticated, and readable in CloudTrail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NoReturn, SupportsIndex

from keystead.crypto.context import encode_context
from keystead.errors import DecryptionError, EncryptionError, InvalidInputError
from keystead.model import DataKeyPair, EncryptedData, SecretBytes
from keystead.ports import Clock
from keystead.providers.aws.calls import LARGEST
from keystead.providers.aws.config import AWSKMSConfig, config_from_uri
from keystead.providers.aws.keys import ALGORITHM, PROVIDER, check_key_id, is_same_key, reference
from keystead.providers.aws.permissions import AwsPermissions
from keystead.providers.inputs import data_key_size, recorded_key, require_plaintext
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.runtime.clock import SystemClock

__all__ = ["AWSKMSConfig", "AWSKMSProvider"]

_LARGEST_CIPHERTEXT: Final = 6144
_FRAISEQL_ALGORITHMS: Final = frozenset({ALGORITHM, "data-key"})
_FAILED: Final = "decryption failed"


class AWSKMSProvider(AwsPermissions):
    """AWS KMS by boto3, in a bounded pool of threads. Construction does no I/O and reads no credentials.

    What is encrypted is recorded under the ARN that AWS answers with, whatever name it was asked by, and is decrypted
    by that ARN only: an alias that is moved to another key moves what is encrypted from then on, and nothing else.

    Raises:
        MissingDependencyError: boto3 is not installed.
    """

    def __init__(self, config: AWSKMSConfig | None = None, *, clock: Clock | None = None) -> None:
        super().__init__(config or AWSKMSConfig(), clock or SystemClock())

    def __repr__(self) -> str:
        return f"AWSKMSProvider({self._config!r})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("AWSKMSProvider holds connections and cannot be pickled or copied; make one in each process")

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[AWSKMSProvider, str | None]:
        """Return the provider an ``awskms:`` URI names, and its default key id.

        Raises:
            ConfigurationError: a URI of another form.
            MissingDependencyError: boto3 is not installed.
        """
        config, key_id = config_from_uri(uri)
        if key_id is not None:
            check_key_id(key_id)
        return cls(config, clock=settings.clock), key_id

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``aws``."""
        return PROVIDER

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt 1 to 4096 bytes under a symmetric key. AWS does not tell the version of the key that it used.

        Raises:
            InvalidInputError: another length, a key id or context that cannot be, or a key that is not symmetric.
            KeyNotFoundError, KeyStateError: there is no such key, or it is disabled or pending deletion or import.
            EncryptionError: AWS encrypted nothing.
        """
        content = _checked(plaintext)
        encode_context(context)
        answer = await self._ask(
            "encrypt",
            ("KeyId", "CiphertextBlob"),
            KeyId=check_key_id(key_id),
            Plaintext=content,
            EncryptionContext=dict(context or {}),
            EncryptionAlgorithm=ALGORITHM,
        )
        return self._sealed(answer["CiphertextBlob"], answer["KeyId"], key_id, context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext. ``context`` None means the one in ``encrypted``.

        Raises:
            DecryptionError: another key than the one recorded, another context, or altered bytes.
            KeyNotFoundError, KeyStateError: the key is gone, or is disabled or pending deletion or import.
        """
        if encrypted.algorithm != ALGORITHM:
            raise DecryptionError(_FAILED)
        return await self._opened(encrypted, encrypted.context if context is None else context)

    async def decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        """Return the plaintext of data that FraiseQL encrypted by AWS KMS, or of a data key that it wrapped.

        FraiseQL recorded the key as it was typed, an alias often, and decrypted by whatever key the ciphertext named.
        Here the recorded name decides: where an alias has moved since, put the ARN of the key it named then into the
        record.

        Raises:
            DecryptionError: the recorded name is another key's today, or the bytes or the context were altered.
        """
        if encrypted.algorithm not in _FRAISEQL_ALGORITHMS:
            raise DecryptionError(_FAILED)
        return await self._opened(encrypted, encrypted.context)

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Have AWS draw a data key and wrap it; ``key_spec`` is AES_128 or AES_256.

        Raises:
            InvalidInputError: another ``key_spec``; otherwise as ``encrypt``.
        """
        size = data_key_size(key_spec)
        encode_context(context)
        answer = await self._ask(
            "generate_data_key",
            ("KeyId", "CiphertextBlob", "Plaintext"),
            KeyId=check_key_id(key_id),
            KeySpec=key_spec,
            EncryptionContext=dict(context or {}),
        )
        plaintext = SecretBytes(answer["Plaintext"])
        if len(plaintext) != size:
            raise EncryptionError("AWS KMS gave a data key of another size than it was asked for")
        version = answer.get("KeyMaterialId")
        sealed = self._sealed(answer["CiphertextBlob"], answer["KeyId"], key_id, context, version)
        return DataKeyPair(plaintext, sealed, sealed.key_reference)

    async def rewrap(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> EncryptedData:
        """Return the same plaintext under the recorded key's newest material; errors as ``decrypt``."""
        if encrypted.algorithm != ALGORITHM:
            raise DecryptionError(_FAILED)
        context = encrypted.context if context is None else context
        encode_context(context)
        key_id = recorded_key(encrypted, check_key_id)
        answer = await self._ask(
            "re_encrypt",
            ("KeyId", "SourceKeyId", "CiphertextBlob"),
            CiphertextBlob=_readable(encrypted.ciphertext),
            SourceKeyId=key_id,
            SourceEncryptionContext=dict(context),
            SourceEncryptionAlgorithm=ALGORITHM,
            DestinationKeyId=key_id,
            DestinationEncryptionContext=dict(context),
            DestinationEncryptionAlgorithm=ALGORITHM,
        )
        if not is_same_key(key_id, answer["SourceKeyId"]):
            raise DecryptionError(_FAILED)
        version = answer.get("DestinationKeyMaterialId")
        sealed = self._sealed(answer["CiphertextBlob"], answer["KeyId"], key_id, context, version)
        alias = encrypted.key_reference.key_alias or sealed.key_reference.key_alias
        return replace(sealed, key_reference=replace(sealed.key_reference, key_alias=alias))

    async def _opened(self, encrypted: EncryptedData, context: Mapping[str, str]) -> bytes:
        encode_context(context)
        key_id = recorded_key(encrypted, check_key_id)
        answer = await self._ask(
            "decrypt",
            ("KeyId", "Plaintext"),
            CiphertextBlob=_readable(encrypted.ciphertext),
            KeyId=key_id,
            EncryptionContext=dict(context),
            EncryptionAlgorithm=ALGORITHM,
        )
        if not is_same_key(key_id, answer["KeyId"]):
            raise DecryptionError(_FAILED)
        return bytes(answer["Plaintext"])

    def _sealed(
        self,
        ciphertext: bytes,
        answered: str,
        asked: str,
        context: Mapping[str, str] | None,
        version: str | None = None,
    ) -> EncryptedData:
        if not is_same_key(asked, answered):
            raise EncryptionError("AWS KMS encrypted under another key than it was asked for")
        return EncryptedData(
            ciphertext=bytes(ciphertext),
            key_reference=reference(answered, asked, version=version),
            algorithm=ALGORITHM,
            encrypted_at=self._clock.now(),
            context=context or {},
        )


def _checked(plaintext: bytes) -> bytes:
    require_plaintext(plaintext)
    content = SecretBytes(plaintext)
    if not 1 <= len(content) <= LARGEST:
        raise InvalidInputError(
            f"AWS KMS encrypts 1 to {LARGEST} bytes in a call; encrypt the rest under a data key: km.local_encrypt, or "
            "generate_data_key"
        )
    return content


def _readable(ciphertext: bytes) -> bytes:
    if not 1 <= len(ciphertext) <= _LARGEST_CIPHERTEXT:
        raise DecryptionError(_FAILED)
    return ciphertext
