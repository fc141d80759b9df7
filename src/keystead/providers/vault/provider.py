"""HashiCorp Vault and OpenBao: keys of the Transit engine, which never leave the server.

URI: ``hashivault://<mount>/<key>``, as in ``hashivault://teams/payments/transit/orders``, or ``hashivault://<key>``
for the mount ``transit``. A key id is the name of a key, with another mount than the provider's in front where it is
not there: ``orders``, ``other/orders``, ``other/keys/orders``.

Address, namespace, certificates and credentials come from ``VaultConfig``, else from ``VAULT_ADDR``,
``VAULT_NAMESPACE``, ``VAULT_CACERT`` and ``VAULT_TOKEN``, ``VAULT_TOKEN_FILE`` or ``~/.vault-token``; see the
documentation page for AppRole, Kubernetes and JWT. They are read at the first call.

Permissions (``<m>`` is the mount, ``<k>`` the key): every operation reads the key, ``read`` on ``<m>/keys/<k>``, and
needs ``update`` on the path of its own: ``encrypt`` and ``encrypt_batch`` on ``<m>/encrypt/<k>``, ``decrypt`` and
``decrypt_texts`` on ``<m>/decrypt/<k>``, ``generate_data_key`` on ``<m>/datakey/plaintext/<k>`` for derived keys and on
encrypt for others, ``rewrap`` on ``<m>/rewrap/<k>`` for derived keys and on encrypt and decrypt for others,
``rotate_key`` on ``<m>/keys/<k>/rotate``, ``sign`` and ``sign_batch`` on ``<m>/sign/<k>``; ``mac`` and ``mac_batch`` on
``<m>/hmac/<k>`` and ``verify_mac`` on ``<m>/verify/<k>``, which alone read no key. ``describe``,
``get_rotation_policy``, ``is_extractable`` and ``public_key`` only read it; ``check_permissions`` is in every token's
default policy, and ``service_time`` needs nothing. Never give ``create`` on encrypt: it lets a misspelt name make a
key.

Size limit: 32 MiB for a request, in base64: about 24 MiB of plaintext.
"""

from __future__ import annotations

import asyncio
import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NoReturn, SupportsIndex

from keystead.crypto.context import encode_context
from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    KMSError,
    ProviderConnectionError,
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
from keystead.providers.inputs import data_key_size, recorded_key, require_plaintext
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.providers.vault.batches import all_or_partial, each_run, split
from keystead.providers.vault.cipher import Cipher, Sealed, transit_items
from keystead.providers.vault.client import SDK, VaultClient
from keystead.providers.vault.config import VaultConfig, config_from_uri
from keystead.providers.vault.errors import VersionNotStoredError
from keystead.providers.vault.keeper import Keeper
from keystead.providers.vault.keys import Key, KeyInfo, Keys, split_key_path
from keystead.providers.vault.login import REVOKE_WITHIN_S
from keystead.providers.vault.permissions import permissions
from keystead.providers.vault.signer import Signer
from keystead.providers.vault.signing import VaultSigning
from keystead.providers.workers import Workers
from keystead.runtime.clock import SystemClock

ROTATIONS: Final = 3
ROTATE_AGAIN_AFTER_S: Final = 0.3
"""How often, and how soon, a version is made where the server could not store the one before."""
LOOK_AGAIN_AFTER_S: Final = 1.0
"""When a token is looked at again that was due, and stayed so: its renewal is under way in another thread."""


