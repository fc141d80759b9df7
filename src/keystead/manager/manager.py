"""``KeyManager``: the one door for library users. Names are those of FraiseQL's KMS and of the Go KMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from keystead.errors import (
    InvalidKeyVersionError,
    KeyNotFoundError,
    NoActiveKeyError,
    StorageOperationError,
    SystemShutdownError,
)
from keystead.jobs.runner import JobReport
from keystead.lifecycle.legacy_import import LegacyImportReport
from keystead.lifecycle.maintenance import MaintenanceReport
from keystead.manager import legacy, streams
from keystead.manager.audit_uses import giving_out
from keystead.manager.core import ALGORITHM
from keystead.manager.crypto_service import CryptoService
from keystead.manager.data_keys import DataKeys
from keystead.manager.findings import DEADLINE_S, DoctorReport
from keystead.manager.kms_calls import Encrypted
from keystead.manager.legacy import LEGACY_KEYRING
from keystead.manager.session import FILES_KEYRING
from keystead.manager.subjects import SubjectMembers
from keystead.model import (
    DataKeyInfo,
    DataKeyPair,
    DataKeyState,
    EncryptedData,
    KeyStatistics,
    KMSStatus,
    RotationPolicy,
)

if TYPE_CHECKING:
    from keystead.manager.audit import Audit

STREAM_ALGORITHM: Final = "AES-256-GCM-STREAM"


class KeyManager(SubjectMembers):
    """Envelope encryption over any KMS, with data keys versioned in a store.

    Construction does no I/O. ``async with KeyManager.open("local:", store="sqlite:///keys.db") as km:`` initialises
    and closes; or call ``initialize`` and ``close``.

    ``local_encrypt(plaintext, *, context=None) -> bytes`` and ``local_decrypt(ciphertext, *, context=None) -> bytes``
    never do I/O. What may do I/O is ``async``; ``keystead.blocking.KeyManager`` has the same members for code that is
    not async.

    Args:
        providers: provider instances by name; names hold no colon. They stay the caller's to close.
        default_provider: the instance that wraps; not needed when there is one.
        default_key_id: the KEK's id; the local provider uses ``default``.
        initialization_timeout: seconds for store and KMS together.
        context_prefix: added to every KMS context as ``service``.
        store: URL or ``KeyStore``; without it keys live in memory and are lost with the process.
        create_store: False refuses an SQLite URL where there is no store yet, as a mistyped one; nothing is made there.
        keyring: name of the default keyring.
        rotation_policy: when data keys are replaced; 90 days by default.
        epoch_max_age_s: how often the store is polled.
        kek_recheck_s, grace_s: how often the KMS confirms the WRAP key, and how long use goes on without an answer
            after that (None = for ever).
        messages_per_salt: messages under one derived key; at most 2**31.
        background: keep up to date by a task; without it ``run_due()`` is the caller's to call.
        state_dir: folder that remembers, outside the database, how far the store had come.
        key_sources: scanners of the application's own data sources, by name, for destroys.
        erasures: where erasures of subjects are remembered, outside the store: ``file:///`` and a path, the URL of a
            second database, or an ``ErasureLog``. All processes of the store share it.
        audit: True, or ``AuditOptions``, keeps an audit trail of the store, and begins one; False refuses a store that
            has one; None takes part in the store's trail if it has one. Or an ``AuditTrail`` of the application's own,
            which a store with a trail refuses as well.
    """

    @cached_property
    def crypto_service(self) -> CryptoService:
        """Named fields, batches and keyed hashes under the default keyring."""
        return CryptoService(self)

    @cached_property
    def audit(self) -> Audit:
        """The store's audit trail."""
        # What verifies and archives it is loaded by those who ask.
        from keystead.manager.audit import Audit

        return Audit(self)

    @cached_property
    def data_keys(self) -> DataKeys:
        """Versions of the default keyring, in the Go KMS's six operations."""
        return DataKeys(self)

    async def encrypt(
        self,
        plaintext: bytes,
        *,
        key_id: str | None = None,
        provider: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> EncryptedData:
        """Encrypt through the KMS: one call to it.

        Raises:
            InvalidInputError: text, or a context that is not str to str.
            KeyNotFoundError, ProviderConnectionError, EncryptionError: as the KMS answers.
        """
        self._require_open()
        return await self._calls.encrypt(plaintext, key_id, provider, context)

    async def decrypt(self, encrypted: Encrypted, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt through the KMS. ``context`` None means as stored; otherwise it must be the one sealed.

        Takes EncryptedData, its dict, its bytes or its text.
        """
        self._require_open()
        return await self._calls.decrypt(encrypted, context)

    async def encrypt_field(
        self,
        value: object,
        key_id: str | None = None,
        *,
        field_type: str | None = None,
        provider: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> EncryptedData:
        """Encrypt a text, bytes or JSON value through the KMS; without ``field_type`` by the value's own type."""
        self._require_open()
        return await self._calls.encrypt_field(value, key_id, field_type, provider, context)

    async def decrypt_field(
        self, encrypted: Encrypted, *, field_type: str | None = None, context: Mapping[str, str] | None = None
    ) -> Any:
        """Return a field in its type; a ``field_type`` other than the sealed one is a ``DecryptionError``."""
        self._require_open()
        return await self._calls.decrypt_field(encrypted, field_type, context)

    async def generate_data_key(
        self,
        key_id: str | None = None,
        *,
        key_spec: str = "AES_256",
        provider: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> DataKeyPair:
        """Return a data key of your own, in clear and wrapped; ``key_spec`` is AES_128 or AES_256."""
        self._require_open()
        drawn = partial(self._calls.generate_data_key, key_id, key_spec, provider, context)
        return await giving_out(self, "key.draw", drawn)

    async def open_data_key(self, encrypted_key: Encrypted, *, context: Mapping[str, str] | None = None) -> DataKeyPair:
        """Return the pair of a wrapped data key again."""
        self._require_open()
        return await giving_out(self, "key.open", partial(self._calls.open_data_key, encrypted_key, context))

    async def decrypt_local(self, ciphertext: bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt as ``local_decrypt`` does, fetching the data key if it is not loaded."""
        return await self.default.decrypt_local(ciphertext, context=context)

    def needs_reencrypt(self, ciphertext: bytes | str) -> bool:
        """Return whether ``ciphertext`` is under a version other than the active one."""
        self.require_session()
        return self.default.needs_reencrypt(ciphertext)

    async def reencrypt(self, ciphertext: bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the same plaintext under the active version."""
        return await self.default.reencrypt(ciphertext, context=context)

    async def encrypt_stream(
        self,
        source: BinaryIO,
        target: BinaryIO,
        *,
        keyring: str = FILES_KEYRING,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """Encrypt a stream of any length in bounded memory, and return how many bytes were written."""
        handle = await self.keyring(keyring, algorithm=STREAM_ALGORITHM)
        return await streams.encrypt_stream(handle, source, target, context)

    async def decrypt_stream(
        self,
        source: BinaryIO,
        target: BinaryIO,
        *,
        keyring: str = FILES_KEYRING,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """Decrypt a stream; on ``DecryptionError`` what was written to ``target`` must not be used."""
        handle = await self.keyring(keyring, algorithm=STREAM_ALGORITHM, create=False)
        return await streams.decrypt_stream(handle, await self.session(), source, target, context)

    async def decrypt_legacy(
        self,
        value: str | bytes | Mapping[str, object],
        *,
        name: str | None = None,
        old_text_key: bytes | None = None,
    ) -> bytes:
        """Decrypt a value of the Go reference under its imported key. Counted; nothing but the key is authenticated.

        Takes ``version:algorithm:hex``, the JSON of an encrypted field or the object it parses to, and ``01.`` texts.

        Args:
            name: what the value is called in the log, where the first read of each name is noted.
            old_text_key: the AES key of ``01.`` texts, which belonged to no key table.

        Raises:
            KeyNotFoundError: the key the value names was not imported.
            DecryptionError: another key, altered bytes, or none of these forms.
        """
        return await self._legacy.decrypt(value, name, old_text_key)

    async def reencrypt_legacy(
        self,
        value: str | bytes | Mapping[str, object],
        *,
        context: Mapping[str, str] | None = None,
        old_text_key: bytes | None = None,
    ) -> bytes:
        """Return what ``decrypt_legacy`` reads as an envelope under the active version, bound to ``context``."""
        return self.local_encrypt(await self.decrypt_legacy(value, old_text_key=old_text_key), context=context)

    async def import_legacy(
        self,
        source: str,
        root_key: Callable[[], bytes],
        *,
        schema: str | None = None,
        keyring: str = LEGACY_KEYRING,
        dry_run: bool = False,
    ) -> LegacyImportReport:
        """Import the Go reference's data keys from the database at the URL ``source``, which is only read.

        They decrypt and never encrypt. Keys imported before are skipped. Where a key stood in clear in the source, the
        default keyring is rotated first.

        Args:
            root_key: ``RootKeyGenerator(..., allow_known_defaults=True).generate_root_key``; called off the event loop.
            schema: the PostgreSQL schema of the source.
            keyring: name of the keyring that takes them.
            dry_run: tell what would be done.

        Raises:
            KeyDecryptionFailError: no key opens under the root key; nothing was changed.
            ConfigurationError, ForeignSchemaError: no key table of the reference is there.
        """
        return await legacy.import_legacy(self, source, root_key, schema=schema, keyring=keyring, dry_run=dry_run)

    @cached_property
    def _legacy(self) -> legacy.LegacyReads:
        return legacy.LegacyReads(self)

    def hash_field(self, value: bytes | str, *, name: str = "") -> str:
        """Return a keyed hash of ``value`` for equality search: 64 hex characters."""
        return self.crypto_service.hash_field(value, name=name)

    async def rotate_data_key(self, *, min_age: timedelta | None = None, promote: str = "auto") -> DataKeyInfo:
        """Replace the active version of the default keyring and return the new one; old ciphertexts stay readable.

        Of several processes rotating at once one wins, and the others return its version. With other live nodes the
        new version is pre-active until each has loaded it; ``promote="now"`` does not wait.

        Args:
            min_age: do nothing when the active version is younger.

        Raises:
            KeyRotationError: the KMS failed; the old version stays active.
            StoreRestoredError: the store must be recovered first.
        """
        return await self.default.rotate(min_age=min_age, promote=promote)

    def get_rotation_policy(self) -> RotationPolicy:
        """Return the data keys' policy, with last and next rotation (None before ``initialize``)."""
        self._require_open()
        return self.default.get_rotation_policy()

    async def get_active_data_key(self) -> DataKeyInfo:
        """Return the active version of the default keyring: metadata, never key bytes.

        Raises:
            NoActiveKeyError: there is none.
        """
        session = await self.session()
        async with session.surroundings.store.reading() as work:
            row = await work.find_active(self.default.name)
        if row is None:
            raise NoActiveKeyError(f"keyring {self.default.name!r} has no active version; rotate it to get one")
        return DataKeyInfo.from_record(row)

    async def get_data_key_by_version(self, version: int | str) -> DataKeyInfo:
        """Return a version of the default keyring by number, or an imported one by its legacy version text.

        Raises:
            KeyNotFoundError: no such version.
            InvalidKeyVersionError: neither a positive number nor a legacy version.
        """
        session = await self.session()
        if not _is_version(version):
            raise InvalidKeyVersionError("a version is a positive number, or a legacy version text such as v1700...")
        if isinstance(version, str):
            async with session.surroundings.store.reading() as work:
                row = await work.find_legacy_key(version)
            if row is not None:
                return DataKeyInfo.from_record(row)
        else:
            for info in await session.versions(self.default.name):
                if info.version == version:
                    return info
        raise KeyNotFoundError(f"keyring {self.default.name!r} has no version {version}")

    async def get_status(self) -> KMSStatus:
        """Return the manager's state; answers before initialisation, after close, and with the store down."""
        active, counts = None, KeyStatistics()
        try:
            if self.is_initialized:
                active = await self.get_active_data_key()
                counts = await self._statistics()
        except (StorageOperationError, NoActiveKeyError, SystemShutdownError):
            pass
        return KMSStatus(
            initialized=self.is_initialized,
            shutdown=self._is_shut_down,
            algorithm=ALGORITHM,
            rotate_interval=self._policy.period,
            active_key_version=active.version if active else None,
            active_key_expiry=active.expires_at if active else None,
            key_statistics=counts,
        )

    async def perform_maintenance(self) -> MaintenanceReport:
        """Do everything that is due, now. A failing step does not stop the others; it is in the report."""
        return await (await self.session()).maintain()

    async def run_due(self) -> list[JobReport]:
        """Poll the store and run due jobs: for managers without a background task, from cron or a scheduler."""
        return await (await self.session()).run_due()

    async def doctor(self, *, deadline_s: float = DEADLINE_S) -> DoctorReport:
        """Examine providers and store; answers before initialisation, and with either of them down.

        Each provider encrypts and decrypts a random value under its key. Nothing is rotated or written.

        Args:
            deadline_s: for one provider, or the store; all are examined at the same time.

        Raises:
            ConfigurationError: a deadline that is not above zero.
            SystemShutdownError: the manager was closed.
        """
        from keystead.manager.doctor import examine

        self._require_open()
        return await examine(self._patient(deadline_s), deadline_s=deadline_s)

    def after_restore(self) -> None:
        """Forget salts and nonces after the machine's memory was restored from a snapshot."""
        rings = self._session.live.rings() if self._session is not None else []
        for ring in {self.default.ring, *rings}:
            ring.redraw()
        if self._session is not None and self._session.auditing is not None:
            self._session.auditing.redraw()

    async def _statistics(self) -> KeyStatistics:
        infos = await (await self.session()).versions(self.default.name)
        now = self._clock.now()
        return KeyStatistics(
            total_keys=len(infos),
            active_keys=sum(info.state is DataKeyState.ACTIVE for info in infos),
            expired_keys=sum(info.expires_at is not None and info.expires_at < now for info in infos),
        )


def _is_version(version: object) -> bool:
    if isinstance(version, str):
        return version != ""
    return isinstance(version, int) and not isinstance(version, bool) and version > 0
