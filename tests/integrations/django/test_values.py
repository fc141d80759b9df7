"""``values()`` and ``values_list()`` give plain values, each of its own row; nobody sees a packed one."""

from __future__ import annotations

import pickle
import uuid
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connections, models
from django.db.models.functions import RowNumber
from django.test.utils import CaptureQueriesContext, isolate_apps

from keystead import blocking
from keystead.errors import ConfigurationError, DecryptionError, InvalidInputError, SubjectErasedError
from keystead.fields import Encrypted, FieldCipher
from keystead.integrations.django import EncryptedCharField, bind, binding
from keystead.testing import FakeKMS
from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import (
    Animal,
    Customer,
    Dog,
    Everything,
    Finding,
    Letter,
    Member,
    Org,
    Patient,
    Person,
    Secret,
    Visit,
)


@pytest.fixture
def people(app: Application) -> Application:
    for at in range(3):
        Person.objects.create(name=f"n{at}", email=f"p{at}@example.org", note=None if at else "words")
    return app


def test_values_in_every_form_are_plain(people: Application) -> None:
    emails = [f"p{at}@example.org" for at in range(3)]
    rows = Person.objects.order_by("pk")
    assert list(rows.values_list("email", flat=True)) == emails
    assert list(rows.values("email")) == [{"email": each} for each in emails]
    assert list(rows.values_list("note", "name")) == [("words", "n0"), (None, "n1"), (None, "n2")]
    assert [(each.email, each.pk) for each in rows.values_list("email", "pk", named=True)] == [
        (each.email, each.pk) for each in rows
    ]
    assert sorted(Person.objects.values_list("email", flat=True)) == emails
    assert list(rows.values_list("email", flat=True).iterator(chunk_size=1)) == emails
    assert rows.values_list("email", flat=True).get(email="p1@example.org") == emails[1]
    assert rows.values_list("email", flat=True).last() == emails[2]
    assert list(rows.values_list("email", flat=True)[1:]) == emails[1:]
    assert [row["email"] for row in rows.values()] == emails
    assert list(rows.values_list(models.F("email"), flat=True)) == emails
    assert list(rows.annotate(e=models.F("email")).values_list("e", "name")) == [
        (each, f"n{at}") for at, each in enumerate(emails)
    ]
    assert list(rows.values(e=models.F("email"))) == [{"e": each} for each in emails]
    assert list(rows.values_list("email", flat=True).filter(name="n0")) == emails[:1]


def test_every_type_is_read_as_its_attribute_gives_it(app: Application) -> None:
    Everything.objects.create(
        text="%s ü \x01", char="c", email="a@example.org", url="https://example.org", integer=2**70, decimal="1.10",
        number=0.1, flag=False, day=date(2024, 2, 29), moment="2024-02-29T12:00:00Z", code=uuid.uuid4(), blob=b"\0=.-",
        json={"a": [1, None]},
    )  # fmt: skip
    [row] = Everything.objects.values()
    found = Everything.objects.get()
    for field in Everything._meta.concrete_fields:
        assert row[field.attname] == getattr(found, field.attname), field.name


def test_every_kind_of_record_and_tenant_is_told(app: Application) -> None:
    letter = Letter.objects.create(subject="of a uuid")
    acme, other = Org.objects.create(name="acme"), Org.objects.create(name="other")
    Member.objects.create(number="no. '1'%s", org=acme, email="eve@example.org")
    Member.objects.create(number=".-=", org=other, email="eva@example.org")
    Secret.objects.create(shop="sh.op", number=-7, remark="two columns")
    Secret.objects.create(shop="sh.op", number=8, remark=None)
    Customer.objects.create(code="c", phone="+41 44 123")
    Dog.objects.create(name="rex", chip="77")
    assert list(Letter.objects.values_list("subject", "mood", "pk")) == [("of a uuid", "calm", letter.pk)]
    assert sorted(Member.objects.values_list("email", flat=True)) == ["eva@example.org", "eve@example.org"]
    assert Secret.objects.order_by("number").values_list("remark", flat=True)[0] == "two columns"
    assert Secret.objects.filter(number=8).values_list("remark", flat=True).get() is None
    assert Customer.objects.values_list("phone", flat=True).get() == "+41 44 123"
    assert list(Dog.objects.values("name", "chip")) == [{"name": "rex", "chip": "77"}]
    assert list(Animal.objects.values_list("dog__chip", "name")) == [("77", "rex")]


def test_dates_and_bytes_name_records_too(app: Application) -> None:
    with isolate_apps("tests.integrations.django.shop"):

        class Day(models.Model):
            on = models.DateField()
            key = models.BinaryField()
            remark = EncryptedCharField(record=("on", "key"))

            class Meta:
                app_label = "shop"

        with connections["default"].schema_editor() as editor:
            editor.create_model(Day)
        Day.objects.create(on=date(2024, 2, 29), key=b"\0.", remark="leap")
        if app.url.startswith("postgresql"):
            app.sql("SET DateStyle TO 'German, DMY'")
        assert Day.objects.values_list("remark", flat=True).get() == "leap"


