"""What a statement reads is seen, however little time it takes, and one that reads a whole table is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Select, func, select, text

from keystead.stores.prepared import Prepared
from keystead.stores.schema import migrate
from keystead.stores.sql import SqlKeyStore
from keystead.stores.tables import client_devices
from keystead.stores.transaction import Statements as Runs
from soak.console_rows import Copies
from soak.places import POSTGRESQL, SQLITE, Place, execute
from soak.statements import watched

ROWS: Final = 20_000
_DEVICES: Final = client_devices.c
BOUNDED: Final[dict[str, Select[Any]]] = {
    "a page by the key": select(client_devices).where(_DEVICES.tenant == "").order_by(_DEVICES.device_id).limit(51),
    "a page further in": select(client_devices)
    .where(_DEVICES.tenant == "", _DEVICES.device_id > f"d{1_000_000 + ROWS // 2}")
    .order_by(_DEVICES.device_id)
    .limit(51),
    "a count up to a number": select(func.count()).select_from(
        select(text("1")).select_from(client_devices).limit(1000).subquery()
    ),
}
UNBOUNDED: Final[dict[str, Select[Any]]] = {
    "a count": select(func.count()).select_from(client_devices),
    "a search that finds nothing": select(client_devices).where(text("created_at = 'never'")).limit(51),
    "a page in an order without an index": select(client_devices).order_by(_DEVICES.created_at).limit(51),
    "a page that leaves out those before": select(client_devices)
    .order_by(_DEVICES.device_id)
    .offset(ROWS - 1)
    .limit(1),
}


class Reader(Runs):
    """Runs what a test makes up, by both ways there are."""

    async def read(self, query: Select[Any]) -> None:
        """Run a query as it is made for one use, and as those on the way of every request are."""
        await self._tuples(query)
        prepared = Prepared(query)
        for _ in range(2):
            await self._run(prepared, {}, writes=False)


async def read_by(place: Place, query: Select[Any]) -> list[int]:
    """Return what a query reads, each time that it runs."""
    with watched(place) as statements:
        store = SqlKeyStore(place.url)
        async with store._connections.begin(is_writing=False) as connection:
            with statements.noted() as seen:
                await Reader(connection, is_writing=False).read(query)
        await store.aclose()
    return [each.read for each in seen]


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A store with devices."""
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    made = Place(
        request.param, request.getfixturevalue("postgres_url") if request.param == POSTGRESQL else url, tmp_path
    )
    migrate(made.url)
    device = {"tenant": "''", "device_id": "'d' || (1000000 + n)", "created_at": "'2030-01-01T00:00:00.000000Z'"}
    Copies(made).add(client_devices, ROWS, device)
    if made.kind == POSTGRESQL:
        execute(made.url, "VACUUM ANALYZE client_devices")
    return made


@pytest.mark.parametrize("name", BOUNDED)
async def test_what_reads_a_page_reads_little_of_a_long_table(place: Place, name: str) -> None:
    read = await read_by(place, BOUNDED[name])
    assert len(read) == 3
    assert max(read) < ROWS


@pytest.mark.parametrize("name", UNBOUNDED)
async def test_what_reads_all_of_a_table_is_found_out(place: Place, name: str) -> None:
    read = await read_by(place, UNBOUNDED[name])
    assert len(read) == 3
    assert min(read) >= ROWS
