"""Searches, uniqueness and edits hold while keys rotate and rows are re-encrypted."""

from __future__ import annotations

import threading
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connections, transaction

from keystead.blocking import reencrypt
from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import Everything, Letter, Member, Org, Person


def run(name: str, *given: str, **options: Any) -> str:
    said = StringIO()
    call_command(name, *given, stdout=said, stderr=said, **options)
    return said.getvalue()


@pytest.fixture
def rotated(app: Application) -> Application:
    """One row from before the rotation of both its keys began, and one from after."""
    for name in ("before", "after"):
        Person.objects.create(name=name, email=f"{name}@example.org", note=f"written {name}")
        app.km.rotate_index_key()
        app.km.keyring("people").rotate()
        app.km.run_due()
    return app


def test_rows_from_before_and_after_are_found_and_read(rotated: Application) -> None:
    assert rotated.sql("SELECT count(email_exact_0), count(email_exact_1) FROM shop_person") == [(1, 2)]
    for name, other in (("before", "after"), ("after", "before")):
        address = f"{name}@example.org"
        for lookups in (
            {"email": address},
            {"email__in": [address]},
            {"email__iexact": address.upper()},
            {"email__istartswith": name[:3]},
            {"note__has_token": name},
        ):
            assert [each.email for each in Person.objects.filter(**lookups)] == [address]
        assert [each.name for each in Person.objects.exclude(email=address)] == [other]
        with pytest.raises(IntegrityError), transaction.atomic():
            Person.objects.create(email=address)


def test_a_row_that_is_changed_gets_every_live_index(rotated: Application) -> None:
    person = Person.objects.get(name="before")
    person.name = "not the value"
    person.save()
    assert rotated.sql("SELECT count(email_exact_0), count(email_exact_1) FROM shop_person") == [(1, 2)]
    person.email = "changed@example.org"
    person.save()
    assert rotated.sql("SELECT count(email_exact_0), count(email_exact_1) FROM shop_person") == [(2, 2)]


def test_the_commands_bring_every_row_to_the_new_keys(rotated: Application) -> None:
    org = Org.objects.create(name="acme")
    Member.objects.create(number="m", org=org, email="eve@example.org")
    Letter.objects.create(subject="s")
    assert "version" in run("keystead_rotate", "default")
    assert "rows, about" in run("keystead_reencrypt", "shop.Person", plan=True)
    before = rotated.sql("SELECT email FROM shop_person ORDER BY id")
    assert "2 rewritten" in run("keystead_reencrypt", "shop.Person.email", dry_run=True)
    assert rotated.sql("SELECT email FROM shop_person ORDER BY id") == before
    assert "shop.Person.email: 2 rewritten" in run("keystead_reencrypt", rate=10_000.0)
    # The index key's rotation ended with it; the next run empties the columns of the former version.
    assert "2 rewritten" in run("keystead_reencrypt", "shop.Person.email", verbosity=2)
    assert "0 rewritten" in run("keystead_reencrypt", "shop.Person.email")
    assert rotated.sql("SELECT count(email_exact_0), count(email_exact_1) FROM shop_person") == [(2, 0)]
    versions = {each.version for each in rotated.km.keyring("people").versions() if each.state == "active"}
    for person in Person.objects.all():
        assert person.email == f"{person.name}@example.org"
        assert Person.objects.get(note__has_token=person.name) == person
    assert len(versions) == 1
    assert "shop.Letter.subject: keyring default, opens" in run("keystead_status")
    known = {each.id for each in rotated.km.fields()}
    assert known >= {"shop_person.email", "shop_member.email", "shop_letter.subject"}


def test_status_tells_a_row_that_does_not_open(app: Application) -> None:
    Letter.objects.create(subject="s")
    app.sql("UPDATE shop_letter SET subject = mood")
    with pytest.raises(CommandError, match="does not open"):
        run("keystead_status", "shop.Letter")
    with pytest.raises(CommandError, match="left as they are"):
        run("keystead_reencrypt", "shop.Letter.subject")
    with pytest.raises(CommandError, match="no encrypted field is called"):
        run("keystead_reencrypt", "shop.Nothing")


def test_an_edit_wins_over_a_re_encryption_of_its_row(app: Application) -> None:
    made = [Letter.objects.create(subject=f"old {at}") for at in range(60)]
    app.km.rotate_data_key()
    app.km.run_due()
    failures: list[BaseException] = []
    stop = threading.Event()
    edits: dict[Any, str] = {}

    def edit() -> None:
        try:
            turn = 0
            while not stop.is_set():
                for letter in made[::3]:
                    mine = Letter.objects.get(pk=letter.pk)
                    mine.subject = f"turn {turn} of {letter.pk}"[:40]
                    mine.save()
                    edits[letter.pk] = mine.subject
                for letter in made[1::3]:
                    theirs = Letter.objects.get(pk=letter.pk)
                    theirs.mood = f"mood {turn}"[:10]
                    theirs.save()
                turn += 1
        except BaseException as exc:
            failures.append(exc)
        finally:
            connections["default"].close()

    own = connections["default"]
    editing = threading.Thread(target=_with_connection, args=(own, edit))
    editing.start()
    try:
        for _ in range(3):
            reencrypt(app.km, app.url, Letter._meta.get_field("subject").spec, batch_rows=7)
            app.km.rotate_data_key()
            app.km.run_due()
    finally:
        stop.set()
        editing.join()
    assert failures == []
    for letter in Letter.objects.all():
        assert letter.subject == edits.get(letter.pk, next(each.subject for each in made if each.pk == letter.pk))
        assert Letter.objects.get(subject=letter.subject) == letter
    assert reencrypt(app.km, app.url, Letter._meta.get_field("subject").spec).is_complete


def _with_connection(own: Any, work: Any) -> None:
    connections["default"] = own.copy()
    connections["default"].inc_thread_sharing()
    work()


def test_fields_of_everything_keep_their_values(app: Application) -> None:
    Everything.objects.create(char="x", integer=-5, flag=True)
    app.km.rotate_index_key()
    app.km.run_due()
    assert "1 rewritten" in run("keystead_reencrypt", "shop.Everything.integer")
    assert Everything.objects.get(char="x", integer=-5, flag=True).integer == -5
