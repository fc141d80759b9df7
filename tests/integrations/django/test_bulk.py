"""Many objects at once are sealed each for its row, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from keystead.errors import ConflictError, InvalidInputError
from keystead.integrations.django import bulk_create, bulk_update
from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import Animal, Everything, Letter, Member, Org, Person


def test_bulk_create_seals_each_row(app: Application) -> None:
    made = Letter.objects.bulk_create([Letter(subject=f"s{at}", mood=None if at else "glad") for at in range(50)])
    Animal.objects.bulk_create([Animal(name=f"a{at}") for at in range(50)])
    assert [each.subject for each in made] == [f"s{at}" for at in range(50)]
    assert sorted(each.subject for each in Letter.objects.all()) == sorted(f"s{at}" for at in range(50))
    assert Letter.objects.get(subject="s7").mood is None
    assert Animal.objects.get(name="a7").name == "a7"
    assert not [row for row in app.sql("SELECT subject FROM shop_letter") if bytes(row[0]).startswith(b"s")]


def test_bulk_create_meets_rows_that_are_there(app: Application) -> None:
    Everything.objects.bulk_create([Everything(pk=1, char="a"), Everything(pk=2, char="b")])
    Everything.objects.bulk_create([Everything(pk=2, char="c"), Everything(pk=3, char="d")], ignore_conflicts=True)
    assert [each.char for each in Everything.objects.order_by("pk")] == ["a", "b", "d"]
    with pytest.raises(InvalidInputError, match="upsert"):
        Everything.objects.bulk_create(
            [Everything(pk=2, char="e")], update_conflicts=True, update_fields=["char"], unique_fields=["id"]
        )
    assert Everything.objects.get(pk=2).char == "b"


def test_objects_with_words_are_inserted_with_them(app: Application) -> None:
    bulk_create(Person.objects, [Person(email=f"p{at}@example.org", note=f"word{at} tea") for at in range(20)])
    assert Person.objects.get(note__has_token="word7").email == "p7@example.org"
    assert Person.objects.filter(note__has_token="tea").count() == 20
    with pytest.raises(InvalidInputError, match="keep their words"):
        bulk_create(Person.objects, [], ignore_conflicts=True)


def test_bulk_update_writes_values_hashes_and_words(app: Application) -> None:
    for at in range(10):
        Person.objects.create(email=f"old{at}@example.org", note="old", name="x")
    people = list(Person.objects.order_by("pk"))
    for at, person in enumerate(people):
        person.email, person.note, person.name = f"new{at}@example.org", f"new{at}" if at else None, f"y{at}"
    assert bulk_update(Person.objects, people, ["email", "note", "name"], batch_size=3) == 10
    for at in range(10):
        person = Person.objects.get(email=f"new{at}@example.org")
        assert (person.name, person.note) == (f"y{at}", f"new{at}" if at else None)
        assert not Person.objects.filter(email=f"old{at}@example.org").exists()
    assert not Person.objects.filter(note__has_token="old").exists()
    assert Person.objects.get(note__has_token="new3").name == "y3"
    assert bulk_update(Person.objects.all(), people, ["name"]) == 10


def test_bulk_update_refuses_what_would_not_open(app: Application) -> None:
    acme, other = Org.objects.create(name="acme"), Org.objects.create(name="other")
    Member.objects.create(number="m", org=acme, email="eve@example.org")
    member = Member.objects.get()
    member.email = "eva@example.org"
    wrong: dict[str, Any] = {"fields": ["org"], "unknown": ["nothing"]}
    for names in wrong.values():
        with pytest.raises(InvalidInputError):
            bulk_update(Member.objects, [member], names)
    with pytest.raises(InvalidInputError, match="no row"):
        bulk_update(Person.objects, [Person(email="x@example.org")], ["email"])
    app.sql("UPDATE shop_member SET org_id = %s", other.pk)
    with pytest.raises(ConflictError):
        bulk_update(Member.objects, [member], ["email"])
