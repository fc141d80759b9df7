"""The command that re-encrypts is killed in the midst of its work, while the application goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connections

from keystead.integrations.django import bind
from keystead.runtime.loop import background_loop
from tests.fields.test_reencrypt_safety import take_over
from tests.integrations.django.killed_command import manager
from tests.integrations.django.shop.models import Visit

ROOT = Path(__file__).parents[3]
ROWS = 60
DEATHS = [("write", 1), ("commit", 2), ("record", 2), ("commit", 1), ("write", 3)]
PLAIN = "place_plain IS NOT NULL"


def _sql(statement: str) -> list[tuple[Any, ...]]:
    with connections["default"].cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def test_nothing_is_lost_when_the_command_is_killed_again_and_again(database: str, tmp_path: Path) -> None:
    """Rows in clear, rows under the old key, and rows that are edited meanwhile."""
    store = str(tmp_path / "keys.db")
    with manager(store) as km:
        bind(km)
        expected = {each.pk: each.place for each in Visit.objects.bulk_create(_visits(0, ROWS // 2))}
        km.rotate_data_key(promote="now")
        expected |= {each.pk: each.place for each in Visit.objects.bulk_create(_visits(ROWS // 2, ROWS))}
        for pk, place in [*expected.items()][::3]:
            empty = "place = NULL, place_exact_0 = NULL, place_exact_1 = NULL"
            _sql(f"UPDATE shop_visit SET {empty}, place_plain = '{place}' WHERE id = {pk}")
        left = [_sql(f"SELECT count(*) FROM shop_visit WHERE {PLAIN}")[0][0]]
        for turn, (point, batch) in enumerate(DEATHS):
            killed = [sys.executable, "-m", "tests.integrations.django.killed_command", store, database, point]
            command = subprocess.Popen([*killed, str(batch)], cwd=ROOT)
            edited = threading.Thread(target=_edit, args=(expected, turn))
            edited.start()
            edited.join()
            assert command.wait() == -signal.SIGKILL
            background_loop.run(take_over(km._manager))
            left.append(_sql(f"SELECT count(*) FROM shop_visit WHERE {PLAIN}")[0][0])
            assert {each.pk: each.place for each in Visit.objects.all()} == expected
        call_command("keystead_reencrypt", "shop.Visit", verbosity=0)
        assert left == sorted(left, reverse=True), "a value came back in clear"
        assert left[-1] > 0, "no command was left to go on"
        assert _sql(f"SELECT count(*) FROM shop_visit WHERE {PLAIN}") == [(0,)]
        assert {each.pk: each.place for each in Visit.objects.all()} == expected
        assert all(Visit.objects.get(place=place).pk == pk for pk, place in expected.items())
        assert not any(km.needs_reencrypt(bytes(blob)) for (blob,) in _sql("SELECT place FROM shop_visit"))


def _visits(start: int, end: int) -> list[Visit]:
    return [Visit(place=f"place {at}") for at in range(start, end)]


def _edit(expected: dict[int, str], turn: int) -> None:
    """Change a few rows, as a request would, while the command works on them."""
    for pk in [*expected][turn::11]:
        visit = Visit.objects.get(pk=pk)
        visit.place = expected[pk] = f"place {pk}, edited in turn {turn}"
        visit.save()
    connections["default"].close()
