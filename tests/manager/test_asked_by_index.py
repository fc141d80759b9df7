"""What a page of the console asks about a whole store is answered from indexes, however many keys there are."""

from __future__ import annotations

import re

from keystead.fields.standing import newest_reencryptions
from keystead.manager.access import access
from keystead.manager.admin import store_status
from keystead.manager.attention import attention
from keystead.manager.devices import devices
from keystead.manager.key_listing import active_by_date
from keystead.model import Principal, RotationPolicy
from tests.fakes.world import World, raw

_GROWING = ("data_keys", "reencryption_chunks", "reencryptions")


async def test_a_part_of_a_list_is_read_through_an_index(world: World) -> None:
    asked: list[str] = []
    async with world.open() as km:
        room, owners, ada = await access(km), (await devices(km)).owners, Principal("ada")
        await (await devices(km)).keys.generate(ada, "phone")
        [known] = await owners.client_keys(ada, "phone")
        database = raw(world.store)
        database.set_trace_callback(asked.append)
        for tenant in (None, "north"):
            for place in (None, ("2030", "0")):
                await room.tokens.all(tenant=tenant, after=place, limit=10)
                await room.sessions.all(tenant=tenant, after=place, limit=10)
                await room.approvals.all(tenant=tenant, after=place, limit=10)
        for field in (None, "people.email"):
            for before in (None, (1, "0")):
                await newest_reencryptions(km, field, before=before, limit=10)
        await owners.client_keys(ada, "phone", after=known.id)
        database.set_trace_callback(None)
        plans = [
            (statement, detail)
            for statement in asked
            if statement.startswith("SELECT") and "LIMIT" in statement
            for *_, detail in database.execute(f"EXPLAIN QUERY PLAN {statement}")
        ]
    assert len({statement for statement, _ in plans}) >= 17
    # The first part is where an index begins; where a later one begins has to be searched.
    slow = [
        (statement, detail)
        for statement, detail in plans
        if detail.startswith("USE TEMP B-TREE FOR ORDER BY")
        or re.match(r"SCAN\b" if "<" in statement else r"SCAN (?!.* USING .*INDEX)", detail)
    ]
    assert slow == []


async def test_no_statement_about_the_whole_store_reads_a_table_from_end_to_end(world: World) -> None:
    asked: list[str] = []
    async with world.open(rotation_policy=RotationPolicy(max_messages=10)) as km:
        database = raw(world.store)
        database.set_trace_callback(asked.append)
        await attention(km)
        await store_status(km, lists_leaving=False)
        await active_by_date(km, (0, 1), limit=10)
        database.set_trace_callback(None)
        plans = [
            (statement, detail)
            for statement in asked
            if statement.lstrip().upper().startswith(("SELECT", "WITH"))
            for *_, detail in database.execute(f"EXPLAIN QUERY PLAN {statement}")
        ]
    assert sum("data_keys" in detail for _, detail in plans) >= 8
    scans = [plan for plan in plans if re.match(rf"SCAN ({'|'.join(_GROWING)})\b(?!.* USING .*INDEX)", plan[1])]
    assert scans == []
