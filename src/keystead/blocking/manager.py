"""``keystead.blocking.KeyManager``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from keystead.blocking.audit import Audit
from keystead.blocking.crypto_service import CryptoService
from keystead.blocking.data_keys import DataKeys
from keystead.blocking.handle import KeyringHandle
from keystead.blocking.keyrings import BlockingKeyrings
from keystead.blocking.subjects import SubjectMembers
from keystead.crypto.hot_path import LocalDecrypt, LocalEncrypt
from keystead.crypto.keyring import MESSAGES_PER_SALT
from keystead.errors import KMSError
from keystead.fields import Field, FieldCipher
from keystead.jobs.runner import JobReport
from keystead.ledger.audit.options import AuditOptions
from keystead.lifecycle.legacy_import import LegacyImportReport
from keystead.lifecycle.maintenance import MaintenanceReport
from keystead.manager import manager
from keystead.manager.crypto_service import ALGORITHM
from keystead.manager.findings import DEADLINE_S, DoctorReport
from keystead.manager.kms_calls import Encrypted
from keystead.manager.legacy import LEGACY_KEYRING
from keystead.manager.session import FILES_KEYRING
from keystead.model import DataKeyInfo, DataKeyPair, EncryptedData, KMSStatus, RotationPolicy
from keystead.ports import AuditTrail, Clock, ErasureLog, FieldRecord, KeyStore, KmsProvider, Random, SourceScanner
from keystead.runtime.loop import background_loop

if TYPE_CHECKING:
    from keystead.config.sources import LoadedSettings


class KeyManager(SubjectMembers):
    """``keystead.KeyManager`` for code that is not async; arguments, results and errors are the same.

    Raises:
        InvalidInputError: from every member that may do I/O, when it is called on the background loop itself.
    """

    local_encrypt: LocalEncrypt
    local_decrypt: LocalDecrypt

    def __init__(
        self,
        providers: Mapping[str, KmsProvider],
        default_provider: str | None = None,
        default_key_id: str | None = None,
        *,
        initialization_timeout: float = 10,
        context_prefix: str | None = None,
        store: str | KeyStore | None = None,
        store_schema: str | None = None,
        create_store: bool = True,
        keyring: str = "default",
        rotation_policy: RotationPolicy | None = None,
        epoch_max_age_s: float = 30.0,
        kek_recheck_s: float = 3600.0,
        grace_s: float | None = 3600.0,
        provider_deadline_s: float = 10.0,
        provider_aliases: Mapping[str, str] | None = None,
        messages_per_salt: int = MESSAGES_PER_SALT,
        keyring_cache: int = 1024,
        background: bool = True,
        state_dir: str | os.PathLike[str] | None = None,
        key_sources: Mapping[str, SourceScanner] | None = None,
        erasures: str | os.PathLike[str] | ErasureLog | None = None,
        audit: bool | AuditOptions | AuditTrail | None = None,
        two_person: bool = False,
        clock: Clock | None = None,
        random: Random = os.urandom,
    ) -> None:
        self._stand_before(
            _OnBackgroundLoop(
                providers,
                default_provider,
                default_key_id,
                initialization_timeout=initialization_timeout,
                context_prefix=context_prefix,
                store=store,
                store_schema=store_schema,
                create_store=create_store,
                keyring=keyring,
                rotation_policy=rotation_policy,
                epoch_max_age_s=epoch_max_age_s,
                kek_recheck_s=kek_recheck_s,
                grace_s=grace_s,
                provider_deadline_s=provider_deadline_s,
                provider_aliases=provider_aliases,
                messages_per_salt=messages_per_salt,
                keyring_cache=keyring_cache,
                background=background,
                state_dir=state_dir,
                key_sources=key_sources,
                erasures=erasures,
                audit=audit,
                two_person=two_person,
                clock=clock,
                random=random,
            )
        )

    @classmethod
    def open(cls, kms: str, *, store: str | KeyStore | None = None, **options: Any) -> Self:
        """Return a manager for a KMS URI such as ``local:``; no I/O until it is entered or initialised."""
        facade = cls.__new__(cls)
        facade._stand_before(_OnBackgroundLoop.open(kms, store=store, **options))
        return facade

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | LoadedSettings | None = None, **options: Any) -> Self:
        """Return a manager for a settings file, not yet initialised; the environment wins over the file."""
        facade = cls.__new__(cls)
        facade._stand_before(_OnBackgroundLoop.from_config(path, **options))
        return facade

    def _stand_before(self, behind: manager.KeyManager) -> None:
        self._manager = behind
        self.default = KeyringHandle(behind.default)
        self.local_encrypt = self.default.local_encrypt
        self.local_decrypt = self.default.local_decrypt
        background_loop.at_stop(behind.close)

    def __repr__(self) -> str:
        return f"<blocking {self._manager!r}>"

    def __enter__(self) -> Self:
        try:
            self.initialize()
        except BaseException:
            # Nobody calls __exit__ then. What closing fails with is not what the caller has to know.
            with contextlib.suppress(KMSError):
                self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_initialized(self) -> bool:
        """Whether data keys are loaded."""
        return self._manager.is_initialized

    @cached_property
    def crypto_service(self) -> CryptoService:
        """Named fields, batches and keyed hashes under the default keyring."""
        return CryptoService(self._manager.crypto_service)

    @cached_property
    def audit(self) -> Audit:
        """The store's audit trail."""
        return Audit(self._manager.audit)

    @cached_property
    def data_keys(self) -> DataKeys:
        """Versions of the default keyring, in the Go KMS's six operations."""
        return DataKeys(self._manager.data_keys)

    def initialize(self, config: Mapping[str, Any] | None = None) -> None:
        """Open the store, unwrap the WRAP key with one KMS call, and load the default keyring."""
        background_loop.run(self._manager.initialize(config))

    def close(self) -> None:
        """Stop the background task, write use counts, wipe keys, close what the manager opened; idempotent."""
        background_loop.run(self._manager.close())

    def encrypt(
        self,
        plaintext: bytes,
        *,
        key_id: str | None = None,
        provider: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> EncryptedData:
        """Encrypt through the KMS: one call to it."""
        return background_loop.run(self._manager.encrypt(plaintext, key_id=key_id, provider=provider, context=context))

    def decrypt(self, encrypted: Encrypted, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt through the KMS. ``context`` None means as stored; otherwise it must be the one sealed."""
        return background_loop.run(self._manager.decrypt(encrypted, context=context))

    def encrypt_field(
        self,
        value: object,
        key_id: str | None = None,
        *,
        field_type: str | None = None,
        provider: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> EncryptedData:
        """Encrypt a text, bytes or JSON value through the KMS; without ``field_type`` by the value's own type."""
        return background_loop.run(
            self._manager.encrypt_field(value, key_id, field_type=field_type, provider=provider, context=context)
        )

    def decrypt_field(
        self, encrypted: Encrypted, *, field_type: str | None = None, context: Mapping[str, str] | None = None
    ) -> Any:
        """Return a field in its type; a ``field_type`` other than the sealed one is a ``DecryptionError``."""
        return background_loop.run(self._manager.decrypt_field(encrypted, field_type=field_type, context=context))

    def generate_data_key(
        self,
        key_id: str | None = None,
        *,
        key_spec: str = "AES_256",
        provider: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> DataKeyPair:
        """Return a data key of your own, in clear and wrapped; ``key_spec`` is AES_128 or AES_256."""
        return background_loop.run(
            self._manager.generate_data_key(key_id, key_spec=key_spec, provider=provider, context=context)
        )

    def open_data_key(self, encrypted_key: Encrypted, *, context: Mapping[str, str] | None = None) -> DataKeyPair:
        """Return the pair of a wrapped data key again."""
        return background_loop.run(self._manager.open_data_key(encrypted_key, context=context))

    def decrypt_local(self, ciphertext: bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt as ``local_decrypt`` does: here both fetch a data key that is not loaded."""
        return self.local_decrypt(ciphertext, context=context)

    def needs_reencrypt(self, ciphertext: bytes | str) -> bool:
        """Return whether ``ciphertext`` is under a version other than the active one."""
        return self._manager.needs_reencrypt(ciphertext)

    def reencrypt(self, ciphertext: bytes | str, *, context: Mapping[str, str] | None = None) -> bytes:
        """Return the same plaintext under the active version."""
        return background_loop.run(self._manager.reencrypt(ciphertext, context=context))

    def encrypt_stream(
        self,
        source: BinaryIO,
        target: BinaryIO,
        *,
        keyring: str = FILES_KEYRING,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """Encrypt a stream of any length in bounded memory, and return how many bytes were written."""
        return background_loop.run(self._manager.encrypt_stream(source, target, keyring=keyring, context=context))

    def decrypt_stream(
        self,
        source: BinaryIO,
        target: BinaryIO,
        *,
        keyring: str = FILES_KEYRING,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """Decrypt a stream; on ``DecryptionError`` what was written to ``target`` must not be used."""
        return background_loop.run(self._manager.decrypt_stream(source, target, keyring=keyring, context=context))

    def decrypt_legacy(
        self,
        value: str | bytes | Mapping[str, object],
        *,
        name: str | None = None,
        old_text_key: bytes | None = None,
    ) -> bytes:
        """Decrypt a value of the Go reference under its imported key. Counted; nothing but the key is authenticated."""
        return background_loop.run(self._manager.decrypt_legacy(value, name=name, old_text_key=old_text_key))

    def reencrypt_legacy(
        self,
        value: str | bytes | Mapping[str, object],
        *,
        context: Mapping[str, str] | None = None,
        old_text_key: bytes | None = None,
    ) -> bytes:
        """Return what ``decrypt_legacy`` reads as an envelope under the active version, bound to ``context``."""
        return background_loop.run(self._manager.reencrypt_legacy(value, context=context, old_text_key=old_text_key))

    def import_legacy(
        self,
        source: str,
        root_key: Callable[[], bytes],
        *,
        schema: str | None = None,
        keyring: str = LEGACY_KEYRING,
        dry_run: bool = False,
    ) -> LegacyImportReport:
        """Import the Go reference's data keys from the database at the URL ``source``, which is only read."""
        return background_loop.run(
            self._manager.import_legacy(source, root_key, schema=schema, keyring=keyring, dry_run=dry_run)
        )

    def hash_field(self, value: bytes | str, *, name: str = "") -> str:
        """Return a keyed hash of ``value`` for equality search: 64 hex characters."""
        return self._manager.hash_field(value, name=name)

    def keyring(
        self, name: str, *, algorithm: str = ALGORITHM, create: bool = True, tenant_wrap: str | None = None
    ) -> KeyringHandle:
        """Return the keyring ``name``, made if there is none."""
        asked = self._manager.keyring(name, algorithm=algorithm, create=create, tenant_wrap=tenant_wrap)
        return KeyringHandle(background_loop.run(asked))

    def field(self, field: Field) -> FieldCipher:
        """Return what encrypts and decrypts the values of ``field``; what it needs is loaded when it is needed."""
        return self._manager.field(field)

    def load_fields(self, *fields: Field, tenants: Iterable[str] = (), subjects: Iterable[object] = ()) -> None:
        """Load the keyrings of fields, making those that are missing, and keep them loaded."""
        background_loop.run(self._manager.load_fields(*fields, tenants=tenants, subjects=subjects))

    def prefetch(self, rows: Iterable[object]) -> None:
        """Load every data key that ``rows`` name, in one store read: ciphertexts, boxes, or rows and objects with them.

        Raises:
            DataKeyNotLoadedError: the store has no such key.
        """
        background_loop.run(self._manager.prefetch(rows))

    def register_field(self, field: Field, source: str) -> FieldRecord:
        """Remember in the store where a field's column is, and return what is remembered; again, it changes nothing."""
        return background_loop.run(self._manager.register_field(field, source))

    def fields(self) -> list[FieldRecord]:
        """Return the registered fields by id."""
        return background_loop.run(self._manager.fields())

    def forget_field(self, id: str) -> None:
        """Take a field's registration and its key uses back, when its column is gone: nothing looks there any more."""
        background_loop.run(self._manager.forget_field(id))

    def rotate_index_key(self, name: str = "index") -> DataKeyInfo:
        """Begin to replace the key of a keyring of index keys, and return the new version, which is pre-active."""
        return background_loop.run(self._manager.rotate_index_key(name))

    def rotate_data_key(self, *, min_age: timedelta | None = None, promote: str = "auto") -> DataKeyInfo:
        """Replace the active version of the default keyring and return the new one; old ciphertexts stay readable."""
        return background_loop.run(self._manager.rotate_data_key(min_age=min_age, promote=promote))

    def get_rotation_policy(self) -> RotationPolicy:
        """Return the data keys' policy, with last and next rotation (None before ``initialize``)."""
        return self._manager.get_rotation_policy()

    def get_active_data_key(self) -> DataKeyInfo:
        """Return the active version of the default keyring: metadata, never key bytes."""
        return background_loop.run(self._manager.get_active_data_key())

    def get_data_key_by_version(self, version: int | str) -> DataKeyInfo:
        """Return a version of the default keyring by number, or an imported one by its legacy version text."""
        return background_loop.run(self._manager.get_data_key_by_version(version))

    def get_status(self) -> KMSStatus:
        """Return the manager's state; answers before initialisation, after close, and with the store down."""
        return background_loop.run(self._manager.get_status())

    def perform_maintenance(self) -> MaintenanceReport:
        """Do everything that is due, now. A failing step does not stop the others; it is in the report."""
        return background_loop.run(self._manager.perform_maintenance())

    def run_due(self) -> list[JobReport]:
        """Poll the store and run due jobs: for managers without a background task, from cron or a scheduler."""
        return background_loop.run(self._manager.run_due())

    def doctor(self, *, deadline_s: float = DEADLINE_S) -> DoctorReport:
        """Examine providers and store; answers before initialisation, and with either of them down."""
        return background_loop.run(self._manager.doctor(deadline_s=deadline_s))

    def after_restore(self) -> None:
        """Forget salts and nonces after the machine's memory was restored from a snapshot."""
        self._manager.after_restore()


class _OnBackgroundLoop(manager.KeyManager):
    """The manager behind a facade: what it starts by itself, it starts on the background loop."""

    @cached_property
    def keyrings(self) -> BlockingKeyrings:
        """The keyrings as fields see them, loaded at first use."""
        return BlockingKeyrings(self)

    def _wake(self) -> None:
        background_loop.submit(self.session())