class VaultKMSProvider(VaultSigning):
    """Keys of a Transit engine. Construction opens no file and makes no connection.

    Args:
        config: where the server is and how to log in; ``VaultConfig()`` leaves all of it to the environment.
        environ: read instead of the process's environment, at the first call.
        production: refuse what is not safe enough for production.

    Raises:
        ConfigurationError: ``production``, and ``tls_verify=False``.
        MissingDependencyError: hvac is not installed.
    """

    def __init__(
        self,
        config: VaultConfig | None = None,
        *,
        production: bool = False,
        environ: Mapping[str, str] | None = None,
        random: Random = os.urandom,
        clock: Clock | None = None,
    ) -> None:
        SDK.require()
        config = config or VaultConfig()
        if not config.tls_verify:
            if production:
                raise ConfigurationError(
                    "tls_verify=False is refused in production: whoever is on the way reads every key; name the "
                    "server's authority with tls_ca_cert"
                )
            warnings.warn(
                "tls_verify=False: whoever is on the way to the Vault server reads the token and every key; name the "
                "server's authority with tls_ca_cert instead",
                stacklevel=2,
            )
        self._config = config
        self._environ = environ
        self._clock = clock or SystemClock()
        self._workers = Workers("vault")
        self._client = VaultClient(config, self._environment, self._clock)
        self._keys = Keys(config.mount_path or "")
        self._cipher = Cipher(self._client, self._clock, random)
        self._signer = Signer(self._client, self._clock)
        self._keeper = Keeper(weakref.ref(self))

    def __repr__(self) -> str:
        return f"VaultKMSProvider({self._config.mount_path!r}, credentials hidden)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("VaultKMSProvider holds a token and cannot be pickled or copied; make one in each process")

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[VaultKMSProvider, str]:
        """Return the provider a ``hashivault:`` URI names, and its key.

        Raises:
            ConfigurationError: a URI of another form.
            MissingDependencyError: hvac is not installed.
        """
        config, key_id = config_from_uri(uri)
        try:
            split_key_path(key_id)
        except InvalidInputError as exc:
            raise ConfigurationError(f"the hashivault: URI names no key: {exc}") from None
        provider = cls(
            config,
            production=settings.production,
            environ=settings.environ,
            random=settings.random,
            clock=settings.clock,
        )
        return provider, key_id

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt up to some 24 MiB under the newest version of ``key_id``. An unknown key is never made.

        Raises:
            InvalidInputError: not bytes, too long, or a key whose type binds no context.
            ConfigurationError: nothing is mounted there, or the server does not bind contexts.
            KeyNotFoundError, KeyStateError, ProviderAuthError, ProviderConnectionError: as the server answers.
        """
        content, key, bound = _content(plaintext), self._keys.get(key_id), encode_context(context)
        sealed = await self._run(lambda: self._cipher.encrypt(key, content, bound))
        return self._encrypted(sealed, key, key_id, context)

    async def encrypt_batch(
        self, plaintexts: Sequence[bytes], key_id: str, *, context: Mapping[str, str] | None = None
    ) -> list[EncryptedData]:
        """Encrypt each plaintext; some 250 of them are one request, or 500 where there is no context.

        Raises:
            PartialBatchError: some could not be encrypted; otherwise as ``encrypt``.
        """
        contents, key, bound = [_content(one) for one in plaintexts], self._keys.get(key_id), encode_context(context)

        def make(start: int, end: int) -> list[EncryptedData | KMSError]:
            made = self._cipher.encrypt_many(key, contents[start:end], bound)
            return [one if isinstance(one, KMSError) else self._encrypted(one, key, key_id, context) for one in made]

        async def ask(start: int, end: int) -> list[EncryptedData | KMSError]:
            return await self._run(lambda: make(start, end))

        runs = await self._run(lambda: self._cipher.runs(key, contents, bound))
        return all_or_partial(await each_run(runs, ask), "plaintexts")

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext. ``context`` None means the one in ``encrypted``.

        Raises:
            DecryptionError: another key or context, or altered bytes.
            KeyStateError: the version is not allowed any more, or the key is deleted softly.
            KeyNotFoundError, ProviderAuthError, ProviderConnectionError: as the server answers.
        """
        bound = encode_context(encrypted.context if context is None else context)
        key, text, version = self._parts(encrypted)
        return bytes(await self._run(lambda: self._cipher.decrypt(key, text, encrypted.algorithm, version, bound)))

    async def decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        """Return the plaintext of what FraiseQL encrypted under the same key.

        Raises:
            DecryptionError: also where the key is not derived and there is a context, which nothing bound; see
                ``VaultConfig.read_unbound_contexts``. Otherwise as ``decrypt``.
        """
        from keystead.crypto.legacy import fraiseql_aad

        bound = fraiseql_aad("vault", encrypted.context)
        key, text, _ = self._parts(encrypted)
        allowed = self._config.read_unbound_contexts
        return bytes(await self._run(lambda: self._cipher.decrypt_unbound(key, text, bound, allowed=allowed)))

    async def decrypt_texts(
        self, texts: Sequence[str], key_id: str, *, context: bytes = b"", associated_data: bytes = b""
    ) -> list[bytes | KMSError]:
        """Return for each ``vault:vN:`` text of an application its plaintext, or why it does not open.

        Some hundred texts are one request. ``context`` is what a derived key was derived by, ``associated_data`` what
        was sent as such, both before base64.

        Raises:
            KeyNotFoundError, ProviderAuthError, ProviderConnectionError: as the server answers.
        """
        key = self._keys.get(key_id)
        items = transit_items(texts, context, associated_data)

        async def ask(start: int, end: int) -> list[bytes | KMSError]:
            return await self._run(lambda: self._cipher.open_texts(key, items[start:end]))

        return await each_run(split(items, {}), ask)

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Return a data key: drawn by the server under a derived key, here and encrypted under any other.

        Raises:
            InvalidInputError: ``key_spec`` is neither AES_128 nor AES_256; otherwise as ``encrypt``.
        """
        size = data_key_size(key_spec)
        key, bound = self._keys.get(key_id), encode_context(context)
        plaintext, sealed = await self._run(lambda: self._cipher.data_key(key, size, bound))
        encrypted = self._encrypted(sealed, key, key_id, context)
        return DataKeyPair(plaintext, encrypted, encrypted.key_reference)

    async def rewrap(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> EncryptedData:
        """Return the same plaintext under the newest version.

        The server moves it itself under a derived key, or without a context. It moves nothing that has associated
        data: that is decrypted and encrypted again here. Errors as ``decrypt`` and ``encrypt``.
        """
        kept = encrypted.context if context is None else context
        bound = encode_context(kept)
        key, text, version = self._parts(encrypted)
        sealed = await self._run(lambda: self._cipher.rewrap(key, text, encrypted.algorithm, version, bound))
        return self._encrypted(sealed, key, key.key_id, kept)

    async def describe(self, key_id: str) -> KeyDescription:
        """Return purpose, state, times and newest version; a key that is deleted softly is ``DISABLED``.

        ``created_at`` is when the oldest version was made that is still allowed; MAC keys have none.
        """
        key = self._keys.get(key_id)
        info = await self._run(lambda: key.info(self._client, self._clock, fresh=True))
        version = str(key.current(info))
        return KeyDescription(
            key_reference=self._reference(key, key_id, info, version),
            state=KeyState.DISABLED if info.is_soft_deleted else KeyState.ENABLED,
            created_at=info.first_created,
            current_version=version,
            algorithms=info.algorithms,
        )

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Make a new version and return it. One process at a time may do so: two can lose versions for good.

        ``keystead key rewrap --rotate-kek`` takes a lease of the store for it; whoever calls this directly from
        several processes takes one of their own. Where the server says that it could not store the version, another
        one is made at once, which stores both.

        Raises:
            ProviderConnectionError: the server failed; the version before goes on encrypting, until a rotation
                succeeds.
            RotationNotSupportedError: the key was imported, and not for rotating.
            KeyNotFoundError, ProviderAuthError: as the server answers.
        """
        key = self._keys.get(key_id)
        for number in range(1, ROTATIONS + 1):
            try:
                info = await self._run(lambda: self._cipher.rotate(key))
                break
            except VersionNotStoredError:
                if number == ROTATIONS:
                    raise
            await self._clock.sleep(number * ROTATE_AGAIN_AFTER_S)
        return self._reference(key, key_id, info, str(info.latest))

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return the key's ``auto_rotate_period``, disabled where it has none, and when it was last rotated."""
        key = self._keys.get(key_id)
        info = await self._run(lambda: key.info(self._client, self._clock, fresh=True))
        last = info.last_created
        is_automatic = bool(info.rotate_period) and last is not None
        return RotationPolicy(
            enabled=bool(info.rotate_period),
            rotation_period=info.rotate_period,
            last_rotation=last if info.latest > 1 else None,
            next_rotation=last + info.rotate_period if is_automatic and last is not None else None,
        )

    async def check_permissions(self, key_id: str, *, context: Mapping[str, str] | None = None) -> Mapping[str, bool]:
        """Return which operations the token's policies allow with a key, under any context; tries none of them."""
        key = self._keys.get(key_id)
        return await self._run(lambda: permissions(key, self._client, self._clock))

    async def is_extractable(self, key_id: str) -> bool:
        """Return whether the key may be exported, or backed up in clear. Both can be allowed, and never taken back."""
        key = self._keys.get(key_id)
        return (await self._run(lambda: key.info(self._client, self._clock, fresh=True))).is_exportable

    async def service_time(self) -> datetime:
        """Return the server's time, in whole seconds; works without a token, and while the server is sealed."""
        answer = await self._run(lambda: self._client.send("get", "sys/seal-status"))
        try:
            return parsedate_to_datetime(answer.headers.get("Date", "")).astimezone(UTC)
        except ValueError:
            raise ProviderConnectionError("the Vault server's answer has no time in it") from None

    async def aclose(self) -> None:
        """Give back the token that was logged in for, and close every connection; idempotent."""
        self._keeper.stop()
        login = self._client.login
        login.stop()
        try:
            if login.has_own_token:
                async with asyncio.timeout(REVOKE_WITHIN_S):
                    await self._workers.run(login.give_back)
        except (KMSError, TimeoutError):
            # It ends by itself, when its time is over.
            pass
        finally:
            self._workers.close()
            self._client.close()

    async def renew_login(self) -> None:
        """Renew the token if its time has come; called by the provider itself in time. Raises nothing."""
        try:
            await self._workers.run(self._client.login.renew)
        except KMSError:
            return
        due_in_s = self._client.login.due_in_s
        # Still due: another thread is about it, for as long as the server takes to answer.
        self._keeper.see(LOOK_AGAIN_AFTER_S if due_in_s == 0 else due_in_s)

    def _environment(self) -> Mapping[str, str]:
        return os.environ if self._environ is None else self._environ

    def _parts(self, encrypted: EncryptedData) -> tuple[Key, bytes, str | None]:
        return recorded_key(encrypted, self._keys.get), encrypted.ciphertext, encrypted.key_reference.key_version

    def _encrypted(self, sealed: Sealed, key: Key, key_id: str, context: Mapping[str, str] | None) -> EncryptedData:
        return EncryptedData(
            ciphertext=sealed.ciphertext,
            key_reference=self._reference(key, key_id, None, str(sealed.version)),
            algorithm=sealed.algorithm,
            encrypted_at=self._clock.now(),
            context=context or {},
        )

    def _reference(self, key: Key, key_id: str, info: KeyInfo | None, version: str) -> KeyReference:
        alias = key_id if key_id != key.key_id else None
        if info is None:
            return KeyReference(self.provider_name, key.key_id, alias, key_version=version)
        return KeyReference(self.provider_name, key.key_id, alias, info.purpose, info.first_created, version)


def _content(plaintext: bytes) -> SecretBytes:
    require_plaintext(plaintext)
    return SecretBytes(plaintext)
