"""Rows whose subject was forgotten: their indexes are emptied in every table that is registered and can be reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from typing import Final

from keystead.crypto.envelope import MAGIC, SUITE_AES_256_GCM
from keystead.errors import KMSError
from keystead.fields.field import token_table_of
from keystead.fields.indexes import hash_columns
from keystead.model.patterns import OF_SUBJECTS
from keystead.ports import FieldRecord, KeyStore

log = logging.getLogger("keystead.manager")

AT_ONCE: Final = 500
"""How many data keys are looked for at once: each time the whole table is read."""


async def empty_indexes(store: KeyStore, key_ids: Collection[int]) -> tuple[str, ...]:
    """Let no index find rows under these data keys, and return the registered fields where that could not be done."""
    async with store.reading() as work:
        fields = [field for field in await work.fields() if field.keyring == OF_SUBJECTS and field.index_keyring]
    remaining = []
    for field in fields:
        try:
            is_done = await asyncio.to_thread(_empty, field, key_ids)
        except KMSError as exc:
            log.warning("the indexes of a forgotten subject remain in a field: %s", exc.code, extra={"field": field.id})
            is_done = False
        if not is_done:
            remaining.append(field.id)
    return tuple(remaining)


def _empty(field: FieldRecord, key_ids: Collection[int]) -> bool:
    from keystead.stores.rows import RowTable

    kind, _, place = field.locator.partition(":")
    if kind != "sql":
        return False
    url, _, target = place.rpartition("#")
    table, _, column = target.rpartition(".")
    with contextlib.closing(RowTable(url, table, column, key=(column,))) as found:
        indexes = tuple(sorted(hash_columns(column, found.layout.columns)))
        tokens = token_table_of(table, column)
        has_tokens = field.record is not None and found.has_tokens(tokens)
    record = (field.record,) if has_tokens and field.record is not None else ()
    rows = RowTable(
        url, table, column, key=(column,), record=record, indexes=indexes, tokens=tokens if has_tokens else None
    )
    with contextlib.closing(rows):
        starts = [bytes((MAGIC, SUITE_AES_256_GCM)) + key_id.to_bytes(8, "big") for key_id in key_ids]
        for at in range(0, len(starts), AT_ONCE):
            rows.empty(starts[at : at + AT_ONCE])
    return True
