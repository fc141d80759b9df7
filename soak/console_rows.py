"""The rows that the console's pages are asked over: an installation of years, made within minutes.

Keys, devices and whoever calls are copies, as rows, of one that the service has made; no page opens what a copy wraps.
The audit trail is written and sealed as ever, and operations are noted and counted as ever: pages read what they say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Table

from keystead.access.callers import Scope
from keystead.devices.metrics import Metrics as Noted
from keystead.ledger.audit.actor import audit_actor
from keystead.ledger.audit.trail import Trail
from keystead.manager import admin, transit_keys
from keystead.model import Act, Action
from keystead.ports import AuditEvent, FieldRecord, KeyStore, SecretKind, WishKind, WishRecord
from keystead.stores import tables
from keystead.transit.administration import NewTransitKey
from soak.metrics import NOW, load
from soak.places import POSTGRESQL, Place, execute
from tests.fakes.clock import FakeClock
from tests.server.clients import Node
from tests.server.console.visitors import visitor
from tests.server.console.workers import JOB, begun

KEYRING: Final = "orders"
TRANSIT: Final = "orders"
DEVICE: Final = "phone"
OWNER: Final = "bob"
ASKER: Final = "carol"
"""Who asks for what a second person approves."""
ACTIONS: Final = ("order.paid", "order.refund", "invoice.read")
LATEST: Final = 10**9
"""Copies are numbered from here on, so that their numbers have one length."""
_AT_ONCE: Final = 500
_TIMEOUT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows there are of what; ``others`` are tokens, sessions, locks, jobs, versions of a keyring and more."""

    keyrings: int
    versions: int
    devices: int
    records: int
    operations: int
    others: int


async def fill(node: Node, place: Place, clock: FakeClock, size: Size) -> None:
    """Fill a store whose node has begun a day before ``NOW``; the clock is there at the end."""
    store = _store(node)
    of_operations = FakeClock()
    await load(Noted(store, of_operations), of_operations, size.operations)
    await _write_trail(node, clock, size.records)
    clock.set(NOW)
    await _make_first(node)
    _copy(place, size)
    for _ in range(0, size.others, _AT_ONCE):
        # What waits to be sealed.
        await _trail(node).tell(*(AuditEvent("order.late") for _ in range(_AT_ONCE)))
    if place.kind == POSTGRESQL:
        # As it does by itself, sooner or later.
        execute(place.url, "VACUUM ANALYZE")


async def _write_trail(node: Node, clock: FakeClock, wanted: int) -> None:
    """Write entries over a day, every other one of one keyring and action, and have all of them sealed."""
    begin = clock.now()
    for at in range(0, wanted, _AT_ONCE):
        clock.set(begin + (NOW - begin) * (at / wanted))
        with audit_actor(f"API token, user clerk-{at // _AT_ONCE % 50}"):
            await _trail(node).tell(*map(_event, range(at, at + _AT_ONCE)))
        if at % (20 * _AT_ONCE) == 0:
            await node.service.manager.audit.sequenced(timeout_s=_TIMEOUT_S)
    await node.service.manager.audit.checkpoint(timeout_s=_TIMEOUT_S)


