"""The example of ``keystead serve --dev``: where it is made, what it has, and what goes on in it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from keystead import fields
from keystead.cli.example import making
from keystead.cli.example import now as example_now
from keystead.cli.example.cast import DATABASE, Example
from keystead.config.service import load_service
from keystead.fields.standing import standings
from keystead.manager.attention import attention
from keystead.manager.installation import install
from keystead.manager.key_listing import keyring_standing
from keystead.manager.transit_keys import keys_after
from keystead.model import Principal
from keystead.ports import ReencryptionState
from keystead.runtime.clock import SystemClock
from keystead.server.opening import opened_manager
from keystead.server.service import Service, opened
from tests.cli.serving import serving

DEV = Principal("dev")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example."""
    folder, before = tmp_path_factory.mktemp("example"), os.getcwd()
    os.chdir(folder)
    making.prepare(Path(), has_example=True)
    making.make(Path())
    os.chdir(before)
    return folder


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[Service]:
    """Open the service of a folder, at the time that it is."""
    loaded = load_service(folder / "keystead.yaml", environ={"KEYSTEAD_CLIENT_KEYS_READY": "0"})
    async with opened_manager(loaded, SystemClock()) as km, opened(km, loaded, is_development=True) as found:
        yield found


def called_for(folder: Path, **environ: str) -> bool:
    return making.is_called_for(load_service(environ=environ), folder)


def test_an_empty_folder_is_made_ready_and_what_is_hidden_or_an_environment_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    assert called_for(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "keys.db", "keystead.kek", "src"])
def test_a_folder_with_anything_in_it_is_not_made_ready(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert not called_for(tmp_path)


@pytest.mark.parametrize(
    "setting",
    [{"KEYSTEAD_STORE": "sqlite:///else.db"}, {"KEYSTEAD_KMS": "local:"}, {"KEYSTEAD_ENV": "production"}],
    ids=lambda setting: next(iter(setting)),
)
def test_whoever_has_set_a_store_or_a_kek_or_production_gets_no_other(
    setting: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not called_for(tmp_path, **setting)


async def test_its_keys_are_in_every_state_and_two_have_seen_nearly_what_the_policy_lets_them(made: Path) -> None:
    async with service(made) as found:
        orders = await keyring_standing(found.manager, "orders")
        assert {state.value for state in orders.states} == {"active", "decrypt-only", "disabled", "pending-destroy"}
        told = [(each.about, each.told) for each in await attention(found.manager)]
        assert [about for about, _ in told] == ["payments", "sessions", "orders"]
        assert "97%" in told[0][1]
        assert "84%" in told[1][1]
        found_keys = await keys_after(found.manager, "", "", limit=10)
        assert [each.key.name for each in found_keys] == ["card-numbers", "invoices"]


async def test_its_last_day_has_failures_a_problematic_key_and_a_lock(made: Path) -> None:
    async with service(made) as found:
        hours = await found.devices.summaries.by_hour()
        assert sum(1 for each in hours if each.total) >= 22
        assert len(await found.devices.summaries.find_problematic_keys()) == 1
        (locked,) = await found.devices.lockouts.all(DEV)
        assert locked.user_id == "milo"
        assert len(await found.devices.owners.all(DEV, limit=50)) == 7


async def test_its_audit_trail_is_authentic_and_has_a_checkpoint(made: Path) -> None:
    async with service(made) as found:
        report = await found.manager.audit.verify()
        assert report.valid
        status = await found.manager.audit.status()
        assert status.checkpoint_records > 100


async def test_what_goes_on_in_it_is_measured_and_a_paused_re_encryption_is_taken_up(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_now, "EVERY_S", 0.02)
    monkeypatch.setattr(example_now, "LOOK_S", 0.02)
    monkeypatch.setattr(example_now, "ROWS_PER_S", 100_000.0)
    async with service(made) as found:
        its = Example(made)
        (before,) = [each for each in await standings(found.manager, limit=5) if each.job.field_id == its.field.id]
        assert before.job.state is ReencryptionState.PAUSED
        assert before.totals.read < 3000
        count = await decrypts(found)
        async with example_now.using(found, its):
            await fields.resume(found.manager, before.job.id)
            for _ in range(600):
                if (await fields.reencryptions(found.manager, its.field.id))[-1].state is ReencryptionState.DONE:
                    break
                await asyncio.sleep(0.05)
            await found.devices.metrics.flush()
        assert await decrypts(found) > count
        assert (await fields.reencryptions(found.manager, its.field.id))[-1].state is ReencryptionState.DONE


async def test_a_step_that_fails_does_not_end_what_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_now, "EVERY_S", 0.01)
    async with service(made) as found:
        count = await decrypts(found)
        async with example_now.using(found, Example(tmp_path)):  # where there is no table
            for _ in range(600):
                await found.devices.metrics.flush()
                if await decrypts(found) > count + 10:
                    break
                await asyncio.sleep(0.05)
        assert await decrypts(found) > count + 10


async def test_a_store_that_is_not_the_example_is_not_used_although_the_table_lies_beside_it(
    made: Path, tmp_path: Path
) -> None:
    await asyncio.to_thread(install, tmp_path)
    shutil.copy(made / DATABASE, tmp_path)
    loaded = load_service(tmp_path / "keystead.yaml", environ={})
    its = making.found_in(loaded)
    assert its is not None
    async with service(tmp_path) as found:
        async with example_now.using(found, its):
            await asyncio.sleep(0.2)
        assert await found.devices.owners.all(DEV, limit=50) == []


async def decrypts(found: Service) -> int:
    return sum(each.total for each in await found.devices.summaries.by_hour())


def test_without_an_example_an_empty_folder_gets_a_store_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    log = tmp_path / "serve.log"
    with serving(folder, "--dev", "--no-example", log=log):
        assert not (folder / DATABASE).exists()
    told = log.read_text()
    assert "This folder was empty: made keystead.yaml, keystead.kek, keys.db" in told
    assert "Console: open the address below in a browser. Nobody has to sign in." in told
