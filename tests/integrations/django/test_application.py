"""What an application does with its models: forms, the admin, fixtures, async views, forks."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connections
from django.test import Client

from keystead import blocking
from keystead.integrations.django import bind
from keystead.testing import FakeKMS
from tests.integrations.django.conftest import Application
from tests.integrations.django.shop.models import Everything, Member, Org, Person

pytestmark = pytest.mark.filterwarnings("ignore:.*:ResourceWarning")


class PersonForm(forms.ModelForm):
    class Meta:
        model = Person
        fields = "__all__"


@pytest.fixture
def client(app: Application) -> Client:
    made = Client()
    made.force_login(User.objects.create_superuser("root"))
    return made


def test_a_form_has_the_fields_and_nothing_beside_them(app: Application) -> None:
    assert list(PersonForm().fields) == ["name", "email", "note", "profile"]
    assert isinstance(PersonForm().fields["email"], forms.EmailField)
    form = PersonForm({"name": "n", "email": "a@example.org", "note": "", "profile": '{"a": 1}'})
    form.save()
    person = Person.objects.get(email="a@example.org")
    assert (person.note, person.profile) == ("", {"a": 1})
    changed = PersonForm({"name": "n", "email": "b@example.org", "note": "x"}, instance=person)
    assert changed.is_valid()
    assert set(changed.changed_data) == {"email", "note", "profile"}
    changed.save()
    assert Person.objects.get(email="b@example.org").note == "x"


def test_a_form_refuses_a_value_that_another_row_has(app: Application) -> None:
    one, two = Person.objects.create(email="one@example.org"), Person.objects.create(email="two@example.org")
    form = PersonForm({"name": "n", "email": "one@example.org"}, instance=two)
    assert form.errors == {"email": ["person with this email already exists."]}
    assert PersonForm({"name": "n", "email": "one@example.org"}, instance=one).is_valid()
    acme = Org.objects.create(name="acme")
    Member.objects.create(number="m", org=acme, email="eve@example.org")
    with pytest.raises(ValidationError):
        Member(number="n", org=acme, email="eve@example.org").full_clean()
    Member(number="n", org=Org.objects.create(name="other"), email="eve@example.org").full_clean()
    with pytest.raises(ValidationError):
        Person(name="n", email="no address").full_clean()


def test_the_admin_lists_searches_and_edits(app: Application, client: Client) -> None:
    for at in range(3):
        Person.objects.create(name=f"n{at}", email=f"p{at}@example.org", note="likes tea")
    listed = client.get("/admin/shop/person/").content.decode()
    assert "p1@example.org" in listed
    for sought, found in (("p1@example.org", {1}), ("P1@EXAMPLE.ORG", {1}), ("nobody", set())):
        page = client.get("/admin/shop/person/", {"q": sought}).content.decode()
        assert {at for at in range(3) if f"p{at}@example.org" in page} == found, sought
    person = Person.objects.get(name="n1")
    page = client.get(f"/admin/shop/person/{person.pk}/change/").content.decode()
    assert 'value="p1@example.org"' in page
    assert "keystead_row" not in page
    assert "exact_0" not in page
    taken = {"name": "n1", "email": "p2@example.org", "note": "", "profile": "null"}
    assert "already exists" in client.post(f"/admin/shop/person/{person.pk}/change/", taken).content.decode()
    given = {"name": "n1", "email": "new@example.org", "note": "", "profile": "null"}
    assert client.post(f"/admin/shop/person/{person.pk}/change/", given).status_code == 302
    assert Person.objects.get(email="new@example.org").name == "n1"
    assert client.post("/admin/shop/person/add/", {**given, "email": "x@example.org"}).status_code == 302
    assert client.post(f"/admin/shop/person/{person.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Person.objects.filter(email="new@example.org").exists()


def test_the_admin_filters_by_what_is_indexed(app: Application, client: Client) -> None:
    Everything.objects.create(text="is marked", flag=True)
    Everything.objects.create(text="is plain", flag=False)
    page = client.get("/admin/shop/everything/", {"flag__exact": "1"}).content.decode()
    assert ("is marked" in page, "is plain" in page) == (True, False)


def test_a_fixture_holds_values_and_is_sealed_anew_when_it_is_loaded(app: Application, tmp_path: Path) -> None:
    acme = Org.objects.create(name="acme")
    person = Person.objects.create(name="n", email="a@example.org", note="likes tea", profile={"a": [1]})
    Member.objects.create(number="m", org=acme, email="eve@example.org")
    Everything.objects.create(blob=b"\x00\xff", integer=2**70)
    said = StringIO()
    call_command("dumpdata", "shop", stdout=said)
    dumped: list[dict[str, Any]] = json.loads(said.getvalue())
    [fields] = [each["fields"] for each in dumped if each["model"] == "shop.person"]
    assert fields == {"name": "n", "email": "a@example.org", "note": "likes tea", "profile": {"a": [1]}}
    fixture = tmp_path / "shop.json"
    wanted = ("shop.person", "shop.member", "shop.org", "shop.everything")
    fixture.write_text(json.dumps([each for each in dumped if each["model"] in wanted]))
    call_command("loaddata", str(fixture), verbosity=0)
    assert Person.objects.get().keystead_row == person.keystead_row
    Person.objects.all().delete()
    Everything.objects.all().delete()
    call_command("loaddata", str(fixture), verbosity=0)
    loaded = Person.objects.get(email="a@example.org", note__has_token="tea")
    assert (loaded.pk, loaded.note, loaded.profile) == (person.pk, "likes tea", {"a": [1]})
    assert (Everything.objects.get().blob, Everything.objects.get().integer) == (b"\x00\xff", 2**70)
    assert Member.objects.get().email == "eve@example.org"
    assert not [row for row in app.sql("SELECT email FROM shop_person") if b"example" in bytes(row[0])]


async def test_an_async_view_reads_without_waiting(app: Application) -> None:
    if app.url.startswith("sqlite"):
        made = await Person.objects.acreate(email="a@example.org", note="likes tea")
        person = await Person.objects.aget(email="a@example.org")
        assert (person.email, person.note, person) == ("a@example.org", "likes tea", made)
        person.email = "b@example.org"
        await person.asave()
        assert await Person.objects.filter(email="b@example.org").acount() == 1
        await sync_to_async(connections.close_all)()


def test_a_worker_that_was_forked_reads_and_writes(database: str, kms: FakeKMS, tmp_path: Path) -> None:
    store, erasures = f"sqlite:///{tmp_path}/keys.db", f"file://{tmp_path}/erasures.log"
    with blocking.KeyManager({"cloud": kms}, default_key_id="app", store=store, erasures=erasures) as km:
        bind(km)
        Person.objects.create(email="before@example.org")
        connections["default"].close()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert Person.objects.get(email="before@example.org").email == "before@example.org"
                Person.objects.create(email="child@example.org", note="of the child")
                connections["default"].close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        _see_that_the_child_wrote()


def _see_that_the_child_wrote() -> None:
    assert Person.objects.get(email="child@example.org", note__has_token="child").note == "of the child"
