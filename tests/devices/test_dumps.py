"""What somebody with a copy of the whole database finds in it: nothing that opens anything."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from keystead.devices.pairs import Pair, make_pair
from keystead.ports import KeyStore, PairKind
from keystead.stores.tables import metadata
from tests.devices.room import ADA, PIN, Client, devices, upkeep
from tests.devices.test_altered_rows import alter
from tests.fakes.world import World
from tests.stores.test_metric_rows import rows

PREFIXES: Final = (
    bytes.fromhex("020100300d06092a864886f70d01010105000482"),
    bytes.fromhex("302e020100300506032b656e04220420"),
    b"PRIVATE KEY",
)
"""With which a private half begins, in DER of RSA and of X25519, and in PEM."""


async def dump(store: KeyStore, folder: Path) -> bytes:
    """Return every value of every row, and every file of a store that is kept in files."""
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    for table in metadata.sorted_tables:
        for row in await rows(store, table):
            found += [value if isinstance(value, bytes) else str(value).encode() for value in row.values()]
    return b"\n".join(found)


def is_in(dumped: bytes, secret: bytes) -> bool:
    """Return whether something is in a dump, as it is, in hexadecimal or in base64 at any place."""
    forms = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    forms += [base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3)]
    return any(form in dumped for form in forms)


async def test_a_dump_of_the_store_has_no_private_half_and_no_secret(world: World, tmp_path: Path) -> None:
    made: list[Pair] = []

    def make(kind: PairKind) -> Pair:
        made.append(make_pair(kind))
        return made[-1]

    async with world.open(audit=True) as km:
        room = await devices(km, make_pair=make)
        await room.keys.generate(ADA, "laptop", kind=PairKind.RSA_2048)
        await (await upkeep(km, make_pair=make)).fill(PairKind.X25519, 2)
        ada = await Client.of(room)
        await ada.set("correct horse battery staple")
        await ada.set("915046273815", PIN)
        assert await ada.is_right("915046273815", PIN)
        await room.metrics.flush()
        dumped = await dump(world.store, tmp_path)
        assert len(made) == 3
        assert ada.key.id.encode() in dumped
        for hidden in (*PREFIXES, b"correct horse", b"915046273815"):
            assert not is_in(dumped, hidden)
        for pair in made:
            assert not is_in(dumped, bytes(pair.private[-32:]))
        # And it would be found.
        await alter(world, app_version=base64.b64encode(made[0].private[-32:]).decode())
        assert is_in(await dump(world.store, tmp_path), bytes(made[0].private[-32:]))
