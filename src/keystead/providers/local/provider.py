"""A KEK on this machine: for development, tests, and installations where a protected file is good enough.

URI: ``local:`` (the file ``keystead.kek`` in the working directory, made at the first wrap), ``local:/path/to/kek`` or
``file:/path/to/kek`` (must exist: a KEK file, or a file or folder of keys that somebody else keeps), ``env:VARIABLE``
(one key or several). Options: ``?key=NAME`` for the key id (``default``), ``?allow_in_production=true``, with ``file:``
``?allow_group_read=true``. Refused in production without allow_in_production: whoever can read the process, the file or
its backup has the key.

Credentials: none. Permissions: reading the file (mode 0600 or less, with allow_group_read 0640 or less) for everything;
writing to its folder for the first wrap, ``rotate_key`` and ``retire_version``. Size limit: 64 MiB. Formats:
docs/spec/local-kek-v1.md, docs/spec/key-material-v1.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NoReturn, SupportsIndex

from keystead.errors import ConfigurationError, DecryptionError, InvalidInputError, SystemShutdownError
from keystead.model import DataKeyPair, EncryptedData, KeyDescription, KeyReference, RotationPolicy, SecretBytes
from keystead.ports import Clock, Random
from keystead.providers.inputs import data_key_size
from keystead.providers.key_sources import VariableSource
from keystead.providers.local.kek import ALGORITHM, KEY_SIZE, LocalKek, encode_key_id, version_of
from keystead.providers.local.kek_material import kek_of_key
from keystead.providers.local.kek_source import DerivedKek, FileKek, KekSource, VariableKek
from keystead.providers.uri import ProviderSettings, ProviderUri
from keystead.runtime.clock import SystemClock
from keystead.runtime.off_loop import compute, in_thread

DEFAULT_FILE: Final = "keystead.kek"
DEFAULT_KEY_ID: Final = "default"
MIN_ROOT_KEY_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class LocalKMSConfig:
    """Where the KEK comes from: at most one of ``master_key``, ``path``, ``env``, ``passphrase`` and ``root_key``.

    Args:
        master_key: 32 bytes.
        path: a KEK file, as ``keystead init`` makes it, or a file or folder of keys that somebody else keeps;
            relative to the working directory at construction of the provider.
        env: name of an environment variable holding one key or several, the newest first: 32 bytes each, as base64 or
            hex.
        passphrase: stretched by Argon2id with ``salt`` (at least 16 bytes, kept beside the data) at the first call,
            off the event loop.
        root_key: a function that returns at least 16 secret bytes, such as ``RootKeyGenerator(...).generate_root_key``;
            called once, off the event loop, and expanded to 32 bytes by HKDF.
        create: make the file at ``path`` at the first wrap if it is missing; never at a decrypt.
        allow_group_read: accept a file that its group may read, as in a Kubernetes secret volume with ``fsGroup``.
        allow_in_production: work under ``production=True`` too.

    Its repr hides what is secret; it cannot be pickled.
    """

    master_key: bytes | bytearray | None = field(default=None, repr=False)
    path: str | os.PathLike[str] | None = None
    env: str | None = None
    passphrase: str | None = field(default=None, repr=False)
    salt: bytes | None = field(default=None, repr=False)
    root_key: Callable[[], bytes] | None = field(default=None, repr=False)
    create: bool = False
    allow_group_read: bool = False
    allow_in_production: bool = False

    def __post_init__(self) -> None:
        sources = ("master_key", "path", "env", "passphrase", "root_key")
        if sum(getattr(self, source) is not None for source in sources) > 1:
            raise ConfigurationError("give one of master_key, path, env, passphrase and root_key, not several")
        if self.create and self.path is None:
            raise ConfigurationError("create=True makes the file at path: give path as well")
        if self.allow_group_read and self.path is None:
            raise ConfigurationError("allow_group_read=True is about the file at path: give path as well")
        if (self.passphrase is None) != (self.salt is None):
            raise ConfigurationError("passphrase and salt go together; draw os.urandom(16) once and keep it")
        if self.master_key is not None:
            if not isinstance(self.master_key, bytes | bytearray) or len(self.master_key) != KEY_SIZE:
                raise InvalidInputError("master_key must be exactly 32 bytes, for example os.urandom(32)")
            object.__setattr__(self, "master_key", SecretBytes(self.master_key))

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("LocalKMSConfig may hold a key and cannot be pickled or copied")


class LocalKMSProvider:
    """A KMS inside the process. Any key id works: each has a key of its own, derived from the KEK.

    Without a source it draws a random KEK that is lost with the process (``is_ephemeral``). Construction opens no file
    and reads no environment. ``environ`` is what ``env:`` looks in, the process's own by default.

    Raises:
        ConfigurationError: ``production`` is true, and the configuration does not allow it.
    """

    def __init__(
        self,
        config: LocalKMSConfig | None = None,
        *,
        production: bool = False,
        environ: Mapping[str, str] | None = None,
        random: Random = os.urandom,
        clock: Clock | None = None,
    ) -> None:
        config = config or LocalKMSConfig()
        if production and not config.allow_in_production:
            raise ConfigurationError(
                "the local KMS is refused in production: whoever can read the machine has the key. Use a KMS, or "
                "accept it with allow_in_production (in a URI: ?allow_in_production=true)"
            )
        self._random = random
        self._clock = clock or SystemClock()
        self._is_ephemeral = False
        self._source: KekSource
        if config.path is not None:
            path = os.path.abspath(config.path)
            self._source = FileKek(
                path,
                create=config.create,
                random=random,
                clock=self._clock,
                allow_group_read=config.allow_group_read,
                production=production,
            )
        elif config.env is not None:
            self._source = VariableKek(VariableSource(config.env, environ=environ, production=production))
        elif (derivation := _derivation_of(config)) is not None:
            self._source = DerivedKek(*derivation)
        else:
            self._source = DerivedKek("a random KEK", _gone, kek=kek_of_key(random(KEY_SIZE)))
            self._is_ephemeral = True

    def __repr__(self) -> str:
        return f"LocalKMSProvider({type(self._source).__name__}, keys hidden)"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("LocalKMSProvider holds a key and cannot be pickled or copied; make one in each process")

    @classmethod
    def from_uri(cls, uri: ProviderUri, settings: ProviderSettings) -> tuple[LocalKMSProvider, str]:
        """Return the provider a ``local:``, ``file:`` or ``env:`` URI names, and its default key id.

        Raises:
            ConfigurationError: a URI of another form, or production.
        """
        uri.require_options({"key", "allow_in_production"} | ({"allow_group_read"} if uri.scheme == "file" else set()))
        allowed, group = uri.flag("allow_in_production"), uri.flag("allow_group_read")
        if uri.scheme == "env":
            if not uri.body.isidentifier() or not uri.body.isascii():
                raise ConfigurationError("env: takes the name of an environment variable, as in env:KEYSTEAD_KEK")
            config = LocalKMSConfig(env=uri.body, allow_in_production=allowed)
        elif path := uri.path():
            file = os.path.join(settings.folder, path)
            config = LocalKMSConfig(path=file, allow_group_read=group, allow_in_production=allowed)
        elif uri.scheme == "local":
            file = os.path.join(settings.folder, DEFAULT_FILE)
            config = LocalKMSConfig(path=file, create=True, allow_in_production=allowed)
        else:
            raise ConfigurationError("file: takes the path of a KEK file, as in file:/etc/keystead/kek")
        provider = cls(
            config,
            production=settings.production,
            environ=settings.environ,
            random=settings.random,
            clock=settings.clock,
        )
        return provider, uri.options.get("key", DEFAULT_KEY_ID)

    @property
    def provider_name(self) -> str:
        """The provider's kind: ``local``."""
        return "local"

    @property
    def is_ephemeral(self) -> bool:
        """Whether the KEK is a random one that nothing outlives."""
        return self._is_ephemeral

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt up to 64 MiB under the newest version of ``key_id``.

        Raises:
            InvalidInputError: ``plaintext`` is not bytes or too long, or key id or context cannot be encoded.
            KeyNotFoundError, ConfigurationError: the KEK is missing, not to be trusted or damaged.
        """
        kek = await self._kek(None)
        return await self._seal(kek, plaintext, key_id, context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the plaintext. ``context`` None means the one in ``encrypted``.

        Raises:
            DecryptionError: another KEK, key id or context, or altered bytes.
            KeyNotFoundError, ConfigurationError: the KEK is missing, not to be trusted or damaged.
        """
        if encrypted.algorithm != ALGORITHM:
            raise DecryptionError("decryption failed")
        ciphertext = encrypted.ciphertext
        context = encrypted.context if context is None else context
        kek = await self._kek(version_of(ciphertext))
        key_id = encrypted.key_reference.key_id
        return await compute(len(ciphertext), lambda: kek.open(ciphertext, key_id, context))

    async def decrypt_foreign(self, encrypted: EncryptedData) -> bytes:
        """Return the plaintext of data that FraiseQL's local KMS encrypted with this KEK as its master key.

        Raises:
            DecryptionError: another master key or context, or altered bytes.
            KeyNotFoundError, ConfigurationError: the KEK is missing, not to be trusted or damaged.
        """
        from keystead.crypto.legacy import fraiseql_local_aads

        kek = await in_thread(self._source.peek)
        return await in_thread(kek.open_unversioned, encrypted.ciphertext, list(fraiseql_local_aads(encrypted.context)))

    async def generate_data_key(
        self, key_id: str, *, context: Mapping[str, str] | None = None, key_spec: str = "AES_256"
    ) -> DataKeyPair:
        """Draw a data key and encrypt it under ``key_id``; ``key_spec`` is AES_128 or AES_256.

        Raises:
            InvalidInputError: another ``key_spec``; otherwise as ``encrypt``.
        """
        plaintext = SecretBytes(self._random(data_key_size(key_spec)))
        encrypted = await self.encrypt(plaintext, key_id, context=context)
        return DataKeyPair(plaintext, encrypted, encrypted.key_reference)

    async def encrypt_batch(
        self, plaintexts: Sequence[bytes], key_id: str, *, context: Mapping[str, str] | None = None
    ) -> list[EncryptedData]:
        """Encrypt each plaintext as ``encrypt`` does; order kept."""
        kek = await self._kek(None)
        return [await self._seal(kek, plaintext, key_id, context) for plaintext in plaintexts]

    async def rewrap(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> EncryptedData:
        """Return the same plaintext under the newest version; errors as ``decrypt`` and ``encrypt``."""
        context = encrypted.context if context is None else context
        plaintext = await self.decrypt(encrypted, context=context)
        return await self.encrypt(plaintext, encrypted.key_reference.key_id, context=context)

    async def describe(self, key_id: str) -> KeyDescription:
        """Return the newest version of the KEK, and when its oldest one still kept was made.

        Raises:
            KeyNotFoundError: the KEK file is missing; describing never makes it.
        """
        kek = await in_thread(self._source.peek)
        created_at = kek.created[min(kek.created)]
        return KeyDescription(
            key_reference=self._reference(kek, key_id, created_at),
            created_at=created_at,
            current_version=str(kek.newest),
        )

    async def rotate_key(self, key_id: str) -> KeyReference:
        """Add a version to the KEK file, for every key id, and return it once it is safely on disk.

        Raises:
            KeyRotationError: the KEK is no file, or the file could not be written; every version is still there.
        """
        encode_key_id(key_id)
        kek = await in_thread(self._source.rotate)
        return self._reference(kek, key_id, kek.created[kek.newest])

    async def retire_version(self, version: int, *, superseded_for_s: float = 300.0) -> None:
        """Remove a version from the KEK file for ever. Call it only when nothing is encrypted under it any more.

        Other processes look at the file before they wrap; ``superseded_for_s`` is how long the next version must have
        been there, so that a wrap under way in one of them has ended and shows in the store.

        Raises:
            KeyNotFoundError: there is no such version.
            KeyStateError: it is the newest, or was replaced too recently.
            KeyRotationError: the KEK is no file, or the file could not be written.
        """
        await in_thread(self._source.retire, version, superseded_for_s=superseded_for_s)

    async def get_rotation_policy(self, key_id: str) -> RotationPolicy:
        """Return a disabled policy: a local KEK rotates when told. ``last_rotation`` is its newest version's age."""
        encode_key_id(key_id)
        kek = await in_thread(self._source.peek)
        last = kek.created[kek.newest] if kek.newest > 1 else None
        return RotationPolicy(enabled=False, rotation_period=timedelta(0), last_rotation=last)

    async def is_extractable(self, key_id: str) -> bool:
        """Return True: whoever can read the process, or where its KEK comes from, has the key."""
        encode_key_id(key_id)
        return True

    async def aclose(self) -> None:
        """Overwrite the keys in memory. A later call reads them again; a random KEK is gone for good."""
        # It waits for whoever is reading or writing the file.
        await in_thread(self._source.wipe)

    async def _kek(self, version: int | None) -> LocalKek:
        kek = self._source.find(version)
        return kek if kek is not None else await in_thread(self._source.load, version)

    async def _seal(
        self, kek: LocalKek, plaintext: bytes, key_id: str, context: Mapping[str, str] | None
    ) -> EncryptedData:
        size = len(plaintext) if isinstance(plaintext, bytes | bytearray | memoryview) else 0
        ciphertext = await compute(size, lambda: kek.seal(plaintext, key_id, context, random=self._random))
        return EncryptedData(
            ciphertext=ciphertext,
            key_reference=self._reference(kek, key_id, None, version=version_of(ciphertext)),
            algorithm=ALGORITHM,
            encrypted_at=self._clock.now(),
            context=context or {},
        )

    def _reference(
        self, kek: LocalKek, key_id: str, created_at: datetime | None, *, version: int | None = None
    ) -> KeyReference:
        encode_key_id(key_id)
        return KeyReference(
            provider=self.provider_name,
            key_id=key_id,
            created_at=created_at,
            key_version=str(kek.newest if version is None else version),
        )


def _derivation_of(config: LocalKMSConfig) -> tuple[str, Callable[[], bytes]] | None:
    """Return the name of the configured source and the function that gives its 32 bytes."""
    if (master_key := config.master_key) is not None:
        return "a master key given as bytes", lambda: bytes(master_key)
    if (passphrase := config.passphrase) is not None and (salt := config.salt) is not None:
        return "a KEK from a passphrase", lambda: _stretch(passphrase, salt)
    if (root_key := config.root_key) is not None:
        return "a KEK from a root key", lambda: _expand(root_key())
    return None


def _stretch(passphrase: str, salt: bytes) -> bytes:
    from keystead.crypto.root_key import argon2id_root_key

    return argon2id_root_key(passphrase, salt)


def _expand(root_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if len(root_key) < MIN_ROOT_KEY_SIZE:
        raise ConfigurationError(f"the root key has under {MIN_ROOT_KEY_SIZE} bytes")
    return HKDF(SHA256(), KEY_SIZE, salt=None, info=b"keystead local root key").derive(root_key)


def _gone() -> bytes:
    raise SystemShutdownError("the provider was closed, and its random KEK with it; give LocalKMSConfig a source")
