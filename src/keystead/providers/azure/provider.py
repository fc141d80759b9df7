"""Azure Key Vault and Managed HSM.

URI: ``azurekms://HOST/NAME`` or ``azurekms://HOST/NAME/VERSION``, as in ``azurekms://acme.vault.azure.net/kek``.
Options: ``?sign_key=NAME`` (a key in the same vault, or a complete id), ``?allow_unauthenticated_wrap=true``,
``?allow_host=true`` (HOST is none of Azure's), ``?managed_hsm=true`` (it has MACs).

Credentials: ``AzureKMSConfig``, or the environment (``DefaultAzureCredential``): ``AZURE_TENANT_ID``,
``AZURE_CLIENT_ID``, ``AZURE_CLIENT_SECRET`` or ``AZURE_FEDERATED_TOKEN_FILE``, else the managed identity, else
``az login``. None is read before the first call.

Permissions (RBAC action below ``Microsoft.KeyVault/vaults/keys``; access policy):

- ``encrypt``, ``generate_data_key`` with an RSA key: ``read``, and ``sign/action`` on the signing key (get; sign). The
  wrap itself is computed here. With an AES key: ``read``, ``encrypt/action`` (get, encrypt).
- ``decrypt``: ``unwrap/action``, and ``read`` on the signing key (unwrapKey; get); AES: ``decrypt/action`` (decrypt).
- ``sign``, ``mac``: ``read``, ``sign/action`` (get, sign). ``verify_mac``: ``verify/action`` (verify).
- ``describe``, ``public_key``: ``read`` (get). ``key_versions``: ``read`` (list). ``get_rotation_policy``: ``read``,
  and ``keyrotationpolicies/read`` of the vault (get, getrotationpolicy).
- ``rotate_key``: ``rotate/action`` (rotate). ``service_time``: none.

Size limits: 158, 286 or 414 bytes under RSA keys of 2048, 3072 or 4096 bits, 4095 bytes under AES keys; above that,
``local_encrypt`` of the manager, or a data key. RSA takes no context: its hash is sealed along, and the wrap is signed.
Format: docs/spec/azure-wrap-v1.md. Page: docs/kms/azure.md.

A key that is disabled still wraps, here as anywhere else where its public half is known: its state is asked at first
use and every ``key_max_age_s``. ``decrypt`` and ``sign`` are the service's, and stop at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from keystead.crypto.context import encode_context
from keystead.errors import (
    ConfigurationError,
    DecryptionError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    ProviderAuthError,
    ProviderConnectionError,
    SystemShutdownError,
)
from keystead.model import (
    DataKeyPair,
    EncryptedData,
    KeyDescription,
    KeyReference,
    KeyState,
    RotationPolicy,
    SecretBytes,
)
from keystead.ports import Clock, Random
from keystead.providers.azure.client import AzureConnection
from keystead.providers.azure.config import AzureKeyId, AzureKMSConfig
from keystead.providers.azure.errors import Asked
from keystead.providers.azure.keys import PROVIDER_NAME
from keystead.providers.azure.rotation import policy_from
from keystead.providers.azure.seal import seal, unseal
from keystead.providers.azure.session import SDKS
from keystead.providers.azure.signing import AzureSigning
from keystead.providers.inputs import data_key_size, require_plaintext
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.runtime.clock import SystemClock
from keystead.runtime.per_loop import PerLoop

__all__ = ["AzureKMSConfig", "AzureKMSProvider"]


class AzureKMSProvider(AzureSigning):
    """Keys in Azure Key Vault and Managed HSM. Where the configuration's vault is an HSM, it also makes MACs.

    Construction does no I/O and reads no credentials. ``environ`` is where credentials are looked for, the process's
    own by default. One provider serves any number of event loops, each with connections of its own.

    Raises:
        MissingDependencyError: the SDK is not installed.
    """

    def __init__(
        self,
        config: AzureKMSConfig | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        random: Random = os.urandom,
        clock: Clock | None = None,
    ) -> None:
        for sdk in SDKS:
            sdk.require()
        self._config = config or AzureKMSConfig()
        self._environ = os.environ if environ is None else environ
        self._random = random
        self._clock = clock or SystemClock()
        self._loops = PerLoop(self._open, AzureConnection.aclose, abandon=AzureConnection.abandon)
        self._is_closed = False
        if self._config.has_macs:
            # On the object: a vault has no such keys, and isinstance with a runtime protocol looks for the attribute.
            self.mac = self._mac
            self.verify_mac = self._verify_mac

    def __repr__(self) -> str:
        return f"AzureKMSProvider({self._config.vault_url or 'any vault'})"

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[AzureKMSProvider, str]:
        """Return the provider an ``azurekms:`` URI names, and its default key id.

        Raises:
            ConfigurationError: a URI of another form, or of a host that may not be talked to.
        """
        uri.require_options({"sign_key", "allow_unauthenticated_wrap", "allow_host", "managed_hsm"})
        host, slash, path = uri.body.removeprefix("//").partition("/")
        if not uri.body.startswith("//") or not slash or (path.startswith("keys/") and path != "keys/"):
            raise ConfigurationError(
                "azurekms: takes a host and a key, as in azurekms://acme.vault.azure.net/kek or .../kek/VERSION"
            )
        signers = uri.options.get("sign_key", "")
        config = AzureKMSConfig(
            vault_url=f"https://{host}",
            sign_key=signers.split(",") if signers else None,
            allow_unauthenticated_wrap=uri.flag("allow_unauthenticated_wrap"),
            allowed_hosts=[host] if uri.flag("allow_host") else [],
            managed_hsm=uri.flag("managed_hsm") or None,
        )
        try:
            key_id = str(config.key_id(path))
        except InvalidInputError as exc:
            raise ConfigurationError(f"the azurekms: URI names no key: {exc}") from None
        return cls(config, environ=settings.environ, random=settings.random, clock=settings.clock), key_id

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``azure``."""
        return PROVIDER_NAME

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt under the newest version of ``key_id``, or the one it names.

        An RSA key: no request, one with ``sign_key``; an AES key: one. One more for each key at first use and every
        ``key_max_age_s``.

        Raises:
            InvalidInputError: not bytes, too long for the key, a key id or context that cannot be, or a key that does
                not encrypt.
            ConfigurationError: an RSA key without ``sign_key``, or a host that may not be talked to.
            KeyNotFoundError, KeyStateError: the key is missing, disabled, not valid yet, or expired.
        """
        require_plaintext(plaintext)
        return await self._seal(SecretBytes(plaintext), key_id, context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext; ``context`` None means the one in ``encrypted``. One request to the version it names.

        Raises:
            DecryptionError: another key or context, altered bytes, or a signature that does not fit or is missing.
            KeyNotFoundError, KeyStateError: the key is gone or disabled, or the signing key is disabled.
            ConfigurationError: the ciphertext is signed, and there is no ``sign_key`` to check it by.
        """
        context = encrypted.context if context is None else context
        key_id = self._stored(encrypted.key_reference)
        connection = await self._connection()
        return await unseal(connection, self._config, key_id, encrypted, context)

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Draw a data key here, and wrap it; the service draws none. Errors as ``encrypt``."""
        plaintext = SecretBytes(self._random(data_key_size(key_spec)))
        encrypted = await self._seal(plaintext, key_id, context)
        return DataKeyPair(plaintext, encrypted, encrypted.key_reference)

    async def describe(self, key_id: str) -> KeyDescription:
        """Return a key as it is now. One request; two where it was deleted and can still be recovered.

        Raises:
            KeyNotFoundError: there is no such key or version, or it was deleted and may not be read.
        """
        asked, connection = self._config.key_id(key_id), await self._connection()
        try:
            found = await connection.read(asked)
        except KeyNotFoundError:
            deleted = await self._find_deleted(connection, asked, key_id)
            if deleted is None:
                raise
            return deleted
        return found.description(key_id, found.state(self._clock.now()))

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Make a new version, which encrypts and signs from now on; old ones go on decrypting.

        Raises:
            InvalidInputError: ``key_id`` names a version.
            KeyRotationError: the service refused.
        """
        asked, connection = self._config.key_id(key_id), await self._connection()
        if asked.version is not None:
            raise InvalidInputError("a rotation makes a version: name the key without one")
        read_at = self._clock.monotonic()
        theirs = await connection.ask(Asked.ROTATE, asked, lambda clients: clients.keys(asked).rotate_key(asked.name))
        found = connection.remember(asked, theirs, read_at)
        return replace(found.reference(key_id), created_at=found.created_at)

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return the key's rotation policy; disabled where it has none that rotates. Two requests.

        ``last_rotation`` is the creation of the newest version, and the period that version's own.
        """
        asked, connection = replace(self._config.key_id(key_id), version=None), await self._connection()
        found = await connection.read(asked)
        theirs = await connection.ask(
            Asked.POLICY, asked, lambda clients: clients.keys(asked).get_key_rotation_policy(asked.name)
        )
        return policy_from(theirs, found.created_at, found.expires_at)

    async def service_time(self) -> datetime:
        """Return the vault's time, to the second, from the ``Date`` of an answer that needs no sign-in.

        Raises:
            ConfigurationError: there is no ``vault_url`` to ask.
            ProviderConnectionError: no answer, or none with a date.
        """
        if self._config.vault_url is None:
            raise ConfigurationError("service_time asks the vault at AzureKMSConfig(vault_url=...)")
        moment = await (await self._connection()).service_time(self._config.vault_url)
        if moment is None:
            raise ProviderConnectionError(f"{self._config.vault_url} did not tell its time")
        return moment

    async def aclose(self) -> None:
        """Close the connections of every event loop; idempotent. Later calls raise ``SystemShutdownError``."""
        self._is_closed = True
        await self._loops.aclose()

    async def _seal(self, plaintext: bytes, key_id: str, context: Mapping[str, str] | None) -> EncryptedData:
        asked, kept = self._config.key_id(key_id), _plain(context)
        connection = await self._connection()
        found = await connection.key(asked)
        ciphertext, algorithm = await seal(connection, self._config, found, plaintext, kept)
        return EncryptedData(
            ciphertext=ciphertext,
            key_reference=found.reference(key_id),
            algorithm=algorithm,
            encrypted_at=self._clock.now(),
            context=kept,
        )

    async def _find_deleted(self, connection: AzureConnection, asked: AzureKeyId, typed: str) -> KeyDescription | None:
        """Return a key that was deleted softly, or None where there is none or that may not be asked."""
        read_at = self._clock.monotonic()
        try:
            theirs: Any = await connection.ask(
                Asked.KEY, asked, lambda clients: clients.keys(asked).get_deleted_key(asked.name)
            )
            found = connection.remember(asked, theirs, read_at)
        except (KeyNotFoundError, KeyStateError, ProviderAuthError):
            return None
        connection.forget(asked)
        return found.description(typed, KeyState.PENDING_DELETION)

    def _stored(self, reference: KeyReference) -> AzureKeyId:
        """Return the version that a record names.

        Raises:
            DecryptionError: it names none, or a host that may not be talked to.
        """
        try:
            key_id = self._config.key_id(f"{reference.key_id}/{reference.key_version or ''}")
        except (InvalidInputError, ConfigurationError):
            raise DecryptionError(
                "decryption failed: the record names no version of a key at a host of Azure, or one in allowed_hosts"
            ) from None
        return key_id

    async def _connection(self) -> AzureConnection:
        if self._is_closed:
            raise SystemShutdownError("the Azure provider was closed")
        return await self._loops.get()

    async def _open(self) -> AzureConnection:
        return await AzureConnection.open(self._config, self._environ, self._clock)


def _plain(context: Mapping[str, str] | None) -> dict[str, str]:
    encode_context(context)
    return dict(context or {})
