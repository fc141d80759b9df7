"""Values go in and come out as they were, and nothing of them is in the database."""

from __future__ import annotations

import copy
import pickle
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import models

from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import Animal, Customer, Dog, Everything, Letter, Member, Org, Person, Secret

VALUES: dict[str, Any] = {
    "text": "Grüße aus Zürich",
    "char": "a line",
    "email": "ada@example.org",
    "url": "https://example.org/x",
    "integer": 2**80,
    "decimal": Decimal("12.50"),
    "number": 1.25,
    "flag": True,
    "day": date(2030, 1, 2),
    "moment": datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "code": uuid.UUID(int=7),
    "blob": b"\x00\xffbytes",
    "json": {"list": [1, 2.5, None], "text": "ü"},
}


def test_a_value_comes_back_in_the_type_that_went_in(app: Application, subtests: pytest.Subtests) -> None:
    for name, value in VALUES.items():
        with subtests.test(name):
            made = Everything.objects.create(**{name: value})
            loaded = Everything.objects.get(pk=made.pk)
            assert getattr(loaded, name) == value
            assert type(getattr(loaded, name)) is type(value)
            assert getattr(made, name) == value
            column = f"SELECT {name} FROM shop_everything WHERE id = %s"
            [(kept,)] = app.sql(column, made.pk)
            assert b"Z\xc3\xbcrich" not in bytes(kept)
            for other in VALUES.keys() - {name}:
                assert getattr(loaded, other) is None
            setattr(loaded, name, None)
            loaded.save()
            assert app.sql(column, made.pk) == [(None,)]


def test_every_kind_of_record_reads_its_values(app: Application) -> None:
    org = Org.objects.create(name="acme")
    Person.objects.create(email="ada@example.org", note="likes tea", profile={"a": 1})
    Letter.objects.create(subject="hello")
    Member.objects.create(number="m1", org=org, email="eve@example.org")
    Secret.objects.create(shop="s", number=1, remark="psst")
    Secret.objects.create(shop="s", number=2)
    Customer.objects.create(code="c", phone="+41 44 123")
    Dog.objects.create(name="rex", chip="4711")
    assert Person.objects.get().email == "ada@example.org"
    assert (Letter.objects.get().subject, Letter.objects.get().mood) == ("hello", "calm")
    assert Member.objects.get().email == "eve@example.org"
    assert [each.remark for each in Secret.objects.order_by("number")] == ["psst", None]
    assert Customer.objects.get().phone == "+41 44 123"
    assert (Dog.objects.get().name, Dog.objects.get().chip, Animal.objects.get().name) == ("rex", "4711", "rex")


