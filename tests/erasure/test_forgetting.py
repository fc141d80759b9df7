"""What was encrypted under the keys of a subject is gone when it was forgotten, and stays so whatever is put back."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from keystead.crypto.envelope import parse_header
from keystead.errors import (
    ConfigurationError,
    ErasureLogError,
    InvalidInputError,
    KeyNotFoundError,
    KeyStateError,
    KMSError,
    StaleViewError,
    StoreUnavailableError,
)
from keystead.manager.manager import KeyManager
from tests.erasure.places import Place
from tests.fakes.clock import FakeClock


async def sealed(km: KeyManager, subject: str, text: bytes = b"secret") -> bytes:
    return (await km.subject(subject)).local_encrypt(text)


async def opened(km: KeyManager, subject: str, ciphertext: bytes) -> bytes:
    return await (await km.subject(subject, create=False)).decrypt_local(ciphertext)


async def refuses(km: KeyManager, ciphertext: bytes, error: type[KMSError] = KMSError) -> None:
    """See that this process does not open a ciphertext once it has looked, with whatever keyring it loads for it."""
    await km.run_due()
    live = (await km.session()).live
    with contextlib.suppress(KMSError):
        await km.prefetch([ciphertext])
    owner = live.owner_of(parse_header(ciphertext).key_id)
    for ring in live.rings():
        if owner in (None, ring.name):
            with pytest.raises(error if ring.is_strict else KMSError):
                ring.local_decrypt(ciphertext)
            with pytest.raises(error if ring.is_strict else KMSError):
                ring.open(ciphertext)


async def test_a_subject_has_a_keyring_of_its_own(place: Place) -> None:
    async with place.open() as km:
        ada, bob = await sealed(km, "ada"), await sealed(km, "bob")
        assert await opened(km, "ada", ada) == b"secret"
        with pytest.raises(KMSError):
            await opened(km, "bob", ada)
        again = await km.subject("ada")
        assert again.name == (await km.subject("ada", create=False)).name
        assert again.name != (await km.subject("bob")).name
        with pytest.raises(KeyNotFoundError):
            await km.subject("nobody", create=False)
    async with place.open() as km:
        assert await opened(km, "bob", bob) == b"secret"


async def test_what_was_forgotten_is_gone_and_everybody_else_stays(place: Place) -> None:
    async with place.open() as km:
        ada, bob = await sealed(km, "ada"), await sealed(km, "bob")
        held = await km.subject("ada")
        receipt = await km.forget("ada")
        with pytest.raises(KeyStateError, match="erased"):
            held.local_decrypt(ada)
        with pytest.raises(KeyStateError, match="erased"):
            held.local_encrypt(b"more")
        await refuses(km, ada)
        assert await opened(km, "bob", bob) == b"secret"
        with pytest.raises(KeyNotFoundError):
            await km.forget("ada")
    assert receipt.keyring == held.name
    async with place.open() as km:
        await refuses(km, ada)
        assert await opened(km, "bob", bob) == b"secret"
    rows = place.database.execute("SELECT state, wrapped_key FROM data_keys WHERE keyring = ?", held.name)
    assert rows == [("destroyed", None)]


async def test_who_comes_back_has_other_keys(place: Place) -> None:
    async with place.open() as km:
        before, former = await sealed(km, "ada"), await km.subject("ada")
        await km.forget("ada")
        after, new = await sealed(km, "ada", b"newer"), await km.subject("ada")
        assert new.name != former.name
        assert await opened(km, "ada", after) == b"newer"
        with pytest.raises(KMSError):
            await opened(km, "ada", before)


async def test_every_version_is_destroyed(place: Place) -> None:
    async with place.open() as km:
        handle = await km.subject("ada")
        kept = [handle.local_encrypt(b"1")]
        for _ in range(2):
            await handle.rotate(promote="now")
            kept.append(handle.local_encrypt(b"n"))
        receipt = await km.forget("ada")
        assert len(receipt.keys) == 3
        for ciphertext in kept:
            await refuses(km, ciphertext)


async def test_another_process_refuses_once_it_has_looked_and_before_that_for_want_of_looking(place: Place) -> None:
    clock = FakeClock()
    async with place.open(clock=clock) as one, place.open(clock=clock) as two:
        ada = await sealed(one, "ada")
        theirs = await two.subject("ada")
        assert theirs.local_decrypt(ada) == b"secret"
        await one.forget("ada")
        clock.advance(5.1)
        with pytest.raises(StaleViewError):
            theirs.local_decrypt(ada)
        with pytest.raises(StaleViewError):
            theirs.local_encrypt(b"more")
        await two.run_due()
        with pytest.raises(KeyStateError, match="erased"):
            theirs.local_decrypt(ada)


async def test_a_backup_of_the_store_that_is_put_back_brings_nothing_back(place: Place) -> None:
    async with place.open() as km:
        ada, bob = await sealed(km, "ada"), await sealed(km, "bob")
    backup = place.backup()
    async with place.open() as km:
        name = (await km.forget("ada")).keyring
    place.restore(backup)
    assert place.database.execute("SELECT state FROM data_keys WHERE keyring = ?", name) == [("active",)]
    async with place.open() as km:
        await refuses(km, ada)
        assert await opened(km, "bob", bob) == b"secret"
        assert place.database.execute("SELECT state FROM data_keys WHERE keyring = ?", name) == [("destroyed",)]
        with pytest.raises(KeyNotFoundError):
            await km.subject("ada", create=False)


async def test_a_backup_that_is_put_back_beneath_a_running_process_brings_nothing_back(place: Place) -> None:
    async with place.open() as km:
        ada = await sealed(km, "ada")
        backup = place.backup()
        name = (await km.forget("ada")).keyring
        place.restore(backup)
        await refuses(km, ada)
        assert place.database.execute("SELECT state FROM data_keys WHERE keyring = ?", name) == [("destroyed",)]


@pytest.mark.parametrize("edit", ["gone", "empty", "shorter", "torn", "another", "altered", "swapped"])
@pytest.mark.parametrize("is_restored", [False, True])
async def test_without_the_whole_log_no_subjects_keys_are_used(place: Place, edit: str, is_restored: bool) -> None:
    async with place.open() as km:
        kept = {name: await sealed(km, name) for name in ("ada", "bob", "cy")}
    backup = place.backup()
    async with place.open() as km:
        await km.forget("ada")
        await km.forget("bob")
    whole = place.copy_log("whole").read_bytes()
    lines = place.lines()
    if is_restored:
        # As somebody would who wants to have back what was forgotten.
        place.restore(backup)
    _edit(place, edit, lines)
    async with place.open() as km:
        for ciphertext in kept.values():
            await refuses(km, ciphertext)
    place.log.write_bytes(whole)
    async with place.open() as km:
        assert await opened(km, "cy", kept["cy"]) == b"secret"
        for name in ("ada", "bob"):
            await refuses(km, kept[name])


def _edit(place: Place, edit: str, lines: list[bytes]) -> None:
    log = place.log
    if edit == "gone":
        log.unlink()
    elif edit == "empty":
        log.write_bytes(b"")
    elif edit == "shorter":
        log.write_bytes(b"\n".join(lines[:1]) + b"\n")
    elif edit == "torn":
        log.write_bytes(log.read_bytes()[:-5])
    elif edit == "another":
        told = [json.loads(line) for line in lines]
        log.write_bytes(b"".join(json.dumps(each | {"n": each["n"] + 1}).encode() + b"\n" for each in told))
    elif edit == "altered":
        told = [json.loads(line) for line in lines]
        told[1]["keyring"] = "keystead.subject." + "0" * 32
        texts = (json.dumps(each, sort_keys=True, separators=(",", ":")) for each in told)
        log.write_bytes(b"".join(text.encode() + b"\n" for text in texts))
    else:
        log.write_bytes(b"\n".join([lines[0], lines[2], lines[1]]) + b"\n")


async def test_a_log_that_is_cut_off_beneath_a_running_process_is_noticed(place: Place) -> None:
    async with place.open() as km:
        ada, held = await sealed(km, "ada"), await km.subject("ada")
        bob = await sealed(km, "bob")
        await km.forget("bob")
        place.log.write_bytes(b"\n".join(place.lines()[:1]) + b"\n")
        await km.run_due()
        with pytest.raises(ErasureLogError):
            held.local_decrypt(ada)
        await refuses(km, bob)


async def test_what_only_the_log_has_is_done_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.open() as km:
        ada = await sealed(km, "ada")
        session = await km.session()
        store = session.surroundings.store

        async def fails(self: Any, mark: Any) -> None:
            raise RuntimeError("killed")

        async with store.reading() as work:
            kind = type(work)
        with monkeypatch.context() as patch:
            patch.setattr(kind, "put_erasure_mark", fails)
            with pytest.raises(RuntimeError):
                await km.forget("ada")
        assert len(place.lines()) == 2
        assert place.database.execute("SELECT count(*) FROM subjects") == [(1,)]
        await refuses(km, ada)
        assert place.database.execute("SELECT count(*) FROM subjects") == [(0,)]
        with pytest.raises(KeyNotFoundError):
            await km.forget("ada")
    assert place.database.execute("SELECT count FROM erasure_state") == [(2,)]


async def test_a_manager_without_a_log_uses_no_keys_of_subjects(place: Place) -> None:
    async with place.open() as km:
        ada = await sealed(km, "ada")
    async with place.open(erasures=None) as km:
        with pytest.raises(ConfigurationError, match="erasures="):
            await km.subject("bob")
        with pytest.raises(ConfigurationError, match="erasures="):
            await km.forget("ada")
        await refuses(km, ada, ConfigurationError)
        assert km.local_decrypt(km.local_encrypt(b"other")) == b"other"


@pytest.mark.parametrize("subject", ["", "x" * 1001, "\ud800", b"ada", None, 7])
async def test_a_subject_is_named_by_a_text(place: Place, subject: Any) -> None:
    async with place.open() as km:
        with pytest.raises(InvalidInputError):
            await km.subject(subject)
        with pytest.raises(InvalidInputError):
            await km.forget(subject)


async def test_nobody_is_named_outside_of_the_process(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    who = "ada.lovelace@example.org"
    async with place.open(audit=True) as km:
        ciphertext = await sealed(km, who)
        receipt = await km.forget(who)
        with pytest.raises(KeyNotFoundError) as failed:
            await km.forget(who)
        entries = [repr(record) for record in await km.audit.entries(limit=1000)]
    told = [ciphertext.hex(), receipt.to_json(), str(failed.value), caplog.text, place.log.read_text(), *entries]
    names = "SELECT name FROM sqlite_master WHERE type = 'table'"
    if not place.database.is_sqlite:
        names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    told += [repr(place.database.execute(f"SELECT * FROM {name}")) for (name,) in place.database.execute(names)]
    for spelled in (who, "lovelace", who.encode().hex()):
        assert not any(spelled in each for each in told)


async def test_the_trail_tells_of_erasures_by_the_keyrings_random_name(place: Place) -> None:
    async with place.open(audit=True) as km:
        await sealed(km, "ada")
        receipt = await km.forget("ada")
        await km.run_due()
        entries = await km.audit.entries(keyring=receipt.keyring)
        assert [entry.action for entry in entries if entry.action in ("subject.erase", "key.destroy")] == [
            "subject.erase",
            "key.destroy",
        ]
        assert (await km.audit.verify()).valid


async def test_a_log_that_cannot_be_reached_is_waited_for_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    async with place.open(clock=clock) as km:
        held, ada = await km.subject("ada"), await sealed(km, "ada")
        with monkeypatch.context() as patch:

            def away(*given: object) -> None:
                raise StoreUnavailableError("away")

            patch.setattr("keystead.stores.erasure_logs.FileErasureLog.read", away)
            clock.advance(3.0)
            await km.run_due()
            assert held.local_decrypt(ada) == b"secret"
            clock.advance(3.0)
            await km.run_due()
            with pytest.raises(StaleViewError):
                held.local_decrypt(ada)
            with pytest.raises(StoreUnavailableError):
                await held.decrypt_local(ada)
        assert await held.decrypt_local(ada) == b"secret"
        assert held.local_decrypt(ada) == b"secret"


async def test_a_process_that_has_done_nothing_for_long_reads_on(place: Place) -> None:
    clock = FakeClock()
    async with place.open(clock=clock) as km:
        held, ada = await km.subject("ada"), await sealed(km, "ada")
        clock.advance(3600.0)
        assert await held.decrypt_local(ada) == b"secret"
        clock.advance(3600.0)
        await km.prefetch([ada])
        assert await opened(km, "ada", ada) == b"secret"


def test_the_stores_own_database_is_no_place_for_its_log(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="the store's own database"):
        place.manager(erasures=place.database.url)
