"""Fields over a manager: what is loaded when, by how many reads and calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keystead import blocking
from keystead.errors import (
    DataKeyNotLoadedError,
    InvalidInputError,
    KeyNotFoundError,
    KeyringNotLoadedError,
    NotInitializedError,
    StaleViewError,
)
from keystead.fields import Encrypted, Exact, Field
from keystead.providers.local.provider import LocalKMSConfig, LocalKMSProvider
from tests.fakes.world import CountingStore, World

EMAIL = Field("users", "email", indexes=(Exact(),))
TENANTED = Field("users", "name", tenant="org", keyring="people-{tenant}")


async def test_a_field_of_the_default_keyring_needs_no_loading(world: World) -> None:
    async with world.open() as km:
        cipher = km.field(Field("users", "name"))
        assert cipher.decrypt(cipher.encrypt("x", record=1), record=1) == "x"


async def test_what_is_not_initialised_encrypts_no_field(world: World) -> None:
    cipher = world.manager().field(Field("users", "name"))
    with pytest.raises(NotInitializedError):
        cipher.encrypt("x", record=1)


async def test_a_field_is_asked_for_as_a_field(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(InvalidInputError, match="takes a keystead"):
            km.field("users.email")  # type: ignore[arg-type]


async def test_loading_fields_makes_their_keyrings_without_a_kms_call(world: World) -> None:
    async with world.open() as km:
        calls = world.calls()
        await km.load_fields(EMAIL, Field("users", "phone", keyring="people"))
        assert world.calls() == calls
        assert km.field(EMAIL).index_values("x")["email_exact_1"] is not None
        assert {row.keyring for row in await world.rows()} >= {"people", "index"}


async def test_an_index_survives_a_restart_and_a_rotated_data_key(world: World) -> None:
    async with world.open() as km:
        await km.load_fields(EMAIL)
        before = km.field(EMAIL).index_values("x")
        await km.rotate_data_key()
    async with world.open() as km:
        await km.load_fields(EMAIL)
        assert km.field(EMAIL).index_values("x") == before


async def test_tenants_have_keyrings_of_their_own(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(KeyringNotLoadedError):
            km.field(TENANTED).encrypt("x", record=1, tenant="acme")
        await km.load_fields(TENANTED, tenants=["acme", "zeta"])
        sealed = km.field(TENANTED).encrypt("x", record=1, tenant="acme")
        assert km.field(TENANTED).decrypt(sealed, record=1, tenant="acme") == "x"
    assert {"people-acme", "people-zeta"} <= {row.keyring for row in await world.rows()}


async def test_a_tenants_keyring_in_use_is_not_the_one_that_makes_room(world: World) -> None:
    async with world.open(keyring_cache=4) as km:
        await km.load_fields(TENANTED, tenants=["busy"])
        for number in range(10):
            await km.load_fields(TENANTED, tenants=[f"other{number}"])
            km.field(TENANTED).encrypt("x", record=1, tenant="busy")


async def test_a_former_keyring_that_does_not_exist_is_not_made(world: World) -> None:
    async with world.open() as km:
        with pytest.raises(KeyNotFoundError):
            await km.load_fields(Field("users", "name", former_keyrings=("lost",)))


async def test_former_keyrings_of_tenants_are_loaded_where_they_exist_and_never_made(world: World) -> None:
    moved = Field("users", "name", tenant="org", keyring="new", former_keyrings=("people-{tenant}",))
    async with world.open() as km:
        await km.load_fields(TENANTED, tenants=["acme"])
        sealed = km.field(TENANTED).encrypt("x", record=1, tenant="acme")
    async with world.open() as km:
        await km.load_fields(moved, tenants=["acme", "newcomer"])
        assert km.field(moved).decrypt(sealed, record=1, tenant="acme") == "x"
    assert "people-newcomer" not in {row.keyring for row in await world.rows()}


async def test_only_a_process_that_polls_writes_indexes(world: World) -> None:
    async with world.open(epoch_max_age_s=30) as km:
        await km.load_fields(EMAIL)
        km.field(EMAIL).index_values("x")
        world.clock.advance(60)
        with pytest.raises(StaleViewError, match="run_due"):
            km.field(EMAIL).index_values("x")
        await km.run_due()
        km.field(EMAIL).index_values("x")


class Row:
    def __init__(self, box: Encrypted[str]) -> None:
        self.id, self.email = 1, box


def shapes(box: Encrypted[str]) -> list[object]:
    return [box, box.ciphertext, (1, box), {"email": box}, Row(box)]


@pytest.mark.parametrize("shape", range(5))
async def test_prefetch_loads_what_rows_name_by_one_read(world: World, shape: int) -> None:
    async with world.open() as writer, world.open() as reader:
        cipher = reader.field(Field("users", "name"))
        ids = []
        for record in range(3):
            await writer.rotate_data_key(promote="now")
            ids.append(writer.field(Field("users", "name")).encrypt("x", record=record) or b"")
        with pytest.raises(DataKeyNotLoadedError, match="prefetch"):
            cipher.decrypt(ids[0], record=0)
        reader._store = store = CountingStore(world.store)
        session = await reader.session()
        object.__setattr__(session.surroundings, "store", store)
        await reader.prefetch([None, *(shapes(Encrypted(one, cipher))[shape] for one in ids)])
        assert store.reads == 1
        assert [cipher.decrypt(one, record=record) for record, one in enumerate(ids)] == ["x"] * 3
        await reader.prefetch(ids)
        assert store.reads == 1


async def test_prefetch_loads_the_keyring_of_a_key_whole(world: World) -> None:
    async with world.open() as writer, world.open() as reader:
        await writer.load_fields(TENANTED, tenants=["acme"])
        sealed = writer.field(TENANTED).encrypt("x", record=1, tenant="acme")
        await reader.prefetch([sealed])
        assert reader.field(TENANTED).decrypt(sealed, record=1, tenant="acme") == "x"


async def test_prefetch_says_which_key_is_nowhere(world: World) -> None:
    async with world.open() as km, World().open() as other:
        foreign = other.local_encrypt(b"x")
        with pytest.raises(DataKeyNotLoadedError, match="not in this store"):
            await km.prefetch([foreign])
        with pytest.raises(InvalidInputError, match="prefetch takes rows"):
            await km.prefetch([7])


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], blocking.KeyManager]:
    provider = LocalKMSProvider(LocalKMSConfig(master_key=bytes(range(32))))
    return lambda: blocking.KeyManager({"local": provider}, store=f"sqlite:///{tmp_path}/keys.db", background=False)


def test_code_that_may_block_loads_keyrings_and_keys_when_they_are_needed(
    opened: Callable[[], blocking.KeyManager],
) -> None:
    moved = Field("users", "phone", former_keyrings=("default",), keyring="people")
    with opened() as writer, opened() as reader:
        sealed = writer.field(TENANTED).encrypt("x", record=1, tenant="acme")
        assert reader.field(TENANTED).decrypt(sealed, record=1, tenant="acme") == "x"
        writer.keyring("people-acme").rotate(promote="now")
        newer = writer.field(TENANTED).encrypt("y", record=1, tenant="acme")
        assert reader.field(TENANTED).decrypt(newer, record=1, tenant="acme") == "y"
        assert writer.field(EMAIL).index_values("x") == reader.field(EMAIL).index_values("x")
        old = writer.field(Field("users", "phone")).encrypt("1", record=1)
        assert reader.field(moved).decrypt(old, record=1) == "1"
        reader.load_fields(EMAIL, TENANTED, tenants=["new"])
        reader.prefetch([newer])
