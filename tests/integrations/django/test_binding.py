"""The application finds its keys, and others find its rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from keystead import KeyManager, blocking
from keystead.errors import ConfigurationError
from keystead.integrations.django import bind, binding
from keystead.integrations.django.located import url_of
from keystead.testing import FakeKMS
from tests.integrations.django.conftest import Application, with_tables
from tests.integrations.django.shop.models import Letter, Person


def made_elsewhere() -> blocking.KeyManager:
    """Return a manager, as a setting names it."""
    return blocking.KeyManager(
        {"cloud": FakeKMS()}, default_key_id="app", store="memory://", erasures=f"sqlite:///{_erasures}"
    )


_erasures = ""


@pytest.mark.parametrize("kind", ["manager", "kms"])
def test_keys_are_found_by_the_settings_at_first_use(
    database: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(f"{__name__}._erasures", f"{tmp_path}/erasures.db")
    given: dict[str, Any] = {"manager": f"{__name__}.made_elsewhere"}
    if kind == "kms":
        erasures = f"file://{tmp_path}/erasures.log"
        given = {"kms": "local:", "store": f"sqlite:///{tmp_path}/keys.db", "erasures": erasures}
    monkeypatch.setattr(settings, "KEYSTEAD", {**given, "database": "app:shop"}, raising=False)
    monkeypatch.setattr(binding, "_held", [])
    assert binding.is_bound()
    Person.objects.create(email="a@example.org")
    assert Person.objects.get(email="a@example.org").email == "a@example.org"
    km = binding.current().km
    assert {each.locator for each in km.fields()} == {"app:shop"}
    km.close()


def test_a_manager_for_async_code_is_refused(kms: FakeKMS) -> None:
    with pytest.raises(ConfigurationError, match=r"blocking\.KeyManager"):
        bind(KeyManager({"cloud": kms}, default_key_id="app", store="memory://"))  # type: ignore[arg-type]


def test_an_object_goes_into_another_database_with_its_values(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "other.db")}
    configured = connections.configure_settings({"default": given, "other": given})["other"]
    monkeypatch.setitem(connections.settings, "other", configured)
    connections["other"] = connections.create_connection("other")
    with_tables("other")
    made = Letter.objects.create(subject="hello")
    loaded = Letter.objects.get()
    loaded.save(using="other")
    assert Letter.objects.using("other").get(subject="hello").mood == "calm"
    there = Letter.objects.using("other").get()
    there.subject = "changed"
    there.save()
    here = Letter.objects.get(pk=made.pk)
    here.save(using="other")
    assert Letter.objects.using("other").get(subject="hello") == here
    places = {each.locator for each in app.km.fields() if each.id.startswith("shop_letter.subject")}
    assert len(places) == 2
    assert any("other.db" in place for place in places)
    connections["other"].close()
    del connections["other"]


def test_a_database_is_found_by_its_settings() -> None:
    given = {"NAME": "shop", "USER": "app", "PASSWORD": "p@ss", "HOST": "db", "PORT": "5433"}
    options = {"service": "s", "sslmode": "require", "isolation_level": 2}
    postgres = SimpleNamespace(vendor="postgresql", settings_dict={**given, "OPTIONS": options})
    assert url_of(postgres) == "postgresql://app@db:5433/shop?service=s&sslmode=require"
    assert url_of(postgres, with_password=True) == "postgresql://app:p%40ss@db:5433/shop?service=s&sslmode=require"
    socket = SimpleNamespace(vendor="postgresql", settings_dict={**given, "HOST": "/run/pg", "PORT": "", "OPTIONS": {}})
    assert url_of(socket) == "postgresql://app@/shop?host=%2Frun%2Fpg"
    with pytest.raises(ConfigurationError, match="app:<name>"):
        url_of(SimpleNamespace(vendor="mysql", settings_dict=given))
