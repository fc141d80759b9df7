"""``manage.py keystead_status``: which fields are encrypted, and whether their rows open."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router

from keystead.errors import KMSError
from keystead.integrations.django.binding import current
from keystead.integrations.django.field import EncryptedField
from keystead.integrations.django.management.fields import add_labels, chosen


class Command(BaseCommand):
    """Decrypts one row of each field."""

    help = (
        "List the encrypted fields, and decrypt one row of each, so that a wrong store or a renamed column is an error "
        "now and not in the middle of a request."
    )

    def add_arguments(self, parser: Any) -> None:
        """Take fields."""
        add_labels(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Look at one field after the other."""
        wrong = 0
        for field in chosen(options["fields"]):
            state = self._state(field, options["database"] or router.db_for_write(field.model))
            wrong += state.startswith("does not")
            self.stdout.write(f"{field}: keyring {field.keyring}, {state}")
        if wrong:
            raise CommandError(
                "a row does not open. Either the table or column was renamed, and the declaration has to keep the "
                "former name, id='former_table.former_column'; or the store is another than the one these rows were "
                "encrypted with; or record=, tenant= or keyring= were changed; or the row was altered"
            )

    def _state(self, field: EncryptedField, alias: str) -> str:
        current()
        with connections[alias].cursor() as cursor:
            if field.model._meta.db_table not in connections[alias].introspection.table_names(cursor):
                return "no table yet"
        rows = field.model._base_manager.using(alias)
        obj = (rows if field.encrypt_null else rows.exclude(**{f"{field.name}__isnull": True})).first()
        if obj is None:
            return "no rows"
        try:
            getattr(obj, field.attname)
        except KMSError as exc:
            return f"does not open: {exc.code}"
        return "opens"
