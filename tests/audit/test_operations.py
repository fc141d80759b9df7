"""Every operation that changes the store, or gives a key out, says so in the trail. A new one has to be listed here."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from keystead import fields
from keystead.manager import admin, backup
from keystead.manager.audit import Audit
from keystead.manager.crypto_service import CryptoService
from keystead.manager.data_keys import DataKeys
from keystead.manager.handle import KeyringHandle
from keystead.manager.manager import KeyManager
from tests.audit.trials import (
    SOURCE,
    Trial,
    abandoned,
    cancelled,
    dropped,
    enabled,
    erased,
    forgotten,
    given_up,
    index_rotated,
    maintained,
    opened,
    promoted,
    recovered,
    resumed,
    run_due,
    served,
    withdrawn,
)
from tests.audit.worlds import actions, entry_of, waiting
from tests.fakes.world import World
from tests.fields.application import EMAIL

Does = Callable[[Trial], Awaitable[Any]]

KEY_MANAGER: dict[str, tuple[set[str], Does]] = {
    "rotate_data_key": ({"key.rotate"}, lambda t: t.km.rotate_data_key()),
    "generate_data_key": ({"key.draw"}, lambda t: t.km.generate_data_key()),
    "open_data_key": ({"key.open"}, opened),
    "keyring": ({"keyring.create", "key.create"}, lambda t: t.km.keyring("letters")),
    "subject": ({"erasures.begin", "keyring.create", "key.create"}, lambda t: t.km.subject("ada")),
    "forget": ({"subject.erase", "key.destroy"}, erased),
    "receipt_keys": ({"keyring.create", "key.create"}, lambda t: t.km.receipt_keys()),
    "register_field": ({"field.register"}, lambda t: t.km.register_field(EMAIL, SOURCE)),
    "forget_field": ({"field.forget"}, forgotten),
    "rotate_index_key": ({"key.rotate"}, lambda t: t.rotating_index()),
    "import_legacy": ({"keyring.create", "key.import"}, lambda t: t.imported()),
    "perform_maintenance": ({"key.rotate"}, maintained),
    "run_due": ({"key.rotate"}, run_due),
}
HANDLE: dict[str, tuple[set[str], Does]] = {
    "rotate": ({"key.rotate"}, lambda t: t.km.default.rotate()),
    "promote": ({"key.promote"}, promoted),
}
DATA_KEYS: dict[str, tuple[set[str], Does]] = {
    "generate_data_key": ({"key.rotate"}, lambda t: t.km.data_keys.generate_data_key()),
    "rotate_data_key": ({"key.rotate"}, lambda t: t.km.data_keys.rotate_data_key()),
}
AUDIT: dict[str, tuple[set[str], Does]] = {
    "record": ({"order.refund"}, lambda t: t.km.audit.record("order.refund")),
    "checkpoint": ({"audit.checkpoint"}, lambda t: t.km.audit.checkpoint()),
    "end": ({"audit.end"}, lambda t: t.km.audit.end("enough")),
}
ADMIN: dict[str, tuple[set[str], Does]] = {
    "create_keyring": ({"keyring.create", "key.create"}, lambda t: admin.create_keyring(t.km, "letters")),
    "rotate_keyring": ({"key.rotate"}, lambda t: admin.rotate_keyring(t.km, "default")),
    "rotate_index_key": ({"key.rotate"}, index_rotated),
    "abandon_index_rotation": ({"key.disable"}, abandoned),
    "rewrap": ({"kek.rotate", "key.rewrap"}, lambda t: admin.rewrap(t.km, new_kek_version=True)),
    "disable_key": ({"key.disable"}, lambda t: t.disabled()),
    "enable_key": ({"key.enable"}, enabled),
    "schedule_destroy": ({"key.schedule_destroy"}, lambda t: t.pending()),
    "cancel_destroy": ({"key.cancel_destroy"}, cancelled),
    "declare_use": ({"use.declare"}, lambda t: t.use()),
    "drop_use": ({"use.drop"}, dropped),
}
BACKUP: dict[str, tuple[set[str], Does]] = {
    "export_text": ({"store.export"}, lambda t: backup.export_text(t.km)),
    "verify": ({"store.verify"}, lambda t: backup.verify(t.km)),
    "recover": ({"store.recover", "store.recovered"}, recovered),
}
FIELDS: dict[str, tuple[set[str], Does]] = {
    "reencrypt": ({"reencrypt.begin", "reencrypt.done"}, lambda t: t.whole_reencryption()),
    "pause": ({"reencrypt.pause"}, lambda t: t.paused()),
    "resume": ({"reencrypt.resume"}, resumed),
    "cancel": ({"reencrypt.cancel"}, given_up),
    "wish": ({"reencrypt.wish"}, lambda t: t.asked()),
    "cancel_wish": ({"reencrypt.cancel_wish"}, withdrawn),
    "serve_wishes": ({"reencrypt.take_wish", "reencrypt.begin", "reencrypt.done"}, served),
}
CHANGING: dict[str, dict[str, tuple[set[str], Does]]] = {
    "KeyManager": KEY_MANAGER,
    "KeyringHandle": HANDLE,
    "DataKeys": DATA_KEYS,
    "CryptoService": {},
    "Audit": AUDIT,
    "admin": ADMIN,
    "backup": BACKUP,
    "fields": FIELDS,
}
CHANGES_NOTHING: dict[str, set[str]] = {
    # What is encrypted or decrypted is the application's; that a data key was unwrapped for it is `key.load`.
    "KeyManager": {
        *("encrypt", "decrypt", "encrypt_field", "decrypt_field", "decrypt_local", "reencrypt"),
        *("encrypt_stream", "decrypt_stream", "decrypt_legacy", "reencrypt_legacy", "prefetch", "load_fields"),
        *("get_active_data_key", "get_data_key_by_version", "get_status", "fields", "doctor"),
        *("erasures", "erasure_receipt"),
        *("initialize", "close", "session"),  # told as sessions of the trail
    },
    "KeyringHandle": {"decrypt_local", "reencrypt", "versions"},
    "DataKeys": {
        *("get_active_data_key", "get_data_key_by_version", "encrypt_with_data_key", "decrypt_with_data_key"),
    },
    "CryptoService": {"encrypt_field", "decrypt_field", "encrypt_batch", "decrypt_batch", "clear_cache"},
    "Audit": {
        *("insert_of", "sequenced", "last_checkpoint", "entries", "verify", "trust_policy", "export", "status"),
        *("verify_newest", "prove"),
        "begin",  # tests/audit/test_beginning.py
        "archive",  # tests/audit/test_archive.py
        "acknowledge",  # tests/audit/test_acknowledging.py
    },
    "admin": {"list_keys", "find_key", "open_keyring", "list_uses", "store_status"},
    "backup": {
        "note_export",  # a file's time, outside the database
        "import_export",  # fills an empty store, whose trail begins with what it then holds
    },
    "fields": {"plan", "reencryptions", "wishes"},
}
PLACES: dict[str, type | ModuleType] = {
    "KeyManager": KeyManager,
    "KeyringHandle": KeyringHandle,
    "DataKeys": DataKeys,
    "CryptoService": CryptoService,
    "Audit": Audit,
    "admin": admin,
    "backup": backup,
    "fields": fields,
}


def members(place: type | ModuleType) -> set[str]:
    """Return the public coroutine functions of a class, or that a module defines or exports."""
    found = {name for name, each in inspect.getmembers(place) if inspect.iscoroutinefunction(each) and name[0] != "_"}
    if isinstance(place, ModuleType):
        exported = getattr(place, "__all__", None)
        found = {name for name in found if (exported or vars(place)[name].__module__ == place.__name__)}
    return found


@pytest.mark.parametrize("place", PLACES)
def test_every_public_operation_is_listed_with_what_it_writes(place: str) -> None:
    assert members(PLACES[place]) == CHANGING[place].keys() | CHANGES_NOTHING[place]


CASES = [(f"{place}.{name}", *case) for place, cases in CHANGING.items() for name, case in cases.items()]


@pytest.mark.parametrize(("wanted", "does"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_an_operation_writes_what_it_is_listed_with(
    world: World, tmp_path: Path, wanted: set[str], does: Does
) -> None:
    async with world.open(audit=True) as km:
        begun = len(await waiting(world))
        told: list[str] = []
        trial = Trial(world, km, tmp_path)
        await does(trial)
        told = (await actions(world))[begun:]
        sealed = [record.action for record in await km.audit.entries()]
        assert wanted <= {*told, *sealed}


@pytest.mark.parametrize("does", [case[2] for case in CASES if case[0] not in {"Audit.end"}])
async def test_what_the_trail_says_of_the_keys_is_what_the_store_holds(
    world: World, tmp_path: Path, does: Does
) -> None:
    async with world.open(audit=True) as km:
        await does(Trial(world, km, tmp_path))
        await km.audit.sequenced()
        report = await km.audit.verify(compares_store=True)
        assert (report.valid, report.differences) == (True, [])


async def test_what_is_refused_writes_nothing(world: World) -> None:
    async with world.open(audit=True) as km:
        before = await actions(world)
        active = (await km.get_active_data_key()).id
        with pytest.raises(Exception, match="disable"):
            await admin.schedule_destroy(km, active, without_sources=True)
        assert await actions(world) == before


async def test_a_destroy_that_has_come_due_is_written(world: World, tmp_path: Path) -> None:
    async with world.open(audit=True) as km:
        await Trial(world, km, tmp_path).pending()
        world.clock.advance(timedelta(days=31))
        await km.perform_maintenance()
        entry = await entry_of(world, "key.destroy")
        assert [key["state"] for key in entry["keys"]] == ["destroyed"]


async def test_without_a_trail_an_operation_writes_none_and_the_store_is_not_marked(
    world: World, tmp_path: Path
) -> None:
    async with world.open() as km:
        await Trial(world, km, tmp_path).pending()
        assert await waiting(world) == []
        assert (await km.audit.status()).is_on is False
        async with world.store.reading() as work:
            assert not (await work.state()).audited
            assert await work.find_keyring("keystead.audit") is None