def test_a_value_is_of_the_row_of_its_own_table(people: Application) -> None:
    for person in Person.objects.order_by("-pk"):
        Letter.objects.create(subject=f"to {person.name}", person=person)
    Letter.objects.create(subject="to nobody")
    rows = Letter.objects.order_by("person__name").values_list("subject", "person__email", "person__name")
    assert [row for row in rows if row[2]] == [(f"to n{at}", f"p{at}@example.org", f"n{at}") for at in range(3)]
    assert [row[:2] for row in rows if not row[2]] == [("to nobody", None)]
    both = Person.objects.filter(letters__subject="to n1").values_list("letters__person__email", "email")
    assert list(both) == [("p1@example.org", "p1@example.org")]


def test_ciphertext_of_another_row_does_not_open(people: Application) -> None:
    people.sql("UPDATE shop_person SET email = (SELECT email FROM shop_person WHERE name = 'n0')")
    assert Person.objects.filter(name="n0").values_list("email", flat=True).get() == "p0@example.org"
    with pytest.raises(DecryptionError):
        list(Person.objects.filter(name="n1").values_list("email", flat=True))


def test_what_somebody_stored_is_never_taken_for_packed(people: Application) -> None:
    """A row must not choose whose value it shows: not by bytes, and not by a text, which SQLite would keep."""
    list(Person.objects.values_list("email", flat=True))
    with CaptureQueriesContext(connections["default"]) as done:
        list(Person.objects.filter(name="n0").values("email"))
    packed = people.sql(done[0]["sql"])[0][0]
    forged = packed if people.url.startswith("sqlite") else bytes(packed)
    people.sql("UPDATE shop_person SET email = %s WHERE name = 'n1'", forged)
    reads: dict[str, Any] = {
        "object": lambda: Person.objects.get(name="n1").email,
        "values": lambda: Person.objects.filter(name="n1").values_list("email", flat=True).get(),
        "raw": lambda: Person.objects.raw("SELECT * FROM shop_person WHERE name = 'n1'")[0].email,
    }
    for read in reads.values():
        with pytest.raises(DecryptionError):
            read()


def test_objects_are_loaded_without_opening_anything(people: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **options: Any) -> Any:
        raise AssertionError("opened a value")

    rows = Person.objects.values_list("email", flat=True)
    list(rows)
    monkeypatch.setattr(FieldCipher, "decrypt", refuse)
    assert len(list(Person.objects.all())) == len(list(Person.objects.raw("SELECT * FROM shop_person"))) == 3
    assert (rows.count(), rows.all()[:2].count(), rows.exists()) == (3, 2, True)
    assert Person.objects.filter(models.Exists(rows)).count() == 3
    assert len(list(Person.objects.annotate(e=models.F("email")))) == 3
    with CaptureQueriesContext(connections["default"]) as done:
        list(Person.objects.all())
    assert "coalesce" not in done[0]["sql"]


def test_inside_a_statement_a_value_stays_ciphertext(people: Application) -> None:
    person = Person.objects.order_by("pk")[0]
    latest = Letter.objects.filter(person=models.OuterRef("pk")).values("subject")[:1]
    Letter.objects.create(subject="s", person=person)
    list(Letter.objects.values("subject"))
    annotated = Person.objects.annotate(subject=models.Subquery(latest)).get(pk=person.pk)
    [row] = Person.objects.filter(pk=person.pk).annotate(subject=models.Subquery(latest)).values("subject", "email")
    assert row["email"] == person.email
    for box in (annotated.subject, row["subject"], Letter.objects.annotate(box=models.F("subject")).get().box):
        assert isinstance(box, Encrypted)
        assert box.decrypt(record=Letter.objects.get().pk) == "s"
        with pytest.raises(InvalidInputError, match="without its row"):
            box.decrypt()
    with CaptureQueriesContext(connections["default"]) as done:
        assert not Person.objects.filter(profile__isnull=False, pk__in=Letter.objects.values("person")).exists()
        assert Person.objects.filter(models.Exists(Person.objects.values("email"))).count() == 3
    assert "coalesce" not in str(done.captured_queries)


def test_rows_are_told_apart_by_their_keys(people: Application) -> None:
    emails = {f"p{at}@example.org" for at in range(3)}
    assert {row["email"] for row in Person.objects.values("email", "pk").distinct()} == emails
    counted = Person.objects.values("pk", "email").annotate(n=models.Count("letters"))
    assert {(row["email"], row["n"]) for row in counted} == {(each, 0) for each in emails}
    later = Person.objects.annotate(n=models.Count("letters")).values_list("email", "n")
    assert set(later) == {(each, 0) for each in emails}
    assert counted.count() == 3


