"""Models of an application whose fields are encrypted in every way there is."""

from __future__ import annotations

import uuid

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from keystead.integrations.django import (
    EncryptedBinaryField,
    EncryptedBooleanField,
    EncryptedCharField,
    EncryptedDateField,
    EncryptedDateTimeField,
    EncryptedDecimalField,
    EncryptedEmailField,
    EncryptedFloatField,
    EncryptedIntegerField,
    EncryptedJSONField,
    EncryptedTextField,
    EncryptedURLField,
    EncryptedUUIDField,
    Exact,
    Normalised,
    Prefix,
    Tokens,
)


class Person(models.Model):
    """Its key is drawn by the database, so that it has a row key."""

    name = models.CharField(max_length=50, default="")
    email = EncryptedEmailField(unique=True, indexes=[Normalised(as_="email"), Prefix(length=3)], keyring="people")
    note = EncryptedTextField(null=True, blank=True, indexes=[Tokens()])
    profile = EncryptedJSONField(null=True, blank=True, encoder=DjangoJSONEncoder)

    def __str__(self) -> str:
        return self.name


class Letter(models.Model):
    """Its key is drawn by Python, so that it is the record."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    person = models.ForeignKey(Person, models.CASCADE, null=True, related_name="letters")
    subject = EncryptedCharField(max_length=40, indexes=[Exact()])
    mood = EncryptedCharField(max_length=10, null=True, default="calm")


class Org(models.Model):
    """A tenant."""

    name = models.CharField(max_length=50)


class Member(models.Model):
    """Of one tenant, and under its keyring."""

    number = models.CharField(primary_key=True, max_length=20)
    org = models.ForeignKey(Org, models.CASCADE)
    email = EncryptedEmailField(unique=True, tenant="org", keyring="members-{tenant}", indexes=[Tokens()])


class Secret(models.Model):
    """Of two key columns; and nobody sees which have no remark."""

    pk = models.CompositePrimaryKey("shop", "number")
    shop = models.CharField(max_length=20)
    number = models.IntegerField()
    remark = EncryptedCharField(null=True, encrypt_null=True, indexes=[Exact()])


class Everything(models.Model):
    """One of each type."""

    text = EncryptedTextField(null=True)
    char = EncryptedCharField(max_length=20, null=True, indexes=[Exact()])
    email = EncryptedEmailField(null=True)
    url = EncryptedURLField(null=True)
    integer = EncryptedIntegerField(null=True, indexes=[Exact()])
    decimal = EncryptedDecimalField(max_digits=9, decimal_places=2, null=True)
    number = EncryptedFloatField(null=True)
    flag = EncryptedBooleanField(null=True, indexes=[Exact()])
    day = EncryptedDateField(null=True, indexes=[Exact()])
    moment = EncryptedDateTimeField(null=True)
    code = EncryptedUUIDField(null=True, indexes=[Exact()])
    blob = EncryptedBinaryField(null=True)
    json = EncryptedJSONField(null=True)


class Reachable(models.Model):
    """An abstract base."""

    phone = EncryptedCharField(max_length=20, indexes=[Normalised(as_="phone")])

    class Meta:
        abstract = True


class Customer(Reachable):
    """A concrete one, with a table of its own."""

    code = models.SlugField(primary_key=True)


class Animal(models.Model):
    """A parent table."""

    name = EncryptedCharField(max_length=20, indexes=[Exact()])


class Dog(Animal):
    """In a table of its own."""

    chip = EncryptedCharField(max_length=20, unique=True)


class Visit(models.Model):
    """In the midst of being encrypted."""

    place = EncryptedCharField(max_length=40, null=True, unique=True, plaintext="place_plain")
    place_plain = models.CharField(max_length=40, null=True)


class Patient(models.Model):
    """Each of them may be forgotten."""

    name = EncryptedCharField(per_subject=True, record="number", subject_kind="patient", indexes=[Exact()])
    number = models.CharField(primary_key=True, max_length=20)


class Finding(models.Model):
    """About one of them."""

    patient = models.ForeignKey(Patient, models.CASCADE)
    text = EncryptedTextField(subject="patient", subject_kind="patient", indexes=[Exact()])
