"""One field in two databases over one store: neither is destroyed or unindexed behind the other's back."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from keystead.errors import InvalidInputError, KeyInUseError
from keystead.fields import Exact, Field, plan, reencrypt
from keystead.manager.manager import KeyManager
from tests.fakes.world import World, session_of
from tests.fields.application import EMAIL, Application

INDEXED = Field("people", "email", indexes=(Exact(),))


@pytest.fixture
def apps(tmp_path: Path) -> tuple[Application, Application]:
    """Two databases of the application's."""
    files = tmp_path / "one.db", tmp_path / "two.db"
    for file in files:
        file.touch()
    return Application(f"sqlite:///{files[0]}"), Application(f"sqlite:///{files[1]}")


async def fill(km: KeyManager, apps: tuple[Application, Application], field: Field) -> None:
    """Register the field in both databases, with rows in each."""
    await km.load_fields(field)
    for app in apps:
        app.make_people(km, 5, field)
        await km.register_field(field, app.url)


async def test_a_key_that_rows_of_one_database_need_is_not_destroyed_once_the_other_is_done(
    world: World, apps: tuple[Application, Application]
) -> None:
    async with world.open() as km:
        await fill(km, apps, EMAIL)
        old = (await km.get_active_data_key()).id
        await km.rotate_data_key(promote="now")
        destruction = (await session_of(km)).lifecycle.destruction
        for app in apps:
            with pytest.raises(KeyInUseError):
                await destruction.schedule(old, wait=timedelta(days=7))
            assert (await reencrypt(km, app.url, EMAIL)).is_complete
        await destruction.schedule(old, wait=timedelta(days=7))


async def test_a_rotation_of_the_index_key_waits_for_both_databases(
    world: World, apps: tuple[Application, Application]
) -> None:
    async with world.open() as km:
        await fill(km, apps, INDEXED)
        await km.rotate_index_key()
        finished = [(await reencrypt(km, app.url, INDEXED)).finished_rotation for app in reversed(apps)]
        assert finished == [False, True]


async def test_a_plan_names_the_unfinished_job_of_its_own_database(
    world: World, apps: tuple[Application, Application]
) -> None:
    class StopError(Exception):
        pass

    def stop(_: object) -> None:
        raise StopError

    async with world.open() as km:
        await fill(km, apps, EMAIL)
        await km.rotate_data_key(promote="now")
        with pytest.raises(StopError):
            await reencrypt(km, apps[1].url, EMAIL, batch_rows=2, on_progress=stop)
        assert [(await plan(km, app.url, EMAIL)).unfinished is None for app in apps] == [True, False]


async def test_an_index_that_is_left_undeclared_is_missed_in_the_second_database_too(
    world: World, apps: tuple[Application, Application]
) -> None:
    async with world.open() as km:
        await fill(km, apps, INDEXED)
        with pytest.raises(InvalidInputError, match=r"people\.email@.* is registered with indexes"):
            await reencrypt(km, apps[1].url, EMAIL)
