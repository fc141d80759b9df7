"""Keyring handles, streams, and the bounded number of keyrings that stay loaded."""

from __future__ import annotations

import gc
import io

import pytest

from keystead.errors import (
    DataKeyNotLoadedError,
    DecryptionError,
    InvalidAlgorithmError,
    InvalidCiphertextError,
    InvalidInputError,
    KeyNotFoundError,
)
from keystead.manager import streams
from keystead.model import DataKeyState
from tests.fakes.world import World, polled, session_of

CONTEXT = {"file": "1"}


# --- handles


async def test_a_keyring_is_made_once_and_shared(world: World) -> None:
    async with world.open() as km:
        one, two = await km.keyring("tenant"), await km.keyring("tenant")
        assert one.ring is two.ring
        assert two.local_decrypt(one.local_encrypt(b"x")) == b"x"
        assert repr(one) == "<KeyringHandle <Keyring 'tenant' versions=1 active=1>>"
    assert [row.version for row in await world.rows("tenant")] == [1]
    assert world.calls() == 1


async def test_another_keyrings_ciphertext_does_not_decrypt_and_need_not_be_tried_again(world: World) -> None:
    async with world.open() as km:
        tenant, other = await km.keyring("tenant"), await km.keyring("other")
        sealed = tenant.local_encrypt(b"x")
        for handle in (other, km.default):
            with pytest.raises(DecryptionError) as refused:
                handle.local_decrypt(sealed)
            assert not refused.value.retryable
            with pytest.raises(DecryptionError) as refused:
                await handle.decrypt_local(sealed)
            assert not refused.value.retryable


