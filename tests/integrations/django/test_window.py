"""A column of plain values is encrypted while the application reads, searches and writes it."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from keystead.errors import InvalidInputError
from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import Visit


@pytest.fixture
def visits(app: Application) -> Application:
    for at in range(4):
        key = "gen_random_uuid()" if app.url.startswith("postgresql") else f"'0000000000004000800000000000000{at}'"
        app.sql(f"INSERT INTO shop_visit (place_plain, keystead_row) VALUES (%s, {key})", f"place {at}")
    Visit.objects.create(place="sealed")
    return app


def test_values_in_clear_and_sealed_ones_are_read_and_found_alike(visits: Application) -> None:
    assert [each.place for each in Visit.objects.order_by("pk")] == [*(f"place {at}" for at in range(4)), "sealed"]
    for name in ("place 2", "sealed"):
        assert Visit.objects.get(place=name).place == name
        assert Visit.objects.exclude(place=name).count() == 4
    assert Visit.objects.filter(place__in=["place 0", "sealed", "nowhere"]).count() == 2
    assert Visit.objects.filter(place__isnull=True).count() == 0
    assert Visit.objects.filter(place__isnull=False).count() == 5
    assert Visit.objects.only("place").get(place="place 1").place == "place 1"
    assert Visit.objects.defer("place_plain").get(place="place 1").place == "place 1"


def test_whatever_is_saved_is_sealed_and_leaves_nothing_in_clear(visits: Application) -> None:
    one, two, three = Visit.objects.filter(place__in=["place 0", "place 1", "place 2"]).order_by("pk")
    one.save()
    two.place = "elsewhere"
    two.save(update_fields=["place"])
    three.place = None
    three.save()
    Visit(place="new").save()
    Visit.objects.bulk_create([Visit(place="bulk")])
    assert sorted(str(each.place) for each in Visit.objects.all()) == [
        "None", "bulk", "elsewhere", "new", "place 0", "place 3", "sealed"
    ]  # fmt: skip
    assert visits.sql("SELECT place_plain FROM shop_visit WHERE place_plain IS NOT NULL") == [("place 3",)]
    assert Visit.objects.get(place="place 0") == one
    for name in ("place 1", "place 2"):
        assert not Visit.objects.filter(place=name).exists()


def test_nobody_writes_values_in_clear(visits: Application) -> None:
    visit = Visit.objects.get(place="place 0")
    with pytest.raises(InvalidInputError, match="written by no one"):
        visit.place_plain = "other"
    made = Visit(place_plain="new")
    made.save()
    assert Visit.objects.get(place="new") == made
    assert visits.sql("SELECT count(*) FROM shop_visit WHERE place_plain = 'new'") == [(0,)]


def test_re_encryption_ends_it(visits: Application) -> None:
    stale: Any = Visit.objects.get(place="place 3")
    call_command("keystead_reencrypt", "shop.Visit", verbosity=0)
    assert visits.sql("SELECT count(place), count(place_plain), count(place_exact_1) FROM shop_visit") == [(5, 0, 5)]
    assert sorted(each.place for each in Visit.objects.all()) == [*(f"place {at}" for at in range(4)), "sealed"]
    stale.save()
    assert Visit.objects.get(place="place 3").place == "place 3"
    connections["default"].close()