def test_a_union_of_all_gives_plain_values(people: Application) -> None:
    one, two = (Person.objects.filter(name=name) for name in ("n0", "n1"))
    emails = ["p0@example.org", "p1@example.org"]
    assert sorted(one.values_list("email", flat=True).union(two.values_list("email", flat=True), all=True)) == emails
    assert sorted(one.union(two, all=True).values_list("email", flat=True)) == emails
    assert sorted(one.values_list("email", "pk").union(two.values_list("email", "pk"))) == [
        (each.email, each.pk) for each in Person.objects.exclude(name="n2").order_by("pk")
    ]
    assert sorted(each.email for each in one.union(two)) == emails


def test_a_union_is_counted_and_nested_as_ciphertext(people: Application) -> None:
    one, two = (Person.objects.filter(name=name).order_by() for name in ("n0", "n1"))
    both = one.values("email").union(two.values("email"), all=True)
    assert (both.count(), both.exists()) == (2, True)
    sorted_by_key = one.values_list("email", "pk").union(two.values_list("email", "pk")).order_by("-pk")
    assert [email for email, _ in sorted_by_key] == ["p1@example.org", "p0@example.org"]
    box = Person.objects.annotate(box=models.Subquery(both[:1])).order_by("pk")[0].box
    assert box.decrypt(record=Person.objects.get(name="n0").keystead_row) == "p0@example.org"


def test_a_union_under_a_plain_column_shows_no_value(people: Application) -> None:
    mixed = Person.objects.values("name").union(Person.objects.values("email"), all=True)
    if people.url.startswith("postgresql"):
        with pytest.raises(ProgrammingError):
            list(mixed)
    else:
        assert "example" not in str(list(mixed))


def test_a_value_is_plain_beside_what_the_database_computes(people: Application) -> None:
    numbered = Person.objects.annotate(at=models.Window(RowNumber(), order_by="pk"))
    assert list(numbered.values_list("email", "at")) == [(f"p{at}@example.org", at + 1) for at in range(3)]
    extra = Person.objects.order_by("pk").extra(select={"one": "1"})
    assert list(extra.values_list("one", "email")[:1]) == [(1, "p0@example.org")]
    query = pickle.loads(pickle.dumps(Person.objects.order_by("pk").values("email").query))
    again = Person.objects.all()
    again.query = query
    assert [row["email"] for row in again] == [f"p{at}@example.org" for at in range(3)]


def test_keys_are_needed_to_read_and_none_to_count(people: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_held", [])
    assert Person.objects.values("email").count() == 3
    with pytest.raises(ConfigurationError, match="KEYSTEAD"):
        list(Person.objects.values("email"))


def test_values_that_are_in_clear_still_are_read(app: Application) -> None:
    for at in range(2):
        key = "gen_random_uuid()" if app.url.startswith("postgresql") else f"'0000000000004000800000000000000{at}'"
        app.sql(f"INSERT INTO shop_visit (place_plain, keystead_row) VALUES (%s, {key})", f"=plâce.{at}")
    Visit.objects.create(place="sealed")
    Visit.objects.create(place=None)
    found = Visit.objects.order_by("pk").values_list("place", flat=True)
    assert list(found) == ["=plâce.0", "=plâce.1", "sealed", None]
    call_command("keystead_reencrypt", "shop.Visit", verbosity=0)
    assert list(found.all()) == ["=plâce.0", "=plâce.1", "sealed", None]
    connections["default"].close()


def test_a_value_in_clear_of_a_type_that_no_text_tells_is_refused(app: Application) -> None:
    with isolate_apps("tests.integrations.django.shop"):

        class Reading(models.Model):
            amount = EncryptedCharField(null=True, plaintext="amount_plain")
            amount_plain = models.FloatField(null=True)

            class Meta:
                app_label = "shop"

        with connections["default"].schema_editor() as editor:
            editor.create_model(Reading)
        Reading.objects.create(amount="sealed")
        assert Reading.objects.values_list("amount", flat=True).get() == "sealed"
        app.sql("UPDATE shop_reading SET amount = NULL, amount_plain = 0.1")
        with pytest.raises(InvalidInputError, match="load the objects"):
            Reading.objects.values_list("amount", flat=True).get()


def test_what_was_forgotten_is_not_passed_over(database: str, kms: FakeKMS, tmp_path: Path) -> None:
    with blocking.KeyManager(
        {"cloud": kms},
        default_key_id="app",
        store=f"sqlite:///{tmp_path}/keys.db",
        erasures=f"file://{tmp_path}/erasures.log",
    ) as km:
        bind(km)
        for name in ("ada", "bob"):
            Finding.objects.create(patient=Patient.objects.create(number=name, name=name), text=f"of {name}")
        assert sorted(Finding.objects.values_list("text", "patient__name")) == [("of ada", "ada"), ("of bob", "bob")]
        km.forget(Patient._meta.get_field("name").spec.subject_of("ada"))
        with pytest.raises(SubjectErasedError):
            list(Finding.objects.values_list("text", flat=True))
        assert list(Finding.objects.exclude(patient="ada").values_list("text", flat=True)) == ["of bob"]
