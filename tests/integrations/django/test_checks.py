"""A declaration that cannot be is told when it is declared, or by the system checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.core import checks
from django.db import models
from django.test.utils import isolate_apps

from keystead.errors import InvalidInputError
from keystead.integrations.django import (
    EncryptedCharField,
    EncryptedIntegerField,
    EncryptedJSONField,
    Exact,
    Normalised,
    Tokens,
    binding,
)
from tests.integrations.django.shop.models import Org, Person


@pytest.mark.parametrize(
    "declare",
    [
        lambda: EncryptedCharField(primary_key=True),
        lambda: EncryptedCharField(db_index=True),
        lambda: EncryptedCharField(db_default="x"),
        lambda: EncryptedCharField(db_collation="C"),
        lambda: EncryptedCharField(unique_for_date="day"),
        lambda: EncryptedIntegerField(indexes=[Normalised()]),
        lambda: EncryptedJSONField(unique=True),
    ],
)
def test_an_option_that_cannot_go_with_ciphertext_is_refused(declare: Callable[[], Any]) -> None:
    with pytest.raises(InvalidInputError):
        declare()


def _problems(**members: Any) -> set[str]:
    with isolate_apps("tests.integrations.django.shop"):
        base = {"__module__": "tests.integrations.django.shop.models", "Meta": type("Meta", (), {"app_label": "shop"})}
        made: Any = type("Wrong", (models.Model,), base | members)
        return {each.id for each in made.check()}


def test_wrong_declarations_are_told_by_the_checks() -> None:
    assert _problems(secret=EncryptedCharField(), name=models.CharField(max_length=3)) == set()
    assert _problems(secret=EncryptedCharField(record="nothing")) == {"keystead.E001"}
    assert _problems(secret=EncryptedCharField(record="price"), price=models.FloatField()) == {"keystead.E001"}
    assert _problems(secret=EncryptedCharField(keyring="k-{tenant}")) == {"keystead.E001"}
    assert _problems(secret=EncryptedCharField(plaintext="clear")) == {"keystead.E001"}
    clear = models.CharField(max_length=3)
    assert _problems(secret=EncryptedCharField(plaintext="clear"), clear=clear) == {"keystead.E004"}
    org = models.ForeignKey(Org, models.SET_NULL, null=True)
    assert _problems(secret=EncryptedCharField(tenant="org"), org=org) >= {"keystead.E003"}
    two = {"a": models.IntegerField(), "b": models.IntegerField(), "pk": models.CompositePrimaryKey("a", "b")}
    assert _problems(secret=EncryptedCharField(indexes=[Exact()]), **two) == set()


def test_options_that_would_compare_ciphertext_are_told_by_the_checks() -> None:
    for options in (
        {"ordering": ["-secret"]},
        {"unique_together": [("secret", "name")]},
        {"indexes": [models.Index(fields=["secret"], name="on_secret")]},
        {"constraints": [models.UniqueConstraint(fields=["name", "secret"], name="of_both")]},
    ):
        meta = type("Meta", (), {"app_label": "shop", **options})
        found = _problems(secret=EncryptedCharField(), name=models.CharField(max_length=3), Meta=meta)
        assert found == {"keystead.E007"}, options


def test_tokens_need_one_record_column() -> None:
    two = {"a": models.IntegerField(), "b": models.IntegerField(), "pk": models.CompositePrimaryKey("a", "b")}
    assert _problems(secret=EncryptedCharField(indexes=[Tokens()]), **two) == {"keystead.E002"}


def test_fields_without_keys_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_held", [])
    assert [each.id for each in checks.run_checks(tags=["keystead"])] == ["keystead.W001"]
    assert checks.run_checks(tags=["models"]) == []


def test_an_admin_that_offers_to_sort_ciphertext_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_held", [object()])
    assert checks.run_checks(tags=["keystead"]) == []
    model_admin = admin.site._registry[Person]
    for offered, by in ((None, ("name",)), (("name", "email"), ("name",))):
        monkeypatch.setattr(model_admin, "sortable_by", offered)
        monkeypatch.setattr(model_admin, "list_display", ("name", "email"))
        [found] = checks.run_checks(tags=["keystead"])
        assert (found.id, str(by) in str(found.hint)) == ("keystead.W002", True)