def _event(number: int) -> AuditEvent:
    if number % 2:
        return AuditEvent(ACTIONS[0], KEYRING, details={"order": number})
    action = ACTIONS[1 + number // 2 % 2]
    return AuditEvent(action, f"tenant-{number % 1000}", LATEST + number % 5000, {"order": number})


async def _make_first(node: Node) -> None:
    """Make one of each, as the service does."""
    km, store = node.service.manager, _store(node)
    await admin.create_keyring(km, KEYRING)
    await transit_keys.create(km, "", TRANSIT, NewTransitKey())
    await (await node.client(OWNER, Scope.DEVICES_USE)).key(DEVICE)
    await visitor(node)
    await begun(store)
    await node.service.access.approvals.ask(Act(Action.KEY_DESTROY, f"{KEYRING}/1"), ASKER)
    async with store.transaction() as work:
        now = node.service.now()
        await work.count_attempt("", OWNER, SecretKind.PASSCODE, now=now)
        await work.lock_credential("", OWNER, SecretKind.PASSCODE, until=now + timedelta(hours=1))
        await work.put_field(FieldRecord("people.name", KEYRING, None, "sql:sqlite:///people.db#people.name"))
        await work.add_wish(WishRecord("0" * 16, "people.name", WishKind.PLAN, ASKER))
        await work.listen("people.name", "worker", 60_000)
    await admin.declare_use(km, KEYRING, "nightly dump", "app:nightly")


def _copy(place: Place, size: Size) -> None:
    """Copy them."""
    number, at = f"{LATEST} + n", "'2030-05-01T00:00:00.' || (100000 + n % 900000) || 'Z'"
    copies = Copies(place)
    of_keyring = {"name": f"'tenant-' || ({number})", "next_version": f"{size.versions + 1}"}
    copies.make(tables.keyrings, size.keyrings, f"name = '{KEYRING}'", of_keyring)
    of_first = f"keyring = '{KEYRING}' AND version = 1"
    states = "CASE n % 4 WHEN 0 THEN 'pending-destroy' WHEN 1 THEN 'disabled' ELSE 'decrypt-only' END"
    for version in range(1, size.versions + 1):
        of_version = {
            "id": f"{version} * 1000000000000 + n",
            "keyring": f"'tenant-' || ({number})",
            "version": f"{version}",
            "state": "'active'" if version == size.versions else states,
            "destroy_after": "'2030-06-11T00:00:00.000000Z'",
        }
        copies.make(tables.data_keys, size.keyrings, of_first, of_version)
    older = {"id": "1000000 + n", "version": "1 + n", "state": states}
    copies.make(tables.data_keys, size.others, of_first, older)
    copies.run(f"UPDATE keyrings SET next_version = {size.others + 2} WHERE name = '{KEYRING}'")
    of_transit = f"(SELECT keyring FROM transit_keys WHERE name = '{TRANSIT}')"
    names = {"name": f"'transit-' || ({number})"}
    copies.make(tables.keyrings, size.keyrings, f"name = {of_transit}", names)
    its_own = {"id": "99 * 1000000000000 + n", "keyring": names["name"]}
    copies.make(tables.data_keys, size.keyrings, f"keyring = {of_transit}", its_own)
    of_key = {"keyring": names["name"], "name": f"'k' || ({number})"}
    copies.make(tables.transit_keys, size.keyrings, f"name = '{TRANSIT}'", of_key)
    device = f"'d' || ({number})"
    owner = f"CASE n % 2 WHEN 0 THEN '{OWNER}' ELSE 'u' || ({number}) END"
    pair = {"id": f"'key_' || ({number})", "device_id": device, "owner": owner}
    copies.make(tables.client_devices, size.devices, "true", {"device_id": device, "owner": owner})
    copies.make(tables.client_encryption_keys, size.devices, f"device_id = '{DEVICE}'", pair)
    former = {"id": f"'old_' || ({number})", "deprecated": "true", "created_at": at}
    copies.make(tables.client_encryption_keys, size.others, f"device_id = '{DEVICE}'", former)
    user = {"user_id": f"'u' || ({number})", "locked_until": at.replace("05-01T00:00:00", "06-01T14:00:00")}
    copies.make(tables.user_credentials, size.others, f"user_id = '{OWNER}'", user)
    of_other = {"id": f"'j' || ({number})", "field_id": "'people.other'", "created_ms": "created_ms - n"}
    copies.make(tables.reencryptions, size.others, f"id = '{JOB.id}'", of_other | {"state": "'done'"})
    of_field = {"id": f"'people.' || ({number})"}
    copies.make(tables.fields, size.others, "id = 'people.name'", of_field)
    of_wish = {"id": f"'w' || ({number})", "field_id": f"'people.' || ({number})"}
    copies.make(tables.reencryption_wishes, size.others, "field_id = 'people.name'", of_wish)
    ear = {"field_id": f"'people.' || ({number})"}
    copies.make(tables.reencryption_listeners, size.others, "field_id = 'people.name'", ear)
    use = {"keyring": f"'tenant-' || ({number})"}
    copies.make(tables.key_uses, size.others, f"keyring = '{KEYRING}'", use)
    tenant = "CASE n % 2 WHEN 0 THEN 'north' ELSE '' END"
    caller = {"id": f"'c' || ({number})", "tenant": tenant, "created_at": at}
    copies.make(tables.api_tokens, size.others, "subject = 'ada'", caller)
    copies.make(tables.approvals, size.others, f"asked_by = '{ASKER}'", caller)
    copies.make(tables.console_sessions, size.others, "subject = 'ada'", caller)


@dataclass(frozen=True, slots=True)
class Copies:
    """Makes copies of rows, within the database."""

    place: Place

    def make(self, table: Table, wanted: int, of: str, changes: Mapping[str, str]) -> None:
        """Copy the row that a condition finds, with other values in some columns, each an expression over ``n``."""
        same = {column.name: f'"{column.name}"' for column in table.columns}
        self._insert(table, wanted, {**same, **changes}, f"{table.name}, ", f" WHERE {of}")

    def add(self, table: Table, wanted: int, values: Mapping[str, str]) -> None:
        """Insert rows that have these expressions in some columns, and nothing in the others."""
        self._insert(table, wanted, values, "", "")

    def _insert(self, table: Table, wanted: int, values: Mapping[str, str], of: str, where: str) -> None:
        series = f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {wanted})"
        names = ", ".join(f'"{name}"' for name in values)
        self.run(f"INSERT INTO {table.name} ({names}) {series} SELECT {', '.join(values.values())} FROM {of}s{where}")

    def run(self, statement: str) -> None:
        """Run a statement."""
        if self.place.kind == POSTGRESQL:
            execute(self.place.url, statement)
            return
        with closing(sqlite3.connect(self.place.path)) as connection, connection:
            connection.execute(statement)


def forget_what_waits(place: Place) -> None:
    """Have nothing sealed at the end of the node."""
    Copies(place).run("DELETE FROM audit_entries")


def _store(node: Node) -> KeyStore:
    return node.service.manager.require_session().surroundings.store


def _trail(node: Node) -> Trail:
    auditing = node.service.manager.require_session().auditing
    assert auditing is not None
    return auditing.trail
