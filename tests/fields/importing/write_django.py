"""Write rows with real fields of Django libraries, in a process of its own: settings are made once in a process.

The arguments are the database's file and the library; printed is its version.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from importlib.metadata import version
from typing import Any

import django
from django.conf import settings

DISTRIBUTIONS = {
    "django_cryptography": "django-cryptography-django5",
    "encrypted_fields": "django-fernet-encrypted-fields",
    "fernet_fields": "django-fernet-fields-v2",
}
SECRET = "a secret key of the application, and a former one"
FORMER = "the former secret key"
SALT = "the salt key"
VALUES = {
    "name": "Ada Lovelace, née Byron ✓",
    "mail": "ada@example.org",
    "number": -42,
    "born": date(1815, 12, 10),
    "seen": datetime(2026, 2, 1, 8, 15, 30, 123456, tzinfo=UTC),
}


def main() -> None:
    """Make a table and write one row, under the settings as they were before a rotation and after it."""
    file, library, secret = sys.argv[1:4]
    settings.configure(
        SECRET_KEY=secret,
        SALT_KEY=SALT,
        USE_TZ=True,
        INSTALLED_APPS=[],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": file}},
    )
    django.setup()
    from importlib import import_module

    from django.db import connection

    kinds, models = import_module(f"{library}.fields"), import_module("django.db.models")

    def of(kind: str) -> Any:
        """Return a field of the library for one of Django's."""
        if library == "django_cryptography":
            return kinds.encrypt(getattr(models, kind)())
        return getattr(kinds, f"Encrypted{kind}")()

    class Person(models.Model):  # type: ignore[name-defined,misc]  # of a module that is known at run time
        """A person."""

        name = of("TextField")
        mail = of("EmailField")
        number = of("IntegerField")
        born = of("DateField")
        seen = of("DateTimeField")

        class Meta:
            """Where it lies."""

            app_label = "people"
            db_table = "people"

    if "people" not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Person)
    made = Person.objects.create(**VALUES)
    assert Person.objects.get(pk=made.pk).name == VALUES["name"]
    print(version(DISTRIBUTIONS[library]))


if __name__ == "__main__":
    main()
