"""Coming over from the Go KMS (kratos-boilerplate): its keys are imported, its values are read.

Nothing here writes its forms. Spec: docs/spec/legacy-forms.md; decisions: docs/adr/0015-legacy-keys.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from keystead import telemetry
from keystead.crypto import legacy
from keystead.crypto.keyring import Keyring
from keystead.errors import DataKeyNotLoadedError, InvalidCiphertextError, InvalidInputError
from keystead.lifecycle.legacy_import import LegacyImport, LegacyImportReport
from keystead.manager.core import check_keyring_name

if TYPE_CHECKING:
    from keystead.manager.manager import KeyManager

log = logging.getLogger("keystead.manager")

LEGACY_KEYRING: Final = "legacy"
NAMES_LOGGED: Final = 256


class LegacyReads:
    """Decrypts values that the Go reference wrote, under keys that were imported."""

    def __init__(self, manager: KeyManager) -> None:
        self._manager = manager
        self._keys: dict[str, tuple[Keyring, int]] = {}
        self._logged: set[str | None] = set()

    async def decrypt(
        self, value: str | bytes | Mapping[str, object], name: str | None, old_text_key: bytes | None
    ) -> bytes:
        """Return the plaintext of any of the forms; see ``KeyManager.decrypt_legacy``."""
        await self._manager.session()
        source = _text(value) if not isinstance(value, Mapping) else value
        if isinstance(source, str) and source.startswith(("01.", "02.")):
            form, plaintext = "old_text", legacy.decrypt_old_text(_checked_key(source, old_text_key), source)
        elif isinstance(source, str) and not source.lstrip().startswith("{"):
            form, plaintext = "text", await self._open(legacy.parse_text(source))
        else:
            form, plaintext = "json", await self._open(legacy.parse_field(source))
        telemetry.legacy_read(form)
        if name not in self._logged and len(self._logged) < NAMES_LOGGED:
            self._logged.add(name)
            log.warning("a value of the older system is still read; re-encrypt it", extra={"field": name})
        return plaintext

    async def _open(self, field: legacy.LegacyField) -> bytes:
        session = await self._manager.session()
        if field.version not in self._keys:
            row = await session.lifecycle.lookup.legacy(field.version)
            ring = await session.live.load(row.keyring)
            # All of the keyring's: only versions that were never imported are then looked for in the store.
            self._keys |= {
                v.legacy_version: (ring, v.id) for v in await session.versions(ring.name) if v.legacy_version
            }
        ring, key_id = self._keys[field.version]
        try:
            key = ring.get(key_id)
        except DataKeyNotLoadedError:
            await session.lifecycle.lookup.fetch(ring, key_id)
            key = ring.get(key_id)
        return legacy.decrypt_field(bytes(key.key), field)


async def import_legacy(
    manager: KeyManager,
    source: str,
    root_key: Callable[[], bytes],
    *,
    schema: str | None = None,
    keyring: str = LEGACY_KEYRING,
    dry_run: bool = False,
) -> LegacyImportReport:
    """Import the keys at the URL ``source``; see ``KeyManager.import_legacy``."""
    from keystead.stores.legacy_source import read_legacy_keys

    check_keyring_name(keyring)
    session = await manager.session()
    rows = await asyncio.to_thread(read_legacy_keys, source, schema=schema)
    root = await asyncio.to_thread(root_key)
    work = LegacyImport(session.live, keyring)
    plan = await work.plan(rows, root)
    if dry_run:
        plan.report.is_dry_run = True
        plan.report.imported = list(plan.new)
        return plan.report
    # First: an import that is killed in between is run again, and then rotates again.
    rotated = await manager.rotate_data_key() if plan.adds_exposed else None
    report = await work.carry_out(plan)
    report.rotated_to = rotated.version if rotated is not None else None
    return report


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(memoryview(value)).decode("ascii")  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInputError(
            f"a legacy value is its text, its JSON or the object of it, not {type(value).__name__}"
        ) from None
    except UnicodeDecodeError:
        raise InvalidCiphertextError("not the text of a legacy value; an envelope is read by decrypt_local") from None


def _checked_key(text: str, key: bytes | None) -> bytes:
    if key is None and text.startswith("01."):
        raise InvalidInputError('an "01." text was encrypted under a key of the older program: pass old_text_key=')
    return key or b""
