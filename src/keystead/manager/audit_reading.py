"""A reader of the audit trail, with every key that it needs and that can be had."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from keystead.errors import KMSError
from keystead.ledger.audit.keys import KeyringSigner, StateKeys
from keystead.ledger.audit.verifying import TrailReader
from keystead.ledger.reading.policy import TrustedKey, TrustedSigner
from keystead.lifecycle.key_pages import all_keys
from keystead.manager.assembly import provider_from_uri
from keystead.manager.either_kms import EitherKms
from keystead.model import WRAP_KEYRING, KeyRecord

if TYPE_CHECKING:
    from keystead.manager.auditing import Auditing
    from keystead.manager.core import ManagerCore
    from keystead.manager.session import Session
    from keystead.ports import KmsProvider

log = logging.getLogger("keystead.audit")


@asynccontextmanager
async def trail_reader(manager: ManagerCore, auditing: Auditing, archive: Sequence[Path]) -> AsyncIterator[TrailReader]:
    """Give a reader over one transaction; WRAP keys which the KMS does not unwrap are left out, and logged."""
    session = await manager.session()
    ring = await session.live.wrap_ring(WRAP_KEYRING)
    # Beforehand: a store in memory has one connection, and the reader holds it.
    rows = await _load_all(session)
    async with auditing.trail.store.reading() as work:
        yield TrailReader(
            work=work,
            ring=ring,
            wrap_ids=frozenset(row.id for row in rows),
            state_keys=StateKeys(auditing.ring),
            store_id=session.live.store_id,
            providers=_providers(auditing.providers, manager.named_providers()),
            uris=(uris := _uris(auditing)),
            keys=_keys(auditing, rows, uris),
            signers=lambda stream: tuple(TrustedSigner(key) for key in KeyringSigner(auditing.ring, stream).keys),
            archive=archive,
        )


async def _load_all(session: Session) -> list[KeyRecord]:
    async with session.surroundings.store.reading() as work:
        rows = await all_keys(work, keyring=WRAP_KEYRING)
    for row in rows:
        if row.state.can_decrypt:
            try:
                await session.live.load_wrap_key(WRAP_KEYRING, row.id)
            except KMSError as exc:
                log.warning("a WRAP key that entries may be under does not open: %s", exc.code)
    await session.live.uses.loaded(WRAP_KEYRING)
    return rows


def _keys(auditing: Auditing, rows: Sequence[KeyRecord], uris: Mapping[str, str]) -> list[TrustedKey]:
    """Return the KEKs whose unwrapping of WRAP keys has succeeded here; one of the trail's own is named by entries."""
    ring = auditing.trail.wrap_ring
    held = [row for row in rows if row.id in ring.snapshot.keys]
    named = dict.fromkeys((row.kek_provider or "", row.kek_key_id or "") for row in held)
    return [TrustedKey(provider, key_id, uris.get(provider)) for provider, key_id in named]


def _uris(auditing: Auditing) -> dict[str, str]:
    """Return what opens each KMS that the trail's keys are in, as far as that is known."""
    options = auditing.options
    found = dict(options.uris)
    for uri in (options.kms, options.signer):
        if isinstance(uri, str):
            clock, random = auditing.surroundings.clock, auditing.surroundings.random
            with contextlib.suppress(KMSError):
                found.setdefault(provider_from_uri(uri, clock=clock, random=random).name, uri)
    return found


def _providers(own: Mapping[str, KmsProvider], of_store: Mapping[str, KmsProvider]) -> dict[str, KmsProvider]:
    """Return every KMS by its name; where the trail's own has the name of one of the store's, both under it."""
    both = {name: EitherKms(of_store[name], own[name]) for name in own.keys() & of_store.keys()}
    return {**own, **of_store, **both}
