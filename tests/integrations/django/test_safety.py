"""A ciphertext opens where it was written, and nowhere else; nothing is lost, and nothing written past the keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connections, models, transaction

from keystead import blocking
from keystead.errors import ConfigurationError, DecryptionError, InvalidInputError, StaleViewError
from keystead.integrations.django import bind, binding
from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import Everything, Letter, Member, Org, Person, Secret


def test_a_ciphertext_in_another_row_does_not_open(app: Application) -> None:
    for name in ("one", "two"):
        Letter.objects.create(subject=name)
    app.sql("UPDATE shop_letter SET subject = (SELECT subject FROM shop_letter ORDER BY id LIMIT 1)")
    first, second = Letter.objects.order_by("id")
    assert first.subject in ("one", "two")
    with pytest.raises(DecryptionError):
        _ = second.subject
    assert isinstance(second.mood, str)


def test_a_ciphertext_in_another_column_does_not_open(app: Application) -> None:
    Letter.objects.create(subject="calm", mood="calm")
    app.sql("UPDATE shop_letter SET mood = subject")
    with pytest.raises(DecryptionError):
        _ = Letter.objects.get().mood


def test_a_ciphertext_of_another_tenant_does_not_open(app: Application) -> None:
    orgs = [Org.objects.create(name=name) for name in ("acme", "other")]
    Member.objects.create(number="m", org=orgs[0], email="eve@example.org")
    app.sql("UPDATE shop_member SET org_id = %s", orgs[1].pk)
    with pytest.raises(DecryptionError):
        _ = Member.objects.get().email


def test_altered_bytes_do_not_open(app: Application) -> None:
    made = Person.objects.create(email="a@example.org")
    [(column,)] = app.sql("SELECT email FROM shop_person")
    app.sql("UPDATE shop_person SET email = %s", bytes(column)[:-1] + bytes([bytes(column)[-1] ^ 1]))
    person = Person.objects.get(pk=made.pk)
    with pytest.raises(DecryptionError):
        _ = person.email
    person.name = "still saved"
    person.save()
    assert Person.objects.get().name == "still saved"


def test_a_value_in_clear_in_the_column_is_an_error(app: Application) -> None:
    Person.objects.create(email="a@example.org")
    app.sql("UPDATE shop_person SET email = %s", b"a@example.org")
    with pytest.raises(DecryptionError):
        _ = Person.objects.get().email


def test_an_envelope_is_not_encrypted_twice(app: Application) -> None:
    Everything.objects.create(text="x", blob=b"y")
    [(text, blob)] = app.sql("SELECT text, blob FROM shop_everything")
    with pytest.raises(InvalidInputError, match="ciphertext of this store already"):
        Everything.objects.create(blob=bytes(blob))
    with pytest.raises(InvalidInputError, match="takes text"):
        Everything.objects.create(text=bytes(text))


def test_a_box_of_another_row_is_opened_or_refused_and_never_written(app: Application) -> None:
    one, two = Person.objects.create(email="one@example.org"), Person.objects.create(email="two@example.org")
    box = Person.objects.annotate(box=models.F("email")).get(pk=one.pk).box
    loaded = Person.objects.get(pk=two.pk)
    loaded.email = box
    with pytest.raises(DecryptionError):
        loaded.save()
    with pytest.raises(DecryptionError):
        Person(email=box).save()
    assert [each.email for each in Person.objects.order_by("pk")] == ["one@example.org", "two@example.org"]


def test_a_tenant_changes_with_the_values_bound_to_it(app: Application) -> None:
    acme, other = Org.objects.create(name="acme"), Org.objects.create(name="other")
    Member.objects.create(number="m", org=acme, email="eve@example.org")
    member = Member.objects.get()
    member.org = other
    with pytest.raises(InvalidInputError, match="bound to"):
        member.save(update_fields=["org"])
    member.save()
    assert (Member.objects.get().email, Member.objects.get().org) == ("eve@example.org", other)
    member.refresh_from_db()
    member.email = "eva@example.org"
    app.sql("UPDATE shop_member SET org_id = %s", acme.pk)
    with pytest.raises(DatabaseError, match="did not affect any rows"):
        member.save(update_fields=["email"])


def test_a_row_under_another_key_is_written_anew(app: Application) -> None:
    one, two = Person.objects.create(email="one@example.org"), Person.objects.create(email="two@example.org")
    loaded = Person.objects.get(pk=one.pk)
    one.delete()
    loaded.pk = two.pk
    loaded.save()
    assert Person.objects.get().email == "one@example.org"
    assert Person.objects.get(email="one@example.org").pk == two.pk


def test_nothing_of_a_value_is_said_anywhere(app: Application, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connections["default"].force_debug_cursor = True
    try:
        person = Person(email="confidential@example.org", note="classified words")
        person.save()
        person.email = "restricted@example.org"
        person.save()
        list(Person.objects.filter(email="restricted@example.org", note__has_token="classified"))
        sent = str(connections["default"].queries)
    finally:
        connections["default"].force_debug_cursor = False
    query = Person.objects.filter(email="restricted@example.org")
    shown = sent + caplog.text + str(query.query) + repr(query.query.where) + repr(vars(Person.objects.get()))
    for secret in ("confidential", "classified", "restricted"):
        assert secret not in shown
    with connections["default"].cursor() as cursor:
        for table in connections["default"].introspection.table_names(cursor):
            rows = app.sql(f'SELECT * FROM "{table}"')
            assert not [each for row in rows for each in row if b"restricted" in _bytes(each)]


def _bytes(value: Any) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()


def test_without_keys_rows_are_listed_and_nothing_is_read_or_written(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    Person.objects.create(email="a@example.org", name="n")
    monkeypatch.setattr(binding, "_held", [])
    [person] = Person.objects.all()
    assert person.name == "n"
    unbound: dict[str, Callable[[], Any]] = {
        "read": lambda: person.email,
        "write": lambda: Person.objects.create(email="b@example.org"),
        "search": lambda: Person.objects.filter(email="a@example.org").exists(),
    }
    for call in unbound.values():
        with pytest.raises(ConfigurationError, match="KEYSTEAD"):
            call()
    person.name = "m"
    person.save()
    assert Person.objects.get().name == "m"


def test_another_store_opens_nothing(app: Application, kms: Any) -> None:
    Person.objects.create(email="a@example.org")
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store="memory://") as km:
        bind(km)
        with pytest.raises(DecryptionError):
            _ = Person.objects.get().email
        assert not Person.objects.filter(email="a@example.org").exists()


def test_a_record_that_is_missing_is_refused_before_anything_is_written(app: Application) -> None:
    with pytest.raises(InvalidInputError, match="has no id yet"):
        Secret(shop="", number=1, remark="x").save(force_insert=True)
    assert not Secret.objects.exists()
    letter = Letter(id=None, subject="s")
    letter.save()
    assert Letter.objects.get().subject == "s"


def test_a_transaction_that_a_rotation_overtook_is_done_again(app: Application) -> None:
    def write() -> None:
        with transaction.atomic():
            Everything.objects.create(char="slow")
            if not rotated:
                rotated.append(True)
                app.km.rotate_index_key()
                app.km.run_due()

    rotated: list[bool] = []
    with pytest.raises(StaleViewError, match="do the transaction again"):
        write()
    assert not Everything.objects.exists()
    write()
    assert app.sql("SELECT count(char_exact_0), count(char_exact_1) FROM shop_everything") == [(1, 1)]
    assert Everything.objects.get(char="slow").char == "slow"


def test_a_row_that_another_gave_to_another_tenant_stays_readable(app: Application) -> None:
    acme, other = Org.objects.create(name="acme"), Org.objects.create(name="other")
    Member.objects.create(number="m", org=acme, email="eve@example.org")
    mine, theirs = Member.objects.get(), Member.objects.get()
    theirs.org = other
    theirs.save()
    mine.save()
    assert (Member.objects.get().email, Member.objects.get().org) == ("eve@example.org", acme)


def test_a_deferred_value_follows_its_tenant(app: Application) -> None:
    acme, other = Org.objects.create(name="acme"), Org.objects.create(name="other")
    Member.objects.create(number="m", org=acme, email="eve@example.org")
    member = Member.objects.defer("email").get()
    member.org = other
    member.save()
    assert (Member.objects.get().email, Member.objects.get().org) == ("eve@example.org", other)


def test_a_save_that_failed_leaves_no_way_past_the_words(app: Application) -> None:
    Person.objects.create(email="a@example.org")
    person = Person(email="a@example.org", note="words")
    with pytest.raises(IntegrityError), transaction.atomic():
        person.save()
    person.email = "b@example.org"
    with pytest.raises(InvalidInputError, match="words are rows"):
        Person.objects.bulk_create([person])
