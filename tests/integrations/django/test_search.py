"""A search finds exactly what it asks for, and what ciphertext cannot answer is refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from django.db import IntegrityError, models, transaction
from django.db.models.functions import Lower

from keystead.errors import InvalidInputError
from keystead.integrations.django import of_tenant
from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import Customer, Dog, Everything, Letter, Member, Org, Person, Secret

ADDRESSES = ("Ada@example.org", "bob@example.org", "adam@example.org")


@pytest.fixture
def people(app: Application) -> Application:
    for at, address in enumerate(ADDRESSES):
        Person.objects.create(name=f"{at}", email=address, note=f"likes Tea number {at}" if at else None)
    return app


def found(**lookups: Any) -> list[str]:
    return sorted(each.email for each in Person.objects.filter(**lookups))


def test_each_lookup_finds_what_its_index_covers(people: Application) -> None:
    assert found(email="Ada@example.org") == ["Ada@example.org"]
    assert found(email="ada@example.org") == []
    assert found(email__in=["bob@example.org", "Ada@example.org", "nobody", None]) == [
        "Ada@example.org",
        "bob@example.org",
    ]
    assert found(email__in=[]) == []
    assert found(email__iexact="ADA@EXAMPLE.ORG") == ["Ada@example.org"]
    assert found(email__istartswith="aDa") == ["Ada@example.org", "adam@example.org"]
    assert found(note__has_token="TEA") == ["adam@example.org", "bob@example.org"]
    assert found(note__has_token="2") == ["adam@example.org"]
    assert found(note__isnull=True) == ["Ada@example.org"]
    assert found(note=None) == ["Ada@example.org"]
    assert found(note__isnull=False) == ["adam@example.org", "bob@example.org"]


def test_exclude_and_or_and_relations_lose_no_row(people: Application) -> None:
    Everything.objects.create(char="a")
    Everything.objects.create(char=None)
    Everything.objects.create(char="b")
    assert [each.char for each in Everything.objects.exclude(char="a").order_by("pk")] == [None, "b"]
    assert [each.char for each in Everything.objects.exclude(char__in=["a", "b"])] == [None]
    either = models.Q(email="bob@example.org") | models.Q(email__iexact="ada@example.org")
    assert Person.objects.filter(either).count() == 2
    assert Person.objects.filter(~either).count() == 1
    Letter.objects.create(subject="hello", person=Person.objects.get(email="bob@example.org"))
    assert Letter.objects.get(person__email="bob@example.org").subject == "hello"
    assert not Letter.objects.filter(person__email="Ada@example.org").exists()
    assert Letter.objects.get(person__note__has_token="tea").subject == "hello"
    assert Person.objects.filter(letters__subject="hello", email__istartswith="bob").count() == 1
    within = Person.objects.filter(pk__in=Person.objects.filter(email="bob@example.org"))
    assert [each.email for each in within] == ["bob@example.org"]
    asked = models.Case(models.When(email="bob@example.org", then=1), default=0)
    assert sorted(Person.objects.annotate(is_bob=asked).values_list("is_bob", flat=True)) == [0, 0, 1]
    assert Person.objects.filter(email="bob@example.org").update(name="Bob") == 1
    assert Person.objects.filter(email="bob@example.org").delete()[0] == 6  # himself, his letter, four words


def test_values_of_other_types_are_found_and_converted_as_django_does(app: Application) -> None:
    made = Everything.objects.create(integer=5, flag=False, day=date(2030, 1, 2), code=uuid.UUID(int=7))
    for lookups in (
        {"integer": "5"},
        {"integer": 5},
        {"flag": "False"},
        {"day": "2030-01-02"},
        {"code": str(uuid.UUID(int=7))},
    ):
        assert Everything.objects.get(**lookups) == made
    assert Customer.objects.create(code="c", phone="+41 (44) 123") == Customer.objects.get(phone__iexact="+4144123")
    Dog.objects.create(name="rex", chip="1")
    assert Dog.objects.get(name="rex", chip="1").name == "rex"
    Secret.objects.create(shop="s", number=1, remark="psst")
    assert Secret.objects.get(remark="psst").number == 1


def test_a_unique_value_is_a_conflict(people: Application) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Person.objects.create(email="bob@example.org")
    with pytest.raises(IntegrityError), transaction.atomic():
        ada = Person.objects.get(email="Ada@example.org")
        ada.email = "bob@example.org"
        ada.save()
    assert Person.objects.count() == 3


def test_a_tenants_values_are_found_among_its_own(app: Application) -> None:
    acme, other = Org.objects.create(name="acme"), Org.objects.create(name="other")
    for at, org in enumerate((acme, other)):
        Member.objects.create(number=f"m{at}", org=org, email="eve@example.org")
    assert Member.objects.get(email=of_tenant("eve@example.org", acme)).number == "m0"
    assert Member.objects.get(email=of_tenant("eve@example.org", other.pk)).number == "m1"
    assert Member.objects.get(email__in=of_tenant(["eve@example.org"], acme)).number == "m0"
    assert Member.objects.get(email__has_token=of_tenant("eve", acme)).number == "m0"
    with pytest.raises(InvalidInputError, match="of_tenant"):
        Member.objects.filter(email="eve@example.org")
    with pytest.raises(InvalidInputError, match="no tenants"):
        Person.objects.filter(email=of_tenant("x", acme))
    with pytest.raises(IntegrityError), transaction.atomic():
        Member.objects.create(number="m2", org=acme, email="eve@example.org")


def _refused() -> dict[str, Callable[[], Any]]:
    people = Person.objects
    return {
        "contains": lambda: people.filter(email__contains="a"),
        "icontains": lambda: people.filter(email__icontains="a"),
        "regex": lambda: people.filter(email__regex="a"),
        "startswith": lambda: people.filter(email__startswith="ada"),
        "another length": lambda: people.filter(email__istartswith="ad").count(),
        "greater": lambda: people.filter(email__gt="a"),
        "range": lambda: people.filter(email__range=("a", "b")),
        "no index": lambda: people.filter(note="x"),
        "two words": lambda: people.filter(note__has_token="two words"),
        "transform": lambda: people.filter(profile__key="x"),
        "in of a query": lambda: people.filter(email__in=people.values("email")),
        "f on the right": lambda: people.filter(email=models.F("name")),
        "f on the left": lambda: list(people.filter(name=models.F("email"))),
        "order_by": lambda: list(people.order_by("email")),
        "order_by reversed": lambda: list(people.order_by("-email")),
        "order_by selected": lambda: list(people.values("email", "pk").order_by("email")),
        "order_by an expression": lambda: list(people.values("email", "pk").order_by(models.F("email").desc())),
        "order_by relation": lambda: list(Letter.objects.order_by("person__email")),
        "order_by alias": lambda: list(people.annotate(e=models.F("email")).order_by("e")),
        "latest": lambda: people.latest("email"),
        "max": lambda: people.aggregate(models.Max("email")),
        "max of a slice": lambda: people.all()[:2].aggregate(models.Max("email")),
        "annotated max": lambda: list(people.annotate(e=models.Max("email"))),
        "function": lambda: list(people.annotate(e=Lower("email"))),
        "count distinct": lambda: people.aggregate(models.Count("email", distinct=True)),
        "group by": lambda: list(people.values("email").annotate(n=models.Count("pk"))),
        "distinct": lambda: list(people.values("email").distinct()),
        "union": lambda: list(people.values("email").union(people.values("email"))),
        "intersection": lambda: list(people.values("email").intersection(people.values("email"))),
        "union of other columns": lambda: list(people.values("email").union(people.values("note"), all=True)),
        "union with objects": lambda: list(people.only("email").union(people.values("email", "pk"))),
        "distinct alias": lambda: list(people.annotate(e=models.F("email")).values("e").distinct()),
        "dates": lambda: list(Everything.objects.dates("day", "year")),
        "datetimes": lambda: list(Everything.objects.datetimes("moment", "year")),
        "update": lambda: people.update(email="x@example.org"),
        "update to nothing": lambda: people.update(note=None),
        "update by another": lambda: people.update(email=models.F("name")),
        "update of another": lambda: people.update(name=models.F("email")),
        "update by a value": lambda: people.update(email=models.Value("x")),
        "bulk_update": lambda: people.bulk_update(list(people.all()), ["email"]),
        "bulk_create with words": lambda: people.bulk_create([Person(email="n@example.org", note="w")]),
        "assigned expression": lambda: setattr(people.first(), "email", models.F("name")),
        "isnull of encrypted nulls": lambda: list(Secret.objects.filter(remark=None)),
    }


def test_what_needs_the_plain_values_is_refused(people: Application, subtests: pytest.Subtests) -> None:
    before = people.sql("SELECT email, name FROM shop_person ORDER BY id")
    for name, ask in _refused().items():
        with subtests.test(name):
            with pytest.raises(InvalidInputError) as caught:
                ask()
            assert "bob@example" not in str(caught.value)
            assert people.sql("SELECT email, name FROM shop_person ORDER BY id") == before


def test_what_names_the_row_along_is_not_refused(people: Application) -> None:
    assert len(list(Person.objects.values("email", "pk").distinct())) == 3
    assert len(list(Person.objects.values("pk", "email").annotate(n=models.Count("letters")))) == 3
    assert Person.objects.annotate(n=models.Count("letters")).order_by("n", "name").first().email == "Ada@example.org"
    assert Person.objects.distinct().count() == 3
    latest = Letter.objects.filter(person=models.OuterRef("pk")).values("subject")[:1]
    Letter.objects.create(subject="s", person=Person.objects.get(name="0"))
    annotated = Person.objects.annotate(subject=models.Subquery(latest)).get(name="0")
    assert annotated.subject.decrypt(record=Letter.objects.get().pk) == "s"
