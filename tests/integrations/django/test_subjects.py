"""What is about one person is under that person's keys, and gone when the person is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from keystead import blocking
from keystead.errors import InvalidInputError, SubjectErasedError
from keystead.integrations.django import bind
from keystead.testing import FakeKMS
from tests.integrations.django.shop.models import Finding, Patient


def test_forgetting_a_person_leaves_the_others(database: str, kms: FakeKMS, tmp_path: Path) -> None:
    with blocking.KeyManager(
        {"cloud": kms},
        default_key_id="app",
        store=f"sqlite:///{tmp_path}/keys.db",
        erasures=f"file://{tmp_path}/erasures.log",
    ) as km:
        bind(km)
        ada, bob = (Patient.objects.create(number=name, name=name) for name in ("ada", "bob"))
        Finding.objects.create(patient=ada, text="of ada")
        moved = Finding.objects.create(patient=bob, text="moved to ada")
        Finding.objects.bulk_create([Finding(patient=bob, text="of bob"), Finding(patient=ada, text="also of ada")])
        moved = Finding.objects.get(pk=moved.pk)
        moved.patient = ada
        with pytest.raises(InvalidInputError, match="bound to"):
            moved.save(update_fields=["patient"])
        moved.save()
        assert Finding.objects.get(text="moved to ada").text == "moved to ada"
        km.forget(Patient._meta.get_field("name").spec.subject_of("ada"))
        with pytest.raises(SubjectErasedError):
            _ = Patient.objects.get(number="ada").name
        for finding in Finding.objects.filter(patient=ada):
            with pytest.raises(SubjectErasedError):
                _ = finding.text
            finding.save()
        assert not Finding.objects.filter(text__in=["of ada", "also of ada", "moved to ada"]).exists()
        assert Finding.objects.get(text="of bob").text == "of bob"
        assert Patient.objects.get(name="bob").name == "bob"
