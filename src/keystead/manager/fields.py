"""Encrypted fields over a manager's keyrings: loading what they need, so that encrypting itself does no I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from keystead.crypto.envelope import as_binary, parse_header
from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, InvalidInputError, KeyNotFoundError
from keystead.fields import Field, FieldCipher
from keystead.fields.box import Encrypted
from keystead.manager import registry
from keystead.manager.core import ALGORITHM, ManagerCore, check_keyring_name
from keystead.manager.handle import KeyringHandle
from keystead.model import WRAP_KEYRING, DataKeyInfo, KeyringPurpose, is_of_subject
from keystead.ports import FieldRecord


class ManagerKeyrings:
    """A manager's keyrings as its fields see them; what it has loaded for them stays loaded."""

    def __init__(self, manager: FieldMembers) -> None:
        self._manager = manager
        self._held: dict[str, Keyring] = {}

    def find(self, name: str) -> Keyring | None:
        """Return a keyring that encrypts, if it is loaded."""
        return self._loaded(name)

    def find_subjects(self, names: Collection[str]) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects that are loaded, by the subjects' names."""
        return self._manager.require_session().subjects.subjects.find(names)

    def find_holder(self, key_id: int) -> Keyring | None:
        """Return the keyring that a data key is of, usable or not, if it is loaded."""
        return self._manager.require_session().live.holder_of(key_id)

    def find_index(self, name: str) -> Keyring | None:
        """Return a keyring of index keys, if it is loaded."""
        return self._loaded(name)

    def find_former(self, name: str) -> Keyring | None:
        """Return a keyring that only decrypts for a field, if it is loaded."""
        return self._loaded(name)

    def fetch(self, ring: Keyring, key_id: int) -> bool:
        """Return False: nobody may wait here."""
        return False

    def _loaded(self, name: str) -> Keyring | None:
        if name == self._manager.default.name:
            return self._manager.default.ring
        return self._held.get(name) or self._manager.require_session().live.find(name)

    def owner_of(self, key_id: int) -> str | None:
        """Return the name of the loaded keyring that holds a data key, or None."""
        return self._manager.require_session().live.owner_of(key_id)

    async def load(self, name: str) -> Keyring:
        """Return a keyring that encrypts, loaded, and made if there is none."""
        return (await self._manager.keyring(name)).ring

    async def load_former(self, name: str) -> Keyring:
        """Return a keyring that exists, loaded; ``KeyNotFoundError`` where there is none."""
        return (await self._manager.keyring(name, create=False)).ring

    async def load_subjects(self, names: Collection[str], *, create: bool = True) -> Mapping[str, Keyring]:
        """Return the keyrings of subjects by their names, loaded; those there are none of are made or left out."""
        return await (await self._manager.session()).subjects.rings(names, create=create)

    async def load_holders(self, key_ids: Collection[int], *, skip_damaged: bool = False) -> Mapping[int, Keyring]:
        """Return the keyrings that data keys are of, loaded; those that the store has not are left out."""
        session = await self._manager.session()
        found = await session.live.load_keys(key_ids, skip_damaged=skip_damaged)
        if any(is_of_subject(ring.name) for ring in found.values()):
            await session.subjects.freshen()
        return found

    async def load_index(self, name: str) -> Keyring:
        """Return a keyring of index keys, loaded, and made if there is none."""
        session = await self._manager.session()
        wanted = session.surroundings.new_keyring(name, KeyringPurpose.INDEX, "HMAC-SHA256")
        return await session.live.load(name, create=wanted)

    def require_current_view(self) -> None:
        """Raise unless this process is a node that has polled the store within its heartbeat."""
        self._manager.require_session().require_current_view()

    def hold(self, ring: Keyring) -> None:
        """Keep a keyring loaded for as long as the manager lives."""
        self._held[ring.name] = ring


