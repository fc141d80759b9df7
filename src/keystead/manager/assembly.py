"""Putting providers, store, journal and lifecycle together: the only place that names all of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from keystead.config import is_production
from keystead.errors import ConfigurationError, StorageOperationError
from keystead.lifecycle.destruction import Destruction
from keystead.lifecycle.index_rotation import IndexRotation
from keystead.lifecycle.live_keyrings import LiveKeyrings
from keystead.lifecycle.lookup import Lookup
from keystead.lifecycle.maintenance import Maintenance
from keystead.lifecycle.rewrap import Rewrap
from keystead.lifecycle.rotation import Rotation
from keystead.lifecycle.surroundings import NoJournal, Surroundings
from keystead.ports import Clock, ErasureLog, KeyStore, KeyUse, KmsProvider, Random, SourceScanner, StateJournal
from keystead.providers.guard import GuardedProvider
from keystead.providers.registry import OpenedProvider, open_provider
from keystead.providers.uri import ProviderSettings
from keystead.stores import open_store
from keystead.stores.erasure_logs import MemoryErasureLog, open_erasure_log
from keystead.stores.journal import FileJournal
from keystead.stores.urls import parse_url


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The lifecycle's rooms over one store."""

    live: LiveKeyrings
    rotation: Rotation
    rewrap: Rewrap
    destruction: Destruction
    maintenance: Maintenance
    lookup: Lookup
    index_rotation: IndexRotation

    @classmethod
    def over(cls, live: LiveKeyrings, sources: Mapping[str, SourceScanner]) -> Lifecycle:
        """Put the rooms together over ``live``; ``sources`` are the application's own, by name."""
        rotation = Rotation(live)
        rewrap = Rewrap(live, rotation)
        destruction = Destruction(live, SourceScan(sources))
        maintenance = Maintenance(live, rotation, destruction, rewrap)
        return cls(live, rotation, rewrap, destruction, maintenance, Lookup(live), IndexRotation(live))


class SourceScan:
    """Scans declared sources: files and SQL columns by themselves, ``app:<name>`` by what the application gave."""

    def __init__(self, sources: Mapping[str, SourceScanner]) -> None:
        self._sources = sources

    async def __call__(self, use: KeyUse, key_ids: Collection[int], /) -> Mapping[int, int]:
        """Return hits per data key id.

        Raises:
            ConfigurationError: an application source this process does not have.
            StorageOperationError: the source, or a part of it, is absent or cannot be read.
        """
        scheme, _, name = use.locator.partition(":")
        if scheme == "app":
            if name not in self._sources:
                raise ConfigurationError(
                    f"the data source {use.name!r} is the application's own ({use.locator}); destroy keys from a "
                    "process that gives it to the manager with key_sources="
                )
            return await self._sources[name](use, key_ids)
        from keystead.stores.sources import scan

        try:
            return await scan(use.locator, key_ids)
        except StorageOperationError as exc:
            raise type(exc)(
                f"the data source {use.name!r} ({use.locator}) cannot be looked through: {exc}. If its data is gone, "
                "`keystead field forget` or `keystead key uses remove` takes it back"
            ) from exc


def guard_all(providers: Mapping[str, KmsProvider], clock: Clock, *, deadline_s: float) -> dict[str, GuardedProvider]:
    """Return every provider behind a guard that knows its instance name."""
    return {
        name: GuardedProvider(provider, name, clock=clock, deadline_s=deadline_s)
        for name, provider in providers.items()
    }


def provider_from_uri(uri: str, *, clock: Clock, random: Random) -> OpenedProvider:
    """Open the provider a URI names, under the environment's production rule."""
    return open_provider(uri, ProviderSettings(production=is_production(), clock=clock, random=random))


def audit_kms(uri: str, *, clock: Clock, random: Random) -> tuple[KmsProvider, str | None]:
    """Open the provider that wraps an audit trail's keys, behind a guard, and return it with its default key id."""
    opened = provider_from_uri(uri, clock=clock, random=random)
    return GuardedProvider(opened.provider, opened.name, clock=clock), opened.default_key_id


def store_from(store: str | KeyStore | None, schema: str | None = None, *, creates: bool = True) -> KeyStore:
    """Return the store for a URL, or the store itself; None is memory. ``creates`` as ``open_store`` takes it."""
    if store is None:
        return open_store("memory://")
    return open_store(store, schema=schema, creates=creates) if isinstance(store, str) else store


def journal_for(store: str | KeyStore | None, state_dir: str | os.PathLike[str] | None) -> StateJournal:
    """Return the journal in ``state_dir``; by default ``.keystead`` beside an SQLite file, none elsewhere."""
    if state_dir is not None:
        return FileJournal(state_dir)
    path = parse_url(store).path if isinstance(store, str) else None
    return FileJournal(path.parent / ".keystead") if path is not None else NoJournal()


def erasures_for(
    store: str | KeyStore | None, given: str | os.PathLike[str] | ErasureLog | None, *, is_durable: bool
) -> ErasureLog | None:
    """Return the erasure log at a URL or path, or the log itself; for a store in memory one that goes with it.

    Raises:
        ConfigurationError: the URL names no place for one, or the store's own database.
    """
    if given is None:
        return None if is_durable else MemoryErasureLog()
    opened = open_erasure_log(given) if isinstance(given, str | os.PathLike) else given
    texts = [text for text in (given, store) if isinstance(text, str) and not text.startswith("file:")]
    if len(texts) == 2 and len({replace(parse_url(text), schema=None) for text in texts}) == 1:
        raise ConfigurationError(
            "erasures is the store's own database, and would be put back together with it: name another place"
        )
    return opened


def new_node_id() -> str:
    """Return a random name for this process as a node of its store."""
    return secrets.token_hex(8)


__all__ = [
    "Lifecycle",
    "Surroundings",
    "audit_kms",
    "erasures_for",
    "guard_all",
    "journal_for",
    "new_node_id",
    "provider_from_uri",
    "store_from",
]