async def test_a_keyring_that_is_not_to_be_made_is_missed(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(KeyNotFoundError, match="keystead key create"):
            await km.keyring("tenant", create=False)
        await km.keyring("tenant")
        assert (await km.keyring("tenant", create=False)).name == "tenant"


async def test_a_keyring_has_one_algorithm(world: World) -> None:
    async with world.open() as km:
        await km.keyring("tenant")
        with pytest.raises(InvalidInputError, match="another name"):
            await km.keyring("tenant", algorithm="AES-256-GCM-STREAM")
        with pytest.raises(InvalidAlgorithmError):
            await km.keyring("other", algorithm="ROT13")
        with pytest.raises(InvalidInputError):
            await km.keyring("default", algorithm="AES-256-GCM-STREAM")


async def test_a_tenant_may_have_a_wrap_keyring_of_its_own(world: World) -> None:
    async with world.open() as km:
        tenant = await km.keyring("tenant", tenant_wrap="tenant-wrap")
        sealed = tenant.local_encrypt(b"x")
        with pytest.raises(InvalidInputError, match="reserved"):
            await km.keyring("other", tenant_wrap="keystead.mine")
        with pytest.raises(InvalidInputError, match="wraps keys"):
            await km.keyring("tenant-wrap")
    wrap, key = (await world.rows("tenant-wrap"))[0], (await world.rows("tenant"))[0]
    assert key.wrapped_by == wrap.id
    async with world.open() as km:
        assert (await km.keyring("tenant")).local_decrypt(sealed) == b"x"


async def test_a_handle_rotates_its_keyring_alone(world: World) -> None:
    async with world.open() as km:
        tenant = await km.keyring("tenant")
        sealed = tenant.local_encrypt(b"x", context=CONTEXT)
        assert not tenant.needs_reencrypt(sealed)
        assert (await tenant.rotate()).version == 2
        assert tenant.needs_reencrypt(sealed)
        again = await tenant.reencrypt(sealed, context=CONTEXT)
        assert not tenant.needs_reencrypt(again)
        assert tenant.data_key_id(again) == tenant.ring.snapshot.active
        assert tenant.local_decrypt(again, context=CONTEXT) == b"x"
        with pytest.raises(DecryptionError):
            await tenant.reencrypt(sealed, context={})
        assert [info.state for info in await tenant.versions()] == [DataKeyState.DECRYPT_ONLY, DataKeyState.ACTIVE]
        assert await tenant.promote() is None
        assert (await km.get_active_data_key()).version == 1
        assert tenant.get_rotation_policy().last_rotation == world.clock.now()


async def test_the_managers_members_are_those_of_the_default_keyring(world: World) -> None:
    async with world.open(keyring="mine") as km:
        sealed = km.local_encrypt(b"x")
        assert km.default.name == "mine"
        assert km.default.data_key_id(sealed) == (await km.get_active_data_key()).id
        await km.rotate_data_key()
        assert km.needs_reencrypt(sealed)
        assert not km.needs_reencrypt(await km.reencrypt(sealed))
        assert await km.decrypt_local(sealed) == b"x"


async def test_a_handle_reads_the_id_from_text_as_well(world: World) -> None:
    from keystead.crypto.envelope import to_text

    async with world.open() as km:
        sealed = km.local_encrypt(b"x")
        assert km.default.data_key_id(to_text(sealed)) == km.default.data_key_id(sealed)
        with pytest.raises(InvalidCiphertextError):
            km.default.data_key_id("nothing of ours")


async def test_what_another_process_rotated_is_fetched_when_it_is_met(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await one.rotate_data_key()
        sealed = one.local_encrypt(b"x")
        with pytest.raises(DataKeyNotLoadedError, match="decrypt_local"):
            two.local_decrypt(sealed)
        assert await two.decrypt_local(sealed) == b"x"
        assert two.local_decrypt(sealed) == b"x"
        unknown = sealed[:2] + (7).to_bytes(8, "big") + sealed[10:]
        with pytest.raises(DataKeyNotLoadedError, match="not in this store"):
            await two.decrypt_local(unknown)


async def test_a_salt_is_drawn_anew_after_a_restore_of_the_machine(world: World) -> None:
    async with world.open() as km:
        tenant = await km.keyring("tenant")
        salts = {handle.local_encrypt(b"x")[10:26] for handle in (km.default, tenant)}
        salts |= {handle.local_encrypt(b"x")[10:26] for handle in (km.default, tenant)}
        assert len(salts) == 2
        km.after_restore()
        salts |= {handle.local_encrypt(b"x")[10:26] for handle in (km.default, tenant)}
        assert len(salts) == 4


async def test_a_salt_carries_as_many_messages_as_the_manager_says(world: World) -> None:
    async with world.open(messages_per_salt=3) as km:
        assert len({km.local_encrypt(b"x")[10:26] for _ in range(9)}) == 3


# --- the bounded cache


async def test_a_keyring_that_nobody_holds_is_forgotten_when_the_cache_is_full(world: World) -> None:
    async with world.open(keyring_cache=2) as km:
        live = (await session_of(km)).live
        sealed = [(await km.keyring(f"tenant-{n}")).local_encrypt(b"%d" % n) for n in range(5)]
        gc.collect()
        loaded = {ring.name for ring in live.rings()} - {"keystead.wrap", "keystead.index", "default"}
        assert loaded == {"tenant-3", "tenant-4"}
        for n, one in enumerate(sealed):
            assert (await km.keyring(f"tenant-{n}")).local_decrypt(one) == b"%d" % n
        assert world.calls() == 1


async def test_a_keyring_that_somebody_holds_is_kept_up_to_date_although_the_cache_is_full(world: World) -> None:
    async with world.open(keyring_cache=1) as one, world.open() as two:
        held = await one.keyring("held")
        for n in range(3):
            await one.keyring(f"tenant-{n}")
        await (await two.keyring("held")).rotate()
        sealed = (await two.keyring("held")).local_encrypt(b"x")
        await polled(one)
        assert held.local_decrypt(sealed) == b"x"
        assert (await one.keyring("held")).ring is held.ring


async def test_what_a_forgotten_keyring_sealed_is_still_counted(world: World) -> None:
    async with world.open(keyring_cache=1) as km:
        (await km.keyring("first")).local_encrypt(b"xyz")
        await km.keyring("second")
        gc.collect()
    row = (await world.rows("first"))[0]
    assert (row.messages, row.bytes) == (1, 3)


# --- streams


async def test_a_stream_of_any_length_comes_back(world: World) -> None:
    async with world.open() as km:
        for content in (b"", b"x", bytes(300_000)):
            sealed, opened = io.BytesIO(), io.BytesIO()
            assert await km.encrypt_stream(io.BytesIO(content), sealed, context=CONTEXT) == len(content)
            sealed.seek(0)
            assert await km.decrypt_stream(sealed, opened, context=CONTEXT) == len(content)
            assert opened.getvalue() == content


async def sealed_stream(world: World, keyring: str = "files") -> bytes:
    async with world.open() as km:
        sealed = io.BytesIO()
        await km.encrypt_stream(io.BytesIO(b"x" * 100), sealed, keyring=keyring, context=CONTEXT)
        return sealed.getvalue()


@pytest.mark.parametrize("context", [None, {}, {"file": "2"}])
async def test_a_stream_in_another_context_does_not_decrypt(world: World, context: dict[str, str] | None) -> None:
    sealed = await sealed_stream(world)
    async with world.open() as km:
        with pytest.raises(DecryptionError):
            await km.decrypt_stream(io.BytesIO(sealed), io.BytesIO(), context=context)


async def test_a_context_that_cannot_be_is_refused_for_streams(world: World) -> None:
    async with world.open() as km:
        for call in (km.encrypt_stream, km.decrypt_stream):
            with pytest.raises(InvalidInputError, match="reserved"):
                await call(io.BytesIO(b""), io.BytesIO(), context={"keystead.field": "x"})


@pytest.mark.parametrize("cut", [0, 10, 26, 100])
async def test_a_truncated_stream_does_not_decrypt(world: World, cut: int) -> None:
    sealed = await sealed_stream(world)
    async with world.open() as km:
        with pytest.raises(DecryptionError):
            await km.decrypt_stream(io.BytesIO(sealed[:cut]), io.BytesIO(), context=CONTEXT)


async def test_a_stream_of_another_keyring_is_refused(world: World) -> None:
    sealed = await sealed_stream(world, "others")
    async with world.open() as km:
        target = io.BytesIO()
        with pytest.raises(KeyNotFoundError, match="files"):
            await km.decrypt_stream(io.BytesIO(sealed), target, context=CONTEXT)
        await km.encrypt_stream(io.BytesIO(b""), io.BytesIO())
        for _ in range(2):  # not loaded, then loaded
            with pytest.raises(DecryptionError) as refused:
                await km.decrypt_stream(io.BytesIO(sealed), target, context=CONTEXT)
            assert not refused.value.retryable
            others = await km.keyring("others", algorithm="AES-256-GCM-STREAM")
        assert target.getvalue() == b""
        assert await km.decrypt_stream(io.BytesIO(sealed), target, keyring=others.name, context=CONTEXT) == 100


async def test_the_key_of_a_stream_is_fetched_where_it_is_not_loaded(world: World) -> None:
    async with world.open() as one, world.open() as two:
        await one.encrypt_stream(io.BytesIO(b""), io.BytesIO())
        await two.encrypt_stream(io.BytesIO(b""), io.BytesIO())
        files = await one.keyring("files", algorithm="AES-256-GCM-STREAM")
        await files.rotate()
        sealed = io.BytesIO()
        await one.encrypt_stream(io.BytesIO(b"x" * 10), sealed)
        sealed.seek(0)
        opened = io.BytesIO()
        assert await two.decrypt_stream(sealed, opened) == 10
        assert opened.getvalue() == b"x" * 10


async def test_streams_and_single_messages_do_not_share_a_keyring(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(InvalidInputError):
            await km.encrypt_stream(io.BytesIO(b""), io.BytesIO(), keyring="default")
        files = await km.keyring("files", algorithm="AES-256-GCM-STREAM")
        with pytest.raises(InvalidInputError, match="single messages"):
            files.local_encrypt(b"x")


async def test_progress_is_told_while_a_stream_runs(world: World) -> None:
    async with world.open() as km:
        files = await km.keyring("files", algorithm="AES-256-GCM-STREAM")
        told: list[int] = []
        sealed = io.BytesIO()
        await streams.encrypt_stream(files, io.BytesIO(bytes(300_000)), sealed, progress=told.append)
        assert sum(told) == 300_000
        sealed.seek(0)
        await streams.decrypt_stream(files, await session_of(km), sealed, io.BytesIO(), progress=told.append)
        assert sum(told) > 600_000