class FieldMembers(ManagerCore):
    """Keyrings by name, and the fields over them; see ``KeyManager``."""

    async def keyring(
        self, name: str, *, algorithm: str = ALGORITHM, create: bool = True, tenant_wrap: str | None = None
    ) -> KeyringHandle:
        """Return the keyring ``name``, made if there is none. One keyring's ciphertext never opens under another.

        Args:
            algorithm: ``AES-256-GCM``, or ``AES-256-GCM-STREAM`` for files.
            create: False raises ``KeyNotFoundError`` instead of making it.
            tenant_wrap: name of a WRAP keyring of its own.
        """
        check_keyring_name(name)
        if tenant_wrap is not None:
            check_keyring_name(tenant_wrap)
        session = await self.session()
        if name == self.default.name and algorithm == ALGORITHM:
            return self.default
        wanted = session.surroundings.new_keyring(name, KeyringPurpose.ENCRYPT, algorithm, tenant_wrap or WRAP_KEYRING)
        ring = await session.live.load(name, create=wanted if create else None)
        await session.rotate_if_expired(ring)
        return KeyringHandle(ring, self.session, self._policy)

    def field(self, field: Field) -> FieldCipher:
        """Return what encrypts and decrypts the values of ``field``, without I/O.

        Keyrings other than the default one are loaded beforehand, by ``load_fields``.
        """
        if not isinstance(field, Field):
            raise InvalidInputError(f"km.field takes a keystead.Field, not {type(field).__name__}")
        return FieldCipher(field, self.keyrings)

    async def load_fields(self, *fields: Field, tenants: Iterable[str] = (), subjects: Iterable[object] = ()) -> None:
        """Load the keyrings of fields, making those that are missing, and keep them loaded.

        Args:
            fields: what will be encrypted or decrypted.
            tenants: whose keyrings to load of fields that have one for each; those stay loaded until the cache
                (``keyring_cache``) needs their place.
            subjects: whose keyrings to load of fields that have one for each subject, as the rows name them: what the
                subject column holds, or the record without one. They stay loaded as those of tenants do.
        """
        names, people = list(tenants), list(subjects)
        for field in fields:
            if field.has_subjects:
                await self.keyrings.load_subjects([*map(field.subject_of, people)])
            elif field.has_keyring_per_tenant:
                for tenant in names:
                    await self.keyrings.load(field.keyring_of(tenant))
            else:
                self.keyrings.hold(await self.keyrings.load(field.keyring))
            shared = field.former_keyrings_of(None)
            for name in shared:
                self.keyrings.hold(await self.keyrings.load_former(name))
            for name in {name for tenant in names for name in field.former_keyrings_of(tenant)}.difference(shared):
                # A tenant that came after the move has none.
                with contextlib.suppress(KeyNotFoundError):
                    await self.keyrings.load_former(name)
            if field.indexes:
                self.keyrings.hold(await self.keyrings.load_index(field.index_keyring))
        if any(field.indexes for field in fields):
            await (await self.session()).become_node()

    async def prefetch(self, rows: Iterable[object]) -> None:
        """Load every data key that ``rows`` name, in one store read: ciphertexts, boxes, or rows and objects with them.

        Raises:
            DataKeyNotLoadedError: the store has no such key.
        """
        live = (await self.session()).live
        unknown = {key_id for row in rows for key_id in _key_ids(row) if live.holder_of(key_id) is None}
        if absent := unknown - (await self.keyrings.load_holders(unknown)).keys():
            raise DataKeyNotLoadedError(min(absent), f"data key {min(absent)} is not in this store")

    async def register_field(self, field: Field, source: str) -> FieldRecord:
        """Remember in the store where a field's column is, and return what is remembered; again, it changes nothing.

        A rotation of an index key waits for every registered field, and a destroy of a data key looks through the
        column: the key use ``field:<id>`` is declared for the field's keyring and for the former ones that exist. With
        a keyring per tenant it is declared for the pattern, ``people-{tenant}``, and found for each tenant's keyring.

        A field may be in several places: in a database for each region, or in a table that is about to be replaced.
        Each table, column and database is registered by itself, the first under the field's id, the others under
        ``<id>@<8 hex digits>``. All are looked through, and all are waited for, until ``forget_field`` takes one back.
        The user in a URL and how the server is reached tell no places apart: name the schema, ``schema.table``, where
        the search path of a user would find another table.

        Args:
            field: what is registered.
            source: the URL of the application's database, SQLite or PostgreSQL; what a password or a driver needs is
                left out. Or ``app:<name>``, for anything else that ``key_sources`` looks through.

        Raises:
            InvalidInputError: the source is none of these.
        """
        return await registry.register(await self.session(), self.keyrings, field, source)

    async def fields(self) -> list[FieldRecord]:
        """Return the registered fields by id."""
        return await registry.registered(await self.session())

    async def forget_field(self, id: str) -> None:
        """Take a registration and its key uses back, when the column is gone: nothing looks there any more.

        Args:
            id: as ``fields`` lists it, of one place.

        Raises:
            KeyNotFoundError: no such field is registered.
        """
        await registry.forget(await self.session(), id)

    async def rotate_index_key(self, name: str = "index") -> DataKeyInfo:
        """Begin to replace the key of a keyring of index keys, and return the new version, which is pre-active.

        From then on both versions are written and looked for. Re-encrypt every registered field of the keyring: when
        the last one is done, the new version is active and the old one disabled. Until then, another call returns the
        same version.

        Raises:
            KeyNotFoundError: no such keyring.
            KeyStateError: it is no index keyring, or no field is registered for it.
            StoreRestoredError: the store must be recovered first.
        """
        return DataKeyInfo.from_record(await (await self.session()).lifecycle.index_rotation.begin(name))

    @cached_property
    def keyrings(self) -> ManagerKeyrings:
        """The keyrings as fields see them; for Keystead's own rooms."""
        return ManagerKeyrings(self)


def _key_ids(row: object) -> Iterator[int]:
    """Yield the data key ids of a ciphertext, of a box, or of every box in a row, a mapping or an object."""
    if isinstance(row, Encrypted):
        yield parse_header(row.ciphertext).key_id
    elif isinstance(row, str | bytes | bytearray | memoryview):
        yield parse_header(as_binary(row)).key_id
    elif row is not None:
        if isinstance(row, Mapping):
            members: Iterable[object] = row.values()
        elif isinstance(row, tuple | list):
            members = row
        elif hasattr(row, "__dict__"):
            members = vars(row).values()
        else:
            raise InvalidInputError(f"prefetch takes rows, objects or ciphertexts, not {type(row).__name__}")
        for member in members:
            if isinstance(member, Encrypted):
                yield parse_header(member.ciphertext).key_id
