"""What was done before somebody looks at the example: an agenda, from half a year ago to now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Final

from keystead import fields
from keystead.access.callers import Scope
from keystead.access.transit_scopes import transit_scope
from keystead.cli.example.cast import KIOSK, LOCKED, MAX_BYTES, OLDEST, USERS, Example, owner, people
from keystead.cli.example.use import Guests, encrypt_messages, transit_use
from keystead.errors import ConflictError
from keystead.ledger.audit.actor import audit_actor
from keystead.manager import admin
from keystead.model import TransitType
from keystead.ports import PairKind
from keystead.server.service import Service
from keystead.transit.administration import KeyChanges, NewTransitKey

Step = Callable[[], Awaitable[object]]

_WRONG: Final = 13
"""Wrong passcodes in a row: the lock that follows is one of four hours."""
_BATCH: Final = 300
_HALF: Final = 4 * _BATCH
"""Rows that are re-encrypted before somebody pauses."""
_HOURS: Final = (3, 2, 2, 1, 1, 2, 3, 5, 8, 12, 14, 15, 13, 11, 14, 16, 15, 12, 9, 8, 7, 6, 5, 4)
"""Ciphertexts sent in each hour of the last day."""


def agenda(service: Service, example: Example) -> list[tuple[timedelta, Step]]:
    """Return what is done, and how long ago; the oldest first."""
    past = _Past(service, example)
    steps = [*past.keys(), *past.transit(), *past.access(), *past.devices(), *past.table()]
    steps.sort(key=lambda step: step[0], reverse=True)
    return [(ago, partial(_as, actor, step)) for ago, actor, step in steps]


async def _as(actor: str, step: Step) -> None:
    with audit_actor(actor):
        await step()


def _days(number: float) -> timedelta:
    return timedelta(days=number)


class _Past:
    """The agenda's chapters."""

    def __init__(self, service: Service, example: Example) -> None:
        self._service = service
        self._km = service.manager
        self._example = example
        self._guests = Guests(service)

    def keys(self) -> Iterator[tuple[timedelta, str, Step]]:
        """Keyrings: versions in every state, one that has seen what it may, and one near that."""
        yield OLDEST, "ada", self._km.audit.begin
        for name, ages in {"orders": (199, 140, 80, 20), "payments": (100, 35), "sessions": (55,)}.items():
            yield _days(ages[0]), "ada", partial(admin.create_keyring, self._km, name)
            for age in ages[1:]:
                yield _days(age), "ada", partial(admin.rotate_keyring, self._km, name)
            for number, age in enumerate(ages):
                yield _days(age - 1), "shop", partial(encrypt_messages, self._km, name, 900 - 170 * number)
        yield _days(130), "ada", partial(admin.rotate_keyring, self._km, "default")
        yield _days(60), "bo", partial(admin.rotate_keyring, self._km, "default")
        yield _days(2), "bo", partial(self._retire, "orders")
        yield _days(2), "shop", partial(self._fill, "payments", 0.97)
        yield _days(2), "shop", partial(self._fill, "sessions", 0.84)
        yield timedelta(minutes=2), "ada", self._km.audit.checkpoint

    async def _retire(self, name: str) -> None:
        """Take the oldest version out of use for good, and the one after it for now."""
        handle = await admin.open_keyring(self._km, name)
        first, second = (await handle.versions())[:2]
        await admin.schedule_destroy(self._km, first.id, without_sources=True)
        await admin.disable_key(self._km, second.id)

    async def _fill(self, name: str, share: float) -> None:
        """Encrypt as many bytes as leave a version near what the policy lets it see."""
        handle = await admin.open_keyring(self._km, name)
        document = bytes(int(MAX_BYTES * share / 4))
        for _ in range(4):
            await asyncio.to_thread(handle.local_encrypt, document)
        await (await self._km.session()).uses.flush()

    def transit(self) -> Iterator[tuple[timedelta, str, Step]]:
        """Transit keys: one that encrypts, and one that signs."""
        keys = self._service.transit.administration
        yield _days(150), "ada", partial(keys.create, "", "card-numbers", NewTransitKey(auto_rotate_s=90 * 86_400))
        yield _days(90), "ada", partial(keys.rotate, "", "card-numbers")
        yield _days(15), "ada", partial(keys.rotate, "", "card-numbers")
        yield _days(14), "ada", partial(keys.configure, "", "card-numbers", KeyChanges(min_decryption=2))
        yield _days(120), "bo", partial(keys.create, "", "invoices", NewTransitKey(TransitType.ED25519))
        yield _days(30), "bo", partial(keys.rotate, "", "invoices")
        yield timedelta(hours=3), "checkout", partial(transit_use, self._service, count=40)

    def access(self) -> Iterator[tuple[timedelta, str, Step]]:
        """Tokens: of programs, of somebody who only reads, and one that was revoked."""
        create = self._service.tokens.create
        for_cards = {transit_scope("transit:encrypt:card-*"), transit_scope("transit:decrypt:card-*")}
        yield _days(150), "ada", partial(create, "checkout", for_cards, label="checkout", lifetime=_days(365))
        phones = {Scope.DEVICES_USE, Scope.DEVICES_DECRYPT, Scope.ACT_AS}
        yield _days(100), "ada", partial(create, "mobile-api", phones, label="back end of the phones")
        reads = {Scope.KEYRINGS_READ, Scope.AUDIT_READ, Scope.JOBS_READ}
        yield _days(23), "ada", partial(create, "auditor", reads, label="yearly audit", lifetime=_days(30))
        yield _days(9), "bo", self._revoked

    async def _revoked(self) -> None:
        tokens = self._service.tokens
        made = await tokens.create("laptop-of-bo", {Scope.KEYRINGS_READ, Scope.KEYRINGS_WRITE}, label="lost laptop")
        await tokens.revoke(made.row.id)

    def devices(self) -> Iterator[tuple[timedelta, str, Step]]:
        """Devices and what they sent in the last day: most of it good, a kiosk's often not, and a lock."""
        guests, room = self._guests, self._service.devices
        for number, user in enumerate((*USERS, KIOSK, LOCKED)):
            yield _days(20 - number), user, partial(guests.join, user)
        yield _days(5), "bo", partial(guests.renew, "bo")
        yield _days(6), "chiara", partial(room.keys.generate, owner("chiara"), "old-tablet", kind=PairKind.X25519)
        yield _days(4), "ada", partial(room.owners.revoke, owner("ada"), "old-tablet", is_admin=True)
        for user in ("ada", LOCKED):
            yield _days(10), user, partial(guests.set_passcode, user)
        for number, sent in enumerate(_HOURS):
            ago = timedelta(hours=len(_HOURS) - number, minutes=-20)
            yield ago, "mobile-api", partial(self._hour, sent, is_odd=bool(number % 2))
        yield from self._guesses(room.lockouts.rule.free)

    async def _hour(self, sent: int, *, is_odd: bool) -> None:
        await asyncio.gather(
            *(self._guests.send(USERS[number % len(USERS)]) for number in range(sent)),
            *(self._guests.send(KIOSK, is_good=is_good) for is_good in (True, not is_odd)),
        )
        if sent > 12:
            await self._guests.verify("ada")
        await self._service.devices.metrics.flush()
        await self._service.devices.uses.flush()

    def _guesses(self, free: int) -> Iterator[tuple[timedelta, str, Step]]:
        """Somebody tries a passcode again whenever the lock is over; each lock is twice as long."""
        ago, pause = timedelta(minutes=300), timedelta(minutes=1, seconds=5)
        for number in range(_WRONG):
            yield ago, LOCKED, partial(self._guests.verify, LOCKED, is_right=False)
            if number + 1 >= free:
                ago, pause = ago - pause, pause * 2

    def table(self) -> Iterator[tuple[timedelta, str, Step]]:
        """An application's table: one column is re-encrypted as a whole, the other is half way."""
        table = self._example.table
        name, email = (table.fields()[column] for column in ("name", "email"))
        yield _days(150), "shop", self._insert
        yield _days(59), "bo", partial(fields.reencrypt, self._km, table.url, name)
        yield timedelta(minutes=30), "bo", partial(self._half, email)

    async def _insert(self) -> None:
        table, found = self._example.table, people()
        await self._km.load_fields(*table.fields().values())
        await asyncio.to_thread(table.create)
        await asyncio.to_thread(table.insert, self._km, found, 0, len(found.rows))

    async def _half(self, field: fields.Field) -> None:
        """Begin to re-encrypt a column, and pause."""
        is_half = asyncio.Event()

        def seen(progress: fields.ReencryptProgress) -> None:
            if progress.read >= _HALF:
                is_half.set()

        url = self._example.table.url
        working = asyncio.create_task(
            fields.reencrypt(self._km, url, field, batch_rows=_BATCH, rows_per_s=_HALF, on_progress=seen)
        )
        working.add_done_callback(lambda task: is_half.set())
        await is_half.wait()
        (job,) = await fields.reencryptions(self._km, field.id)
        # On a slow machine it may have ended meanwhile.
        with contextlib.suppress(ConflictError):
            await fields.pause(self._km, job.id)
        await working