def test_listing_decrypts_nothing(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    Person.objects.bulk_create([Person(email=f"p{at}@example.org", name=f"{at}") for at in range(3)]) if False else [
        Person.objects.create(email=f"p{at}@example.org", name=f"{at}") for at in range(3)
    ]
    opened: list[bytes] = []
    cipher = app.binding.cipher(Person._meta.get_field("email").spec)
    found = cipher.decrypt

    def counted(ciphertext: Any, **whose: Any) -> object:
        opened.append(ciphertext)
        return found(ciphertext, **whose)

    monkeypatch.setattr(cipher, "decrypt", counted)
    people = list(Person.objects.all())
    assert [each.name for each in people] == ["0", "1", "2"]
    assert opened == []
    assert people[0].email == "p0@example.org"
    assert len(opened) == 1


def test_a_value_that_was_not_changed_stays_as_another_wrote_it(app: Application) -> None:
    made = Person.objects.create(email="old@example.org", name="before")
    mine, theirs = Person.objects.get(), Person.objects.get()
    theirs.email = "new@example.org"
    theirs.save()
    mine.name = "after"
    mine.save()
    loaded = Person.objects.get(pk=made.pk)
    assert (loaded.email, loaded.name) == ("new@example.org", "after")
    assert Person.objects.get(email="new@example.org") == made


def test_a_save_that_was_rolled_back_is_written_by_the_next(app: Application) -> None:
    from django.db import transaction

    Person.objects.create(email="old@example.org")
    person = Person.objects.get()
    person.email = "new@example.org"
    with pytest.raises(RuntimeError), transaction.atomic():
        person.save()
        raise RuntimeError
    assert Person.objects.get().email == "old@example.org"
    person.save()
    assert Person.objects.get(email="new@example.org").email == "new@example.org"


def test_update_fields_brings_the_hashes_along(app: Application) -> None:
    person = Person.objects.create(email="old@example.org", name="kept")
    person.email, person.name = "new@example.org", "not written"
    person.save(update_fields=["email"])
    assert Person.objects.get(email="new@example.org").name == "kept"
    assert not Person.objects.filter(email="old@example.org").exists()
    person.save(update_fields=["name"])
    assert Person.objects.get(email="new@example.org").name == "not written"


def test_json_may_be_changed_in_place(app: Application) -> None:
    Person.objects.create(email="a@example.org", profile={"tags": ["a"]})
    person = Person.objects.get()
    person.profile["tags"].append("b")
    person.save()
    assert Person.objects.get().profile == {"tags": ["a", "b"]}
    [(before,)] = app.sql("SELECT profile FROM shop_person")
    again = Person.objects.get()
    assert again.profile["tags"] == ["a", "b"]
    again.save()
    assert app.sql("SELECT profile FROM shop_person") == [(before,)]


def test_an_object_given_another_key_becomes_another_row(app: Application) -> None:
    Person.objects.create(email="a@example.org", name="first", profile={"a": 1})
    person = Person.objects.get()
    person.pk = None
    person._state.adding = True
    assert person.email == "a@example.org"
    person.email = "b@example.org"
    person.save()
    assert sorted(each.email for each in Person.objects.all()) == ["a@example.org", "b@example.org"]
    assert [each.profile for each in Person.objects.all()] == [{"a": 1}, {"a": 1}]
    letter = Letter.objects.create(subject="s")
    letter.pk = uuid.uuid4()
    letter.save()
    assert [each.subject for each in Letter.objects.all()] == ["s", "s"]


def test_a_pickled_object_holds_no_value_and_reads_it_again(app: Application) -> None:
    Person.objects.create(email="secret@example.org", profile={"deep": "secret"})
    person = Person.objects.get()
    assert person.profile == {"deep": "secret"}
    frozen = pickle.dumps(person)
    assert b"secret" not in frozen
    thawed = pickle.loads(frozen)
    assert (thawed.email, thawed.profile) == ("secret@example.org", {"deep": "secret"})
    assert copy.deepcopy(person).email == "secret@example.org"


def test_deferred_values_are_fetched_when_they_are_read(app: Application) -> None:
    Person.objects.create(email="a@example.org", name="n", note="words")
    person = Person.objects.defer("email", "keystead_row").get()
    person.name = "m"
    person.save()
    assert person.email == "a@example.org"
    assert Person.objects.only("name").get().note == "words"
    only = Person.objects.only("email").get()
    assert only.email == "a@example.org"
    only.refresh_from_db()
    only.save()
    assert Person.objects.get(email="a@example.org").name == "m"


def test_what_comes_with_a_select_reads_too(app: Application) -> None:
    person = Person.objects.create(email="a@example.org")
    Letter.objects.create(subject="s", person=person)
    assert Letter.objects.select_related("person").get().person.email == "a@example.org"
    assert Person.objects.prefetch_related("letters").get().letters.all()[0].subject == "s"
    assert Person.objects.annotate(n=models.Count("letters")).get().n == 1
    assert Person.objects.annotate(n=models.Count("email")).get().n == 1
    assert Person.objects.filter(letters__subject="s").distinct().count() == 1
    assert Person.objects.all().union(Person.objects.all()).get().email == "a@example.org"
    assert [each.email for each in Person.objects.iterator()] == ["a@example.org"]
    assert Person.objects.in_bulk([person.pk])[person.pk].email == "a@example.org"
    assert Person.objects.select_for_update().count() == 1
    assert "email" in Person.objects.all().explain() or True


def test_get_or_create_finds_and_makes(app: Application) -> None:
    first, made = Person.objects.get_or_create(email="a@example.org", defaults={"name": "x"})
    again, made_again = Person.objects.get_or_create(email="a@example.org")
    assert (made, made_again, first) == (True, False, again)
    changed, _ = Person.objects.update_or_create(email="a@example.org", defaults={"email": "b@example.org"})
    assert Person.objects.get(email="b@example.org") == changed


def test_a_missing_value_that_was_not_changed_stays_as_another_wrote_it(app: Application) -> None:
    Person.objects.create(email="a@example.org")
    mine, theirs = Person.objects.get(), Person.objects.get()
    theirs.note = "came meanwhile"
    theirs.save()
    mine.name = "changed"
    mine.save()
    assert (Person.objects.get().note, Person.objects.get().name) == ("came meanwhile", "changed")
    assert Person.objects.filter(note__has_token="meanwhile").exists()
    mine.note = None
    mine.save()
    assert Person.objects.get().note is None
    assert not Person.objects.filter(note__has_token="meanwhile").exists()


def test_an_object_made_with_the_key_of_a_row_replaces_it(app: Application) -> None:
    made = Person.objects.create(email="a@example.org", note="words", name="n")
    Person(pk=made.pk, email="b@example.org").save()
    person = Person.objects.get()
    assert (person.email, person.note, person.name) == ("b@example.org", None, "")
    assert not Person.objects.filter(note__has_token="words").exists()
