"""Which key manager serves the application's encrypted fields, and where their rows lie."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.conf import settings
from django.db import connections, router
from django.utils.module_loading import import_string

from keystead import blocking
from keystead.errors import ConfigurationError
from keystead.fields import Field, FieldCipher
from keystead.integrations.django.attribute import encrypted_fields
from keystead.integrations.django.located import place_of, url_of

if TYPE_CHECKING:
    from keystead.integrations.django.field import EncryptedField

_UNBOUND: Final = (
    "an encrypted field is used, and the application has no keys: set KEYSTEAD in the settings, as in "
    "KEYSTEAD = {'config': 'keystead.yaml'}, or call keystead.integrations.django.bind(km) when it starts"
)
_lock: Final = threading.RLock()
_held: Final[list[Binding]] = []


class Binding:
    """The manager, and the fields whose values are under its keys."""

    def __init__(self, km: blocking.KeyManager, database: str | Mapping[str, str] | None) -> None:
        self.km = km
        self._database = database
        self._ciphers: dict[str, FieldCipher] = {}
        self._places: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"<Binding to {self.km!r}>"

    def cipher(self, field: Field) -> FieldCipher:
        """Return what encrypts and decrypts the values of a field."""
        found = self._ciphers.get(field.id)
        if found is None:
            found = self._ciphers[field.id] = self.km.field(field)
        return found

    def source(self, alias: str) -> str | None:
        """Return where other processes find a database, without a password; None for one in memory.

        Raises:
            ConfigurationError: that cannot be told.
        """
        if isinstance(self._database, str):
            return self._database
        if self._database is not None and alias in self._database:
            return self._database[alias]
        return url_of(connections[alias])

    def note_place(self, field: EncryptedField, connection: Any) -> None:
        """Register a field in a database that it is written into for the first time.

        Raises:
            ConfigurationError: nobody else would find that database.
        """
        place = (field.spec.id, place_of(connection))
        if place not in self._places:
            source = self.source(connection.alias)
            if source is not None:
                self.km.register_field(field.spec, source)
            self._places.add(place)


def bind(km: blocking.KeyManager, *, database: str | Mapping[str, str] | None = None) -> Binding:
    """Give the application's encrypted fields their keys, once, when it starts.

    Loads the keyrings of the fields, keeps them loaded, and registers the fields in Keystead's store, so that
    re-encryption and the check before a key is destroyed find their rows.

    Args:
        km: an initialised ``keystead.blocking.KeyManager``.
        database: where other processes find the tables, where the settings do not tell: a URL or ``app:<name>``, or one
            for each database alias; see ``km.register_field``. A database in memory is not registered.

    Raises:
        ConfigurationError: two fields of one id, a declaration that cannot be, or a place that is not certain.
        KMSError: as ``km.load_fields`` and ``km.register_field``.
    """
    if not isinstance(km, blocking.KeyManager):
        raise ConfigurationError("Django's models take a keystead.blocking.KeyManager, for async views as well")
    binding = Binding(km, database)
    found: dict[str, EncryptedField] = {}
    for field in declared_fields():
        if found.setdefault(field.spec.id, field) is not field:
            raise ConfigurationError(
                f"two encrypted fields have the id {field.spec.id!r}, so that each could stand for the other; give one "
                "of them another id="
            )
    km.load_fields(*(field.spec for field in found.values()))
    for field in found.values():
        binding.note_place(field, connections[router.db_for_write(field.model)])
    with _lock:
        _held[:] = [binding]
    return binding


def current() -> Binding:
    """Return what the application was bound to, or is by its settings now.

    Raises:
        ConfigurationError: nothing.
    """
    return _held[0] if _held else _bound_by_settings()


def is_bound() -> bool:
    """Return whether the application has keys, or settings that say where they are."""
    return bool(_held or getattr(settings, "KEYSTEAD", None))


def declared_fields() -> Iterator[EncryptedField]:
    """Yield the encrypted fields of every model of the application, each once."""
    for model in apps.get_models():
        if not model._meta.proxy:
            yield from (field for field in encrypted_fields(model) if field.model is model)


def _bound_by_settings() -> Binding:
    given: Mapping[str, Any] | None = getattr(settings, "KEYSTEAD", None)
    if not given:
        raise ConfigurationError(_UNBOUND)
    with _lock:
        if not _held:
            km = _manager(dict(given))
            if not km.is_initialized:
                km.initialize()
            bind(km, database=given.get("database"))
        return _held[0]


def _manager(given: dict[str, Any]) -> blocking.KeyManager:
    given.pop("database", None)
    if "manager" in given:
        made: blocking.KeyManager = import_string(given["manager"])()
        return made
    if "kms" in given:
        return blocking.KeyManager.open(given.pop("kms"), **given)
    return blocking.KeyManager.from_config(given.pop("config", None), **given)
