"""Operations on a store that keeps a trail, each with what has to be there first."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from keystead.fields import cancel, cancel_wish, pause, reencrypt, resume, serve_wishes, wish
from keystead.manager import admin, backup
from keystead.manager.manager import KeyManager
from keystead.ports import ReencryptionRecord
from tests.fakes.world import World, polled
from tests.fields.application import EMAIL, Application
from tests.legacy.sources import ROOT, build, old_keys
from tests.lifecycle.index_keys import prepare

SOURCE = "app:people"


class Trial:
    """A manager of a store that keeps a trail, and what a trial needs besides."""

    def __init__(self, world: World, km: KeyManager, folder: Path) -> None:
        self.world = world
        self.km = km
        self.folder = folder

    async def old_version(self) -> int:
        """Return the id of a version that only decrypts."""
        before = await self.km.get_active_data_key()
        await self.km.rotate_data_key(promote="now")
        return before.id

    async def disabled(self) -> int:
        """Return the id of a version that is disabled."""
        return (await admin.disable_key(self.km, await self.old_version())).id

    async def pending(self) -> int:
        """Return the id of a version that is to be destroyed."""
        return (await admin.schedule_destroy(self.km, await self.disabled(), without_sources=True)).id

    async def paused(self) -> str:
        """Return the id of a re-encryption that was stopped at its first row."""
        app = Application(f"sqlite:///{self.folder / 'app.db'}")
        (self.folder / "app.db").touch()
        app.make_people(self.km, 3)
        await self.km.register_field(EMAIL, SOURCE)
        session = await self.km.session()
        async with session.surroundings.store.transaction() as work:
            record = ReencryptionRecord("job-1", EMAIL.id, app.url, 10, "{}")
            await work.add_reencryption(record)
        await pause(self.km, "job-1")
        return "job-1"

    async def asked(self) -> str:
        """Return the id of a wish for a re-encryption of a table of three."""
        app = Application(f"sqlite:///{self.folder / 'app.db'}")
        (self.folder / "app.db").touch()
        app.make_people(self.km, 3)
        await self.km.register_field(EMAIL, app.url)
        return (await wish(self.km, EMAIL.id, "run")).id

    async def whole_reencryption(self) -> None:
        app = Application(f"sqlite:///{self.folder / 'app.db'}")
        (self.folder / "app.db").touch()
        app.make_people(self.km, 3)
        await self.km.rotate_data_key(promote="now")
        await reencrypt(self.km, app.url, EMAIL)

    async def expire(self) -> None:
        """Let the active version come to its end."""
        self.world.clock.advance(timedelta(days=91))

    async def imported(self) -> None:
        """Import a store of an older system."""
        url = f"sqlite:///{self.folder / 'old.db'}"
        build(url, "data_keys", old_keys(2))
        await self.km.import_legacy(url, lambda: ROOT)

    async def use(self) -> None:
        """Declare where ciphertexts lie."""
        await admin.declare_use(self.km, "default", "people", "file:/data/people.csv")

    async def rotating_index(self) -> None:
        """Begin to replace an index key that somebody waits for."""
        await prepare(self.km)
        await self.km.rotate_index_key()


async def opened(trial: Trial) -> None:
    pair = await trial.km.generate_data_key()
    await trial.km.open_data_key(pair.encrypted_key)


async def forgotten(trial: Trial) -> None:
    await trial.km.register_field(EMAIL, SOURCE)
    await trial.km.forget_field(EMAIL.id)


async def maintained(trial: Trial) -> None:
    await trial.expire()
    await trial.km.perform_maintenance()


async def run_due(trial: Trial) -> None:
    await trial.expire()
    await trial.km.run_due()


async def promoted(trial: Trial) -> None:
    async with trial.world.open() as other:
        await polled(trial.km, other)
        await trial.km.default.rotate()
    await trial.km.default.promote(force=True)


async def abandoned(trial: Trial) -> None:
    await trial.rotating_index()
    await admin.abandon_index_rotation(trial.km, "index")


async def enabled(trial: Trial) -> None:
    await admin.enable_key(trial.km, await trial.disabled())


async def erased(trial: Trial) -> None:
    await trial.km.subject("ada")
    await trial.km.forget("ada")


async def cancelled(trial: Trial) -> None:
    await admin.cancel_destroy(trial.km, await trial.pending())


async def dropped(trial: Trial) -> None:
    await trial.use()
    await admin.drop_use(trial.km, "default", "people")


async def recovered(trial: Trial) -> None:
    async with trial.world.store.transaction() as work:
        await work.set_restored(True)
    await backup.recover(trial.km)


async def resumed(trial: Trial) -> None:
    await resume(trial.km, await trial.paused())


async def given_up(trial: Trial) -> None:
    await cancel(trial.km, await trial.paused())


async def withdrawn(trial: Trial) -> None:
    await cancel_wish(trial.km, await trial.asked())


async def served(trial: Trial) -> None:
    await trial.asked()
    await serve_wishes(trial.km, f"sqlite:///{trial.folder / 'app.db'}", EMAIL, once=True)


async def index_rotated(trial: Trial) -> None:
    await prepare(trial.km)
    await admin.rotate_index_key(trial.km, "index")
